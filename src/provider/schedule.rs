//! The token that is held, and by what time it is how old.

use super::Settings;
use crate::{
    Token,
    clock::{Now, since_epoch, system_time},
    token::Expiry,
};
use std::time::Duration;

/// Beyond this an expiry is a mistake (milliseconds taken for seconds, an overflow), and counts as unknown.
const ABSURD: Duration = Duration::from_secs(10 * 366 * 24 * 3600);

/// How the held token stands at a moment, the worst that applies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Band {
    /// There is none.
    None,
    /// Past its expiry by either clock.
    Dead,
    /// Alive, but rejected, and everybody waits for its successor.
    Marked,
    /// So little left that a request may outlive it.
    Urgent,
    /// Its successor is due.
    Stale,
    /// Nothing to do. One without a known expiry is fresh until it is rejected.
    Fresh,
}

#[derive(Clone, Debug)]
pub(crate) struct Held {
    pub(crate) token: Token,
    /// None: not known.
    pub(crate) dies: Option<Now>,
    /// L, what it had when it was stored; a seed has none, since nobody knows how long it lay about.
    pub(crate) life: Option<Duration>,
    pub(super) refresh_before: Duration,
    pub(super) min_runway: Duration,
    /// When to ask again whatever the expiry says.
    pub(crate) due: Option<Duration>,
    /// On the monotonic clock.
    pub(crate) stored: Duration,
    pub(crate) standing: Standing,
    /// Some rejection of it was seen.
    pub(crate) refused: bool,
    /// A hasty rejection of a resend with it was counted.
    pub(crate) counted: bool,
}

/// What the servers say of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Standing {
    Good,
    /// Rejected in a storm: the others go on sending it.
    Suspect,
    Marked,
}

impl Held {
    pub(crate) fn new(token: Token, dies: Option<Now>, life: Option<Duration>, now: Now) -> Self {
        Self {
            token: dated(token, dies),
            dies,
            life,
            refresh_before: Duration::ZERO,
            min_runway: Duration::ZERO,
            due: None,
            stored: now.mono,
            standing: Standing::Good,
            refused: false,
            counted: false,
        }
    }

    /// Clamps the thresholds to the token's life and draws the jitter, once: no token is stale on arrival, a thousand providers do not
    /// refresh in step, and no token is fresh and urgent at once.
    pub(crate) fn with_thresholds(mut self, settings: &Settings, roll: f64) -> Self {
        let life = self.life.unwrap_or(Duration::MAX);
        self.min_runway = settings.min_runway.min(life / 20);
        let refresh_before = settings.refresh_before.min(life / 2);
        self.refresh_before =
            (refresh_before - refresh_before.mul_f64(0.1 * roll.clamp(0.0, 1.0))).max(self.min_runway);
        self
    }

    /// The same token again, with another end.
    pub(crate) fn extended(&mut self, dies: Option<Now>, life: Option<Duration>, settings: &Settings, roll: f64) {
        self.token = dated(self.token.clone(), dies);
        self.dies = dies;
        self.life = life;
        self.due = None;
        *self = self.clone().with_thresholds(settings, roll);
    }

    /// What is left, by the clock that leaves less; `MAX` where no end is known.
    pub(crate) fn runway(&self, now: Now) -> Duration {
        self.dies.map_or(Duration::MAX, |dies| now.until(dies))
    }

    pub(crate) fn band(&self, now: Now) -> Band {
        let runway = self.runway(now);
        if runway.is_zero() {
            Band::Dead
        } else if self.standing == Standing::Marked {
            Band::Marked
        } else if runway <= self.min_runway && self.dies.is_some() {
            Band::Urgent
        } else if runway <= self.refresh_before || self.due.is_some_and(|due| now.mono >= due) {
            Band::Stale
        } else {
            Band::Fresh
        }
    }

    /// Until when it is fresh, for the reader that only compares.
    pub(crate) fn fresh_until(&self) -> Now {
        if self.standing == Standing::Marked {
            return Now::default();
        }
        let end = self.dies.map_or(Now::NEVER, |dies| dies.before(self.refresh_before));
        Now { mono: self.due.map_or(end.mono, |due| due.min(end.mono)), ..end }
    }

    /// When it turns stale, on the monotonic clock as of now.
    pub(crate) fn stale_at(&self, now: Now) -> Option<Duration> {
        let dated = self.dies.map(|_| now.mono.saturating_add(self.runway(now).saturating_sub(self.refresh_before)));
        match (dated, self.due) {
            (Some(dated), Some(due)) => Some(dated.min(due)),
            (dated, due) => dated.or(due),
        }
    }
}

