//! What the layer costs a request while the token is fresh, as a ratio to layers that do less.
//!
//! `cargo bench --bench request`. All variants run in turn in one process, so that a ratio means something even on a busy machine;
//! times do not last, ratios do.

use bytes::Bytes;
use http::{HeaderValue, Request, Response, header::AUTHORIZATION};
use http_body_util::Full;
use std::{
    convert::Infallible,
    future::{Future, Ready, ready},
    hint::black_box,
    pin::pin,
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};
use tower::{Layer, Service, retry::Policy};
use tower_http::set_header::SetRequestHeaderLayer;
use tower_jwt_refresh::{BoxError, JwtRefreshLayer, RetryPolicy, Token, TokenProvider, TokenRequest};

const ROUNDS: usize = 60;
const REQUESTS: u32 = 4_000;

type Req = Request<Full<Bytes>>;

/// Answers at once, so that nothing but the layers is measured.
#[derive(Clone)]
struct Inner;

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
#[derive(Clone)]
struct Keep;

impl<Res, E> Policy<Req, Res, E> for Keep {
    type Future = Ready<()>;

    fn retry(&mut self, _: &mut Req, _: &mut Result<Res, E>) -> Option<Ready<()>> {
        None
    }

    fn clone_request(&mut self, request: &Req) -> Option<Req> {
        Some(request.clone())
    }
}

/// Six headers and a small body, as a client of a JSON API sends them.
fn request() -> Req {
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

fn round<S: Service<Req>>(service: &mut S) -> Duration {
    let mut cx = Context::from_waker(Waker::noop());
    let start = Instant::now();
    for _ in 0..REQUESTS {
        assert!(service.poll_ready(&mut cx).is_ready());
        let answer = pin!(service.call(request())).poll(&mut cx);
        assert!(matches!(answer, Poll::Ready(Ok(_))));
    }
    start.elapsed() / REQUESTS
}

fn main() -> Result<(), BoxError> {
    let secret = "x".repeat(900);
    let mut value = HeaderValue::from_str(&format!("Bearer {secret}"))?;
    value.set_sensitive(true);
    let fixed = SetRequestHeaderLayer::overriding(AUTHORIZATION, value);
    let seed = Token::opaque(secret)?.with_expires_in(Duration::from_secs(3600));
    let provider = TokenProvider::builder()
        .seed(seed)
        .build(tower::service_fn(|_: TokenRequest| async { Err::<Token, BoxError>("never asked".into()) }))?;

    let mut fixed_only = fixed.layer(Inner);
    let mut fixed_and_kept = tower::retry::RetryLayer::new(Keep).layer(fixed.layer(Inner));
    let mut ours = JwtRefreshLayer::new(provider.clone()).retry(RetryPolicy::none()).layer(Inner);
    let mut ours_and_kept = JwtRefreshLayer::new(provider).layer(Inner);

    let mut times: [Vec<Duration>; 4] = Default::default();
    for _ in 0..ROUNDS {
        times[0].push(round(&mut fixed_only));
        times[1].push(round(&mut fixed_and_kept));
        times[2].push(round(&mut ours));
        times[3].push(round(&mut ours_and_kept));
    }
    let [fixed, kept, ours, ours_kept] = times.map(|mut times| {
        times.sort_unstable();
        times[times.len() / 2].as_nanos()
    });
    #[allow(clippy::cast_precision_loss, reason = "nanoseconds of a request are few")]
    let ratio = |a: u128, b: u128| a as f64 / b as f64;
    println!("median of {ROUNDS} rounds of {REQUESTS} requests, per request:");
    println!("  tower-http, fixed header                 {fixed:>6} ns");
    println!("  tower::retry over it, a copy kept        {kept:>6} ns");
    println!("  this layer, no copy kept                 {ours:>6} ns   {:.2} of the first", ratio(ours, fixed));
    println!(
        "  this layer, a copy kept for the resend   {ours_kept:>6} ns   {:.2} of the second",
        ratio(ours_kept, kept)
    );
    Ok(())
}
