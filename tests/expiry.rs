//! When a token counts as stale or dead, and what becomes of tokens that arrive dead, backdated or not at all new.

mod support;

use http::StatusCode;
use std::time::{Duration, SystemTime};
use support::{Api, Endpoint, HOUR, Logs, MINUTE, Reply, SECOND, builder, get, pass, provider, settle};
use tokio::time::{Instant, sleep, sleep_until};
use tower::{Layer, ServiceExt};
use tower_jwt_refresh::{
    ConfigError, JwtRefreshLayer, Token, TokenError, TokenProvider, TokenProviderBuilder,
    clock::{Clock, ManualClock},
};

const URI: &str = "https://api.example.com/jobs/1";
const MILLI: Duration = Duration::from_millis(1);

/// The token that a request would carry, and how long it waited for it.
async fn timed(provider: &TokenProvider) -> (String, Duration) {
    let before = Instant::now();
    let token = provider.token().await.unwrap();
    (token.expose_secret().to_owned(), before.elapsed())
}

fn at_once(token: &str) -> (String, Duration) {
    (token.to_owned(), Duration::ZERO)
}

/// A provider on an hour of life whose stale and urgent moment is the same: 60 s before the end, without jitter.
async fn to_the_second(endpoint: &Endpoint) -> (TokenProvider, Instant) {
    let provider = builder().0.refresh_before(MINUTE).min_runway(MINUTE).build(endpoint.source()).unwrap();
    provider.token().await.unwrap();
    (provider, endpoint.asked()[0].at + HOUR)
}

// googleapis/google-auth-library-python#158.
#[tokio::test(start_paused = true)]
async fn a_threshold_is_crossed_at_its_very_moment_and_in_the_right_direction() {
    let endpoint = Endpoint::hourly();
    let (provider, end) = to_the_second(&endpoint).await;
    sleep_until(end - MINUTE - MILLI).await;
    assert_eq!((timed(&provider).await, endpoint.fetches()), (at_once("t1"), 1));
    sleep_until(end - MINUTE).await;
    assert_eq!((timed(&provider).await, endpoint.fetches()), (at_once("t2"), 2));
}

// googleapis/google-auth-library-python#158.
#[tokio::test(start_paused = true)]
async fn a_token_is_sent_until_the_moment_of_its_expiry_and_not_from_then_on() {
    let endpoint = Endpoint::hourly();
    let (provider, end) = to_the_second(&endpoint).await;
    endpoint.usually(Reply::Fail);
    sleep_until(end - SECOND).await;
    assert_eq!(timed(&provider).await, at_once("t1"));
    sleep_until(end - MILLI).await;
    assert_eq!(timed(&provider).await, at_once("t1"));
    assert!(provider.try_token().is_some());
    sleep_until(end).await;
    assert!(provider.try_token().is_none());
    assert!(matches!(provider.token().await, Err(TokenError::Unavailable { .. })));
    assert_eq!(provider.current().unwrap().expose_secret(), "t1");
}

// Scenario 138.
#[tokio::test(start_paused = true)]
async fn where_both_thresholds_are_one_the_jitter_makes_no_urgent_token_look_fresh() {
    for _ in 0..50 {
        let endpoint = Endpoint::hourly();
        let (provider, end) = to_the_second(&endpoint).await;
        sleep_until(end - MINUTE).await;
        assert_eq!(timed(&provider).await, at_once("t2"));
    }
}

// Scenario 47.
#[tokio::test(start_paused = true)]
async fn a_lifetime_counts_from_the_start_of_the_fetch_that_brought_it() {
    let endpoint = Endpoint::new(Reply::New(20 * SECOND)).taking(8 * SECOND);
    let (provider, clock) = provider(&endpoint);
    let end = clock.wall() + 20 * SECOND;
    let began = Instant::now();
    assert_eq!(timed(&provider).await, ("t1".into(), 8 * SECOND));
    assert_eq!(provider.current().unwrap().expires_at(), Some(end));
    endpoint.usually(Reply::Hang);
    sleep_until(began + 20 * SECOND - MILLI).await;
    assert!(provider.try_token().is_some());
    sleep_until(began + 20 * SECOND).await;
    assert!(provider.try_token().is_none());
}

