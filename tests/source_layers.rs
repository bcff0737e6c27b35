//! Tower layers around a source: each does what it is for, below one flight that belongs to nobody.

#[path = "support/files.rs"]
mod files;
mod support;

use files::{Folder, file_error};
use futures_util::{FutureExt, future::join_all};
use std::{error::Error, sync::Arc};
use support::{Endpoint, HOUR, MINUTE, Reply, SECOND, builder, pass, settle};
use tokio::{
    runtime::{Builder, Runtime},
    sync::Semaphore,
    time::{Instant, Sleep, sleep},
};
use tower::{
    BoxError, Layer, Service, ServiceBuilder, ServiceExt,
    limit::GlobalConcurrencyLimitLayer,
    retry::{Policy, RetryLayer},
    service_fn,
    timeout::error::Elapsed,
};
use tower_jwt_refresh::{
    FetchError, SourceError, Token, TokenError, TokenProvider, TokenRequest, TokenStatus,
    clock::ManualClock,
    source::{TokenFile, TokenFileError},
};

/// The endpoint as a source that can be cloned, as `Retry` wants it.
fn asks(
    endpoint: &Endpoint,
) -> impl Service<TokenRequest, Response = Token, Error = BoxError, Future: Send> + Clone + Send + use<> {
    let endpoint = endpoint.clone();
    service_fn(move |request| endpoint.source().call(request))
}

/// As the page on sources shows it: the permit is taken inside of the call, and goes with it.
fn limited(
    permits: &Arc<Semaphore>,
    endpoint: &Endpoint,
) -> impl Service<TokenRequest, Response = Token, Error = BoxError, Future: Send> + Send + use<> {
    let limited = GlobalConcurrencyLimitLayer::with_semaphore(Arc::clone(permits)).layer(asks(endpoint));
    service_fn(move |request| limited.clone().oneshot(request))
}

/// Repeats after a second, so often; not what the source calls permanent, or says when to repeat.
#[derive(Clone)]
struct Repeats(usize);

impl Policy<TokenRequest, Token, BoxError> for Repeats {
    type Future = Sleep;

    fn retry(&mut self, _: &mut TokenRequest, outcome: &mut Result<Token, BoxError>) -> Option<Sleep> {
        let error = outcome.as_ref().err()?;
        self.0 = self.0.checked_sub(1).filter(|_| !error.is::<SourceError>())?;
        Some(sleep(SECOND))
    }

    fn clone_request(&mut self, request: &TokenRequest) -> Option<TokenRequest> {
        Some(request.clone())
    }
}

