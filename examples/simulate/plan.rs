//! What goes wrong, drawn from the seed, and what is wrong right now.

use fastrand::Rng;
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    // The endpoint, for a while.
    Down,
    Busy,
    RefusesCredential,
    Hangs,
    SlowEndpoint,
    Panics,
    Flaky,
    SameToken,
    SlidingSession,
    BornDead,
    ShortLives,
    NoExpiry,
    // The servers, for a while.
    RefusesAll,
    Forbids,
    BlamesRequest,
    BadBackend,
    SlowServer,
    HangingServer,
    BrokenServer,
    // All at once.
    Revoked,
    WallAhead,
    WallBack,
    WallRight,
    Suspended,
    RuntimeDropped,
    RuntimeFrozen,
    Pushed,
    SignedOut,
    Forced,
}

use Fault::*;

const ALL: [Fault; 29] = [
    Down,
    Busy,
    RefusesCredential,
    Hangs,
    SlowEndpoint,
    Panics,
    Flaky,
    SameToken,
    SlidingSession,
    BornDead,
    ShortLives,
    NoExpiry,
    RefusesAll,
    Forbids,
    BlamesRequest,
    BadBackend,
    SlowServer,
    HangingServer,
    BrokenServer,
    Revoked,
    WallAhead,
    WallBack,
    WallRight,
    Suspended,
    RuntimeDropped,
    RuntimeFrozen,
    Pushed,
    SignedOut,
    Forced,
];

impl Fault {
    pub fn draw(rng: &mut Rng) -> Self {
        // Tokens are revoked, and machines suspended, more often than the rest.
        match rng.usize(..ALL.len() + 8) {
            at @ 0..29 => ALL[at],
            at if at % 2 == 0 => Revoked,
            _ => Suspended,
        }
    }

    /// How long it lasts; none: it is over at once.
    pub fn span(self, rng: &mut Rng) -> Option<Duration> {
        match self {
            Revoked | WallAhead | WallBack | WallRight | Suspended | RuntimeDropped | RuntimeFrozen | Pushed
            | SignedOut | Forced => None,
            // Each of these costs a fetch every few seconds.
            ShortLives | SlidingSession | NoExpiry => Some(log(rng, SECOND * 10, HOUR)),
            _ => Some(log(rng, SECOND, HOUR * 6)),
        }
    }

    fn is_endpoints(self) -> bool {
        ALL[..12].contains(&self)
    }

    fn is_servers(self) -> bool {
        ALL[12..19].contains(&self)
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Down => "endpoint down",
            Busy => "endpoint busy, with a Retry-After",
            RefusesCredential => "endpoint refuses the credential",
            Hangs => "endpoint hangs",
            SlowEndpoint => "endpoint slow",
            Panics => "source panics",
            Flaky => "endpoint flaky",
            SameToken => "same token again",
            SlidingSession => "same token, extended",
            BornDead => "tokens born expired",
            ShortLives => "tokens of a few seconds",
            NoExpiry => "tokens without an expiry",
            RefusesAll => "401 for all",
            Forbids => "401 for one path",
            BlamesRequest => "401 that blames the request",
            BadBackend => "401 for a third, at random",
            SlowServer => "server slow",
            HangingServer => "server hangs",
            BrokenServer => "network breaks",
            Revoked => "token revoked",
            WallAhead => "wall clock set ahead",
            WallBack => "wall clock set back",
            WallRight => "wall clock set right",
            Suspended => "machine suspended",
            RuntimeDropped => "runtime dropped",
            RuntimeFrozen => "runtime frozen",
            Pushed => "token pushed",
            SignedOut => "signed out and in again",
            Forced => "refresh by hand",
        }
    }
}

/// Between `least` and `most`, as often near the one as near the other by order of magnitude.
pub fn log(rng: &mut Rng, least: Duration, most: Duration) -> Duration {
    let (least, most) = (least.as_secs_f64().ln(), most.as_secs_f64().ln());
    // Whole milliseconds, as timers have them.
    let span = Duration::from_secs_f64(rng.f64().mul_add(most - least, least).exp());
    span - Duration::from_nanos(u64::from(span.subsec_nanos() % 1_000_000))
}

/// What is wrong right now.
#[derive(Debug, Default)]
pub struct Wrong(Vec<(Fault, Duration, u64)>);

impl Wrong {
    /// Until this moment. `what` says which path, or how bad.
    pub fn begin(&mut self, fault: Fault, until: Duration, what: u64) {
        self.0.push((fault, until, what));
    }

    pub fn pass(&mut self, now: Duration) {
        self.0.retain(|(_, until, _)| *until > now);
    }

    pub fn next_end(&self) -> Option<Duration> {
        self.0.iter().map(|(_, until, _)| *until).min()
    }

    /// The latest of the endpoint's faults counts.
    pub fn endpoint(&self) -> Option<(Fault, u64)> {
        self.0.iter().rev().find(|(fault, ..)| fault.is_endpoints()).map(|(fault, _, what)| (*fault, *what))
    }

    /// All of the servers' do.
    pub fn servers(&self) -> impl Iterator<Item = (Fault, u64)> + '_ {
        self.0.iter().filter(|(fault, ..)| fault.is_servers()).map(|(fault, _, what)| (*fault, *what))
    }

    pub fn clear(&mut self) {
        self.0.clear();
    }
}
