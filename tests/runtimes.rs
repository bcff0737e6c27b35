//! One provider and several runtimes: built outside any, outliving some, frozen in others.
//!
//! The provider's clock is moved by hand; a caller's deadline is tokio's, so those run on a paused runtime.

mod support;

use futures_util::{FutureExt, future::join_all};
use std::{
    sync::{Arc, mpsc},
    thread,
    time::Duration,
};
use support::{Endpoint, HOUR, MINUTE, Reply, SECOND, settle};
use tokio::{
    runtime::{Builder, Runtime},
    sync::Semaphore,
    time::Instant,
};
use tower::{Layer, limit::GlobalConcurrencyLimitLayer};
use tower_jwt_refresh::{Token, TokenError, TokenProvider, clock::ManualClock};

fn real() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

fn paused() -> Runtime {
    Builder::new_current_thread().enable_all().start_paused(true).build().unwrap()
}

fn provider(endpoint: &Endpoint) -> (TokenProvider, ManualClock) {
    let clock = ManualClock::new();
    (TokenProvider::builder().clock(clock.clone()).build(endpoint.source()).unwrap(), clock)
}

fn hourly(secret: &str) -> Token {
    Token::opaque(secret).unwrap().with_expires_in(HOUR)
}

fn secret(result: Result<Token, TokenError>) -> String {
    result.unwrap().expose_secret().to_owned()
}

/// A runtime that carries a flight, asked or not yet, and is driven no further until somebody does.
fn freeze(provider: &TokenProvider, endpoint: &Endpoint, asked: bool) -> Runtime {
    let runtime = real();
    let fetches = endpoint.fetches();
    runtime.block_on(async {
        assert!(provider.token().now_or_never().is_none(), "it waits for the flight it started");
        if asked {
            endpoint.asked_times(fetches + 1).await;
        }
    });
    runtime
}

fn thaw(runtime: &Runtime) {
    runtime.block_on(settle());
}

// Scenario 41.
#[test]
fn a_provider_built_outside_a_runtime_works_from_its_first_use_inside_one() {
    let endpoint = Endpoint::hourly();
    let (provider, _) = provider(&endpoint);
    assert_eq!(secret(real().block_on(provider.token())), "t1");
    assert_eq!(secret(paused().block_on(provider.refresh())), "t2");
}

// golang/oauth2#388; modelcontextprotocol/go-sdk#988, stacklok/toolhive#3539, cloudfoundry/go-cfclient#445.
#[test]
fn a_provider_refreshes_after_the_task_and_the_runtime_that_built_it_are_gone() {
    let endpoint = Endpoint::hourly();
    let first = real();
    let (provider, clock) = first.block_on(async {
        let endpoint = endpoint.clone();
        let built = tokio::spawn(async move {
            let (provider, clock) = provider(&endpoint);
            provider.init().await.unwrap();
            (provider, clock)
        });
        built.await.unwrap()
    });
    clock.advance(HOUR);
    assert_eq!(secret(first.block_on(provider.token())), "t2", "the task is gone");
    drop(first);
    clock.advance(HOUR);
    assert_eq!(secret(paused().block_on(provider.token())), "t3", "the runtime is gone");
}

// Scenario 71.
#[test]
fn a_loop_that_went_with_its_runtime_is_started_anew_by_the_next_caller_with_a_stale_token() {
    let endpoint = Endpoint::hourly();
    let (provider, clock) = provider(&endpoint);
    real().block_on(provider.init()).unwrap();
    let second = paused();
    second.block_on(async {
        let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
        provider.token().await.unwrap();
        assert_eq!(tasks(), 0, "a fresh token needs no loop yet");
        clock.advance(HOUR - MINUTE * 2);
        provider.token().await.unwrap();
        settle().await;
        assert_eq!(endpoint.fetches(), 2);
        assert_eq!(tasks(), 1, "the flight has ended, the loop is back");
        // It does its work: nobody asks.
        clock.advance(HOUR - MINUTE * 2);
        tokio::time::sleep(HOUR).await;
        assert_eq!(endpoint.fetches(), 3);
    });
}

