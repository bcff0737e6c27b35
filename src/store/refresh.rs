//! One refresh: adopt what another process has stored, or take the lock, look again, ask the source, save, and only then give the token out.
//!
//! **The order.** Look; if what is there is another token than the one held, and lives, it is adopted: no lock, no fetch. Else take the lock and look
//! *again*: what was read before the lock may have been spent by who had it (this is where Duende Support#1286 lost its logins). Ask, save,
//! unlock, answer. If the lock could not be had in time, its holder may have saved right at the end, so look once more.
//!
//! **Who may be dropped.** A provider drops a fetch at its `fetch_timeout`, a runtime drops its tasks when it goes down, and either can happen at any await. Up to the
//! lock there is nothing to lose: a dropped lock is a lock given back. From the moment the source is asked there is: the server may have spent the refresh
//! token, and its successor is in the answer alone. So asking, saving and unlocking run in a task of their own, which the provider does not drop; the
//! next fetch finds what it saved. When the runtime goes down it takes the task with it; an answer that has arrived is in memory by then
//! ([`Question`] sees to that, however it ends), and the next fetch on another runtime saves it. What has not arrived is lost, and the same refresh token is shown
//! again, which a server heals that has a grace window.
//!
//! **Who froze.** A process that stood still may have lost its lock without a word. Right before the source is called, and each time before it is polled, it asks the lock whether it
//! is still held, and a late save is refused by the store.
//!
//! **Time.** A provider gives a fetch 30 s. A look has 3 s, the wait for the lock 20 s, which is what the holder's source may take by default; so even the
//! longest wait leaves some seconds to look again and to ask. What a fetch does not get done in time is not lost: the task has 30 s of its own for the source, and 5 s
//! to save. A holder that hangs gives the lock back after that.

use super::{
    StoreError, StoreLock,
    known::{Core, LockWait, Moment, Seen, give_back},
    question::Question,
    record::{Id, Record},
};
use crate::{BoxError, SourceError, Token, TokenRequest, clock::Clock, token::Expiry};
use std::{
    future::{Future, poll_fn},
    panic::resume_unwind,
    pin::pin,
    sync::{Arc, Mutex, PoisonError},
    task::Poll,
    time::{Duration, Instant},
};
use tokio::{
    sync::{Notify, oneshot},
    time::{sleep, timeout},
};
use tower::{Service, util::BoxService};
use tracing::{Instrument, debug};

/// The source may have the lock for this long: more than one with a timeout of its own takes.
const ASK: Duration = Duration::from_secs(30);

/// One attempt to save. A disk that is slow is still worth the wait.
const SAVE: Duration = Duration::from_secs(5);

/// The lock is kept this long while a successor cannot be saved: what the store holds is spent, and nobody else shall show it.
const INSIST: Duration = Duration::from_secs(10);

/// What those who have no lock may ask at once.
pub(super) struct Source {
    /// Locked while it gets ready and is called, within one poll, never across an await.
    service: Mutex<BoxService<TokenRequest, Token, BoxError>>,
    /// Of all who wait for it to get ready it wakes the last alone. So each who leaves wakes the others.
    left: Notify,
}

impl Source {
    pub(super) fn new(service: BoxService<TokenRequest, Token, BoxError>) -> Self {
        Self { service: Mutex::new(service), left: Notify::new() }
    }
}

struct Leaving<'a>(&'a Notify);

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        self.0.notify_waiters();
    }
}

#[derive(Clone)]
pub(super) struct Settings {
    pub(super) clock: Arc<dyn Clock>,
    pub(super) lock_wait: Duration,
    pub(super) spend_without_lock: bool,
}

pub(super) struct Refresh {
    pub(super) core: Arc<Core>,
    pub(super) settings: Settings,
    pub(super) source: Arc<Source>,
    /// What the provider was given last.
    pub(super) given: Arc<Mutex<Option<Id>>>,
    pub(super) request: TokenRequest,
    pub(super) begun: Instant,
}

/// A token, and which record it is of, if that is stored.
type Got = (Token, Option<Id>);

impl Refresh {
    /// The provider has it once this has ended, and not before: it may be dropped at any await.
    pub(super) async fn run(self) -> Result<Token, BoxError> {
        let given = Arc::clone(&self.given);
        let (token, id) = self.refreshed().await?;
        if id.is_some() {
            *given.lock().unwrap_or_else(PoisonError::into_inner) = id;
        }
        Ok(token)
    }

