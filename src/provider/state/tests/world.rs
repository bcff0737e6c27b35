//! What surrounds a machine: a clock, a flight's task, callers that wait, an endpoint; and what can happen to them.

use super::{
    super::*,
    Brings::{self, BornDead, Living, Same, SameForLonger, SameWithHint},
    Event::{self, *},
    HOUR, MINUTE, SECOND,
    flight::{LOST, Task},
};
use crate::provider::backoff::Failure;

#[derive(Clone, Debug)]
pub(super) struct World {
    pub(super) machine: Machine,
    pub(super) now: Now,
    pub(super) flight: Option<Task>,
    /// The last flight that was.
    pub(super) lost: Option<u64>,
    pub(super) waiters: Vec<Purpose>,
    /// Do several wait for the same thing?
    pub(super) crowd: bool,
    pub(super) last_ask: Option<Duration>,
    /// Before the first token.
    pub(super) oldest: Generation,
    /// The newest generation ever held.
    pub(super) newest: Generation,
    /// Generations that somebody saw refused.
    pub(super) refused: Vec<Generation>,
    /// Nobody but `refresh` starts a flight before.
    pub(super) closed: Duration,
    /// Nobody at all.
    pub(super) retry_after: Duration,
    /// When the source last failed, if nothing came of it since.
    pub(super) failed: Option<Duration>,
    /// When a flight last began on a rejection.
    pub(super) refetched: Option<Duration>,
    pub(super) minted: u32,
    pub(super) roll: f64,
    /// What callers were told in this step.
    pub(super) answers: u64,
}

impl World {
    pub(super) fn new() -> Self {
        let oldest = Generation::new_provider();
        Self {
            machine: Machine::new(Settings::default(), oldest),
            now: Now { wall: HOUR * 24 * 365 * 50, mono: MINUTE },
            flight: None,
            lost: None,
            waiters: Vec::new(),
            crowd: false,
            last_ask: None,
            oldest,
            newest: oldest,
            refused: Vec::new(),
            closed: Duration::ZERO,
            retry_after: Duration::ZERO,
            failed: None,
            refetched: None,
            minted: 0,
            roll: 0.5,
            answers: 0,
        }
    }

    /// Can it happen now?
    pub(super) fn allows(&self, event: Event) -> bool {
        let held = self.machine.held().is_some();
        match event {
            Bound => !self.waiters.is_empty(),
            Rejected { .. } | RejectedOld => held,
            Ask => self.flight.is_some_and(|flight| flight.asked.is_none()),
            Fetched(Same | SameForLonger | SameWithHint) => held && self.flight.is_some(),
            Fetched(_) | Failed { .. } | Lost => self.flight.is_some(),
            Edge => self.edge().is_some(),
            _ => true,
        }
    }