// Scenarios 37, 71; forcedotcom/SalesforceMobileSDK-Android#2846.
#[test]
fn a_runtime_that_shuts_down_mid_flight_fails_nobody_on_another() {
    let endpoint = Endpoint::hourly();
    let (provider, clock) = provider(&endpoint);
    for asked in [true, false] {
        provider.clear();
        provider.set(Token::opaque("dead").unwrap().with_expires_in(Duration::ZERO));
        endpoint.shut();
        let fetches = endpoint.fetches();
        let first = freeze(&provider, &endpoint, asked);
        let (joined, wait) = mpsc::channel();
        let other = thread::spawn({
            let provider = provider.clone();
            move || {
                real().block_on(async {
                    let mut callers = Box::pin(join_all((0..10).map(|_| provider.token())));
                    assert!(callers.as_mut().now_or_never().is_none());
                    joined.send(()).unwrap();
                    callers.await
                })
            }
        });
        wait.recv().unwrap();
        endpoint.open();
        // So that the new flight has no `min_interval` to sleep out, in real time.
        clock.advance(2 * SECOND);
        drop(first);
        let tokens = other.join().unwrap();
        assert!(tokens.into_iter().all(|token| secret(token).starts_with('t')));
        assert_eq!(endpoint.fetches() - fetches, 1 + usize::from(asked), "one new flight for all ten");
    }
}

// Scenario 111; invariant 6: each has a deadline of its own, on its own runtime.
#[test]
fn callers_on_another_runtime_end_at_their_deadline_and_the_next_starts_a_new_flight() {
    let endpoint = Endpoint::hourly();
    let (provider, clock) = provider(&endpoint);
    endpoint.next(Reply::This(hourly("late")));
    endpoint.shut();
    let frozen = freeze(&provider, &endpoint, true);
    endpoint.open();
    paused().block_on(async {
        let before = Instant::now();
        for result in join_all((0..10).map(|_| provider.token())).await {
            assert!(matches!(result, Err(TokenError::TimedOut { after }) if after == 31 * SECOND));
        }
        assert_eq!(before.elapsed(), 31 * SECOND);
        assert_eq!(endpoint.fetches(), 1, "by the provider's clock no time has passed: the flight is not lost");
        clock.advance(32 * SECOND);
        let before = Instant::now();
        assert_eq!(secret(provider.token().await), "t1");
        assert_eq!(before.elapsed(), Duration::ZERO, "it has waited for min_interval already");
    });
    thaw(&frozen);
    assert_eq!(endpoint.busy(), 0, "the late result is in");
    assert_eq!(provider.current().unwrap().expose_secret(), "t1", "and was dropped");
    assert_eq!(endpoint.fetches(), 2);
}

// Scenario 133: nothing blocks on the source, whatever the frozen flight was doing with it.
#[test]
fn a_flight_that_freezes_while_it_awaits_the_answer_is_lost_by_age_and_a_waiter_takes_over() {
    let endpoint = Endpoint::hourly();
    let (provider, clock) = provider(&endpoint);
    endpoint.next(Reply::Hang);
    let _frozen = freeze(&provider, &endpoint, true);
    paused().block_on(async {
        let mut waiter = Box::pin(provider.token());
        assert!(waiter.as_mut().now_or_never().is_none());
        clock.advance(32 * SECOND);
        // Whoever looks finds it lost, and all who wait hear of it.
        assert!(provider.try_token().is_none());
        assert_eq!(secret(waiter.await), "t1");
    });
    assert_eq!(endpoint.fetches(), 2);
}

#[test]
fn a_waiter_that_came_late_to_a_frozen_flight_takes_over_once_that_is_lost_and_not_at_its_own_deadline() {
    let endpoint = Endpoint::hourly();
    endpoint.next(Reply::Hang);
    let paused = paused();
    let clock = paused.block_on(async { ManualClock::following_tokio() });
    let provider = TokenProvider::builder().clock(clock).build(endpoint.source()).unwrap();
    let _frozen = freeze(&provider, &endpoint, true);
    paused.block_on(async {
        tokio::time::sleep(20 * SECOND).await;
        let before = Instant::now();
        assert_eq!(secret(provider.token().await), "t1");
        assert!(before.elapsed() < 13 * SECOND, "{:?}", before.elapsed());
    });
    assert_eq!(endpoint.fetches(), 2);
}

// Scenario 133: a source that was not ready for the frozen flight is polled by the next.
#[test]
fn a_flight_that_freezes_while_the_source_is_not_ready_keeps_it_from_nobody() {
    let endpoint = Endpoint::hourly();
    let clock = ManualClock::new();
    let permits = Arc::new(Semaphore::new(1));
    let limit = GlobalConcurrencyLimitLayer::with_semaphore(Arc::clone(&permits));
    let source = limit.layer(endpoint.source());
    let provider = TokenProvider::builder().clock(clock.clone()).build(source).unwrap();
    let taken = permits.try_acquire().unwrap();
    let frozen = freeze(&provider, &endpoint, false);
    thaw(&frozen);
    assert_eq!(endpoint.fetches(), 0, "it polls a source that is not ready");
    drop(taken);
    clock.advance(32 * SECOND);
    assert_eq!(secret(paused().block_on(provider.token())), "t1");
    thaw(&frozen);
    assert_eq!(endpoint.fetches(), 1);
    assert_eq!(frozen.metrics().num_alive_tasks(), 0);
}

