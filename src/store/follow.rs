//! A provider that has what other processes store as soon as they have stored it, before it needs it.
//!
//! Without it a process goes on with a token that others have replaced. If servers then refuse all that was issued so far, it finds the replacement, which is refused as well,
//! and it is the second refusal that nobody can help.

use super::{
    known::{Core, Seen},
    record::Id,
};
use crate::{
    Token,
    clock::Clock,
    provider::{Follower, Offered},
    token::Expiry,
};
use std::{
    future::{Future, poll_fn},
    pin::pin,
    sync::{Arc, Mutex, PoisonError},
    task::Poll,
    time::Duration,
};
use tokio::{sync::Notify, time::sleep};
use tracing::debug;

/// After a look that failed: nobody may tell of the same token again.
const AGAIN: Duration = Duration::from_secs(3);

pub(super) struct Follow {
    pub(super) core: Arc<Core>,
    pub(super) clock: Arc<dyn Clock>,
    /// What the provider was given last.
    pub(super) given: Arc<Mutex<Option<Id>>>,
    pub(super) follower: Follower,
    /// What was in the store at the last look; none before the first.
    pub(super) looked: Option<Option<Id>>,
}

impl Follow {
    pub(super) async fn run(mut self) {
        let (core, changed) = (Arc::clone(&self.core), Notify::new());
        let mut over = pin!(self.follower.over());
        let mut watching = pin!(core.watch(&changed));
        let mut giving = pin!(async {
            loop {
                changed.notified().await;
                self.give().await;
            }
        });
        poll_fn(|cx| {
            if over.as_mut().poll(cx).is_ready() || watching.as_mut().poll(cx).is_ready() {
                return Poll::Ready(());
            }
            giving.as_mut().poll(cx)
        })
        .await;
    }

    /// Gives the provider what is stored, if that is newer than what it holds.
    async fn give(&mut self) {
        // Each further round is for a flight that has ended meanwhile.
        while let Some(held) = self.follower.held() {
            let given = self.given();
            let Ok(seen) = self.core.look(&*self.clock).await else {
                sleep(AGAIN).await;
                continue;
            };
            let before = self.looked.replace(seen.id());
            let Some((id, token)) = self.newer(&seen, given, before, held.as_ref()) else { return };
            match self.follower.offer(held.map(|held| held.generation()), token).await {
                Offered::Taken => {
                    debug!(revision = id.revision, "told of a token that was stored");
                    *self.given.lock().unwrap_or_else(PoisonError::into_inner) = Some(id);
                    return;
                }
                Offered::Declined if self.given() == given => return,
                Offered::Declined | Offered::UnderWay => self.looked = before,
            }
        }
    }

    fn newer(
        &self,
        seen: &Seen,
        given: Option<Id>,
        before: Option<Option<Id>>,
        held: Option<&Token>,
    ) -> Option<(Id, Token)> {
        let record = seen.current.as_ref()?;
        let access = record.access.as_ref()?;
        let now = seen.moment.now(&*self.clock);
        // Once offered it is not offered again: somebody may have set another one since.
        if given == Some(record.id) || before == Some(Some(record.id)) || !access.lives(now) {
            return None;
        }
        let left = access.runway(now);
        if let (None, None, Some(held)) = (given, before, held) {
            // Nobody knows which was first: of one that was got without the store, and one that was in the store before.
            let has = held.expires_at().map(|at| at.duration_since(self.clock.wall()).unwrap_or_default());
            if has.is_none() || left.is_some() && left <= has {
                return None;
            }
        }
        let mut token = access.token.clone();
        token.expiry = left.map_or(Expiry::Unknown, Expiry::In);
        Some((record.id, token))
    }

    fn given(&self) -> Option<Id> {
        *self.given.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
