use super::*;
use crate::{
    FetchError,
    clock::{Clock, SystemClock},
    provider::{backoff::Failure, wait::Outcome},
};
use std::{
    future::Future,
    pin::{Pin, pin},
    task::{Context, Poll, Waker},
};

fn idle() -> Arc<Core> {
    with_clock(SystemClock)
}

fn with_clock(clock: impl Clock) -> Arc<Core> {
    let source = tower::service_fn(|_: TokenRequest| std::future::pending());
    let clocks = Clocks::new(Box::new(clock));
    Arc::new(Core::new(Settings::default(), clocks, Jitter::new(None), BoxService::new(source)))
}

fn set(core: &Core) -> Generation {
    let token = Token::opaque("t1").unwrap().with_expires_in(Duration::from_secs(3600));
    core.event(|machine, now, jitter| machine.set(now, token, jitter.roll()));
    core.snapshot().token.as_ref().unwrap().generation()
}

fn poll(waiter: Pin<&mut Waiter>) -> Poll<Outcome> {
    waiter.poll(&mut Context::from_waker(Waker::noop()))
}

#[tokio::test(start_paused = true)]
async fn a_waiter_that_comes_between_a_failure_and_the_word_of_it_starts_no_further_flight() {
    let core = idle();
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
    // The loop had its handle already when the last other one was let go.
    let ended = idle();
    assert!(ended.retire());
    assert_eq!((ended.tick(), ended.lock().machine.under_way()), (None, None));
    let busy = idle();
    busy.tick();
    assert!(!busy.retire());
    assert!(busy.lock().machine.under_way().is_some());
}

#[tokio::test(start_paused = true)]
async fn the_flight_of_a_frozen_runtime_keeps_nothing_from_being_retired() {
    let clock = crate::clock::ManualClock::new();
    let core = with_clock(clock.clone());
    core.tick();
    assert!(!core.retire());
    clock.advance(Duration::from_secs(32));
    assert!(core.retire());
}

#[tokio::test(start_paused = true)]
async fn the_loop_is_woken_by_a_landing_and_not_by_a_lost_flight() {
    let woken = |core: &Core| {
        let permit = pin!(core.wake.notified()).poll(&mut Context::from_waker(Waker::noop()));
        permit.is_ready()
    };
    let end = |act: fn(&mut Machine, Now, u64), over: Option<Over>| {
        let core = idle();
        core.tick();
        // Due at once, so that no end makes it earlier.
        core.lock().armed = Some(Duration::ZERO);
        woken(&core);
        let flight = core.lock().machine.under_way().unwrap();
        core.event_with(|machine, now, _| act(machine, now, flight), |()| over);
        woken(&core)
    };
    let fail = |machine: &mut Machine, now, flight| {
        machine.failed(now, flight, FetchError::Panicked, Failure::default(), 0.5);
    };
    assert!(end(fail, Some(Over::Failed)));
    // A runtime that goes down drops each task as it is spawned: woken by that, the loop would not let it end.
    assert!(!end(|machine, _, flight| machine.lost(flight), None));
}

#[test]
fn a_fresh_token_is_read_without_the_machine_and_none_after_the_end() {
    let core = idle();
    assert!(core.fresh().is_none());
    set(&core);
    assert!(core.fresh().is_some());
    core.event(|machine, _, _| machine.shut_down());
    assert!(core.fresh().is_none());
}

#[test]
fn an_accepted_request_speaks_for_its_token_from_the_first_moment_on() {
    let core = idle();
    let generation = set(&core);
    assert_eq!(core.evidence(generation), None);
    core.accepted(generation, Now::default(), None);
    assert_eq!(core.evidence(generation), Some(Duration::ZERO));
    core.accepted(generation, Now::default().after(Duration::from_secs(7)), None);
    assert_eq!(core.evidence(generation), Some(Duration::from_secs(7)));
    assert_eq!(core.evidence(generation.next()), None);
}

#[test]
fn a_providers_fresh_token_is_at_hand_and_its_debug_says_how_it_fares() {
    let source = tower::service_fn(|_: TokenRequest| std::future::pending::<Result<_, BoxError>>());
    let provider = crate::TokenProvider::new(source);
    assert!(provider.fresh().is_none());
    set(provider.core());
    assert!(provider.fresh().is_some());
    let shown = format!("{provider:?}");
    assert!(shown.contains("status: Fresh") && !shown.contains("t1"), "{shown}");
}

#[test]
fn requests_take_notes_only_while_something_is_remembered() {
    let core = idle();
    let generation = set(&core);
    let refused = Rejection { resent: true, resource: Some(7), ..Rejection::default() };
    core.event(|machine, now, jitter| drop(machine.rejected(now, generation, refused, jitter.roll())));
    assert_eq!(core.snapshot().remembered, [7]);
    core.accepted(generation, core.now(), Some(7));
    assert!(core.snapshot().remembered.is_empty());
}