/// Puts what a token says of its end on both clocks. Err: it says what cannot be.
pub(crate) fn dies(token: &Token, asked: Now, now: Now) -> Result<Option<Now>, AbsurdExpiry> {
    let sane = |span: Duration| if span > ABSURD { Err(AbsurdExpiry) } else { Ok(span) };
    match token.expiry {
        Expiry::Unknown => Ok(None),
        Expiry::Absurd => Err(AbsurdExpiry),
        Expiry::In(span) => Ok(Some(asked.after(sane(span)?))),
        Expiry::At(at) => {
            let wall = since_epoch(at);
            let left = sane(wall.saturating_sub(now.wall))?;
            Ok(Some(Now { wall, mono: now.mono.saturating_add(left) }))
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct AbsurdExpiry;

fn dated(mut token: Token, dies: Option<Now>) -> Token {
    token.expiry = dies.and_then(|dies| system_time(dies.wall)).map_or(Expiry::Unknown, Expiry::At);
    token
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::SystemTime;

    const HOUR: Duration = Duration::from_secs(3600);
    const START: Now = Now { wall: Duration::from_secs(1_000_000), mono: Duration::from_secs(100) };

    fn held(life: Duration, settings: &Settings, roll: f64) -> Held {
        let token = Token::opaque("t").unwrap().with_expires_in(life);
        let dies = dies(&token, START, START).unwrap();
        Held::new(token, dies, Some(life), START).with_thresholds(settings, roll)
    }

    #[test]
    fn an_hour_is_fresh_then_stale_then_urgent_then_dead() {
        let held = held(HOUR, &Settings::default(), 0.0);
        let after = |seconds| held.band(START.after(Duration::from_secs(seconds)));
        assert_eq!(after(0), Band::Fresh);
        assert_eq!(after(3299), Band::Fresh);
        assert_eq!(after(3300), Band::Stale);
        assert_eq!(after(3539), Band::Stale);
        assert_eq!(after(3540), Band::Urgent);
        assert_eq!(after(3599), Band::Urgent);
        assert_eq!(after(3600), Band::Dead);
    }

    #[test]
    fn no_minted_token_is_stale_on_arrival_however_short_it_lives() {
        // boto/botocore#2189, nhost/nhost#2037: a window above the lifetime refreshed on every call.
        for millis in [1, 10, 1_000, 10_000, 120_000, 599_000, 900_000] {
            let life = Duration::from_millis(millis);
            let held = held(life, &Settings::default(), 0.0);
            assert_eq!(held.band(START), Band::Fresh, "{life:?}");
            assert_eq!(held.refresh_before, (life / 2).min(Duration::from_secs(300)));
            assert_eq!(held.min_runway, (life / 20).min(Duration::from_secs(60)));
        }
    }

    #[test]
    fn jitter_never_makes_the_refresh_later_than_min_runway() {
        // smithy-lang/smithy-rs#3402: jitter cancelled the buffer.
        let settings = Settings { refresh_before: Duration::from_secs(60), ..Settings::default() };
        for roll in [0.0, 0.5, 1.0] {
            let held = held(HOUR * 2, &settings, roll);
            assert_eq!(held.refresh_before, held.min_runway);
            let at = |left| held.band(START.after(HOUR * 2 - Duration::from_secs(left)));
            assert_eq!((at(61), at(60)), (Band::Fresh, Band::Urgent));
        }
    }

    #[test]
    fn a_reader_and_the_machine_agree_on_what_is_fresh() {
        for roll in [0.0, 0.3, 1.0] {
            let held = held(HOUR, &Settings::default(), roll);
            for seconds in 3250..3350 {
                for (wall, mono) in [(0, 0), (5000, 0), (0, 5000)] {
                    let now = Now {
                        wall: START.wall + Duration::from_secs(seconds + wall),
                        mono: START.mono + Duration::from_secs(seconds + mono),
                    };
                    assert_eq!(now.is_before(held.fresh_until()), held.band(now) == Band::Fresh);
                }
            }
        }
    }

    #[test]
    fn a_hint_makes_even_a_token_without_expiry_stale() {
        let token = Token::opaque("t").unwrap();
        let mut held = Held::new(token, None, None, START).with_thresholds(&Settings::default(), 0.0);
        assert_eq!(held.band(START.after(HOUR * 1000)), Band::Fresh);
        assert_eq!(held.stale_at(START), None);
        held.due = Some(START.mono + HOUR);
        assert_eq!(held.band(START.after(HOUR)), Band::Stale);
        assert_eq!(held.stale_at(START), Some(START.mono + HOUR));
    }

    #[test]
    fn a_lifetime_counts_from_the_asking_and_a_moment_from_the_wall_clock() {
        let received = START.after(Duration::from_secs(8));
        let token = Token::opaque("t").unwrap();
        let span = dies(&token.clone().with_expires_in(HOUR), START, received).unwrap().unwrap();
        assert_eq!(span, START.after(HOUR));
        let moment = SystemTime::UNIX_EPOCH + received.wall + HOUR;
        assert_eq!(dies(&token.with_expires_at(moment), START, received).unwrap(), Some(received.after(HOUR)));
    }

    #[test]
    fn an_end_that_cannot_be_is_absurd_and_the_ends_of_time_do_not_panic() {
        let token = || Token::opaque("t").unwrap();
        assert_eq!(dies(&token().with_expires_in(Duration::MAX), START, START), Err(AbsurdExpiry));
        let year_9999 = SystemTime::UNIX_EPOCH + Duration::from_secs(253_402_300_800);
        assert_eq!(dies(&token().with_expires_at(year_9999), START, START), Err(AbsurdExpiry));
        let before_1970 = SystemTime::UNIX_EPOCH - HOUR;
        let dead = dies(&token().with_expires_at(before_1970), START, START).unwrap().unwrap();
        assert_eq!(START.until(dead), Duration::ZERO);
    }
}
