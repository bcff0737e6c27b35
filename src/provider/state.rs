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

use super::{
    Settings, TokenStatus,
    backoff::{Backoff, Failure},
    schedule::{AbsurdExpiry, Band, Held, Standing, dies},
    storm::{Resources, Storm, is_hasty},
};
use crate::{
    FetchError, Generation, Token, TokenError, TokenRequest,
    clock::{Now, since_epoch, system_time},
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
}

#[derive(Debug)]
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
    /// The flight goes on, but this caller has waited long enough.
    Bound,
}

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

/// What became of what a flight brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Landed {
    Stored,
    Extended,
    /// The same token, from a source that said when to look again.
    Unchanged,
    NoProgress,
    Failed,
    /// Not the flight under way, or one begun before a `set` or `clear`.
    Dropped,
}

/// Worth a line in the log; each is noted once per change, not per attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Note {
    AbsurdExpiry,
    BornDead { dead_for: Duration },
    NotYetValid { valid_in: Duration },
    SlowRefresh,
}

/// What the loop does next.
#[derive(Debug)]
pub(crate) struct Tick {
    pub(crate) start: Option<u64>,
    /// Look again at this moment of the monotonic clock; never, where there is none.
    pub(crate) wake: Option<Duration>,
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

    /// Finds out whether that flight still is, and how long it may be at most. None: it is not.
    pub(crate) fn left(&mut self, now: Now, number: u64) -> Option<Duration> {
        let now = self.observe(now);
        let flight = self.flight.as_ref().filter(|flight| flight.number == number)?;
        Some(self.lost_after().saturating_sub(now.mono.saturating_sub(flight.started)))
    }

    /// The held token if it lives, whatever the servers say of it.
    pub(crate) fn living(&self, now: Now) -> Option<Token> {
        self.held.as_ref().filter(|held| held.band(now) != Band::Dead).map(|held| held.token.clone())
    }

    /// What the source is told when this flight asks.
    pub(crate) fn request(&self) -> TokenRequest {
        TokenRequest {
            reason: self.flight.as_ref().map_or(Reason::Forced, |flight| flight.reason),
            previous: self.held.as_ref().map(|held| held.token.clone()),
            challenge: self.flight.as_ref().and_then(|flight| flight.challenge.clone()),
        }
    }

    pub(crate) fn notes(&mut self) -> Vec<Note> {
        std::mem::take(&mut self.notes)
    }

    pub(crate) fn trouble(&self) -> Option<&Arc<FetchError>> {
        self.trouble.as_ref().map(|trouble| &trouble.error)
    }

