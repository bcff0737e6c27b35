//! An axum gateway whose handlers share one layered client in their state: real servers, a real client, streaming both ways.

mod support;

use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures_util::stream;
use http::{Method, StatusCode, header::AUTHORIZATION};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{Arc, Mutex},
};
use support::{Endpoint, HOUR, MINUTE, Reply};
use tokio::{
    net::TcpListener,
    sync::{Barrier, mpsc},
};
use tower::{ServiceBuilder, ServiceExt};
use tower_jwt_refresh::{JwtRefresh, ServiceBuilderExt, Token, TokenError, TokenProvider, clock::ManualClock};

const LIMIT: usize = 128 * 1024;

async fn serve(router: Router) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await });
    address
}

/// What the gateway forwards to. It refuses `old`, and everything while `refuses_all`; what it accepts it echoes as it comes.
#[derive(Clone, Default)]
struct Upstream {
    refuses_all: bool,
    /// Refuses without reading on: one frame is enough.
    early: bool,
    /// Answers wait until so many requests are here.
    together: Option<Arc<Barrier>>,
    seen: Arc<Mutex<Vec<(String, usize)>>>,
}

impl Upstream {
    /// The token of each request, and how much of its body was read before the answer, in order.
    fn seen(&self) -> Vec<(String, usize)> {
        self.seen.lock().unwrap().clone()
    }

    fn tokens(&self) -> Vec<String> {
        self.seen().into_iter().map(|(token, _)| token).collect()
    }
}

async fn upstream(State(upstream): State<Upstream>, request: Request) -> Response {
    let token = request.headers().get(AUTHORIZATION).map_or("-", |value| value.to_str().unwrap());
    let token = token.replace("Bearer ", "");
    support::whole_run::secret(&token);
    let refused = upstream.refuses_all || token == "old";
    if let Some(barrier) = upstream.together.as_ref().filter(|_| refused) {
        barrier.wait().await;
    }
    let mut body = request.into_body();
    if !refused {
        upstream.seen.lock().unwrap().push((token, 0));
        return body.into_response();
    }
    let read = match upstream.early {
        true => body.frame().await.unwrap().unwrap().into_data().unwrap().len(),
        false => body.collect().await.unwrap().to_bytes().len(),
    };
    upstream.seen.lock().unwrap().push((token, read));
    (StatusCode::UNAUTHORIZED, "refused upstream").into_response()
}

#[derive(Clone)]
struct Gateway {
    upstream: SocketAddr,
    client: JwtRefresh<Client<HttpConnector, Body>>,
    /// Hears when a handler is over or dropped.
    left: mpsc::UnboundedSender<()>,
}

struct Leaving(mpsc::UnboundedSender<()>);

impl Drop for Leaving {
    fn drop(&mut self) {
        let _ = self.0.send(());
    }
}

async fn forward(State(gateway): State<Gateway>, request: Request) -> Response {
    let _leaving = Leaving(gateway.left);
    let (head, body) = request.into_parts();
    let request = Request::builder().method(head.method).uri(format!("http://{}{}", gateway.upstream, head.uri.path()));
    match gateway.client.oneshot(request.body(body).unwrap()).await {
        Ok(response) => response.into_response(),
        Err(error) if error.is::<TokenError>() => (StatusCode::SERVICE_UNAVAILABLE, "no token").into_response(),
        Err(error) => (StatusCode::BAD_GATEWAY, error.to_string()).into_response(),
    }
}

/// A gateway before an upstream, and a client before the gateway.
struct World {
    endpoint: Endpoint,
    provider: TokenProvider,
    clock: ManualClock,
    gateway: String,
    left: mpsc::UnboundedReceiver<()>,
    caller: Client<HttpConnector, Body>,
}

impl World {
    /// The gateway holds `old`, which lives for an hour.
    async fn new(server: &Upstream) -> Self {
        let endpoint = Endpoint::hourly();
        let clock = ManualClock::new();
        let old = Token::opaque("old").unwrap().with_expires_in(HOUR);
        let provider = TokenProvider::builder().clock(clock.clone()).seed(old).build(endpoint.source()).unwrap();
        let upstream = serve(Router::new().fallback(upstream).with_state(server.clone())).await;
        let client = Client::builder(TokioExecutor::new()).build_http();
        let client = ServiceBuilder::new().jwt_refresh(provider.clone()).service(client);
        let (send, left) = mpsc::unbounded_channel();
        let gateway = serve(Router::new().fallback(forward).with_state(Gateway { upstream, client, left: send })).await;
        let caller = Client::builder(TokioExecutor::new()).build_http();
        Self { endpoint, provider, clock, gateway: format!("http://{gateway}/jobs"), left, caller }
    }

