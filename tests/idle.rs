//! A provider that nobody asks does nothing between two refreshes.

mod support;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::{Instant, SystemTime},
};
use support::{Endpoint, MINUTE, SECOND, pass};
use tower_jwt_refresh::{
    TokenProvider,
    clock::{Clock, ManualClock},
};

/// Whoever wakes reads it.
struct Read {
    clock: ManualClock,
    times: Arc<AtomicU32>,
}

impl Clock for Read {
    fn wall(&self) -> SystemTime {
        self.times.fetch_add(1, Ordering::Relaxed);
        self.clock.wall()
    }

    fn monotonic(&self) -> Instant {
        self.clock.monotonic()
    }
}

async fn wakes_between_refreshes(started_by_a_caller: bool) {
    let endpoint = Endpoint::hourly().taking(2 * SECOND);
    let times = Arc::new(AtomicU32::new(0));
    let clock = Read { clock: ManualClock::following_tokio(), times: Arc::clone(&times) };
    let provider = TokenProvider::builder().clock(clock).build(endpoint.source()).unwrap();
    provider.init().await.unwrap();
    if started_by_a_caller {
        pass(MINUTE).await;
        provider.refresh().await.unwrap();
    }
    for _ in 0..3 {
        let (before, fetches) = (times.load(Ordering::Relaxed), endpoint.fetches());
        // Long past the moment at which the flight would have been lost, and nearly to the next.
        pass(54 * MINUTE).await;
        assert_eq!(times.load(Ordering::Relaxed) - before, 0, "reads of the clock");
        while endpoint.fetches() == fetches {
            pass(SECOND).await;
        }
        // It lands.
        pass(3 * SECOND).await;
    }
}

#[tokio::test(start_paused = true)]
async fn the_loop_does_not_wake_between_two_refreshes() {
    wakes_between_refreshes(false).await;
}

#[tokio::test(start_paused = true)]
async fn the_loop_does_not_wake_after_a_flight_that_a_caller_started() {
    wakes_between_refreshes(true).await;
}
