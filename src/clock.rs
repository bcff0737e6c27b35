//! The two clocks that decide whether a token lives.
//!
//! A token is dead when *either* clock says so: the wall clock sees a machine that was suspended (on most systems the
//! monotonic clock stands still meanwhile), the monotonic clock sees a wall clock that was set back.

use std::time::{Duration, Instant, SystemTime};

/// Tells the time, on both clocks.
///
/// Only what the time *is* comes from here; all sleeping is tokio's. Implement it to drive expiry in a test, or take
/// `ManualClock` (feature `test-util`). Nothing is assumed of either clock: both may jump, forwards and backwards.
pub trait Clock: Send + Sync + 'static {
    /// The wall clock, in which a JWT's `exp` is written (RFC 7519 section 4.1.4).
    fn wall(&self) -> SystemTime;
    /// A clock that nobody sets.
    fn monotonic(&self) -> Instant;
}

/// The machine's clocks: [`SystemTime::now`] and tokio's [`Instant`](tokio::time::Instant), which is the operating
/// system's but for a test that paused it.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn wall(&self) -> SystemTime {
        SystemTime::now()
    }

    fn monotonic(&self) -> Instant {
        tokio::time::Instant::now().into_std()
    }
}

impl<C: Clock + ?Sized> Clock for std::sync::Arc<C> {
    fn wall(&self) -> SystemTime {
        (**self).wall()
    }

    fn monotonic(&self) -> Instant {
        (**self).monotonic()
    }
}

/// Both clocks, read once for one event.
///
/// Spans since a fixed start instead of `SystemTime` and `Instant`: they can be compared, saturate, and a clock before its start
/// reads as zero instead of panicking.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(crate) struct Now {
    /// Since the Unix epoch.
    pub(crate) wall: Duration,
    /// Since the provider was built, on the monotonic clock.
    pub(crate) mono: Duration,
}

impl Now {
    /// Later than any moment: what has no known end lives until then.
    pub(crate) const NEVER: Now = Now { wall: Duration::MAX, mono: Duration::MAX };

    /// Both clocks ahead by `span`.
    pub(crate) fn after(self, span: Duration) -> Now {
        Now { wall: self.wall.saturating_add(span), mono: self.mono.saturating_add(span) }
    }

    /// Both clocks back by `span`, zero (always over) where there is less.
    pub(crate) fn before(self, span: Duration) -> Now {
        Now { wall: self.wall.saturating_sub(span), mono: self.mono.saturating_sub(span) }
    }

    /// What is left until `end`, by the clock that leaves less.
    pub(crate) fn until(self, end: Now) -> Duration {
        end.wall.saturating_sub(self.wall).min(end.mono.saturating_sub(self.mono))
    }

    /// True while neither clock has reached `end`: what readers are told by a [`Horizon`].
    #[cfg(test)]
    pub(crate) fn is_before(self, end: Now) -> bool {
        self.mono < end.mono && self.wall < end.wall
    }
}

/// A user's clock as the provider reads it: [`Now`] instead of two foreign types.
pub(crate) struct Clocks {
    clock: Box<dyn Clock>,
    start: Instant,
}

impl Clocks {
    pub(crate) fn new(clock: Box<dyn Clock>) -> Self {
        let start = clock.monotonic();
        Self { clock, start }
    }

    pub(crate) fn now(&self) -> Now {
        Now { wall: since_epoch(self.clock.wall()), mono: self.clock.monotonic().saturating_duration_since(self.start) }
    }
}

/// A moment that the request path compares with both clocks as they are read, without arithmetic. None has passed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Horizon(Option<(Instant, SystemTime)>);

/// What has no known end ends here, and is looked at again: further than any clock will show, and no overflow.
const FAR: Duration = Duration::from_secs(100 * 366 * 24 * 3600);

impl Clocks {
    pub(crate) fn horizon(&self, end: Now) -> Horizon {
        // Zero is always over, also for a clock before its start.
        if end.mono.is_zero() || end.wall.is_zero() {
            return Horizon(None);
        }
        let mono = self.start.checked_add(end.mono.min(FAR));
        Horizon(mono.zip(system_time(end.wall.min(2 * FAR))))
    }

    /// True while neither clock has reached it.
    pub(crate) fn is_before(&self, horizon: Horizon) -> bool {
        horizon.0.is_some_and(|(mono, wall)| self.clock.monotonic() < mono && self.clock.wall() < wall)
    }
}

