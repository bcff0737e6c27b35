//! What becomes of those who wait while the world changes around their flight.

mod support;

use futures_util::{FutureExt, future::join_all, task::ArcWake};
use std::{
    future::Future,
    pin::pin,
    sync::{Arc, Mutex},
    task::Context,
    time::Duration,
};
use support::{Endpoint, HOUR, MINUTE, Reply, SECOND, builder, pass, provider, settle};
use tokio::time::Instant;
use tower_jwt_refresh::{Token, TokenError, TokenStatus, source::Reason};

fn token(secret: &str) -> Token {
    Token::opaque(secret).unwrap().with_expires_in(HOUR)
}

// Scenario 91.
#[tokio::test(start_paused = true)]
async fn a_waiter_polled_long_after_its_flight_failed_gets_the_newer_token_and_not_the_old_error() {
    let endpoint = Endpoint::hourly();
    let (provider, _) = provider(&endpoint);
    endpoint.next(Reply::Fail);
    let mut late = pin!(provider.token());
    assert!(late.as_mut().now_or_never().is_none());
    settle().await;
    assert!(matches!(*provider.subscribe().borrow(), TokenStatus::Failing { .. }));
    pass(SECOND).await;
    provider.token().await.unwrap();
    assert_eq!(late.await.unwrap().expose_secret(), "t1");
    assert_eq!(endpoint.fetches(), 2);
}

// Scenario 92.
#[tokio::test(start_paused = true)]
async fn a_waiter_whose_token_was_rejected_before_it_woke_joins_the_replacement() {
    let endpoint = Endpoint::hourly().taking(SECOND);
    let (provider, _) = provider(&endpoint);
    let mut late = pin!(provider.token());
    assert!(late.as_mut().now_or_never().is_none());
    pass(SECOND).await;
    provider.reject(&provider.current().unwrap());
    assert_eq!(late.await.unwrap().expose_secret(), "t2");
    assert_eq!(endpoint.fetches(), 2);
}

// Scenario 36; Azure/azure-sdk-for-net#13610.
#[tokio::test(start_paused = true)]
async fn a_refresh_by_hand_fetches_even_when_fresh_and_two_at_once_share_the_fetch() {
    let endpoint = Endpoint::hourly().taking(SECOND);
    let (provider, _) = provider(&endpoint);
    provider.token().await.unwrap();
    pass(MINUTE).await;
    let (one, two) = tokio::join!(provider.refresh(), provider.refresh());
    assert_eq!((one.unwrap().expose_secret(), two.unwrap().expose_secret()), ("t2", "t2"));
    assert_eq!(endpoint.fetches(), 2);
}

// Scenario 36; authts/oidc-client-ts#1102.
#[tokio::test(start_paused = true)]
async fn a_refresh_within_the_min_interval_sleeps_out_the_rest_and_then_fetches() {
    let endpoint = Endpoint::hourly();
    let provider = builder().0.min_interval(5 * SECOND).build(endpoint.source()).unwrap();
    provider.token().await.unwrap();
    pass(2 * SECOND).await;
    let before = Instant::now();
    assert_eq!(provider.refresh().await.unwrap().expose_secret(), "t2");
    assert_eq!(before.elapsed(), 3 * SECOND);
    // Nor does giving up bring the next fetch forward.
    for _ in 0..4 {
        assert!(tokio::time::timeout(SECOND, provider.refresh()).await.is_err());
    }
    pass(20 * SECOND).await;
    assert!(endpoint.gaps().iter().all(|gap| *gap >= 5 * SECOND), "{:?}", endpoint.gaps());
}

// Scenario 36; AzureAD/microsoft-authentication-library-for-dotnet#4196.
#[tokio::test(start_paused = true)]
async fn within_a_retry_after_all_get_its_error_at_once_and_after_it_they_share_one_fetch() {
    let endpoint = Endpoint::hourly();
    let (provider, _) = provider(&endpoint);
    endpoint.next(Reply::Busy(20 * SECOND));
    provider.token().await.unwrap_err();
    for _ in 0..19 {
        let before = Instant::now();
        assert!(provider.refresh().await.is_err());
        assert!(join_all((0..50).map(|_| provider.token())).await.iter().all(Result::is_err));
        assert_eq!(before.elapsed(), Duration::ZERO);
        pass(SECOND).await;
    }
    assert_eq!(endpoint.fetches(), 1);
    pass(SECOND).await;
    endpoint.set_delay(SECOND);
    for result in join_all((0..50).map(|_| provider.token())).await {
        assert_eq!(result.unwrap().expose_secret(), "t1");
    }
    assert_eq!(endpoint.fetches(), 2);
}

// ktorio/ktor#3319; Azure/azure-sdk-for-net#44817.
#[tokio::test(start_paused = true)]
async fn a_set_or_a_clear_during_a_flight_ends_every_wait_at_once() {
    let endpoint = Endpoint::new(Reply::Hang);
    let (provider, _) = provider(&endpoint);
    let waiters = || {
        let tasks = (0..10).map(|number| {
            let provider = provider.clone();
            tokio::spawn(async move { if number % 2 == 0 { provider.token().await } else { provider.refresh().await } })
        });
        tasks.collect::<Vec<_>>()
    };
    let before = Instant::now();
    let waiting = waiters();
    settle().await;
    provider.set(token("pushed"));
    for result in join_all(waiting).await {
        assert_eq!(result.unwrap().unwrap().expose_secret(), "pushed");
    }
    let waiting = (0..10).map(|_| {
        tokio::spawn({
            let provider = provider.clone();
            async move { provider.refresh().await }
        })
    });
    let waiting: Vec<_> = waiting.collect();
    settle().await;
    provider.clear();
    for result in join_all(waiting).await {
        assert!(matches!(result.unwrap(), Err(TokenError::SignedOut)));
    }
    assert_eq!(before.elapsed(), Duration::ZERO);
    assert_eq!(endpoint.fetches(), 1, "a flight that was told to bring nothing still has its place");
}

