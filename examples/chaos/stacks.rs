//! The clients, each with the layer around it, over one provider.

use crate::{
    authority::Authority,
    content::{self, Slow},
    echo::echo_client::EchoClient,
    grpc,
    handler::{FORBIDDEN, ID, LENGTH, SEND},
    mesh,
    wire::Wire,
    world::{Stack, World},
};
use bytes::Bytes;
use fastrand::Rng;
use futures_util::future::BoxFuture;
use http::{HeaderMap, Request, Response, Uri};
use http_body_util::{BodyExt, Collected, Either, Full, combinators::BoxBody};
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client as Legacy, connect::HttpConnector},
    rt::TokioExecutor,
};
use std::sync::Arc;
use tonic::{
    Code,
    transport::{Channel, Endpoint},
};
use tower::{Layer, ServiceExt};
use tower_jwt_refresh::{BoxError, JwtRefresh, JwtRefreshLayer, Origin, TokenProvider};

type Hyper = JwtRefresh<Wire<Legacy<HttpsConnector<HttpConnector>, Upload>>>;
type Upload = Either<Full<Bytes>, BoxBody<Bytes, BoxError>>;

#[derive(Clone)]
pub struct Client {
    world: Arc<World>,
    service: Service,
    /// The API as this client knows it, and a server that is none of the API's.
    api: String,
    foreign: String,
}

#[derive(Clone)]
enum Service {
    Hyper(Box<Hyper>),
    Reqwest(JwtRefresh<Wire<reqwest::Client>>),
    Tonic(Box<EchoClient<JwtRefresh<Wire<Channel>>>>),
}

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Path {
    /// One of a few that any call may go to.
    Job(u8),
    Forbidden,
    Foreign,
    // Of gRPC.
    Say,
    Gather,
    Talk,
}

#[derive(Clone, Debug)]
pub struct Call {
    pub id: u64,
    pub stack: Stack,
    pub path: Path,
    pub length: u64,
    /// Its body is in memory, so a resend costs nothing whatever its size.
    pub in_memory: bool,
}

/// What the caller sees.
#[derive(Debug)]
pub enum Answer {
    /// It was carried out, at this send.
    Done(usize),
    Refused,
    /// Refused at the end of an answer that had begun.
    RefusedLate,
    /// Neither: what the server says to whom it did not understand.
    Other,
}

impl Client {
    pub async fn new(
        stack: Stack,
        world: &Arc<World>,
        authority: &Authority,
        provider: &TokenProvider,
        ports: (u16, u16),
    ) -> Result<Self, BoxError> {
        let api = match stack {
            // It has no TLS of its own here: a sidecar on loopback speaks it for reqwest.
            Stack::Reqwest => format!("http://127.0.0.1:{}", mesh::sidecar(world, authority, ports.0).await?),
            _ => format!("https://localhost:{}", ports.0),
        };
        let foreign = format!("https://localhost:{}", ports.1);
        let layer = JwtRefreshLayer::new(provider.clone()).allow_origin(Origin::parse(&api)?);
        let connector = HttpsConnectorBuilder::new().with_tls_config(authority.client()?).https_only();
        let service = match stack {
            Stack::Hyper1 | Stack::Hyper2 => {
                let two = stack == Stack::Hyper2;
                let connector = if two { connector.enable_http2().build() } else { connector.enable_http1().build() };
                let client = Legacy::builder(TokioExecutor::new()).http2_only(two).build(connector);
                Service::Hyper(Box::new(layer.layer(under(client, world))))
            }
            Stack::Reqwest => {
                let client = reqwest::Client::builder().no_proxy().http2_prior_knowledge().build()?;
                Service::Reqwest(layer.layer(under(client, world)))
            }
            Stack::Tonic => {
                let channel = Endpoint::from_shared(api.clone())?;
                let channel = channel.connect_with_connector_lazy(connector.enable_http2().build());
                let channel = layer.assume_origin(Origin::parse(&api)?).layer(under(channel, world));
                Service::Tonic(Box::new(EchoClient::with_origin(channel, api.parse::<Uri>()?)))
            }
        };
        Ok(Self { world: Arc::clone(world), service, api, foreign })
    }

    pub async fn send(&self, call: &Call, rng: &mut Rng) -> Result<Answer, BoxError> {
        let url = match call.path {
            Path::Job(number) => format!("{}/jobs/{number}", self.api),
            Path::Foreign => self.foreign.clone(),
            _ => format!("{}{FORBIDDEN}", self.api),
        };
        match &self.service {
            Service::Hyper(service) => {
                let body = if call.in_memory {
                    Either::Left(Full::new(content::bytes(call.id, 0, call.length)))
                } else {
                    Either::Right(Slow::new(call.id, call.length, rng).boxed())
                };
                let request = Request::post(url).header(ID, call.id).header(LENGTH, call.length).body(body)?;
                let response = oneshot((**service).clone(), request).await?;
                let (status, headers) = (response.status().as_u16(), response.headers().clone());
                self.judged(call, status, &headers, response.into_body().collect().await.map(Collected::to_bytes))
            }
            Service::Reqwest(service) => {
                let body = if call.in_memory {
                    content::bytes(call.id, 0, call.length).into()
                } else {
                    reqwest::Body::wrap(Slow::new(call.id, call.length, rng))
                };
                let mut request = reqwest::Request::new(http::Method::POST, url.parse()?);
                request.headers_mut().insert(ID, call.id.into());
                request.headers_mut().insert(LENGTH, call.length.into());
                *request.body_mut() = Some(body);
                let response = service.clone().oneshot(request).await?;
                let (status, headers) = (response.status().as_u16(), response.headers().clone());
                self.judged(call, status, &headers, response.bytes().await)
            }
            Service::Tonic(service) => match grpc::speak((**service).clone(), &self.world, call, rng).await {
                Ok(answer) => Ok(answer),
                Err(status) if status.code() == Code::Unauthenticated => Ok(Answer::Refused),
                Err(status) => Err(status.into()),
            },
        }
    }

    fn judged<E: Into<BoxError>>(
        &self,
        call: &Call,
        status: u16,
        headers: &HeaderMap,
        body: Result<Bytes, E>,
    ) -> Result<Answer, BoxError> {
        match status {
            200 => {
                let body = body.map_err(Into::into)?;
                let length = number(headers, LENGTH);
                let (id, is) = (call.id, body.len() as u64);
                if is != length || !content::matches(content::of_answer(id), 0, &body) {
                    self.world.breaks("each answer is that of its request", format!("{id} got {is} bytes of {length}"));
                }
                Ok(Answer::Done(usize::try_from(number(headers, SEND))?))
            }
            401 => Ok(Answer::Refused),
            _ => Ok(Answer::Other),
        }
    }
}

/// In a box, or the compiler loses its way in the types.
fn oneshot(service: Hyper, request: Request<Upload>) -> BoxFuture<'static, Result<Response<Incoming>, BoxError>> {
    Box::pin(service.oneshot(request))
}

fn under<S>(inner: S, world: &Arc<World>) -> Wire<S> {
    Wire { inner, world: Arc::clone(world) }
}

fn number(headers: &HeaderMap, name: &str) -> u64 {
    headers.get(name).and_then(|value| value.to_str().ok()?.parse().ok()).unwrap_or_default()
}
