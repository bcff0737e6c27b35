//! A server refused a token: is it replaced, does the caller wait, or is the refusal the caller's?

use super::{Decision, Machine};
use crate::{
    Generation,
    clock::Now,
    provider::{
        schedule::{Band, Standing},
        storm::is_hasty,
    },
    source::Reason,
};
use std::{sync::Arc, time::Duration};

/// Somebody saw the server refuse a token.
#[derive(Debug, Default)]
pub(crate) struct Rejection {
    /// It was a resend's.
    pub(crate) resent: bool,
    pub(crate) resource: Option<u64>,
    /// When the last request that was accepted with the current generation was sent.
    pub(crate) accepted: Option<Duration>,
    pub(crate) challenge: Option<Arc<str>>,
}

impl Machine {
    /// A server refused `generation`.
    pub(crate) fn rejected(&mut self, now: Now, generation: Generation, rejection: Rejection, roll: f64) -> Decision {
        let now = self.observe(now);
        if self.ended.is_some() {
            return Decision::Pass { start: None };
        }
        let Some(held) = self.held.as_mut().filter(|held| held.token.generation() == generation) else {
            return self.replacement(now);
        };
        let hasty = is_hasty(now, held.stored);
        if let Some(key) = rejection.resource {
            if !rejection.resent {
                self.resources.tried(now, key, generation);
            }
            if self.resources.is_old_news(now, key, rejection.accepted) {
                return Decision::Pass { start: None };
            }
            if rejection.resent {
                self.resources.remember(now, key, generation);
                self.version += 1;
            }
        }
        if rejection.resent && hasty {
            held.refused = true;
            if !std::mem::replace(&mut held.counted, true) {
                self.storm.add(&self.settings, roll);
            }
            return Decision::Pass { start: None };
        }
        if !std::mem::replace(&mut held.refused, true) && !hasty {
            self.storm.calm();
        }
        let standing = if self.storm.count == 0 { Standing::Marked } else { Standing::Suspect };
        if held.standing < standing {
            held.standing = standing;
            self.version += 1;
        }
        let stormy = now.mono < self.storm.until || now.mono < self.backoff.hard;
        if self.flight.is_none() && stormy {
            return Decision::Pass { start: None };
        }
        let start = self.join(now, Reason::Rejected);
        if let (Some(_), Some(flight)) = (start, &mut self.flight) {
            flight.challenge = rejection.challenge;
            if hasty {
                self.storm.add(&self.settings, roll);
            }
        }
        // A resend's rejection heals the next request, not this one.
        if rejection.resent { Decision::Pass { start } } else { Decision::Wait { start, at_most: None } }
    }

    /// A request carried an older or another provider's token: it wants the current one, nothing more.
    pub(super) fn replacement(&mut self, now: Now) -> Decision {
        let marked = self.band(now) == Band::Marked;
        match self.asked(now) {
            Decision::Unavailable(_) => Decision::Pass { start: None },
            Decision::Send { start, .. } if marked => Decision::Pass { start },
            decision => decision,
        }
    }

    /// A server took a request for something that is remembered.
    pub(crate) fn accepted(&mut self, key: u64) {
        if self.resources.forget(key) {
            self.version += 1;
        }
    }
}