    fn request(&self, body: Body) -> Request {
        Request::builder().method(Method::POST).uri(&self.gateway).body(body).unwrap()
    }

    async fn send(&self, body: Body) -> http::Response<Incoming> {
        self.caller.request(self.request(body)).await.unwrap()
    }

    async fn post(&self, body: impl Into<Body>) -> (StatusCode, Bytes) {
        let response = self.send(body.into()).await;
        (response.status(), response.into_body().collect().await.unwrap().to_bytes())
    }
}

/// Of unknown length, in frames of 16 KiB, no two alike.
fn streamed(size: usize) -> (Bytes, Body) {
    let bytes: Bytes = (0..size).map(|at| u8::try_from((at / 7 + at / 4099) % 251).unwrap()).collect();
    let frames: Vec<_> = bytes.chunks(16 * 1024).map(|frame| Ok::<_, Infallible>(bytes.slice_ref(frame))).collect();
    (bytes, Body::from_stream(stream::iter(frames)))
}

/// A body that a test feeds by hand.
fn by_hand() -> (mpsc::Sender<&'static str>, Body) {
    let (feed, frames) = mpsc::channel(4);
    let frames = stream::unfold(frames, |mut frames: mpsc::Receiver<&'static str>| async move {
        let frame = frames.recv().await?;
        Some((Ok::<_, Infallible>(frame), frames))
    });
    (feed, Body::from_stream(frames))
}

fn seen<const N: usize>(seen: [(&str, usize); N]) -> Vec<(String, usize)> {
    seen.map(|(token, read)| (token.to_owned(), read)).into()
}

#[tokio::test]
async fn a_fresh_token_is_shared_by_all_handlers_and_replaces_what_the_caller_sent() {
    let server = Upstream::default();
    let world = World::new(&server).await;
    world.provider.set(Token::opaque("pushed").unwrap());
    for _ in 0..3 {
        let mut request = world.request(Body::from("hello"));
        request.headers_mut().insert(AUTHORIZATION, "Bearer the-callers-own".parse().unwrap());
        let response = world.caller.request(request).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
    }
    assert_eq!(server.tokens(), ["pushed"; 3]);
    assert_eq!(world.endpoint.fetches(), 0);
}

#[tokio::test]
async fn an_expired_token_is_replaced_before_the_request_goes_upstream() {
    let server = Upstream::default();
    let world = World::new(&server).await;
    world.clock.advance(HOUR + MINUTE);
    assert_eq!(world.post("hello").await, (StatusCode::OK, "hello".into()));
    assert_eq!(server.tokens(), ["t1"]);
    assert_eq!(world.endpoint.fetches(), 1);
}

#[tokio::test]
async fn a_rejected_token_is_replaced_and_the_caller_of_the_gateway_sees_no_401() {
    let server = Upstream::default();
    let world = World::new(&server).await;
    assert_eq!(world.post("hello").await, (StatusCode::OK, "hello".into()));
    assert_eq!(server.seen(), seen([("old", 5), ("t1", 0)]));
    assert_eq!(world.endpoint.fetches(), 1);
}

#[tokio::test]
async fn the_second_401_is_the_callers_with_the_upstreams_body() {
    let server = Upstream { refuses_all: true, ..Upstream::default() };
    let world = World::new(&server).await;
    assert_eq!(world.post("hello").await, (StatusCode::UNAUTHORIZED, "refused upstream".into()));
    assert_eq!(server.seen(), seen([("old", 5), ("t1", 5)]));
    assert_eq!(world.endpoint.fetches(), 1);
}

