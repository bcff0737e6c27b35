//! Over real sockets, with something between the layer and the client that makes requests wait.

#[path = "support/server.rs"]
mod server;
mod support;

use futures_util::future::join_all;
use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use server::{Boxed, Server, Stack, provider, whole};
use support::{Endpoint, HOUR};
use tower::{BoxError, Layer, Service, ServiceExt, buffer::Buffer, limit::ConcurrencyLimit, load_shed::LoadShed};
use tower_jwt_refresh::JwtRefreshLayer;

const PLAIN: [Stack; 2] = [Stack::Http1, Stack::Http2];

fn request(server: &Server) -> Request<Boxed> {
    Request::post(server.uri()).body(whole("body")).unwrap()
}

/// Twenty requests through what lets two pass, all with the token that is refused; then two more, to see that both permits are there.
async fn all_heal<S>(server: Server, inner: S)
where
    S: Service<Request<Boxed>, Response = Response<Incoming>, Error: Into<BoxError>> + Clone,
{
    let endpoint = Endpoint::hourly();
    let client = JwtRefreshLayer::new(provider(&endpoint).0).layer(inner.clone());
    let answers = join_all((0..20).map(|_| client.clone().oneshot(request(&server)))).await;
    assert!(answers.iter().all(|answer| answer.as_ref().unwrap().status() == StatusCode::OK));
    assert_eq!(endpoint.fetches(), 1);

    let before = server.tokens().len();
    server.hold("t1");
    let (answers, ()) = tokio::join!(join_all((0..2).map(|_| client.clone().oneshot(request(&server)))), async {
        server.seen_times(before + 2).await;
        server.let_go(2);
    });
    assert!(answers.iter().all(|answer| answer.as_ref().unwrap().status() == StatusCode::OK));
}

// Scenario 60.
#[tokio::test]
async fn under_a_concurrency_limit_both_sends_wait_their_turn_and_no_permit_is_lost() {
    for stack in PLAIN {
        let server = Server::start(stack).await;
        let inner = ConcurrencyLimit::new(server.client(), 2);
        all_heal(server, inner).await;
    }
}

// Scenario 60.
#[tokio::test]
async fn through_a_buffer_both_sends_wait_their_turn_and_no_place_is_lost() {
    for stack in PLAIN {
        let server = Server::start(stack).await;
        let inner = Buffer::new(ConcurrencyLimit::new(server.client(), 2), 2);
        all_heal(server, inner).await;
    }
}

// Scenario 60: a `LoadShed` is always ready and refuses the call, so a resend that it sheds was made.
#[tokio::test]
async fn what_is_shed_at_either_send_is_the_callers_error_and_no_permit_is_lost() {
    for stack in PLAIN {
        let (server, endpoint) = (Server::start(stack).await, Endpoint::hourly());
        let inner = LoadShed::new(ConcurrencyLimit::new(server.client(), 1));
        let (provider, _) = provider(&endpoint);
        let client = JwtRefreshLayer::new(provider.clone()).layer(inner);
        let send = || client.clone().oneshot(request(&server));

        endpoint.shut();
        server.hold("good");
        let refused = tokio::spawn(send());
        endpoint.asked_times(1).await;
        // Its permit is free while it waits for the token. Another takes that.
        let good = Request::post(server.uri()).header("authorization", "Bearer good").body(whole("body")).unwrap();
        let other = tokio::spawn(client.clone().oneshot(good));
        server.seen_times(2).await;
        endpoint.open();
        for shed in [refused.await.unwrap(), send().await] {
            assert!(shed.unwrap_err().is::<tower::load_shed::error::Overloaded>());
        }
        server.let_go(1);
        assert_eq!(other.await.unwrap().unwrap().status(), StatusCode::OK);
        assert_eq!(send().await.unwrap().status(), StatusCode::OK, "the permit is there again");
        assert_eq!((server.tokens(), endpoint.fetches()), (vec!["old".into(), "good".into(), "t1".into()], 1));
    }
}

// Scenario 98.
#[tokio::test]
async fn a_token_that_dies_in_a_queue_below_the_layer_is_replaced_when_the_server_refuses_it() {
    for stack in PLAIN {
        let (server, endpoint) = (Server::start(stack).await, Endpoint::hourly());
        let (provider, clock) = provider(&endpoint);
        let good = tower_jwt_refresh::Token::opaque("good").unwrap().with_expires_in(HOUR);
        provider.set(good);
        let inner = Buffer::new(ConcurrencyLimit::new(server.client(), 1), 10);
        let client = JwtRefreshLayer::new(provider).layer(inner);

        server.hold("good");
        let first = tokio::spawn(client.clone().oneshot(request(&server)));
        server.seen_times(1).await;
        let queued = tokio::spawn(client.oneshot(request(&server)));
        // It has its token and its place in the queue before the token dies.
        support::settle().await;
        clock.advance(HOUR);
        server.revoke("good");
        server.let_go(2);
        assert_eq!(first.await.unwrap().unwrap().status(), StatusCode::OK, "it came when its token was alive");
        assert_eq!(queued.await.unwrap().unwrap().status(), StatusCode::OK);
        assert_eq!((server.tokens(), endpoint.fetches()), (vec!["good".into(), "good".into(), "t1".into()], 1));
    }
}
