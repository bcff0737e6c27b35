//! Clocks that are wrong or set, and machines that sleep.

mod support;

use futures_util::future::join_all;
use http::StatusCode;
use std::time::Duration;
use support::{Api, Endpoint, HOUR, MINUTE, Reply, SECOND, builder, get, pass, provider};
use tokio::time::Instant;
use tower::{Layer, ServiceExt};
use tower_jwt_refresh::{
    JwtRefreshLayer, Token, TokenProvider,
    clock::{Clock, ManualClock},
};

const URI: &str = "https://api.example.com/jobs/1";

async fn secret(provider: &TokenProvider) -> String {
    provider.token().await.unwrap().expose_secret().to_owned()
}

// Scenario 44.
#[tokio::test(start_paused = true)]
async fn with_the_servers_date_a_clock_that_is_hours_off_changes_nothing() {
    for ahead in [true, false] {
        let (builder, ours) = builder();
        let servers = ManualClock::following_tokio();
        if ahead {
            ours.jump_wall_ahead(HOUR);
        } else {
            ours.jump_wall_back(HOUR);
        }
        let (endpoint, api) = (Endpoint::new(Reply::Opaque).taking(2 * SECOND), Api::new());
        api.expire(&endpoint, HOUR + SECOND);
        // The answer's `exp` and `Date` are of the same clock, and written halfway.
        let clock = servers.clone();
        let source = endpoint.source().map_response(move |token: Token| {
            let date = clock.wall() - SECOND;
            let exp = date + HOUR;
            token.with_expires_in(exp.duration_since(date).unwrap())
        });
        let provider = builder.build(source).unwrap();
        let asked = ours.wall();
        provider.init().await.unwrap();
        assert_eq!(provider.current().unwrap().expires_at(), Some(asked + HOUR), "early by the way there, 1 s");
        let client = JwtRefreshLayer::new(provider).layer(api.clone());
        for _ in 0..6 * 360 {
            let before = Instant::now();
            client.clone().oneshot(get(URI)).await.unwrap();
            assert_eq!(before.elapsed(), Duration::ZERO);
            pass(10 * SECOND).await;
        }
        assert!(api.seen().iter().all(|seen| seen.status == StatusCode::OK));
        let gaps = endpoint.gaps();
        assert!(gaps.len() == 6 && gaps.iter().all(|gap| (3300 * SECOND..=3331 * SECOND).contains(gap)), "{gaps:?}");
    }
}

// googleapis/python-api-core#223: no `Date`, and our clock is behind by more than any margin.
#[tokio::test(start_paused = true)]
async fn a_clock_an_hour_behind_is_healed_by_the_401_each_time() {
    let (builder, ours) = builder();
    let servers = ManualClock::following_tokio();
    ours.jump_wall_back(HOUR);
    let (endpoint, api) = (Endpoint::new(Reply::Opaque), Api::new());
    api.expire(&endpoint, HOUR);
    let source = endpoint.source().map_response(move |token: Token| token.with_expires_at(servers.wall() + HOUR));
    let client = JwtRefreshLayer::new(builder.build(source).unwrap()).layer(api.clone());
    for _ in 0..6 * 60 {
        assert_eq!(client.clone().oneshot(get(URI)).await.unwrap().status(), StatusCode::OK);
        pass(MINUTE).await;
    }
    let refused = api.seen().iter().filter(|seen| seen.status == StatusCode::UNAUTHORIZED).count();
    assert_eq!((refused, endpoint.fetches()), (5, 6));
}

// Scenarios 45, 78; librespot-org/librespot#1617, opentdf/platform#1854.
#[tokio::test(start_paused = true)]
async fn after_a_suspend_a_thousand_requests_cost_one_fetch_and_none_carries_the_dead_token() {
    for background in [false, true] {
        let (endpoint, api) = (Endpoint::hourly(), Api::new());
        let (provider, clock) = provider(&endpoint);
        if background {
            provider.init().await.unwrap();
        }
        secret(&provider).await;
        pass(30 * MINUTE).await;
        endpoint.set_delay(SECOND);
        // The monotonic clock stands still in a suspend.
        clock.jump_wall_ahead(2 * HOUR);
        let layer = JwtRefreshLayer::new(provider);
        let woke = Instant::now();
        let requests = (0..1000).map(|_| layer.layer(api.clone()).oneshot(get(URI)));
        assert!(join_all(requests).await.iter().all(Result::is_ok));
        assert_eq!(woke.elapsed(), SECOND);
        assert_eq!(api.tokens(), vec!["t2"; 1000]);
        assert_eq!(endpoint.fetches(), 2);
    }
}

