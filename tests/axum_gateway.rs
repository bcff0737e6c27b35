//! A gateway of axum's whose handlers share one layered client: what callers sent streams through, and is sent again when the upstream refused the token.

#[path = "support/server.rs"]
mod server;
mod support;

use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    http::{StatusCode, Uri},
    response::{IntoResponse, Response},
    routing::any,
};
use bytes::Bytes;
use futures_util::future::join_all;
use http_body_util::BodyExt;
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::{Client, connect::HttpConnector};
use server::{Boxed, Frames, Refuse, Server, Stack, data, fed, numbered, provider, whole};
use support::{Endpoint, HOUR, Reply};
use tokio::net::TcpListener;
use tower::{BoxError, Layer, ServiceExt};
use tower_jwt_refresh::{JwtRefresh, JwtRefreshLayer, Token, TokenError, TokenProvider, clock::ManualClock};

#[derive(Clone)]
struct Gateway {
    client: JwtRefresh<Client<HttpsConnector<HttpConnector>, Body>>,
    upstream: Uri,
}

async fn forward(State(gateway): State<Gateway>, mut request: Request) -> Response {
    *request.uri_mut() = gateway.upstream;
    match gateway.client.oneshot(request).await {
        Ok(answer) => answer.into_response(),
        Err(error) if error.is::<TokenError>() => (StatusCode::SERVICE_UNAVAILABLE, "no token").into_response(),
        Err(_) => StatusCode::BAD_GATEWAY.into_response(),
    }
}

struct Set {
    upstream: Server,
    endpoint: Endpoint,
    provider: TokenProvider,
    clock: ManualClock,
    caller: Client<HttpsConnector<HttpConnector>, Boxed>,
    url: String,
}

impl Set {
    async fn up() -> Self {
        let (upstream, endpoint) = (Server::start(Stack::Http1).await, Endpoint::hourly());
        let (provider, clock) = provider(&endpoint);
        let client = JwtRefreshLayer::new(provider.clone()).layer(upstream.client());
        let gateway = Gateway { client, upstream: upstream.uri().parse().unwrap() };
        let router = Router::new().route("/", any(forward)).with_state(gateway);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await });
        let caller = upstream.client();
        Self { upstream, endpoint, provider, clock, caller, url }
    }

    async fn send(&self, body: Boxed) -> Result<(StatusCode, Bytes), BoxError> {
        let answer = self.caller.request(http::Request::post(&self.url).body(body)?).await?;
        Ok((answer.status(), answer.into_body().collect().await?.to_bytes()))
    }

    async fn gets(&self, body: Boxed, status: StatusCode, text: &'static str) {
        assert_eq!(self.send(body).await.unwrap(), (status, text.into()));
    }

    /// What the upstream saw, and how often the endpoint was asked.
    fn expect(&self, tokens: &[&str], fetches: usize) {
        assert_eq!(self.upstream.tokens(), tokens);
        assert_eq!(self.endpoint.fetches(), fetches);
    }
}

// Scenario 1.
#[tokio::test]
async fn a_fresh_token_is_sent_at_once() {
    let set = Set::up().await;
    set.provider.set(Token::opaque("good").unwrap().with_expires_in(HOUR));
    set.gets(whole("body"), StatusCode::OK, "ok").await;
    assert_eq!(set.upstream.request(0).await.body, b"body");
    set.expect(&["good"], 0);
}

// Scenario 3.
#[tokio::test]
async fn an_expired_token_is_replaced_before_it_is_sent() {
    let set = Set::up().await;
    set.clock.advance(HOUR);
    set.gets(whole("body"), StatusCode::OK, "ok").await;
    set.expect(&["t1"], 1);
}

// Scenario 16.
#[tokio::test]
async fn a_refused_token_is_replaced_and_the_request_sent_again() {
    let set = Set::up().await;
    set.gets(whole("body"), StatusCode::OK, "ok").await;
    assert_eq!(set.upstream.request(1).await.body, b"body");
    set.expect(&["old", "t1"], 1);
}

