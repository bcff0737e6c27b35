//! What becomes of a token while the inner service keeps the request waiting.

mod support;

use bytes::Bytes;
use http::{Response, StatusCode};
use http_body_util::Full;
use std::{future::Future, pin::Pin, sync::Arc, time::Duration};
use support::{Api, Endpoint, HOUR, MINUTE, Reply, SECOND, get, pass, post, provider, settle};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::Instant,
};
use tokio_test::task::{Spawn, spawn};
use tower::{BoxError, Layer, ServiceExt, limit::ConcurrencyLimit};
use tower_jwt_refresh::{JwtRefresh, JwtRefreshLayer, OnUnavailable, Token, TokenError, TokenProvider};

const URI: &str = "https://api.example.com/jobs/1";

type Service = JwtRefresh<ConcurrencyLimit<Api>>;

fn service(provider: &TokenProvider, api: &Api) -> (Service, Arc<Semaphore>) {
    let semaphore = Arc::new(Semaphore::new(1));
    let inner = ConcurrencyLimit::with_semaphore(api.clone(), Arc::clone(&semaphore));
    (JwtRefreshLayer::new(provider.clone()).layer(inner), semaphore)
}

/// The permit that a request waits for.
fn occupy(permits: &Arc<Semaphore>) -> OwnedSemaphorePermit {
    Arc::clone(permits).try_acquire_owned().expect("who waits for a token holds no permit")
}

type Call = Spawn<Pin<Box<dyn Future<Output = Result<Response<Full<Bytes>>, BoxError>>>>>;

/// A first request that has its token and waits for its turn.
async fn queued(service: &Service, permits: &Arc<Semaphore>) -> (Call, OwnedSemaphorePermit) {
    let mut call: Call = spawn(Box::pin(service.clone().oneshot(get(URI))));
    assert!(call.poll().is_pending(), "there is no token yet");
    let permit = occupy(permits);
    pass(2 * SECOND).await;
    assert!(call.poll().is_pending(), "there is one, and no permit");
    (call, permit)
}

// Scenario 98; bazelbuild/bazel#12106.
#[tokio::test(start_paused = true)]
async fn a_request_that_queued_goes_out_with_the_newest_token() {
    let (endpoint, api) = (Endpoint::hourly().taking(SECOND), Api::new());
    let (provider, _) = provider(&endpoint);
    let (service, permits) = service(&provider, &api);
    let (call, permit) = queued(&service, &permits).await;
    provider.refresh().await.unwrap();
    drop(permit);
    assert_eq!(call.await.unwrap().status(), StatusCode::OK);
    assert_eq!(api.tokens(), ["t2"]);
}

// Invariant 5.
#[tokio::test(start_paused = true)]
async fn a_token_that_was_refused_in_the_queue_is_replaced_before_the_request_goes_out() {
    let (endpoint, api) = (Endpoint::hourly().taking(SECOND), Api::new());
    let (provider, _) = provider(&endpoint);
    let (service, permits) = service(&provider, &api);
    let (call, permit) = queued(&service, &permits).await;
    pass(MINUTE).await;
    provider.reject(&provider.current().unwrap());
    drop(permit);
    assert_eq!(call.await.unwrap().status(), StatusCode::OK);
    assert_eq!(api.tokens(), ["t2"]);
}

// Scenario 98; cockroachdb/cockroach#169764.
#[tokio::test(start_paused = true)]
async fn a_token_that_died_in_the_queue_is_replaced_before_the_request_goes_out() {
    let (endpoint, api) = (Endpoint::hourly().taking(SECOND), Api::new());
    let (provider, _) = provider(&endpoint);
    let (service, permits) = service(&provider, &api);
    let (mut call, permit) = queued(&service, &permits).await;
    pass(HOUR).await;
    drop(permit);
    assert!(call.poll().is_pending());
    drop(occupy(&permits));
    assert_eq!(call.await.unwrap().status(), StatusCode::OK);
    assert_eq!((api.tokens(), endpoint.fetches()), (vec!["t2".to_owned()], 2));
}

// Invariant 5: a dead token is not sent because there was a better one when the request began to queue.
#[tokio::test(start_paused = true)]
async fn a_token_that_died_in_the_queue_while_its_source_is_down_is_an_error() {
    let (endpoint, api) = (Endpoint::hourly().taking(SECOND), Api::new());
    let (provider, _) = provider(&endpoint);
    let (service, permits) = service(&provider, &api);
    let (call, permit) = queued(&service, &permits).await;
    endpoint.usually(Reply::Fail);
    pass(HOUR).await;
    provider.token().await.unwrap_err();
    drop(permit);
    let error = call.await.unwrap_err();
    assert!(matches!(error.downcast_ref(), Some(TokenError::Unavailable { .. })), "{error}");
    assert_eq!(api.tokens(), [""; 0]);
    assert_eq!(endpoint.fetches(), 2, "the one of a moment ago counts for the request too");
    assert_eq!(permits.available_permits(), 1);
}

