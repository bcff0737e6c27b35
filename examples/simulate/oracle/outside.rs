//! What is done to the provider from outside: a token pushed, a sign-out, clocks set, runtimes dropped.

use super::{
    Oracle, SLACK,
    held::{Held, Says},
};
use crate::clock::{Moment, SimClock};

impl Oracle {
    pub fn seeded(&mut self, token: u32, says: Says) {
        let now = self.clock.now();
        self.store(now, token, says, true);
    }

    /// `set`: it "stores the token under a new generation, drops a flight begun before it, forgets remembered resources, sets the
    /// storm count to 0 and ends all waits but a `Retry-After`".
    pub fn pushed(&mut self, token: u32, says: Says) {
        let now = self.clock.now();
        self.start_over();
        self.disturbed = now.mono;
        self.signed_out = false;
        self.store(now, token, says, false);
        self.settle(now, false);
        // A set token reaches who waits even where the one before it was good.
        self.last_landing = Some(now.mono);
    }

    pub fn cleared(&mut self) {
        let now = self.clock.now();
        self.start_over();
        self.signed_out = true;
        self.held = None;
        self.settle(now, false);
    }

    fn store(&mut self, now: Moment, token: u32, says: Says, seed: bool) {
        let generation = self.next_generation();
        self.generation_of.insert(token, generation);
        let dies = says.dies(now, now);
        let mut held = Held::new(token, generation, dies, None, now);
        let life = held.runway(now);
        if !seed && dies.is_some() {
            held = Held::new(token, generation, dies, Some(life), now);
        }
        self.held = Some(held);
    }

    fn start_over(&mut self) {
        self.fetches.values_mut().for_each(|fetch| fetch.void = true);
        self.resources.clear();
        self.storm.calm();
        self.waits.forgive();
    }

    /// Lets the clocks jump.
    pub fn jump(&mut self, jump: impl FnOnce(&SimClock)) {
        let before = self.look();
        let bad = !self.is_good(before);
        jump(&self.clock);
        let now = self.clock.now();
        (self.last_jump, self.disturbed) = (Some(now.mono), now.mono);
        if bad {
            self.last_bad = now.mono;
        }
        self.settle(now, true);
    }

    /// Another runtime is driven from now on.
    pub fn moves(&mut self, frozen: bool, freezes: bool) {
        let now = self.look();
        (self.disturbed, self.loop_lives, self.frozen) = (now.mono, false, frozen);
        if freezes {
            self.freezes += 1;
            self.last_freeze = Some(now.mono);
        }
        // A flight may have begun and slept: it ends with its runtime, and counts.
        if self.last_hasty.is_some_and(|at| at + self.settings.min_interval + SLACK >= now.mono) {
            self.storm.began.most = now.mono;
            self.storm.add(0, 1, &self.settings);
        }
    }
}
