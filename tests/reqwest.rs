//! reqwest through its three doors: its client itself, tower-reqwest over it, and reqwest-middleware; each over HTTP/1.1 and HTTP/2.

#[path = "support/server.rs"]
mod server;
mod support;

use bytes::Bytes;
use futures_util::future::join_all;
use http::{Method, StatusCode};
use http_body::Frame;
use http_body_util::BodyExt;
use reqwest::{Body, Client};
use reqwest_middleware::ClientWithMiddleware;
use server::{Frames, Refuse, Server, Stack, data, fed, numbered, provider, trailers};
use std::time::Duration;
use support::{Endpoint, HOUR, Reply};
use tower::{BoxError, Layer, ServiceBuilder, ServiceExt, util::BoxCloneSyncService};
use tower_jwt_refresh::{
    JwtRefresh, JwtRefreshLayer, NoToken, Token, TokenError, TokenProvider, UseToken, clock::ManualClock,
};
use tower_reqwest::HttpClientLayer;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Door {
    Plain,
    Tower,
    Middleware,
}

#[derive(Clone)]
enum Sender {
    Plain(JwtRefresh<Client>),
    Tower(BoxCloneSyncService<http::Request<Body>, http::Response<Body>, BoxError>),
    Middleware(ClientWithMiddleware),
}

struct Set {
    server: Server,
    endpoint: Endpoint,
    provider: TokenProvider,
    clock: ManualClock,
    sender: Sender,
    stack: Stack,
}

impl Set {
    async fn up(door: Door, stack: Stack) -> Self {
        let (server, endpoint) = (Server::start(stack).await, Endpoint::hourly());
        let (provider, clock) = provider(&endpoint);
        let layer = JwtRefreshLayer::new(provider.clone());
        let client = client(stack);
        let sender = match door {
            Door::Plain => Sender::Plain(layer.layer(client)),
            Door::Tower => Sender::Tower(BoxCloneSyncService::new(
                ServiceBuilder::new().layer(layer).layer(HttpClientLayer).service(client),
            )),
            Door::Middleware => Sender::Middleware(reqwest_middleware::ClientBuilder::new(client).with(layer).build()),
        };
        Self { server, endpoint, provider, clock, sender, stack }
    }

    async fn send(&self, body: impl Into<Body>) -> Result<(StatusCode, Bytes), BoxError> {
        let (url, body) = (self.server.uri(), body.into());
        match self.sender.clone() {
            Sender::Plain(client) => {
                let mut request = reqwest::Request::new(Method::POST, url.parse()?);
                *request.body_mut() = Some(body);
                read(client.oneshot(request).await?).await
            }
            Sender::Tower(client) => {
                let answer = client.oneshot(http::Request::post(url).body(body)?).await?;
                Ok((answer.status(), answer.into_body().collect().await?.to_bytes()))
            }
            Sender::Middleware(client) => read(client.post(url).body(body).send().await?).await,
        }
    }

    async fn accepted(&self, body: impl Into<Body>) {
        assert_eq!(self.send(body).await.unwrap(), (StatusCode::OK, "ok".into()));
    }

    async fn refused(&self, body: impl Into<Body>) {
        assert_eq!(self.send(body).await.unwrap(), (StatusCode::UNAUTHORIZED, "refused".into()));
    }

    /// What the server saw, and how often the endpoint was asked.
    fn expect(&self, tokens: &[&str], fetches: usize) {
        assert_eq!(self.server.tokens(), tokens);
        assert_eq!(self.endpoint.fetches(), fetches);
    }
}

fn client(stack: Stack) -> Client {
    let builder = Client::builder().no_proxy();
    let builder = if stack == Stack::Http2 { builder.http2_prior_knowledge() } else { builder };
    builder.build().unwrap()
}

async fn read(answer: reqwest::Response) -> Result<(StatusCode, Bytes), BoxError> {
    Ok((answer.status(), answer.bytes().await?))
}

/// The error of the layer, through whatever door it came.
fn token_error(error: &BoxError) -> Option<&TokenError> {
    match error.downcast_ref() {
        Some(reqwest_middleware::Error::Middleware(error)) => error.downcast_ref(),
        _ => error.downcast_ref(),
    }
}

// Scenario 1.
async fn fresh(door: Door, stack: Stack) {
    let set = Set::up(door, stack).await;
    set.provider.set(Token::opaque("good").unwrap().with_expires_in(HOUR));
    set.accepted("body").await;
    let seen = set.server.request(0).await;
    assert_eq!((seen.version, seen.body), (set.stack.version(), b"body".to_vec()));
    set.expect(&["good"], 0);
}

// Scenario 3.
async fn expired(door: Door, stack: Stack) {
    let set = Set::up(door, stack).await;
    set.clock.advance(HOUR);
    set.accepted("body").await;
    set.expect(&["t1"], 1);
}

