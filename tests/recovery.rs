//! A source that fails for a while harms nobody for longer, and never the token that is held.

mod support;

use futures_util::future::join_all;
use std::time::Duration;
use support::{Api, Endpoint, HOUR, MINUTE, Reply, SECOND, get, pass, provider};
use tokio::time::Instant;
use tower::{Layer, ServiceExt};
use tower_jwt_refresh::{JwtRefreshLayer, TokenStatus};

// googleapis/google-cloud-rust#4541.
#[tokio::test(start_paused = true)]
async fn after_an_outage_the_next_call_on_the_same_provider_recovers() {
    let endpoint = Endpoint::new(Reply::Fail);
    let (provider, _) = provider(&endpoint);
    let began = Instant::now();
    while began.elapsed() < 15 * SECOND {
        provider.token().await.unwrap_err();
        pass(SECOND / 4).await;
    }
    assert!((3..=8).contains(&endpoint.fetches()), "the waits grow from 1 s: {}", endpoint.fetches());
    endpoint.usually(Reply::New(HOUR));
    let healed = Instant::now();
    while provider.token().await.is_err() {
        pass(SECOND / 4).await;
    }
    assert!(healed.elapsed() <= 16 * SECOND, "at most the wait that had begun: {:?}", healed.elapsed());
    assert_eq!(*provider.subscribe().borrow(), TokenStatus::Fresh);
}

// googleapis/google-cloud-rust#5864.
#[tokio::test(start_paused = true)]
async fn one_torn_read_does_not_end_the_loop() {
    for torn in [Reply::Fail, Reply::Panic, Reply::Refuse, Reply::Hang] {
        let endpoint = Endpoint::hourly();
        let (provider, _) = provider(&endpoint);
        provider.init().await.unwrap();
        endpoint.next(torn.clone());
        // Nobody asks.
        pass(5 * HOUR).await;
        assert!((6..=7).contains(&endpoint.fetches()), "{torn:?}: {}", endpoint.fetches());
        assert_eq!(*provider.subscribe().borrow(), TokenStatus::Fresh, "{torn:?}");
        assert!(endpoint.asked().iter().skip(1).all(|asked| asked.previous.is_some()), "{torn:?}");
    }
}

// Scenario 70; googleapis/google-cloud-rust#5809.
#[tokio::test(start_paused = true)]
async fn while_refreshes_fail_the_token_is_sent_to_its_end() {
    let endpoint = Endpoint::hourly();
    let (provider, _) = provider(&endpoint);
    provider.init().await.unwrap();
    endpoint.usually(Reply::Fail);
    for left in (1..=240).rev() {
        let until = HOUR - left * SECOND;
        tokio::time::sleep_until(endpoint.asked()[0].at + until).await;
        assert_eq!(provider.token().await.unwrap().expose_secret(), "t1", "{left} s before its end");
    }
    pass(SECOND).await;
    provider.token().await.unwrap_err();
}

// aws/aws-sdk-java-v2#3314; scenario 78.
#[tokio::test(start_paused = true)]
async fn after_a_long_idle_time_all_wait_and_none_is_handed_the_dead_token() {
    let (endpoint, api) = (Endpoint::hourly(), Api::new());
    let (provider, _) = provider(&endpoint);
    provider.token().await.unwrap();
    pass(3 * HOUR).await;
    endpoint.set_delay(SECOND);
    let layer = JwtRefreshLayer::new(provider.clone());
    let before = Instant::now();
    let requests = (0..50).map(|_| layer.layer(api.clone()).oneshot(get("https://api.example.com/")));
    assert!(join_all(requests).await.iter().all(Result::is_ok));
    assert_eq!(before.elapsed(), SECOND);
    assert_eq!(api.tokens(), ["t2"; 50]);
    assert_eq!(endpoint.fetches(), 2);
}

// aws/aws-sdk-java-v2#3160.
#[tokio::test(start_paused = true)]
async fn without_any_call_the_loop_keeps_the_token_fresh() {
    let endpoint = Endpoint::hourly().taking(SECOND);
    let (provider, _) = provider(&endpoint);
    provider.init().await.unwrap();
    for lifetime in 1..=10 {
        pass(2 * HOUR).await;
        let before = Instant::now();
        provider.token().await.unwrap();
        assert_eq!(before.elapsed(), Duration::ZERO);
        let least = usize::try_from(2 * lifetime).unwrap();
        assert!(endpoint.fetches() > least && endpoint.fetches() <= least + least / 4 + 2, "{}", endpoint.fetches());
    }
    assert!(endpoint.gaps().iter().all(|gap| *gap >= HOUR - 5 * MINUTE), "{:?}", endpoint.gaps());
}
