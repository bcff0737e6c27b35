//! Processes that share a token: who fetches, who adopts, and what is kept. Each provider here is a process.

#[path = "support/store.rs"]
mod store;
mod support;

use std::time::Duration;
use store::{Answer, Fault, Issuer, Memory, Step, builder, process, process_of, secret};
use support::{Endpoint, HOUR, MINUTE, Reply, SECOND, pass};
use tower::Layer;
use tower_jwt_refresh::{
    BoxError, FetchError, Token, TokenError, TokenRequest,
    clock::{Clock, ManualClock},
    store::{StoreLayer, TokenStore},
};

#[tokio::test(start_paused = true)]
async fn a_fresh_process_starts_with_what_is_stored_and_does_not_fetch() {
    let (endpoint, memory, clock) = (Endpoint::hourly(), Memory::default(), ManualClock::following_tokio());
    for _ in 0..10 {
        let process = process(&memory, endpoint.source(), &clock);
        assert_eq!(secret(&process).await, "t1");
        assert!(!memory.is_locked(), "a program that ends now leaves nothing locked");
    }
    assert_eq!(endpoint.fetches(), 1);
    assert_eq!(memory.count(Step::Lock), 1, "to adopt takes no lock");
}

#[tokio::test(start_paused = true)]
async fn a_token_that_is_adopted_has_as_long_to_live_as_it_has() {
    let (endpoint, memory, clock) = (Endpoint::hourly(), Memory::default(), ManualClock::following_tokio());
    assert_eq!(secret(&process(&memory, endpoint.source(), &clock)).await, "t1");
    pass(MINUTE * 50).await;
    let adopted = process(&memory, endpoint.source(), &clock).token().await.unwrap();
    let left = adopted.expires_at().unwrap().duration_since(clock.wall()).unwrap();
    assert!(left <= MINUTE * 10 && left > MINUTE * 10 - SECOND, "{left:?}");
}

#[tokio::test(start_paused = true)]
async fn one_fetch_a_lifetime_however_many_processes() {
    let (issuer, memory, clock) = (Issuer::new(), Memory::default(), ManualClock::following_tokio());
    let processes: Vec<_> = (0..8).map(|_| process(&memory, issuer.source(), &clock)).collect();
    for process in &processes {
        process.init().await.unwrap();
    }
    pass(HOUR * 24).await;
    let lifetimes = issuer.shown().len();
    assert!((24..=30).contains(&lifetimes), "{lifetimes}");
    assert_eq!(issuer.refused(), 0);
    for process in &processes {
        assert_eq!(secret(process).await, format!("t{lifetimes}"));
    }
}

// Duende Support#1286: the second one read the refresh token before it had the lock.
#[tokio::test(start_paused = true)]
async fn what_was_stored_is_read_again_once_the_lock_is_had() {
    let (issuer, memory, clock) = (Issuer::new(), Memory::default(), ManualClock::following_tokio());
    let processes: Vec<_> = (0..8).map(|_| process(&memory, issuer.source(), &clock)).collect();
    issuer.shut();
    let waiting: Vec<_> =
        processes.iter().cloned().map(|process| tokio::spawn(async move { secret(&process).await })).collect();
    memory.taken(Step::Lock, 8).await;
    issuer.open();
    for waiting in waiting {
        assert_eq!(waiting.await.unwrap(), "t1");
    }
    assert_eq!(issuer.shown(), ["r1"]);
}

#[tokio::test(start_paused = true)]
async fn what_a_server_rejected_is_not_adopted_and_its_successor_is() {
    let (endpoint, memory, clock) = (Endpoint::hourly(), Memory::default(), ManualClock::following_tokio());
    let [one, two] = [(); 2].map(|()| process(&memory, endpoint.source(), &clock));
    for process in [&one, &two] {
        assert_eq!(secret(process).await, "t1");
    }
    pass(MINUTE).await;
    for process in [&one, &two] {
        let rejected = process.token().await.unwrap();
        assert_eq!(process.replace(&rejected).await.unwrap().expose_secret(), "t2");
    }
    assert_eq!(endpoint.fetches(), 2);
}

