//! Tokens that live shorter than the thresholds: fractions of their life apply, and nothing spins.

mod support;

use http::StatusCode;
use std::time::Duration;
use support::{Api, Endpoint, HOUR, MINUTE, Reply, SECOND, builder, get, pass, provider};
use tokio::time::{Instant, sleep_until};
use tower::{Layer, ServiceExt};
use tower_jwt_refresh::{JwtRefreshLayer, TokenProvider, TokenStatus};

const MILLI: Duration = Duration::from_millis(1);

/// How long a request would wait for its token now.
async fn wait(provider: &TokenProvider) -> Duration {
    let before = Instant::now();
    provider.token().await.unwrap();
    before.elapsed()
}

// Scenario 42; googleapis/google-cloud-rust#6678.
#[tokio::test(start_paused = true)]
async fn however_short_tokens_live_fetches_keep_their_distance() {
    for millis in [0, 1, 100, 500, 1000, 1900, 2000, 5000, 10_000] {
        for background in [false, true] {
            let life = Duration::from_millis(millis);
            let endpoint = Endpoint::new(Reply::New(life));
            let (provider, _) = provider(&endpoint);
            if background {
                provider.init().await.unwrap();
            }
            let began = Instant::now();
            while began.elapsed() < 2 * MINUTE {
                provider.token().await.unwrap();
                pass(SECOND / 10).await;
            }
            let least = SECOND.max(life / 2);
            assert!(endpoint.gaps().iter().all(|gap| *gap >= least), "{life:?}: {:?}", endpoint.gaps());
            assert!(millis == 0 || endpoint.fetches() >= 20, "{life:?}: it goes on: {}", endpoint.fetches());
        }
    }
}

// Scenario 42; boto/botocore#2189.
#[tokio::test(start_paused = true)]
async fn no_token_is_stale_on_arrival() {
    for life in [2 * SECOND, 10 * SECOND, 59 * SECOND, MINUTE, 2 * MINUTE, 299 * SECOND, 5 * MINUTE, 15 * MINUTE] {
        let endpoint = Endpoint::new(Reply::New(life));
        let (provider, _) = provider(&endpoint);
        provider.token().await.unwrap();
        assert_eq!(*provider.subscribe().borrow(), TokenStatus::Fresh, "{life:?}");
        // Nor before half its life is over.
        pass(life / 2 - 2 * MILLI).await;
        assert_eq!(wait(&provider).await, Duration::ZERO);
        pass(MILLI).await;
        assert_eq!(endpoint.fetches(), 1, "{life:?}");
    }
}

// Scenarios 67, 87; boto/botocore#2189, aws-deadline/deadline-cloud#431, Bdaya-Dev/oidc#123, AxaFrance/oidc-client#923, nhost/nhost#2037,
// nuclia/frontend#2771, databricks/databricks-sdk-go#1482.
#[tokio::test(start_paused = true)]
async fn a_window_above_the_lifetime_makes_the_loop_fetch_each_half_life() {
    for (window, life) in [
        (300 * SECOND, 10 * SECOND),
        (300 * SECOND, 15 * SECOND),
        (300 * SECOND, 300 * SECOND),
        (300 * SECOND, 599 * SECOND),
        (900 * SECOND, 120 * SECOND),
        (900 * SECOND, 900 * SECOND),
        (6 * HOUR, HOUR),
    ] {
        let endpoint = Endpoint::new(Reply::New(life));
        let provider = builder().0.refresh_before(window).build(endpoint.source()).unwrap();
        provider.init().await.unwrap();
        pass(20 * life).await;
        // A tenth of the half at most is jitter.
        let (least, most) = (life / 2, life * 11 / 20 + 2 * MILLI);
        assert!(endpoint.gaps().iter().all(|gap| (least..=most).contains(gap)), "{life:?}: {:?}", endpoint.gaps());
        assert!(endpoint.fetches() >= 36, "{life:?}: {}", endpoint.fetches());
        assert_eq!(wait(&provider).await, Duration::ZERO);
    }
}

// Scenario 49.
#[tokio::test(start_paused = true)]
async fn with_tokens_of_ten_seconds_no_request_waits_but_the_first() {
    for background in [false, true] {
        let life = 10 * SECOND;
        let (endpoint, api) = (Endpoint::new(Reply::New(life)).taking(SECOND), Api::new());
        api.expire(&endpoint, life);
        let (provider, _) = provider(&endpoint);
        if background {
            provider.init().await.unwrap();
        } else {
            provider.token().await.unwrap();
        }
        let client = JwtRefreshLayer::new(provider).layer(api.clone());
        for _ in 0..3000 {
            let before = Instant::now();
            client.clone().oneshot(get("https://api.example.com/")).await.unwrap();
            assert_eq!(before.elapsed(), Duration::ZERO);
            pass(SECOND / 10).await;
        }
        assert!(api.seen().iter().all(|seen| seen.status == StatusCode::OK));
        assert!((40..=62).contains(&endpoint.fetches()), "{}", endpoint.fetches());
    }
}

// Scenario 79.
#[tokio::test(start_paused = true)]
async fn an_endpoint_slower_than_min_runway_costs_a_second_at_most_and_no_dead_token() {
    let life = 10 * MINUTE;
    let (endpoint, api) = (Endpoint::new(Reply::New(life)).taking(90 * SECOND), Api::new());
    api.expire(&endpoint, life);
    let provider = builder().0.fetch_timeout(2 * MINUTE).build(endpoint.source()).unwrap();
    provider.token().await.unwrap();
    let client = JwtRefreshLayer::new(provider).layer(api.clone());
    for lifetime in 1..=5 {
        // Nobody asks until the token is about to die.
        let end = endpoint.asked().last().unwrap().at + life;
        sleep_until(end - 20 * SECOND).await;
        loop {
            let before = Instant::now();
            client.clone().oneshot(get("https://api.example.com/")).await.unwrap();
            if before >= end {
                break;
            }
            let waited = before.elapsed();
            let runway = end - before;
            // The last may see it die while it waits.
            let left = (end + MILLI).saturating_duration_since(Instant::now());
            assert!(waited <= SECOND.min(runway / 2) + MILLI || left.is_zero(), "{waited:?} with {runway:?} left");
            pass(SECOND / 4).await;
        }
        assert_eq!(endpoint.fetches(), lifetime + 1);
    }
    assert!(api.seen().iter().all(|seen| seen.status == StatusCode::OK), "none is sent dead");
}

// Scenario 79, with a loop or steady traffic: nobody waits at all.
#[tokio::test(start_paused = true)]
async fn an_endpoint_slower_than_min_runway_is_not_noticed_where_its_refresh_begins_in_time() {
    let life = 10 * MINUTE;
    let (endpoint, api) = (Endpoint::new(Reply::New(life)).taking(90 * SECOND), Api::new());
    api.expire(&endpoint, life);
    let provider = builder().0.fetch_timeout(2 * MINUTE).build(endpoint.source()).unwrap();
    provider.init().await.unwrap();
    for _ in 0..600 {
        assert_eq!(wait(&provider).await, Duration::ZERO);
        pass(10 * SECOND).await;
    }
    assert_eq!(endpoint.most_at_once(), 1);
    assert!((15..=25).contains(&endpoint.fetches()), "{}", endpoint.fetches());
}
