//! Tokens that are dead on arrival by this machine's clock: the servers decide, and the source is not hammered.

mod support;

use std::{
    convert::Infallible,
    sync::{Arc, Mutex},
    time::Duration,
};
use support::{Api, Endpoint, HOUR, Logs, MINUTE, Reply, SECOND, builder, get, pass, provider};
use tokio::time::Instant;
use tower::{Layer, ServiceExt, service_fn};
use tower_jwt_refresh::{
    JwtRefreshLayer, Token, TokenProvider, TokenRequest, TokenStatus,
    clock::{Clock, ManualClock},
};

const URI: &str = "https://api.example.com/jobs/1";

/// A clock half a day ahead of that of the server, which mints `t1`, `t2`, … that live for an hour. Returns when it was asked.
fn half_a_day_ahead() -> (TokenProvider, ManualClock, Arc<Mutex<Vec<Instant>>>) {
    let (builder, clock) = builder();
    clock.jump_wall_ahead(12 * HOUR);
    let (servers, asked) = (ManualClock::following_tokio(), Arc::new(Mutex::new(Vec::new())));
    let log = Arc::clone(&asked);
    let source = service_fn(move |_: TokenRequest| {
        let mut log = log.lock().unwrap();
        log.push(Instant::now());
        let token = Token::opaque(format!("t{}", log.len())).unwrap();
        let token = token.with_expires_at(servers.wall() + HOUR);
        async move { Ok::<_, Infallible>(token) }
    });
    (builder.build(source).unwrap(), clock, asked)
}

/// At most so many fetches in so many seconds: the waits double from half a second, at least a second each, to half a minute.
fn most(seconds: usize) -> usize {
    8 + seconds / 30
}

// Scenarios 4 and 130; kubernetes/kubernetes#106768.
#[tokio::test(start_paused = true)]
async fn with_a_clock_that_is_ahead_for_half_a_day_requests_go_on_and_a_revoked_token_is_replaced_at_once() {
    let (logs, _guard) = Logs::listen();
    let (provider, clock, asked) = half_a_day_ahead();
    let api = Api::new();
    let client = JwtRefreshLayer::new(provider.clone()).layer(api.clone());
    provider.init().await.unwrap();
    let start = Instant::now();
    while start.elapsed() < 12 * HOUR {
        let revoked = start.elapsed() == 6 * HOUR;
        if revoked {
            api.revoke(provider.current().unwrap().expose_secret());
            api.forget_seen();
        }
        let before = Instant::now();
        assert_eq!(client.clone().oneshot(get(URI)).await.unwrap().status(), 200, "{:?}", start.elapsed());
        // `min_interval`, if the last fetch was just before.
        assert!(before.elapsed() <= if revoked { SECOND } else { Duration::ZERO }, "{:?}", before.elapsed());
        if revoked {
            let [old, new] = &api.tokens()[..] else { panic!("one resend: {:?}", api.tokens()) };
            assert_ne!(old, new);
        }
        tokio::time::sleep_until(before + 10 * SECOND).await;
    }
    {
        let asked = asked.lock().unwrap();
        assert!(asked.len() <= most(12 * 3600) + 7, "{}", asked.len());
        assert!(asked.windows(2).all(|pair| pair[1] - pair[0] >= SECOND));
    }
    let skew = logs.warnings();
    assert!(skew.len() == 1 && skew[0].contains("clock skew") && skew[0].contains("39600s"), "{skew:#?}");
    // The clock is put right.
    clock.jump_wall_back(12 * HOUR);
    pass(MINUTE + SECOND).await;
    let last = asked.lock().unwrap().len();
    assert!(provider.current().unwrap().expires_at().unwrap() > clock.wall() + 50 * MINUTE);
    pass(50 * MINUTE).await;
    assert_eq!(asked.lock().unwrap().len(), last, "and all is as usual");
}

// Azure/azure-sdk-for-rust#1176; googleapis/google-cloud-rust#6678.
#[tokio::test(start_paused = true)]
async fn a_token_that_expires_at_once_is_used_and_not_looped_on() {
    let endpoint = Endpoint::new(Reply::New(Duration::ZERO));
    let (provider, _) = provider(&endpoint);
    for _ in 0..6000 {
        let before = Instant::now();
        provider.token().await.unwrap();
        assert_eq!(before.elapsed(), Duration::ZERO);
        pass(SECOND / 10).await;
    }
    assert!((10..=most(600)).contains(&endpoint.fetches()), "{}", endpoint.fetches());
    assert!(endpoint.gaps().iter().all(|gap| *gap >= SECOND), "{:?}", endpoint.gaps());
}

// googleapis/google-cloud-rust#6678.
#[tokio::test(start_paused = true)]
async fn tokens_of_a_few_seconds_are_replaced_at_most_once_a_second() {
    for life in [1, 5, 10] {
        let endpoint = Endpoint::new(Reply::New(life * SECOND));
        let (provider, _) = provider(&endpoint);
        provider.init().await.unwrap();
        let mut delayed = Duration::ZERO;
        for _ in 0..600 {
            let before = Instant::now();
            provider.token().await.unwrap();
            delayed = delayed.max(before.elapsed());
            pass(SECOND / 10).await;
        }
        assert!(endpoint.gaps().iter().all(|gap| *gap >= SECOND), "{life}: {:?}", endpoint.gaps());
        assert!(life == 1 || delayed.is_zero(), "{life}: {delayed:?}");
        assert!(endpoint.fetches() <= 2 + 120 / life as usize, "{life}: {}", endpoint.fetches());
    }
}

// A source that answers from a broken cache.
#[tokio::test(start_paused = true)]
async fn a_dead_token_does_not_displace_one_that_lives_unless_servers_refuse_that() {
    let (endpoint, api) = (Endpoint::hourly(), Api::new());
    let (provider, clock) = provider(&endpoint);
    let client = JwtRefreshLayer::new(provider.clone()).layer(api.clone());
    provider.init().await.unwrap();
    let dead = Token::opaque("dead").unwrap().with_expires_at(clock.wall() - MINUTE);
    endpoint.usually(Reply::This(dead));
    pass(HOUR - 2 * MINUTE).await;
    assert!(endpoint.fetches() > 3, "the next is long due");
    assert_eq!(provider.token().await.unwrap().expose_secret(), "t1");
    assert_eq!(*provider.subscribe().borrow(), TokenStatus::Stale, "it works, but has nothing better");
    api.revoke("t1");
    assert_eq!(client.oneshot(get(URI)).await.unwrap().status(), 200);
    assert_eq!(api.tokens(), ["t1", "dead"]);
}

// Scenario 137.
#[tokio::test(start_paused = true)]
async fn the_life_of_a_token_counts_from_when_the_source_was_asked() {
    let (logs, _guard) = Logs::listen();
    let endpoint = Endpoint::new(Reply::New(SECOND));
    let (provider, clock) = provider(&endpoint);
    provider.token().await.unwrap();
    let before = Instant::now();
    // It sleeps out min_interval, as long as the token will live.
    let token = provider.refresh().await.unwrap();
    assert_eq!((token.expose_secret(), before.elapsed()), ("t2", SECOND));
    assert_eq!(token.expires_at(), Some(clock.wall() + SECOND), "not born dead");
    assert!(logs.warnings().is_empty(), "{:#?}", logs.warnings());
    // And not from when it answered.
    endpoint.set_delay(SECOND / 2);
    let token = provider.refresh().await.unwrap();
    assert_eq!(token.expires_at(), Some(clock.wall() + SECOND / 2));
}
