//! The request of all benches, and the services that it is sent through.

use bytes::Bytes;
use http::{HeaderValue, Request, Response, header::AUTHORIZATION};
use http_body_util::Full;
use std::{
    convert::Infallible,
    future::{Future, Ready, ready},
    hint::black_box,
    pin::pin,
    task::{Context, Poll, Waker},
    time::Duration,
};
use tower::{Layer, Service, retry::Policy};
use tower_http::set_header::{SetRequestHeader, SetRequestHeaderLayer};
use tower_jwt_refresh::{BoxError, JwtRefresh, JwtRefreshLayer, RetryPolicy, Token, TokenProvider, TokenRequest};

pub type Req = Request<Full<Bytes>>;

/// Six headers and a small body, as a client of a JSON API sends them.
pub fn request() -> Req {
    Request::post("https://api.example.com/api/v1/jobs/1?wait=60")
        .header("accept", "application/json")
        .header("content-type", "application/json")
        .header("user-agent", "bench/1.0")
        .header("x-request-id", "0123456789abcdef")
        .header("accept-encoding", "identity")
        .header("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
        .body(Full::from("{}"))
        .expect("a valid request")
}

/// Of 900 bytes, as a JWT with a few claims has.
pub fn secret() -> String {
    "x".repeat(900)
}

/// Answers at once, so that nothing but the layers is measured.
#[derive(Clone, Copy, Debug)]
pub struct Inner;

impl Service<Req> for Inner {
    type Response = Response<()>;
    type Error = Infallible;
    type Future = Ready<Result<Response<()>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Req) -> Self::Future {
        black_box(&request);
        ready(Ok(Response::new(())))
    }
}

/// Keeps a copy of each request, and never needs it: what a resend costs without a refresh.
#[derive(Clone, Copy, Debug)]
pub struct Keep;

impl<Res, E> Policy<Req, Res, E> for Keep {
    type Future = Ready<()>;

    fn retry(&mut self, _: &mut Req, _: &mut Result<Res, E>) -> Option<Ready<()>> {
        None
    }

    fn clone_request(&mut self, request: &Req) -> Option<Req> {
        Some(request.clone())
    }
}

/// A provider that holds a token for an hour, and never asks its source.
pub fn provider() -> TokenProvider {
    let seed = Token::opaque(secret()).expect("legal").with_expires_in(Duration::from_secs(3600));
    TokenProvider::builder()
        .seed(seed)
        .build(tower::service_fn(|_: TokenRequest| async { Err::<Token, BoxError>("never asked".into()) }))
        .expect("legal settings")
}

/// The header that never changes.
pub fn fixed() -> SetRequestHeader<Inner, HeaderValue> {
    let mut value = HeaderValue::from_str(&format!("Bearer {}", secret())).expect("legal");
    value.set_sensitive(true);
    SetRequestHeaderLayer::overriding(AUTHORIZATION, value).layer(Inner)
}

/// The same, and a copy of each request kept.
pub fn fixed_and_kept() -> tower::retry::Retry<Keep, SetRequestHeader<Inner, HeaderValue>> {
    tower::retry::RetryLayer::new(Keep).layer(fixed())
}

pub fn ours(provider: &TokenProvider) -> JwtRefresh<Inner> {
    JwtRefreshLayer::new(provider.clone()).retry(RetryPolicy::none()).layer(Inner)
}

pub fn ours_and_kept(provider: &TokenProvider) -> JwtRefresh<Inner> {
    JwtRefreshLayer::new(provider.clone()).layer(Inner)
}

/// One request there and back.
pub fn send<S: Service<Req>>(service: &mut S, request: Req) {
    let mut cx = Context::from_waker(Waker::noop());
    assert!(service.poll_ready(&mut cx).is_ready());
    let answer = pin!(service.call(request)).poll(&mut cx);
    assert!(matches!(answer, Poll::Ready(Ok(_))));
}