// Scenario 45: a machine wakes from suspend in the middle of a wait.
#[tokio::test(start_paused = true)]
async fn a_token_that_dies_during_an_urgent_wait_makes_it_a_wait_for_the_flight() {
    let endpoint = Endpoint::hourly();
    let (provider, clock) = provider(&endpoint);
    provider.token().await.unwrap();
    pass(HOUR - 30 * SECOND).await;
    endpoint.set_delay(5 * SECOND);
    let waiter = tokio::spawn({
        let provider = provider.clone();
        async move { provider.token().await }
    });
    settle().await;
    clock.jump_wall_ahead(MINUTE);
    let before = Instant::now();
    assert_eq!(waiter.await.unwrap().unwrap().expose_secret(), "t2");
    assert_eq!(before.elapsed(), 5 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn a_replacement_that_is_not_had_in_time_says_so() {
    let endpoint = Endpoint::hourly();
    let (provider, clock) = provider(&endpoint);
    let rejected = provider.token().await.unwrap();
    pass(MINUTE).await;
    endpoint.usually(Reply::Hang);
    // Each flight is lost before its own timeout, so that the caller's is the one that ends the wait.
    let flights = async {
        for count in 2.. {
            endpoint.asked_times(count).await;
            pass(10 * SECOND).await;
            clock.advance(MINUTE / 2);
        }
    };
    let before = Instant::now();
    let error = tokio::select! {
        result = provider.replace(&rejected) => result.unwrap_err(),
        () = flights => unreachable!(),
    };
    assert_eq!(before.elapsed(), 31 * SECOND);
    assert!(matches!(error, TokenError::TimedOut { after } if after == 31 * SECOND), "{error}");
}

/// Does something to the provider at the moment it is woken, in the middle of the event that wakes it.
struct OnWake(Mutex<Option<Box<dyn FnOnce() + Send>>>);

impl ArcWake for OnWake {
    fn wake_by_ref(this: &Arc<Self>) {
        if let Some(act) = this.0.lock().unwrap().take() {
            act();
        }
    }
}

// Scenario 74: a sign-in that overtakes the sign-out before it on the way to the subscribers.
#[tokio::test(start_paused = true)]
async fn the_status_told_last_is_that_of_the_last_event() {
    let (provider, _) = provider(&Endpoint::new(Reply::Hang));
    provider.set(token("first"));
    let status = provider.subscribe();
    let set = {
        let provider = provider.clone();
        move || provider.set(token("second"))
    };
    let waker = futures_util::task::waker(Arc::new(OnWake(Mutex::new(Some(Box::new(set))))));
    let refresh = pin!(provider.refresh());
    assert!(refresh.poll(&mut Context::from_waker(&waker)).is_pending());
    provider.clear();
    assert_eq!(provider.current().unwrap().expose_secret(), "second");
    assert_eq!(*status.borrow(), TokenStatus::Fresh);
}

// forcedotcom/SalesforceMobileSDK-Android#2846: each way in which a flight can end wakes all who wait.
#[tokio::test(start_paused = true)]
async fn however_a_flight_ends_all_who_wait_are_woken() {
    for (reply, took) in [
        (Reply::New(HOUR), Duration::ZERO),
        (Reply::Fail, Duration::ZERO),
        (Reply::Refuse, Duration::ZERO),
        (Reply::Panic, Duration::ZERO),
        (Reply::PanicAtOnce, Duration::ZERO),
        (Reply::Hang, 30 * SECOND),
    ] {
        let endpoint = Endpoint::new(reply.clone());
        let (provider, _) = provider(&endpoint);
        let before = Instant::now();
        let results = join_all((0..100).map(|_| provider.token())).await;
        assert_eq!(before.elapsed(), took, "{reply:?}");
        assert!(results.iter().all(|result| result.is_ok() == matches!(reply, Reply::New(_))), "{reply:?}");
        assert_eq!(endpoint.fetches(), 1, "{reply:?}");
    }
}

// Scenario 112.
#[test]
fn outside_any_runtime_a_replacement_fails_for_want_of_one() {
    let provider = tower_jwt_refresh::TokenProvider::builder().seed(token("seed")).build(Endpoint::hourly().source());
    let provider = provider.unwrap();
    let held = provider.token().now_or_never().unwrap().unwrap();
    let error = provider.replace(&held).now_or_never().unwrap().unwrap_err();
    assert!(matches!(error, TokenError::NoRuntime), "{error}");
    assert!(matches!(provider.refresh().now_or_never(), Some(Err(TokenError::NoRuntime))));
}

// Scenario 121: what is dead and was refused by nobody is not reported to the source as refused, nor held back by a storm.
#[tokio::test(start_paused = true)]
async fn who_waits_for_a_successor_and_finds_a_pushed_dead_token_asks_for_it_as_for_any_dead_one() {
    let endpoint = Endpoint::hourly().taking(2 * SECOND);
    let (provider, _) = provider(&endpoint);
    let refused = provider.token().await.unwrap();
    pass(MINUTE).await;
    let mut waiter = pin!(provider.replace(&refused));
    assert!(waiter.as_mut().now_or_never().is_none());
    pass(SECOND).await;
    provider.set(Token::opaque("dead").unwrap().with_expires_in(Duration::ZERO));
    assert_eq!(waiter.await.unwrap().expose_secret(), "t3");
    let reasons: Vec<_> = endpoint.asked().iter().map(|asked| asked.reason).collect();
    assert_eq!(reasons, [Reason::Initial, Reason::Rejected, Reason::Expiring]);
}
