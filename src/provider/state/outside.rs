//! Told from outside: a token pushed, a sign-out, the end.

use super::{Ended, Machine};
use crate::{Token, clock::Now, provider::schedule::Held};
use std::time::Duration;

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
