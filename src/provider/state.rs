//! The machine: every rule about when to fetch, wait, send, back off or give up.
//!
//! No clock, lock, task or I/O: an event and both times go in, a decision comes out. What is random (jitter) comes in as a
//! number in `0..1`. There is no enum of states: how old the token is follows from two times ([`Band`]), and four
//! fields that do not depend on each other hold the rest: the token, the flight, the waits after failures, the storm.
//!
//! - A flight exists from the decision to start it until it lands, fails or is lost; whoever needs a token meanwhile joins it.
//! - The one gate is [`Machine::shut`], the one schedule is [`Machine::due`]; `tick` and the loop's next wake-up share the
//!   second, so a wake-up always finds something to do.
//! - Only the flight under way may ask the source and land: everything a task does names its flight's number.

mod landing;
mod outside;
mod rejection;

pub(crate) use landing::Landed;
#[cfg(feature = "store")]
pub(crate) use outside::Offered;
pub(crate) use rejection::Rejection;

use super::{
    Settings, TokenStatus,
    backoff::Backoff,
    schedule::{Band, Held},
    storm::{Resources, Storm},
};
use crate::{
    FetchError, Generation, Token, TokenError, TokenRequest,
    clock::{Now, system_time},
    source::Reason,
};
use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

/// A refresh is never worth more of a request's time than this while its token lives.
const LONGEST_URGENT_WAIT: Duration = Duration::from_secs(1);
/// After its own timeout a flight's task has this long to say so before it counts as lost.
const LOST_AFTER: Duration = Duration::from_secs(1);

#[derive(Debug)]
#[cfg_attr(test, derive(Clone))]
pub(crate) struct Machine {
    settings: Settings,
    held: Option<Held>,
    flight: Option<Flight>,
    backoff: Backoff,
    storm: Storm,
    resources: Resources,
    ended: Option<Ended>,
    /// What the streak of failures is, for errors and the status.
    trouble: Option<Trouble>,
    /// When a source was last asked, on the monotonic clock.
    last_ask: Option<Duration>,
    flights: u64,
    generation: Generation,
    /// The latest moment seen: a monotonic clock that runs backwards stands still here.
    seen: Duration,
    /// Counts changes that readers must see.
    version: u64,
    notes: Vec<Note>,
    warned_absurd: bool,
    warned_skew: bool,
    warned_early: bool,
}

#[derive(Debug)]
#[cfg_attr(test, derive(Clone))]
struct Flight {
    number: u64,
    reason: Reason,
    challenge: Option<Arc<str>>,
    started: Duration,
    asked: Option<Now>,
    /// Begun before a `set` or `clear`: it still occupies the one place, but what it brings is dropped.
    void: bool,
    warned_slow: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ended {
    SignedOut,
    ShutDown,
}

#[derive(Clone, Debug)]
struct Trouble {
    error: Arc<FetchError>,
    permanent: bool,
    since: Now,
    next_try: Option<SystemTime>,
}

/// What a caller is to do.
#[derive(Debug)]
pub(crate) enum Decision {
    /// Send this token; `start` that flight in passing.
    Send { token: Token, start: Option<u64> },
    /// Wait for the flight under way, `start` it first if it is new; send what lives after `at_most`.
    Wait { start: Option<u64>, at_most: Option<Duration> },
    /// There is none to be had.
    Unavailable(TokenError),
    /// The server's answer is the caller's; `start` that flight in passing.
    Pass { start: Option<u64> },
}

/// What a wait is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Something to send.
    Send,
    /// A successor of this one, which was refused.
    Replace(Generation),
    /// A new one, whatever the old is worth.
    Refresh,
}

/// How a wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Over {
    /// Something landed, or was pushed.
    Landed,
    Failed,
    /// The flight is gone without a result.
    Lost,
    /// The flight goes on, and this caller has waited as long as a token that lives allows.
    Patience,
    /// The flight goes on, but this caller has waited as long as any may.
    Bound,
}

/// Worth a line in the log; each is noted once per change, not per attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Note {
    AbsurdExpiry,
    BornDead { dead_for: Duration },
    NotYetValid { valid_in: Duration },
    SlowRefresh,
}

