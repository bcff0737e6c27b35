//! A service on loopback whose tokens live for 2 s, so that seconds show what a program meets in hours.

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use std::{
    convert::Infallible,
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};
use tokio::net::TcpListener;

pub(crate) const KEY: &str = "my-api-key";
pub(crate) const LIFE: Duration = Duration::from_secs(2);

pub(crate) struct Service {
    pub(crate) address: SocketAddr,
    /// When each token was minted.
    minted: Arc<Mutex<Vec<Instant>>>,
}

impl Service {
    pub(crate) async fn start() -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let service = Self { address: listener.local_addr()?, minted: Arc::default() };
        let minted = Arc::clone(&service.minted);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let minted = Arc::clone(&minted);
                let answer = service_fn(move |request| {
                    let response = answer(&minted, &request);
                    async move { Ok::<_, Infallible>(response) }
                });
                tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), answer));
            }
        });
        Ok(service)
    }

    /// A token, as a login would give it.
    pub(crate) fn mint(&self) -> String {
        mint(&self.minted)
    }

    pub(crate) fn fetches(&self) -> usize {
        self.minted.lock().unwrap_or_else(PoisonError::into_inner).len()
    }
}

fn answer(minted: &Mutex<Vec<Instant>>, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    let bearer = bearer(request.headers());
    let (status, text) = match (request.method(), request.uri().path()) {
        (&Method::POST, "/api/v1/auth/token") if bearer == KEY => {
            (StatusCode::OK, format!(r#"{{"access_token":"{}","expires_in":{}}}"#, mint(minted), LIFE.as_secs()))
        }
        (&Method::GET, "/api/v1/jobs/1") => match left(minted, bearer) {
            Some((number, left)) => (StatusCode::OK, format!("token {number}, {:.1} s left", left.as_secs_f64())),
            None => (StatusCode::UNAUTHORIZED, "Invalid JWT".to_owned()),
        },
        _ => (StatusCode::UNAUTHORIZED, "no such thing for you".to_owned()),
    };
    let mut response = Response::new(Full::from(text));
    *response.status_mut() = status;
    response
}

fn bearer(headers: &HeaderMap) -> &str {
    let value = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    value.and_then(|value| value.strip_prefix("Bearer ")).unwrap_or_default()
}

fn mint(minted: &Mutex<Vec<Instant>>) -> String {
    let mut minted = minted.lock().unwrap_or_else(PoisonError::into_inner);
    minted.push(Instant::now());
    format!("token-{}", minted.len())
}

/// Its number, and how long it has left. None: unknown or dead.
fn left(minted: &Mutex<Vec<Instant>>, token: &str) -> Option<(usize, Duration)> {
    let number: usize = token.strip_prefix("token-")?.parse().ok()?;
    let minted = *minted.lock().unwrap_or_else(PoisonError::into_inner).get(number.checked_sub(1)?)?;
    Some((number, LIFE.checked_sub(minted.elapsed())?))
}
