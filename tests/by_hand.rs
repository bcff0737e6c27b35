//! The provider without the layer: tokens for clients that are no tower services.

mod support;

use futures_util::future::join_all;
use http::{HeaderMap, HeaderName};
use std::sync::atomic::{AtomicUsize, Ordering};
use support::{Endpoint, HOUR, MINUTE, Reply, SECOND, pass, provider, settle};
use tokio::time::Instant;
use tower_jwt_refresh::{
    Placement, Token, TokenError, TokenProvider,
    clock::{Clock, ManualClock},
    source::Reason,
};

fn secret(token: &Token) -> &str {
    token.expose_secret()
}

// Scenario 118.
#[tokio::test(start_paused = true)]
async fn a_hundred_runs_and_one_revocation_cost_one_fetch_and_two_calls_each() {
    let endpoint = Endpoint::hourly();
    let (provider, _) = provider(&endpoint);
    provider.init().await.unwrap();
    pass(MINUTE).await;
    let runs = join_all((0..100).map(|_| async {
        let calls = AtomicUsize::new(0);
        let send = |token: Token| {
            calls.fetch_add(1, Ordering::Relaxed);
            async move {
                tokio::time::sleep(SECOND).await;
                if secret(&token) == "t1" { 401 } else { 200 }
            }
        };
        let status = provider.run(send, |status| *status == 401).await.unwrap();
        (status, calls.into_inner())
    }));
    assert!(runs.await.iter().all(|run| *run == (200, 2)));
    assert_eq!(endpoint.fetches(), 2);
    assert_eq!(endpoint.asked()[1].reason, Reason::Rejected);
}

// Scenario 118.
#[tokio::test(start_paused = true)]
async fn run_gives_the_last_outcome_and_calls_no_third_time() {
    let endpoint = Endpoint::hourly();
    let (provider, _) = provider(&endpoint);
    let calls = AtomicUsize::new(0);
    let send = |_| {
        let call = calls.fetch_add(1, Ordering::Relaxed) + 1;
        async move { (call, 401) }
    };
    assert_eq!(provider.run(send, |_| false).await.unwrap(), (1, 401), "what is no rejection is the caller's at once");
    assert_eq!(endpoint.fetches(), 1);
    pass(MINUTE).await;
    assert_eq!(provider.run(send, |outcome| outcome.1 == 401).await.unwrap(), (3, 401));
    endpoint.usually(Reply::Fail);
    pass(MINUTE).await;
    assert_eq!(provider.run(send, |_| true).await.unwrap(), (4, 401), "no successor, no second call");
}

// A second refusal right after the first speaks against the server.
#[tokio::test(start_paused = true)]
async fn a_run_that_is_refused_twice_costs_one_fetch() {
    let endpoint = Endpoint::hourly();
    let (provider, _) = provider(&endpoint);
    provider.init().await.unwrap();
    pass(MINUTE).await;
    let sent = provider.run(async |token: Token| token.expose_secret().to_owned(), |_| true).await.unwrap();
    settle().await;
    pass(2 * SECOND).await;
    assert_eq!((sent.as_str(), endpoint.fetches()), ("t2", 2));
}

// Scenario 118.
#[tokio::test(start_paused = true)]
async fn run_with_the_source_down_fails_as_token_does_and_calls_nothing() {
    let endpoint = Endpoint::new(Reply::Fail);
    let (provider, _) = provider(&endpoint);
    let error = provider.run(|_| async { unreachable!("no token to call with") }, |()| false).await.unwrap_err();
    let same = provider.token().await.unwrap_err();
    assert!(
        matches!((&error, &same), (TokenError::Unavailable { .. }, TokenError::Unavailable { .. })),
        "{error} {same}"
    );
    assert_eq!(endpoint.fetches(), 1);
}