// The same with the other choices of what to do without a token.
#[tokio::test(start_paused = true)]
async fn a_token_that_died_in_the_queue_is_sent_only_by_choice() {
    for (choice, sent) in [(OnUnavailable::SendLast, "t1"), (OnUnavailable::SendWithout, "-")] {
        let (endpoint, api) = (Endpoint::hourly().taking(SECOND), Api::new());
        let (provider, _) = provider(&endpoint);
        let permits = Arc::new(Semaphore::new(1));
        let inner = ConcurrencyLimit::with_semaphore(api.clone(), Arc::clone(&permits));
        let service = JwtRefreshLayer::new(provider.clone()).on_unavailable(choice).layer(inner);
        let (call, permit) = queued(&service, &permits).await;
        endpoint.usually(Reply::Fail);
        pass(HOUR).await;
        provider.token().await.unwrap_err();
        drop(permit);
        call.await.unwrap();
        assert_eq!(api.tokens(), [sent]);
    }
}

// Scenario 122.
#[tokio::test(start_paused = true)]
async fn a_request_that_queued_is_not_sent_after_signing_out() {
    let (endpoint, api) = (Endpoint::hourly().taking(SECOND), Api::new());
    let (provider, _) = provider(&endpoint);
    let (service, permits) = service(&provider, &api);
    let (call, permit) = queued(&service, &permits).await;
    provider.clear();
    drop(permit);
    let error = call.await.unwrap_err();
    assert!(matches!(error.downcast_ref(), Some(TokenError::SignedOut)), "{error}");
    assert_eq!(api.tokens(), [""; 0]);
}

// Scenario 122.
#[tokio::test(start_paused = true)]
async fn a_resend_that_queued_is_not_made_after_signing_out_and_the_401_is_the_callers() {
    let (endpoint, api) = (Endpoint::hourly().taking(SECOND), Api::new());
    let (provider, _) = provider(&endpoint);
    provider.init().await.unwrap();
    pass(MINUTE).await;
    api.revoke("t1");
    let (service, permits) = service(&provider, &api);
    let mut call: Call = spawn(Box::pin(service.oneshot(post(URI, "hello"))));
    assert!(call.poll().is_pending(), "refused, and waiting for the second token");
    let permit = occupy(&permits);
    pass(SECOND + Duration::from_millis(1)).await;
    assert!(call.poll().is_pending(), "it is there, and no permit");
    assert_eq!(provider.current().unwrap().expose_secret(), "t2");
    provider.clear();
    drop(permit);
    settle().await;
    let response = call.await.unwrap();
    assert_eq!((response.status(), api.tokens()), (StatusCode::UNAUTHORIZED, vec!["t1".to_owned()]));
}

// Invariant 6: the wait for the successor of a refused, or of a dead, token is over, and the look at the token in hand just before it is sent
// began another.
#[tokio::test(start_paused = true)]
async fn a_request_that_has_waited_as_long_as_any_may_is_sent_and_waits_no_second_time() {
    for (life, choice) in [(HOUR, OnUnavailable::Fail), (3 * SECOND, OnUnavailable::SendLast)] {
        let (endpoint, api) = (Endpoint::new(Reply::Hang), Api::new());
        let (provider, _) = provider(&endpoint);
        let client = JwtRefreshLayer::new(provider.clone()).on_unavailable(choice).layer(api.clone());
        let mut refresh = spawn(provider.refresh());
        assert!(refresh.poll().is_pending());
        pass(20 * SECOND).await;
        // What the flight under way brings would be dropped, and so a waiter goes from it to its successor.
        provider.set(Token::opaque("last").unwrap().with_expires_in(life));
        pass(5 * SECOND).await;
        provider.reject(&provider.current().unwrap());
        let began = Instant::now();
        let answer = client.oneshot(get(URI)).await.unwrap();
        assert_eq!((answer.status(), began.elapsed()), (StatusCode::OK, 31 * SECOND));
        assert_eq!((endpoint.fetches(), api.tokens()), (2, vec!["last".to_owned()]));
    }
}

// Invariant 6: the patience with a token that is about to die is spent before the queue.
#[tokio::test(start_paused = true)]
async fn a_request_that_waited_while_its_token_was_about_to_die_waits_no_second_time_after_the_queue() {
    let (endpoint, api) = (Endpoint::hourly(), Api::new());
    let (provider, _) = provider(&endpoint);
    provider.token().await.unwrap();
    endpoint.usually(Reply::Hang);
    pass(HOUR - 30 * SECOND).await;
    let (service, permits) = service(&provider, &api);
    let (call, permit) = queued(&service, &permits).await;
    drop(permit);
    let began = Instant::now();
    assert_eq!(call.await.unwrap().status(), StatusCode::OK);
    assert_eq!((began.elapsed(), api.tokens()), (Duration::ZERO, vec!["t1".to_owned()]));
}

// A queue in which every token dies would send the request back for ever.
#[tokio::test(start_paused = true)]
async fn a_request_whose_tokens_die_in_the_queue_goes_back_for_another_once() {
    let (endpoint, api) = (Endpoint::new(Reply::New(10 * SECOND)).taking(SECOND), Api::new());
    let (provider, _) = provider(&endpoint);
    let (service, permits) = service(&provider, &api);
    let (mut call, permit) = queued(&service, &permits).await;
    pass(10 * SECOND).await;
    drop(permit);
    assert!(call.poll().is_pending(), "for another token, and without a permit");
    let permit = occupy(&permits);
    pass(2 * SECOND).await;
    assert!(call.poll().is_pending(), "it is there, and no permit");
    pass(10 * SECOND).await;
    drop(permit);
    let began = Instant::now();
    assert_eq!(call.await.unwrap().status(), StatusCode::OK);
    assert_eq!(
        (began.elapsed(), api.tokens()),
        (Duration::ZERO, vec!["t2".to_owned()]),
        "this time the server decides"
    );
}