#[tokio::test(start_paused = true)]
async fn what_a_provider_was_seeded_with_is_not_adopted_once_it_is_rejected() {
    let (endpoint, memory, clock) = (Endpoint::hourly(), Memory::default(), ManualClock::following_tokio());
    assert_eq!(secret(&process(&memory, endpoint.source(), &clock)).await, "t1");
    let seed = Token::opaque("t1").unwrap().with_expires_in(HOUR);
    let source = StoreLayer::new(memory.clone()).clock(clock.clone()).layer(endpoint.source());
    let seeded = builder(&clock).seed(seed).build(source).unwrap();
    let rejected = seeded.token().await.unwrap();
    assert_eq!(seeded.replace(&rejected).await.unwrap().expose_secret(), "t2");
}

#[tokio::test(start_paused = true)]
async fn what_is_about_to_die_is_not_adopted() {
    let (endpoint, memory, clock) = (Endpoint::hourly(), Memory::default(), ManualClock::following_tokio());
    assert_eq!(secret(&process(&memory, endpoint.source(), &clock)).await, "t1");
    pass(HOUR - MINUTE).await;
    assert_eq!(secret(&process(&memory, endpoint.source(), &clock)).await, "t2");
    // A twentieth of a short life is enough.
    endpoint.usually(Reply::New(MINUTE));
    memory.remove();
    assert_eq!(secret(&process(&memory, endpoint.source(), &clock)).await, "t3");
    pass(SECOND * 55).await;
    assert_eq!(secret(&process(&memory, endpoint.source(), &clock)).await, "t3");
}

// nicobailon/pi-mcp-adapter#528: the waiter failed while the holder still succeeded.
#[tokio::test(start_paused = true)]
async fn a_waiter_whose_wait_is_over_looks_into_the_store_again() {
    let (issuer, memory, clock) = (Issuer::new(), Memory::default(), ManualClock::following_tokio());
    let [one, two] = [(); 2].map(|()| process(&memory, issuer.source(), &clock));
    // Saved, and the lock is not given back.
    memory.break_down(Step::Unlock, Fault::Hang);
    issuer.shut();
    let holder = tokio::spawn(async move { secret(&one).await });
    issuer.shown_times(1).await;
    let waiter = tokio::spawn(async move { secret(&two).await });
    memory.taken(Step::Lock, 2).await;
    pass(SECOND * 19).await;
    issuer.open();
    assert_eq!(holder.await.unwrap(), "t1");
    assert_eq!(waiter.await.unwrap(), "t1");
    assert_eq!(issuer.shown(), ["r1"]);
}

#[tokio::test(start_paused = true)]
async fn a_lock_that_cannot_be_had_costs_no_request_its_token_but_no_refresh_token_is_shown() {
    let (endpoint, memory, clock) = (Endpoint::hourly(), Memory::default(), ManualClock::following_tokio());
    let held = memory.lock(SECOND).await.unwrap();
    assert_eq!(secret(&process(&memory, endpoint.source(), &clock)).await, "t1");
    assert_eq!(memory.value(), None, "saved without the lock");

    let issuer = Issuer::new();
    let other = process(&memory, issuer.source(), &clock);
    assert!(secret(&other).await.contains("not without the lock"));
    assert!(issuer.shown().is_empty());
    drop(held);
    pass(MINUTE).await;
    assert_eq!(secret(&other).await, "t1");
}

#[tokio::test(start_paused = true)]
async fn a_refresh_token_is_shown_without_the_lock_if_that_is_asked_for_by_name() {
    let (issuer, memory, clock) = (Issuer::new(), Memory::default(), ManualClock::following_tokio());
    memory.break_down(Step::Lock, Fault::Down);
    let process = process_of(StoreLayer::new(memory.clone()).spend_without_lock(), issuer.source(), &clock).0;
    assert_eq!(secret(&process).await, "t1");
    pass(HOUR * 2).await;
    assert_eq!(secret(&process).await, "t2");
    assert_eq!(issuer.shown(), ["r1", "r2"]);
    // What was got so is stored as soon as it can be.
    memory.heal();
    pass(SECOND * 10).await;
    assert_eq!(memory.refresh_token().as_deref(), Some("r3"));
}

