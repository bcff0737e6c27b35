//! What the sidecar stands before: a token endpoint, and a service that wants the newest token.

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, combinators::BoxBody};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use rustls::{ServerConfig, crypto::ring, pki_types::PrivatePkcs8KeyDer};
use std::{
    convert::Infallible,
    io,
    sync::{Arc, Mutex, MutexGuard},
};
use tokio::{net::TcpListener, sync::Notify};
use tokio_rustls::TlsAcceptor;
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{handshake::derive_accept_key, protocol::Role},
};

type Body = BoxBody<Bytes, hyper::Error>;

#[derive(Clone)]
pub struct Service {
    origin: String,
    state: Arc<Mutex<State>>,
    /// `/held` answers after this.
    pub release: Arc<Notify>,
    /// `/held` has been reached.
    pub reached: Arc<Notify>,
    /// `/held` has been left, with or without an answer.
    pub left: Arc<Notify>,
}

struct Leaving(Arc<Notify>);

impl Drop for Leaving {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}

struct State {
    minted: u32,
    /// Of a token endpoint that is up, 200.
    endpoint: StatusCode,
    /// What got through with a good token: head and, where it was read, body.
    seen: Vec<Seen>,
    /// `/refused-late` was sent the whole body, whatever the token.
    bodies: Vec<Bytes>,
    revoked: u32,
    answer_with: HeaderMap,
}

#[derive(Clone, Debug)]
pub struct Seen {
    pub method: Method,
    pub target: String,
    pub headers: HeaderMap,
}

impl Service {
    pub async fn start() -> Self {
        Self::serve(None).await
    }

    /// Over TLS, as localhost; and the PEM of its certificate, which stands for itself.
    pub async fn start_tls() -> (Self, String) {
        let certified = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let key = PrivatePkcs8KeyDer::from(certified.signing_key.serialize_der());
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certified.cert.der().clone()], key.into())
            .unwrap();
        (Self::serve(Some(TlsAcceptor::from(Arc::new(config)))).await, certified.cert.pem())
    }

    async fn serve(tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let state = State {
            minted: 0,
            endpoint: StatusCode::OK,
            seen: Vec::new(),
            bodies: Vec::new(),
            revoked: 0,
            answer_with: HeaderMap::new(),
        };
        let address = listener.local_addr().unwrap();
        let service = Self {
            origin: if tls.is_some() {
                format!("https://localhost:{}", address.port())
            } else {
                format!("http://{address}")
            },
            state: Arc::new(Mutex::new(state)),
            release: Arc::default(),
            reached: Arc::default(),
            left: Arc::default(),
        };
        let accepting = service.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let service = accepting.clone();
                let handler = service_fn(move |request| {
                    let service = service.clone();
                    async move { Ok::<_, Infallible>(service.answer(request).await) }
                });
                let http = http1::Builder::new();
                if let Some(tls) = tls.clone() {
                    tokio::spawn(async move {
                        let stream = TokioIo::new(tls.accept(stream).await?);
                        http.serve_connection(stream, handler).with_upgrades().await.map_err(io::Error::other)
                    });
                } else {
                    tokio::spawn(http.serve_connection(TokioIo::new(stream), handler).with_upgrades());
                }
            }
        });
        service
    }

    pub fn url(&self) -> String {
        self.origin.clone()
    }

    pub fn token_url(&self) -> String {
        format!("{}/token", self.origin)
    }

    /// No token minted so far is good any more.
    pub fn revoke(&self) {
        let mut state = self.lock();
        state.revoked = state.minted;
    }

    /// The token endpoint answers with this status.
    pub fn endpoint_answers(&self, status: StatusCode) {
        self.lock().endpoint = status;
    }

    /// Every answer of the service has these fields too.
    pub fn answers_with(&self, name: &'static str, value: &str) {
        self.lock().answer_with.append(name, value.parse().unwrap());
    }

    pub fn minted(&self) -> u32 {
        self.lock().minted
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.lock().seen.clone()
    }

    pub fn bodies(&self) -> Vec<Bytes> {
        self.lock().bodies.clone()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        let (head, mut body) = request.into_parts();
        let mut request = Request::from_parts(head, ());
        let path = request.uri().path().to_owned();
        if path == "/token" {
            return self.mint(request.headers());
        }
        let good = self.is_good(request.headers());
        if path == "/refused-late" {
            // The whole body is read, whatever becomes of the request.
            let whole = (&mut body).collect().await.unwrap().to_bytes();
            self.lock().bodies.push(whole);
        }
        let mut response = match &*path {
            _ if !good => plain(StatusCode::UNAUTHORIZED, "Invalid JWT"),
            "/echo" => Response::new(body.boxed()),
            "/held" => {
                let _leaving = Leaving(Arc::clone(&self.left));
                self.reached.notify_one();
                self.release.notified().await;
                plain(StatusCode::OK, "held until now")
            }
            "/moved" => plain(StatusCode::FOUND, ""),
            "/ws" => upgraded(&mut request),
            _ => plain(StatusCode::OK, "here you are"),
        };
        let mut state = self.lock();
        if good {
            let (method, target) = (request.method().clone(), request.uri().to_string());
            state.seen.push(Seen { method, target, headers: request.headers().clone() });
        }
        for (name, value) in &state.answer_with {
            response.headers_mut().append(name, value.clone());
        }
        response
    }

    fn mint(&self, headers: &HeaderMap) -> Response<Body> {
        let mut state = self.lock();
        let sent = headers.get(header::AUTHORIZATION).map(|value| value.to_str().unwrap().to_owned());
        if sent != Some(format!("Bearer {}", super::CREDENTIAL)) {
            return plain(StatusCode::UNAUTHORIZED, "unknown credential");
        }
        if state.endpoint != StatusCode::OK {
            return plain(state.endpoint, "down");
        }
        state.minted += 1;
        plain(StatusCode::OK, format!(r#"{{"access_token":"token-{}","expires_in":3600}}"#, state.minted))
    }

    /// Does it carry a token that was minted and not revoked since, in one header or the other?
    fn is_good(&self, headers: &HeaderMap) -> bool {
        let bearer = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
        let bare = headers.get("x-api-key").and_then(|value| value.to_str().ok());
        let number = bearer.or(bare).and_then(|token| token.strip_prefix("token-")?.parse().ok());
        let state = self.lock();
        number.is_some_and(|number: u32| number > state.revoked && number <= state.minted)
    }
}

fn plain(status: StatusCode, text: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(Full::new(text.into()).map_err(|never| match never {}).boxed());
    *response.status_mut() = status;
    response
}

/// A WebSocket that says everything again.
fn upgraded(request: &mut Request<()>) -> Response<Body> {
    let Some(key) = request.headers().get(header::SEC_WEBSOCKET_KEY) else {
        return plain(StatusCode::BAD_REQUEST, "no WebSocket");
    };
    let accept = derive_accept_key(key.as_bytes());
    let socket = hyper::upgrade::on(request);
    tokio::spawn(async move {
        let socket = TokioIo::new(socket.await.unwrap());
        let socket = WebSocketStream::from_raw_socket(socket, Role::Server, None).await;
        let (sink, stream) = futures_util::StreamExt::split(socket);
        let _ = futures_util::StreamExt::forward(stream, sink).await;
    });
    let mut response = plain(StatusCode::SWITCHING_PROTOCOLS, "");
    for (name, value) in [("connection", "Upgrade"), ("upgrade", "websocket"), ("sec-websocket-accept", &accept)] {
        response.headers_mut().insert(name, value.parse().unwrap());
    }
    response
}