/// What a caller is told of the fetch that failed.
fn fetch_error(error: &TokenError) -> &FetchError {
    std::iter::successors(Some(error as &(dyn Error + 'static)), |error| (*error).source())
        .find_map(|error| {
            error.downcast_ref::<FetchError>().or_else(|| error.downcast_ref::<Arc<FetchError>>().map(|error| &**error))
        })
        .expect("a fetch failed")
}

fn elapsed(error: &TokenError) -> bool {
    matches!(fetch_error(error), FetchError::Source(error) if error.is::<Elapsed>())
}

#[tokio::test(start_paused = true)]
async fn a_timeout_ends_the_fetch_for_all_who_wait_and_is_named() {
    let endpoint = Endpoint::hourly();
    endpoint.next(Reply::Hang);
    let source = ServiceBuilder::new().timeout(5 * SECOND).service(endpoint.source());
    let provider = builder().0.build(source).unwrap();
    let before = Instant::now();
    for result in join_all((0..50).map(|_| provider.token())).await {
        let error = result.unwrap_err();
        assert!(elapsed(&error), "{error:?}");
    }
    assert_eq!(before.elapsed(), 5 * SECOND);
    assert_eq!((endpoint.fetches(), endpoint.busy()), (1, 0));
    pass(SECOND).await;
    assert_eq!(provider.token().await.unwrap().expose_secret(), "t1");
}

#[tokio::test(start_paused = true)]
async fn repeats_within_one_flight_are_one_fetch_to_the_provider() {
    let endpoint = Endpoint::hourly();
    endpoint.next(Reply::Hang);
    endpoint.next(Reply::Fail);
    let source = ServiceBuilder::new().layer(RetryLayer::new(Repeats(2))).timeout(5 * SECOND).service(asks(&endpoint));
    let provider = builder().0.build(source).unwrap();
    let mut status = provider.subscribe();
    status.mark_unchanged();
    let before = Instant::now();
    let tokens = join_all((0..50).map(|_| provider.token())).await;
    assert!(tokens.iter().all(|token| token.as_ref().unwrap().expose_secret() == "t1"));
    assert_eq!(before.elapsed(), 5 * SECOND + SECOND + SECOND);
    assert_eq!(endpoint.fetches(), 3);
    assert_eq!(endpoint.most_at_once(), 1, "what timed out is over before it is asked again");
    // Not once did it fail: the first that is told is that the token is fresh.
    status.changed().await.unwrap();
    assert_eq!(*status.borrow(), TokenStatus::Fresh);
    // Each flight has its repeats.
    for reply in [Reply::Fail, Reply::Fail] {
        endpoint.next(reply);
    }
    assert_eq!(provider.refresh().await.unwrap().expose_secret(), "t2");
    assert_eq!(endpoint.fetches(), 6);
}

#[tokio::test(start_paused = true)]
async fn a_refused_credential_comes_through_a_retry_that_leaves_it_alone() {
    let endpoint = Endpoint::new(Reply::Refuse);
    let source = ServiceBuilder::new().layer(RetryLayer::new(Repeats(9))).service(asks(&endpoint));
    let provider = builder().0.build(source).unwrap();
    let error = provider.token().await.unwrap_err();
    assert!(matches!(error, TokenError::NeedsCredential { .. }), "{error}");
    assert_eq!(endpoint.fetches(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_retry_without_end_is_ended_by_the_flight() {
    let endpoint = Endpoint::new(Reply::Fail);
    let source = ServiceBuilder::new().layer(RetryLayer::new(Repeats(usize::MAX))).service(asks(&endpoint));
    let provider = builder().0.build(source).unwrap();
    let before = Instant::now();
    let error = provider.token().await.unwrap_err();
    assert!(matches!(fetch_error(&error), FetchError::TimedOut { .. }), "{error:?}");
    assert_eq!(before.elapsed(), 30 * SECOND);
    let asked = endpoint.fetches();
    pass(HOUR).await;
    assert_eq!(endpoint.fetches(), asked, "it does not go on without a flight");
}

#[tokio::test(start_paused = true)]
async fn a_rate_limit_holds_fetches_back_and_no_token_that_lives() {
    let endpoint = Endpoint::hourly();
    let source = ServiceBuilder::new().rate_limit(1, 10 * SECOND).service(endpoint.source());
    let provider = builder().0.build(source).unwrap();
    provider.token().await.unwrap();
    let before = Instant::now();
    let (forced, ()) = tokio::join!(join_all((0..10).map(|_| provider.refresh())), async {
        pass(SECOND).await;
        assert_eq!(provider.token().await.unwrap().expose_secret(), "t1");
        assert_eq!(before.elapsed(), SECOND);
    });
    assert!(forced.into_iter().all(|token| token.unwrap().expose_secret() == "t2"));
    assert_eq!(before.elapsed(), 10 * SECOND);
    assert_eq!(endpoint.fetches(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_rate_limit_above_the_flights_timeout_is_an_error_that_heals() {
    let endpoint = Endpoint::hourly();
    let source = ServiceBuilder::new().rate_limit(1, MINUTE).service(endpoint.source());
    let provider = builder().0.build(source).unwrap();
    provider.token().await.unwrap();
    pass(SECOND).await;
    let error = provider.refresh().await.unwrap_err();
    assert!(matches!(fetch_error(&error), FetchError::TimedOut { .. }), "{error:?}");
    assert_eq!(endpoint.fetches(), 1, "it was never asked");
    pass(30 * SECOND).await;
    assert_eq!(provider.refresh().await.unwrap().expose_secret(), "t2");
    assert_eq!(endpoint.fetches(), 2);
}

#[tokio::test(start_paused = true)]
async fn providers_that_share_a_concurrency_limit_fetch_one_after_the_other() {
    let endpoint = Endpoint::hourly().taking(2 * SECOND);
    let permits = Arc::new(Semaphore::new(1));
    let providers: Vec<TokenProvider> =
        (0..8).map(|_| builder().0.build(limited(&permits, &endpoint)).unwrap()).collect();
    let before = Instant::now();
    assert!(join_all(providers.iter().map(TokenProvider::token)).await.iter().all(Result::is_ok));
    assert_eq!(before.elapsed(), 16 * SECOND);
    assert_eq!((endpoint.fetches(), endpoint.most_at_once()), (8, 1));
    assert_eq!(permits.available_permits(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_permit_comes_back_however_a_fetch_ends() {
    let endpoint = Endpoint::hourly();
    let permits = Arc::new(Semaphore::new(1));
    let provider = builder().0.build(limited(&permits, &endpoint)).unwrap();
    for end in [Reply::Fail, Reply::Hang, Reply::Panic, Reply::PanicAtOnce, Reply::Refuse] {
        endpoint.next(end.clone());
        provider.refresh().await.unwrap_err();
        settle().await;
        assert_eq!((permits.available_permits(), endpoint.busy()), (1, 0), "{end:?}");
    }
    provider.refresh().await.unwrap();
    assert_eq!(permits.available_permits(), 1);
}

// The page on sources says so.
#[tokio::test(start_paused = true)]
async fn a_fetch_that_times_out_in_a_queue_starves_no_other_provider_if_its_place_was_taken_inside_of_the_call() {
    for inside in [true, false] {
        let endpoint = Endpoint::hourly();
        let permits = Arc::new(Semaphore::new(1));
        let provider = || match inside {
            true => builder().0.build(limited(&permits, &endpoint)).unwrap(),
            false => {
                let limit = GlobalConcurrencyLimitLayer::with_semaphore(Arc::clone(&permits));
                builder().0.build(limit.layer(endpoint.source())).unwrap()
            }
        };
        let (idle, busy) = (provider(), provider());
        let taken = permits.try_acquire().unwrap();
        let error = idle.token().await.unwrap_err();
        assert!(matches!(fetch_error(&error), FetchError::TimedOut { .. }), "{error:?}");
        drop(taken);
        settle().await;
        assert_eq!(permits.available_permits(), usize::from(inside));
        // The first one's place is given to nobody until it asks again, and it may never do so.
        assert_eq!(busy.token().await.is_ok(), inside);
        assert_eq!(endpoint.fetches(), usize::from(inside));
        if !inside {
            idle.refresh().await.unwrap();
            assert_eq!(busy.refresh().await.unwrap().expose_secret(), "t2");
        }
        assert_eq!(permits.available_permits(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn through_a_buffer_errors_are_what_they_were_and_a_fetch_given_up_leaves_nothing_behind() {
    let endpoint = Endpoint::hourly();
    let source = ServiceBuilder::new().buffer(1).service(endpoint.source());
    let provider = builder().0.build(source).unwrap();
    endpoint.next(Reply::Hang);
    let error = provider.token().await.unwrap_err();
    assert!(matches!(fetch_error(&error), FetchError::TimedOut { .. }), "{error:?}");
    settle().await;
    assert_eq!(endpoint.busy(), 0);
    endpoint.next(Reply::Refuse);
    let error = provider.refresh().await.unwrap_err();
    assert!(matches!(error, TokenError::NeedsCredential { .. }), "{error}");
    assert_eq!(provider.refresh().await.unwrap().expose_secret(), "t1");
}

/// A runtime whose time stands still unless all in it wait.
fn paused() -> Runtime {
    Builder::new_current_thread().enable_all().start_paused(true).build().unwrap()
}

// Scenario 133.
#[test]
fn a_permit_comes_back_from_a_flight_that_was_frozen_and_is_lost() {
    let (endpoint, clock) = (Endpoint::hourly(), ManualClock::new());
    let permits = Arc::new(Semaphore::new(1));
    let limit = GlobalConcurrencyLimitLayer::with_semaphore(Arc::clone(&permits));
    let source = limit.layer(endpoint.source());
    let provider = TokenProvider::builder().clock(clock.clone()).build(source).unwrap();
    let taken = permits.try_acquire().unwrap();
    let frozen = paused();
    frozen.block_on(async {
        assert!(provider.token().now_or_never().is_none());
        settle().await;
    });
    drop(taken);
    clock.advance(32 * SECOND);
    paused().block_on(provider.token()).unwrap();
    frozen.block_on(settle());
    assert_eq!(endpoint.fetches(), 1, "the lost one asks no more");
    assert_eq!(permits.available_permits(), 1);
}

// The page on sources says so.
#[test]
fn a_buffer_ends_with_the_runtime_that_it_was_built_in_and_the_provider_with_it() {
    let (endpoint, first) = (Endpoint::hourly(), paused());
    let provider = first.block_on(async {
        let source = ServiceBuilder::new().buffer(1).service(endpoint.source());
        let provider = TokenProvider::new(source);
        provider.token().await.unwrap();
        provider
    });
    drop(first);
    let error = paused().block_on(provider.refresh()).unwrap_err();
    let FetchError::Source(error) = fetch_error(&error) else { panic!("{error:?}") };
    assert!(error.is::<tower::buffer::error::Closed>(), "{error}");
}

#[tokio::test]
async fn all_of_them_around_a_file_keep_its_token_and_its_errors() {
    let folder = Folder::new();
    let source = ServiceBuilder::new()
        .buffer(1)
        .rate_limit(10, SECOND)
        .concurrency_limit(1)
        .layer(RetryLayer::new(Repeats(0)))
        .timeout(5 * SECOND)
        .service(TokenFile::new(folder.path()));
    let clock = ManualClock::new();
    let provider = TokenProvider::builder().clock(clock.clone()).build(source).unwrap();
    let error = provider.token().await.unwrap_err();
    assert!(matches!(file_error(&error), TokenFileError::Missing { .. }), "{error:?}");
    folder.rename("t1");
    clock.advance(MINUTE);
    assert_eq!(provider.refresh().await.unwrap().expose_secret(), "t1");
}