impl Machine {
    pub(crate) fn new(settings: Settings, generation: Generation) -> Self {
        Self {
            settings,
            held: None,
            flight: None,
            backoff: Backoff::default(),
            storm: Storm::default(),
            resources: Resources::default(),
            ended: None,
            trouble: None,
            last_ask: None,
            flights: 0,
            generation,
            seen: Duration::ZERO,
            version: 0,
            notes: Vec::new(),
            warned_absurd: false,
            warned_skew: false,
            warned_early: false,
        }
    }

    // What readers see.

    pub(crate) fn held(&self) -> Option<&Held> {
        self.held.as_ref()
    }

    pub(crate) fn is_ended(&self) -> bool {
        self.ended.is_some()
    }

    pub(crate) fn resources(&self) -> &Resources {
        &self.resources
    }

    pub(crate) fn version(&self) -> u64 {
        self.version
    }

    pub(crate) fn under_way(&self) -> Option<u64> {
        self.flight.as_ref().map(|flight| flight.number)
    }

    /// Finds out whether the flight under way still is.
    pub(crate) fn look(&mut self, now: Now) {
        self.observe(now);
    }

    /// How long the flight under way may be at most.
    pub(crate) fn left(&self, now: Now) -> Option<Duration> {
        let flight = self.flight.as_ref()?;
        Some(self.lost_after().saturating_sub(now.mono.saturating_sub(flight.started)))
    }

    /// The held token if it lives, whatever the servers say of it; none after the end.
    pub(crate) fn living(&self, now: Now) -> Option<Token> {
        let held = self.held.as_ref().filter(|held| self.ended.is_none() && held.band(now) != Band::Dead)?;
        Some(held.token.clone())
    }

    /// The same, unless others wait for its successor.
    pub(crate) fn unmarked(&self, now: Now) -> Option<Token> {
        self.living(now).filter(|_| self.band(now) != Band::Marked)
    }

    /// What the source is told when this flight asks.
    pub(crate) fn request(&self) -> TokenRequest {
        TokenRequest::new(
            self.flight.as_ref().map_or(Reason::Forced, |flight| flight.reason),
            self.held.as_ref().map(|held| held.token.clone()),
            self.flight.as_ref().and_then(|flight| flight.challenge.clone()),
        )
    }

    pub(crate) fn notes(&mut self) -> Vec<Note> {
        std::mem::take(&mut self.notes)
    }

    pub(crate) fn trouble(&self) -> Option<&Arc<FetchError>> {
        self.trouble.as_ref().map(|trouble| &trouble.error)
    }

    pub(crate) fn status(&self, now: Now) -> TokenStatus {
        let since = |trouble: &Trouble| system_time(trouble.since.wall).unwrap_or(SystemTime::UNIX_EPOCH);
        match (self.ended, self.failing()) {
            (Some(Ended::SignedOut), _) => TokenStatus::SignedOut,
            (Some(Ended::ShutDown), _) => TokenStatus::ShutDown,
            (None, Some(trouble)) if trouble.permanent => TokenStatus::NeedsCredential { since: since(trouble) },
            (None, Some(trouble)) => TokenStatus::Failing { since: since(trouble), next_try: trouble.next_try },
            (None, None) if self.band(now) == Band::Fresh => TokenStatus::Fresh,
            (None, None) => TokenStatus::Stale,
        }
    }

    /// The streak of failures that is not over. After a `set` inside a `Retry-After` the trouble is kept for its error alone.
    fn failing(&self) -> Option<&Trouble> {
        self.trouble.as_ref().filter(|_| self.backoff.is_failing())
    }

    // Callers.

    /// Somebody wants to send a request.
    pub(crate) fn asked(&mut self, now: Now) -> Decision {
        let now = self.observe(now);
        if let Some(ended) = self.ended {
            return Decision::Unavailable(ended.error());
        }
        let band = self.band(now);
        let shut = self.shut(band, now);
        match (band, &self.held) {
            (Band::Fresh, Some(held)) => Decision::Send { token: held.token.clone(), start: None },
            (Band::Stale | Band::Urgent | Band::Marked, Some(held)) if shut => {
                Decision::Send { token: held.token.clone(), start: None }
            }
            (Band::Stale, Some(held)) => {
                let token = held.token.clone();
                Decision::Send { token, start: self.join(now, Reason::Scheduled) }
            }
            (Band::Urgent, Some(held)) => {
                let at_most = (held.runway(now) / 2).min(LONGEST_URGENT_WAIT);
                Decision::Wait { start: self.join(now, Reason::Expiring), at_most: Some(at_most) }
            }
            _ if shut => Decision::Unavailable(self.error(now)),
            (band, _) => Decision::Wait { start: self.join(now, reason(band)), at_most: None },
        }
    }

