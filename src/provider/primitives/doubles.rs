//! The doubles, and why what holds with them holds without.
//!
//! A double promises at most what the thing it stands for promises, so whatever the real one may do to the shell, its double may
//! do as well, and more.
//!
//! | real | double | why that is sound |
//! | --- | --- | --- |
//! | `Mutex`, atomics | loom's | they are the model |
//! | `ArcSwap` | the number of the latest value in an atomic: release to store, acquire to load | arc-swap promises more, a read-modify-write that is sequentially consistent in every operation. Here a reader may also be shown a value that was replaced already, unless something that it knows of came later |
//! | `OnceLock` | a flag that is released once the value is written, and acquired to read it | as documented; who sets it second waits for the first in both |
//! | `Notify` | how often all were notified, read when a notification is created, and a list of wakers under a lock | acquire and release, as in tokio; `notify_waiters` reaches all that were created before it, polled or not, and `notify_one` leaves a permit |
//! | `watch` | the value under a lock, if a model asks in what order values are sent ([`watch`]) | as in tokio; that readers can wait for a change is left out: the shell never waits for them, nor reads what it sent |
//! | a task | a thread that polls it, and is parked until it is woken | tokio may move a task from thread to thread, but one poll comes after the other |
//! | time | stands still unless a model lets it pass ([`time`]) | less than what time may do: the other models show that nobody needs a timer, not what one does |
//!
//! `Arc` is std's. Its counters are no steps of the model: a handle is dropped in one step with what its thread did before. The one thing that
//! the shell decides by a counter is whether the loop still finds its provider; both answers occur, and the models let whoever drops a
//! handle take the lock first, so that it may happen in the middle of whatever the loop does. What is inside tokens, tracing and tower is not
//! modelled.

mod notify;
mod once;
mod published;
pub(crate) mod tasks;
pub(crate) mod time;
#[allow(unreachable_pub, reason = "`TokenProvider::subscribe` gives its receiver away")]
pub(crate) mod watch;

pub(crate) use loom::sync::{
    Mutex, MutexGuard,
    atomic::{AtomicBool, AtomicU64},
};
pub(crate) use notify::{Notify, OwnedNotified};
pub(crate) use once::OnceLock;
pub(crate) use published::{ArcSwap, Guard};
pub(crate) use tasks::{runtime, task};
pub(crate) use time::{Instant, Sleep};
