//! The lease: who has it may ask the source, for as long as it is renewed.
//!
//! It is Redis's own clock that ends it there, whatever the hosts' clocks say. Here it ends a little earlier: its length is counted from before it
//! was asked for, by the monotonic clock and by the wall clock, as the first stands still while a machine is suspended. A process that was frozen
//! and goes on finds it run out before Redis has given it to another.
//!
//! Each lease has an owner of its own, a random name. The last one's name stays in Redis when it gives the lease back or lets it run out, so that
//! it can save late if nobody has had the lease since, and cannot if anybody has. Where the name is gone, Redis has lost what it held: then it
//! takes what it gets.

use super::{RedisStore, news::Heard, scripts::Acquired};
use crate::store::{BoxFuture, StoreError, StoreLock};
use futures_util::future::{Either, select};
use std::{
    pin::pin,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};
use tokio::{
    runtime::Handle,
    sync::{OwnedSemaphorePermit, watch},
    task::JoinHandle,
    time::{Instant, sleep, timeout_at},
};

/// While Redis does not tell that a lease is over, this often it is asked, if the lease does not end earlier.
const POLL: Duration = Duration::from_secs(1);

/// Longer than a refresh may take, with all that may go wrong: whoever has a lease for longer stands still, and it is renewed no more. A lease that is
/// longer has twice its length.
const OVERDUE: Duration = Duration::from_secs(60);

/// Until when a lease is surely ours.
#[derive(Clone, Copy)]
struct End {
    monotonic: Instant,
    wall: Option<SystemTime>,
}

impl End {
    fn after(span: Duration) -> Self {
        Self { monotonic: Instant::now() + span, wall: SystemTime::now().checked_add(span) }
    }

    fn is_ahead(self) -> bool {
        Instant::now() < self.monotonic && self.wall.is_none_or(|wall| SystemTime::now() < wall)
    }
}

pub(super) struct Lease {
    store: RedisStore,
    owner: String,
    /// None once Redis has said that another has it.
    end: Arc<Mutex<Option<End>>>,
    renewal: Option<JoinHandle<()>>,
    runtime: Handle,
    /// Redis may hold it for us, or will when it gets to what was sent.
    to_release: bool,
    _turn: Option<OwnedSemaphorePermit>,
}

impl Lease {
    /// Waits for it until another has saved, which is to be looked at before this is asked for again, and at most for `wait`.
    pub(super) async fn acquire(store: &RedisStore, wait: Duration) -> Result<Self, StoreError> {
        let give_up = Instant::now() + wait;
        let mut heard = store.slot.hear();
        let mut before = *heard.borrow_and_update();
        let turn = turn(store, &mut heard, give_up).await?;
        let mut lease = Self::wanted(store.clone(), turn)?;
        let mut listens = None;
        loop {
            let end = End::after(store.lease);
            lease.to_release = true;
            let left = match store.scripts().acquire(&lease.owner, store.lease).await? {
                Acquired::Mine => return Ok(lease.begins(end)),
                Acquired::Others { left } => left,
            };
            lease.to_release = false;
            if Instant::now() >= give_up {
                return Err(StoreError::Busy);
            }
            let told = listens == Some(true);
            if !told {
                let listening = store.link.listen(&store.slots, &store.slot.key).await;
                // It may have been given back before Redis began to tell.
                if listens.replace(listening).is_none() || listening {
                    continue;
                }
            }
            let mut look_again = Instant::now() + if told { left } else { left.min(POLL) };
            loop {
                match timeout_at(look_again.min(give_up), changed(&mut heard)).await {
                    Ok(now) if now.revision != before.revision => return Err(StoreError::Busy),
                    // The messages do not come any more. Not at once: a server may end each subscription that is begun.
                    Ok(now) if now.missed != before.missed => {
                        (before.missed, listens) = (now.missed, Some(false));
                        look_again = look_again.min(Instant::now() + POLL);
                    }
                    Ok(_) => break,
                    Err(_) if Instant::now() >= give_up => return Err(StoreError::Busy),
                    // Nobody gave it back, so somebody died; or the messages do not come any more.
                    Err(_) => {
                        listens = Some(false);
                        break;
                    }
                }
            }
        }
    }

    fn wanted(store: RedisStore, turn: Option<OwnedSemaphorePermit>) -> Result<Self, StoreError> {
        let mut random = [0; 16];
        getrandom::fill(&mut random).map_err(|error| StoreError::Unavailable(error.into()))?;
        let owner = format!("{:032x}", u128::from_ne_bytes(random));
        let runtime = Handle::current();
        Ok(Self { store, owner, end: Arc::default(), renewal: None, runtime, to_release: false, _turn: turn })
    }

