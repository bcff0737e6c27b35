//! Told from outside: a token pushed, one that another holder has got, a sign-out, the end.

use super::{Ended, Machine};
#[cfg(any(feature = "store", test))]
use crate::Generation;
use crate::{Token, clock::Now, provider::schedule::Held};
use std::time::Duration;

/// What became of a token that another holder has got.
#[cfg(any(feature = "store", test))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Offered {
    Taken,
    /// It is of no use, or comes after something else.
    Declined,
    /// A flight is under way, which may bring the same or a later one.
    UnderWay,
}

impl Machine {
    /// A token that was there before the provider: nobody knows how old, so nothing is clamped to its life.
    pub(crate) fn seed(&mut self, now: Now, token: Token, roll: f64) {
        let now = self.observe(now);
        let dies = self.dies(&token, now, now);
        self.store(now, token, dies, None, roll);
    }

    /// Somebody pushed a token.
    pub(crate) fn set(&mut self, now: Now, token: Token, roll: f64) {
        let now = self.observe(now);
        self.start_over();
        if self.ended == Some(Ended::SignedOut) {
            self.ended = None;
        }
        let dies = self.dies(&token, now, now);
        self.store(now, token, dies, dies.map(|dies| now.until(dies)), roll);
    }

    /// Another holder of the credential has got this token, while `seen` was held here. It counts as what a flight brings and not as pushed: among many who tell
    /// each other of their tokens, each would end the others' storm waits.
    #[cfg(any(feature = "store", test))]
    pub(crate) fn offered(&mut self, now: Now, seen: Option<Generation>, token: Token, roll: f64) -> Offered {
        let now = self.observe(now);
        if self.ended.is_some() || self.held.as_ref().map(|held| held.token.generation()) != seen {
            return Offered::Declined;
        }
        if self.flight.is_some() {
            return Offered::UnderWay;
        }
        let dies = self.dies(&token, now, now);
        let is_dead = dies.is_some_and(|dies| now.until(dies).is_zero());
        if is_dead || self.held.as_ref().is_some_and(|held| held.token.same_bytes(&token)) {
            return Offered::Declined;
        }
        self.warned_skew = false;
        self.forgive();
        self.store(now, token, dies, dies.map(|dies| now.until(dies)), roll);
        Offered::Taken
    }

    pub(crate) fn clear(&mut self, now: Now) {
        self.observe(now);
        self.start_over();
        self.held = None;
        self.version += 1;
        self.ended.get_or_insert(Ended::SignedOut);
    }

    pub(crate) fn shut_down(&mut self) {
        self.ended = Some(Ended::ShutDown);
        self.version += 1;
    }

    fn start_over(&mut self) {
        if let Some(flight) = &mut self.flight {
            flight.void = true;
        }
        self.resources.clear();
        self.storm.calm();
        self.forgive();
    }

    /// Ends all waits after failures but a `Retry-After`: the endpoint itself has not said otherwise.
    fn forgive(&mut self) {
        self.backoff.forgive();
        if self.backoff.retry_after <= self.seen {
            self.trouble = None;
        }
    }

    pub(super) fn store(&mut self, now: Now, token: Token, dies: Option<Now>, life: Option<Duration>, roll: f64) {
        self.generation = self.generation.next();
        self.version += 1;
        let due = token.refresh_after.map(|after| now.mono.saturating_add(after));
        let held = Held::new(token.with_generation(self.generation), dies, life, now);
        let mut held = held.with_thresholds(&self.settings, roll);
        held.due = due;
        self.held = Some(held);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        FetchError, TokenStatus,
        provider::{
            Settings,
            backoff::Failure,
            state::{Decision, Rejection},
        },
        source::Reason,
    };

    const HOUR: Duration = Duration::from_secs(3600);

    fn at(seconds: u64) -> Now {
        Now { wall: HOUR * 24 * 365 * 50, mono: Duration::ZERO }.after(Duration::from_secs(seconds))
    }

    fn token(secret: &str) -> Token {
        Token::opaque(secret).unwrap().with_expires_in(HOUR)
    }

    /// It holds `t1` since the first second.
    fn machine() -> Machine {
        let mut machine = Machine::new(Settings::default(), Generation::new_provider());
        machine.set(at(0), token("t1"), 0.0);
        machine
    }

    fn held(machine: &Machine) -> Option<Generation> {
        machine.held().map(|held| held.token.generation())
    }

    fn offer(machine: &mut Machine, now: Now, token: Token) -> Offered {
        let seen = held(machine);
        machine.offered(now, seen, token, 0.0)
    }

