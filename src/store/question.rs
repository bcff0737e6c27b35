//! One question to the source: what it is lent, and what becomes of what it brings, however it ends.

use super::{
    known::{Core, Seen},
    record::{Access, Id, Record},
};
use crate::{Token, clock::Clock, source::SharedRefreshToken};
use std::{sync::Arc, time::SystemTime};

pub(super) struct Question {
    core: Arc<Core>,
    clock: Arc<dyn Clock>,
    pub(super) seen: Seen,
    pub(super) lent: Arc<SharedRefreshToken>,
    /// When it was put, by the clock of those who share the store.
    asked: SystemTime,
}

/// What an answer has brought.
pub(super) struct Gain {
    pub(super) record: Record,
    /// The refresh token of before is spent.
    pub(super) rotated: bool,
}

impl Question {
    pub(super) fn new(core: Arc<Core>, clock: Arc<dyn Clock>, seen: Seen, may_spend: bool) -> Self {
        let current = seen.current.as_ref();
        let lent = Arc::new(SharedRefreshToken::lend(
            current.and_then(|current| current.refresh_token.clone()),
            may_spend,
            current.is_some_and(Record::is_signed_out),
            seen.had_login,
        ));
        let asked = seen.moment.earliest(&*clock);
        Self { core, clock, seen, lent, asked }
    }

    /// Takes it into memory, with or without a token: a source that failed may have spent the refresh token all the same.
    ///
    /// A token that was got without the lock is of this process alone, unless it cost the refresh token.
    pub(super) fn take(&self, token: Option<&Token>, locked: bool) -> Option<Gain> {
        let successor = self.lent.take_new();
        let rotated = successor.is_some();
        let of_all = locked && token.is_some();
        if !(of_all || rotated) {
            return None;
        }
        let before = self.seen.current.as_ref();
        let record = Record {
            id: Id::after(self.seen.id(), self.seen.moment.now(&*self.clock)),
            access: match token {
                Some(token) => Some(Access::new(token, self.asked)),
                None => before.and_then(|before| before.access.clone()),
            },
            refresh_token: successor.or_else(|| before.and_then(|before| before.refresh_token.clone())),
        };
        self.core.remember(&record);
        Some(Gain { record, rotated })
    }
}

/// The runtime may go down after the source has told of a new refresh token, and before its future has ended.
impl Drop for Question {
    fn drop(&mut self) {
        self.take(None, false);
    }
}
