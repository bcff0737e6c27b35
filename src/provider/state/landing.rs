//! What a flight may do, and what becomes of what it brings.

use super::{Machine, Note, Trouble};
use crate::{
    FetchError, Token,
    clock::{Now, since_epoch, system_time},
    provider::{
        backoff::Failure,
        schedule::{AbsurdExpiry, Band, Held, Standing, dies},
    },
    source::Reason,
};
use std::{sync::Arc, time::Duration};

/// What became of what a flight brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Landed {
    Stored,
    Extended,
    /// The same token, from a source that said when to look again.
    Unchanged,
    NoProgress,
    Failed,
    /// Not the flight under way, or one begun before a `set` or `clear`.
    Dropped,
}

impl Machine {
    /// How long the task must still wait before it may ask the source. None: it is lost.
    pub(crate) fn leave(&mut self, now: Now, number: u64) -> Option<Duration> {
        let now = self.observe(now);
        self.flight.as_ref().filter(|flight| flight.number == number && !flight.void)?;
        // A last ask in the future is a clock that ran backwards.
        let since = self.last_ask.map(|last| now.mono.saturating_sub(last.min(now.mono)));
        Some(since.map_or(Duration::ZERO, |since| self.settings.min_interval.saturating_sub(since)))
    }

    /// The task asks the source now. False: it may not, it is lost.
    pub(crate) fn ask(&mut self, now: Now, number: u64) -> bool {
        let now = self.observe(now);
        let Some(flight) = self.flight.as_mut().filter(|flight| flight.number == number && !flight.void) else {
            return false;
        };
        flight.asked = Some(now);
        self.last_ask = Some(now.mono);
        true
    }

    /// The source gave a token.
    pub(crate) fn fetched(&mut self, now: Now, number: u64, token: Token, roll: f64) -> Landed {
        let now = self.observe(now);
        let Some(flight) = self.flight.take_if(|flight| flight.number == number) else { return Landed::Dropped };
        self.version += 1;
        if flight.void {
            return Landed::Dropped;
        }
        let dies = self.dies(&token, flight.asked.unwrap_or(now), now);
        let landed = match self.held.take() {
            Some(held) if held.token.same_bytes(&token) => self.same_again(held, now, &token, dies, roll),
            held => self.other(held, now, token, dies, roll),
        };
        match landed {
            Landed::Failed => {
                self.fail(now, FetchError::RejectedTokenAgain, Failure::default(), roll);
            }
            Landed::NoProgress => {
                let runway = self.alive(now);
                self.backoff.no_progress(now, runway, &self.settings, roll);
                self.trouble = None;
            }
            _ => self.trouble = None,
        }
        landed
    }

    /// The source failed.
    pub(crate) fn failed(&mut self, now: Now, number: u64, error: FetchError, failure: Failure, roll: f64) -> Landed {
        let now = self.observe(now);
        let Some(flight) = self.flight.take_if(|flight| flight.number == number) else { return Landed::Dropped };
        if flight.void {
            return Landed::Dropped;
        }
        self.fail(now, error, failure, roll);
        Landed::Failed
    }

    /// The task is gone without a result. No failure: no wait follows.
    pub(crate) fn lost(&mut self, number: u64) {
        if self.flight.take_if(|flight| flight.number == number).is_some_and(|flight| flight.reason == Reason::Rejected)
        {
            self.storm.lost();
        }
    }

