//! What goes wrong at the token endpoint, for each client alike, and measured by the age of that client's own token.
//!
//! Clients that fetch at different ages drift apart, so a moment that is the worst for one would be harmless for another.

use super::LIFE;
use std::time::Instant;

/// From when on each of them is to come; once each.
#[derive(Clone, Copy)]
pub struct Faults {
    /// The endpoint is down for 40 % of a lifetime: from when the first token that lives to see it has lived half of its life.
    pub down_from: Instant,
    /// One fetch is never answered.
    pub silent_from: Instant,
}

/// What a client met.
#[derive(Clone, Copy, Default)]
pub struct Faced {
    pub refused: u32,
    pub unanswered: u32,
}

pub(super) enum Answer {
    Token,
    Down,
    Never,
}

#[derive(Default)]
pub(super) struct Client {
    minted: Option<Instant>,
    /// Still to come, or now.
    down_from: Option<Instant>,
    silent_from: Option<Instant>,
    faced: Faced,
}

impl Client {
    pub(super) fn plan(&mut self, faults: Faults) {
        self.down_from = Some(faults.down_from);
        self.silent_from = Some(faults.silent_from);
    }

    pub(super) fn minted(&mut self, now: Instant) {
        self.minted = Some(now);
    }

    pub(super) fn faced(&self) -> Faced {
        self.faced
    }

    pub(super) fn fetches(&mut self, now: Instant) -> Answer {
        if let (Some(from), Some(minted)) = (self.down_from, self.minted) {
            let (down, up) = (minted + LIFE / 2, minted + LIFE * 9 / 10);
            if down >= from && now >= down {
                if now < up {
                    self.faced.refused += 1;
                    return Answer::Down;
                }
                self.down_from = None;
            }
        }
        if self.silent_from.is_some_and(|from| now >= from) {
            self.silent_from = None;
            self.faced.unanswered += 1;
            return Answer::Never;
        }
        Answer::Token
    }
}