// Scenarios 16, 53: of any size, since bytes in memory are shared.
async fn rejected(door: Door, stack: Stack) {
    let set = Set::up(door, stack).await;
    let bytes = numbered(512 * 1024);
    set.accepted(bytes.clone()).await;
    for sending in 0..2 {
        let seen = set.server.request(sending).await;
        assert!(seen.body == bytes, "{sending}");
        assert_eq!(seen.headers.get("content-length").unwrap(), "524288", "{sending}");
    }
    set.expect(&["old", "t1"], 1);
}

// Scenario 20.
async fn rejected_twice(door: Door, stack: Stack) {
    let set = Set::up(door, stack).await;
    set.server.revoke("t1");
    set.refused("body").await;
    set.expect(&["old", "t1"], 1);
}

// Scenarios 7 and 21.
async fn refresh_down(door: Door, stack: Stack) {
    let set = Set::up(door, stack).await;
    set.endpoint.usually(Reply::Fail);
    set.refused("body").await;
    set.expect(&["old"], 1);

    set.clock.advance(HOUR);
    let error = set.send("body").await.unwrap_err();
    assert!(matches!(token_error(&error), Some(TokenError::Unavailable { .. })), "{error}");
    set.expect(&["old"], 2);
}

// Scenarios 52, 54 and 55.
async fn streaming_replay(door: Door, stack: Stack) {
    let set = Set::up(door, stack).await;
    set.server.refuse(Refuse::AndReadOn(2));
    let (feed, body) = fed::<BoxError>();
    feed.send(data("ab")).unwrap();
    let (answer, ()) = tokio::join!(set.send(Body::wrap(body.boxed())), async {
        // The resend has what was read before; the first sending never gets the rest.
        set.server.read_bytes(1, 2).await;
        feed.send(data("cd")).unwrap();
        if stack == Stack::Http2 {
            feed.send(Frame::trailers(trailers())).unwrap();
        }
        drop(feed);
    });
    assert_eq!(answer.unwrap().0, StatusCode::OK);
    let (first, second) = (set.server.request(0).await, set.server.request(1).await);
    assert_eq!(first.body, b"ab");
    first.end.unwrap().expect_err("half a body never looks whole");
    assert_eq!((second.body, second.end), (b"abcd".to_vec(), Some(Ok(()))));
    set.expect(&["old", "t1"], 1);
}

// Scenario 54.
async fn over_the_limit(door: Door, stack: Stack) {
    let set = Set::up(door, stack).await;
    set.refused(Body::wrap(Frames::numbered(128 * 1024 + 1))).await;
    let seen = set.server.request(0).await;
    assert!(seen.body == numbered(128 * 1024 + 1) && seen.end == Some(Ok(())), "sent once, whole");
    set.provider.token().await.unwrap();
    set.accepted("next").await;
    set.expect(&["old", "t1"], 1);
}

// Scenarios 30 and 85: while the token is fetched, and while its resend is answered.
async fn caller_cancelled(door: Door, stack: Stack) {
    let set = Set::up(door, stack).await;
    set.endpoint.shut();
    tokio::select! {
        _ = set.send("first") => unreachable!("no token comes"),
        () = set.endpoint.asked_times(1) => {}
    }
    set.endpoint.open();
    set.accepted("second").await;
    set.expect(&["old", "t1"], 1);

    set.server.revoke("t1");
    set.server.hold("t2");
    set.clock.advance(HOUR / 6);
    tokio::select! {
        _ = set.send("third") => unreachable!("the answer is held back"),
        () = set.server.seen_times(4) => {}
    }
    set.server.let_go(2);
    set.accepted("fourth").await;
    set.expect(&["old", "t1", "t1", "t2", "t2"], 2);
}

// Scenario 17.
async fn rejected_together(door: Door, stack: Stack) {
    const CALLERS: usize = 200;
    let set = Set::up(door, stack).await;
    set.server.hold("old");
    let (answers, ()) = tokio::join!(join_all((0..CALLERS).map(|_| set.send("body"))), async {
        set.server.seen_times(CALLERS).await;
        set.server.let_go(CALLERS);
    });
    assert!(answers.iter().all(|answer| answer.as_ref().unwrap().0 == StatusCode::OK));
    assert_eq!(set.server.tokens(), [["old"; CALLERS], ["t1"; CALLERS]].concat());
    assert_eq!(set.endpoint.fetches(), 1);
}

macro_rules! hold_on {
    ($($module:ident: $door:ident, $stack:ident;)*) => {$(
        mod $module {
            use super::{Door, Stack};

            hold_on! { @ $door, $stack:
                a_fresh_token_is_sent_at_once => fresh,
                an_expired_token_is_replaced_before_it_is_sent => expired,
                a_refused_token_is_replaced_and_the_request_sent_again => rejected,
                a_second_refusal_is_the_callers => rejected_twice,
                with_the_endpoint_down_the_callers_get_the_401_or_the_reason => refresh_down,
                a_half_read_stream_is_sent_again_whole_and_its_first_sending_ends_in_an_error => streaming_replay,
                a_stream_over_the_limit_is_sent_once_and_the_next_request_heals => over_the_limit,
                a_cancelled_caller_does_not_lose_the_flight => caller_cancelled,
                two_hundred_refused_at_once_cost_one_fetch => rejected_together,
            }
        }
    )*};
    (@ $door:ident, $stack:ident: $($name:ident => $behaviour:ident,)*) => {$(
        #[tokio::test]
        async fn $name() {
            super::$behaviour(Door::$door, Stack::$stack).await;
        }
    )*};
}

