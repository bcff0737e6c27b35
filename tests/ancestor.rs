//! What a client that fetches its own tokens is expected to do, from the first token to a poll that runs for days.

mod support;

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use futures_util::future::join_all;
use http::StatusCode;
use std::time::{Duration, SystemTime};
use support::{Api, Endpoint, HOUR, Logs, MINUTE, Reply, SECOND, builder, get, pass, provider, settle};
use tokio::time::{Instant, sleep_until};
use tower::{Layer, ServiceExt};
use tower_jwt_refresh::{InvalidToken, JwtRefreshLayer, OnUnavailable, Token, TokenError, TokenProvider, TokenStatus};

const URI: &str = "https://api.example.com/jobs/1";

fn seed(life: Duration) -> Token {
    Token::opaque("seed").unwrap().with_expires_in(life)
}

fn seeded(endpoint: &Endpoint, life: Duration) -> TokenProvider {
    builder().0.seed(seed(life)).build(endpoint.source()).unwrap()
}

/// The token that a request would carry, and how long it waited for it.
async fn timed(provider: &TokenProvider) -> (String, Duration) {
    let before = Instant::now();
    let token = provider.token().await.unwrap();
    (token.expose_secret().to_owned(), before.elapsed())
}

// Scenario 1.
#[tokio::test(start_paused = true)]
async fn a_fresh_token_is_used_without_a_fetch() {
    let endpoint = Endpoint::hourly();
    let provider = seeded(&endpoint, HOUR);
    for _ in 0..54 {
        assert_eq!(timed(&provider).await, ("seed".into(), Duration::ZERO));
        pass(MINUTE).await;
    }
    assert_eq!(endpoint.fetches(), 0);
}

// Scenario 2; cockroachdb/cockroach#169764.
#[tokio::test(start_paused = true)]
async fn with_little_runway_a_request_takes_the_new_token_of_a_fast_endpoint() {
    let endpoint = Endpoint::hourly().taking(SECOND / 5);
    let provider = seeded(&endpoint, 30 * SECOND);
    assert_eq!(timed(&provider).await, ("t1".into(), SECOND / 5));
    assert_eq!(endpoint.fetches(), 1);
}

// Scenario 2.
#[tokio::test(start_paused = true)]
async fn with_little_runway_and_a_slow_endpoint_the_living_token_is_sent_after_a_second_or_half_its_runway() {
    for (left, waits) in [(30 * SECOND, SECOND), (SECOND, SECOND / 2)] {
        let (logs, _guard) = Logs::listen();
        let endpoint = Endpoint::hourly().taking(5 * SECOND);
        let provider = seeded(&endpoint, left);
        let callers = join_all((0..3).map(|_| timed(&provider))).await;
        assert_eq!(callers, vec![("seed".to_owned(), waits); 3]);
        assert_eq!(logs.warnings().len(), 1, "{:#?}", logs.warnings());
        pass(5 * SECOND).await;
        assert_eq!(timed(&provider).await, ("t1".into(), Duration::ZERO));
        assert_eq!(endpoint.fetches(), 1);
    }
}

// Scenario 3.
#[tokio::test(start_paused = true)]
async fn an_expired_seed_is_replaced_before_the_first_request_goes_out() {
    let (endpoint, api) = (Endpoint::hourly().taking(SECOND), Api::new());
    let client = JwtRefreshLayer::new(seeded(&endpoint, Duration::ZERO)).layer(api.clone());
    assert_eq!(client.oneshot(get(URI)).await.unwrap().status(), StatusCode::OK);
    assert_eq!((api.tokens(), endpoint.fetches()), (vec!["t1".to_owned()], 1));
}

// Scenario 4.
#[tokio::test(start_paused = true)]
async fn an_unreadable_seed_counts_as_none_and_is_warned_of() {
    let (logs, _guard) = Logs::listen();
    let endpoint = Endpoint::hourly();
    let provider = builder().0.seed_jwt("not.a.jwt").build(endpoint.source()).unwrap();
    assert!(provider.current().is_none());
    assert_eq!(timed(&provider).await.0, "t1");
    assert_eq!(endpoint.fetches(), 1);
    assert_eq!(logs.warnings().len(), 1, "{:#?}", logs.warnings());
    assert!(logs.text().contains("seed") && !logs.text().contains("not.a.jwt"), "{}", logs.text());
}

// Scenario 5.
#[tokio::test(start_paused = true)]
async fn five_callers_near_expiry_cost_one_fetch_and_all_get_its_token() {
    let endpoint = Endpoint::hourly().taking(SECOND / 2);
    let provider = seeded(&endpoint, 30 * SECOND);
    let callers = join_all((0..5).map(|_| timed(&provider))).await;
    assert_eq!(callers, vec![("t1".to_owned(), SECOND / 2); 5]);
    assert_eq!(endpoint.fetches(), 1);
}