// Scenario 45.
#[tokio::test(start_paused = true)]
async fn a_suspend_into_the_stale_time_keeps_no_request_waiting() {
    let endpoint = Endpoint::hourly().taking(SECOND);
    let (provider, clock) = provider(&endpoint);
    provider.token().await.unwrap();
    clock.jump_wall_ahead(56 * MINUTE);
    let woke = Instant::now();
    assert_eq!((secret(&provider).await, woke.elapsed()), ("t1".into(), Duration::ZERO));
    pass(2 * SECOND).await;
    assert_eq!((secret(&provider).await, endpoint.fetches()), ("t2".into(), 2));
}

// ltratt/pizauth#48, BloopAI/bloop#1027, hypothesis/client#384, taskcluster/taskcluster#5269, DuendeArchive/identity-model-oidc-client-js#143: the
// loop's timer slept as well, so the first request sets it right.
#[tokio::test(start_paused = true)]
async fn after_a_suspend_the_loop_goes_by_the_new_token() {
    let endpoint = Endpoint::hourly();
    let (provider, clock) = provider(&endpoint);
    provider.init().await.unwrap();
    pass(10 * MINUTE).await;
    clock.jump_wall_ahead(2 * HOUR);
    assert_eq!(secret(&provider).await, "t2");
    // The old timer would have gone off in 45 minutes.
    pass(54 * MINUTE).await;
    assert_eq!(endpoint.fetches(), 2);
    pass(2 * MINUTE).await;
    assert_eq!(endpoint.fetches(), 3);
    assert_eq!(secret(&provider).await, "t3");
}

// redlib-org/redlib#23: first what the wall clock tells, then what only the server knows.
#[tokio::test(start_paused = true)]
async fn a_suspend_that_no_clock_saw_is_healed_by_the_401() {
    let (endpoint, api) = (Endpoint::hourly(), Api::new());
    let (provider, clock) = provider(&endpoint);
    provider.init().await.unwrap();
    let client = JwtRefreshLayer::new(provider).layer(api.clone());
    pass(MINUTE).await;
    clock.jump_wall_ahead(2 * HOUR);
    api.revoke("t1");
    assert_eq!(client.clone().oneshot(get(URI)).await.unwrap().status(), StatusCode::OK);
    // A virtual machine that is stopped and goes on: both clocks of the guest stood still.
    pass(MINUTE).await;
    api.revoke("t2");
    api.set_delay(SECOND / 10);
    let requests = (0..100).map(|_| client.clone().oneshot(get(URI)));
    assert!(join_all(requests).await.into_iter().all(|answer| answer.unwrap().status() == StatusCode::OK));
    assert_eq!(endpoint.fetches(), 3);
    let tokens = api.tokens();
    assert!(!tokens.iter().any(|token| token == "t1"), "the clock knew of the first");
    assert!(tokens[1..101].iter().all(|token| token == "t2"), "which no clock knew of the second");
    assert_eq!(tokens[101..], ["t3"; 100]);
}

// Scenario 46.
#[tokio::test(start_paused = true)]
async fn a_wall_clock_set_back_delays_no_refresh() {
    for background in [false, true] {
        let (endpoint, api) = (Endpoint::hourly(), Api::new());
        api.expire(&endpoint, HOUR);
        let (provider, clock) = provider(&endpoint);
        if background {
            provider.init().await.unwrap();
        }
        let client = JwtRefreshLayer::new(provider).layer(api.clone());
        for minute in 0..240 {
            if minute % 60 == 30 {
                clock.jump_wall_back(2 * HOUR);
            }
            client.clone().oneshot(get(URI)).await.unwrap();
            pass(MINUTE).await;
        }
        assert!(api.seen().iter().all(|seen| seen.status == StatusCode::OK));
        let gaps = endpoint.gaps();
        assert!(gaps.len() == 4 && gaps.iter().all(|gap| (55 * MINUTE..=56 * MINUTE).contains(gap)), "{gaps:?}");
    }
}

// Scenario 46, without a request.
#[tokio::test(start_paused = true)]
async fn the_loop_refreshes_on_time_though_the_wall_clock_was_set_back() {
    let endpoint = Endpoint::hourly();
    let (provider, clock) = provider(&endpoint);
    provider.init().await.unwrap();
    pass(30 * MINUTE).await;
    clock.jump_wall_back(2 * HOUR);
    pass(26 * MINUTE).await;
    assert_eq!((endpoint.fetches(), provider.current().unwrap().expose_secret()), (2, "t2"));
}

// A clock set ahead and left there: one fetch, and the next token counts from the new time.
#[tokio::test(start_paused = true)]
async fn a_wall_clock_set_ahead_for_good_costs_one_fetch() {
    let endpoint = Endpoint::hourly();
    let (provider, clock) = provider(&endpoint);
    provider.init().await.unwrap();
    pass(10 * MINUTE).await;
    clock.jump_wall_ahead(5 * 366 * 24 * HOUR);
    for _ in 0..54 {
        assert_eq!(secret(&provider).await, "t2");
        pass(MINUTE).await;
    }
    assert_eq!(endpoint.fetches(), 2);
}
