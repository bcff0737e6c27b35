//! What must hold: in every state, and of every answer.

use super::{
    super::*,
    Event::{self, *},
    HOUR, MINUTE, SECOND,
    flight::{LOST, Task},
    world::World,
};
use crate::provider::schedule::Standing;

/// With nothing but a permanent failure to go by, the loop sleeps no longer.
const SELDOM: Duration = Duration::from_secs(15 * 60);

impl World {
    /// What must be true at any time.
    pub(super) fn holds(&mut self) {
        self.the_loop_wakes_in_time();
        self.what_is_lost_stays_lost();
        if let Some(held) = self.machine.held() {
            let generation = held.token.generation();
            assert!(generation >= self.newest, "never backwards");
            assert!(
                held.standing == Standing::Good || self.refused.contains(&generation),
                "marked without a rejection"
            );
            assert_eq!(
                self.now.is_before(held.fresh_until()),
                held.band(self.now) == Band::Fresh,
                "a reader is told otherwise"
            );
            self.newest = generation;
        }
        let aged = |flight: Task| self.now.mono - flight.started >= LOST;
        match self.flight {
            Some(flight) if self.machine.under_way() != Some(flight.number) => {
                assert!(aged(flight), "a flight vanished");
                self.lose();
            }
            None => assert_eq!(self.machine.under_way(), None),
            _ => {}
        }
        assert!(self.waiters.is_empty() || self.flight.is_some(), "somebody waits for nothing");
        for resource in &self.machine.resources.0 {
            assert!(resource.until <= self.now.mono + HOUR, "what is forbidden is tried again within an hour");
        }
    }

    /// Whatever looks finds out that a flight is too old; here that is the loop, of a copy.
    fn the_loop_wakes_in_time(&self) {
        let mut copy = self.machine.clone();
        let (wake, started) = (self.machine.wake(self.now), copy.tick(self.now));
        let due = wake.is_some_and(|wake| wake <= self.now.mono);
        assert!(due || started.is_none(), "what is due is woken for");
        assert!(
            !due || started.is_some() || self.machine.under_way().is_some(),
            "a wake-up that is due starts a flight"
        );
        if let Some(next) = copy.wake(self.now) {
            assert!(next > self.now.mono, "no busy loop");
            let then = self.now.after(next - self.now.mono);
            let (flew, starts) = (copy.under_way().is_some(), copy.tick(then).is_some());
            assert!(
                starts || flew && copy.wake(then).is_none_or(|wake| wake > then.mono),
                "a wake-up finds something to do"
            );
        }
        // None that has something to look after is left without a wake-up, nor is it too late.
        let needs = !self.machine.is_ended()
            && self.machine.held().is_none_or(|held| held.dies.is_some() || held.standing == Standing::Marked);
        let death = self.machine.held().map_or(Duration::ZERO, |held| held.runway(self.now));
        let latest = self.now.mono + SELDOM.max(death.min(10 * HOUR)).max(LOST);
        assert!(!needs || wake.is_some_and(|wake| wake <= latest), "the loop oversleeps: {wake:?}");
    }

    /// The task of a flight that is gone comes back to life: it may neither ask nor land.
    fn what_is_lost_stays_lost(&self) {
        let Some(number) = self.lost else { return };
        let mut copy = self.machine.clone();
        assert_eq!(copy.leave(self.now, number), None, "a lost flight may not ask");
        assert!(!copy.ask(self.now, number));
        let token = Token::opaque("late").expect("legal");
        assert_eq!(copy.fetched(self.now, number, token, 0.0), Landed::Dropped);
        assert_eq!(copy.held().map(|held| held.token.generation()), self.held_generation(), "a lost flight landed");
    }

    pub(super) fn lives(&self, held: &Held) -> bool {
        held.dies.is_none_or(|dies| self.now.wall < dies.wall && self.now.mono < dies.mono)
    }

    /// The held token's runway if it lives and nobody has to wait for its successor.
    pub(super) fn good(&self) -> Option<Duration> {
        let held = self.machine.held().filter(|held| self.lives(held) && held.standing != Standing::Marked)?;
        Some(held.runway(self.now)).filter(|_| !self.machine.is_ended())
    }

    /// What the source gives is never thrown away: something lives, and for as long as the source said.
    pub(super) fn lives_as_long_as(&self, dies: Option<Now>) {
        let held = self.machine.held().expect("something landed");
        assert!(self.lives(held), "a source that answers leaves nobody without a token");
        let (has, said) = (held.runway(self.now), dies.map_or(Duration::MAX, |dies| self.now.until(dies)));
        assert!(has.saturating_add(SECOND) >= said, "{has:?} of {said:?}");
    }

