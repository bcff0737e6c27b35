//! Told from outside: a token pushed, a sign-out, the end.

mod support;

use futures_util::future::join_all;
use std::sync::{Arc, Mutex};
use support::{Api, Endpoint, HOUR, MINUTE, Reply, SECOND, builder, get, pass, provider, settle};
use tokio::{sync::Semaphore, task::JoinHandle, time::Instant};
use tower::{BoxError, Layer, ServiceExt, limit::ConcurrencyLimit};
use tower_jwt_refresh::{
    JwtRefreshLayer, Token, TokenError, TokenProvider, TokenRequest, TokenStatus, clock::Clock, source::Reason,
};

type Got = Result<Token, TokenError>;

fn opaque(token: &str) -> Token {
    Token::opaque(token).unwrap()
}

fn secret(got: &Got) -> &str {
    got.as_ref().unwrap().expose_secret()
}

/// One caller of each kind that can wait for a flight. The token held, if any, was rejected.
fn callers(provider: &TokenProvider) -> Vec<JoinHandle<Got>> {
    let (one, two, three) = (provider.clone(), provider.clone(), provider.clone());
    let rejected = provider.current();
    vec![
        tokio::spawn(async move { one.token().await }),
        tokio::spawn(async move { two.refresh().await }),
        tokio::spawn(async move { three.token_valid_for(MINUTE).await }),
    ]
    .into_iter()
    .chain(rejected.map(|rejected| {
        let provider = provider.clone();
        tokio::spawn(async move { provider.replace(&rejected).await })
    }))
    .collect()
}

async fn all(callers: Vec<JoinHandle<Got>>) -> Vec<Got> {
    join_all(callers).await.into_iter().map(Result::unwrap).collect()
}

/// A rejected token is held, its successor's fetch hangs at the endpoint, and one caller of each kind waits for it.
async fn waiting_for_a_successor(endpoint: &Endpoint) -> (TokenProvider, Vec<JoinHandle<Got>>) {
    let (provider, _) = provider(endpoint);
    provider.init().await.unwrap();
    pass(MINUTE).await;
    endpoint.shut();
    provider.reject(&provider.current().unwrap());
    let callers = callers(&provider);
    endpoint.asked_times(2).await;
    settle().await;
    assert!(callers.iter().all(|caller| !caller.is_finished()) && callers.len() == 4);
    (provider, callers)
}

// Scenario 121; garfiec/Librechat-Mobile#64, ktorio/ktor#3319.
#[tokio::test(start_paused = true)]
async fn a_token_pushed_during_a_flight_stands_and_every_waiter_gets_it_at_once() {
    let endpoint = Endpoint::hourly();
    let (provider, callers) = waiting_for_a_successor(&endpoint).await;
    let before = (Instant::now(), provider.current().unwrap().generation());
    provider.set(opaque("pushed"));
    for got in all(callers).await {
        assert_eq!(secret(&got), "pushed");
        assert!(got.unwrap().generation() > before.1);
    }
    assert_eq!(Instant::now(), before.0, "nobody waits for the flight that is dropped");
    endpoint.open();
    settle().await;
    assert_eq!(endpoint.busy(), 0);
    assert_eq!(provider.current().unwrap().expose_secret(), "pushed");
    assert_eq!(endpoint.fetches(), 2);
}

// Scenario 122; garfiec/Librechat-Mobile#64, ktorio/ktor#3319.
#[tokio::test(start_paused = true)]
async fn a_sign_out_during_a_flight_tells_every_waiter_and_is_not_undone_by_its_result() {
    let endpoint = Endpoint::hourly();
    let (provider, callers) = waiting_for_a_successor(&endpoint).await;
    let before = Instant::now();
    provider.clear();
    for got in all(callers).await {
        assert!(matches!(got, Err(TokenError::SignedOut)), "{got:?}");
    }
    assert_eq!(Instant::now(), before);
    endpoint.open();
    settle().await;
    assert_eq!(endpoint.busy(), 0);
    assert!(provider.current().is_none() && provider.try_token().is_none());
    assert_eq!(*provider.subscribe().borrow(), TokenStatus::SignedOut);
}