// Scenario 20.
#[tokio::test]
async fn a_second_refusal_is_the_callers() {
    let set = Set::up().await;
    set.upstream.revoke("t1");
    set.gets(whole("body"), StatusCode::UNAUTHORIZED, "refused").await;
    set.expect(&["old", "t1"], 1);
}

// Scenarios 7 and 21.
#[tokio::test]
async fn with_the_endpoint_down_the_callers_get_the_401_or_the_gateways_own_answer() {
    let set = Set::up().await;
    set.endpoint.usually(Reply::Fail);
    set.gets(whole("body"), StatusCode::UNAUTHORIZED, "refused").await;
    set.clock.advance(HOUR);
    set.gets(whole("body"), StatusCode::SERVICE_UNAVAILABLE, "no token").await;
    set.expect(&["old"], 2);
}

// Scenarios 54 and 55.
#[tokio::test]
async fn a_half_read_stream_is_sent_again_whole_and_its_first_sending_ends_in_an_error() {
    let set = Set::up().await;
    set.upstream.refuse(Refuse::AndReadOn(2));
    let (feed, body) = fed();
    feed.send(data("ab")).unwrap();
    let (answer, ()) = tokio::join!(set.send(body.boxed()), async {
        // The resend has what was read before; the first sending never gets the rest.
        set.upstream.read_bytes(1, 2).await;
        feed.send(data("cd")).unwrap();
        drop(feed);
    });
    assert_eq!(answer.unwrap().0, StatusCode::OK);
    let (first, second) = (set.upstream.request(0).await, set.upstream.request(1).await);
    assert_eq!(first.body, b"ab");
    first.end.unwrap().expect_err("half a body never looks whole");
    assert_eq!((second.body, second.end), (b"abcd".to_vec(), Some(Ok(()))));
    set.expect(&["old", "t1"], 1);
}

// Scenario 54.
#[tokio::test]
async fn a_stream_over_the_limit_is_sent_once_and_the_next_request_heals() {
    let set = Set::up().await;
    let body = Frames::numbered(128 * 1024 + 1);
    set.gets(body.boxed(), StatusCode::UNAUTHORIZED, "refused").await;
    let seen = set.upstream.request(0).await;
    assert!(seen.body == numbered(128 * 1024 + 1) && seen.end == Some(Ok(())), "sent once, whole");
    set.provider.token().await.unwrap();
    set.gets(whole("next"), StatusCode::OK, "ok").await;
    set.expect(&["old", "t1"], 1);
}

// Scenario 30.
#[tokio::test]
async fn a_caller_that_hangs_up_does_not_stop_the_flight() {
    let set = Set::up().await;
    set.endpoint.shut();
    tokio::select! {
        _ = set.send(whole("first")) => unreachable!("no token comes"),
        () = set.endpoint.asked_times(1) => {}
    }
    set.endpoint.open();
    set.gets(whole("second"), StatusCode::OK, "ok").await;
    assert_eq!((set.endpoint.fetches(), set.upstream.tokens().last().unwrap().as_str()), (1, "t1"));
}

// Scenario 17.
#[tokio::test]
async fn two_hundred_refused_at_once_cost_one_fetch() {
    const CALLERS: usize = 200;
    let set = Set::up().await;
    set.upstream.hold("old");
    let (answers, ()) = tokio::join!(join_all((0..CALLERS).map(|_| set.send(whole("body")))), async {
        set.upstream.seen_times(CALLERS).await;
        set.upstream.let_go(CALLERS);
    });
    assert!(answers.iter().all(|answer| answer.as_ref().unwrap().0 == StatusCode::OK));
    assert_eq!(set.upstream.tokens(), [["old"; CALLERS], ["t1"; CALLERS]].concat());
    assert_eq!(set.endpoint.fetches(), 1);
}