    pub(super) fn never_withheld(&self, decision: &Decision) {
        if let Decision::Unavailable(_) = decision {
            let shut = self.machine.is_ended() || self.now.mono < self.retry_after || self.recent(self.failed);
            assert!(shut, "turned away by an endpoint that did not fail");
        }
        let Some(runway) = self.good() else { return };
        match decision {
            Decision::Send { .. } => {}
            Decision::Wait { at_most: Some(at_most), .. } => assert!(*at_most <= SECOND.min(runway / 2)),
            decision => panic!("withheld: {decision:?}"),
        }
    }

    /// No failure, and no storm, shuts anybody out for longer than a minute; a `Retry-After` may.
    fn recent(&self, since: Option<Duration>) -> bool {
        since.is_some_and(|since| self.now.mono < since + MINUTE)
    }

    /// The held token was refused, for something that is remembered perhaps; `before` is the machine before that.
    pub(super) fn rejected(
        &self,
        before: &Machine,
        decision: &Decision,
        rejection: &Rejection,
        generation: Generation,
    ) {
        let after = &self.machine;
        let standing = |machine: &Machine| {
            let held = machine.held.as_ref();
            held.map(|held| (held.standing, held.refused, held.counted, machine.storm.count, machine.under_way()))
        };
        let passes = matches!(decision, Decision::Pass { start: None });
        if rejection.resource.is_some() {
            let mut without = before.clone();
            without.resources.clear();
            let plain = Rejection { resource: None, challenge: None, ..*rejection };
            let expected = without.rejected(self.now, generation, plain, self.roll);
            let same = kind(&expected) == kind(decision) && standing(&without) == standing(after);
            let may_pass = rejection.accepted.is_some() && !before.resources.0.is_empty();
            let untouched = || passes && standing(before) == standing(after);
            assert!(
                same || may_pass && untouched(),
                "only old news is treated in another way: {decision:?}, {expected:?}"
            );
            return;
        }
        let shut = after.is_ended()
            || self.now.mono < self.retry_after
            || self.recent(self.failed)
            || self.recent(self.refetched);
        assert!(rejection.resent || !passes || shut, "a refusal that heals nothing");
    }

    pub(super) fn decided(&mut self, decision: Decision, purpose: Purpose, by: Event) {
        self.answers = self.answers.wrapping_mul(5).wrapping_add(1 + kind(&decision));
        match decision {
            Decision::Send { token, start } => {
                let held = self.machine.held().expect("only what is held is sent");
                assert_eq!(held.token.generation(), token.generation());
                assert!(self.lives(held), "a dead token is never sent");
                assert!(!self.machine.is_ended(), "nothing is sent after the end");
                self.started(start, by);
            }
            Decision::Wait { start, .. } => {
                self.started(start, by);
                assert!(self.machine.under_way().is_some(), "a wait is for a flight");
                let mut others = self.waiters.iter().map(|other| self.class(*other));
                if self.crowd || others.all(|other| other != self.class(purpose)) {
                    self.waiters.push(purpose);
                }
            }
            Decision::Pass { start } => self.started(start, by),
            Decision::Unavailable(_) => assert!(
                by == Forced || matches!(purpose, Purpose::Replace(_)) || self.good().is_none(),
                "a living token is withheld"
            ),
        }
    }

    pub(super) fn woken(&mut self, over: Over, purpose: Purpose) {
        let good =
            self.good().is_some() && purpose != self.held_generation().map_or(Purpose::Refresh, Purpose::Replace);
        let decision = self.machine.woken(self.now, over, purpose);
        let sent = matches!(decision, Decision::Send { .. });
        assert!(!sent || (purpose, over) != (Purpose::Refresh, Over::Failed), "a forced fetch that failed is told");
        let waits = matches!(decision, Decision::Wait { .. });
        assert!(
            !waits || matches!(over, Over::Landed | Over::Lost),
            "who waited for a failure does not queue for the next"
        );
        if good && (purpose != Purpose::Refresh || over == Over::Landed) {
            assert!(sent, "{purpose:?} {over:?}: what lives is sent after the wait: {decision:?}");
        }
        let by = if purpose == Purpose::Refresh { Forced } else { Asked };
        self.decided(decision, purpose, by);
    }

    /// A rejection of what is not held is a request for the current token, to the last bit of the machine.
    pub(super) fn rejected_other(&mut self, generation: Generation, by: Event) {
        let mut asked = self.machine.clone();
        drop(asked.asked(self.now));
        let decision = self.machine.rejected(self.now, generation, Rejection::default(), self.roll);
        if !self.machine.is_ended() {
            let before = std::mem::replace(&mut self.machine, asked);
            let form = super::normal::form(self);
            self.machine = before;
            assert_eq!(form, super::normal::form(self), "an old rejection changes something");
        }
        self.decided(decision, Purpose::Replace(generation), by);
    }
}

fn kind(decision: &Decision) -> u64 {
    match decision {
        Decision::Send { .. } => 0,
        Decision::Wait { .. } => 1,
        Decision::Unavailable(_) => 2,
        Decision::Pass { .. } => 3,
    }
}