// confluentinc/mcp-confluent#372, awslabs/aws-c-auth#247: not by a fixed tick, and minutes ahead.
#[tokio::test(start_paused = true)]
async fn the_schedule_follows_each_tokens_own_expiry_however_long_fetches_take() {
    let endpoint = Endpoint::hourly();
    let (provider, _) = provider(&endpoint);
    provider.init().await.unwrap();
    for fetch in [0, 25, 1, 20] {
        endpoint.set_delay(fetch * SECOND);
        pass(HOUR - 200 * SECOND).await;
    }
    pass(2 * HOUR).await;
    let gaps = endpoint.gaps();
    assert_eq!(gaps.len(), 6);
    // 300 s ahead of an expiry that counts from the asking, less a jitter of up to 30 s.
    assert!(gaps.iter().all(|gap| (3300 * SECOND..=3331 * SECOND).contains(gap)), "{gaps:?}");
}

// Scenario 48.
#[tokio::test(start_paused = true)]
async fn a_token_without_a_known_expiry_is_sent_until_it_is_rejected() {
    let (endpoint, api) = (Endpoint::new(Reply::Opaque), Api::new());
    let (provider, _) = provider(&endpoint);
    provider.init().await.unwrap();
    let client = JwtRefreshLayer::new(provider.clone()).layer(api.clone());
    for _ in 0..1000 {
        pass(24 * HOUR).await;
        client.clone().oneshot(get(URI)).await.unwrap();
    }
    assert_eq!((endpoint.fetches(), provider.current().unwrap().expires_at()), (1, None));
    api.revoke("t1");
    assert_eq!(client.clone().oneshot(get(URI)).await.unwrap().status(), StatusCode::OK);
    assert_eq!(endpoint.fetches(), 2);
    assert!(api.tokens()[..1001].iter().all(|token| token == "t1") && api.tokens()[1001..] == ["t2"]);
}

/// A source whose tokens expire at what `dated` says, on our clock.
fn dating(
    endpoint: &Endpoint,
    dated: impl Fn(&ManualClock) -> SystemTime + Clone + Send + 'static,
) -> (TokenProvider, ManualClock) {
    let (builder, clock) = builder();
    let hands = clock.clone();
    let source = endpoint.source().map_response(move |token: Token| {
        let end = dated(&hands);
        token.with_expires_at(end)
    });
    (builder.build(source).unwrap(), clock)
}

// Scenario 43; kubernetes/kubernetes#106768, Azure/azure-sdk-for-rust#1176.
#[tokio::test(start_paused = true)]
async fn tokens_born_dead_by_our_clock_are_sent_and_fetched_ever_more_seldom_with_one_warning() {
    for background in [false, true] {
        let (logs, _guard) = Logs::listen();
        let (endpoint, api) = (Endpoint::new(Reply::Opaque), Api::new());
        let (provider, _) = dating(&endpoint, |clock| clock.wall() - HOUR);
        if background {
            provider.init().await.unwrap();
        }
        let client = JwtRefreshLayer::new(provider).layer(api.clone());
        for _ in 0..3600 {
            let before = Instant::now();
            assert_eq!(client.clone().oneshot(get(URI)).await.unwrap().status(), StatusCode::OK);
            assert_eq!(before.elapsed(), Duration::ZERO);
            pass(SECOND).await;
        }
        let gaps = endpoint.gaps();
        assert!(gaps.iter().all(|gap| (SECOND..=MINUTE + SECOND).contains(gap)), "{gaps:?}");
        assert!(gaps[10..].iter().all(|gap| *gap >= MINUTE / 2), "{gaps:?}");
        assert!((60..=130).contains(&gaps.len()), "it goes on looking for a better one: {}", gaps.len());
        let warnings = logs.warnings();
        assert!(warnings.len() == 1 && warnings[0].contains("clock skew"), "{warnings:#?}");
    }
}

// Scenario 43.
#[tokio::test(start_paused = true)]
async fn a_token_born_dead_does_not_displace_one_that_lives() {
    let (logs, _guard) = Logs::listen();
    let endpoint = Endpoint::hourly();
    let (provider, clock) = provider(&endpoint);
    provider.init().await.unwrap();
    let generation = provider.current().unwrap().generation();
    let dead = Token::opaque("dead").unwrap().with_expires_at(clock.wall());
    endpoint.usually(Reply::This(dead));
    pass(HOUR - SECOND).await;
    assert_eq!(provider.token().await.unwrap().generation(), generation);
    let fetches = endpoint.fetches();
    assert!((10..=28).contains(&fetches), "300 s of waits that grow, and shrink towards the end: {fetches}");
    assert!(endpoint.gaps().iter().all(|gap| *gap >= SECOND), "{:?}", endpoint.gaps());
    assert_eq!(logs.warnings().len(), 1, "{:#?}", logs.warnings());
    // Once nothing lives any more, the server decides.
    pass(SECOND).await;
    let (token, waited) = timed(&provider).await;
    assert!(token == "dead" && waited <= SECOND, "{token} after {waited:?}: min_interval at most");
}