// Scenario 122.
#[tokio::test(start_paused = true)]
async fn until_it_is_signed_in_again_everything_ends_in_signed_out_and_nothing_is_fetched() {
    let (endpoint, api) = (Endpoint::hourly(), Api::new());
    let (provider, _) = provider(&endpoint);
    provider.init().await.unwrap();
    let old = provider.current().unwrap();
    provider.clear();
    pass(HOUR * 24).await;
    for got in all(callers(&provider)).await {
        assert!(matches!(got, Err(TokenError::SignedOut)), "{got:?}");
    }
    provider.reject(&old);
    assert!(matches!(provider.replace(&old).await, Err(TokenError::SignedOut)));
    assert!(matches!(provider.init().await, Err(TokenError::SignedOut)));
    let client = JwtRefreshLayer::new(provider.clone()).layer(api.clone());
    let error = client.oneshot(get("https://api.example.com/")).await.unwrap_err();
    assert!(matches!(error.downcast_ref(), Some(TokenError::SignedOut)), "{error}");
    assert_eq!((endpoint.fetches(), api.seen().len()), (1, 0));

    provider.set(opaque("pushed").with_expires_in(HOUR));
    assert_eq!(secret(&provider.token().await), "pushed");
    assert!(provider.current().unwrap().generation() > old.generation());
    pass(HOUR).await;
    assert_eq!(endpoint.fetches(), 2, "the loop goes on as before");
}

// Scenario 121.
#[tokio::test(start_paused = true)]
async fn the_loop_refreshes_a_pushed_token_before_it_ends() {
    let endpoint = Endpoint::new(Reply::New(HOUR * 24));
    let (provider, _) = provider(&endpoint);
    provider.init().await.unwrap();
    pass(MINUTE).await;
    provider.set(opaque("pushed").with_expires_in(MINUTE * 20));
    pass(MINUTE * 14).await;
    assert_eq!(endpoint.fetches(), 1);
    pass(MINUTE * 2).await;
    assert_eq!(endpoint.fetches(), 2);
    assert_eq!(endpoint.asked()[1].reason, Reason::Scheduled);
    assert_eq!(endpoint.asked()[1].previous.as_deref(), Some("pushed"));
}

// Scenario 121.
#[tokio::test(start_paused = true)]
async fn a_pushed_token_ends_the_wait_after_a_failure_and_a_storm() {
    let endpoint = Endpoint::new(Reply::Refuse);
    let (provider, _) = provider(&endpoint);
    assert!(provider.token().await.is_err());
    pass(SECOND * 2).await;
    assert!(provider.token().await.is_err());
    assert_eq!(endpoint.fetches(), 1, "a refused credential is asked about each minute");
    endpoint.usually(Reply::New(HOUR));
    provider.set(opaque("pushed"));
    let mut token = provider.replace(&provider.current().unwrap()).await.unwrap();
    assert_eq!(endpoint.fetches(), 2);

    let storm = loop {
        match provider.replace(&token).await {
            Ok(next) => token = next,
            Err(error) => break error,
        }
    };
    assert!(matches!(storm, TokenError::NotReplaced { .. }), "{storm}");
    let fetches = endpoint.fetches();
    provider.set(opaque("again"));
    let token = provider.replace(&provider.current().unwrap()).await.unwrap();
    assert_eq!((token.expose_secret(), endpoint.fetches()), (format!("t{fetches}").as_str(), fetches + 1));
    assert!(endpoint.gaps().iter().all(|gap| *gap >= SECOND), "min_interval holds all the same");
}

// Scenario 144.
#[tokio::test(start_paused = true)]
async fn a_dead_token_pushed_inside_a_retry_after_causes_no_fetch_before_that_ends() {
    let endpoint = Endpoint::new(Reply::Busy(SECOND * 20));
    let (provider, clock) = provider(&endpoint);
    assert!(matches!(provider.init().await, Err(TokenError::Unavailable { .. })));
    endpoint.usually(Reply::New(HOUR));
    pass(SECOND * 5).await;
    provider.set(opaque("dead").with_expires_at(clock.wall() - HOUR));
    for _ in 0..14 {
        let Err(TokenError::Unavailable { retry_in, .. }) = provider.token().await else {
            panic!("a dead token was sent")
        };
        assert!(retry_in <= SECOND * 15);
        assert!(provider.refresh().await.is_err());
        pass(SECOND).await;
    }
    assert_eq!(endpoint.fetches(), 1);
    pass(SECOND * 2).await;
    assert_eq!(endpoint.gaps(), [SECOND * 20], "the loop asks as soon as it may");
    assert_eq!(secret(&provider.token().await), "t1");
}