    /// Gives what callers were told.
    pub(super) fn step(&mut self, event: Event) -> u64 {
        self.answers = 0;
        match event {
            Asked => {
                let decision = self.machine.asked(self.now);
                self.never_withheld(&decision);
                self.decided(decision, Purpose::Send, event);
            }
            ValidFor(span) => {
                let decision = self.machine.valid_for(self.now, span);
                self.decided(decision, Purpose::Send, event);
            }
            Forced => {
                let decision = self.machine.forced(self.now);
                self.decided(decision, Purpose::Refresh, event);
            }
            Tick => {
                let start = self.machine.tick(self.now);
                self.started(start, event);
            }
            Bound => {
                let purpose = self.waiters.remove(0);
                self.woken(Over::Bound, purpose);
            }
            Rejected { resent, resource, accepted } => {
                let generation = self.held_generation().expect("allowed");
                if !self.refused.contains(&generation) {
                    self.refused.push(generation);
                }
                let accepted = accepted.then_some(self.now.mono);
                let rejection = || Rejection { resent, resource, accepted, challenge: None };
                let mut before = self.machine.clone();
                before.observe(self.now);
                let decision = self.machine.rejected(self.now, generation, rejection(), self.roll);
                self.rejected(&before, &decision, &rejection(), generation);
                self.decided(decision, Purpose::Replace(generation), event);
            }
            RejectedOld => self.rejected_other(self.oldest, event),
            RejectedForeign => self.rejected_other(Generation::new_provider().next(), event),
            Accepted => self.machine.accepted(7),
            Ask => drop(self.ask()),
            Fetched(brings) => {
                if let Some(task) = self.ask() {
                    self.fetched(task, brings);
                }
            }
            Failed { permanent, retry_after } => {
                if let Some(task) = self.ask() {
                    let failure = Failure { permanent, retry_after };
                    let error = FetchError::Source("down".into());
                    let landed = self.machine.failed(self.now, task.number, error, failure, self.roll);
                    assert_eq!(landed == Landed::Dropped, task.void);
                    if let (Some(wait), false) = (retry_after, task.void) {
                        self.retry_after = self.now.mono + wait;
                    }
                    self.landed(landed, permanent);
                }
            }
            Lost => {
                let task = self.flight.expect("allowed");
                self.machine.lost(task.number);
                self.lose();
            }
            Set(brings) => {
                let token = self.token(brings);
                self.machine.set(self.now, token, self.roll);
                assert!(self.held_generation() > Some(self.newest), "a pushed token gets a generation of its own");
                self.told();
            }
            Clear => {
                self.machine.clear(self.now);
                assert!(self.machine.held().is_none() && self.machine.wake(self.now).is_none());
                self.told();
            }
            Pass(span) => self.now = self.now.after(span),
            Edge => self.now = self.now.after(self.edge().expect("allowed")),
            WallAhead => self.now.wall += HOUR,
            WallBack => self.now.wall -= HOUR,
        }
        self.machine.notes.clear();
        self.holds();
        self.answers
    }

    /// How long nothing changes by itself: until the held token is older in some sense, or a wait is over.
    fn edge(&self) -> Option<Duration> {
        let Machine { held, flight, backoff, storm, resources, .. } = &self.machine;
        let held = held.iter().flat_map(|held| {
            let runway = held.dies.map(|_| held.runway(self.now));
            let before_death = |span| runway.map(|runway| self.now.mono + runway.saturating_sub(span));
            let hasty = Some(held.stored + 10 * SECOND);
            [
                hasty,
                held.due,
                before_death(held.refresh_before),
                before_death(held.min_runway),
                before_death(Duration::ZERO),
            ]
        });
        let flight = flight.as_ref().map(|flight| flight.started + LOST);
        let waits = [backoff.hard, backoff.soft, storm.until].into_iter().chain(resources.0.iter().map(|it| it.until));
        let moments = held.flatten().chain(flight).chain(waits);
        moments.filter(|at| *at > self.now.mono).min().map(|at| at - self.now.mono)
    }

    /// What tells those who wait apart: of a refused token, only whether it is the current one.
    pub(super) fn class(&self, purpose: Purpose) -> i64 {
        match purpose {
            Purpose::Send => 0,
            Purpose::Refresh => 1,
            Purpose::Replace(refused) if Some(refused) == self.held_generation() => 2,
            Purpose::Replace(_) => 3,
        }
    }

    pub(super) fn held_generation(&self) -> Option<Generation> {
        self.machine.held().map(|held| held.token.generation())
    }

    pub(super) fn token(&mut self, brings: Brings) -> Token {
        self.minted += 1;
        let held = self.machine.held().map(|held| held.token.clone());
        let new = Token::opaque(format!("t{}", self.minted)).expect("legal");
        let past = system_time(self.now.wall - 2 * HOUR).expect("in range");
        match (brings, held) {
            (Same, Some(held)) => held,
            (SameForLonger, Some(held)) => held.with_expires_in(2 * HOUR),
            (SameWithHint, Some(held)) => held.with_refresh_after(MINUTE),
            (Living(life), _) => new.with_expires_in(life),
            (BornDead, _) => new.with_expires_at(past),
            _ => new,
        }
    }
}
