//! The task of a flight: it asks for leave, and what it brings lands, or not.

use super::{
    super::*,
    Brings,
    Event::{self, *},
    MINUTE, SECOND,
    world::World,
};
use crate::provider::schedule::{self, Standing};

/// A flight older than this is lost, with the default settings.
pub(super) const LOST: Duration = Duration::from_secs(32);

#[derive(Clone, Copy, Debug)]
pub(super) struct Task {
    pub(super) number: u64,
    pub(super) started: Duration,
    pub(super) asked: Option<Now>,
    pub(super) void: bool,
}

impl World {
    pub(super) fn started(&mut self, start: Option<u64>, by: Event) {
        let Some(number) = start else { return };
        if let Some(flight) = self.flight {
            assert!(self.now.mono - flight.started >= LOST, "two flights at once");
            self.flight = None;
            self.lost = Some(flight.number);
        }
        assert!(!self.machine.is_ended(), "a fetch after the end");
        assert!(self.now.mono >= self.retry_after, "a Retry-After binds all");
        assert!(by == Forced || self.now.mono >= self.closed, "the gate is shut");
        if self.machine.flight.as_ref().is_some_and(|flight| flight.reason == Reason::Rejected) {
            self.refetched = Some(self.now.mono);
        }
        self.flight = Some(Task { number, started: self.now.mono, asked: None, void: false });
    }

    /// As the flight's task does it. None: it may not, and its task ends.
    pub(super) fn ask(&mut self) -> Option<Task> {
        let mut task = self.flight.expect("allowed");
        if task.asked.is_none() {
            let Some(sleep) = self.machine.leave(self.now, task.number) else {
                assert!(task.void || self.now.mono - task.started >= LOST);
                self.machine.lost(task.number);
                self.lose();
                return None;
            };
            self.now = self.now.after(sleep);
            assert!(self.machine.ask(self.now, task.number));
            assert!(self.last_ask.is_none_or(|last| self.now.mono - last >= SECOND), "two fetches within a second");
            self.last_ask = Some(self.now.mono);
            task.asked = Some(self.now);
            self.flight = Some(task);
        }
        if self.now.mono - task.started >= LOST {
            // Too old: whatever it brings is dropped, as that of any lost one.
            self.machine.lost(task.number);
            self.lose();
            return None;
        }
        Some(task)
    }

    pub(super) fn fetched(&mut self, task: Task, brings: Brings) {
        let token = self.token(brings);
        let before = self.held_generation();
        let dies = schedule::dies(&token, task.asked.expect("it did"), self.now);
        let refused =
            self.machine.held().is_some_and(|held| held.standing > Standing::Good && held.token.same_bytes(&token));
        let landed = self.machine.fetched(self.now, task.number, token, self.roll);
        assert!(!refused || matches!(landed, Landed::Failed | Landed::Dropped), "no successor of itself");
        assert_eq!(landed == Landed::Dropped, task.void, "a result counts unless something was told meanwhile");
        if landed == Landed::Dropped {
            assert_eq!(self.held_generation(), before);
        } else {
            self.lives_as_long_as(dies.expect("nothing absurd is brought"));
            let held = self.machine.held().expect("something landed");
            assert!(
                !matches!(landed, Landed::Stored | Landed::Extended) || held.band(self.now) == Band::Fresh,
                "stale on arrival: each fetch would lead to the next"
            );
        }
        self.landed(landed, false);
    }

    pub(super) fn landed(&mut self, landed: Landed, permanent: bool) {
        self.lost = self.flight.take().map(|task| task.number);
        let over = match landed {
            Landed::Failed => {
                // A permanent failure is asked about each minute by those who have nothing that lives.
                let wait = if permanent && !self.machine.held().is_some_and(|held| self.lives(held)) {
                    MINUTE
                } else {
                    SECOND
                };
                self.closed = (self.now.mono + wait).max(self.retry_after);
                self.failed = Some(self.now.mono);
                Over::Failed
            }
            Landed::Dropped => Over::Lost,
            _ => {
                self.closed = self.retry_after;
                self.failed = None;
                Over::Landed
            }
        };
        self.all_woken(over);
    }

    pub(super) fn lose(&mut self) {
        let task = self.flight.take().expect("one is lost");
        self.lost = Some(task.number);
        self.all_woken(Over::Lost);
    }

    /// After `set` and `clear`: what waited has its answer, and what a flight brings is dropped.
    pub(super) fn told(&mut self) {
        self.closed = self.retry_after;
        self.failed = None;
        if let Some(flight) = &mut self.flight {
            flight.void = true;
            assert_eq!(self.machine.leave(self.now, flight.number), None);
        }
        self.all_woken(Over::Landed);
    }

    fn all_woken(&mut self, over: Over) {
        for purpose in std::mem::take(&mut self.waiters) {
            self.woken(over, purpose);
        }
    }
}
