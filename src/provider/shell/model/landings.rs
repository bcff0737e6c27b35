//! What comes in while a flight lands.

use super::*;
use crate::{TokenError, provider::Verdict};
use std::{
    future::Future,
    pin::pin,
    task::{Context, Waker},
};

// Scenario 18; ktorio/ktor#3460.
#[test]
fn a_rejection_of_an_old_generation_neither_marks_the_new_token_nor_fetches_again() {
    Model::of("rejections of an old generation against a landing").preemptions(4).check(|| {
        let (provider, seen) = provider(Some(HOUR), b);
        let old = provider.current().unwrap();
        provider.reject(&old);
        let refused = old.clone();
        let waits = spawn(&provider, move |provider| tasks::block_on(provider.replace(&refused)).unwrap());
        provider.reject(&old);
        assert_eq!(waits.join().unwrap().expose_secret(), "b");
        let snapshot = provider.fresh().expect("nobody rejected the new one");
        assert_eq!(secret(snapshot.token.clone()).as_deref(), Some("b"));
        drop((snapshot, provider));
        seen.end(1, &TokenStatus::Fresh);
    });
}

// Scenario 30.
#[test]
fn a_waiter_that_is_cancelled_while_the_flight_lands_takes_nothing_from_the_others() {
    Model::of("a cancelled waiter and one that stays against a landing").preemptions(4).check(|| {
        let (provider, seen) = provider(None, b);
        let cancelled = spawn(&provider, |provider| {
            if let Verdict::Wait(waiter) = provider.acquire() {
                let mut waiter = pin!(waiter);
                let _ = waiter.as_mut().poll(&mut Context::from_waker(Waker::noop()));
            }
        });
        assert_eq!(tasks::block_on(provider.token()).unwrap().expose_secret(), "b");
        cancelled.join().unwrap();
        drop(provider);
        seen.end(1, &TokenStatus::Fresh);
    });
}

// Scenario 34.
#[test]
fn a_failure_reaches_all_who_wait_for_it_and_none_of_them_asks_again() {
    Model::of("two who wait against a failure").with_status().preemptions(3).check(|| {
        let (provider, seen) = provider(None, |_| Err("down".into()));
        let other = spawn(&provider, |provider| tasks::block_on(provider.token()).unwrap_err());
        let mine = tasks::block_on(provider.token()).unwrap_err();
        for error in [mine, other.join().unwrap()] {
            assert!(matches!(error, TokenError::Unavailable { .. }), "{error}");
        }
        drop(provider);
        tasks::join_all();
        let status = seen.status.borrow().clone();
        assert!(matches!(status, TokenStatus::Failing { .. }), "{status:?}");
        seen.end(1, &status);
    });
}

// Scenario 121.
#[test]
fn a_pushed_token_stands_whatever_the_flight_brings_and_whoever_waits_gets_a_token() {
    Model::of("a push against a landing").preemptions(5).check(|| {
        let (provider, seen) = provider(None, b);
        let waits = spawn(&provider, |provider| tasks::block_on(provider.token()).unwrap());
        provider.set(token("c", HOUR));
        let got = waits.join().unwrap();
        tasks::join_all();
        let held = provider.current().unwrap();
        assert_eq!(held.expose_secret(), "c", "an older flight's result came over the push");
        assert!(["b", "c"].contains(&got.expose_secret()) && got.generation() <= held.generation());
        drop(provider);
        let asked = seen.asked.load(Ordering::Relaxed);
        assert!(asked <= 1);
        seen.end(asked, &TokenStatus::Fresh);
    });
}

// Scenario 124.
#[test]
fn a_shutdown_waits_for_the_flight_and_misses_no_landing() {
    Model::of("a shutdown against a landing").with_status().check(|| {
        let (provider, seen) = provider(Some(STALE), b);
        assert!(provider.try_token().is_some());
        tasks::block_on(provider.shutdown());
        assert_eq!(provider.core().event(|machine, _, _| machine.under_way()), None, "the flight is not over");
        drop(provider);
        seen.end(1, &TokenStatus::ShutDown);
    });
}