// Scenario 119.
#[tokio::test(start_paused = true)]
async fn try_token_gives_what_lives_and_wakes_the_flight_when_that_is_stale() {
    let endpoint = Endpoint::hourly().taking(SECOND);
    let (provider, _) = provider(&endpoint);
    assert!(provider.try_token().is_none());
    pass(SECOND).await;
    let lives = |provider: &TokenProvider| provider.try_token().map(|token| secret(&token).to_owned());
    assert_eq!((lives(&provider).as_deref(), endpoint.fetches()), (Some("t1"), 1));
    pass(MINUTE * 56).await;
    assert_eq!(endpoint.fetches(), 1, "no loop without init");
    assert_eq!(lives(&provider).as_deref(), Some("t1"));
    settle().await;
    assert_eq!(endpoint.fetches(), 2);
    pass(SECOND).await;
    assert_eq!(lives(&provider).as_deref(), Some("t2"));
    pass(HOUR - MINUTE / 2).await;
    assert_eq!(lives(&provider).as_deref(), Some("t2"), "urgent: a request would wait, sync code cannot");
    pass(HOUR * 2).await;
    assert!(lives(&provider).is_none(), "dead");
}

// Scenario 119.
#[test]
fn try_token_without_a_runtime_gives_what_lives_and_nothing_else() {
    let (endpoint, clock) = (Endpoint::hourly(), ManualClock::new());
    let seed = Token::opaque("seed").unwrap().with_expires_in(HOUR);
    let provider = TokenProvider::builder().seed(seed).clock(clock.clone()).build(endpoint.source()).unwrap();
    for minutes in [0, 56, 3] {
        clock.advance(MINUTE * minutes);
        assert_eq!(secret(&provider.try_token().unwrap()), "seed");
    }
    provider.reject(&provider.current().unwrap());
    assert_eq!(secret(&provider.try_token().unwrap()), "seed", "rejected, and yet all there is");
    clock.advance(MINUTE);
    assert!(provider.try_token().is_none(), "dead");
    assert_eq!(endpoint.fetches(), 0);
}

// Scenario 120.
#[tokio::test(start_paused = true)]
async fn reject_marks_starts_a_fetch_and_returns_at_once() {
    let endpoint = Endpoint::hourly();
    let (provider, _) = provider(&endpoint);
    provider.init().await.unwrap();
    pass(MINUTE).await;
    let old = provider.current().unwrap();
    endpoint.shut();
    provider.reject(&old);
    endpoint.asked_times(2).await;
    assert_eq!(endpoint.asked()[1].reason, Reason::Rejected);
    let waits = tokio::spawn({
        let provider = provider.clone();
        async move { provider.token().await.unwrap() }
    });
    settle().await;
    assert!(!waits.is_finished(), "it is marked: others wait for its successor");
    endpoint.open();
    assert_eq!(secret(&waits.await.unwrap()), "t2");
    pass(MINUTE).await;
    provider.reject(&old);
    settle().await;
    assert_eq!(endpoint.fetches(), 2, "an older one's rejection is old news");
}

// Scenarios 110, 120.
#[tokio::test(start_paused = true)]
async fn a_token_of_another_provider_or_of_none_rejects_nothing() {
    let (endpoint, other) = (Endpoint::hourly(), Endpoint::hourly());
    let (provider, _) = provider(&endpoint);
    let (predecessor, _) = support::provider(&other);
    for _ in 0..5 {
        predecessor.refresh().await.unwrap();
    }
    provider.init().await.unwrap();
    pass(MINUTE).await;
    let same_bytes = Token::opaque("t1").unwrap();
    for foreign in [predecessor.current().unwrap(), same_bytes] {
        provider.reject(&foreign);
        assert_eq!(secret(&provider.replace(&foreign).await.unwrap()), "t1", "the current one is what it wants");
    }
    pass(MINUTE).await;
    assert_eq!(endpoint.fetches(), 1);
}

