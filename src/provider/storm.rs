//! What keeps a server that rejects every token, or every token for one thing, from causing a fetch a request.
//!
//! Nothing tells a forbidden thing from a dead token but what else happens: a token that is rejected again right after it
//! was minted (*hasty*), and other requests that are accepted with the very same one.

use super::Settings;
use crate::{Generation, clock::Now};
use std::time::Duration;

/// A rejection this soon after the token was stored speaks against the server, not against the token.
const HASTY: Duration = Duration::from_secs(10);
/// How long an accepted request speaks for a token.
const EVIDENCE: Duration = Duration::from_secs(60);
const FIRST_WAIT: Duration = Duration::from_secs(60);
const LONGEST_WAIT: Duration = Duration::from_secs(3600);
const REMEMBERED: usize = 64;

pub(crate) fn is_hasty(now: Now, stored: Duration) -> bool {
    now.mono.saturating_sub(stored) < HASTY
}

/// How many flights in a row a hasty rejection began, and how long rejections begin no other.
#[derive(Clone, Debug, Default)]
pub(crate) struct Storm {
    pub(crate) count: u32,
    /// Start of the last flight begun on a rejection.
    pub(super) began: Option<Duration>,
    /// Drawn when the count last grew.
    pub(super) roll: f64,
    pub(crate) until: Duration,
}

impl Storm {
    pub(crate) fn calm(&mut self) {
        self.count = 0;
        self.until = Duration::ZERO;
    }

    /// One more hasty rejection began a flight, or hit a resend.
    pub(crate) fn add(&mut self, settings: &Settings, roll: f64) {
        self.count = self.count.saturating_add(1);
        self.roll = roll;
        self.wait(settings);
    }

    /// A flight begins because the token was rejected.
    pub(crate) fn begin(&mut self, now: Now, settings: &Settings) {
        self.began = Some(now.mono);
        self.wait(settings);
    }

    fn wait(&mut self, settings: &Settings) {
        self.until = match self.began {
            Some(began) if self.count > 0 => {
                began.saturating_add(settings.delay(self.count, self.roll).max(settings.min_interval))
            }
            _ => Duration::ZERO,
        };
    }

    /// The flight is lost: that is no answer of the source, so nobody waits for it.
    pub(crate) fn lost(&mut self) {
        self.until = Duration::ZERO;
    }
}

/// Things (origin, method and path, hashed) whose resend was rejected too.
///
/// Both halves are needed to let their 401s pass: a wait alone would lock out a dead token's healing for as long as it runs,
/// accepted requests alone, if they did not age, for good.
#[derive(Clone, Debug, Default)]
pub(crate) struct Resources(pub(super) Vec<Resource>);

#[derive(Clone, Debug)]
pub(super) struct Resource {
    pub(super) key: u64,
    pub(super) refused: Generation,
    pub(super) wait: Duration,
    pub(super) until: Duration,
}

impl Resources {
    pub(crate) fn keys(&self) -> Vec<u64> {
        self.0.iter().map(|resource| resource.key).collect()
    }

    /// A resend for it was rejected.
    pub(crate) fn remember(&mut self, now: Now, key: u64, refused: Generation) {
        if let Some(resource) = self.0.iter_mut().find(|resource| resource.key == key) {
            if now.mono >= resource.until {
                resource.again(now, refused);
            }
            return;
        }
        if self.0.len() == REMEMBERED {
            let first = (0..REMEMBERED).min_by_key(|at| self.0[*at].until).unwrap_or_default();
            self.0.swap_remove(first);
        }
        self.0.push(Resource { key, refused, wait: FIRST_WAIT, until: now.mono.saturating_add(FIRST_WAIT) });
    }

    /// `generation` was rejected at the first send for it: if that is a newer one, it was tried already, by the probe of
    /// another, and that is as good as a refused resend.
    pub(crate) fn tried(&mut self, now: Now, key: u64, generation: Generation) {
        let Some(resource) = self.0.iter_mut().find(|resource| resource.key == key) else { return };
        if generation <= resource.refused {
            return;
        }
        if now.mono >= resource.until {
            resource.again(now, generation);
        } else {
            resource.refused = generation;
            resource.until = now.mono.saturating_add(resource.wait);
        }
    }

