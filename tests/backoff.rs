//! When a source that fails is asked again: growing waits, whoever presses, and small ones again after a success.

mod support;

use std::time::Duration;
use support::{Endpoint, HOUR, MINUTE, Reply, SECOND, builder, pass, provider, settle};
use tokio::time::Instant;
use tower_jwt_refresh::{TokenError, TokenProvider, TokenStatus};

/// What tokio's timers may be late by.
const LATE: Duration = Duration::from_millis(2);

/// The least and the most that may lie between the `count`-th failure in a row, from 1, and the next fetch: from 1 s, doubling up to a
/// minute, of which jitter takes up to half, and never less than `min_interval`.
fn wait(count: usize) -> (Duration, Duration) {
    let longest = MINUTE.min(SECOND * 2u32.pow(u32::try_from(count - 1).unwrap().min(6)));
    ((longest / 2).max(SECOND), longest)
}

#[track_caller]
fn assert_schedule(gaps: &[Duration], late: Duration) {
    for (at, gap) in gaps.iter().enumerate() {
        let (least, most) = wait(at + 1);
        assert!(least <= *gap && *gap <= most + late, "{at}: {gaps:?}");
    }
}

fn retry_in(error: &TokenError) -> Duration {
    let TokenError::Unavailable { retry_in, .. } = error else { panic!("{error:?}") };
    *retry_in
}

// Scenario 93; aws/aws-sdk-java-v2#5690.
#[tokio::test(start_paused = true)]
async fn the_waits_double_and_callers_who_press_do_not_change_them() {
    let endpoint = Endpoint::new(Reply::Fail);
    let (provider, _) = provider(&endpoint);
    assert!(provider.init().await.is_err());
    let mut plan = Vec::new();
    while endpoint.fetches() < 12 {
        // The first to press after a failure learns when the next fetch is.
        let fetches = endpoint.fetches();
        let next = Instant::now() + retry_in(&provider.token().await.unwrap_err());
        plan.push(next);
        while Instant::now() < next - SECOND / 10 {
            let before = Instant::now();
            for _ in 0..5 {
                let left = retry_in(&provider.token().await.unwrap_err());
                assert_eq!(before + left, next, "pressing moves it neither way");
            }
            assert_eq!(before.elapsed(), Duration::ZERO);
            pass(SECOND / 20).await;
        }
        assert_eq!(endpoint.fetches(), fetches);
        tokio::time::sleep_until(next + LATE).await;
        settle().await;
        assert_eq!(endpoint.fetches(), fetches + 1, "and then it is kept");
    }
    for (asked, planned) in endpoint.asked()[1..].iter().zip(plan) {
        assert!(planned <= asked.at && asked.at <= planned + LATE);
    }
    assert_schedule(&endpoint.gaps(), LATE);
}

// Scenario 93; googleapis/google-cloud-rust#4593.
#[tokio::test(start_paused = true)]
async fn once_a_wait_is_over_a_caller_starts_a_flight_at_once_and_waits_for_nothing_more() {
    let endpoint = Endpoint::new(Reply::Fail);
    let (provider, _) = provider(&endpoint);
    for fetches in 1..=10 {
        let before = Instant::now();
        let left = retry_in(&provider.token().await.unwrap_err());
        assert_eq!((endpoint.fetches(), before.elapsed()), (fetches, Duration::ZERO));
        tokio::time::sleep_until(before + left).await;
        // tokio's clock counts milliseconds.
        pass(SECOND / 1000).await;
    }
    endpoint.usually(Reply::New(HOUR));
    let before = Instant::now();
    assert_eq!(provider.token().await.unwrap().expose_secret(), "t1");
    assert_eq!(before.elapsed(), Duration::ZERO);
}

