//! What the fuzz targets share. Each target is one file in `targets/` and reaches the crate by its public API, but for the reading of a
//! program's output; `scripts/fuzz` builds and runs them.

pub mod endpoint;
pub mod json;

use std::{
    future::Future,
    time::{Duration, SystemTime},
};
use tokio::runtime::{Builder, Runtime};

thread_local! {
    static RUNTIME: Runtime = Builder::new_current_thread().enable_time().start_paused(true).build().expect("no I/O");
}

/// To its end, with the paused clock: what sleeps takes no time.
pub fn run<F: Future>(future: F) -> F::Output {
    RUNTIME.with(|runtime| runtime.block_on(future))
}

/// Where the wall clock stands in every target: 2026-01-01.
pub const NOW: u64 = 1_767_225_600;

/// So many seconds since 1970.
pub fn at(seconds: f64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs_f64(seconds)
}

/// The same moment, but for what two ways of rounding a fraction make of it.
pub fn same(one: SystemTime, other: SystemTime) -> bool {
    let apart = one.duration_since(other).or_else(|error| Ok::<_, ()>(error.duration())).unwrap_or_default();
    apart <= Duration::from_micros(1)
}
