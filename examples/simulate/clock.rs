//! One stretch of time across all runtimes of a run, and the machine's two clocks over it.
//!
//! Each runtime has a paused clock of its own; this one goes along with that of the runtime that is being driven, and stands still
//! between two of them. The servers have the true time. The machine's wall clock is ahead of or behind that, and its monotonic clock does
//! not see a suspension.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant, SystemTime},
};
use tower_jwt_refresh::clock::Clock;

/// 2026-01-01T00:00:00Z.
const START: Duration = Duration::from_secs(1_767_225_600);

/// Clones are the same clock.
#[derive(Clone)]
pub struct SimClock(Arc<Mutex<Hands>>);

struct Hands {
    origin: Instant,
    /// Up to when the runtime of now was entered.
    passed: Duration,
    /// That runtime's clock as it was entered; none between two.
    entered: Option<tokio::time::Instant>,
    suspended: Duration,
    ahead: Duration,
    behind: Duration,
}

/// One moment, on all clocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moment {
    /// The machine's monotonic clock, from zero.
    pub mono: Duration,
    /// The machine's wall clock, since the epoch.
    pub wall: Duration,
    /// The servers' clock, since the epoch.
    pub truth: Duration,
}

impl SimClock {
    pub fn new() -> Self {
        Self(Arc::new(Mutex::new(Hands {
            origin: Instant::now(),
            passed: Duration::ZERO,
            entered: None,
            suspended: Duration::ZERO,
            ahead: Duration::ZERO,
            behind: Duration::ZERO,
        })))
    }

    pub fn now(&self) -> Moment {
        let hands = self.hands();
        let mono = hands.mono();
        let truth = START + mono + hands.suspended;
        Moment { mono, truth, wall: truth + hands.ahead - hands.behind }
    }

    /// From now on time goes as this runtime's clock does.
    pub fn enter(&self) {
        self.hands().entered = Some(tokio::time::Instant::now());
    }

    /// The runtime is not driven any more.
    pub fn leave(&self) {
        let mut hands = self.hands();
        hands.passed = hands.mono();
        hands.entered = None;
    }

    /// The machine sleeps: only the monotonic clock does not notice.
    pub fn suspend(&self, span: Duration) {
        self.hands().suspended += span;
    }

    pub fn set_wall_ahead(&self, by: Duration) {
        self.hands().ahead += by;
    }

    pub fn set_wall_back(&self, by: Duration) {
        self.hands().behind += by;
    }

    /// The wall clock shows the true time again.
    pub fn set_wall_right(&self) {
        let mut hands = self.hands();
        (hands.ahead, hands.behind) = (Duration::ZERO, Duration::ZERO);
    }

    /// How many hold it.
    pub fn holders(&self) -> usize {
        Arc::strong_count(&self.0)
    }

    fn hands(&self) -> MutexGuard<'_, Hands> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Hands {
    fn mono(&self) -> Duration {
        self.passed + self.entered.map_or(Duration::ZERO, |entered| tokio::time::Instant::now() - entered)
    }
}

impl Clock for SimClock {
    fn wall(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + self.now().wall
    }

    fn monotonic(&self) -> Instant {
        let hands = self.hands();
        hands.origin + hands.mono()
    }
}