    #[test]
    fn a_token_that_another_holder_got_is_held_as_if_it_had_been_fetched() {
        let mut machine = machine();
        let (before, version) = (held(&machine), machine.version());
        assert_eq!(offer(&mut machine, at(60), token("t2")), Offered::Taken);
        let now_held = machine.held().unwrap();
        assert_eq!((now_held.token.expose_secret(), now_held.runway(at(60)), now_held.life), ("t2", HOUR, Some(HOUR)));
        assert!(held(&machine) > before && machine.version() > version, "readers see it");
    }

    #[test]
    fn nobody_is_offered_anything_who_is_signed_out_or_has_something_else_by_now() {
        let (mut signed_out, mut shut_down, mut other) = (machine(), machine(), machine());
        signed_out.clear(at(1));
        shut_down.shut_down();
        assert_eq!(offer(&mut signed_out, at(60), token("t2")), Offered::Declined);
        assert_eq!(offer(&mut shut_down, at(60), token("t2")), Offered::Declined);
        let seen = held(&other);
        other.set(at(2), token("pushed"), 0.0);
        for seen in [seen, None] {
            assert_eq!(other.offered(at(60), seen, token("t2"), 0.0), Offered::Declined);
        }
        assert_eq!(other.held().unwrap().token.expose_secret(), "pushed");
        assert!(held(&signed_out).is_none() && signed_out.is_ended());
    }

    #[test]
    fn what_is_held_already_or_born_dead_changes_nothing() {
        let mut machine = machine();
        let before = held(&machine);
        let dead = token("t2").with_expires_at(std::time::SystemTime::UNIX_EPOCH + HOUR);
        for useless in [token("t1"), dead] {
            assert_eq!(offer(&mut machine, at(60), useless), Offered::Declined);
        }
        assert_eq!(held(&machine), before);
    }

    #[test]
    fn a_flight_under_way_is_not_overtaken_and_one_that_is_lost_is() {
        let mut machine = machine();
        machine.join(at(60), Reason::Forced).unwrap();
        let before = held(&machine);
        assert_eq!(offer(&mut machine, at(61), token("t2")), Offered::UnderWay);
        assert_eq!((held(&machine), machine.under_way()), (before, Some(1)));
        assert_eq!(offer(&mut machine, at(60 + 32), token("t2")), Offered::Taken);
    }

    #[test]
    fn a_storm_goes_on_and_what_is_forbidden_stays_remembered() {
        let mut machine = machine();
        for (now, secret) in [(at(1), "t2"), (at(3), "t3")] {
            let refused = held(&machine).unwrap();
            machine.rejected(now, refused, Rejection::default(), 0.0);
            let flight = machine.under_way().unwrap();
            machine.fetched(now, flight, token(secret), 0.0);
        }
        let refused = held(&machine).unwrap();
        let forbidden = Rejection { resent: true, resource: Some(7), ..Rejection::default() };
        machine.rejected(at(3), refused, forbidden, 0.0);
        let (count, until) = (machine.storm.count, machine.storm.until);
        assert!(count > 1 && until > at(3).mono, "{count}");
        assert_eq!(offer(&mut machine, at(3), token("t4")), Offered::Taken);
        assert_eq!((machine.storm.count, machine.storm.until), (count, until));
        assert_eq!(machine.resources().keys(), [7]);
    }

    #[test]
    fn it_ends_the_waits_after_failures_as_a_success_does() {
        let mut machine = machine();
        let flight = machine.join(at(60), Reason::Forced).unwrap();
        let failure = Failure { permanent: true, retry_after: None };
        machine.failed(at(60), flight, FetchError::Source("refused".into()), failure, 0.0);
        assert!(matches!(machine.status(at(60)), TokenStatus::NeedsCredential { .. }));
        assert_eq!(offer(&mut machine, at(61), token("t2")), Offered::Taken);
        assert_eq!(machine.status(at(61)), TokenStatus::Fresh);
        assert!(machine.trouble().is_none() && machine.backoff.hard.is_zero() && machine.backoff.soft.is_zero());
    }

    #[test]
    fn it_leaves_a_retry_after_that_the_endpoint_has_asked_for() {
        let mut machine = machine();
        let flight = machine.join(at(60), Reason::Forced).unwrap();
        let failure = Failure { permanent: false, retry_after: Some(Duration::from_secs(120)) };
        machine.failed(at(60), flight, FetchError::Source("busy".into()), failure, 0.0);
        assert_eq!(offer(&mut machine, at(61), token("t2")), Offered::Taken);
        assert_eq!(machine.status(at(61)), TokenStatus::Fresh);
        assert!(matches!(machine.forced(at(179)), Decision::Unavailable(_)));
        assert!(matches!(machine.forced(at(180)), Decision::Wait { start: Some(_), .. }));
    }
}
