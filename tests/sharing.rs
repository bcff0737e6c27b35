//! Who shares a provider shares its flights; who has one of his own is not disturbed by others.

mod support;

use futures_util::future::join_all;
use http::StatusCode;
use std::{
    sync::{
        Arc, Barrier,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, SystemTime},
};
use support::{Api, Endpoint, HOUR, MINUTE, Reply, SECOND, builder, get, pass, provider};
use tokio::time::Instant;
use tower::{Layer, ServiceExt, service_fn};
use tower_jwt_refresh::{BoxError, JwtRefreshLayer, Placement, Token, TokenProvider, TokenRequest};

const URI: &str = "https://api.example.com/jobs/1";

// Scenario 107; Alamofire/Alamofire#3297 and #3928, LayerXcom/freee-go#55, DuendeArchive/Support#966.
#[tokio::test(start_paused = true)]
async fn layers_and_clones_over_one_provider_share_its_flights() {
    let (endpoint, api) = (Endpoint::hourly().taking(SECOND), Api::new());
    let (provider, _) = provider(&endpoint);
    let one = JwtRefreshLayer::new(provider.clone()).layer(api.clone());
    let key = Placement::header(http::header::HeaderName::from_static("x-api-key"));
    let two = JwtRefreshLayer::new(provider.clone()).place(key).layer(api.clone());
    let all = || async {
        let (first, second) = tokio::join!(
            join_all((0..10).map(|_| one.clone().oneshot(get(URI)))),
            join_all((0..10).map(|_| two.clone().oneshot(get(URI)))),
        );
        first.into_iter().chain(second).all(|answer| answer.unwrap().status() == StatusCode::OK)
    };
    assert!(all().await);
    assert_eq!(endpoint.fetches(), 1);
    // And in a rejection.
    pass(MINUTE).await;
    api.revoke("t1");
    assert!(all().await);
    assert_eq!(endpoint.fetches(), 2);
    assert_eq!(provider.clone().token().await.unwrap().expose_secret(), "t2");
}

// Azure/azure-sdk-for-rust#1228.
#[tokio::test(start_paused = true)]
async fn a_thousand_requests_in_a_lifetime_cost_one_fetch() {
    let (endpoint, api) = (Endpoint::hourly(), Api::new());
    let (provider, _) = provider(&endpoint);
    let client = JwtRefreshLayer::new(provider).layer(api.clone());
    for _ in 0..1000 {
        client.clone().oneshot(get(URI)).await.unwrap();
        pass(3 * SECOND).await;
    }
    assert_eq!(endpoint.fetches(), 1);
}

// Scenario 88.
#[tokio::test(start_paused = true)]
async fn one_of_64_providers_that_hangs_delays_none_of_the_others() {
    let hangs = Endpoint::new(Reply::Hang);
    let (hanging, _) = provider(&hangs);
    let waits = tokio::spawn(async move { hanging.token().await });
    hangs.asked_times(1).await;
    let endpoints: Vec<_> = (0..63).map(|_| Endpoint::hourly()).collect();
    let providers: Vec<_> = endpoints.iter().map(|endpoint| provider(endpoint).0).collect();
    let before = Instant::now();
    assert!(join_all(providers.iter().map(TokenProvider::token)).await.iter().all(Result::is_ok));
    assert!(join_all(providers.iter().map(TokenProvider::refresh)).await.iter().all(Result::is_ok));
    assert_eq!(before.elapsed(), SECOND, "only their own min_interval");
    assert!(!waits.is_finished());
}

// Scenario 50; smithy-lang/smithy-rs#2051 and #3402: spread, and never so late that a request has to wait.
#[tokio::test(start_paused = true)]
async fn a_thousand_providers_with_one_expiry_spread_their_refreshes() {
    let end = SystemTime::UNIX_EPOCH + Duration::from_secs(1_767_225_600) + HOUR;
    for (refresh_before, earliest, latest) in [(300, 3300, 3330), (60, 3540, 3540)] {
        let endpoint = Endpoint::hourly();
        let began = Instant::now();
        let mut providers = Vec::new();
        for _ in 0..1000 {
            let (builder, clock) = builder();
            let seed = Token::opaque("seed").unwrap().with_expires_at(end);
            let builder = builder.refresh_before(refresh_before * SECOND).min_runway(MINUTE).seed(seed);
            let provider = builder.build(endpoint.source()).unwrap();
            provider.init().await.unwrap();
            providers.push((provider, clock));
        }
        tokio::time::sleep_until(began + HOUR).await;
        let asked: Vec<_> = endpoint.asked().iter().map(|asked| asked.at - began).collect();
        assert_eq!(asked.len(), 1000);
        let slack = SECOND / 100;
        assert!(asked.iter().all(|at| *at >= earliest * SECOND && *at <= latest * SECOND + slack));
        let tenth = (latest - earliest) * SECOND / 10;
        for part in 0..10 {
            let from = earliest * SECOND + part * tenth;
            let here = asked.iter().filter(|at| **at >= from && **at < from + tenth).count();
            assert!(tenth.is_zero() || (50..=160).contains(&here), "part {part} of the window has {here}");
        }
    }
}

// Scenario 108; boto/botocore#1405, #1065 and #764.
#[test]
fn a_token_read_during_any_publish_is_of_one_piece() {
    // The expiry says which secret it belongs to, and so does the generation: each refresh adds one to all three.
    let an_hour_ahead = SystemTime::now() + HOUR;
    let end = move |number: u64| an_hour_ahead + Duration::from_secs(number);
    let provider = TokenProvider::builder()
        .refresh_before(SECOND)
        .build(service_fn(|_: TokenRequest| async { Err::<Token, BoxError>("never asked".into()) }))
        .unwrap();
    let (over, start) = (Arc::new(AtomicBool::new(false)), Arc::new(Barrier::new(3)));
    let readers: Vec<_> = (0..2)
        .map(|_| {
            let (provider, over, start) = (provider.clone(), Arc::clone(&over), Arc::clone(&start));
            thread::spawn(move || {
                let (mut last, mut reads) = (None, 0u64);
                start.wait();
                while !over.load(Ordering::Relaxed) {
                    for token in [provider.current(), provider.try_token()].into_iter().flatten() {
                        let number: u64 = token.expose_secret().parse().unwrap();
                        assert_eq!(token.expires_at(), Some(end(number)));
                        assert!(last.is_none_or(|(generation, before)| {
                            (token.generation() > generation) == (number > before) && number >= before
                        }));
                        last = Some((token.generation(), number));
                        reads += 1;
                    }
                }
                reads
            })
        })
        .collect();
    start.wait();
    for number in 0..20_000 {
        provider.set(Token::opaque(number.to_string()).unwrap().with_expires_at(end(number)));
    }
    over.store(true, Ordering::Relaxed);
    assert!(readers.into_iter().map(|reader| reader.join().unwrap()).sum::<u64>() > 0);
    assert_eq!(provider.current().unwrap().expose_secret(), "19999");
}

// Scenario 108: many threads, nobody waits for a lock that somebody sleeps with.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_of_many_threads_at_a_cold_start_cost_one_fetch_each_time() {
    for _ in 0..200 {
        let endpoint = Endpoint::hourly();
        let provider = TokenProvider::builder().build(endpoint.source()).unwrap();
        let callers: Vec<_> = (0..8)
            .map(|_| {
                let provider = provider.clone();
                tokio::spawn(async move { provider.token().await.unwrap().expose_secret().to_owned() })
            })
            .collect();
        for caller in callers {
            assert_eq!(caller.await.unwrap(), "t1");
        }
        assert_eq!(endpoint.fetches(), 1);
    }
}
