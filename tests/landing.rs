//! What a fetch brings is judged by what is held: how long that lives, and what servers said of it.

mod support;

use http::StatusCode;
use std::time::Duration;
use support::{Api, Endpoint, HOUR, MINUTE, Reply, SECOND, get, pass, provider};
use tokio::time::Instant;
use tower::{Layer, ServiceExt};
use tower_jwt_refresh::{JwtRefreshLayer, Token, TokenStatus, clock::Clock};

// Scenarios 68 and 129: the life that counts is the one it was given last.
#[tokio::test(start_paused = true)]
async fn a_token_extended_by_little_is_not_stale_on_arrival() {
    let endpoint = Endpoint::new(Reply::This(Token::opaque("session").unwrap().with_expires_in(HOUR)));
    let (provider, _) = provider(&endpoint);
    provider.init().await.unwrap();
    let generation = provider.current().unwrap().generation();
    endpoint.usually(Reply::Fail);
    pass(HOUR - MINUTE).await;
    let span = 240 * SECOND;
    endpoint.usually(Reply::This(Token::opaque("session").unwrap().with_expires_in(span)));
    provider.refresh().await.unwrap();
    let (extended, before) = (Instant::now(), endpoint.fetches());
    assert_eq!(*provider.subscribe().borrow(), TokenStatus::Fresh);
    while extended.elapsed() < HOUR {
        let asked = Instant::now();
        assert_eq!(provider.token().await.unwrap().generation(), generation);
        assert_eq!(asked.elapsed(), Duration::ZERO);
        pass(SECOND).await;
    }
    // Half of each life, of which jitter gives back at most a tenth.
    let fetches = endpoint.fetches() - before;
    assert!((27..=30).contains(&fetches), "{fetches}");
}

// Scenario 43: it lives and is not marked, but somebody saw it refused, so it is not worth more than one that only our clock calls dead.
#[tokio::test(start_paused = true)]
async fn a_token_born_dead_replaces_one_whose_resend_was_refused() {
    let (endpoint, api) = (Endpoint::hourly(), Api::new());
    let (provider, clock) = provider(&endpoint);
    let client = JwtRefreshLayer::new(provider.clone()).layer(api.clone());
    provider.init().await.unwrap();
    pass(MINUTE).await;
    api.refuse_all(true);
    let send = || client.clone().oneshot(get("https://api.example.com/jobs/1"));
    assert_eq!(send().await.unwrap().status(), StatusCode::UNAUTHORIZED);
    assert_eq!(api.tokens(), ["t1", "t2"]);
    endpoint.usually(Reply::This(Token::opaque("dead").unwrap().with_expires_at(clock.wall() - HOUR)));
    assert_eq!(provider.refresh().await.unwrap().expose_secret(), "dead");
    api.refuse_all(false);
    assert_eq!(send().await.unwrap().status(), StatusCode::OK);
    assert_eq!(api.tokens().last().unwrap(), "dead");
}

// Scenarios 43 and 130: with a clock that is ahead every token is born dead, and the one held has only been kept because of that.
#[tokio::test(start_paused = true)]
async fn a_token_born_dead_replaces_one_of_which_no_end_is_known() {
    let endpoint = Endpoint::new(Reply::Opaque);
    let (provider, clock) = provider(&endpoint);
    provider.init().await.unwrap();
    for newer in ["one", "two"] {
        endpoint.usually(Reply::This(Token::opaque(newer).unwrap().with_expires_at(clock.wall() - HOUR)));
        assert_eq!(provider.refresh().await.unwrap().expose_secret(), newer);
    }
    assert_eq!(endpoint.fetches(), 3);
}
