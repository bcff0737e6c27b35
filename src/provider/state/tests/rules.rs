//! Single rules in numbers: what the attack beside them does not tell apart.

use super::{super::*, HOUR, MINUTE, SECOND};
use crate::provider::backoff::Failure;

const START: Now = Now { wall: Duration::from_secs(1_000_000_000), mono: Duration::from_secs(1_000) };

fn at(seconds: u64) -> Now {
    START.after(Duration::from_secs(seconds))
}

fn opaque(secret: &str) -> Token {
    Token::opaque(secret).unwrap()
}

fn machine() -> Machine {
    Machine::new(Settings::default(), Generation::new_provider())
}

/// A machine that got this token at 0 s.
fn holding(token: Token) -> Machine {
    let mut machine = machine();
    land(&mut machine, at(0), token);
    machine
}

fn living(life: Duration) -> Machine {
    holding(opaque("t1").with_expires_in(life))
}

fn forced(machine: &mut Machine, now: Now) -> u64 {
    match machine.forced(now) {
        Decision::Wait { start: Some(number), .. } => number,
        decision => panic!("no flight starts: {decision:?}"),
    }
}

fn land(machine: &mut Machine, now: Now, token: Token) -> Landed {
    let number = forced(machine, now);
    machine.fetched(now, number, token, 0.0)
}

fn fail(machine: &mut Machine, now: Now) -> Landed {
    let number = forced(machine, now);
    machine.failed(now, number, FetchError::Panicked, Failure::default(), 0.0)
}

fn held(machine: &Machine) -> Generation {
    machine.held().unwrap().token.generation()
}

fn reject(machine: &mut Machine, now: Now, rejection: Rejection) -> Decision {
    let generation = held(machine);
    machine.rejected(now, generation, rejection, 0.0)
}

fn sends(decision: &Decision) -> bool {
    matches!(decision, Decision::Send { .. })
}

fn waits(decision: &Decision) -> bool {
    matches!(decision, Decision::Wait { .. })
}

fn passes(decision: &Decision) -> bool {
    matches!(decision, Decision::Pass { start: None })
}

#[test]
fn a_waiter_is_told_how_long_its_flight_may_still_be_and_a_look_finds_it_over() {
    let mut machine = machine();
    forced(&mut machine, at(0));
    assert_eq!(machine.left(at(0)), Some(32 * SECOND));
    assert_eq!(machine.left(at(10)), Some(22 * SECOND));
    machine.look(at(31));
    assert_eq!(machine.left(at(31)), Some(SECOND));
    machine.look(at(32));
    assert_eq!(machine.left(at(32)), None);
}

#[test]
fn no_flight_has_the_number_of_another_and_only_the_one_under_way_may_ask() {
    let mut machine = machine();
    let first = forced(&mut machine, at(0));
    machine.lost(first);
    let second = forced(&mut machine, at(0));
    assert_ne!(first, second);
    assert!(!machine.ask(at(0), first), "another flight is under way");
    machine.clear(at(0));
    assert!(!machine.ask(at(0), second), "it was begun before the end");
}

#[test]
fn what_is_marked_is_sent_in_no_queue_and_what_lives_is() {
    let mut machine = living(HOUR);
    assert!(machine.unmarked(at(60)).is_some());
    assert!(waits(&reject(&mut machine, at(60), Rejection::default())));
    assert!(machine.unmarked(at(60)).is_none() && machine.living(at(60)).is_some());
}

#[test]
fn a_refresh_is_slow_only_for_who_ran_out_of_patience_while_little_was_left() {
    let mut machine = living(HOUR);
    let decision = machine.asked(at(3550));
    assert!(waits(&decision), "{decision:?}");
    assert!(sends(&machine.woken(at(3550), Over::Landed, Purpose::Send)));
    assert_eq!(machine.notes(), []);
    assert!(sends(&machine.woken(at(3000), Over::Patience, Purpose::Send)), "time stands still");
    assert_eq!(machine.notes(), [Note::SlowRefresh]);
    assert!(sends(&machine.woken(at(3551), Over::Patience, Purpose::Send)));
    assert_eq!(machine.notes(), [], "said once");
    let mut early = living(HOUR);
    forced(&mut early, at(3400));
    assert!(sends(&early.woken(at(3401), Over::Patience, Purpose::Send)));
    assert_eq!(early.notes(), [], "there is time enough");
}