// Scenario 6.
#[tokio::test(start_paused = true)]
async fn when_fetches_fail_the_unexpired_token_is_sent_with_one_warning() {
    let (logs, _guard) = Logs::listen();
    let endpoint = Endpoint::new(Reply::Fail);
    let provider = seeded(&endpoint, 30 * SECOND);
    for _ in 0..29 {
        assert_eq!(timed(&provider).await, ("seed".into(), Duration::ZERO));
        pass(SECOND).await;
    }
    assert!((4..=12).contains(&endpoint.fetches()), "{}", endpoint.fetches());
    assert_eq!(logs.warnings().len(), 1, "{:#?}", logs.warnings());
}

// Scenario 7.
#[tokio::test(start_paused = true)]
async fn without_a_token_a_request_fails_or_by_choice_goes_without() {
    let (endpoint, api) = (Endpoint::new(Reply::Fail), Api::new());
    let (provider, _) = provider(&endpoint);
    let layer = JwtRefreshLayer::new(provider);
    let error = layer.layer(api.clone()).oneshot(get(URI)).await.unwrap_err();
    assert!(matches!(error.downcast_ref(), Some(TokenError::Unavailable { .. })), "{error}");
    assert_eq!(api.tokens(), [""; 0]);
    let without = layer.on_unavailable(OnUnavailable::SendWithout).layer(api.clone());
    assert_eq!(without.oneshot(get(URI)).await.unwrap().status(), StatusCode::UNAUTHORIZED);
    assert_eq!(api.tokens(), ["-"]);
}

// Scenario 8.
#[tokio::test(start_paused = true)]
async fn init_fetches_unless_seeded_and_reports_a_failure() {
    let endpoint = Endpoint::hourly();
    let (unseeded, _) = provider(&endpoint);
    unseeded.init().await.unwrap();
    assert_eq!((endpoint.fetches(), timed(&unseeded).await.0), (1, "t1".into()));
    let seeded_one = seeded(&endpoint, HOUR);
    seeded_one.init().await.unwrap();
    settle().await;
    assert_eq!((endpoint.fetches(), timed(&seeded_one).await.0), (1, "seed".into()));
    endpoint.usually(Reply::Fail);
    let (failing, _) = provider(&endpoint);
    assert!(matches!(failing.init().await, Err(TokenError::Unavailable { .. })));
    assert!(matches!(seeded(&endpoint, Duration::ZERO).init().await, Err(TokenError::Unavailable { .. })));
}

// Scenario 9: the fault was a sleep of a minute at least, whatever was left.
#[tokio::test(start_paused = true)]
async fn a_seed_with_seconds_to_live_is_refreshed_by_the_loop_at_once() {
    for left in [30 * SECOND, 59 * SECOND, 299 * SECOND] {
        let endpoint = Endpoint::hourly();
        let provider = builder().0.refresh_before(333 * SECOND).seed(seed(left)).build(endpoint.source()).unwrap();
        provider.init().await.unwrap();
        settle().await;
        assert_eq!(endpoint.fetches(), 1, "{left:?}");
        assert_eq!(provider.current().unwrap().expose_secret(), "t1");
    }
}

// Scenario 10; chenharryhua/nanjin#4340.
#[tokio::test(start_paused = true)]
async fn while_fetches_fail_the_loop_waits_each_time_and_then_recovers_by_itself() {
    let endpoint = Endpoint::hourly();
    let (provider, _) = provider(&endpoint);
    provider.init().await.unwrap();
    endpoint.usually(Reply::Fail);
    pass(3 * HOUR).await;
    let failed = endpoint.fetches() - 1;
    let waits = &endpoint.gaps()[1..];
    assert!(waits.iter().all(|wait| *wait >= SECOND && *wait <= MINUTE + SECOND / 100), "{waits:?}");
    // 125 minutes, most of them in steps of 30 to 60 s.
    assert!((125..=260).contains(&failed), "{failed}");
    endpoint.usually(Reply::New(HOUR));
    pass(MINUTE + SECOND).await;
    assert_eq!(endpoint.fetches(), failed + 2);
    assert_eq!(*provider.subscribe().borrow(), TokenStatus::Fresh);
}

// Scenario 10, for a credential that somebody must repair; chenharryhua/nanjin#4340.
#[tokio::test(start_paused = true)]
async fn the_loop_asks_each_quarter_of_an_hour_while_its_credential_is_refused() {
    let endpoint = Endpoint::new(Reply::Refuse);
    let (provider, _) = provider(&endpoint);
    provider.init().await.unwrap_err();
    pass(24 * HOUR).await;
    assert!((95..=97).contains(&endpoint.fetches()), "{}", endpoint.fetches());
    assert!(endpoint.gaps().iter().all(|gap| *gap >= 15 * MINUTE), "{:?}", endpoint.gaps());
}

