//! Those who start flights, against each other and against the end of the provider.

use super::*;

// Scenario 16; invariant 1: one flight.
#[test]
fn two_rejections_of_one_generation_cost_one_fetch_and_both_get_what_it_brought() {
    Model::of("two rejections of one generation").preemptions(4).check(|| {
        let (provider, seen) = provider(Some(HOUR), b);
        let old = provider.current().unwrap();
        let refused = old.clone();
        let other = spawn(&provider, move |provider| tasks::block_on(provider.replace(&refused)).unwrap());
        let mine = tasks::block_on(provider.replace(&old)).unwrap();
        let other = other.join().unwrap();
        assert_eq!((mine.expose_secret(), other.expose_secret()), ("b", "b"));
        assert!(mine.generation() == other.generation() && mine.generation() > old.generation());
        assert_eq!(provider.fresh().unwrap().token.as_ref().unwrap().generation(), mine.generation());
        drop(provider);
        seen.end(1, &TokenStatus::Fresh);
    });
}

// Scenario 38.
#[test]
fn the_last_handle_dropped_beside_the_start_of_a_flight_does_not_stop_it() {
    Model::of("a flight's start against the last handle dropped").with_status().check(|| {
        let (provider, seen) = provider(Some(STALE), b);
        // Each drops its handle behind its own question, so either is the last.
        let other = spawn(&provider, |provider| provider.try_token());
        let mine = provider.try_token();
        drop(provider);
        assert!(mine.is_some() && other.join().unwrap().is_some());
        // Fresh: it was not only asked for, it landed.
        seen.end(1, &TokenStatus::Fresh);
    });
}

// Scenario 38; restatedev/restate#5154.
#[test]
fn the_loop_ends_with_the_last_handle_and_a_flight_begun_beside_it_lands() {
    Model::of("the loop and a flight's start against the last handle dropped").preemptions(4).check(|| {
        let (provider, seen) = provider(Some(STALE), b);
        provider.handle.background.start(&provider.handle);
        let other = spawn(&provider, |provider| provider.try_token());
        let mine = provider.try_token();
        drop(provider);
        assert!(mine.is_some() && other.join().unwrap().is_some());
        seen.end(1, &TokenStatus::Fresh);
    });
}

// Scenario 38.
#[test]
fn whoever_waits_when_the_last_handle_is_dropped_gets_what_the_flight_brings() {
    Model::of("a waiter against the last handle dropped").preemptions(4).check(|| {
        let (provider, seen) = provider(None, b);
        let waiter = spawn(&provider, |provider| {
            let verdict = provider.acquire();
            drop(provider);
            match verdict {
                crate::provider::Verdict::Send(token) => token,
                crate::provider::Verdict::Wait(waiter) => match tasks::block_on(waiter) {
                    crate::provider::Outcome::Send(token) => token,
                    outcome => panic!("{outcome:?}"),
                },
                _ => panic!("there is a source"),
            }
        });
        let mine = provider.try_token();
        drop(provider);
        assert!(mine.is_none_or(|token| token.expose_secret() == "b"));
        assert_eq!(waiter.join().unwrap().expose_secret(), "b");
        seen.end(1, &TokenStatus::Fresh);
    });
}

// Scenarios 37, 71.
#[test]
fn a_flight_whose_task_is_dropped_is_made_up_for_by_one_other() {
    Model::of("two who wait against the loss of their flight's task").dropping_the_first_task().preemptions(2).check(
        || {
            let (provider, seen) = provider(None, b);
            let other = spawn(&provider, |provider| tasks::block_on(provider.token()));
            let mine = tasks::block_on(provider.token());
            let both = [mine, other.join().unwrap()];
            drop(provider);
            // Only who saw its own spawn fail is told that there is no runtime.
            let served = both.iter().filter(|it| it.as_ref().is_ok_and(|token| token.expose_secret() == "b")).count();
            let told = both.iter().filter(|it| matches!(it, Err(crate::TokenError::NoRuntime))).count();
            assert!(served >= 1 && served + told == 2, "{both:?}");
            seen.end(1, &TokenStatus::Fresh);
        },
    );
}