    /// The very bytes that are held came again. If they were refused before, they are no successor; and yet the source may say how
    /// long they live, or a session that slides would end here, for good, with the first thing that is forbidden to it.
    fn same_again(&mut self, mut held: Held, now: Now, token: &Token, dies: Option<Now>, roll: f64) -> Landed {
        let runway = |dies: Option<Now>| dies.map_or(Duration::MAX, |dies| now.until(dies));
        let (had, has) = (runway(held.dies), runway(dies));
        // Two readings of one expiry differ by what the clocks drift; less than this is no extension.
        let noise = Duration::from_secs(1).min(has / 20);
        let longer = dies.is_some() && (held.dies.is_none() && !has.is_zero() || has > had.saturating_add(noise));
        let refused = held.standing > Standing::Good;
        let landed = if longer {
            let life = dies.map(|dies| now.until(dies));
            held.extended(dies, life, &self.settings, roll);
            if !refused {
                self.backoff.succeeded();
            }
            Landed::Extended
        } else if had.is_zero() && (has.is_zero() || dies.is_none()) {
            held.extended(None, None, &self.settings, roll);
            held.due = Some(if refused {
                // The wait after the failure is the one that holds.
                now.mono
            } else {
                if has.is_zero() {
                    self.note_born_dead(now, dies);
                }
                self.after_failure_wait(now, roll)
            });
            Landed::Extended
        } else if token.refresh_after.is_some() {
            Landed::Unchanged
        } else {
            Landed::NoProgress
        };
        if let (Landed::Extended | Landed::Unchanged, Some(after)) = (landed, token.refresh_after) {
            let due = now.mono.saturating_add(after);
            held.due = Some(held.due.map_or(due, |wait| if landed == Landed::Extended { wait.max(due) } else { due }));
        }
        if refused {
            self.held = Some(held);
            return Landed::Failed;
        }
        if landed == Landed::Unchanged {
            if held.band(now) == Band::Fresh {
                self.backoff.succeeded();
            } else {
                // The hint says later, the expiry says now: as after any fetch that brought nothing, and so the waits grow.
                let runway = Some(held.runway(now));
                self.backoff.no_progress(now, runway, &self.settings, roll);
            }
        }
        self.held = Some(held);
        landed
    }

    /// Another token than the one held.
    fn other(&mut self, held: Option<Held>, now: Now, token: Token, dies: Option<Now>, roll: f64) -> Landed {
        let born_dead = dies.is_some_and(|dies| now.until(dies).is_zero());
        if !born_dead {
            self.warned_skew = false;
            self.backoff.succeeded();
            self.store(now, token, dies, dies.map(|dies| now.until(dies)), roll);
            return Landed::Stored;
        }
        self.note_born_dead(now, dies);
        if held.as_ref().is_some_and(|held| {
            held.dies.is_some() && held.band(now) != Band::Dead && held.standing == Standing::Good && !held.refused
        }) {
            self.held = held;
            return Landed::NoProgress;
        }
        // Our clock may be the one that is wrong: the server decides.
        self.store(now, token, None, None, roll);
        let due = self.after_failure_wait(now, roll);
        if let Some(held) = &mut self.held {
            held.due = Some(due);
        }
        Landed::Stored
    }

    /// When a token that says it is dead is asked for again: the waits grow, but shut nobody out.
    fn after_failure_wait(&mut self, now: Now, roll: f64) -> Duration {
        self.backoff.forgive_but_count();
        now.mono.saturating_add(self.backoff.next_wait(None, &self.settings, roll))
    }

    fn fail(&mut self, now: Now, error: FetchError, failure: Failure, roll: f64) {
        let runway = self.alive(now);
        self.backoff.failed(now, failure, runway, &self.settings, roll);
        let since = self.trouble.as_ref().map_or(now, |trouble| trouble.since);
        let next_try = system_time(now.wall.saturating_add(self.backoff.soft.saturating_sub(now.mono)));
        self.trouble = Some(Trouble { error: Arc::new(error), permanent: failure.permanent, since, next_try });
    }

    /// Puts what the token says of its end on both clocks, and notes what is odd about it.
    pub(super) fn dies(&mut self, token: &Token, asked: Now, now: Now) -> Option<Now> {
        let valid_in = token.not_before.map_or(Duration::ZERO, |at| since_epoch(at).saturating_sub(now.wall));
        let early = !valid_in.is_zero();
        if early && !self.warned_early {
            self.notes.push(Note::NotYetValid { valid_in });
        }
        self.warned_early = early;
        match dies(token, asked, now) {
            Ok(dies) => {
                self.warned_absurd = false;
                dies
            }
            Err(AbsurdExpiry) => {
                if !std::mem::replace(&mut self.warned_absurd, true) {
                    self.notes.push(Note::AbsurdExpiry);
                }
                None
            }
        }
    }

    fn note_born_dead(&mut self, now: Now, dies: Option<Now>) {
        if !std::mem::replace(&mut self.warned_skew, true) {
            let dead_for = dies.map_or(Duration::ZERO, |dies| now.wall.saturating_sub(dies.wall));
            self.notes.push(Note::BornDead { dead_for });
        }
    }
}
