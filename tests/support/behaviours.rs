//! What has to hold on every stack: each test file of one calls all of these.

#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]

use crate::{
    server::{Boxed, Feed, Frames, Refuse, Server, Stack, data, fed, numbered, provider, trailers, whole},
    support::{Endpoint, HOUR, Reply},
};
use bytes::Bytes;
use futures_util::future::join_all;
use http::{Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::{Client, connect::HttpConnector};
use tower::{
    BoxError, Layer, ServiceExt,
    limit::{ConcurrencyLimit, ConcurrencyLimitLayer},
};
use tower_jwt_refresh::{JwtRefresh, JwtRefreshLayer, TokenError, TokenProvider, clock::ManualClock};

/// As many requests at once as the largest test makes, and no permit more: one that leaked would be missed.
const PERMITS: usize = 200;

type Inner = ConcurrencyLimit<Client<HttpsConnector<HttpConnector>, Boxed>>;

struct Set {
    server: Server,
    endpoint: Endpoint,
    provider: TokenProvider,
    clock: ManualClock,
    client: JwtRefresh<Inner>,
}

impl Set {
    async fn up(stack: Stack, permits: usize) -> Self {
        let (server, endpoint) = (Server::start(stack).await, Endpoint::hourly());
        let (provider, clock) = provider(&endpoint);
        let inner = ConcurrencyLimitLayer::new(permits).layer(server.client());
        let client = JwtRefreshLayer::new(provider.clone()).layer(inner);
        Self { server, endpoint, provider, clock, client }
    }

    async fn send(&self, body: Boxed) -> Result<Response<Incoming>, BoxError> {
        self.client.clone().oneshot(Request::post(self.server.uri()).body(body)?).await
    }

    async fn accepted(&self, body: Boxed) {
        let answer = self.send(body).await.unwrap();
        assert_eq!(read(answer).await, (StatusCode::OK, "ok".into()));
    }

    async fn refused(&self, body: Boxed) {
        let answer = self.send(body).await.unwrap();
        assert_eq!(read(answer).await, (StatusCode::UNAUTHORIZED, "refused".into()));
    }

    /// What the server saw, and how often the endpoint was asked.
    fn expect(&self, tokens: &[&str], fetches: usize) {
        assert_eq!(self.server.tokens(), tokens);
        assert_eq!(self.endpoint.fetches(), fetches);
    }
}

async fn read(answer: Response<Incoming>) -> (StatusCode, Bytes) {
    (answer.status(), answer.into_body().collect().await.unwrap().to_bytes())
}

fn boxed() -> (Feed, Boxed) {
    let (feed, body) = fed();
    (feed, body.boxed())
}

// Scenario 1.
pub async fn fresh(stack: Stack) {
    let set = Set::up(stack, PERMITS).await;
    set.provider.set(tower_jwt_refresh::Token::opaque("good").unwrap().with_expires_in(HOUR));
    set.accepted(whole("body")).await;
    let seen = set.server.request(0).await;
    assert_eq!((seen.version, seen.body), (stack.version(), b"body".to_vec()));
    set.expect(&["good"], 0);
}

// Scenario 3.
pub async fn expired(stack: Stack) {
    let set = Set::up(stack, PERMITS).await;
    set.clock.advance(HOUR);
    set.accepted(whole("body")).await;
    set.expect(&["t1"], 1);
}

// Scenarios 16, 52 and 53.
pub async fn rejected(stack: Stack) {
    let set = Set::up(stack, PERMITS).await;
    set.accepted(whole("body")).await;
    let (first, second) = (set.server.request(0).await, set.server.request(1).await);
    assert_eq!((&first.body, &second.body), (&b"body".to_vec(), &b"body".to_vec()));
    let framing = |headers: &http::HeaderMap| headers.get("content-length").cloned();
    assert_eq!((framing(&first.headers), framing(&second.headers)), (Some(4.into()), Some(4.into())));
    set.expect(&["old", "t1"], 1);
}

// Scenario 20.
pub async fn rejected_twice(stack: Stack) {
    let set = Set::up(stack, PERMITS).await;
    set.server.revoke("t1");
    set.refused(whole("body")).await;
    set.expect(&["old", "t1"], 1);
}

// Scenarios 7 and 21.
pub async fn refresh_down(stack: Stack) {
    let set = Set::up(stack, PERMITS).await;
    set.endpoint.usually(Reply::Fail);
    set.refused(whole("body")).await;
    set.expect(&["old"], 1);

    set.clock.advance(HOUR);
    let error = set.send(whole("body")).await.unwrap_err();
    assert!(matches!(error.downcast_ref(), Some(TokenError::Unavailable { .. })), "{error}");
    set.expect(&["old"], 2);
}

// Scenarios 52, 54 and 55.
pub async fn streaming_replay(stack: Stack) {
    let set = Set::up(stack, PERMITS).await;
    set.server.refuse(Refuse::AndReadOn(2));
    let (feed, body) = boxed();
    feed.send(data("ab")).unwrap();
    let request = Request::post(set.server.uri()).header("trailer", "x-sum").body(body).unwrap();
    let (answer, ()) = tokio::join!(set.client.clone().oneshot(request), async {
        // The resend has what was read before; the first sending never gets the rest.
        set.server.read_bytes(1, 2).await;
        feed.send(data("cd")).unwrap();
        feed.send(Frame::trailers(trailers())).unwrap();
        drop(feed);
    });
    assert_eq!(answer.unwrap().status(), StatusCode::OK);
    let (first, second) = (set.server.request(0).await, set.server.request(1).await);
    assert_eq!(first.body, b"ab");
    first.end.unwrap().expect_err("half a body never looks whole");
    assert_eq!((second.body, second.trailers, second.end), (b"abcd".to_vec(), Some(trailers()), Some(Ok(()))));
    set.expect(&["old", "t1"], 1);
}

// Scenario 54.
pub async fn over_the_limit(stack: Stack) {
    let set = Set::up(stack, PERMITS).await;
    let body = Frames::numbered(128 * 1024 + 1);
    set.refused(body.boxed()).await;
    let seen = set.server.request(0).await;
    assert!(seen.body == numbered(128 * 1024 + 1) && seen.end == Some(Ok(())), "sent once, whole");
    set.provider.token().await.unwrap();
    set.accepted(whole("next")).await;
    set.expect(&["old", "t1"], 1);
}

// Scenarios 30 and 85: while the token is fetched, and while its resend is answered. There is one permit, which must not leak.
pub async fn caller_cancelled(stack: Stack) {
    let set = Set::up(stack, 1).await;
    set.endpoint.shut();
    tokio::select! {
        _ = set.send(whole("first")) => unreachable!("no token comes"),
        () = set.endpoint.asked_times(1) => {}
    }
    set.endpoint.open();
    set.accepted(whole("second")).await;
    set.expect(&["old", "t1"], 1);

    set.server.revoke("t1");
    set.server.hold("t2");
    set.clock.advance(HOUR / 6);
    tokio::select! {
        _ = set.send(whole("third")) => unreachable!("the answer is held back"),
        () = set.server.seen_times(4) => {}
    }
    set.server.let_go(2);
    set.accepted(whole("fourth")).await;
    set.expect(&["old", "t1", "t1", "t2", "t2"], 2);
}

// Scenario 17.
pub async fn rejected_together(stack: Stack) {
    let set = Set::up(stack, PERMITS).await;
    set.server.hold("old");
    let (answers, ()) = tokio::join!(join_all((0..PERMITS).map(|_| set.send(whole("body")))), async {
        set.server.seen_times(PERMITS).await;
        set.server.let_go(PERMITS);
    });
    assert!(answers.iter().all(|answer| answer.as_ref().unwrap().status() == StatusCode::OK));
    assert_eq!(set.server.tokens(), [["old"; PERMITS], ["t1"; PERMITS]].concat());
    assert_eq!(set.endpoint.fetches(), 1);
}
