//! A store that is down, slow, hangs, forgets, or holds what nobody can read: each process goes on alone, and says so once.

#[path = "support/store.rs"]
mod store;
mod support;

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicUsize, Ordering},
};
use store::{Answer, Fault, Issuer, Memory, Step, process, process_of, secret};
use support::{Endpoint, HOUR, Logs, MINUTE, SECOND, pass};
use tokio::{sync::Semaphore, time::Instant};
use tower::Layer;
use tower_jwt_refresh::{
    BoxError, Token, TokenRequest,
    clock::ManualClock,
    store::{StoreError, StoreLayer, TokenStore},
};

const FOREIGN: &str = r#"{"format":"tower-jwt-refresh","version":2,"line":1,"revision":1,"tokens":[]}"#;

// Duende.AccessTokenManagement#32: a time-out of the store failed requests.
#[tokio::test(start_paused = true)]
async fn a_store_that_is_down_is_a_miss_with_one_warning_until_it_has_worked_again() {
    for step in [Step::Load, Step::Lock, Step::Save] {
        let (logs, _guard) = Logs::listen();
        let (endpoint, memory, clock) = (Endpoint::hourly(), Memory::default(), ManualClock::following_tokio());
        let process = process(&memory, endpoint.source(), &clock);
        memory.break_down(step, Fault::Down);
        for number in 1..=3 {
            assert_eq!(secret(&process).await, format!("t{number}"), "{step:?}");
            pass(HOUR).await;
        }
        assert_eq!(logs.warnings().len(), 1, "{step:?}: {:#?}", logs.warnings());
        memory.heal();
        assert_eq!(secret(&process).await, "t4");
        assert_eq!(memory.count(Step::Save), if step == Step::Save { 4 } else { 1 });
        pass(HOUR).await;
        memory.break_down(step, Fault::Down);
        assert_eq!(secret(&process).await, "t5");
        assert_eq!(logs.warnings().len(), 2, "{step:?}: {:#?}", logs.warnings());
        assert!(logs.warnings().iter().all(|line| line.contains("the store is down")), "{:#?}", logs.warnings());
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_hangs_is_as_good_as_down() {
    for (step, at_most) in [(Step::Load, 4), (Step::Lock, 24), (Step::Save, 6), (Step::Unlock, 4)] {
        let (endpoint, memory, clock) = (Endpoint::hourly(), Memory::default(), ManualClock::following_tokio());
        let process = process(&memory, endpoint.source(), &clock);
        memory.break_down(step, Fault::Hang);
        let begun = Instant::now();
        assert_eq!(secret(&process).await, "t1", "{step:?}");
        assert!(begun.elapsed() < SECOND * at_most, "{step:?}: {:?}", begun.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn a_slow_store_is_waited_for() {
    let (issuer, memory, clock) = (Issuer::new(), Memory::default(), ManualClock::following_tokio());
    for step in [Step::Load, Step::Lock, Step::Save, Step::Unlock] {
        memory.break_down(step, Fault::Slow(SECOND * 2));
    }
    for _ in 0..2 {
        assert_eq!(secret(&process(&memory, issuer.source(), &clock)).await, "t1");
    }
    assert_eq!(memory.refresh_token().as_deref(), Some("r2"));
}

#[tokio::test(start_paused = true)]
async fn no_refresh_token_is_shown_while_the_store_is_down() {
    for step in [Step::Load, Step::Lock] {
        let (issuer, memory, clock) = (Issuer::new(), Memory::default(), ManualClock::following_tokio());
        let process = process(&memory, issuer.source(), &clock);
        assert_eq!(secret(&process).await, "t1");
        memory.break_down(step, Fault::Down);
        pass(HOUR).await;
        assert!(secret(&process).await.contains("not without the lock"));
        memory.heal();
        pass(MINUTE).await;
        assert_eq!(secret(&process).await, "t2");
        assert_eq!(issuer.shown(), ["r1", "r2"]);
    }
}

#[tokio::test(start_paused = true)]
async fn garbage_is_a_miss_with_one_warning_and_is_written_over() {
    for garbage in
        ["", "\0\u{1}", "[]", "eyJhbGciOi", r#"{"format":"tower-jwt-refresh","version":1}"#, "{\"format\":\"x\"}"]
    {
        let (logs, _guard) = Logs::listen();
        let (issuer, memory, clock) = (Issuer::new(), Memory::default(), ManualClock::following_tokio());
        memory.put(garbage);
        assert_eq!(secret(&process(&memory, issuer.source(), &clock)).await, "t1", "{garbage:?}");
        assert_eq!(logs.warnings().len(), 1, "{:#?}", logs.warnings());
        assert_eq!(memory.refresh_token().as_deref(), Some("r2"));
    }
}

#[tokio::test(start_paused = true)]
async fn what_another_version_stored_stays_and_the_warning_names_both() {
    let (logs, _guard) = Logs::listen();
    let (endpoint, issuer, clock) = (Endpoint::hourly(), Issuer::new(), ManualClock::following_tokio());
    let memory = Memory::default();
    memory.put(FOREIGN);
    assert_eq!(secret(&process(&memory, endpoint.source(), &clock)).await, "t1");
    let warnings = logs.warnings();
    assert_eq!(warnings.len(), 1, "{warnings:#?}");
    assert!(warnings[0].contains("format version 2, and this program knows version 1"), "{warnings:#?}");

    let (rotating, layer) = process_of(StoreLayer::new(memory.clone()), issuer.source(), &clock);
    assert!(secret(&rotating).await.contains("not without the lock"));
    assert!(matches!(layer.set(Token::opaque("t").unwrap(), None).await, Err(StoreError::Unusable(_))));
    assert!(matches!(layer.clear().await, Err(StoreError::Unusable(_))));
    assert_eq!(memory.value().as_deref(), Some(FOREIGN));
    assert!(!memory.is_locked());
}

#[tokio::test(start_paused = true)]
async fn a_successor_that_could_not_be_saved_is_saved_before_anything_else_is_done() {
    let (issuer, memory, clock) = (Issuer::new(), Memory::default(), ManualClock::following_tokio());
    let [one, two] = [(); 2].map(|()| process(&memory, issuer.source(), &clock));
    assert_eq!(secret(&one).await, "t1");
    memory.break_down(Step::Save, Fault::Down);
    pass(HOUR).await;
    assert_eq!(secret(&one).await, "t2", "a good token is not withheld");
    assert_eq!(memory.refresh_token().as_deref(), Some("r2"), "which is spent");
    // While it insists, nobody else can show it.
    assert!(memory.is_locked());
    let other = tokio::spawn(async move { secret(&two).await });
    pass(SECOND * 5).await;
    memory.heal();
    assert_eq!(other.await.unwrap(), "t2");
    assert_eq!(memory.refresh_token().as_deref(), Some("r3"));
    assert_eq!((issuer.shown(), issuer.refused()), (vec!["r1".to_owned(), "r2".to_owned()], 0));
}

#[tokio::test(start_paused = true)]
async fn a_successor_is_saved_when_the_store_is_there_again_however_long_that_takes() {
    let (issuer, memory, clock) = (Issuer::new(), Memory::default(), ManualClock::following_tokio());
    let process = process(&memory, issuer.source(), &clock);
    memory.break_down(Step::Save, Fault::Down);
    assert_eq!(secret(&process).await, "t1");
    pass(MINUTE * 20).await;
    assert!(!memory.is_locked());
    memory.heal();
    pass(SECOND * 11).await;
    assert_eq!(memory.refresh_token().as_deref(), Some("r2"));
    assert_eq!(issuer.shown(), ["r1"]);
    let saved = memory.count(Step::Save);
    pass(MINUTE * 10).await;
    assert_eq!(memory.count(Step::Save), saved, "once is enough");
}

#[tokio::test(start_paused = true)]
async fn what_is_tried_again_ends_with_the_last_user_of_the_store() {
    let (issuer, memory, clock) = (Issuer::new(), Memory::default(), ManualClock::following_tokio());
    let process = process(&memory, issuer.source(), &clock);
    memory.break_down(Step::Save, Fault::Down);
    assert_eq!(secret(&process).await, "t1");
    pass(MINUTE).await;
    drop(process);
    pass(MINUTE).await;
    let tried = memory.steps().len();
    pass(HOUR).await;
    assert_eq!(memory.steps().len(), tried);
}

// A failover that lost the last write.
#[tokio::test(start_paused = true)]
async fn a_store_that_went_back_is_told_what_is_right_by_who_knows_it() {
    let (issuer, memory, clock) = (Issuer::new(), Memory::default(), ManualClock::following_tokio());
    let [one, two] = [(); 2].map(|()| process(&memory, issuer.source(), &clock));
    assert_eq!(secret(&one).await, "t1");
    let before = memory.value().unwrap();
    pass(HOUR).await;
    for process in [&one, &two] {
        assert_eq!(secret(process).await, "t2");
    }
    memory.put(&before);
    pass(HOUR).await;
    for process in [&two, &one] {
        assert_eq!(secret(process).await, "t3");
    }
    memory.remove();
    pass(HOUR).await;
    assert_eq!(secret(&one).await, "t4");
    assert_eq!((issuer.shown().len(), issuer.refused()), (4, 0));
}

#[tokio::test(start_paused = true)]
async fn a_store_that_was_begun_anew_is_right() {
    let (issuer, memory, clock) = (Issuer::new(), Memory::default(), ManualClock::following_tokio());
    let old = process(&memory, issuer.source(), &clock);
    assert_eq!(secret(&old).await, "t1");
    memory.remove();
    pass(SECOND).await;
    // Another program logs in, with the store empty.
    let (_, other) = process_of(StoreLayer::new(memory.clone()), issuer.source(), &clock);
    other.set(Token::opaque("of-the-login").unwrap().with_expires_in(HOUR * 3), Some("r-login")).await.unwrap();
    pass(HOUR).await;
    assert_eq!(secret(&old).await, "of-the-login");
    assert_eq!(memory.refresh_token().as_deref(), Some("r-login"));
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_came_after_the_providers_patience_is_used_by_the_next_fetch() {
    let (issuer, memory, clock) = (Issuer::new(), Memory::default(), ManualClock::following_tokio());
    let layer = StoreLayer::new(memory.clone()).clock(clock.clone());
    let provider = store::builder(&clock).fetch_timeout(SECOND * 5).build(layer.layer(issuer.source())).unwrap();
    issuer.shut();
    assert!(secret(&provider).await.contains("TimedOut"));
    issuer.open();
    pass(MINUTE).await;
    assert_eq!(memory.refresh_token().as_deref(), Some("r2"));
    assert_eq!(secret(&provider).await, "t1");
    assert_eq!(issuer.shown(), ["r1"]);
}

#[tokio::test(start_paused = true)]
async fn the_same_with_a_store_that_is_down() {
    let (issuer, memory, clock) = (Issuer::new(), Memory::default(), ManualClock::following_tokio());
    let layer = StoreLayer::new(memory.clone()).clock(clock.clone());
    let provider = store::builder(&clock).fetch_timeout(SECOND * 5).build(layer.layer(issuer.source())).unwrap();
    issuer.shut();
    assert!(secret(&provider).await.contains("TimedOut"));
    memory.break_down(Step::Load, Fault::Down);
    memory.break_down(Step::Save, Fault::Down);
    issuer.open();
    pass(MINUTE).await;
    assert_eq!(secret(&provider).await, "t1");
    assert_eq!(issuer.shown(), ["r1"]);
}

#[tokio::test(start_paused = true)]
async fn a_logout_is_for_all_processes() {
    let (issuer, memory, clock) = (Issuer::new(), Memory::default(), ManualClock::following_tokio());
    let (one, layer) = process_of(StoreLayer::new(memory.clone()), issuer.source(), &clock);
    let two = process(&memory, issuer.source(), &clock);
    for process in [&one, &two] {
        assert_eq!(secret(process).await, "t1");
    }
    layer.clear().await.unwrap();
    for secret in ["t1", "r2"] {
        assert!(!memory.value().unwrap().contains(secret));
    }
    issuer.next(Answer::Fail);
    pass(HOUR).await;
    // This source has no more than what it was made with.
    assert!(secret(&two).await.contains("the server is down"));
    assert_eq!(issuer.shown(), ["r1", "r1"]);
}

#[tokio::test(start_paused = true)]
async fn a_login_is_for_all_processes() {
    let (issuer, memory, clock) = (Issuer::new(), Memory::default(), ManualClock::following_tokio());
    let (one, layer) = process_of(StoreLayer::new(memory.clone()), issuer.source(), &clock);
    let two = process(&memory, issuer.source(), &clock);
    for process in [&one, &two] {
        assert_eq!(secret(process).await, "t1");
    }
    layer.set(Token::opaque("login").unwrap().with_expires_in(HOUR * 2), Some("r-login")).await.unwrap();
    pass(SECOND * 2).await;
    assert_eq!(one.refresh().await.unwrap().expose_secret(), "login");
    assert_eq!(secret(&two).await, "t1", "it is good");
    pass(HOUR).await;
    assert_eq!(secret(&two).await, "login");
    assert_eq!(issuer.shown(), ["r1"]);
    let held = memory.lock(SECOND).await.unwrap();
    assert!(matches!(layer.clear().await, Err(StoreError::Busy)));
    drop(held);
}

#[tokio::test(start_paused = true)]
async fn tokens_that_were_got_alone_do_not_make_a_process_think_that_it_knows_better() {
    let (issuer, endpoint) = (Issuer::new(), Endpoint::hourly());
    let (memory, clock) = (Memory::default(), ManualClock::following_tokio());
    let rotating = process(&memory, issuer.source(), &clock);
    assert_eq!(secret(&rotating).await, "t1");
    let other = process(&memory, endpoint.source(), &clock);
    assert_eq!(secret(&other).await, "t1");
    memory.break_down(Step::Lock, Fault::Down);
    for _ in 0..3 {
        pass(HOUR).await;
        secret(&other).await;
    }
    memory.heal();
    assert_eq!(secret(&rotating).await, "t2");
    assert_eq!(memory.refresh_token().as_deref(), Some("r3"));
    pass(MINUTE).await;
    assert_eq!(other.refresh().await.unwrap().expose_secret(), "t2");
    assert_eq!(memory.refresh_token().as_deref(), Some("r3"), "it would have been put back to what is spent");
}

#[tokio::test(start_paused = true)]
async fn a_late_answer_does_not_make_a_process_forget_what_it_got_since() {
    let (memory, clock) = (Memory::default(), ManualClock::following_tokio());
    let late = Arc::new(Semaphore::new(0));
    let (wait, calls) = (Arc::clone(&late), Arc::new(AtomicUsize::new(0)));
    let shown = Arc::new(Mutex::new(Vec::new()));
    let showing = Arc::clone(&shown);
    let source = move || {
        let (wait, calls, shown) = (Arc::clone(&wait), Arc::clone(&calls), Arc::clone(&showing));
        tower::service_fn(move |request: TokenRequest| {
            let (wait, number) = (Arc::clone(&wait), calls.fetch_add(1, Ordering::SeqCst));
            shown.lock().unwrap().push(request.refresh_token().unwrap_or("none").to_owned());
            async move {
                if number == 1 {
                    wait.acquire().await?.forget();
                }
                request.keep_refresh_token(format!("r{number}"));
                Ok::<_, BoxError>(Token::opaque(format!("t{number}"))?.with_expires_in(HOUR))
            }
        })
    };
    // Two providers of one process.
    let (one, layer) = process_of(StoreLayer::new(memory.clone()), source(), &clock);
    let two = store::builder(&clock).build(layer.layer(source())).unwrap();
    for provider in [&two, &one] {
        assert_eq!(secret(provider).await, "t0");
    }
    pass(SECOND).await;
    let hangs = tokio::spawn(async move { one.refresh().await.map(drop) });
    memory.taken(Step::Lock, 2).await;
    pass(SECOND).await;
    memory.end_lock();
    for number in 2..4 {
        assert_eq!(two.refresh().await.unwrap().expose_secret(), format!("t{number}"));
        pass(SECOND * 2).await;
    }
    // Not that a look sets it right.
    memory.break_down(Step::Load, Fault::Down);
    late.add_permits(1);
    hangs.await.unwrap().unwrap();
    memory.heal();
    memory.remove();
    pass(SECOND).await;
    two.refresh().await.unwrap();
    assert_eq!(*shown.lock().unwrap(), ["none", "r0", "r0", "r2", "r3"]);
}

#[tokio::test(start_paused = true)]
async fn what_a_dropped_fetch_adopted_was_not_given_to_the_provider() {
    let (issuer, memory, clock) = (Issuer::new(), Memory::default(), ManualClock::following_tokio());
    let one = process(&memory, issuer.source(), &clock);
    let layer = StoreLayer::new(memory.clone()).clock(clock.clone());
    let two = store::builder(&clock).fetch_timeout(SECOND * 5).build(layer.layer(issuer.source())).unwrap();
    for process in [&one, &two] {
        assert_eq!(secret(process).await, "t1");
    }
    pass(HOUR).await;
    issuer.shut();
    let asking = tokio::spawn(async move { secret(&one).await });
    issuer.shown_times(2).await;
    pass(SECOND * 2).await;
    let waiting = tokio::spawn({
        let two = two.clone();
        async move { secret(&two).await }
    });
    pass(SECOND).await;
    memory.break_down(Step::Unlock, Fault::Hang);
    issuer.open();
    assert_eq!(asking.await.unwrap(), "t2");
    assert!(waiting.await.unwrap().contains("TimedOut"), "while it gave the lock back");
    memory.heal();
    pass(MINUTE).await;
    assert_eq!(secret(&two).await, "t2");
    assert_eq!(issuer.shown(), ["r1", "r2"]);
}

#[tokio::test(start_paused = true)]
async fn what_another_stored_instead_of_what_was_given_is_adopted() {
    let (issuer, memory, clock) = (Issuer::new().with_grace(), Memory::default(), ManualClock::following_tokio());
    let [one, two] = [(); 2].map(|()| process(&memory, issuer.source(), &clock));
    assert_eq!(secret(&one).await, "t1");
    pass(HOUR).await;
    issuer.shut();
    let late = tokio::spawn({
        let one = one.clone();
        async move { secret(&one).await }
    });
    issuer.shown_times(2).await;
    memory.end_lock();
    issuer.let_others_pass();
    assert_eq!(secret(&two).await, "t2");
    issuer.open();
    assert_eq!(late.await.unwrap(), "t3", "and not stored");
    pass(MINUTE).await;
    assert_eq!(one.refresh().await.unwrap().expose_secret(), "t2");
}

#[tokio::test(start_paused = true)]
async fn a_store_that_ends_the_wait_for_its_lock_early_is_asked_again_for_as_long_as_the_wait_lasts() {
    let (issuer, memory, clock) = (Issuer::new(), Memory::default(), ManualClock::following_tokio());
    let (provider, layer) = process_of(StoreLayer::new(memory.clone()), issuer.source(), &clock);
    memory.break_down(Step::Lock, Fault::Busy);
    let begun = Instant::now();
    assert!(secret(&provider).await.contains("not without the lock"));
    assert!((SECOND * 19..SECOND * 21).contains(&begun.elapsed()), "{:?}", begun.elapsed());
    assert!(memory.count(Step::Lock) <= 200, "{}", memory.count(Step::Lock));
    assert!(matches!(layer.clear().await, Err(StoreError::Busy)));

    let (clearing, waiting) = {
        let (layer, provider) = (layer.clone(), provider.clone());
        pass(MINUTE).await;
        (tokio::spawn(async move { layer.clear().await }), tokio::spawn(async move { secret(&provider).await }))
    };
    pass(SECOND * 5).await;
    memory.heal();
    clearing.await.unwrap().unwrap();
    assert_eq!(waiting.await.unwrap(), "t1");
}

#[tokio::test(start_paused = true)]
async fn a_wait_for_the_lock_without_an_end_is_none_that_panics() {
    let (issuer, memory, clock) = (Issuer::new(), Memory::default(), ManualClock::following_tokio());
    let layer = StoreLayer::new(memory.clone()).lock_wait(std::time::Duration::MAX);
    let (provider, layer) = process_of(layer, issuer.source(), &clock);
    assert_eq!(secret(&provider).await, "t1");
    layer.clear().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn all_who_wait_for_the_source_to_get_ready_are_woken() {
    let (endpoint, memory, clock) = (Endpoint::hourly(), Memory::default(), ManualClock::following_tokio());
    memory.break_down(Step::Lock, Fault::Down);
    let mut slow = endpoint.source();
    let slow = tower::service_fn(move |request: TokenRequest| {
        let answer = tower::Service::call(&mut slow, request);
        async move {
            tokio::time::sleep(SECOND).await;
            answer.await
        }
    });
    // Has one waker.
    let source = tower::limit::ConcurrencyLimit::new(slow, 1);
    let stored = StoreLayer::new(memory.clone()).clock(clock.clone()).layer(source);
    let begun = Instant::now();
    let asking: Vec<_> = (0..4)
        .map(|_| {
            let provider = store::builder(&clock).build(stored.clone()).unwrap();
            tokio::spawn(async move { secret(&provider).await })
        })
        .collect();
    for asking in asking {
        assert!(asking.await.unwrap().starts_with('t'));
    }
    assert!(begun.elapsed() < SECOND * 5, "{:?}", begun.elapsed());
}