    fn begins(mut self, end: End) -> Self {
        *lock(&self.end) = Some(end);
        let (store, owner, end) = (self.store.clone(), self.owner.clone(), Arc::clone(&self.end));
        self.renewal = Some(tokio::spawn(async move {
            let over = Instant::now() + OVERDUE.max(store.lease * 2);
            while Instant::now() < over {
                sleep(store.lease / 3).await;
                let renewed = End::after(store.lease);
                match store.scripts().renew(&owner, store.lease).await {
                    Ok(true) => *lock(&end) = Some(renewed),
                    Ok(false) => {
                        *lock(&end) = None;
                        return;
                    }
                    // It is still ours, so far as we know, until it runs out.
                    Err(_) => {}
                }
            }
        }));
        self
    }
}

fn lock(end: &Mutex<Option<End>>) -> std::sync::MutexGuard<'_, Option<End>> {
    end.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits for the turn of this process, so that a thousand who want the lease do not all ask Redis. Without one goes on who has waited for longer than a
/// lease lasts: whose turn it is may be on a runtime that stands still.
async fn turn(
    store: &RedisStore,
    heard: &mut watch::Receiver<Heard>,
    give_up: Instant,
) -> Result<Option<OwnedSemaphorePermit>, StoreError> {
    let before = *heard.borrow();
    let turn = pin!(Arc::clone(&store.slot.turn).acquire_owned());
    let saved = pin!(async { while changed(heard).await.revision == before.revision {} });
    match timeout_at(give_up.min(Instant::now() + store.lease), select(turn, saved)).await {
        Ok(Either::Left((turn, _))) => Ok(turn.ok()),
        Ok(Either::Right(_)) => Err(StoreError::Busy),
        Err(_) if Instant::now() >= give_up => Err(StoreError::Busy),
        Err(_) => Ok(None),
    }
}

/// The store of this lease keeps its sender: there is always a next one to wait for.
async fn changed(heard: &mut watch::Receiver<Heard>) -> Heard {
    match heard.changed().await {
        Ok(()) => *heard.borrow_and_update(),
        Err(_) => std::future::pending().await,
    }
}

impl StoreLock for Lease {
    fn is_held(&self) -> bool {
        lock(&self.end).is_some_and(End::is_ahead)
    }

    /// Tries again while the lease lasts: what cannot be saved may be the only copy of a refresh token.
    fn save<'a>(&'a mut self, value: &'a [u8]) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(async move {
            loop {
                match self.store.scripts().save(&self.owner, value).await {
                    Ok(Some(revision)) => {
                        self.store.slot.saved(revision);
                        return Ok(());
                    }
                    Ok(None) => return Err(StoreError::LockLost),
                    Err(failure) if !failure.may_pass() || !self.is_held() => return Err(failure.into()),
                    Err(_) => sleep(self.store.lease / 20).await,
                }
            }
        })
    }

    fn unlock(mut self: Box<Self>) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            self.stop_renewal();
            // Not before it is done: a future dropped here leaves it to `drop`. If Redis is not there, the lease runs out.
            let _ = self.store.scripts().release(&self.owner).await;
            self.to_release = false;
        })
    }
}

impl Lease {
    fn stop_renewal(&mut self) {
        if let Some(renewal) = self.renewal.take() {
            renewal.abort();
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.stop_renewal();
        if std::mem::take(&mut self.to_release) {
            let (store, owner) = (self.store.clone(), std::mem::take(&mut self.owner));
            let release = async move { drop(store.scripts().release(&owner).await) };
            // One that is going down drops it, and the lease runs out.
            Handle::try_current().as_ref().unwrap_or(&self.runtime).spawn(release);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Scenario 133.
    #[tokio::test(start_paused = true)]
    async fn a_lease_that_nobody_uses_any_more_is_not_renewed_for_ever() {
        let nowhere = redis::Client::open("redis+unix:///nowhere").unwrap();
        for (lease, (renewed, over)) in [(10, (58, 70)), (300, (598, 710))] {
            let store = RedisStore::new(nowhere.clone(), "token").with_lease(Duration::from_secs(lease));
            let begun = Instant::now();
            let lease = Lease::wanted(store, None).unwrap().begins(End::after(Duration::from_secs(lease)));
            let renewal = lease.renewal.as_ref().unwrap();
            tokio::time::sleep_until(begun + Duration::from_secs(renewed)).await;
            assert!(!renewal.is_finished());
            tokio::time::sleep_until(begun + Duration::from_secs(over)).await;
            assert!(renewal.is_finished());
        }
    }
}
