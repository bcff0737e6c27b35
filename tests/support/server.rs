//! An API on a real socket that judges tokens and writes down what it saw, and hyper-util's client for it.
//!
//! It refuses the tokens `old` and whatever else was revoked with 401, before or after it read the body, and accepts all others with 200.

#![allow(dead_code, unreachable_pub, unused_imports, reason = "each test file uses its part")]

#[path = "bodies.rs"]
mod bodies;

pub use bodies::{Fed, Feed, Frames, data, fed, numbered, trailers, whole};

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode, Version, header};
use http_body::Body;
use http_body_util::{BodyExt, combinators::BoxBody};
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
};
use std::{
    collections::HashSet,
    convert::Infallible,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard},
};
use tokio::{
    net::TcpListener,
    sync::{Semaphore, watch},
};
use tokio_rustls::TlsAcceptor;
use tower_jwt_refresh::{BoxError, Token, TokenProvider, TokenProviderBuilder, clock::ManualClock};

pub type Boxed = BoxBody<Bytes, BoxError>;

/// How client and server talk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stack {
    Http1,
    Http2,
    /// HTTP/2, agreed on by ALPN, under a test authority.
    Tls,
    /// The same, with a server that speaks HTTP/1.1 alone.
    TlsHttp1,
}

impl Stack {
    pub fn version(self) -> Version {
        if matches!(self, Self::Http1 | Self::TlsHttp1) { Version::HTTP_11 } else { Version::HTTP_2 }
    }

    fn tls(self) -> bool {
        matches!(self, Self::Tls | Self::TlsHttp1)
    }
}

/// When a refused request gets its 401.
#[derive(Clone, Copy, Debug)]
pub enum Refuse {
    AfterTheBody,
    /// After so many bytes; the rest is never read.
    AndStop(usize),
    /// After so many bytes; then the rest is read.
    AndReadOn(usize),
}

/// A request as the server saw it.
#[derive(Clone, Debug)]
pub struct Seen {
    pub token: String,
    pub version: Version,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
    pub trailers: Option<HeaderMap>,
    /// How the body ended, once it did: with an error, and the reason of the stream's reset.
    pub end: Option<Result<(), Option<h2::Reason>>>,
}

/// Clones are the same server.
#[derive(Clone)]
pub struct Server(Arc<Inner>);

struct Inner {
    address: SocketAddr,
    stack: Stack,
    /// In TLS, what clients have to trust.
    roots: RootCertStore,
    state: Mutex<State>,
    /// Counts whatever is written down.
    changes: watch::Sender<usize>,
    /// While some tokens' answers are held back.
    gate: Semaphore,
}

struct State {
    revoked: HashSet<String>,
    refuse: Refuse,
    /// How much of an accepted request's body is read before its answer; then the rest is.
    accept_after: usize,
    /// Answers to these are held back.
    held: HashSet<String>,
    download: Option<Boxed>,
    seen: Vec<Seen>,
}

impl Server {
    pub async fn start(stack: Stack) -> Self {
        Self::with(stack, |_| ()).await
    }