// Scenario 93: a token that lives shortens the waits, and none is late for its death.
#[tokio::test(start_paused = true)]
async fn while_a_token_lives_no_wait_is_longer_than_half_of_what_it_has_left() {
    let endpoint = Endpoint::hourly();
    let (provider, _) = provider(&endpoint);
    provider.init().await.unwrap();
    let end = Instant::now() + HOUR;
    endpoint.usually(Reply::Fail);
    while Instant::now() < end {
        provider.token().await.unwrap();
        pass(SECOND / 4).await;
    }
    let asked = endpoint.asked();
    for (at, pair) in asked[1..].windows(2).enumerate() {
        let (least, most) = wait(at + 1);
        let half = ((end - pair[0].at) / 2).max(SECOND);
        let gap = pair[1].at - pair[0].at;
        assert!(least.min(half) <= gap && gap <= most.min(half) + LATE, "{at}: {gap:?}");
    }
    let last = asked.last().unwrap().at;
    assert!(end.saturating_duration_since(last) <= 2 * SECOND, "it is tried to the end");
}

// Scenario 94; aws/aws-sdk-java-v2#6805.
#[tokio::test(start_paused = true)]
async fn after_a_hundred_failures_the_wait_is_a_minute_at_most_and_recovery_works() {
    let endpoint = Endpoint::new(Reply::Fail);
    let (provider, _) = provider(&endpoint);
    assert!(provider.init().await.is_err());
    endpoint.asked_times(100).await;
    settle().await;
    assert_schedule(&endpoint.gaps(), LATE);
    let left = retry_in(&provider.token().await.unwrap_err());
    assert!(MINUTE / 2 <= left && left <= MINUTE, "{left:?}");
    endpoint.usually(Reply::New(HOUR));
    pass(MINUTE + LATE).await;
    assert_eq!(*provider.subscribe().borrow(), TokenStatus::Fresh);
    assert_eq!(provider.token().await.unwrap().expose_secret(), "t1");
    assert_eq!(endpoint.fetches(), 101);
}

/// Fails so often, while nothing is held.
async fn fail(provider: &TokenProvider, endpoint: &Endpoint, times: usize) {
    let before = endpoint.fetches();
    endpoint.usually(Reply::Fail);
    while endpoint.fetches() < before + times {
        let left = provider.token().await.map_or_else(|error| retry_in(&error), |_| SECOND);
        pass(left + LATE).await;
    }
}

// Scenario 95.
#[tokio::test(start_paused = true)]
async fn after_a_success_the_waits_start_small_again() {
    let endpoint = Endpoint::new(Reply::Fail);
    let (provider, _) = provider(&endpoint);
    fail(&provider, &endpoint, 8).await;
    endpoint.usually(Reply::New(10 * SECOND));
    pass(MINUTE).await;
    provider.token().await.unwrap();
    endpoint.usually(Reply::Fail);
    pass(10 * SECOND).await;
    let left = retry_in(&provider.token().await.unwrap_err());
    assert!(left <= SECOND, "{left:?}");
}

// Scenario 95.
#[tokio::test(start_paused = true)]
async fn a_success_does_not_forgive_min_interval() {
    let endpoint = Endpoint::new(Reply::Fail);
    let provider = builder().0.min_interval(5 * SECOND).build(endpoint.source()).unwrap();
    provider.token().await.unwrap_err();
    endpoint.usually(Reply::New(HOUR));
    pass(5 * SECOND).await;
    let token = provider.token().await.unwrap();
    assert_eq!(endpoint.gaps(), [5 * SECOND]);
    let before = Instant::now();
    provider.replace(&token).await.unwrap();
    assert_eq!(before.elapsed(), 5 * SECOND);
    provider.refresh().await.unwrap();
    assert_eq!(endpoint.gaps(), [5 * SECOND; 3]);
}

// Scenario 135; marcusquinn/aidevops#5302 and #5303.
#[tokio::test(start_paused = true)]
async fn a_short_retry_after_for_an_hour_makes_fetches_no_more_frequent() {
    for reply in [Reply::Busy(SECOND), Reply::Busy(Duration::ZERO), Reply::Fail] {
        let endpoint = Endpoint::new(reply.clone());
        let (provider, _) = provider(&endpoint);
        assert!(provider.init().await.is_err());
        let start = Instant::now();
        while start.elapsed() < HOUR {
            provider.token().await.unwrap_err();
            pass(SECOND / 2).await;
        }
        assert_schedule(&endpoint.gaps(), LATE);
        assert!((60..=7 + 3600 / 30).contains(&endpoint.fetches()), "{reply:?}: {}", endpoint.fetches());
    }
}
