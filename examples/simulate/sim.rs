//! What all parts of a run share: one state behind one lock, which is never held while the provider is called or awaited.

use crate::{clock::SimClock, oracle::Oracle, plan::Wrong, server::Tokens, settings::Settings};
use fastrand::Rng;
use std::{
    fmt,
    sync::{Mutex, MutexGuard, PoisonError},
};

pub struct Sim {
    pub clock: SimClock,
    pub settings: Settings,
    verbose: bool,
    state: Mutex<State>,
}

pub struct State {
    pub rng: Rng,
    pub wrong: Wrong,
    pub tokens: Tokens,
    pub oracle: Oracle,
    /// Requests that the server has.
    pub served: usize,
}

impl Sim {
    pub fn new(seed: u64, verbose: bool) -> Self {
        let mut rng = Rng::with_seed(seed);
        let clock = SimClock::new();
        let settings = Settings::draw(&mut rng);
        if verbose {
            println!("{settings:?}");
        }
        let oracle = Oracle::new(settings, clock.clone(), verbose);
        let (wrong, tokens) = (Wrong::default(), Tokens::draw(&mut rng));
        Self { clock, settings, verbose, state: Mutex::new(State { rng, wrong, tokens, oracle, served: 0 }) }
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        // A part that panics does so without the lock, or the run is over.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn with<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        act(&mut self.state())
    }

    pub fn trace(&self, what: impl fmt::Display) {
        if self.verbose {
            let now = self.clock.now();
            let seconds = now.mono.as_millis();
            println!(
                "{:>4}:{:02}:{:02}.{:03}  {what}",
                seconds / 3_600_000,
                seconds / 60_000 % 60,
                seconds / 1000 % 60,
                seconds % 1000
            );
        }
    }
}