// Scenario 11.
#[tokio::test(start_paused = true)]
async fn the_loop_and_requests_at_the_same_moment_cost_one_fetch() {
    let endpoint = Endpoint::hourly().taking(SECOND / 2);
    let began = Instant::now();
    // Equal thresholds leave the jitter no room: stale and urgent are the same known moment.
    let builder = builder().0.refresh_before(MINUTE).min_runway(MINUTE);
    let provider = builder.seed(seed(HOUR)).build(endpoint.source()).unwrap();
    provider.init().await.unwrap();
    let callers = (0..10).map(|_| async {
        sleep_until(began + HOUR - MINUTE).await;
        timed(&provider).await
    });
    assert_eq!(join_all(callers).await, vec![("t1".to_owned(), SECOND / 2); 10]);
    assert_eq!(endpoint.fetches(), 1);
    assert_eq!(endpoint.asked()[0].at, began + HOUR - MINUTE);
}

fn jwt(payload: impl AsRef<[u8]>) -> String {
    format!("e30.{}.c2ln", BASE64_URL_SAFE_NO_PAD.encode(payload))
}

// Scenario 12.
#[tokio::test(start_paused = true)]
async fn whatever_a_jwt_says_of_its_expiry_it_is_a_moment_or_unknown_and_is_sent() {
    let moment = |seconds| Some(SystemTime::UNIX_EPOCH + Duration::from_secs_f64(seconds));
    for (exp, at) in [
        ("1800000000", moment(1_800_000_000.0)),
        ("1800000000.5", moment(1_800_000_000.5)),
        ("\"1800000000\"", moment(1_800_000_000.0)),
        ("null", None),
        ("\"soon\"", None),
        ("-1", None),
        ("1e20", None),
        ("1e400", None),
        ("[1800000000]", None),
    ] {
        let token = Token::from_jwt(jwt(format!(r#"{{"sub":"me","exp":{exp}}}"#))).unwrap();
        assert_eq!(token.expires_at(), at, "{exp}");
        let endpoint = Endpoint::new(Reply::This(token.clone()));
        let (provider, _) = provider(&endpoint);
        assert_eq!(provider.token().await.unwrap().expose_secret(), token.expose_secret());
        pass(MINUTE).await;
        assert_eq!(provider.token().await.unwrap().expires_at(), at, "{exp}");
        assert_eq!(endpoint.fetches(), 1, "{exp}");
    }
    assert_eq!(Token::from_jwt(jwt("{}")).unwrap().expires_at(), None);
}

// Scenario 12.
#[test]
fn what_is_no_jwt_is_an_error_that_says_why() {
    let error = |jwt: &str| Token::from_jwt(jwt).unwrap_err();
    assert_eq!(error(&jwt("no json")), InvalidToken::NotJson);
    assert_eq!(error(&jwt([0xff, 0xfe])), InvalidToken::NotJson);
    assert_eq!(error("e30.@@@.c2ln"), InvalidToken::NotBase64);
    assert_eq!(error("e30.e30"), InvalidToken::NotAJwt { parts: 2 });
    assert_eq!(error(""), InvalidToken::Empty);
    let megabyte = jwt(format!(r#"{{"exp":1,"pad":"{}"}}"#, "x".repeat(1 << 20)));
    assert_eq!(error(&megabyte), InvalidToken::TooLong { length: megabyte.len() });
    // Deep enough to overflow the stack of a careless parser.
    assert_eq!(error(&jwt(format!(r#"{{"exp":{}}}"#, "[".repeat(40_000)))), InvalidToken::NotJson);
}

// Scenario 14.
#[tokio::test(start_paused = true)]
async fn a_poll_over_many_lifetimes_never_sees_a_401() {
    let life = 10 * MINUTE;
    let (endpoint, api) = (Endpoint::new(Reply::New(life)).taking(2 * SECOND), Api::new());
    api.expire(&endpoint, life);
    let (provider, _) = provider(&endpoint);
    provider.init().await.unwrap();
    let client = JwtRefreshLayer::new(provider).layer(api.clone());
    for _ in 0..6 * 360 {
        let before = Instant::now();
        client.clone().oneshot(get(URI)).await.unwrap();
        assert_eq!(before.elapsed(), Duration::ZERO, "nor does it ever wait");
        pass(10 * SECOND).await;
    }
    assert!(api.seen().iter().all(|seen| seen.status == StatusCode::OK), "not even one that was healed");
    assert_eq!(api.seen().len(), 6 * 360);
    // Six hours, a fetch each five minutes or a little more.
    assert!((60..=73).contains(&endpoint.fetches()), "{}", endpoint.fetches());
}