#[tokio::test]
async fn while_the_refresh_is_down_a_living_token_is_sent_and_a_401_passes_and_a_dead_one_is_an_error_of_ours() {
    let server = Upstream::default();
    let world = World::new(&server).await;
    world.provider.set(Token::opaque("living").unwrap().with_expires_in(HOUR));
    world.endpoint.usually(Reply::Fail);
    world.clock.advance(HOUR - 2 * MINUTE);
    assert_eq!(world.post("hello").await.0, StatusCode::OK, "stale, and alive");
    world.clock.advance(HOUR);
    assert_eq!(world.post("hello").await, (StatusCode::SERVICE_UNAVAILABLE, "no token".into()));
    assert_eq!(server.tokens(), ["living"]);

    world.provider.set(Token::opaque("old").unwrap());
    assert_eq!(world.post("hello").await, (StatusCode::UNAUTHORIZED, "refused upstream".into()));
    assert_eq!(server.tokens(), ["living", "old"]);
}

// Scenario 54.
#[tokio::test]
async fn a_stream_of_up_to_the_limit_is_sent_again_byte_for_byte() {
    for size in [0, 1, 100_000, LIMIT] {
        let server = Upstream::default();
        let world = World::new(&server).await;
        let (bytes, body) = streamed(size);
        let (status, echo) = world.post(body).await;
        assert_eq!(status, StatusCode::OK, "{size} bytes");
        assert!(echo == bytes, "{size} bytes");
        assert_eq!(server.seen(), seen([("old", size), ("t1", 0)]));
    }
}

// Scenario 55.
#[tokio::test]
async fn a_stream_refused_early_goes_on_with_the_new_token_and_its_answer_streams_back_meanwhile() {
    let server = Upstream { early: true, ..Upstream::default() };
    let world = World::new(&server).await;
    let (feed, body) = by_hand();
    feed.send("one").await.unwrap();
    // The rest comes only when the caller has seen the echo of what it sent so far: nobody on the way may wait for the end.
    let response = world.send(body).await;
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(server.seen(), seen([("old", 3), ("t1", 0)]));
    let mut echo = response.into_body();
    assert_eq!(echo.frame().await.unwrap().unwrap().into_data().unwrap(), "one");
    feed.send("two").await.unwrap();
    assert_eq!(echo.frame().await.unwrap().unwrap().into_data().unwrap(), "two");
    drop(feed);
    assert!(echo.collect().await.unwrap().to_bytes().is_empty());
}

// Scenario 54.
#[tokio::test]
async fn a_stream_over_the_limit_is_sent_whole_once_and_the_next_request_has_a_new_token() {
    let server = Upstream::default();
    let world = World::new(&server).await;
    let (_, body) = streamed(LIMIT + 1);
    let (status, text) = world.post(body).await;
    assert_eq!(status, StatusCode::UNAUTHORIZED);
    assert_eq!(text, "refused upstream");
    assert_eq!(world.post("hello").await, (StatusCode::OK, "hello".into()));
    assert_eq!(server.seen(), seen([("old", LIMIT + 1), ("t1", 0)]));
    assert_eq!(world.endpoint.fetches(), 1);
}

// Scenario 85.
#[tokio::test]
async fn a_caller_that_hangs_up_drops_its_handler_but_not_the_flight() {
    let server = Upstream::default();
    let mut world = World::new(&server).await;
    world.endpoint.shut();
    let call = tokio::spawn(world.caller.request(world.request(Body::from("given up"))));
    world.endpoint.asked_times(1).await;
    call.abort();
    world.left.recv().await.unwrap();
    assert_eq!((world.endpoint.busy(), server.tokens()), (1, vec!["old".into()]));
    world.endpoint.open();
    assert_eq!(world.post("hello").await, (StatusCode::OK, "hello".into()));
    assert_eq!(server.tokens(), ["old", "t1"]);
    assert_eq!(world.endpoint.fetches(), 1);
}

// Scenario 17.
#[tokio::test]
async fn two_hundred_requests_refused_at_once_cost_one_fetch() {
    let server = Upstream { together: Some(Arc::new(Barrier::new(200))), ..Upstream::default() };
    let mut world = World::new(&server).await;
    // All callers in one connection: so many sockets of their own would be more than some machines allow.
    world.caller = Client::builder(TokioExecutor::new()).http2_only(true).build_http();
    let calls = (0..200).map(|_| world.post(streamed(40_000).1));
    for (status, body) in futures_util::future::join_all(calls).await {
        assert_eq!((status, body.len()), (StatusCode::OK, 40_000));
    }
    let tokens = server.tokens();
    let count = |token: &str| tokens.iter().filter(|seen| *seen == token).count();
    assert_eq!((count("old"), count("t1"), tokens.len()), (200, 200, 400));
    assert_eq!(world.endpoint.fetches(), 1);
}