    async fn refreshed(self) -> Result<Got, BoxError> {
        let Ok(seen) = self.look().await else { return self.alone().await };
        if !seen.owed
            && let Some(got) = self.adopt(&seen)
        {
            return Ok(got);
        }
        let wait = LockWait::of(self.settings.lock_wait);
        loop {
            match self.core.lock(wait.left()).await {
                Ok(lock) => return self.locked(lock).await,
                Err(StoreError::Busy) => {}
                Err(_) => return self.alone().await,
            }
            let Ok(seen) = self.look().await else { return self.alone().await };
            if let Some(got) = self.adopt(&seen) {
                return Ok(got);
            }
            // What was saved may be of no use here.
            if !wait.goes_on().await {
                return self.alone().await;
            }
        }
    }

    async fn look(&self) -> Result<Seen, StoreError> {
        self.core.look(&*self.settings.clock).await
    }

    async fn locked(self, mut lock: Box<dyn StoreLock>) -> Result<Got, BoxError> {
        let Ok(seen) = self.look().await else {
            give_back(lock).await;
            return self.alone().await;
        };
        if let Some(record) = seen.current.as_ref().filter(|_| seen.owed) {
            // Failed, it goes on: nobody knows better than this process, and the next save brings it too.
            let _ = self.core.save(&mut *lock, record, SAVE).await;
        }
        if let Some(got) = self.adopt(&seen) {
            give_back(lock).await;
            return Ok(got);
        }
        self.ask(Some(lock), seen).await
    }

    /// Without the store: from what is in memory, and from the source.
    async fn alone(self) -> Result<Got, BoxError> {
        let seen = self.core.recall();
        match self.adopt(&seen) {
            Some(got) => Ok(got),
            None => self.ask(None, seen).await,
        }
    }

    /// What another process has got, if it is of use here.
    fn adopt(&self, seen: &Seen) -> Option<Got> {
        let record = seen.current.as_ref()?;
        let access = record.access.as_ref()?;
        let now = seen.moment.now(&*self.settings.clock);
        if !access.lives(now) {
            return None;
        }
        let given = *self.given.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(held) = self.request.previous() {
            // The second is for a provider that was `set` since: it is not to go back.
            if held.same_bytes(&access.token) || given == Some(record.id) {
                return None;
            }
        }
        debug!(revision = record.id.revision, "adopted a token that was stored");
        let waited = self.waited();
        let expiry = access.runway(now).map_or(Expiry::Unknown, |left| Expiry::In(left.saturating_add(waited)));
        let mut token = access.token.clone();
        token.expiry = expiry;
        Some((token, Some(record.id)))
    }

    /// Since the provider asked: what it counts a token's life from.
    fn waited(&self) -> Duration {
        self.settings.clock.monotonic().saturating_duration_since(self.begun)
    }

    async fn ask(self, lock: Option<Box<dyn StoreLock>>, seen: Seen) -> Result<Got, BoxError> {
        let (answer, answered) = oneshot::channel();
        let task = tokio::spawn(self.critical(lock, seen, answer).in_current_span());
        match answered.await {
            Ok(answer) => answer,
            Err(_) => match task.await {
                // The source's: it is reported as if it had been called here.
                Err(error) if error.is_panic() => resume_unwind(error.into_panic()),
                _ => Err("the runtime went down that was asking the source".into()),
            },
        }
    }