#[test]
fn who_was_refused_queues_for_no_further_flight_after_a_failure_or_the_end() {
    let mut machine = living(HOUR);
    let refused = held(&machine);
    let Decision::Wait { start: Some(number), .. } = reject(&mut machine, at(60), Rejection::default()) else {
        panic!()
    };
    machine.failed(at(60), number, FetchError::Panicked, Failure::default(), 0.0);
    // So late that another flight could start.
    assert!(passes(&machine.woken(at(120), Over::Failed, Purpose::Replace(refused))));

    let mut machine = living(HOUR);
    let refused = held(&machine);
    let Decision::Wait { start: Some(number), .. } = reject(&mut machine, at(60), Rejection::default()) else {
        panic!()
    };
    machine.shut_down();
    machine.lost(number);
    assert!(passes(&machine.woken(at(60), Over::Lost, Purpose::Replace(refused))));
    assert_eq!(machine.under_way(), None);
}

#[test]
fn who_waited_as_long_as_anybody_may_is_told_so() {
    let mut machine = machine();
    forced(&mut machine, at(0));
    for purpose in [Purpose::Send, Purpose::Refresh] {
        let decision = machine.woken(at(31), Over::Bound, purpose);
        let Decision::Unavailable(TokenError::TimedOut { after }) = decision else { panic!("{decision:?}") };
        assert_eq!(after, 31 * SECOND);
    }
}

#[test]
fn what_a_new_token_would_not_have_either_is_no_reason_to_fetch() {
    let valid_for = |life: u64, now: u64, span: u64| {
        living(Duration::from_secs(life)).valid_for(at(now), Duration::from_secs(span))
    };
    assert!(waits(&valid_for(3600, 100, 3540)), "a new one has it");
    assert!(sends(&valid_for(3600, 100, 3541)), "within a minute of a whole life: half of one will do");
    assert!(sends(&valid_for(3600, 100, 7200)));
    assert!(waits(&valid_for(3600, 1801, 7200)), "not half of one");
    // Of a short life a minute is too much.
    assert!(sends(&valid_for(100, 53, 45)));
    assert!(waits(&valid_for(100, 53, 48)));
    assert!(sends(&valid_for(3600, 2600, 1000)), "as long as it is asked for");
}

#[test]
fn after_the_end_nothing_is_woken_for_though_a_flight_is_under_way() {
    let mut machine = living(HOUR);
    forced(&mut machine, at(60));
    assert_eq!(machine.wake(at(60)), Some(at(92).mono), "until it would be lost");
    machine.shut_down();
    assert_eq!(machine.wake(at(60)), None);
}

#[test]
fn after_a_failure_the_wait_is_half_of_what_a_living_token_has_left() {
    let mut machine = living(HOUR);
    for failures in 0..10 {
        fail(&mut machine, at(3000 + failures));
    }
    assert_eq!(machine.backoff.hard, at(3039).mono, "30 s, the longest without jitter");
    fail(&mut machine, at(3580));
    assert_eq!(machine.backoff.hard, at(3590).mono);
    fail(&mut machine, at(3600));
    assert_eq!(machine.backoff.hard, at(3630).mono, "it is dead");
    let mut opaque = holding(opaque("t1"));
    fail(&mut opaque, at(1));
    assert_eq!(opaque.backoff.hard, at(2).mono, "no end is known");
}

#[test]
fn outside_of_a_storm_a_token_refused_right_after_it_came_is_replaced_at_once() {
    let mut machine = living(HOUR);
    for expected in [0, 1] {
        let decision = reject(&mut machine, at(60), Rejection::default());
        let Decision::Wait { start: Some(number), .. } = decision else { panic!("{decision:?}") };
        assert_eq!(machine.storm.count, expected);
        machine.fetched(at(60), number, opaque(&format!("s{expected}")).with_expires_in(HOUR), 0.0);
    }
    assert!(passes(&reject(&mut machine, at(60), Rejection::default())), "now it is one");
}

