//! The oracle: it sees what the servers see and what the callers get, knows the truth, and says which promise was broken.
//!
//! It never looks into the provider but to compare the token held ([`Oracle::look`]). Quotes are from the design; numbers are those of its
//! invariants. What it allows is written where it is allowed.

mod flights;
pub mod gates;
pub mod held;
mod outside;
mod refusals;
mod requests;

pub use flights::Answer;
pub use refusals::Reason as Refused;
pub use requests::{End as RequestEnd, Kind, Request};

use crate::{
    clock::{Moment, SimClock},
    report::Report,
    settings::Settings,
};
use flights::{Fetch, Hour};
use gates::{Resources, Storm, Waits};
use held::{Held, Standing};
use std::{collections::HashMap, fmt, time::Duration};
use tower_jwt_refresh::TokenProvider;

/// Tokio's timers go by whole milliseconds, and round up.
const SLACK: Duration = Duration::from_millis(3);

pub struct Oracle {
    verbose: bool,
    settings: Settings,
    clock: SimClock,
    /// To compare what is held; gone at the end.
    pub provider: Option<TokenProvider>,
    pub report: Report,
    pub broken: Option<String>,
    /// Nothing more can be said of this run: see [`Oracle::is_in_time`].
    pub undecided: bool,

    held: Option<Held>,
    generations: u64,
    /// The generation that each token was last stored under.
    generation_of: HashMap<u32, u64>,
    signed_out: bool,
    waits: Waits,
    storm: Storm,
    resources: Resources,

    fetches: HashMap<u32, Fetch>,
    under_way: Option<u32>,
    asks: u32,
    last_ask: Option<Duration>,
    last_failure: Option<Duration>,
    last_landing: Option<Duration>,
    last_lost: Option<Duration>,
    /// And after how many freezes.
    last_forced: Option<(Duration, u32)>,
    /// The first refusal of the held token by one that was no resend's, in its first 10 s.
    last_hasty: Option<Duration>,
    /// Clocks were set: what was due a moment ago may be so no more.
    last_jump: Option<Duration>,
    /// Since the last flight ended there was a moment at which the storm let another begin.
    storm_let: bool,

    /// When the held token last was none that anybody may send at once.
    last_bad: Duration,
    good_since: Duration,
    /// It became good by a clock that was set: nobody is woken by that.
    revived: bool,

    /// When anything last went wrong.
    disturbed: Duration,
    /// Is there a loop that is being driven?
    loop_lives: bool,
    /// When a runtime was last frozen, or thawed.
    last_freeze: Option<Duration>,
    /// A runtime is frozen, perhaps the loop's.
    frozen: bool,
    hour: Hour,

    requests: HashMap<u32, Request>,
    /// Counts freezes: who was frozen meanwhile is not held to any time.
    freezes: u32,
    /// The runtime is being dropped: flights and callers end with it.
    pub dropping: bool,
}

impl Oracle {
    pub fn new(settings: Settings, clock: SimClock, verbose: bool) -> Self {
        Self {
            verbose,
            settings,
            clock,
            provider: None,
            report: Report::default(),
            broken: None,
            undecided: false,
            held: None,
            generations: 0,
            generation_of: HashMap::new(),
            signed_out: false,
            waits: Waits::default(),
            storm: Storm::default(),
            resources: Resources::default(),
            fetches: HashMap::new(),
            under_way: None,
            asks: 0,
            last_ask: None,
            last_failure: None,
            last_landing: None,
            last_lost: None,
            last_forced: None,
            last_hasty: None,
            last_jump: None,
            storm_let: true,
            last_bad: Duration::ZERO,
            good_since: Duration::ZERO,
            revived: false,
            disturbed: Duration::ZERO,
            loop_lives: settings.init,
            last_freeze: None,
            frozen: false,
            hour: Hour::default(),
            requests: HashMap::new(),
            freezes: 0,
            dropping: false,
        }
    }

    /// A promise does not hold.
    pub fn breaks(&mut self, promise: &str, what: impl fmt::Display) {
        if self.broken.is_none() && !self.undecided {
            let what = format!("{promise}: {what}");
            if self.verbose {
                println!("BROKEN {what}");
            }
            self.broken = Some(what);
        }
    }

    /// There is nothing more to find in this run.
    pub fn is_over(&self) -> bool {
        self.broken.is_some() || self.undecided
    }

    /// Before anything happens: is what is held what should be? "Never backwards" (3): whatever is stored or dropped against the
    /// rules shows here.
    fn look(&mut self) -> Moment {
        let now = self.clock.now();
        if let Some(provider) = &self.provider {
            let current = provider.current();
            let current = current.as_ref().map(|token| (number(token.expose_secret()), token.expires_at()));
            let should = self.held.as_ref().map(|held| {
                let at = held.dies.and_then(|dies| std::time::UNIX_EPOCH.checked_add(dies.wall));
                (held.token, at)
            });
            if current != should {
                self.breaks("3 never backwards", format!("{current:?} is held, and should be {should:?}"));
            }
        }
        if !self.is_good(now) {
            self.last_bad = now.mono;
        }
        self.storm_let |= self.under_way.is_none() && now.mono >= self.storm.until.least;
        now
    }

    /// After something happened.
    fn settle(&mut self, now: Moment, by_clock: bool) {
        if self.is_good(now) {
            if self.last_bad == now.mono && self.good_since < now.mono {
                (self.good_since, self.revived) = (now.mono, by_clock);
            }
        } else {
            self.last_bad = now.mono;
        }
    }

    fn is_good(&self, now: Moment) -> bool {
        !self.signed_out && self.held.as_ref().is_some_and(|held| held.is_good(now))
    }

    fn lives(&self, now: Moment) -> bool {
        !self.signed_out && self.held.as_ref().is_some_and(|held| held.lives(now))
    }

    /// The loop runs, and nothing went wrong since the held token came: then "the loop keeps the token fresh", and nobody waits.
    fn is_undisturbed(&self) -> bool {
        let held = self.held.as_ref();
        self.loop_lives && held.is_some_and(|held| held.stored > self.disturbed && held.is_ample(&self.settings))
    }

    fn next_generation(&mut self) -> u64 {
        self.generations += 1;
        self.generations
    }

    /// When the held token turns stale, urgent and dead, for who wants to be there.
    pub fn ends_in(&self) -> Option<Duration> {
        let now = self.clock.now();
        let left = self.held.as_ref()?.runway(now);
        (left < Duration::MAX).then_some(left)
    }

    /// Between two events: as many permits are out as the server has requests ("no permit leaked", and a caller that waits holds none).
    pub fn permits(&mut self, out: usize, served: usize) {
        self.look();
        if out != served {
            self.breaks(
                "6 no permit leaks, and who waits holds none",
                format!("{out} are out and {served} requests are being served"),
            );
        }
    }

    pub fn now(&self) -> Moment {
        self.clock.now()
    }

    /// No request is under way.
    pub fn is_idle(&self) -> bool {
        self.requests.is_empty()
    }

    fn marks(&self) -> Standing {
        match self.storm.count {
            (1.., _) => Standing::Suspect,
            (0, _) => Standing::Marked,
        }
    }
}

/// A token's text is `t` and its number.
pub fn number(text: &str) -> u32 {
    text.get(1..).and_then(|number| number.parse().ok()).unwrap_or_default()
}