    pub(crate) fn status(&self, now: Now) -> TokenStatus {
        let since = |trouble: &Trouble| system_time(trouble.since.wall).unwrap_or(SystemTime::UNIX_EPOCH);
        // After a `set` inside a `Retry-After` the trouble is kept for its error alone.
        let trouble = self.trouble.as_ref().filter(|_| self.backoff.is_failing());
        match (self.ended, trouble) {
            (Some(Ended::SignedOut), _) => TokenStatus::SignedOut,
            (Some(Ended::ShutDown), _) => TokenStatus::ShutDown,
            (None, Some(trouble)) if trouble.permanent => TokenStatus::NeedsCredential { since: since(trouble) },
            (None, Some(trouble)) => TokenStatus::Failing { since: since(trouble), next_try: trouble.next_try },
            (None, None) if self.band(now) == Band::Fresh => TokenStatus::Fresh,
            (None, None) => TokenStatus::Stale,
        }
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
        if purpose == Purpose::Refresh {
            match over {
                Over::Failed => return Decision::Unavailable(self.error(now)),
                Over::Lost => return self.forced(now),
                Over::Landed | Over::Bound => {}
            }
        }
        if let (Band::Fresh | Band::Stale | Band::Urgent, Some(held)) = (band, &self.held)
            && purpose != Purpose::Replace(held.token.generation())
            && (purpose, over) != (Purpose::Refresh, Over::Bound)
        {
            let token = held.token.clone();
            if over == Over::Bound && band == Band::Urgent {
                self.note_slow();
            }
            return Decision::Send { token, start: None };
        }
        // Its replacement was rejected, or died, before this waiter was polled, or nobody answered at all.
        let again = matches!(over, Over::Landed | Over::Lost);
        if let Purpose::Replace(_) = purpose {
            if self.ended.is_some() || !again || self.shut(Band::Marked, now) {
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
        if rejection.resent {
            if let Some(key) = rejection.resource {
                self.resources.remember(now, key, generation);
                self.version += 1;
            }
            if hasty {
                held.refused = true;
                if !std::mem::replace(&mut held.counted, true) {
                    self.storm.add(&self.settings, roll);
                }
                return Decision::Pass { start: None };
            }
        } else if let Some(key) = rejection.resource
            && self.resources.is_known(now, key, generation, rejection.accepted)
        {
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
    fn replacement(&mut self, now: Now) -> Decision {
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

    // The flight's task.

    /// How long the task must still wait before it may ask the source. None: it is lost.
    pub(crate) fn leave(&mut self, now: Now, number: u64) -> Option<Duration> {
        let now = self.observe(now);
        self.flight.as_ref().filter(|flight| flight.number == number && !flight.void)?;
        // A last ask in the future is a clock that ran backwards.
        let since = self.last_ask.map(|last| now.mono.saturating_sub(last.min(now.mono)));
        Some(since.map_or(Duration::ZERO, |since| self.settings.min_interval.saturating_sub(since)))
    }

    /// The task asks the source now. False: it may not, it is lost.
    pub(crate) fn ask(&mut self, now: Now, number: u64) -> bool {
        let now = self.observe(now);
        let Some(flight) = self.flight.as_mut().filter(|flight| flight.number == number && !flight.void) else {
            return false;
        };
        flight.asked = Some(now);
        self.last_ask = Some(now.mono);
        true
    }

    /// The source gave a token.
    pub(crate) fn fetched(&mut self, now: Now, number: u64, token: Token, roll: f64) -> Landed {
        let now = self.observe(now);
        let Some(flight) = self.flight.take_if(|flight| flight.number == number) else { return Landed::Dropped };
        self.version += 1;
        if flight.void {
            return Landed::Dropped;
        }
        let dies = self.dies(&token, flight.asked.unwrap_or(now), now);
        let landed = match self.held.take() {
            Some(held) if held.token.same_bytes(&token) => self.same_again(held, now, &token, dies, roll),
            held => self.other(held, now, token, dies, roll),
        };
        match landed {
            Landed::Failed => {
                self.fail(now, FetchError::RejectedTokenAgain, Failure::default(), roll);
            }
            Landed::NoProgress => {
                let runway = self.alive(now);
                self.backoff.no_progress(now, runway, &self.settings, roll);
                self.trouble = None;
            }
            _ => self.trouble = None,
        }
        landed
    }

    /// The source failed.
    pub(crate) fn failed(&mut self, now: Now, number: u64, error: FetchError, failure: Failure, roll: f64) -> Landed {
        let now = self.observe(now);
        let Some(flight) = self.flight.take_if(|flight| flight.number == number) else { return Landed::Dropped };
        self.version += 1;
        if flight.void {
            return Landed::Dropped;
        }
        self.fail(now, error, failure, roll);
        Landed::Failed
    }

    /// The task is gone without a result. No failure: no wait follows.
    pub(crate) fn lost(&mut self, number: u64) {
        if self.flight.take_if(|flight| flight.number == number).is_some_and(|flight| flight.reason == Reason::Rejected)
        {
            self.storm.lost();
        }
    }

    // The loop.

    pub(crate) fn tick(&mut self, now: Now) -> Tick {
        let now = self.observe(now);
        let start = match (&self.flight, self.due(now)) {
            (None, Some(due)) if due <= now.mono => self.join(now, reason(self.band(now))),
            _ => None,
        };
        Tick { start, wake: self.wake(now) }
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

    // Told from outside.

    /// A token that was there before the provider: nobody knows how old, so nothing is clamped to its life.
    pub(crate) fn seed(&mut self, now: Now, token: Token, roll: f64) {
        let now = self.observe(now);
        let dies = self.dies(&token, now, now);
        self.store(now, token, dies, None, roll);
    }

    /// Somebody pushed a token.
    pub(crate) fn set(&mut self, now: Now, token: Token, roll: f64) {
        let now = self.observe(now);
        self.start_over();
        if self.ended == Some(Ended::SignedOut) {
            self.ended = None;
        }
        let dies = self.dies(&token, now, now);
        self.store(now, token, dies, dies.map(|dies| now.until(dies)), roll);
    }

    pub(crate) fn clear(&mut self, now: Now) {
        self.observe(now);
        self.start_over();
        self.held = None;
        self.version += 1;
        self.ended.get_or_insert(Ended::SignedOut);
    }

    pub(crate) fn shut_down(&mut self) {
        self.ended = Some(Ended::ShutDown);
        self.version += 1;
    }

    fn start_over(&mut self) {
        if let Some(flight) = &mut self.flight {
            flight.void = true;
        }
        self.resources.clear();
        self.storm.calm();
        self.backoff.forgive();
        if self.backoff.retry_after <= self.seen {
            self.trouble = None;
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
            && now.mono.saturating_sub(flight.started) > limit
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

    /// What a living token has left; none where none lives, or where no end is known.
    fn alive(&self, now: Now) -> Option<Duration> {
        let runway = self.held.as_ref()?.runway(now);
        (!runway.is_zero() && runway < Duration::MAX).then_some(runway)
    }

    fn store(&mut self, now: Now, token: Token, dies: Option<Now>, life: Option<Duration>, roll: f64) {
        self.generation = self.generation.next();
        self.version += 1;
        let due = token.refresh_after.map(|after| now.mono.saturating_add(after));
        let held = Held::new(token.with_generation(self.generation), dies, life, now);
        let mut held = held.with_thresholds(&self.settings, roll);
        held.due = due;
        self.held = Some(held);
    }

    /// The very bytes that are held came again.
    fn same_again(&mut self, mut held: Held, now: Now, token: &Token, dies: Option<Now>, roll: f64) -> Landed {
        let runway = |dies: Option<Now>| dies.map_or(Duration::MAX, |dies| now.until(dies));
        let (had, has) = (runway(held.dies), runway(dies));
        // Two readings of one expiry differ by what the clocks drift; less than this is no extension.
        let noise = Duration::from_secs(1).min(has / 20);
        let longer = dies.is_some() && (held.dies.is_none() && !has.is_zero() || has > had.saturating_add(noise));
        let landed = if held.standing > Standing::Good {
            Landed::Failed
        } else if longer {
            let life = dies.map(|dies| now.until(dies));
            held.extended(dies, life, &self.settings, roll);
            self.backoff.succeeded();
            Landed::Extended
        } else if had.is_zero() && (has.is_zero() || dies.is_none()) {
            if has.is_zero() {
                self.note_born_dead(now, dies);
            }
            held.extended(None, None, &self.settings, roll);
            held.due = Some(self.after_failure_wait(now, roll));
            Landed::Extended
        } else if token.refresh_after.is_some() {
            Landed::Unchanged
        } else {
            Landed::NoProgress
        };
        if let (Landed::Extended | Landed::Unchanged, Some(after)) = (landed, token.refresh_after) {
            let due = now.mono.saturating_add(after);
            held.due = Some(held.due.map_or(due, |wait| if landed == Landed::Extended { wait.max(due) } else { due }));
        }
        if landed == Landed::Unchanged {
            self.backoff.succeeded();
            if held.band(now) != Band::Fresh {
                // The hint says later, the expiry says now: as after any fetch that brought nothing.
                let runway = Some(held.runway(now));
                self.backoff.no_progress(now, runway, &self.settings, roll);
            }
        }
        self.held = Some(held);
        landed
    }

    /// Another token than the one held.
    fn other(&mut self, held: Option<Held>, now: Now, token: Token, dies: Option<Now>, roll: f64) -> Landed {
        let born_dead = dies.is_some_and(|dies| now.until(dies).is_zero());
        if !born_dead {
            self.warned_skew = false;
            self.backoff.succeeded();
            self.store(now, token, dies, dies.map(|dies| now.until(dies)), roll);
            return Landed::Stored;
        }
        self.note_born_dead(now, dies);
        if held.as_ref().is_some_and(|held| {
            held.dies.is_some() && held.band(now) != Band::Dead && held.standing == Standing::Good && !held.refused
        }) {
            self.held = held;
            return Landed::NoProgress;
        }
        // Our clock may be the one that is wrong: the server decides.
        self.store(now, token, None, None, roll);
        let due = self.after_failure_wait(now, roll);
        if let Some(held) = &mut self.held {
            held.due = Some(due);
        }
        Landed::Stored
    }

    /// When a token that says it is dead is asked for again: the waits grow, but shut nobody out.
    fn after_failure_wait(&mut self, now: Now, roll: f64) -> Duration {
        self.backoff.forgive_but_count();
        now.mono.saturating_add(self.backoff.next_wait(None, &self.settings, roll))
    }

    fn fail(&mut self, now: Now, error: FetchError, failure: Failure, roll: f64) {
        let runway = self.alive(now);
        self.backoff.failed(now, failure, runway, &self.settings, roll);
        let since = self.trouble.as_ref().map_or(now, |trouble| trouble.since);
        let next_try = system_time(now.wall.saturating_add(self.backoff.soft.saturating_sub(now.mono)));
        self.trouble = Some(Trouble { error: Arc::new(error), permanent: failure.permanent, since, next_try });
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
            TokenError::NeedsCredential { error, failing_for, retry_in }
        } else {
            TokenError::Unavailable { error, failing_for, retry_in }
        }
    }

    fn dies(&mut self, token: &Token, asked: Now, now: Now) -> Option<Now> {
        if let Some(not_before) = token.not_before {
            let valid_in = since_epoch(not_before).saturating_sub(now.wall);
            if !valid_in.is_zero() {
                self.notes.push(Note::NotYetValid { valid_in });
            }
        }
        match dies(token, asked, now) {
            Ok(dies) => {
                self.warned_absurd = false;
                dies
            }
            Err(AbsurdExpiry) => {
                if !std::mem::replace(&mut self.warned_absurd, true) {
                    self.notes.push(Note::AbsurdExpiry);
                }
                None
            }
        }
    }

    fn note_born_dead(&mut self, now: Now, dies: Option<Now>) {
        if !std::mem::replace(&mut self.warned_skew, true) {
            let dead_for = dies.map_or(Duration::ZERO, |dies| now.wall.saturating_sub(dies.wall));
            self.notes.push(Note::BornDead { dead_for });
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