// Scenario 134.
#[test]
fn a_flight_that_thaws_after_its_successor_asked_does_not_ask() {
    let endpoint = Endpoint::hourly();
    let (provider, clock) = provider(&endpoint);
    let frozen = freeze(&provider, &endpoint, false);
    assert_eq!(endpoint.fetches(), 0);
    clock.advance(32 * SECOND);
    assert_eq!(secret(paused().block_on(provider.token())), "t1");
    thaw(&frozen);
    assert_eq!(endpoint.fetches(), 1);
    assert_eq!(frozen.metrics().num_alive_tasks(), 0, "it has ended");

    // The same while the successor still waits for its answer.
    endpoint.shut();
    clock.advance(HOUR);
    let frozen = freeze(&provider, &endpoint, false);
    clock.advance(32 * SECOND);
    let successor = freeze(&provider, &endpoint, true);
    thaw(&frozen);
    endpoint.open();
    thaw(&successor);
    assert_eq!(endpoint.fetches(), 2);
    assert_eq!(provider.current().unwrap().expose_secret(), "t2");
}

// Scenario 134: it had leave to ask, slept out `min_interval`, and lost it meanwhile.
#[test]
fn a_flight_that_freezes_before_it_asks_has_no_leave_any_more_when_it_thaws() {
    let endpoint = Endpoint::hourly();
    let (provider, clock) = provider(&endpoint);
    let runtime = paused();
    runtime.block_on(provider.token()).unwrap();
    // No time has passed since that fetch: the next flight sleeps first.
    runtime.block_on(async {
        assert!(provider.refresh().now_or_never().is_none());
        settle().await;
    });
    assert_eq!(endpoint.fetches(), 1);
    clock.advance(32 * SECOND);
    assert_eq!(secret(paused().block_on(provider.refresh())), "t2");
    runtime.block_on(async { tokio::time::sleep(MINUTE).await });
    assert_eq!(endpoint.fetches(), 2, "the thawed one did not ask");
    assert_eq!(provider.current().unwrap().expose_secret(), "t2");
}

// Scenario 112.
#[test]
fn outside_any_runtime_a_living_token_is_served_and_else_the_error_says_what_is_missing() {
    let endpoint = Endpoint::hourly();
    let (provider, clock) = provider(&endpoint);
    let ask = || provider.token().now_or_never().expect("nobody can wait here");
    assert!(matches!(ask(), Err(TokenError::NoRuntime)));
    assert!(matches!(provider.init().now_or_never(), Some(Err(TokenError::NoRuntime))));
    assert!(provider.try_token().is_none());
    provider.set(hourly("pushed"));
    assert_eq!(secret(ask()), "pushed");
    for (passed, band) in [(HOUR - 4 * MINUTE, "stale"), (4 * MINUTE - SECOND, "urgent")] {
        clock.advance(passed);
        assert_eq!(secret(ask()), "pushed", "{band}");
    }
    provider.reject(&provider.current().unwrap());
    assert_eq!(secret(ask()), "pushed", "rejected, but alive: the server's 401 is the caller's");
    clock.advance(SECOND);
    assert!(matches!(ask(), Err(TokenError::NoRuntime)));
    provider.shutdown().now_or_never().expect("nothing to wait for");
    assert_eq!(endpoint.fetches(), 0);
}

// Scenarios 37, 112: tokio drops what is spawned there, at once.
#[test]
fn inside_a_runtime_that_has_shut_down_a_caller_fails_and_does_not_spin() {
    let endpoint = Endpoint::hourly();
    let (provider, _) = provider(&endpoint);
    let gone = real();
    let handle = gone.handle().clone();
    drop(gone);
    {
        let _inside = handle.enter();
        assert!(matches!(provider.token().now_or_never(), Some(Err(TokenError::NoRuntime))));
        assert!(matches!(provider.refresh().now_or_never(), Some(Err(TokenError::NoRuntime))));
        provider.set(hourly("pushed"));
        assert_eq!(secret(provider.token().now_or_never().unwrap()), "pushed");
    }
    assert_eq!(secret(real().block_on(provider.refresh())), "t1");
}
