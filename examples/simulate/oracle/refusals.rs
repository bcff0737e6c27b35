//! "401s reach a caller only where the design allows it": what a refusal does, and why one may be the caller's.

use super::{
    Oracle, SLACK,
    held::Standing,
    requests::{Kind, Request},
};
use crate::clock::Moment;
use std::time::Duration;

/// "A rejection is *hasty* when its generation was stored less than 10 s ago."
const HASTY: Duration = Duration::from_secs(10);

/// Why a 401 is the caller's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// The request cannot be sent again.
    NotResendable,
    /// It was sent again, and refused again.
    RefusedAgain,
    /// "inside it, its 401s pass through": a remembered resource.
    Remembered,
    /// The storm wait runs.
    Storm,
    /// The wait after a failure runs.
    FailureWait,
    /// The flight after the refusal failed.
    FlightFailed,
    /// It took longer than any caller waits.
    TimedOut,
    /// What it brought was refused, or died, before this caller got it, or it was lost; and no other may start.
    GateShut,
    SignedOut,
    /// It went without a token.
    NoToken,
}

impl Reason {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NotResendable => "cannot be sent again",
            Self::RefusedAgain => "the resend was refused too",
            Self::Remembered => "remembered resource",
            Self::Storm => "storm wait",
            Self::FailureWait => "failure wait",
            Self::FlightFailed => "the fetch failed",
            Self::TimedOut => "the fetch took too long",
            Self::GateShut => "replacement gone, gate shut",
            Self::SignedOut => "signed out",
            Self::NoToken => "sent without a token",
        }
    }
}

#[derive(Debug)]
pub(super) struct Refusal {
    at: Duration,
    /// Why it may be handed on at once.
    at_once: Option<Reason>,
}

impl Oracle {
    /// The layer sees that the server refused the token of this request, now.
    pub fn refused(&mut self, id: u32) {
        let now = self.look();
        let Some(mut request) = self.requests.remove(&id) else { return };
        if let (Some(sent), Kind::Send { path, resends }) = (request.sent, request.kind) {
            let resent = request.sends > 1;
            // Without a copy the layer knows what was asked for only while it watches.
            let key = (resends || sent.watched).then_some(path);
            let at_once = self.rejection(now, sent.generation, resent, key);
            request.refusal = Some(Refusal { at: now.mono, at_once });
            request.waits_since = now.mono;
            request.may_wait = self.may_wait(now, request.kind);
        }
        self.requests.insert(id, request);
        self.settle(now, false);
    }

    /// The layer sees an answer that refuses no token.
    pub fn accepted(&mut self, id: u32) {
        self.look();
        let Some(request) = self.requests.get(&id) else { return };
        let (Some(sent), Kind::Send { path, .. }) = (request.sent, request.kind) else { return };
        if sent.watched {
            let current = self.held.as_ref().is_some_and(|held| held.generation == sent.generation);
            self.resources.accepted(Some(path), sent.generation, current.then_some(sent.at));
        }
    }

    /// What it does to what is held, and why the caller may get the 401 at once.
    fn rejection(&mut self, now: Moment, generation: u64, resent: bool, key: Option<u64>) -> Option<Reason> {
        if self.signed_out {
            return Some(Reason::SignedOut);
        }
        let shut = now.mono < self.waits.hard.most;
        let storm = now.mono < self.storm.until.most;
        if self.held.as_ref().is_none_or(|held| held.generation != generation) {
            // "A rejection of an older or foreign generation is simply a request for the current token."
            return match &self.held {
                Some(held) if held.is_good(now) => None,
                Some(held) if held.lives(now) && storm => Some(Reason::Storm),
                _ => shut.then_some(Reason::FailureWait),
            };
        }
        let flies = self.flies(now);
        self.disturbed = now.mono;
        let held = self.held.as_mut()?;
        let hasty = now.mono - held.stored < HASTY;
        if let Some(key) = key {
            if !resent {
                self.resources.tried(key, generation, now);
            }
            if self.resources.is_old_news(key, generation, now) {
                return Some(Reason::Remembered);
            }
            if resent {
                self.resources.remember(key, generation, now);
            }
        }
        if resent && hasty {
            held.refused = true;
            if !std::mem::replace(&mut held.counted, true) {
                self.storm.add(1, 1, &self.settings);
            }
            return None;
        }
        if !std::mem::replace(&mut held.refused, true) && !hasty {
            self.storm.calm();
        }
        let standing = self.marks();
        if let Some(held) = self.held.as_mut()
            && held.standing < standing
        {
            held.standing = standing;
        }
        if hasty {
            self.last_hasty = Some(now.mono);
        }
        match () {
            // Joins it.
            () if flies => None,
            () if storm => Some(Reason::Storm),
            () => shut.then_some(Reason::FailureWait),
        }
    }

    /// A caller gets a 401.
    pub(super) fn refusal_is_the_callers(&mut self, request: &Request, now: Moment) {
        match self.why(request, now) {
            Some(reason) => {
                if self.verbose {
                    println!("{:>18} the 401 is the caller's: {}", "", reason.as_str());
                }
                self.report.refusal(reason);
            }
            None => {
                let (held, refusal) = (&self.held, &request.refusal);
                let what = format!("a 401 without a reason: {refusal:?} at {:?}, {held:?}", now.mono);
                self.breaks("401", what);
            }
        }
    }

    fn why(&self, request: &Request, now: Moment) -> Option<Reason> {
        if request.sends > 1 {
            return Some(Reason::RefusedAgain);
        }
        if matches!(request.kind, Kind::Send { resends: false, .. }) {
            return Some(Reason::NotResendable);
        }
        let Some(refusal) = &request.refusal else { return request.sent.is_none().then_some(Reason::NoToken) };
        if now.mono == refusal.at && refusal.at_once.is_some() {
            return refusal.at_once;
        }
        let gate = self.waits.hard.most.max(self.storm.until.most);
        // Of a frozen flight nobody sees when it is found to be lost.
        let ended = self.frozen || [self.last_landing, self.last_lost].contains(&Some(now.mono));
        let usable = self.is_good(now) && self.held.as_ref().is_some_and(|held| held.standing == Standing::Good);
        match () {
            () if self.signed_out => Some(Reason::SignedOut),
            () if self.last_failure == Some(now.mono) => Some(Reason::FlightFailed),
            () if now.mono - request.waits_since + SLACK >= self.settings.longest_wait() => Some(Reason::TimedOut),
            () if (ended || request.queued) && now.mono < gate && !usable => Some(Reason::GateShut),
            () => None,
        }
    }
}
