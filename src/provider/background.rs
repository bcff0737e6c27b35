//! The loop that refreshes a token which nobody asks for.
//!
//! It sleeps until the machine has something due, never awaits a flight, and holds the provider weakly: it ends with the last
//! handle. If its runtime goes first, the guard says so, and the next caller that starts a flight starts it anew.

use super::{
    Handle,
    primitives::{AtomicBool, Notify, runtime, time},
};
use std::sync::{Arc, Weak, atomic::Ordering};

/// Is a loop wanted, and is there one?
#[derive(Debug, Default)]
pub(super) struct Background {
    wanted: AtomicBool,
    alive: Arc<AtomicBool>,
}

impl Background {
    /// Starts the loop if there is none. False: no runtime.
    pub(super) fn start(&self, handle: &Arc<Handle>) -> bool {
        let Ok(runtime) = runtime::Handle::try_current() else { return false };
        // Relaxed, here and below: each flag stands alone, and a loop started a moment later does the same work.
        self.wanted.store(true, Ordering::Relaxed);
        if !self.alive.swap(true, Ordering::Relaxed) {
            let alive = Alive(Arc::clone(&self.alive));
            drop(runtime.spawn(run(alive, Arc::downgrade(handle), Arc::clone(&handle.core.wake))));
        }
        true
    }

    /// Starts it anew if it went with its runtime.
    pub(super) fn revive(&self, handle: &Arc<Handle>) {
        if self.wanted.load(Ordering::Relaxed) && !self.alive.load(Ordering::Relaxed) {
            self.start(handle);
        }
    }
}

struct Alive(Arc<AtomicBool>);

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

async fn run(alive: Alive, handle: Weak<Handle>, wake: Arc<Notify>) {
    loop {
        let Some(strong) = handle.upgrade() else { break };
        let sleep = strong.core.tick();
        drop(strong);
        // A change of plan while it ticked is not missed: `notify_one` leaves a permit.
        match sleep {
            Some(sleep) => drop(time::timeout(sleep, wake.notified()).await),
            None => wake.notified().await,
        }
    }
    drop(alive);
}
