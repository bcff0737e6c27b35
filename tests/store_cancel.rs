//! A refresh that is dropped at any await, and a runtime that goes down at any, lose no refresh token and leave nothing locked.

#[path = "support/store.rs"]
mod store;
mod support;

use std::{
    future::{Future, poll_fn},
    pin::pin,
    task::Poll,
};
use store::{Issuer, Memory, Step, process, secret};
use support::{MINUTE, pass, settle};
use tokio::{
    runtime::{Builder, Runtime},
    sync::mpsc,
    task::yield_now,
};
use tower::{Layer, Service};
use tower_jwt_refresh::{BoxError, Token, TokenProvider, TokenRequest, clock::ManualClock, store::StoreLayer};

/// Drops it instead of polling it once more than this.
async fn polled<T>(times: usize, future: impl Future<Output = T>) -> Option<T> {
    let (mut future, mut left) = (pin!(future), times);
    poll_fn(|cx| match left {
        0 => Poll::Ready(None),
        _ => {
            left -= 1;
            future.as_mut().poll(cx).map(Some)
        }
    })
    .await
}

/// What a provider asks that has no token.
async fn request() -> TokenRequest {
    let (send, mut receive) = mpsc::unbounded_channel();
    let source = tower::service_fn(move |request| {
        send.send(request).unwrap();
        async { Err::<Token, BoxError>("captured".into()) }
    });
    TokenProvider::new(source).token().await.unwrap_err();
    receive.recv().await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_refresh_that_is_dropped_at_any_await_loses_nothing() {
    let (request, clock) = (request().await, ManualClock::following_tokio());
    let mut asked = 0;
    for times in 0.. {
        let (issuer, memory) = (Issuer::new(), Memory::default());
        let layer = StoreLayer::new(memory.clone()).clock(clock.clone());
        let mut dropped = layer.layer(issuer.source());
        let whole = polled(times, dropped.call(request.clone())).await;
        settle().await;
        let shown = issuer.shown().len();
        asked += usize::from(whole.is_none() && shown == 1);
        assert!(!memory.is_locked(), "dropped at await {times}");
        assert_eq!(
            memory.refresh_token().is_some(),
            shown == 1,
            "what was asked for is saved: dropped at await {times}"
        );
        assert_eq!(secret(&process(&memory, issuer.source(), &clock)).await, "t1");
        assert_eq!(issuer.shown(), ["r1"], "dropped at await {times}");
        if whole.is_some() {
            assert!(times > 5, "too few awaits to have been any");
            break;
        }
    }
    assert!(asked > 0, "none was dropped while it asked");
}

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().start_paused(true).build().unwrap()
}

#[test]
fn a_runtime_that_goes_down_at_any_await_loses_nothing_that_had_arrived() {
    let request = runtime().block_on(request());
    let mut saved_later = 0;
    for times in 0.. {
        let (issuer, memory) = (Issuer::new(), Memory::default());
        let clock = runtime().block_on(async { ManualClock::following_tokio() });
        let mut stored = StoreLayer::new(memory.clone()).clock(clock.clone()).layer(issuer.source());
        let going_down = runtime();
        let over = going_down.block_on(async {
            let refresh = tokio::spawn(stored.call(request.clone()));
            for _ in 0..times {
                yield_now().await;
            }
            refresh.is_finished()
        });
        drop(going_down);
        assert!(!memory.is_locked(), "down at await {times}");
        saved_later += usize::from(issuer.granted() == 1 && memory.value().is_none());
        // The access token may have been on its way.
        runtime().block_on(stored.call(request.clone())).unwrap();
        assert_eq!(issuer.refused(), 0, "down at await {times}");
        assert_eq!(memory.refresh_token(), Some(issuer.valid()), "down at await {times}");
        if over {
            assert!(times > 5);
            break;
        }
    }
    assert!(saved_later > 0, "none went down between the answer and the save");
}

#[tokio::test(start_paused = true)]
async fn callers_that_leave_stop_no_refresh() {
    let (issuer, memory, clock) = (Issuer::new(), Memory::default(), ManualClock::following_tokio());
    let process = process(&memory, issuer.source(), &clock);
    issuer.shut();
    let caller = tokio::spawn({
        let process = process.clone();
        async move { secret(&process).await }
    });
    issuer.shown_times(1).await;
    caller.abort();
    drop(process);
    issuer.open();
    memory.taken(Step::Unlock, 1).await;
    assert_eq!(memory.refresh_token().as_deref(), Some("r2"));
}

// Scenario 133.
#[test]
fn a_refresh_on_a_frozen_runtime_locks_nobody_out_once_its_lock_is_over_and_does_no_harm_when_it_runs_again() {
    let (issuer, memory) = (Issuer::new().with_grace(), Memory::default());
    let clock = runtime().block_on(async { ManualClock::following_tokio() });
    let (frozen, late) = (runtime(), process(&memory, issuer.source(), &clock));
    frozen.block_on(async {
        let late = late.clone();
        issuer.shut();
        tokio::spawn(async move { secret(&late).await });
        issuer.shown_times(1).await;
    });
    memory.end_lock();
    issuer.open();
    let other = process(&memory, issuer.source(), &clock);
    runtime().block_on(async {
        assert_eq!(secret(&other).await, "t1");
    });
    let newer = memory.value();
    frozen.block_on(async {
        pass(MINUTE).await;
        // It showed `r1` before it froze, and the server's grace gave it a token that nobody needs.
        assert_eq!(memory.value(), newer, "a late save is refused");
    });
}