    /// A wait is over.
    pub(crate) fn woken(&mut self, now: Now, over: Over, purpose: Purpose) -> Decision {
        let now = self.observe(now);
        let band = self.band(now);
        // Before this waiter was polled a later flight, or somebody who pushed a token, has made up for the failure of its own.
        let over = if over == Over::Failed && self.failing().is_none() { Over::Landed } else { over };
        if purpose == Purpose::Refresh {
            match over {
                Over::Failed => return Decision::Unavailable(self.error(now)),
                Over::Lost => return self.forced(now),
                Over::Landed | Over::Patience | Over::Bound => {}
            }
        }
        if let (Band::Fresh | Band::Stale | Band::Urgent, Some(held)) = (band, &self.held)
            && purpose != Purpose::Replace(held.token.generation())
            && (purpose, over) != (Purpose::Refresh, Over::Bound)
        {
            let token = held.token.clone();
            if matches!(over, Over::Patience | Over::Bound) && band == Band::Urgent {
                self.note_slow();
            }
            return Decision::Send { token, start: None };
        }
        // Its replacement was rejected, or died, before this waiter was polled, or nobody answered at all; or what was to be sent
        // meanwhile has died.
        let again = matches!(over, Over::Landed | Over::Lost | Over::Patience);
        if let Purpose::Replace(refused) = purpose {
            if over == Over::Bound && self.ended.is_none() {
                return Decision::Unavailable(TokenError::TimedOut { after: self.settings.longest_wait() });
            }
            if self.ended.is_some() || !again {
                return Decision::Pass { start: None };
            }
            if self.held.as_ref().is_none_or(|held| held.token.generation() != refused) {
                return self.replacement(now);
            }
            if self.shut(Band::Marked, now) {
                return Decision::Pass { start: None };
            }
            return Decision::Wait { start: self.join(now, Reason::Rejected), at_most: None };
        }
        match &self.held {
            _ if again || self.ended.is_some() => self.asked(now),
            Some(held) if band == Band::Marked && purpose == Purpose::Send => {
                Decision::Send { token: held.token.clone(), start: None }
            }
            _ if over == Over::Bound => {
                Decision::Unavailable(TokenError::TimedOut { after: self.settings.longest_wait() })
            }
            _ => Decision::Unavailable(self.error(now)),
        }
    }

    /// Somebody wants a new token, whatever the old one is worth.
    pub(crate) fn forced(&mut self, now: Now) -> Decision {
        let now = self.observe(now);
        if let Some(ended) = self.ended {
            return Decision::Unavailable(ended.error());
        }
        if self.flight.is_none() && now.mono < self.backoff.retry_after {
            return Decision::Unavailable(self.error(now));
        }
        Decision::Wait { start: self.join(now, Reason::Forced), at_most: None }
    }

    /// Somebody wants a token that lives for another `span`.
    pub(crate) fn valid_for(&mut self, now: Now, span: Duration) -> Decision {
        let now = self.observe(now);
        let band = self.band(now);
        let Some(held) = self.held.as_ref().filter(|_| matches!(band, Band::Fresh | Band::Stale | Band::Urgent)) else {
            return self.asked(now);
        };
        // What a new token would not have either is not worth a fetch.
        let span = match held.life {
            Some(life) if span > life - Duration::from_secs(60).min(life / 2) => life / 2,
            _ => span,
        };
        let runway = held.runway(now);
        if runway >= span || self.ended.is_some() || self.shut(Band::Stale, now) {
            return self.asked(now);
        }
        // Never so long that the best there is dies in the waiting.
        Decision::Wait { start: self.join(now, Reason::Forced), at_most: Some(runway / 2) }
    }

    // The loop.

    /// The loop looks: the flight that is due.
    pub(crate) fn tick(&mut self, now: Now) -> Option<u64> {
        let now = self.observe(now);
        match (&self.flight, self.due(now)) {
            (None, Some(due)) if due <= now.mono => self.join(now, reason(self.band(now))),
            _ => None,
        }
    }