hold_on! {
    client_http1: Plain, Http1;
    client_http2: Plain, Http2;
    tower_reqwest_http1: Tower, Http1;
    tower_reqwest_http2: Tower, Http2;
    middleware_http1: Middleware, Http1;
    middleware_http2: Middleware, Http2;
}

// Scenario 52.
#[tokio::test]
async fn a_resend_keeps_headers_timeout_and_version_and_a_request_without_a_body_stays_one() {
    let set = Set::up(Door::Plain, Stack::Http1).await;
    let Sender::Plain(service) = set.sender.clone() else { unreachable!() };
    let request = Client::new()
        .put(set.server.uri())
        .header("x-a", "1")
        .timeout(Duration::from_secs(60))
        .version(http::Version::HTTP_11)
        .build()
        .unwrap();
    assert_eq!(service.oneshot(request).await.unwrap().status(), StatusCode::OK);
    let (first, second) = (set.server.request(0).await, set.server.request(1).await);
    let bare = |mut headers: http::HeaderMap| {
        headers.remove("authorization");
        headers
    };
    assert_eq!(bare(first.headers), bare(second.headers.clone()));
    assert_eq!(second.headers.get("x-a").unwrap(), "1");
    assert!(second.body.is_empty());
    set.expect(&["old", "t1"], 1);
}

// Scenario 117.
#[tokio::test]
async fn a_middlewares_request_can_take_another_providers_token_or_none() {
    let set = Set::up(Door::Middleware, Stack::Http1).await;
    let Sender::Middleware(client) = set.sender.clone() else { unreachable!() };
    let other = Endpoint::hourly();
    let (tenant, _) = provider(&other);
    tenant.set(Token::opaque("theirs").unwrap().with_expires_in(HOUR));
    let send = |extension: Option<UseToken>| {
        let request = client.post(set.server.uri());
        match extension {
            Some(tenant) => request.with_extension(tenant),
            None => request.with_extension(NoToken),
        }
        .send()
    };
    assert_eq!(send(Some(UseToken(tenant))).await.unwrap().status(), StatusCode::OK);
    assert_eq!(send(None).await.unwrap().status(), StatusCode::OK, "this server takes requests without a token");
    set.expect(&["theirs", "-"], 0);
}

/// Counts what passes, and leaves its mark in the extensions.
struct Counter(std::sync::Arc<std::sync::atomic::AtomicUsize>);

#[derive(Clone)]
struct Mark;

#[async_trait::async_trait]
impl reqwest_middleware::Middleware for Counter {
    async fn handle(
        &self,
        request: reqwest::Request,
        extensions: &mut http::Extensions,
        next: reqwest_middleware::Next<'_>,
    ) -> reqwest_middleware::Result<reqwest::Response> {
        self.0.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        extensions.insert(Mark);
        next.run(request, extensions).await
    }
}

// Scenario 80.
#[tokio::test]
async fn a_middleware_before_the_layer_sees_one_request_and_one_after_it_each_sending() {
    let set = Set::up(Door::Middleware, Stack::Http1).await;
    let counts: [std::sync::Arc<std::sync::atomic::AtomicUsize>; 2] = Default::default();
    let client = reqwest_middleware::ClientBuilder::new(client(Stack::Http1))
        .with(Counter(counts[0].clone()))
        .with(JwtRefreshLayer::new(set.provider.clone()))
        .with(Counter(counts[1].clone()))
        .build();
    let mut extensions = http::Extensions::new();
    let request = client.post(set.server.uri()).build().unwrap();
    assert_eq!(client.execute_with_extensions(request, &mut extensions).await.unwrap().status(), StatusCode::OK);
    assert_eq!(counts.map(|count| count.load(std::sync::atomic::Ordering::SeqCst)), [1, 2]);
    assert!(extensions.get::<Mark>().is_some(), "the caller gets its extensions back");
}

#[tokio::test]
async fn reqwests_own_error_stays_its_own() {
    let set = Set::up(Door::Middleware, Stack::Http1).await;
    let Sender::Middleware(client) = set.sender.clone() else { unreachable!() };
    let nobody = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let error = client.get(format!("http://{nobody}/")).send().await.unwrap_err();
    assert!(matches!(&error, reqwest_middleware::Error::Reqwest(error) if error.is_connect()), "{error:?}");
    assert_eq!(set.endpoint.fetches(), 0);
}