// Scenario 124.
#[tokio::test(start_paused = true)]
async fn shutdown_waits_for_the_flight_so_that_a_rotated_refresh_token_is_kept() {
    let kept = Arc::new(Mutex::new(Vec::new()));
    let (builder, _) = builder();
    let store = Arc::clone(&kept);
    let source = tower::service_fn(move |_: TokenRequest| {
        let store = Arc::clone(&store);
        async move {
            tokio::time::sleep(SECOND * 10).await;
            store.lock().unwrap().push("rotated");
            Ok::<_, BoxError>(opaque("new"))
        }
    });
    let provider = builder.build(source).unwrap();
    let caller = tokio::spawn({
        let provider = provider.clone();
        async move { provider.token().await }
    });
    pass(SECOND).await;
    let before = Instant::now();
    provider.shutdown().await;
    assert_eq!(before.elapsed(), SECOND * 9);
    assert_eq!(*kept.lock().unwrap(), ["rotated"]);
    let got = caller.await.unwrap();
    assert!(got.is_ok() || matches!(got, Err(TokenError::ShutDown)), "{got:?}");
    assert_eq!(provider.current().unwrap().expose_secret(), "new", "there to be stored by whoever ends the program");
}

// Scenario 124.
#[tokio::test(start_paused = true)]
async fn shutdown_waits_even_for_a_flight_whose_token_a_sign_out_has_dropped() {
    let endpoint = Endpoint::hourly().taking(SECOND * 10);
    let (provider, _) = provider(&endpoint);
    assert!(provider.try_token().is_none());
    endpoint.asked_times(1).await;
    provider.clear();
    let before = Instant::now();
    provider.shutdown().await;
    assert_eq!((before.elapsed(), endpoint.busy()), (SECOND * 10, 0));
}

// Scenario 124.
#[tokio::test(start_paused = true)]
async fn shutdown_waits_no_longer_than_a_fetch_may_take_even_if_nobody_drives_the_flight() {
    let endpoint = Endpoint::hourly();
    let (provider, _) = provider(&endpoint);
    let frozen = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    {
        let _inside = frozen.enter();
        assert!(provider.try_token().is_none());
    }
    let before = Instant::now();
    provider.shutdown().await;
    assert_eq!((before.elapsed(), endpoint.fetches()), (SECOND * 31, 0));
    assert_eq!(*provider.subscribe().borrow(), TokenStatus::ShutDown);
    provider.shutdown().await;
    frozen.shutdown_background();

    let (idle, _) = support::provider(&endpoint);
    let before = Instant::now();
    idle.shutdown().await;
    assert!(before.elapsed().is_zero(), "nothing to wait for");
}

// Scenario 124.
#[tokio::test(start_paused = true)]
async fn after_a_shutdown_everything_fails_and_nothing_is_fetched_whatever_is_pushed() {
    let (endpoint, api) = (Endpoint::hourly(), Api::new());
    let (provider, _) = provider(&endpoint);
    provider.init().await.unwrap();
    provider.shutdown().await;
    for _ in 0..2 {
        for got in all(callers(&provider)).await {
            assert!(matches!(got, Err(TokenError::ShutDown)), "{got:?}");
        }
        assert!(matches!(provider.init().await, Err(TokenError::ShutDown)));
        assert!(provider.try_token().is_none());
        let client = JwtRefreshLayer::new(provider.clone()).layer(api.clone());
        let error = client.oneshot(get("https://api.example.com/")).await.unwrap_err();
        assert!(matches!(error.downcast_ref(), Some(TokenError::ShutDown)), "{error}");
        pass(HOUR * 24).await;
        provider.clear();
        provider.set(opaque("pushed"));
    }
    assert_eq!((endpoint.fetches(), api.seen().len()), (1, 0));
}

// Scenario 81, with a `set` meanwhile.
#[tokio::test(start_paused = true)]
async fn a_flight_that_was_dropped_takes_no_permit_of_a_limit_that_others_share() {
    let (endpoint, permits) = (Endpoint::hourly(), Arc::new(Semaphore::new(1)));
    let source = ConcurrencyLimit::with_semaphore(endpoint.source(), Arc::clone(&permits));
    let provider = builder().0.build(source).unwrap();
    provider.token().await.unwrap();
    let again = provider.clone();
    let refresh = tokio::spawn(async move { again.refresh().await });
    settle().await;
    provider.set(opaque("pushed"));
    assert_eq!(secret(&refresh.await.unwrap()), "pushed", "it had slept out `min_interval`");
    pass(2 * SECOND).await;
    assert_eq!((permits.available_permits(), endpoint.fetches()), (1, 1));
}