    /// When the loop must look again.
    pub(crate) fn wake(&self, now: Now) -> Option<Duration> {
        match &self.flight {
            Some(flight) if self.ended.is_none() => Some(flight.started.saturating_add(self.lost_after())),
            _ => self.due(now),
        }
    }

    /// When the next flight is due that nobody asked for.
    fn due(&self, now: Now) -> Option<Duration> {
        if self.ended.is_some() {
            return None;
        }
        let waits = self.backoff.hard.max(self.backoff.soft);
        match (&self.held, self.band(now)) {
            (_, Band::Marked) => Some(waits.max(self.storm.until)),
            (None, _) | (_, Band::Dead) => Some(waits),
            (Some(held), _) => held.stale_at(now).map(|stale| stale.max(waits)),
        }
    }

    // Rules shared by the above.

    /// The one gate: may nobody in this band wait for a flight now?
    fn shut(&self, band: Band, now: Now) -> bool {
        let until = match band {
            Band::Marked => self.backoff.hard.max(self.storm.until),
            Band::Stale | Band::Urgent => self.backoff.hard.max(self.backoff.soft),
            Band::None | Band::Dead | Band::Fresh => self.backoff.hard,
        };
        self.flight.is_none() && now.mono < until
    }

    /// The number of a new flight; none if there is one to join.
    fn join(&mut self, now: Now, reason: Reason) -> Option<u64> {
        if self.flight.is_some() {
            return None;
        }
        self.flights += 1;
        self.flight = Some(Flight {
            number: self.flights,
            reason,
            challenge: None,
            started: now.mono,
            asked: None,
            void: false,
            warned_slow: false,
        });
        if reason == Reason::Rejected {
            self.storm.begin(now, &self.settings);
        }
        Some(self.flights)
    }

    /// Time never runs backwards here, and a flight whose task cannot be alive any more is gone.
    fn observe(&mut self, now: Now) -> Now {
        self.seen = self.seen.max(now.mono);
        let now = Now { mono: self.seen, ..now };
        let limit = self.lost_after();
        if let Some(flight) = &self.flight
            && now.mono.saturating_sub(flight.started) >= limit
        {
            self.lost(flight.number);
        }
        now
    }

    fn lost_after(&self) -> Duration {
        self.settings.longest_wait().saturating_add(LOST_AFTER)
    }

    fn band(&self, now: Now) -> Band {
        self.held.as_ref().map_or(Band::None, |held| held.band(now))
    }

    /// What a living token has left; none where none lives.
    fn alive(&self, now: Now) -> Option<Duration> {
        self.held.as_ref().map(|held| held.runway(now)).filter(|runway| !runway.is_zero())
    }

    /// Why a rejected token has no successor.
    pub(crate) fn why_not(&self, now: Now) -> TokenError {
        self.ended.map_or_else(|| self.error(now), Ended::error)
    }

    /// Why there is no token, now.
    fn error(&self, now: Now) -> TokenError {
        let retry_in = self.backoff.hard.saturating_sub(now.mono);
        let Some(trouble) = &self.trouble else {
            return TokenError::NotReplaced { retry_in: self.storm.until.saturating_sub(now.mono).max(retry_in) };
        };
        let (error, failing_for) = (Arc::clone(&trouble.error), now.mono.saturating_sub(trouble.since.mono));
        if trouble.permanent {
            TokenError::needs_credential(error, failing_for, retry_in)
        } else {
            TokenError::unavailable(error, failing_for, retry_in)
        }
    }

    fn note_slow(&mut self) {
        if let Some(flight) = &mut self.flight
            && !std::mem::replace(&mut flight.warned_slow, true)
        {
            self.notes.push(Note::SlowRefresh);
        }
    }
}

fn reason(band: Band) -> Reason {
    match band {
        Band::None => Reason::Initial,
        Band::Marked => Reason::Rejected,
        Band::Urgent | Band::Dead => Reason::Expiring,
        Band::Stale | Band::Fresh => Reason::Scheduled,
    }
}

impl Ended {
    fn error(self) -> TokenError {
        match self {
            Self::SignedOut => TokenError::SignedOut,
            Self::ShutDown => TokenError::ShutDown,
        }
    }
}

#[cfg(test)]
mod tests;
