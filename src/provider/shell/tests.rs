use super::*;
use crate::{
    FetchError,
    clock::SystemClock,
    provider::{backoff::Failure, wait::Outcome},
};
use std::{
    future::Future,
    pin::{Pin, pin},
    task::{Context, Poll, Waker},
};

fn poll(waiter: Pin<&mut Waiter>) -> Poll<Outcome> {
    waiter.poll(&mut Context::from_waker(Waker::noop()))
}

#[tokio::test(start_paused = true)]
async fn a_waiter_that_comes_between_a_failure_and_the_word_of_it_starts_no_further_flight() {
    let source = tower::service_fn(|_: TokenRequest| std::future::pending());
    let core =
        Core::new(Settings::default(), Clocks::new(Box::new(SystemClock)), Jitter::new(None), BoxService::new(source));
    let core = Arc::new(core);
    let Verdict::Wait(first) = core.decide(Purpose::Refresh, None, |machine, now, _| machine.forced(now)) else {
        panic!("it starts a flight");
    };
    let (number, landing) = (first.flight(), core.lock().landing.clone().unwrap());
    // What `event_with` does, cut in two where the lock is free and nobody was told yet.
    let ended = {
        let now = core.now();
        let mut locked = core.lock();
        locked.machine.failed(now, number, FetchError::Panicked, Failure::default(), 0.5);
        locked.follow_flight(true).unwrap()
    };
    let deadline = Instant::now() + core.settings.longest_wait();
    let second = Waiter::new(Arc::clone(&core), landing, Purpose::Refresh, deadline, deadline, Instant::now());
    let (mut first, mut second) = (pin!(first), pin!(second));
    assert!(poll(first.as_mut()).is_pending());
    assert!(poll(second.as_mut()).is_pending(), "the word is yet to come");
    ended.end(Over::Failed);
    assert!(matches!(poll(first), Poll::Ready(Outcome::Fail(TokenError::Unavailable { .. }))));
    assert!(matches!(poll(second), Poll::Ready(Outcome::Fail(TokenError::Unavailable { .. }))));
    assert_eq!(core.lock().machine.under_way(), None);
}

#[tokio::test(start_paused = true)]
async fn what_has_been_retired_starts_no_flight_and_one_with_a_flight_is_not_retired() {
    let source = || tower::service_fn(|_: TokenRequest| std::future::pending::<Result<Token, BoxError>>());
    let new = || {
        let clocks = Clocks::new(Box::new(SystemClock));
        Arc::new(Core::new(Settings::default(), clocks, Jitter::new(None), BoxService::new(source())))
    };
    // The loop had its handle already when the last other one was let go.
    let idle = new();
    assert!(idle.retire());
    assert_eq!((idle.tick(), idle.lock().machine.under_way()), (None, None));
    let busy = new();
    busy.tick();
    assert!(!busy.retire());
    assert!(busy.lock().machine.under_way().is_some());
}