    async fn critical(
        mut self,
        mut lock: Option<Box<dyn StoreLock>>,
        seen: Seen,
        answer: oneshot::Sender<Result<Got, BoxError>>,
    ) {
        let clock = Arc::clone(&self.settings.clock);
        let may_spend = lock.is_some() || self.settings.spend_without_lock;
        let question = Question::new(Arc::clone(&self.core), Arc::clone(&clock), seen, may_spend);
        self.request.shared = Some(Arc::clone(&question.lent));
        let waited = self.waited();
        let result = self.source_answers(&mut lock).await;
        // No await between the answer and this.
        let gain = question.take(result.as_ref().ok(), lock.is_some());

        let saved = match (&gain, &mut lock) {
            (Some(gain), Some(lock)) => self.core.save(&mut **lock, &gain.record, SAVE).await.is_ok(),
            _ => false,
        };
        let unsaved = gain.as_ref().filter(|gain| gain.rotated && !saved).map(|gain| &gain.record);
        // Not stored, it may be another record that has this id.
        let id = gain.as_ref().filter(|_| saved).map(|gain| gain.record.id);
        let result = match result {
            Ok(token) => Ok((self.counted_from_begin(token, question.seen.moment, waited), id)),
            Err(error) if gain.is_none() => self.second_thought(&question.seen, error).await,
            Err(error) => Err(error),
        };
        // Before the answer: a program that wanted one token ends with it, and a lease would run on.
        if unsaved.is_none()
            && let Some(lock) = lock.take()
        {
            give_back(lock).await;
        }
        // Whoever asked may be gone; the next fetch finds it.
        let _ = answer.send(result);
        let Some(record) = unsaved else { return };
        if let Some(mut lock) = lock {
            let _ = timeout(INSIST, self.insist(&mut *lock, record)).await;
            give_back(lock).await;
        }
        // It may be saved by now; then this finds nothing to do.
        if self.core.pay(&*clock).await.is_err() {
            self.core.pay_later(&clock);
        }
    }

    async fn source_answers(&self, lock: &mut Option<Box<dyn StoreLock>>) -> Result<Token, BoxError> {
        let mut request = Some(self.request.clone());
        let asked = async {
            let leaving = Leaving(&self.source.left);
            let called = loop {
                let mut left = pin!(self.source.left.notified());
                let called = poll_fn(|cx| {
                    let mut service = self.source.service.lock().unwrap_or_else(PoisonError::into_inner);
                    match service.poll_ready(cx) {
                        Poll::Ready(Ok(())) => {}
                        Poll::Ready(Err(error)) => return Poll::Ready(Some(Err(error))),
                        Poll::Pending => {
                            drop(service);
                            return left.as_mut().poll(cx).map(|()| None);
                        }
                    }
                    if lock.as_mut().is_some_and(|lock| !lock.is_held()) {
                        return Poll::Ready(Some(Err(SourceError::transient(StoreError::LockLost).into())));
                    }
                    Poll::Ready(Some(Ok(service.call(request.take().expect("called once")))))
                });
                if let Some(called) = called.await {
                    break called;
                }
            };
            drop(leaving);
            let mut answering = pin!(called?);
            poll_fn(|cx| {
                // It may have stood still since it was polled last.
                if !self.settings.spend_without_lock
                    && lock.as_mut().is_some_and(|lock| !lock.is_held())
                    && let Some(lent) = &self.request.shared
                {
                    lent.forbid();
                }
                answering.as_mut().poll(cx)
            })
            .await
        };
        let late = || format!("the source did not answer within {ASK:?}").into();
        timeout(ASK, asked).await.unwrap_or_else(|_| Err(late()))
    }

    /// The same end, for a provider that counts from before the wait for the lock; by the store's clock, if it has one.
    fn counted_from_begin(&self, mut token: Token, moment: Moment, waited: Duration) -> Token {
        token.expiry = match token.expiry {
            Expiry::In(span) => Expiry::In(span.saturating_add(waited)),
            Expiry::At(at) if moment.is_of_store() => {
                let left = at.duration_since(moment.now(&*self.settings.clock)).unwrap_or_default();
                Expiry::In(left.saturating_add(self.waited()))
            }
            other => other,
        };
        token
    }

    /// A refusal for good may mean that another process has spent the refresh token meanwhile: then it has stored what it got.
    async fn second_thought(&self, seen: &Seen, error: BoxError) -> Result<Got, BoxError> {
        if !SourceError::find(&*error).is_some_and(SourceError::is_permanent) {
            return Err(error);
        }
        match self.look().await {
            Ok(now) if now.id() != seen.id() => match self.adopt(&now) {
                Some(got) => Ok(got),
                None => Err(SourceError::transient(error).into()),
            },
            _ => Err(error),
        }
    }

    async fn insist(&self, lock: &mut dyn StoreLock, record: &Record) {
        loop {
            sleep(Duration::from_secs(1)).await;
            if matches!(self.core.save(lock, record, SAVE).await, Ok(()) | Err(StoreError::LockLost)) {
                return;
            }
        }
    }
}