#[tokio::test(start_paused = true)]
async fn a_shorter_wait_for_the_lock_is_kept_to() {
    let (endpoint, memory, clock) = (Endpoint::hourly(), Memory::default(), ManualClock::following_tokio());
    let _held = memory.lock(SECOND).await.unwrap();
    let begun = tokio::time::Instant::now();
    let layer = StoreLayer::new(memory.clone()).lock_wait(SECOND * 5);
    assert_eq!(secret(&process_of(layer, endpoint.source(), &clock).0).await, "t1");
    assert_eq!(begun.elapsed().as_secs(), 5);
}

#[tokio::test(start_paused = true)]
async fn a_transient_failure_shows_the_same_refresh_token_again() {
    let (issuer, memory, clock) = (Issuer::new(), Memory::default(), ManualClock::following_tokio());
    let process = process(&memory, issuer.source(), &clock);
    assert_eq!(secret(&process).await, "t1");
    issuer.next(Answer::Fail);
    issuer.next(Answer::Fail);
    pass(HOUR * 2).await;
    for _ in 0..2 {
        assert!(secret(&process).await.contains("the server is down"));
        pass(MINUTE).await;
    }
    assert_eq!(secret(&process).await, "t2");
    assert_eq!(issuer.shown(), ["r1", "r2", "r2", "r2"]);
}

#[tokio::test(start_paused = true)]
async fn a_lost_answer_shows_the_same_refresh_token_again_for_the_servers_grace() {
    let (issuer, memory, clock) = (Issuer::new().with_grace(), Memory::default(), ManualClock::following_tokio());
    issuer.next(Answer::Lost);
    let one = process(&memory, issuer.source(), &clock);
    assert!(secret(&one).await.contains("the connection broke"));
    assert_eq!(secret(&process(&memory, issuer.source(), &clock)).await, "t2");
    assert_eq!((issuer.shown(), issuer.refused()), (vec!["r1".to_owned(); 2], 0));
}

