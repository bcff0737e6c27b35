//! Which token is held, and until when, by the design's own words ("The flight", "Lifetimes"): worked out from what the source answered, never
//! read from the provider.

use super::gates::Waits;
use crate::{clock::Moment, settings::Settings};
use std::time::Duration;

/// What a token says of its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Says {
    Nothing,
    /// A moment of the wall clock, since the epoch.
    At(Duration),
    /// So long after it was asked for.
    In(Duration),
}

/// An end on both clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct End {
    pub wall: Duration,
    mono: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    Good,
    /// Refused in a storm: others go on sending it.
    Suspect,
    /// Refused, and perhaps marked: others wait for its successor.
    Marked,
}

#[derive(Clone, Debug)]
pub struct Held {
    pub token: u32,
    pub generation: u64,
    pub dies: Option<End>,
    life: Option<Duration>,
    pub stored: Duration,
    pub standing: Standing,
    /// Somebody was refused with it.
    pub refused: bool,
    /// A resend was refused with it in its first 10 s.
    pub counted: bool,
    /// The source was asked in vain: when it is asked again at the earliest, whatever the expiry says.
    pub due: Option<Duration>,
}

/// What became of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Landed {
    Stored,
    Extended,
    NoProgress,
    /// The refused token again.
    Failed,
}

impl Says {
    pub fn dies(self, asked: Moment, now: Moment) -> Option<End> {
        match self {
            Self::Nothing => None,
            Self::In(span) => Some(End { wall: asked.wall + span, mono: asked.mono + span }),
            Self::At(wall) => Some(End { wall, mono: now.mono + wall.saturating_sub(now.wall) }),
        }
    }
}

impl End {
    fn left(self, now: Moment) -> Duration {
        self.wall.saturating_sub(now.wall).min(self.mono.saturating_sub(now.mono))
    }
}

fn left(dies: Option<End>, now: Moment) -> Duration {
    dies.map_or(Duration::MAX, |dies| dies.left(now))
}

impl Held {
    pub fn new(token: u32, generation: u64, dies: Option<End>, life: Option<Duration>, now: Moment) -> Self {
        let (stored, standing) = (now.mono, Standing::Good);
        Self { token, generation, dies, life, stored, standing, refused: false, counted: false, due: None }
    }

    /// By the clock that leaves less ("Invariants", 7).
    pub fn runway(&self, now: Moment) -> Duration {
        left(self.dies, now)
    }

    pub fn lives(&self, now: Moment) -> bool {
        !self.runway(now).is_zero()
    }

    /// Alive, and nobody has to wait for its successor.
    pub fn is_good(&self, now: Moment) -> bool {
        self.lives(now) && self.standing < Standing::Marked
    }

    /// What a failure's wait is halved by: what is left of a token that lives and has a known end.
    pub fn shortens(&self, now: Moment) -> Option<Duration> {
        Some(self.runway(now)).filter(|left| !left.is_zero() && *left < Duration::MAX)
    }

    /// What it had when it was stored or extended.
    pub fn life(&self) -> Duration {
        self.life.unwrap_or(Duration::MAX)
    }

    /// Is there time for a refresh between stale and urgent?
    pub fn is_ample(&self, settings: &Settings) -> bool {
        let fetch = settings.min_interval + Duration::from_secs(1);
        self.life.is_some_and(|life| life >= fetch * 10)
            && self.refresh_before(settings).mul_f64(0.9) >= self.min_runway(settings) + fetch
    }

    /// With less than this left, requests may wait.
    pub fn min_runway(&self, settings: &Settings) -> Duration {
        settings.min_runway.min(self.life.unwrap_or(Duration::MAX) / 20)
    }

    /// With less than this left, a refresh may be due; jitter makes it later, never earlier.
    pub fn refresh_before(&self, settings: &Settings) -> Duration {
        settings.refresh_before.min(self.life.unwrap_or(Duration::MAX) / 2).max(self.min_runway(settings))
    }
}

/// A flight that asked at `asked` brings `token`. "What it brings is judged in this order".
pub fn land(
    held: &mut Option<Held>,
    waits: &mut Waits,
    settings: &Settings,
    (asked, now): (Moment, Moment),
    (token, says): (u32, Says),
    generation: u64,
) -> Landed {
    let dies = says.dies(asked, now);
    let landed = match held {
        Some(same) if same.token == token => again(same, waits, settings, now, dies),
        _ => other(held, waits, settings, now, (token, dies), generation),
    };
    match landed {
        Landed::NoProgress => waits.no_progress(now, held.as_ref().and_then(|held| held.shortens(now)), settings),
        Landed::Failed => waits.fail(now, held.as_ref().and_then(|held| held.shortens(now)), (false, None), settings),
        Landed::Stored | Landed::Extended => {}
    }
    landed
}

fn again(held: &mut Held, waits: &mut Waits, settings: &Settings, now: Moment, dies: Option<End>) -> Landed {
    let (had, has) = (left(held.dies, now), left(dies, now));
    // What two readings of one expiry may differ by is no extension.
    let noise = Duration::from_secs(1).min(has / 20);
    let longer = dies.is_some() && (held.dies.is_none() && !has.is_zero() || has > had.saturating_add(noise));
    let refused = held.standing > Standing::Good;
    if longer {
        (held.dies, held.life, held.due) = (dies, dies.map(|dies| dies.left(now)), None);
        if !refused {
            waits.succeed();
        }
    } else if had.is_zero() && (has.is_zero() || dies.is_none()) {
        (held.dies, held.life) = (None, None);
        held.due = Some(if refused { now.mono } else { waits.come_back(now, settings) });
    } else if !refused {
        return Landed::NoProgress;
    }
    if refused { Landed::Failed } else { Landed::Extended }
}

fn other(
    held: &mut Option<Held>,
    waits: &mut Waits,
    settings: &Settings,
    now: Moment,
    (token, dies): (u32, Option<End>),
    generation: u64,
) -> Landed {
    if !left(dies, now).is_zero() {
        waits.succeed();
        *held = Some(Held::new(token, generation, dies, dies.map(|dies| dies.left(now)), now));
        return Landed::Stored;
    }
    if held.as_ref().is_some_and(|held| held.dies.is_some() && held.lives(now) && !held.refused) {
        return Landed::NoProgress;
    }
    let due = Some(waits.come_back(now, settings));
    *held = Some(Held { due, ..Held::new(token, generation, None, None, now) });
    Landed::Stored
}