#[cfg(all(test, jwt_refresh_loom))]
impl Horizon {
    pub(crate) fn left(self, now: Instant) -> Duration {
        self.0.map_or(Duration::ZERO, |(mono, _)| mono.saturating_duration_since(now))
    }
}

/// A wall clock's reading as a span; before 1970 is zero.
pub(crate) fn since_epoch(time: SystemTime) -> Duration {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}

/// The way back; what no `SystemTime` can hold is none.
pub(crate) fn system_time(wall: Duration) -> Option<SystemTime> {
    SystemTime::UNIX_EPOCH.checked_add(wall)
}

#[cfg(feature = "test-util")]
pub use manual::ManualClock;

#[cfg(feature = "test-util")]
mod manual {
    use super::Clock;
    use std::{
        sync::{Arc, Mutex, PoisonError},
        time::{Duration, Instant, SystemTime},
    };

    /// Clocks that a test sets by hand; clones share them.
    ///
    /// [`new`](Self::new) stands still until told: for real sockets and several runtimes. [`following_tokio`](Self::following_tokio) goes
    /// along with tokio's (paused) clock, so that expiry and sleeps agree; jumps come on top of it.
    ///
    /// ```
    /// # use std::time::Duration;
    /// use tower_jwt_refresh::clock::{Clock, ManualClock};
    ///
    /// let clock = ManualClock::new();
    /// let before = clock.wall();
    /// clock.advance(Duration::from_secs(60));
    /// assert_eq!(clock.wall(), before + Duration::from_secs(60));
    /// ```
    #[derive(Clone, Debug)]
    pub struct ManualClock(Arc<Mutex<Hands>>);

    #[derive(Debug)]
    struct Hands {
        wall: SystemTime,
        monotonic: Instant,
        follows: Option<Instant>,
    }

    impl ManualClock {
        /// Both clocks stand still. The wall clock shows 2026-01-01T00:00:00Z.
        #[must_use]
        #[allow(clippy::new_without_default, reason = "which of two clocks a default would be is not obvious")]
        pub fn new() -> Self {
            Self::starting(None)
        }

        /// Both clocks go as tokio's does from now on.
        #[must_use]
        pub fn following_tokio() -> Self {
            Self::starting(Some(tokio::time::Instant::now().into_std()))
        }

        fn starting(follows: Option<Instant>) -> Self {
            Self(Arc::new(Mutex::new(Hands {
                wall: SystemTime::UNIX_EPOCH + Duration::from_secs(1_767_225_600),
                monotonic: follows.unwrap_or_else(Instant::now),
                follows,
            })))
        }

        /// Time passes: both clocks go ahead.
        pub fn advance(&self, by: Duration) {
            self.change(|hands| {
                hands.wall += by;
                hands.monotonic += by;
            });
        }

        /// Only the wall clock goes ahead: set by hand, or a machine that was suspended.
        pub fn jump_wall_ahead(&self, by: Duration) {
            self.change(|hands| hands.wall += by);
        }

        /// Only the wall clock goes back.
        pub fn jump_wall_back(&self, by: Duration) {
            self.change(|hands| hands.wall -= by);
        }

        /// The monotonic clock goes back, which none should: for tests of what happens if one does.
        pub fn jump_monotonic_back(&self, by: Duration) {
            self.change(|hands| hands.monotonic = hands.monotonic.checked_sub(by).unwrap_or(hands.monotonic));
        }

        fn change<T>(&self, change: impl FnOnce(&mut Hands) -> T) -> T {
            let mut hands = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            change(&mut hands)
        }

        fn passed(hands: &Hands) -> Duration {
            hands
                .follows
                .map_or(Duration::ZERO, |start| tokio::time::Instant::now().into_std().saturating_duration_since(start))
        }
    }

    impl Clock for ManualClock {
        fn wall(&self) -> SystemTime {
            self.change(|hands| hands.wall + Self::passed(hands))
        }

