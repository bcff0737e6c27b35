//! A flight belongs to no caller: whoever gives up, whenever, neither stops it nor starts it anew, and leaves nothing behind.

mod support;

use futures_util::{FutureExt, future::join_all};
use http::StatusCode;
use std::{future::Future, pin::pin, sync::Arc, time::Duration};
use support::{Api, Endpoint, HOUR, MINUTE, SECOND, get, pass, provider};
use tokio::{sync::Semaphore, time::Instant};
use tower::{BoxError, Layer, Service, ServiceBuilder, ServiceExt, limit::GlobalConcurrencyLimitLayer};
use tower_jwt_refresh::{JwtRefreshLayer, TokenProvider};

const URI: &str = "https://api.example.com/jobs/1";

async fn send(provider: &TokenProvider, api: &Api) -> Result<StatusCode, BoxError> {
    let mut client = JwtRefreshLayer::new(provider.clone()).layer(api.clone());
    Ok(client.ready().await?.call(get(URI)).await?.status())
}

// Scenario 30; Azure/azure-sdk-for-net#19424.
#[tokio::test(start_paused = true)]
async fn a_dropped_caller_does_not_stop_the_flight() {
    let (endpoint, api) = (Endpoint::hourly().taking(2 * SECOND), Api::new());
    let (provider, _) = provider(&endpoint);
    let first = tokio::spawn({
        let (provider, api) = (provider.clone(), api.clone());
        async move { send(&provider, &api).await }
    });
    endpoint.asked_times(1).await;
    let others = (0..10).map(|_| send(&provider, &api));
    let before = Instant::now();
    let (others, ()) = tokio::join!(join_all(others), async {
        pass(SECOND).await;
        first.abort();
    });
    assert!(others.iter().all(|answer| *answer.as_ref().unwrap() == StatusCode::OK));
    assert_eq!(before.elapsed(), 2 * SECOND);
    assert!(first.await.unwrap_err().is_cancelled());
    assert_eq!(api.tokens(), ["t1"; 10]);
    assert_eq!(endpoint.fetches(), 1);
}

// Scenario 31; ktorio/ktor#5193, AzureAD/microsoft-authentication-library-for-dotnet#4473.
#[tokio::test(start_paused = true)]
async fn when_all_callers_are_dropped_the_token_still_lands() {
    let endpoint = Endpoint::hourly().taking(2 * SECOND);
    let (provider, _) = provider(&endpoint);
    let callers: Vec<_> = (0..10)
        .map(|_| {
            let provider = provider.clone();
            tokio::spawn(async move { provider.token().await })
        })
        .collect();
    endpoint.asked_times(1).await;
    callers.iter().for_each(tokio::task::JoinHandle::abort);
    pass(2 * SECOND).await;
    assert_eq!(provider.token().now_or_never().unwrap().unwrap().expose_secret(), "t1");
    assert_eq!(endpoint.fetches(), 1);
}

// Scenario 75; golang/oauth2#799, aws/aws-sdk-go#3133, aws/aws-sdk-go-v2#503, authts/oidc-client-ts#1102.
#[tokio::test(start_paused = true)]
async fn callers_with_a_short_timeout_time_out_alone_and_the_flight_lands() {
    let (endpoint, api) = (Endpoint::hourly().taking(2 * SECOND), Api::new());
    let (provider, _) = provider(&endpoint);
    let mut client =
        ServiceBuilder::new().timeout(SECOND / 5).layer(JwtRefreshLayer::new(provider.clone())).service(api.clone());
    for _ in 0..9 {
        let before = Instant::now();
        let error = client.ready().await.unwrap().call(get(URI)).await.unwrap_err();
        assert!(error.is::<tower::timeout::error::Elapsed>(), "{error}");
        assert!(before.elapsed() < SECOND / 4, "{:?}", before.elapsed());
    }
    assert!(api.seen().is_empty());
    pass(SECOND / 5).await;
    assert_eq!(client.ready().await.unwrap().call(get(URI)).await.unwrap().status(), StatusCode::OK);
    assert_eq!(endpoint.fetches(), 1);
}

// Azure/azure-sdk-for-net#44817.
#[tokio::test(start_paused = true)]
async fn a_caller_dropped_during_a_background_flight_makes_nobody_hang() {
    let endpoint = Endpoint::hourly();
    let (provider, _) = provider(&endpoint);
    provider.token().await.unwrap();
    pass(HOUR - 2 * MINUTE).await;
    endpoint.set_delay(10 * SECOND);
    // It starts the flight and gets the stale token; then it waits for the new one, and gives up.
    provider.token().await.unwrap();
    assert!(provider.refresh().now_or_never().is_none());
    let before = Instant::now();
    assert_eq!(provider.token().await.unwrap().expose_secret(), "t1");
    assert_eq!(before.elapsed(), Duration::ZERO);
    assert_eq!(provider.refresh().await.unwrap().expose_secret(), "t2");
    assert_eq!(before.elapsed(), 10 * SECOND);
    assert_eq!(endpoint.fetches(), 2);
}