#[test]
fn a_lost_flight_lets_a_refused_request_start_the_next_in_the_midst_of_a_storm() {
    let mut machine = living(HOUR);
    // Three of them, each right after its token came.
    for now in 0..3 {
        let decision = reject(&mut machine, at(now), Rejection::default());
        let Decision::Wait { start: Some(number), .. } = decision else { panic!("{decision:?}") };
        if now == 2 {
            assert!(machine.storm.until > at(3).mono);
            machine.lost(number);
        } else {
            machine.fetched(at(now), number, opaque(&format!("s{now}")).with_expires_in(HOUR), 0.0);
            // The storm's wait is over.
            machine.storm.until = Duration::ZERO;
        }
    }
    assert_eq!(machine.storm.until, Duration::ZERO);
    assert!(waits(&reject(&mut machine, at(3), Rejection::default())));
    let scheduled = forced(&mut living(HOUR), at(0));
    let mut machine = living(HOUR);
    machine.storm.until = at(30).mono;
    assert_eq!(forced(&mut machine, at(0)), scheduled);
    machine.lost(scheduled);
    assert_eq!(machine.storm.until, at(30).mono, "a flight that nobody's refusal began leaves the storm as it is");
}

#[test]
fn the_same_bytes_with_a_hint_are_asked_for_again_when_it_says() {
    let hinted = |seconds: u64| opaque("t1").with_refresh_after(Duration::from_secs(seconds));
    let mut machine = holding(hinted(60));
    assert_eq!(machine.held().unwrap().due, Some(at(60).mono));
    assert_eq!(land(&mut machine, at(10), hinted(5)), Landed::Unchanged);
    assert_eq!(machine.held().unwrap().due, Some(at(15).mono), "the hint starts anew");

    // Dead by our clock each time: the wait after a failure is the least.
    let dead = |seconds: u64| hinted(seconds).with_expires_at(system_time(START.wall - HOUR).unwrap());
    let mut machine = holding(dead(1));
    machine.held.as_mut().unwrap().dies = Some(at(0));
    assert_eq!(land(&mut machine, at(10), dead(0)), Landed::Extended);
    assert_eq!(machine.held().unwrap().due, Some(at(11).mono));
    machine.held.as_mut().unwrap().dies = Some(at(0));
    assert_eq!(land(&mut machine, at(20), dead(3600)), Landed::Extended);
    assert_eq!(machine.held().unwrap().due, Some(at(3620).mono));
}

#[test]
fn what_was_failing_is_over_once_the_same_bytes_come_for_a_while_longer() {
    let hinted = || opaque("t1").with_refresh_after(MINUTE);
    let mut machine = holding(hinted());
    fail(&mut machine, at(10));
    assert!(matches!(machine.status(at(20)), TokenStatus::Failing { .. }));
    assert_eq!(land(&mut machine, at(20), hinted()), Landed::Unchanged);
    assert_eq!(machine.status(at(20)), TokenStatus::Fresh);
    assert!(!machine.backoff.is_failing());
}

#[test]
fn a_token_that_is_dead_when_it_comes_is_asked_for_again_after_the_wait_of_a_failure() {
    let past = system_time(START.wall - HOUR).unwrap();
    let mut machine = holding(opaque("t1").with_expires_at(past));
    assert_eq!(machine.held().unwrap().due, Some(at(1).mono));
    land(&mut machine, at(1), opaque("t2").with_expires_at(past));
    assert_eq!(machine.held().unwrap().due, Some(at(2).mono));
    land(&mut machine, at(2), opaque("t3").with_expires_at(past));
    assert_eq!(machine.held().unwrap().due, Some(at(4).mono), "ever longer");
    fail(&mut machine, at(10));
    land(&mut machine, at(10), opaque("t4").with_expires_at(past));
    assert!(!machine.shut(Band::Dead, at(10)), "who needs a token is never turned away");
}

#[test]
fn a_newer_token_refused_at_the_first_send_for_a_remembered_thing_starts_its_wait_anew() {
    let about = |resent| Rejection { resent, resource: Some(7), accepted: Some(at(55).mono), challenge: None };
    let mut machine = living(HOUR);
    reject(&mut machine, at(0), about(true));
    land(&mut machine, at(40), opaque("t2").with_expires_in(HOUR));
    assert!(passes(&reject(&mut machine, at(55), about(false))));
    assert!(passes(&reject(&mut machine, at(100), about(false))), "40 s after its wait of a minute began");
}