        fn monotonic(&self) -> Instant {
            self.change(|hands| hands.monotonic + Self::passed(hands))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    #[derive(Clone, Copy)]
    struct Stopped(SystemTime, Instant);

    impl Clock for Stopped {
        fn wall(&self) -> SystemTime {
            self.0
        }

        fn monotonic(&self) -> Instant {
            self.1
        }
    }

    #[test]
    fn what_is_over_is_so_for_a_clock_that_runs_backwards_too() {
        let (start, second) = (Instant::now(), Duration::from_secs(1));
        let before =
            Stopped(SystemTime::UNIX_EPOCH - second, start.checked_sub(second).expect("not in the first second"));
        let clocks = Clocks { clock: Box::new(before), start };
        for end in [Now { wall: Duration::ZERO, mono: HOUR }, Now { wall: HOUR, mono: Duration::ZERO }] {
            assert!(!clocks.is_before(clocks.horizon(end)), "{end:?}");
        }
        assert!(clocks.is_before(clocks.horizon(Now { wall: HOUR, mono: HOUR })));
    }

    #[test]
    fn what_has_no_known_end_is_not_over_within_a_lifetime() {
        let (start, ninety_years) = (Instant::now(), Duration::from_secs(90 * 31_557_600));
        let then = Stopped(SystemTime::UNIX_EPOCH + ninety_years, start + ninety_years);
        let clocks = Clocks { clock: Box::new(then), start };
        assert!(clocks.is_before(clocks.horizon(Now::NEVER)));
    }

    #[cfg(feature = "test-util")]
    #[test]
    fn the_hands_of_a_manual_clock_move_as_they_are_told() {
        let clock = ManualClock::new();
        let (wall, monotonic) = (clock.wall(), clock.monotonic());
        let reads = || (clock.wall().duration_since(wall).unwrap(), clock.monotonic().duration_since(monotonic));
        clock.advance(2 * HOUR);
        assert_eq!(reads(), (2 * HOUR, 2 * HOUR));
        clock.jump_monotonic_back(HOUR);
        assert_eq!(reads(), (2 * HOUR, HOUR));
        clock.jump_wall_back(2 * HOUR);
        assert_eq!(reads(), (Duration::ZERO, HOUR));
        clock.jump_wall_ahead(HOUR);
        assert_eq!(reads(), (HOUR, HOUR));
    }

    #[test]
    fn a_horizon_is_passed_when_either_clock_has_reached_the_moment_it_stands_for() {
        let (second, start) = (Duration::from_secs(1), Instant::now());
        let ends = [Duration::ZERO, second, HOUR, Duration::MAX];
        for (wall, mono) in ends.into_iter().flat_map(|wall| ends.map(|mono| (wall, mono))) {
            let end = Now { wall, mono };
            for (wall, mono) in [(0, 0), (1, 0), (0, 1), (3599, 3599), (3600, 3599), (3599, 3600), (7200, 7200)] {
                let (wall, mono) = (Duration::from_secs(wall), Duration::from_secs(mono));
                let shows = |mono| Stopped(SystemTime::UNIX_EPOCH + wall, mono);
                let clocks = Clocks { clock: Box::new(shows(start + mono)), start };
                assert_eq!(
                    clocks.is_before(clocks.horizon(end)),
                    Now { wall, mono }.is_before(end),
                    "{mono:?} {end:?}"
                );
            }
        }
        // Scenario 86: clocks before their start.
        let clocks = Clocks { clock: Box::new(Stopped(SystemTime::UNIX_EPOCH - HOUR, start)), start: start + HOUR };
        assert!(clocks.is_before(clocks.horizon(clocks.now().after(second))));
        assert!(!clocks.is_before(clocks.horizon(Now::default())), "zero is always over");
    }

    #[test]
    fn the_clock_that_leaves_less_decides() {
        let now = Now { wall: HOUR * 10, mono: HOUR };
        let end = Now { wall: HOUR * 12, mono: HOUR * 2 };
        assert_eq!(now.until(end), HOUR);
        assert_eq!(Now { wall: HOUR * 13, ..now }.until(end), Duration::ZERO);
        assert!(now.is_before(end));
        assert!(!Now { wall: HOUR * 12, ..now }.is_before(end));
        assert!(!Now { mono: HOUR * 2, ..now }.is_before(end));
    }

    #[test]
    fn a_wall_clock_before_the_epoch_reads_as_the_epoch() {
        assert_eq!(since_epoch(SystemTime::UNIX_EPOCH - HOUR), Duration::ZERO);
    }

    #[test]
    fn the_ends_of_time_neither_panic_nor_wrap() {
        assert_eq!(Now::NEVER.after(HOUR), Now::NEVER);
        assert_eq!(Now::default().before(HOUR), Now::default());
        assert_eq!(system_time(Duration::MAX), None);
    }
}
