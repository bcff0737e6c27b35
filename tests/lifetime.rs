//! Nothing outlives its users but a flight, to its own end.

mod support;

use std::sync::{Arc, Weak};
use support::{Api, Endpoint, HOUR, MINUTE, Reply, SECOND, builder, get, pass, settle};
use tower::{Layer, Service, ServiceExt, service_fn};
use tower_jwt_refresh::{BoxError, JwtRefreshLayer, Token, TokenProvider, TokenRequest};

fn tasks() -> usize {
    tokio::runtime::Handle::current().metrics().num_alive_tasks()
}

/// A provider, and what its source holds: gone when the source is.
fn watched(endpoint: &Endpoint) -> (TokenProvider, Weak<()>) {
    let alive = Arc::new(());
    let weak = Arc::downgrade(&alive);
    let source = endpoint.clone();
    let source = service_fn(move |request: TokenRequest| {
        let _alive = &alive;
        source.source().call(request)
    });
    (builder().0.build(source).unwrap(), weak)
}

// Scenario 38; restatedev/restate#5154.
#[tokio::test(start_paused = true)]
async fn with_the_last_handle_the_loop_ends_and_the_source_is_dropped() {
    let endpoint = Endpoint::hourly();
    let (provider, source) = watched(&endpoint);
    provider.init().await.unwrap();
    settle().await;
    assert_eq!(tasks(), 1, "the loop");
    let layer = JwtRefreshLayer::new(provider.clone());
    let client = layer.layer(Api::new());
    let request = client.clone().oneshot(get("https://api.example.com/"));
    drop((provider, layer, client));
    settle().await;
    assert!(source.upgrade().is_some(), "a request that was begun still holds the provider");
    assert_eq!(tasks(), 1);
    drop(request);
    settle().await;
    assert!(source.upgrade().is_none());
    assert_eq!(tasks(), 0);
}

// Scenarios 31, 38; invariant 10: a rotated refresh token must not be lost.
#[tokio::test(start_paused = true)]
async fn a_flight_outlives_the_last_handle_to_its_own_end_and_no_longer() {
    let endpoint = Endpoint::hourly().taking(2 * SECOND);
    let (provider, source) = watched(&endpoint);
    let caller = tokio::spawn({
        let provider = provider.clone();
        async move { provider.init().await }
    });
    endpoint.asked_times(1).await;
    caller.abort();
    drop(provider);
    pass(SECOND).await;
    assert_eq!((endpoint.busy(), tasks()), (1, 1), "the flight flies, the loop and the caller are gone");
    assert!(source.upgrade().is_some());
    pass(SECOND).await;
    assert_eq!((endpoint.busy(), tasks()), (0, 0));
    assert!(source.upgrade().is_none());
}

// Scenario 38.
#[tokio::test(start_paused = true)]
async fn a_flight_that_hangs_outlives_the_last_handle_by_its_timeout_at_most() {
    let endpoint = Endpoint::new(Reply::Hang);
    let (provider, source) = watched(&endpoint);
    assert!(provider.try_token().is_none());
    endpoint.asked_times(1).await;
    drop(provider);
    pass(30 * SECOND).await;
    assert!(source.upgrade().is_none());
    assert_eq!((endpoint.busy(), tasks()), (0, 0));
}

// Scenario 38: neither what it reported nor who listens keeps it.
#[tokio::test(start_paused = true)]
async fn a_subscriber_and_a_token_hold_no_provider() {
    let endpoint = Endpoint::hourly();
    let (provider, source) = watched(&endpoint);
    provider.init().await.unwrap();
    let (mut status, token) = (provider.subscribe(), provider.current().unwrap());
    drop(provider);
    settle().await;
    assert!(source.upgrade().is_none());
    while status.changed().await.is_ok() {}
    assert_eq!(token.expose_secret(), "t1");
}

// Scenario 106; databricks/databricks-sdk-go#1493.
#[tokio::test(start_paused = true)]
async fn without_init_no_loop_is_ever_started() {
    let endpoint = Endpoint::hourly();
    let (provider, source) = watched(&endpoint);
    provider.token().await.unwrap();
    settle().await;
    assert_eq!(tasks(), 0);
    // Nor by a request that finds it stale, or one that is refused.
    pass(HOUR - 2 * MINUTE).await;
    provider.token().await.unwrap();
    settle().await;
    provider.reject(&provider.current().unwrap());
    pass(SECOND).await;
    assert_eq!((endpoint.fetches(), tasks()), (3, 0));
    pass(3 * HOUR).await;
    assert_eq!(endpoint.fetches(), 3, "nobody asks, nobody fetches");
    drop(provider);
    assert!(source.upgrade().is_none(), "there is nothing to wait for");
}

// Scenario 72; restatedev/restate#5154.
#[tokio::test(start_paused = true)]
async fn a_thousand_clients_made_used_and_dropped_leave_no_task() {
    let (endpoint, api) = (Endpoint::hourly(), Api::new());
    for _ in 0..1000 {
        let (provider, source) = watched(&endpoint);
        provider.init().await.unwrap();
        let client = JwtRefreshLayer::new(provider).layer(api.clone());
        client.oneshot(get("https://api.example.com/")).await.unwrap();
        settle().await;
        assert!(source.upgrade().is_none());
    }
    assert_eq!(tasks(), 0);
    assert_eq!(endpoint.fetches(), 1000);
}

// aws/aws-sdk-java-v2#5796.
#[tokio::test(start_paused = true)]
async fn ten_thousand_providers_at_once_are_ten_thousand_tasks_and_then_none() {
    let seed = || Token::opaque("seed").unwrap().with_expires_in(HOUR);
    let source = || service_fn(|_: TokenRequest| async { Err::<Token, BoxError>("never asked".into()) });
    let mut providers = Vec::new();
    for _ in 0..10_000 {
        let provider = builder().0.seed(seed()).build(source()).unwrap();
        provider.init().await.unwrap();
        // Twice is once.
        provider.init().await.unwrap();
        providers.push(provider);
    }
    pass(SECOND).await;
    assert_eq!(tasks(), 10_000);
    drop(providers);
    // The paused clock moves on only when nobody has anything left to do.
    pass(SECOND).await;
    assert_eq!(tasks(), 0);
}
