//! The provider's settings, as the oracle knows them.

use fastrand::Rng;
use std::time::Duration;
use tower_jwt_refresh::{OnUnavailable, TokenProvider, TokenProviderBuilder};

#[derive(Clone, Copy, Debug)]
pub struct Settings {
    pub refresh_before: Duration,
    pub min_runway: Duration,
    pub min_interval: Duration,
    pub fetch_timeout: Duration,
    pub backoff: (Duration, Duration),
    pub on_unavailable: OnUnavailable,
    /// Is there a loop?
    pub init: bool,
    /// How many requests the client sends at once.
    pub permits: usize,
}

impl Settings {
    /// The defaults, mostly.
    pub fn draw(rng: &mut Rng) -> Self {
        let seconds = Duration::from_secs;
        let mut settings = Self {
            refresh_before: seconds(300),
            min_runway: seconds(60),
            min_interval: seconds(1),
            fetch_timeout: seconds(30),
            backoff: (seconds(1), seconds(60)),
            on_unavailable: match rng.u32(..6) {
                0 => OnUnavailable::SendLast,
                1 => OnUnavailable::SendWithout,
                _ => OnUnavailable::Fail,
            },
            init: rng.u32(..4) > 0,
            permits: [1_000_000, 1_000_000, 50, 3][rng.usize(..4)],
        };
        if rng.u32(..4) == 0 {
            settings.refresh_before = seconds(rng.u64(10..900));
            settings.min_runway = settings.refresh_before / rng.u32(1..10);
            settings.min_interval = Duration::from_millis(rng.u64(100..5_000));
            settings.fetch_timeout = seconds(rng.u64(3..60));
            let base = Duration::from_millis(rng.u64(200..5_000));
            settings.backoff = (base, base * rng.u32(1..100));
        }
        settings
    }

    pub fn builder(&self) -> TokenProviderBuilder {
        TokenProvider::builder()
            .refresh_before(self.refresh_before)
            .min_runway(self.min_runway)
            .min_interval(self.min_interval)
            .fetch_timeout(self.fetch_timeout)
            .backoff(self.backoff.0, self.backoff.1)
    }

    /// No caller waits longer for a flight.
    pub fn longest_wait(&self) -> Duration {
        self.min_interval + self.fetch_timeout
    }

    /// A flight of this age is lost.
    pub fn lost_after(&self) -> Duration {
        self.longest_wait() + Duration::from_secs(1)
    }
}
