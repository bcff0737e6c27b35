//! Tokens that say something odd of their end, or nothing at all.

mod support;

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use std::time::{Duration, SystemTime};
use support::{Api, Endpoint, HOUR, Logs, MINUTE, Reply, SECOND, get, pass, provider};
use tower::{Layer, ServiceExt};
use tower_jwt_refresh::{JwtRefreshLayer, Token, TokenStatus, clock::Clock};

const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);

fn jwt(claims: &str) -> Token {
    Token::from_jwt(format!("e30.{}.c2ln", BASE64_URL_SAFE_NO_PAD.encode(claims))).unwrap()
}

// Scenario 100; openclaw/openclaw#144082.
#[tokio::test(start_paused = true)]
async fn a_token_without_a_lifetime_does_not_inherit_the_end_of_the_one_before() {
    let (endpoint, api) = (Endpoint::hourly(), Api::new());
    let (provider, _) = provider(&endpoint);
    let client = JwtRefreshLayer::new(provider.clone()).layer(api.clone());
    provider.init().await.unwrap();
    endpoint.usually(Reply::Opaque);
    pass(3 * HOUR).await;
    for _ in 0..100 {
        assert_eq!(client.clone().oneshot(get("https://api.example.com/")).await.unwrap().status(), 200);
        pass(MINUTE).await;
    }
    assert_eq!(api.tokens(), vec!["t2"; 100]);
    assert_eq!(provider.current().unwrap().expires_at(), None);
    assert_eq!(endpoint.fetches(), 2, "nothing says that it should be replaced");
    // It lives until a server says otherwise.
    api.revoke("t2");
    assert_eq!(client.oneshot(get("https://api.example.com/")).await.unwrap().status(), 200);
    assert_eq!(api.tokens().last().unwrap(), "t3");
}

// Scenario 101; decocms/studio#6112.
#[tokio::test(start_paused = true)]
async fn an_end_that_cannot_be_counts_as_unknown_with_one_warning_and_no_storm() {
    let opaque = || Token::opaque("odd").unwrap();
    let odd = [
        opaque().with_expires_in(Duration::MAX),
        opaque().with_expires_in(11 * YEAR),
        opaque().with_expires_at(SystemTime::UNIX_EPOCH + 1_000 * YEAR),
        // In milliseconds.
        jwt(r#"{"exp":1790000000000}"#),
        jwt(r#"{"exp":1e20}"#),
        jwt(r#"{"exp":-1}"#),
        jwt(r#"{"exp":"soon"}"#),
    ];
    for (at, odd) in odd.into_iter().enumerate() {
        let (logs, _guard) = Logs::listen();
        let endpoint = Endpoint::new(Reply::This(odd.clone()));
        let (provider, _) = provider(&endpoint);
        provider.init().await.unwrap();
        for _ in 0..600 {
            let token = provider.token().await.unwrap();
            assert_eq!((token.expose_secret(), token.expires_at()), (odd.expose_secret(), None), "{at}");
            pass(MINUTE).await;
        }
        assert_eq!(*provider.subscribe().borrow(), TokenStatus::Fresh, "{at}");
        assert_eq!(endpoint.fetches(), 1, "{at}");
        // The next of the kind is not worth another line.
        provider.refresh().await.unwrap();
        let warnings = logs.warnings();
        assert!(warnings.len() == 1 && warnings[0].contains("expiry that cannot be"), "{at}: {warnings:#?}");
    }
}

// Scenario 101: ten years are long, and may be.
#[tokio::test(start_paused = true)]
async fn a_long_life_is_taken_at_its_word() {
    let (logs, _guard) = Logs::listen();
    let endpoint = Endpoint::new(Reply::New(10 * YEAR));
    let (provider, clock) = provider(&endpoint);
    let token = provider.token().await.unwrap();
    assert_eq!(token.expires_at(), Some(clock.wall() + 10 * YEAR));
    assert!(logs.warnings().is_empty());
}

// Scenario 109.
#[tokio::test(start_paused = true)]
async fn a_revoked_token_is_replaced_by_one_that_expires_sooner() {
    let (endpoint, api) = (Endpoint::hourly(), Api::new());
    endpoint.next(Reply::New(24 * HOUR));
    let (provider, clock) = provider(&endpoint);
    let client = JwtRefreshLayer::new(provider.clone()).layer(api.clone());
    let send = || async { client.clone().oneshot(get("https://api.example.com/")).await.unwrap().status().as_u16() };
    provider.init().await.unwrap();
    pass(MINUTE).await;
    api.revoke("t1");
    assert_eq!(send().await, 200);
    let held = provider.current().unwrap();
    assert_eq!((held.expose_secret(), held.expires_at()), ("t2", Some(clock.wall() + HOUR)));
    // It is refreshed by its own end, not by that of the first.
    pass(HOUR).await;
    api.revoke("t2");
    assert_eq!(send().await, 200);
    assert_eq!(api.tokens(), ["t1", "t2", "t3"]);
}

// Scenario 109: nobody refused the old one.
#[tokio::test(start_paused = true)]
async fn a_refresh_that_was_asked_for_may_bring_a_token_that_expires_sooner() {
    let endpoint = Endpoint::hourly();
    endpoint.next(Reply::New(24 * HOUR));
    let (provider, clock) = provider(&endpoint);
    provider.init().await.unwrap();
    pass(SECOND).await;
    let token = provider.refresh().await.unwrap();
    assert_eq!((token.expose_secret(), token.expires_at()), ("t2", Some(clock.wall() + HOUR)));
    assert_eq!(provider.token().await.unwrap().expose_secret(), "t2");
}

// A server's clock that is ahead of ours.
#[tokio::test(start_paused = true)]
async fn a_token_that_is_not_valid_yet_is_sent_all_the_same_with_one_warning() {
    let (logs, _guard) = Logs::listen();
    let endpoint = Endpoint::hourly();
    let (provider, clock) = provider(&endpoint);
    let now = clock.wall().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    for early in 0..3 {
        let claims = format!(r#"{{"nbf":{},"exp":{},"jti":{early}}}"#, now + 7200, now + 10_000);
        let token = jwt(&claims);
        endpoint.next(Reply::This(token.clone()));
        assert_eq!(provider.refresh().await.unwrap().expose_secret(), token.expose_secret());
    }
    let warnings = logs.warnings();
    assert!(warnings.len() == 1 && warnings[0].contains("not valid yet"), "{warnings:#?}");
}
