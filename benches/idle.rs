//! A provider that nobody asks: how often its loop wakes, and what it weighs. `cargo bench --bench idle`.
//!
//! Each wake of the loop reads the clock, so a clock that counts its readings counts the wakes. Time is tokio's paused clock: hours
//! pass at once, and only timers end them.

mod support;

use allocation_counter::measure;
use std::{
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};
use support::{Report, request::secret};
use tokio::runtime::{Builder, Runtime};
use tower::{BoxError, service_fn};
use tower_jwt_refresh::{
    Token, TokenProvider, TokenRequest,
    clock::{Clock, ManualClock},
};

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
const PROVIDERS: u32 = 100_000;

struct Counting {
    clock: ManualClock,
    read: Arc<AtomicU32>,
}

impl Clock for Counting {
    fn wall(&self) -> SystemTime {
        self.read.fetch_add(1, Ordering::Relaxed);
        self.clock.wall()
    }

    fn monotonic(&self) -> Instant {
        self.read.fetch_add(1, Ordering::Relaxed);
        self.clock.monotonic()
    }
}

async fn source(asked: Arc<AtomicU32>) -> Result<Token, BoxError> {
    let number = asked.fetch_add(1, Ordering::Relaxed);
    Ok(Token::opaque(format!("{number:0>8}{}", &secret()[8..]))?.with_expires_in(HOUR))
}

/// Wakes in ten hours that were not for a refresh, and refreshes.
async fn wakes() -> (u32, u32) {
    let (read, asked) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
    let clock = Counting { clock: ManualClock::following_tokio(), read: Arc::clone(&read) };
    let count = Arc::clone(&asked);
    let provider = TokenProvider::builder()
        .clock(clock)
        .build(service_fn(move |_: TokenRequest| source(Arc::clone(&count))))
        .expect("legal settings");
    provider.init().await.expect("the source answers");
    let mut wakes = 0;
    for _ in 0..600 {
        let before = (read.load(Ordering::Relaxed), asked.load(Ordering::Relaxed));
        tokio::time::sleep(MINUTE).await;
        // A minute in which nothing was fetched.
        if asked.load(Ordering::Relaxed) == before.1 {
            wakes += read.load(Ordering::Relaxed) - before.0;
        }
    }
    (wakes, asked.load(Ordering::Relaxed))
}

/// Bytes that are held for so many providers with their loops and a token each.
fn weight(runtime: &Runtime) -> f64 {
    let mut all = Vec::with_capacity(PROVIDERS as usize);
    let asked = Arc::new(AtomicU32::new(0));
    let held = measure(|| {
        runtime.block_on(async {
            for _ in 0..PROVIDERS {
                let asked = Arc::clone(&asked);
                let source = service_fn(move |_: TokenRequest| source(Arc::clone(&asked)));
                let provider = TokenProvider::new(source);
                provider.init().await.expect("the source answers");
                all.push(provider);
            }
            tokio::time::sleep(MINUTE).await;
        });
    });
    assert_eq!(runtime.metrics().num_alive_tasks(), PROVIDERS as usize, "one loop each");
    f64::from(u32::try_from(held.bytes_current).expect("below 4 GiB"))
}

fn weight_of_a_token() -> f64 {
    let mut token = None;
    let held = measure(|| token = Token::opaque(secret()).ok());
    f64::from(u32::try_from(held.bytes_current).expect("about a kilobyte"))
}

fn main() -> ExitCode {
    let mut report = Report::from_args();
    let runtime = || Builder::new_current_thread().enable_time().start_paused(true).build().expect("no I/O");
    let (wakes, refreshes) = runtime().block_on(wakes());
    assert!(refreshes > 5, "a loop that does not refresh is no loop");
    report.exact(
        "idle provider with its loop: wakeups between refreshes",
        "<= 0",
        f64::from(wakes),
        "wakeups",
        &format!("in ten hours with {refreshes} fetches"),
    );
    let bytes = weight(&runtime());
    let (each, token) = (bytes / f64::from(PROVIDERS), weight_of_a_token());
    report.exact(
        "idle provider with its loop: memory beside its token",
        "<= 2048",
        each - token,
        "bytes",
        &format!("{each:.0} with a token of 900 bytes, which takes {token} wherever it is held"),
    );
    report.at_least_as_good(
        "idle provider with its loop: 100,000 of them with their tokens",
        "<= 200",
        "<= 315",
        bytes / 1e6,
        "MB",
        "900 bytes of each are the token's text",
    );
    report.end()
}
