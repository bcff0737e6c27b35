//! A source that gives the very bytes that are held once more: they live on, or the schedule slows down.

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

fn session() -> Token {
    Token::opaque("session").unwrap()
}

fn status(provider: &TokenProvider) -> TokenStatus {
    provider.subscribe().borrow().clone()
}

/// A caller each minute for so long: each gets the session at once.
async fn goes_on(provider: &TokenProvider, span: Duration) {
    let start = Instant::now();
    while start.elapsed() < span {
        let before = Instant::now();
        assert_eq!(provider.token().await.unwrap().expose_secret(), "session", "{:?}", start.elapsed());
        assert_eq!(before.elapsed(), Duration::ZERO);
        assert_eq!(status(provider), TokenStatus::Fresh, "{:?}", start.elapsed());
        pass(MINUTE).await;
    }
}

// Scenario 68.
#[tokio::test(start_paused = true)]
async fn the_same_bytes_with_more_life_live_on_under_their_generation() {
    let endpoint = Endpoint::new(Reply::This(session().with_expires_in(HOUR)));
    let (provider, _) = provider(&endpoint);
    provider.init().await.unwrap();
    let first = provider.current().unwrap();
    goes_on(&provider, 24 * HOUR).await;
    let last = provider.current().unwrap();
    assert_eq!(last.generation(), first.generation());
    assert!(last.expires_at().unwrap() >= first.expires_at().unwrap() + 23 * HOUR);
    // An hour less 5 minutes, of which jitter gives back at most half a minute.
    assert!((25..=27).contains(&endpoint.fetches()), "{}", endpoint.fetches());
}

// Scenario 131.
#[tokio::test(start_paused = true)]
async fn a_sliding_session_outlives_a_wall_clock_that_is_set_back() {
    let (builder, clock) = builder();
    let hands = clock.clone();
    let source = service_fn(move |_: TokenRequest| {
        let token = session().with_expires_at(hands.wall() + HOUR);
        async move { Ok::<_, Infallible>(token) }
    });
    let provider = builder.build(source).unwrap();
    provider.init().await.unwrap();
    let first = provider.current().unwrap();
    goes_on(&provider, 30 * MINUTE).await;
    clock.jump_wall_back(2 * HOUR);
    goes_on(&provider, 6 * HOUR).await;
    let last = provider.current().unwrap();
    assert_eq!(last.generation(), first.generation());
    assert!(last.expires_at().unwrap() <= clock.wall() + HOUR, "its end is told in the time that is now");
}

// Scenario 68.
#[tokio::test(start_paused = true)]
async fn the_same_bytes_with_no_more_life_slow_the_schedule_but_shut_out_nobody_in_need() {
    let endpoint = Endpoint::hourly();
    let (provider, clock) = provider(&endpoint);
    provider.init().await.unwrap();
    let first = provider.current().unwrap();
    endpoint.usually(Reply::This(first.clone()));
    pass(HOUR - 3 * MINUTE).await;
    let gaps = endpoint.gaps();
    assert!((3..=9).contains(&gaps.len()), "{gaps:?}");
    for (count, gap) in (0..).zip(&gaps[1..]) {
        let longest = MINUTE.min(SECOND * 2u32.pow(count));
        assert!((longest / 2).max(SECOND) <= *gap && *gap <= longest + SECOND / 500, "{gaps:?}");
    }
    assert_eq!(provider.current().unwrap().generation(), first.generation());
    assert_eq!(status(&provider), TokenStatus::Stale, "the endpoint works: that is no failure");
    // While the wait runs the machine sleeps past the token's end.
    let asked = endpoint.fetches();
    endpoint.asked_times(asked + 1).await;
    pass(2 * SECOND).await;
    endpoint.usually(Reply::New(HOUR));
    clock.jump_wall_ahead(HOUR);
    let before = Instant::now();
    assert_eq!(provider.token().await.unwrap().expose_secret(), "t2");
    assert_eq!(before.elapsed(), Duration::ZERO, "its own flight, at once");
    assert_eq!(endpoint.fetches(), asked + 2);
}

