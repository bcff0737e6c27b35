//! What the shell's concurrency is made of: locks, atomics, the published snapshot, notifications, tasks, timers.

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
