//! When the source may be asked again after it failed, or brought nothing new.
//!
//! Two moments on the monotonic clock: before `hard` nobody may start a flight, before `soft` nobody whose token lives and was
//! not rejected. A failure sets both, a fetch without progress only the second: who needs a token is never turned away by a
//! healthy endpoint.

use super::Settings;
use crate::clock::Now;
use std::time::Duration;

/// What somebody must repair is asked for this often while nobody is in need.
const SELDOM: Duration = Duration::from_secs(15 * 60);
/// The same for a caller in need, so that a repair is noticed within a minute.
const IN_NEED: Duration = Duration::from_secs(60);
/// A `Retry-After` of a broken or hostile endpoint may neither hurry nor lame us.
const RETRY_AFTER: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(300));

#[derive(Clone, Debug, Default)]
pub(crate) struct Backoff {
    /// Fetches in a row that brought no new token.
    pub(super) streak: u32,
    /// Nobody starts a flight before.
    pub(crate) hard: Duration,
    /// Nor, before this, the loop or a caller with a living, unmarked token.
    pub(crate) soft: Duration,
    /// The part of both that an endpoint asked for; nothing ends it.
    pub(crate) retry_after: Duration,
}

/// How a fetch failed, as far as the next one is concerned.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Failure {
    pub(crate) permanent: bool,
    pub(crate) retry_after: Option<Duration>,
}

impl Backoff {
    pub(crate) fn is_failing(&self) -> bool {
        self.streak > 0
    }

    pub(crate) fn succeeded(&mut self) {
        *self = Self::default();
    }

    /// The endpoint works, but has nothing better than what is held.
    pub(crate) fn no_progress(&mut self, now: Now, runway: Option<Duration>, settings: &Settings, roll: f64) {
        let wait = self.next_wait(runway, settings, roll);
        *self = Self { streak: self.streak, soft: now.mono.saturating_add(wait), ..Self::default() };
    }

    pub(crate) fn failed(
        &mut self,
        now: Now,
        failure: Failure,
        runway: Option<Duration>,
        settings: &Settings,
        roll: f64,
    ) {
        let wait = self.next_wait(runway, settings, roll);
        let (hard, soft) = if failure.permanent { (held_to(IN_NEED, runway, settings), SELDOM) } else { (wait, wait) };
        let at = |wait: Duration| now.mono.saturating_add(wait);
        self.retry_after =
            failure.retry_after.map_or(Duration::ZERO, |wait| at(wait.clamp(RETRY_AFTER.0, RETRY_AFTER.1)));
        self.hard = at(hard).max(self.retry_after);
        self.soft = at(soft).max(self.hard);
    }

    /// The wait that a failure right now would bring; it counts as one.
    pub(crate) fn next_wait(&mut self, runway: Option<Duration>, settings: &Settings, roll: f64) -> Duration {
        self.streak = self.streak.saturating_add(1);
        held_to(settings.delay(self.streak, roll), runway, settings)
    }

    /// A token came, but it says it is dead: nothing is shut, and yet the next wait is longer.
    pub(crate) fn forgive_but_count(&mut self) {
        *self = Self { streak: self.streak, ..Self::default() };
    }

    /// Somebody changed the world from outside: no reason to wait any longer, but where the endpoint asked for it.
    pub(crate) fn forgive(&mut self) {
        let retry_after = self.retry_after;
        *self = Self { hard: retry_after, soft: retry_after, retry_after, ..Self::default() };
    }
}

/// Half of the time left, so that a token does not die while its successor is only waited for; never a hammer.
fn held_to(wait: Duration, runway: Option<Duration>, settings: &Settings) -> Duration {
    runway.map_or(wait, |runway| wait.min(runway / 2)).max(settings.min_interval)
}

impl Settings {
    /// The `count`-th delay in a row: exponential from the base to the cap, with half jitter (50..100 %).
    pub(crate) fn delay(&self, count: u32, roll: f64) -> Duration {
        let (base, cap) = self.backoff;
        // From 2^31 on every base of a second or more is at any cap; a smaller base saturates a little later.
        let factor = 1u32 << count.saturating_sub(1).min(31);
        base.saturating_mul(factor).min(cap).mul_f64(0.5 + 0.5 * roll.clamp(0.0, 1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hundred_failures_in_a_row_keep_the_delay_above_zero_and_at_most_the_cap() {
        // aws/aws-sdk-java-v2#6805: a shift overflowed and the next refresh was millions of years away.
        let settings = Settings::default();
        let mut backoff = Backoff::default();
        let mut now = Now::default();
        for failures in 1..=100 {
            backoff.failed(now, Failure::default(), None, &settings, 1.0);
            let wait = backoff.hard - now.mono;
            assert_eq!(wait, Duration::from_secs(1 << (failures - 1).min(6)).min(Duration::from_secs(60)));
            now = now.after(wait);
        }
        backoff.succeeded();
        backoff.failed(now, Failure::default(), None, &settings, 0.0);
        assert_eq!(backoff.hard - now.mono, Duration::from_secs(1), "small again, min_interval is the least");
    }

    #[test]
    fn jitter_takes_up_to_half() {
        let settings = Settings::default();
        assert_eq!(settings.delay(7, 0.0), Duration::from_secs(30));
        assert_eq!(settings.delay(7, 1.0), Duration::from_secs(60));
        assert_eq!(settings.delay(u32::MAX, 1.0), Duration::from_secs(60));
    }

    #[test]
    fn a_living_token_shortens_the_wait_to_half_of_what_it_has_left() {
        let settings = Settings::default();
        let mut backoff = Backoff { streak: 10, ..Backoff::default() };
        backoff.failed(Now::default(), Failure::default(), Some(Duration::from_secs(20)), &settings, 1.0);
        assert_eq!(backoff.hard, Duration::from_secs(10));
        backoff.failed(Now::default(), Failure::default(), Some(Duration::from_millis(20)), &settings, 1.0);
        assert_eq!(backoff.hard, settings.min_interval);
    }

    #[test]
    fn a_retry_after_is_a_floor_held_to_1_and_300_seconds() {
        let settings = Settings::default();
        let wait = |seconds, streak| {
            let mut backoff = Backoff { streak, ..Backoff::default() };
            let failure = Failure { retry_after: Some(Duration::from_secs(seconds)), permanent: false };
            backoff.failed(Now::default(), failure, None, &settings, 1.0);
            backoff.hard.as_secs()
        };
        assert_eq!(wait(20, 0), 20);
        assert_eq!(wait(1_000_000, 0), 300);
        assert_eq!(wait(0, 0), 1);
        assert_eq!(wait(1, 9), 60, "it only ever lengthens the wait");
    }

    #[test]
    fn what_somebody_must_repair_is_asked_for_seldom_and_each_minute_in_need() {
        let mut backoff = Backoff::default();
        let failure = Failure { permanent: true, retry_after: None };
        backoff.failed(Now::default(), failure, None, &Settings::default(), 0.5);
        assert_eq!((backoff.hard.as_secs(), backoff.soft.as_secs()), (60, 900));
    }
}