// Scenario 110.
#[tokio::test(start_paused = true)]
async fn replace_gives_a_newer_token_without_a_fetch_if_there_is_one() {
    let endpoint = Endpoint::hourly();
    let (provider, _) = provider(&endpoint);
    let old = provider.token().await.unwrap();
    pass(MINUTE).await;
    let (one, two) = tokio::join!(provider.replace(&old), provider.replace(&old));
    assert_eq!((secret(&one.unwrap()), secret(&two.unwrap())), ("t2", "t2"));
    assert_eq!(secret(&provider.replace(&old).await.unwrap()), "t2");
    assert_eq!(endpoint.fetches(), 2);
    endpoint.usually(Reply::Fail);
    pass(MINUTE).await;
    let current = provider.current().unwrap();
    assert!(matches!(provider.replace(&current).await, Err(TokenError::Unavailable { .. })));
}

#[tokio::test(start_paused = true)]
async fn authorize_puts_the_token_over_what_is_there_and_touches_nothing_when_there_is_none() {
    let endpoint = Endpoint::hourly();
    let (provider, _) = provider(&endpoint);
    let key = HeaderName::from_static("x-api-key");
    let mut headers = HeaderMap::new();
    headers.insert(&key, "old".parse().unwrap());
    let token = provider.authorize(&mut headers, &Placement::header(key.clone())).await.unwrap();
    assert_eq!((secret(&token), headers.len()), ("t1", 1));
    assert_eq!(headers[&key], "t1");
    assert!(headers[&key].is_sensitive());
    provider.clear();
    assert!(provider.authorize(&mut headers, &Placement::bearer()).await.is_err());
    assert_eq!(headers.len(), 1);
}

// Scenario 15.
#[tokio::test(start_paused = true)]
async fn a_token_handed_over_as_a_seed_is_used_until_it_nears_its_expiry() {
    let (first, second) = (Endpoint::hourly(), Endpoint::new(Reply::New(HOUR * 3)));
    let (holder, clock) = provider(&first);
    let token = holder.token().await.unwrap();
    pass(MINUTE * 30).await;
    let provider = TokenProvider::builder().seed(token).clock(clock).build(second.source()).unwrap();
    provider.init().await.unwrap();
    assert_eq!(secret(&provider.token().await.unwrap()), "t1");
    pass(MINUTE * 24).await;
    assert_eq!(second.fetches(), 0);
    pass(MINUTE * 2).await;
    assert_eq!(second.fetches(), 1);
    assert_eq!(second.asked()[0].previous.as_deref(), Some("t1"));
}

// Scenario 41.
#[test]
fn a_provider_built_outside_a_runtime_works_from_its_first_use_inside_one() {
    let endpoint = Endpoint::hourly();
    let provider = TokenProvider::builder().clock(ManualClock::new()).build(endpoint.source()).unwrap();
    assert!(provider.try_token().is_none());
    assert!(matches!(futures_util::FutureExt::now_or_never(provider.init()), Some(Err(TokenError::NoRuntime))));
    assert!(matches!(futures_util::FutureExt::now_or_never(provider.token()), Some(Err(TokenError::NoRuntime))));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    assert_eq!(secret(&runtime.block_on(provider.token()).unwrap()), "t1");
    assert_eq!(endpoint.fetches(), 1);
}

#[tokio::test(start_paused = true)]
async fn init_fetches_what_is_missing_and_its_loop_goes_on_after_a_failure() {
    let endpoint = Endpoint::hourly();
    endpoint.next(Reply::Fail);
    let (provider, clock) = provider(&endpoint);
    assert!(matches!(provider.init().await, Err(TokenError::Unavailable { .. })));
    pass(SECOND * 2).await;
    assert_eq!(endpoint.fetches(), 2, "nobody asked");
    assert!(provider.current().unwrap().expires_at().unwrap() > clock.wall());
    let before = Instant::now();
    provider.init().await.unwrap();
    assert_eq!((endpoint.fetches(), before.elapsed().as_secs()), (2, 0), "a second init is no second fetch");
    pass(HOUR).await;
    assert_eq!(endpoint.fetches(), 3);
}