// Scenario 43: what is held was refused, so the one that only our clock calls dead may be better.
#[tokio::test(start_paused = true)]
async fn a_token_born_dead_replaces_one_that_was_rejected() {
    let (endpoint, api) = (Endpoint::hourly(), Api::new());
    let (provider, clock) = provider(&endpoint);
    provider.init().await.unwrap();
    pass(MINUTE).await;
    api.revoke("t1");
    endpoint.usually(Reply::This(Token::opaque("dead").unwrap().with_expires_at(clock.wall() - HOUR)));
    let client = JwtRefreshLayer::new(provider).layer(api.clone());
    assert_eq!(client.oneshot(get(URI)).await.unwrap().status(), StatusCode::OK);
    assert_eq!(api.tokens(), ["t1", "dead"]);
}

// Scenario 129.
#[tokio::test(start_paused = true)]
async fn a_token_that_arrives_with_little_of_its_life_left_is_not_stale_on_arrival() {
    let endpoint = Endpoint::new(Reply::Opaque);
    let (provider, _) = dating(&endpoint, |clock| clock.wall() + 240 * SECOND);
    provider.init().await.unwrap();
    for _ in 0..3600 {
        assert_eq!(timed(&provider).await.1, Duration::ZERO);
        pass(SECOND).await;
    }
    let gaps = endpoint.gaps();
    assert!(gaps.iter().all(|gap| (120 * SECOND..=133 * SECOND).contains(gap)), "{gaps:?}");
    assert!(gaps.len() >= 26, "{}", gaps.len());
}

// apache/arrow-rs#6625, googleapis/google-auth-library-python#581, #862 and #863: an issuer that hands out the same token until it is about to expire.
#[tokio::test(start_paused = true)]
async fn the_same_token_again_is_asked_for_ever_more_seldom_and_keeps_nobody_waiting() {
    for (reissued, most) in [(270 * SECOND, 8), (30 * SECOND, 17)] {
        for background in [false, true] {
            let endpoint = Endpoint::new(Reply::Opaque);
            let (builder, clock) = builder();
            let (start, began) = (clock.wall(), Instant::now());
            let issuer = move |_: Token| {
                let age = clock.wall().duration_since(start).unwrap();
                // A token's number is that of its window.
                let window = u32::try_from((age + reissued).as_secs() / 3600).unwrap();
                let end = start + HOUR * (window + 1);
                Token::opaque(format!("w{window}")).unwrap().with_expires_at(end)
            };
            let provider = builder.build(endpoint.source().map_response(issuer)).unwrap();
            if background {
                provider.init().await.unwrap();
            }
            provider.token().await.unwrap();
            for life in 1..=3 {
                // Nothing happens before.
                sleep_until(began + life * HOUR - 310 * SECOND).await;
                for _ in 0..640 {
                    assert_eq!(timed(&provider).await.1, Duration::ZERO);
                    sleep(SECOND / 2).await;
                }
            }
            let fetches = endpoint.fetches() - 1;
            assert!((3..=3 * most).contains(&fetches), "{reissued:?}: {fetches}");
            assert!(endpoint.gaps().iter().all(|gap| *gap >= SECOND), "{:?}", endpoint.gaps());
        }
    }
}

// Scenario 87.
#[tokio::test(start_paused = true)]
async fn settings_that_cannot_work_are_refused_when_the_provider_is_built() {
    let endpoint = Endpoint::hourly();
    let build = |builder: TokenProviderBuilder| builder.build(endpoint.source()).unwrap_err();
    let both = TokenProvider::builder().refresh_before(MINUTE).min_runway(2 * MINUTE);
    assert_eq!(
        build(both),
        ConfigError::MinRunwayAboveRefreshBefore { min_runway: 2 * MINUTE, refresh_before: MINUTE }
    );
    let zero = build(TokenProvider::builder().min_interval(Duration::ZERO));
    assert!(matches!(zero, ConfigError::Zero { setting: "min_interval", .. }), "{zero}");
    let endless = build(TokenProvider::builder().refresh_before(Duration::MAX));
    assert!(matches!(endless, ConfigError::TooLong { setting: "refresh_before", .. }), "{endless}");
    settle().await;
    assert_eq!(endpoint.fetches(), 0);
}