/// Gives one token until it has so little left, as metadata servers do. Returns when it was asked.
fn metadata_server(window: Duration) -> (TokenProvider, ManualClock, Arc<Mutex<Vec<Instant>>>) {
    let (builder, clock) = builder();
    let (hands, asked) = (clock.clone(), Arc::new(Mutex::new(Vec::new())));
    let (log, mut held, mut minted) = (Arc::clone(&asked), None::<Token>, 0);
    let source = service_fn(move |_: TokenRequest| {
        log.lock().unwrap().push(Instant::now());
        let lives = |token: &Token| token.expires_at().unwrap() > hands.wall() + window;
        let token = held.take().filter(lives).unwrap_or_else(|| {
            minted += 1;
            Token::opaque(format!("t{minted}")).unwrap().with_expires_at(hands.wall() + HOUR)
        });
        held = Some(token.clone());
        async move { Ok::<_, Infallible>(token) }
    });
    (builder.build(source).unwrap(), clock, asked)
}

// apache/arrow-rs#6625; googleapis/google-auth-library-python#581, #862, #863.
#[tokio::test(start_paused = true)]
async fn a_server_that_has_no_new_token_until_late_is_asked_seldom_and_delays_nobody() {
    for (window, looped) in [(270, true), (270, false), (30, true), (30, false)] {
        let (provider, clock, asked) = metadata_server(window * SECOND);
        if looped {
            provider.init().await.unwrap();
        }
        let start = Instant::now();
        while start.elapsed() < 3 * HOUR {
            let before = Instant::now();
            let token = provider.token().await.unwrap();
            assert!(token.expires_at().unwrap() > clock.wall());
            assert_eq!(before.elapsed(), Duration::ZERO);
            pass(SECOND).await;
        }
        let asked = asked.lock().unwrap();
        assert!(asked.windows(2).all(|pair| pair[1] - pair[0] >= SECOND), "{window}");
        // From five minutes before its end on the waits grow to half a minute at least; then at most half of what it has left.
        assert!((7..=3 * (7 + 300 / 30 + 2)).contains(&asked.len()), "{window} {looped}: {}", asked.len());
        assert_eq!(provider.current().unwrap().expose_secret(), "t4");
    }
}

// Scenario 132.
#[tokio::test(start_paused = true)]
async fn after_a_suspend_past_the_end_the_same_bytes_are_sent_and_the_server_decides() {
    let (logs, _guard) = Logs::listen();
    let (endpoint, api) = (Endpoint::hourly(), Api::new());
    let (provider, clock) = provider(&endpoint);
    let client = JwtRefreshLayer::new(provider.clone()).layer(api.clone());
    let send = || async { client.clone().oneshot(get("https://api.example.com/")).await.unwrap().status().as_u16() };
    assert_eq!(send().await, 200);
    let first = provider.current().unwrap();
    endpoint.usually(Reply::This(first.clone()));
    pass(MINUTE).await;
    clock.jump_wall_ahead(2 * HOUR);
    for _ in 0..600 {
        assert_eq!(send().await, 200);
        pass(SECOND).await;
    }
    let held = provider.current().unwrap();
    assert_eq!((held.generation(), held.expires_at()), (first.generation(), None));
    // It is asked for anew, after waits that grow.
    assert!((10..=8 + 600 / 30).contains(&endpoint.fetches()), "{}", endpoint.fetches());
    assert_eq!(logs.warnings().iter().filter(|line| line.contains("clock skew")).count(), 1, "{:#?}", logs.warnings());
    api.revoke("t1");
    endpoint.usually(Reply::New(HOUR));
    api.forget_seen();
    assert_eq!(send().await, 200);
    assert_eq!(api.tokens(), ["t1", "t2"]);
}

// Scenario 136.
#[tokio::test(start_paused = true)]
async fn a_file_that_does_not_change_is_read_once_each_refresh_after_and_stays_fresh() {
    for file in [session(), session().with_expires_in(24 * HOUR)] {
        let endpoint = Endpoint::new(Reply::This(file.with_refresh_after(MINUTE)));
        let (provider, _) = provider(&endpoint);
        provider.init().await.unwrap();
        for _ in 0..3600 {
            pass(SECOND).await;
            assert_eq!(status(&provider), TokenStatus::Fresh);
            provider.token().await.unwrap();
        }
        assert!((60..=61).contains(&endpoint.fetches()), "{}", endpoint.fetches());
        assert!(endpoint.gaps().iter().all(|gap| (MINUTE..MINUTE + SECOND / 100).contains(gap)));
    }
}