/// Polls a request `polls` times and drops it; true if it was through before.
async fn give_up_after<F: Future>(request: F, polls: usize) -> bool {
    let mut request = pin!(request);
    for _ in 0..polls {
        if request.as_mut().now_or_never().is_some() {
            return true;
        }
        // One step of time and of all that moves, so that each wait in the request ends once.
        pass(SECOND / 2).await;
    }
    false
}

// Scenarios 30, 31, 85; AzureAD/microsoft-authentication-library-for-dotnet#4472.
#[tokio::test(start_paused = true)]
async fn a_request_dropped_at_any_await_loses_no_flight_and_no_permit() {
    let mut through = false;
    for polls in 0.. {
        if through {
            assert!(polls > 8, "it waits for a fetch, a permit, an answer, a fetch, a permit and an answer");
            break;
        }
        let (endpoint, api) = (Endpoint::hourly().taking(SECOND), Api::new());
        let (provider, _) = provider(&endpoint);
        api.revoke("t1");
        api.set_delay(SECOND);
        let permits = Arc::new(Semaphore::new(1));
        let limit = GlobalConcurrencyLimitLayer::with_semaphore(Arc::clone(&permits));
        let client =
            ServiceBuilder::new().layer(JwtRefreshLayer::new(provider.clone())).layer(limit).service(api.clone());
        through = give_up_after(client.clone().oneshot(get(URI)), polls).await;
        assert_eq!(permits.available_permits(), 1, "after {polls} polls");

        // Whatever it started has come to its end, by itself.
        pass(3 * SECOND).await;
        let rejected = api.tokens().contains(&"t1".to_owned());
        let asked = endpoint.fetches();
        assert_eq!(endpoint.busy(), 0, "after {polls} polls");
        assert_eq!(provider.current().is_some(), polls > 0, "after {polls} polls");
        assert_eq!(tokio::runtime::Handle::current().metrics().num_alive_tasks(), 0, "after {polls} polls");
        assert!(asked <= 1 + usize::from(rejected), "after {polls} polls: {asked}");

        // And the next caller finds it all working.
        let response = tokio::time::timeout(MINUTE, client.oneshot(get(URI))).await.expect("nothing hangs").unwrap();
        assert_eq!(response.status(), StatusCode::OK, "after {polls} polls");
        assert_eq!(permits.available_permits(), 1, "after {polls} polls");
        assert!(endpoint.fetches() <= 2, "after {polls} polls: {}", endpoint.fetches());
        assert_eq!(endpoint.most_at_once(), 1, "after {polls} polls");
    }
}

// Scenario 85.
#[tokio::test(start_paused = true)]
async fn dropping_every_kind_of_wait_for_a_token_at_any_await_stops_nothing() {
    for kind in 0..4 {
        for polls in 1..4 {
            let endpoint = Endpoint::hourly().taking(SECOND);
            let (provider, _) = provider(&endpoint);
            let wait = async {
                match kind {
                    0 => provider.token().await.map(drop),
                    1 => provider.init().await,
                    2 => provider.token_valid_for(MINUTE).await.map(drop),
                    _ => provider.refresh().await.map(drop),
                }
            };
            assert_eq!(give_up_after(wait, polls).await, polls > 2, "kind {kind}, after {polls} polls");
            pass(SECOND).await;
            assert_eq!(provider.current().unwrap().expose_secret(), "t1", "kind {kind}, after {polls} polls");
            assert_eq!(endpoint.fetches(), 1, "kind {kind}, after {polls} polls");
        }
    }
}

// Scenario 85.
#[tokio::test(start_paused = true)]
async fn a_caller_dropped_between_the_rejection_and_the_resend_leaves_the_next_a_new_token() {
    let (endpoint, api) = (Endpoint::hourly(), Api::new());
    let (provider, _) = provider(&endpoint);
    provider.token().await.unwrap();
    pass(MINUTE).await;
    api.revoke("t1");
    endpoint.set_delay(SECOND);
    let request = tokio::spawn({
        let (provider, api) = (provider.clone(), api.clone());
        async move { send(&provider, &api).await }
    });
    endpoint.asked_times(2).await;
    request.abort();
    pass(SECOND).await;
    assert_eq!(send(&provider, &api).now_or_never().unwrap().unwrap(), StatusCode::OK);
    assert_eq!(api.tokens(), ["t1", "t2"]);
    assert_eq!(endpoint.fetches(), 2);
}