    /// `settings` are those of the connection.
    pub async fn with(stack: Stack, settings: impl FnOnce(&mut auto::Builder<TokioExecutor>)) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut roots = RootCertStore::empty();
        let acceptor = stack.tls().then(|| acceptor(stack, &mut roots));
        let server = Self(Arc::new(Inner {
            address: listener.local_addr().unwrap(),
            stack,
            roots,
            state: Mutex::new(State {
                revoked: HashSet::from(["old".to_owned()]),
                refuse: Refuse::AfterTheBody,
                accept_after: usize::MAX,
                held: HashSet::new(),
                download: None,
                seen: Vec::new(),
            }),
            changes: watch::Sender::new(0),
            gate: Semaphore::new(0),
        }));
        let mut builder = auto::Builder::new(TokioExecutor::new());
        builder.http2().max_concurrent_streams(500);
        settings(&mut builder);
        let this = server.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                stream.set_nodelay(true).unwrap();
                let (this, builder, acceptor) = (this.clone(), builder.clone(), acceptor.clone());
                let service = hyper::service::service_fn(move |request| this.clone().answer(request));
                tokio::spawn(async move {
                    // How a connection ends is seen by its requests.
                    match acceptor {
                        Some(acceptor) => {
                            let stream = acceptor.accept(stream).await.expect("a handshake");
                            let _ = builder.serve_connection(TokioIo::new(stream), service).await;
                        }
                        None => {
                            let _ = builder.serve_connection(TokioIo::new(stream), service).await;
                        }
                    }
                });
            }
        });
        server
    }

    pub fn uri(&self) -> String {
        let port = self.0.address.port();
        if self.0.stack.tls() {
            format!("https://localhost:{port}/jobs")
        } else {
            format!("http://127.0.0.1:{port}/jobs")
        }
    }

    /// hyper-util's client that talks to it so.
    pub fn client<B>(&self) -> Client<HttpsConnector<HttpConnector>, B>
    where
        B: Body<Data: Send> + Send,
    {
        let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(self.0.roots.clone())
            .with_no_client_auth();
        let connector =
            HttpsConnectorBuilder::new().with_tls_config(config).https_or_http().enable_http1().enable_http2().build();
        Client::builder(TokioExecutor::new()).http2_only(self.0.stack == Stack::Http2).build(connector)
    }

    /// This token is refused from now on.
    pub fn revoke(&self, token: &str) {
        self.state().revoked.insert(token.to_owned());
    }

    pub fn refuse(&self, refuse: Refuse) {
        self.state().refuse = refuse;
    }

    /// Accepted requests get their 200 after so many bytes.
    pub fn accept_after(&self, bytes: usize) {
        self.state().accept_after = bytes;
    }

    /// Requests with this token get no answer before [`let_go`](Self::let_go).
    pub fn hold(&self, token: &str) {
        self.state().held.insert(token.to_owned());
    }

    /// So many of those that are held get their answer.
    pub fn let_go(&self, requests: usize) {
        self.0.gate.add_permits(requests);
    }

    /// The next accepted request is answered with this body.
    pub fn offer(&self, body: Boxed) {
        self.state().download = Some(body);
    }

    /// The tokens of all requests, in order.
    pub fn tokens(&self) -> Vec<String> {
        self.state().seen.iter().map(|seen| seen.token.clone()).collect()
    }

    /// The `number`-th request, from 0, once its body is over.
    pub async fn request(&self, number: usize) -> Seen {
        let over = |state: &State| state.seen.get(number).filter(|seen| seen.end.is_some()).cloned();
        self.wait_for(over).await
    }

    /// Resolves once so many requests are there.
    pub async fn seen_times(&self, count: usize) {
        self.wait_for(|state| (state.seen.len() >= count).then_some(())).await;
    }

    /// Resolves once the `number`-th request's body has brought so many bytes.
    pub async fn read_bytes(&self, number: usize, bytes: usize) {
        self.wait_for(|state| state.seen.get(number).filter(|seen| seen.body.len() >= bytes).map(|_| ())).await;
    }

    async fn wait_for<T>(&self, found: impl Fn(&State) -> Option<T>) -> T {
        let mut changes = self.0.changes.subscribe();
        loop {
            if let Some(found) = found(&self.state()) {
                return found;
            }
            changes.changed().await.expect("the server lives");
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn note<T>(&self, note: impl FnOnce(&mut State) -> T) -> T {
        let noted = note(&mut self.state());
        self.0.changes.send_modify(|count| *count += 1);
        noted
    }

    /// Reads until so many bytes are there. False: the body is over.
    async fn read(&self, number: usize, body: &mut Incoming, until: usize) -> bool {
        while self.state().seen[number].body.len() < until {
            let frame = body.frame().await;
            let over = self.note(|state| {
                let seen = &mut state.seen[number];
                match frame {
                    Some(Ok(frame)) => match frame.into_data() {
                        Ok(data) => seen.body.extend_from_slice(&data),
                        Err(frame) => seen.trailers = frame.into_trailers().ok(),
                    },
                    Some(Err(error)) => seen.end = Some(Err(reason(&error))),
                    None => seen.end = Some(Ok(())),
                }
                seen.end.is_some()
            });
            if over {
                return false;
            }
        }
        true
    }

    async fn answer(self, request: Request<Incoming>) -> Result<Response<Boxed>, Infallible> {
        let (head, mut body) = request.into_parts();
        let token = head.headers.get(header::AUTHORIZATION).map_or("-", |value| value.to_str().unwrap());
        let token = token.replace("Bearer ", "");
        crate::support::whole_run::secret(&token);
        let (number, refuse, held) = self.note(|state| {
            let refuse = state.revoked.contains(&token).then_some(state.refuse);
            let held = state.held.contains(&token);
            state.seen.push(Seen {
                token,
                version: head.version,
                headers: head.headers,
                body: Vec::new(),
                trailers: None,
                end: None,
            });
            (state.seen.len() - 1, refuse, held)
        });
        if held {
            self.0.gate.acquire().await.unwrap().forget();
        }
        let (before, reads_on) = match refuse {
            None => (self.state().accept_after, true),
            Some(Refuse::AfterTheBody) => (usize::MAX, false),
            Some(Refuse::AndStop(bytes)) => (bytes, false),
            Some(Refuse::AndReadOn(bytes)) => (bytes, true),
        };
        if self.read(number, &mut body, before).await && reads_on {
            let this = self.clone();
            tokio::spawn(async move { this.read(number, &mut body, usize::MAX).await });
        }
        let (status, body) = match refuse {
            None => (StatusCode::OK, self.state().download.take().unwrap_or_else(|| whole("ok"))),
            Some(_) => (StatusCode::UNAUTHORIZED, whole("refused")),
        };
        Ok(Response::builder().status(status).body(body).unwrap())
    }
}

fn reason(error: &hyper::Error) -> Option<h2::Reason> {
    std::error::Error::source(error)?.downcast_ref::<h2::Error>()?.reason()
}

/// A certificate for `localhost` by an authority that is in `roots` afterwards.
fn acceptor(stack: Stack, roots: &mut RootCertStore) -> TlsAcceptor {
    let mut authority = CertificateParams::new([]).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let (issuer_key, key) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
    roots.add(authority.self_signed(&issuer_key).unwrap().der().clone()).unwrap();
    let issuer = Issuer::new(authority, issuer_key);
    let certificate = CertificateParams::new(["localhost".to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
    let mut config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![certificate.der().clone()],
            PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der())),
        )
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    if stack == Stack::TlsHttp1 {
        config.alpn_protocols.remove(0);
    }
    TlsAcceptor::from(Arc::new(config))
}

/// A provider whose first token, `old`, dies in an hour and is refused by the server; the next are `t1`, `t2` and so on. Its clock stands still, a minute
/// after the token came.
pub fn provider(endpoint: &crate::support::Endpoint) -> (TokenProvider, ManualClock) {
    provider_with(endpoint, |builder| builder)
}

pub fn provider_with(
    endpoint: &crate::support::Endpoint,
    settings: impl FnOnce(TokenProviderBuilder) -> TokenProviderBuilder,
) -> (TokenProvider, ManualClock) {
    let clock = ManualClock::new();
    let old = Token::opaque("old").unwrap().with_expires_in(crate::support::HOUR);
    let builder = settings(TokenProvider::builder().clock(clock.clone()).seed(old));
    let provider = builder.build(endpoint.source()).unwrap();
    clock.advance(crate::support::MINUTE);
    (provider, clock)
}