#[tokio::test(start_paused = true)]
async fn a_new_refresh_token_is_kept_though_the_source_fails_afterwards() {
    let (issuer, memory, clock) = (Issuer::new(), Memory::default(), ManualClock::following_tokio());
    let first = process(&memory, issuer.source(), &clock);
    assert_eq!(secret(&first).await, "t1");
    issuer.next(Answer::Useless);
    pass(HOUR).await;
    assert!(secret(&first).await.contains("the access token is none"));
    assert_eq!(memory.refresh_token().as_deref(), Some("r3"));
    assert_eq!(secret(&process(&memory, issuer.source(), &clock)).await, "t3");
    assert_eq!(issuer.refused(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_permanent_refusal_is_looked_at_twice_where_another_process_had_the_lock_meanwhile() {
    let (issuer, memory, clock) = (Issuer::new(), Memory::default(), ManualClock::following_tokio());
    let [one, two] = [(); 2].map(|()| process(&memory, issuer.source(), &clock));
    issuer.shut();
    let late = tokio::spawn(async move { secret(&one).await });
    issuer.shown_times(1).await;
    memory.end_lock();
    issuer.let_others_pass();
    assert_eq!(secret(&two).await, "t1");
    issuer.open();
    assert_eq!(late.await.unwrap(), "t1");
    assert_eq!((issuer.refused(), memory.refresh_token().as_deref()), (1, Some("r2")));
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_came_after_the_lock_was_lost_is_saved_under_another_lock() {
    let (issuer, memory, clock) = (Issuer::new(), Memory::default(), ManualClock::following_tokio());
    let [one, two] = [(); 2].map(|()| process(&memory, issuer.source(), &clock));
    issuer.shut();
    let late = tokio::spawn(async move { secret(&one).await });
    issuer.shown_times(1).await;
    memory.end_lock();
    issuer.open();
    assert_eq!(late.await.unwrap(), "t1");
    assert_eq!(memory.value(), None, "the lock was lost");
    pass(SECOND * 2).await;
    assert_eq!(memory.refresh_token().as_deref(), Some("r2"));
    assert_eq!(secret(&two).await, "t1");
    assert_eq!(issuer.refused(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_permanent_refusal_stays_one_where_nothing_has_changed() {
    let (endpoint, memory, clock) = (Endpoint::new(Reply::Refuse), Memory::default(), ManualClock::following_tokio());
    let error = process(&memory, endpoint.source(), &clock).token().await.unwrap_err();
    assert!(matches!(error, TokenError::NeedsCredential { .. }), "{error:?}");
}

#[tokio::test(start_paused = true)]
async fn who_stood_still_until_the_lock_was_over_does_not_ask() {
    let (issuer, memory, clock) = (Issuer::new(), Memory::default(), ManualClock::following_tokio());
    let process = process(&memory, issuer.source(), &clock);
    memory.break_down(Step::Load, Fault::Slow(SECOND));
    let waiting = tokio::spawn(async move { secret(&process).await });
    // The look under the lock.
    memory.taken(Step::Load, 2).await;
    memory.end_lock();
    assert!(waiting.await.unwrap().contains("LockLost"));
    assert!(issuer.shown().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_token_that_was_set_is_not_given_up_for_one_of_before() {
    let (endpoint, memory, clock) = (Endpoint::hourly(), Memory::default(), ManualClock::following_tokio());
    let process = process(&memory, endpoint.source(), &clock);
    assert_eq!(secret(&process).await, "t1");
    process.set(Token::opaque("pushed").unwrap());
    pass(SECOND).await;
    let pushed = process.token().await.unwrap();
    assert_eq!(process.replace(&pushed).await.unwrap().expose_secret(), "t2");
}

#[tokio::test(start_paused = true)]
async fn the_source_gets_ready_only_when_it_is_asked() {
    let (endpoint, memory, clock) = (Endpoint::hourly(), Memory::default(), ManualClock::following_tokio());
    assert_eq!(secret(&process(&memory, endpoint.source(), &clock)).await, "t1");
    let limited = tower::limit::ConcurrencyLimit::new(endpoint.source(), 0);
    assert_eq!(secret(&process(&memory, limited, &clock)).await, "t1");
}

#[tokio::test(start_paused = true)]
async fn a_token_is_given_out_only_when_it_is_stored() {
    let (issuer, memory, clock) = (Issuer::new(), Memory::default(), ManualClock::following_tokio());
    memory.break_down(Step::Save, Fault::Slow(SECOND * 3));
    let process = process(&memory, issuer.source(), &clock);
    let caller = tokio::spawn(async move { secret(&process).await });
    memory.taken(Step::Save, 1).await;
    pass(SECOND * 2).await;
    assert!(!caller.is_finished());
    assert_eq!(caller.await.unwrap(), "t1");
    assert_eq!(memory.refresh_token().as_deref(), Some("r2"));
}

// Scenario 124.
#[tokio::test(start_paused = true)]
async fn a_shutdown_waits_until_the_refresh_token_is_stored() {
    let (issuer, memory, clock) = (Issuer::new(), Memory::default(), ManualClock::following_tokio());
    memory.break_down(Step::Save, Fault::Slow(SECOND * 3));
    let process = process(&memory, issuer.source(), &clock);
    let caller = tokio::spawn({
        let process = process.clone();
        async move { secret(&process).await }
    });
    memory.taken(Step::Save, 1).await;
    caller.abort();
    process.shutdown().await;
    assert_eq!((memory.refresh_token().as_deref(), memory.is_locked()), (Some("r2"), false));
}

#[tokio::test(start_paused = true)]
async fn a_source_that_panics_gives_the_lock_back_and_is_reported_as_such() {
    for reply in [Reply::Panic, Reply::PanicAtOnce] {
        let (endpoint, memory, clock) = (Endpoint::hourly(), Memory::default(), ManualClock::following_tokio());
        endpoint.next(reply);
        let process = process(&memory, endpoint.source(), &clock);
        let TokenError::Unavailable { error, .. } = process.token().await.unwrap_err() else { panic!() };
        assert!(matches!(*error, FetchError::Panicked), "{error:?}");
        assert!(!memory.is_locked());
        pass(MINUTE).await;
        assert_eq!(secret(&process).await, "t1");
    }
}

#[tokio::test(start_paused = true)]
async fn a_source_that_hangs_does_not_keep_the_lock_for_ever() {
    let (endpoint, memory, clock) = (Endpoint::hourly(), Memory::default(), ManualClock::following_tokio());
    endpoint.next(Reply::Hang);
    let hanging = process(&memory, endpoint.source(), &clock);
    let hanging = tokio::spawn(async move { secret(&hanging).await });
    endpoint.asked_times(1).await;
    pass(SECOND * 31).await;
    assert!(hanging.await.unwrap().contains("TimedOut"));
    assert!(!memory.is_locked());
}

#[tokio::test(start_paused = true)]
async fn hosts_with_wrong_clocks_agree_by_the_clock_of_the_store() {
    let (right, endpoint) = (ManualClock::following_tokio(), Endpoint::hourly());
    let memory = Memory::with_clock(right.clone());
    let jwt = Token::opaque("t1").unwrap().with_expires_at(store::in_an_hour(&right));
    endpoint.next(Reply::This(jwt));
    for wrong in [HOUR * 5, Duration::ZERO] {
        let wrong_clock = ManualClock::following_tokio();
        wrong_clock.jump_wall_ahead(wrong);
        let process = process(&memory, endpoint.source(), &wrong_clock);
        assert_eq!(secret(&process).await, "t1");
        pass(MINUTE).await;
        assert_eq!(secret(&process).await, "t1");
        assert!(process.try_token().is_some(), "it lives, by a clock that is {wrong:?} ahead");
    }
    assert_eq!(endpoint.fetches(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_wait_for_the_lock_takes_nothing_off_the_tokens_life() {
    let (endpoint, memory, clock) =
        (Endpoint::new(Reply::New(MINUTE)), Memory::default(), ManualClock::following_tokio());
    let held = memory.lock(SECOND).await.unwrap();
    let process =
        builder(&clock).build(StoreLayer::new(memory.clone()).clock(clock.clone()).layer(endpoint.source())).unwrap();
    let waiting = tokio::spawn(async move { process.token().await.unwrap() });
    memory.taken(Step::Lock, 2).await;
    pass(SECOND * 10).await;
    drop(held);
    let token = waiting.await.unwrap();
    let left = token.expires_at().unwrap().duration_since(clock.wall()).unwrap();
    assert!(left > SECOND * 59, "{left:?}");
}

#[tokio::test(start_paused = true)]
async fn a_wait_for_the_holder_takes_nothing_off_the_life_of_what_is_adopted() {
    let (endpoint, memory) = (Endpoint::new(Reply::New(MINUTE)), Memory::default());
    let clock = ManualClock::following_tokio();
    let [one, two] = [(); 2].map(|()| process(&memory, endpoint.source(), &clock));
    endpoint.shut();
    let holder = tokio::spawn(async move { secret(&one).await });
    endpoint.asked_times(1).await;
    let waiter = tokio::spawn(async move { two.token().await.unwrap() });
    memory.taken(Step::Lock, 2).await;
    pass(SECOND * 10).await;
    endpoint.open();
    assert_eq!(holder.await.unwrap(), "t1");
    let left = waiter.await.unwrap().expires_at().unwrap().duration_since(clock.wall()).unwrap();
    assert!(left > SECOND * 49 && left <= SECOND * 50, "{left:?}");
}

#[tokio::test(start_paused = true)]
async fn a_source_that_asks_twice_in_one_fetch_is_lent_what_it_got_by_the_first() {
    let (memory, clock) = (Memory::default(), ManualClock::following_tokio());
    let source = tower::service_fn(|request: TokenRequest| async move {
        assert_eq!(request.refresh_token(), None);
        for (kept, lent) in [("r1", "r1"), ("r2", "r2"), ("", "r2"), ("r2", "r2"), ("r3", "r3")] {
            request.clone().keep_refresh_token(kept);
            assert_eq!(request.refresh_token(), Some(lent));
        }
        Ok::<_, BoxError>(Token::opaque("t")?)
    });
    assert_eq!(secret(&process(&memory, source, &clock)).await, "t");
    assert_eq!(memory.refresh_token().as_deref(), Some("r3"));
}