    /// Is a rejection of the current token for it old news? `accepted` is when the last request that was accepted with that
    /// token was sent.
    pub(crate) fn is_old_news(&self, now: Now, key: u64, accepted: Option<Duration>) -> bool {
        self.0.iter().any(|resource| resource.key == key && now.mono < resource.until)
            && accepted.is_some_and(|sent| now.mono.saturating_sub(sent) < EVIDENCE)
    }

    /// It was accepted. True if it was remembered.
    pub(crate) fn forget(&mut self, key: u64) -> bool {
        let before = self.0.len();
        self.0.retain(|resource| resource.key != key);
        self.0.len() < before
    }

    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }
}

impl Resource {
    fn again(&mut self, now: Now, refused: Generation) {
        self.refused = refused;
        self.wait = self.wait.saturating_mul(2).min(LONGEST_WAIT);
        self.until = now.mono.saturating_add(self.wait);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Now {
        Now::default().after(Duration::from_secs(seconds))
    }

    fn accepted(seconds: u64) -> Option<Duration> {
        Some(Duration::from_secs(seconds))
    }

    #[test]
    fn a_remembered_resource_needs_its_wait_and_recent_evidence_to_pass() {
        let generation = Generation::new_provider();
        let mut resources = Resources::default();
        assert!(!resources.is_old_news(at(0), 7, accepted(0)), "not remembered");
        resources.remember(at(0), 7, generation);
        assert!(resources.is_old_news(at(59), 7, accepted(30)));
        assert!(!resources.is_old_news(at(59), 7, None), "nobody speaks for the token");
        assert!(!resources.is_old_news(at(60), 7, accepted(59)), "the wait is over");
        resources.remember(at(60), 7, generation);
        assert!(!resources.is_old_news(at(130), 7, accepted(70)), "old evidence");
        assert!(resources.is_old_news(at(179), 7, accepted(170)), "the wait doubled");
        assert!(!resources.is_old_news(at(59), 8, accepted(30)), "another resource");
    }

    #[test]
    fn inside_its_wait_a_refusal_changes_nothing_and_the_wait_ends_at_an_hour() {
        let generation = Generation::new_provider();
        let mut resources = Resources::default();
        let mut now = 0;
        for minutes in [1, 2, 4, 8, 16, 32, 60, 60] {
            resources.remember(at(now), 7, generation);
            resources.remember(at(now + 30), 7, generation);
            assert_eq!(resources.0[0].until, at(now + minutes * 60).mono);
            now += minutes * 60;
        }
    }

    #[test]
    fn a_newer_generation_refused_at_first_send_counts_as_a_probe() {
        let generation = Generation::new_provider();
        let mut resources = Resources::default();
        resources.remember(at(0), 7, generation);
        resources.tried(at(50), 7, generation.next());
        assert!(resources.is_old_news(at(109), 7, accepted(100)), "its wait began anew at 50 s");
        resources.tried(at(60), 7, generation.next());
        assert!(!resources.is_old_news(at(110), 7, accepted(100)), "the same one again is no probe");
        resources.tried(at(110), 7, generation.next().next());
        assert!(resources.is_old_news(at(229), 7, accepted(220)), "after its wait, the wait doubles");
        assert!(!resources.is_old_news(at(230), 7, accepted(220)));
    }

    #[test]
    fn the_sixty_fifth_takes_the_place_of_the_one_whose_wait_ends_first() {
        let generation = Generation::new_provider();
        let mut resources = Resources::default();
        for key in 0..65 {
            resources.remember(at(100 - key), key, generation);
        }
        assert_eq!(resources.0.len(), 64);
        assert!(!resources.keys().contains(&63) && resources.keys().contains(&64));
        assert!(resources.forget(64) && !resources.forget(64));
    }
}
