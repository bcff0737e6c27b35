//! What the shell's concurrency is made of: locks, atomics, the published snapshot, notifications, tasks, timers.
//!
//! The shell takes them from here alone, so that in tests under `--cfg jwt_refresh_loom` a model checker's doubles stand in, and the
//! shell itself, not a copy of it, goes through every interleaving of a situation (`scripts/loom`).

#[cfg(all(test, jwt_refresh_loom))]
pub(crate) mod doubles;

#[cfg(all(test, jwt_refresh_loom))]
pub(crate) use doubles::*;

#[cfg(not(all(test, jwt_refresh_loom)))]
pub(crate) use {
    arc_swap::{ArcSwap, Guard},
    std::sync::{
        Mutex, MutexGuard, OnceLock,
        atomic::{AtomicBool, AtomicU64},
    },
    tokio::{
        runtime,
        sync::{Notify, futures::OwnedNotified, watch},
        task,
        time::{self, Instant, Sleep},
    },
};
