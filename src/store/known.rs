//! What this process knows of the store: what it saw or got last, and what it has complained of.
//!
//! It may know better than the store: of what the source answered and could not be saved, and of what a store forgot that went back (a failover that lost
//! writes). So the two are compared at each look. Of one line the later revision is right. A store that holds another line is right: it was begun anew
//! there. An empty one, or garbage, is a loss, which what we know makes good.

use super::{
    Loaded, StoreError, StoreLock, TokenStore,
    record::{Id, Read, Record},
};
use crate::{clock::Clock, source::chain};
use std::{
    future::Future,
    sync::{Arc, Mutex, MutexGuard},
    time::{Duration, Instant, SystemTime},
};
use tokio::{sync::Notify, time::timeout};
use tracing::{debug, warn};

/// A store that has not answered by then is down: it is near, and a fetch has other things to do with its time.
pub(super) const ANSWER: Duration = Duration::from_secs(3);

/// Between two waits for a lock.
const PAUSE: Duration = Duration::from_millis(100);

/// What the services of a layer share.
pub(super) struct Core {
    store: Box<dyn TokenStore>,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    record: Option<Record>,
    /// It had a refresh token once.
    had_login: bool,
    moment: Moment,
    /// What was said of it, since it last worked.
    said: [bool; 3],
    /// Somebody is at it to save what could not be saved.
    paying: bool,
}

impl Known {
    fn note_login(&mut self) {
        self.had_login |= self.record.as_ref().is_some_and(|record| record.refresh_token.is_some());
    }
}

#[derive(Clone, Copy)]
enum Step {
    Load,
    Lock,
    Save,
}

impl Step {
    fn complain(self, cause: &str) {
        match self {
            Self::Load => warn!(
                error = cause,
                "the store of shared tokens cannot be read: until it can, this process goes on alone, and does not show a refresh token that others may be showing"
            ),
            Self::Lock => warn!(
                error = cause,
                "the store of shared tokens gives no lock: until it does, this process goes on alone, and does not show a refresh token that others may be showing"
            ),
            Self::Save => warn!(
                error = cause,
                "the store of shared tokens did not take the new token: it is in this process's memory alone, and is tried again"
            ),
        }
    }
}

/// A moment at which the store told the time, if it does.
#[derive(Clone, Copy, Default)]
pub(super) struct Moment(Option<Told>);

#[derive(Clone, Copy)]
struct Told {
    now: SystemTime,
    /// When it did, by this machine's clocks.
    monotonic: Instant,
    wall: SystemTime,
}

impl Moment {
    fn of(loaded: &Loaded, clock: &dyn Clock) -> Self {
        Self(loaded.now().map(|now| Told { now, monotonic: clock.monotonic(), wall: clock.wall() }))
    }

    /// The time that those who share the store agree on. As for a token's life that clock is right which leaves less of it: the monotonic one may have stood
    /// still while the machine was suspended.
    pub(super) fn now(self, clock: &dyn Clock) -> SystemTime {
        self.told_until(clock, |told| told.monotonic(clock).max(told.wall(clock)))
    }

    /// The same where an earlier one is on the safe side: when a life begins.
    pub(super) fn earliest(self, clock: &dyn Clock) -> SystemTime {
        self.told_until(clock, |told| told.monotonic(clock))
    }

    fn told_until(self, clock: &dyn Clock, passed: impl FnOnce(Told) -> Duration) -> SystemTime {
        match self.0 {
            // No store that works tells a time that has none after it.
            Some(told) => told.now.checked_add(passed(told)).unwrap_or(told.now),
            None => clock.wall(),
        }
    }

    /// It is more than what this machine's own clock says.
    pub(super) fn is_of_store(self) -> bool {
        self.0.is_some()
    }
}

/// What has passed since.
impl Told {
    fn monotonic(self, clock: &dyn Clock) -> Duration {
        clock.monotonic().saturating_duration_since(self.monotonic)
    }

    fn wall(self, clock: &dyn Clock) -> Duration {
        clock.wall().duration_since(self.wall).unwrap_or_default()
    }
}

/// What a look into the store has found.
#[derive(Clone)]
pub(super) struct Seen {
    /// The newest there is.
    pub(super) current: Option<Record>,
    /// It has a refresh token that the store has not.
    pub(super) owed: bool,
    /// There was a refresh token once, here or there.
    pub(super) had_login: bool,
    pub(super) moment: Moment,
}

impl Seen {
    pub(super) fn id(&self) -> Option<Id> {
        self.current.as_ref().map(|record| record.id)
    }
}

impl Core {
    pub(super) fn new(store: impl TokenStore) -> Self {
        Self { store: Box::new(store), known: Mutex::default() }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().expect("nothing panics while it holds what is known")
    }

    /// Looks into the store. What is not there is no trouble; what cannot be read is, and was said.
    ///
    /// # Errors
    /// What is to be left alone.
    pub(super) async fn look(&self, clock: &dyn Clock) -> Result<Seen, StoreError> {
        let loaded = match in_time(ANSWER, self.store.load()).await {
            Ok(loaded) => loaded,
            Err(error) => return Err(self.failed(Step::Load, error)),
        };
        let moment = Moment::of(&loaded, clock);
        let stored = match loaded.value().map(Record::read) {
            Some(Read::Foreign(error)) => return Err(self.failed(Step::Load, StoreError::Unusable(error))),
            Some(Read::Garbage(error)) => {
                // Nobody can use it, so it may go.
                self.failed(Step::Load, StoreError::Unusable(error));
                None
            }
            Some(Read::Record(record)) => {
                self.works(Step::Load);
                Some(record)
            }
            None => {
                self.works(Step::Load);
                None
            }
        };
        let mut known = self.known();
        known.moment = moment;
        let behind = |mine: &Record| stored.as_ref().is_none_or(|stored| mine.id.is_after(stored.id));
        let owed = match known.record.as_ref().filter(|mine| behind(mine)) {
            Some(mine) => {
                let theirs = stored.as_ref().and_then(|stored| stored.refresh_token.as_ref());
                mine.refresh_token.is_some() && mine.refresh_token.as_ref() != theirs
            }
            None => {
                known.record = stored;
                false
            }
        };
        known.note_login();
        Ok(Seen { current: known.record.clone(), owed, had_login: known.had_login, moment })
    }

    /// The same, of what is in memory.
    pub(super) fn recall(&self) -> Seen {
        let known = self.known();
        Seen { current: known.record.clone(), owed: false, had_login: known.had_login, moment: known.moment }
    }

    /// What is known from now on, unless something later is.
    pub(super) fn remember(&self, record: &Record) {
        let mut known = self.known();
        if known.record.as_ref().is_none_or(|known| known.id != record.id && !known.id.is_after(record.id)) {
            known.record = Some(record.clone());
            known.note_login();
        }
    }

    pub(super) async fn watch(&self, changed: &Notify) {
        self.store.watch(changed).await;
    }

    pub(super) async fn lock(&self, wait: Duration) -> Result<Box<dyn StoreLock>, StoreError> {
        match in_time(wait.saturating_add(ANSWER), self.store.lock(wait)).await {
            Ok(lock) => {
                self.works(Step::Lock);
                Ok(lock)
            }
            // The store works; it is its holder that takes long.
            Err(StoreError::Busy) => {
                debug!(?wait, "another process has the store's lock");
                Err(StoreError::Busy)
            }
            Err(error) => Err(self.failed(Step::Lock, error)),
        }
    }

    pub(super) async fn save(
        &self,
        lock: &mut dyn StoreLock,
        record: &Record,
        within: Duration,
    ) -> Result<(), StoreError> {
        let bytes = record.write();
        match in_time(within, lock.save(&bytes)).await {
            Ok(()) => {
                self.works(Step::Save);
                debug!(revision = record.id.revision, "stored a token for all processes");
                Ok(())
            }
            Err(error) => Err(self.failed(Step::Save, error)),
        }
    }

    fn works(&self, step: Step) {
        self.known().said[step as usize] = false;
    }

    /// Once until it works again.
    fn failed(&self, step: Step, error: StoreError) -> StoreError {
        let said = std::mem::replace(&mut self.known().said[step as usize], true);
        // A subscriber is somebody else's code: not under the lock.
        if !said {
            let causes: Vec<_> = chain(&error).map(ToString::to_string).collect();
            step.complain(&causes.join(": "));
        }
        error
    }

    /// Goes on in the background to save what could not be saved: what the store holds instead has been spent, and others may show it. Ends when it is
    /// saved, or when the last user of the store is gone.
    pub(super) fn pay_later(self: &Arc<Self>, clock: &Arc<dyn Clock>) {
        if std::mem::replace(&mut self.known().paying, true) {
            return;
        }
        let (paying, clock) = (Paying(Arc::downgrade(self)), Arc::clone(clock));
        tokio::spawn(async move {
            let mut pause = Duration::from_secs(1);
            loop {
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(Duration::from_secs(10));
                let Some(core) = paying.0.upgrade() else { return };
                if core.pay(&*clock).await.is_ok() {
                    return;
                }
            }
        });
    }

    /// Saves what the store should have and has not.
    pub(super) async fn pay(&self, clock: &dyn Clock) -> Result<(), StoreError> {
        let mut lock = self.lock(ANSWER).await?;
        let seen = self.look(clock).await?;
        if let Some(record) = seen.current.filter(|_| seen.owed) {
            self.save(&mut *lock, &record, ANSWER).await?;
        }
        give_back(lock).await;
        Ok(())
    }
}

/// Whoever pays; another one may begin once it is gone.
struct Paying(std::sync::Weak<Core>);

impl Drop for Paying {
    fn drop(&mut self) {
        if let Some(core) = self.0.upgrade() {
            core.known().paying = false;
        }
    }
}

/// The wait for a lock, of which a store may end a part early, to have the layer look.
pub(super) struct LockWait {
    end: tokio::time::Instant,
}

impl LockWait {
    pub(super) fn of(wait: Duration) -> Self {
        Self { end: tokio::time::Instant::now() + wait }
    }

    pub(super) fn left(&self) -> Duration {
        self.end.saturating_duration_since(tokio::time::Instant::now())
    }

    /// Whether some of it is left, after a pause: a store may end it early each time.
    pub(super) async fn goes_on(&self) -> bool {
        let goes_on = self.left() > PAUSE;
        if goes_on {
            tokio::time::sleep(PAUSE).await;
        }
        goes_on
    }
}

pub(super) async fn give_back(lock: Box<dyn StoreLock>) {
    // Dropped otherwise, which gives it back as well.
    let _ = timeout(ANSWER, lock.unlock()).await;
}

async fn in_time<T>(limit: Duration, asked: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
    let late = || StoreError::Unavailable(format!("it did not answer within {limit:.1?}").into());
    timeout(limit, asked).await.unwrap_or_else(|_| Err(late()))
}

#[cfg(all(test, feature = "test-util"))]
mod tests {
    use super::*;
    use crate::clock::ManualClock;

    fn told(now: SystemTime, clock: &ManualClock) -> Moment {
        Moment::of(&Loaded::empty().at(now), clock)
    }

    #[test]
    fn a_store_may_tell_any_time() {
        let last = (0..63)
            .rev()
            .fold(SystemTime::UNIX_EPOCH, |at, bit| at.checked_add(Duration::from_secs(1 << bit)).unwrap_or(at));
        let clock = ManualClock::new();
        let moment = told(last, &clock);
        clock.advance(Duration::from_secs(60));
        assert_eq!(moment.now(&clock), last);
    }

    #[test]
    fn time_passes_while_the_machine_is_suspended_but_no_life_begins_later_for_it() {
        let (then, minute, clock) = (SystemTime::UNIX_EPOCH, Duration::from_secs(60), ManualClock::new());
        let moment = told(then, &clock);
        clock.advance(minute);
        clock.jump_wall_ahead(minute * 2);
        assert_eq!((moment.now(&clock), moment.earliest(&clock)), (then + minute * 3, then + minute));
        clock.jump_wall_back(minute * 9);
        assert_eq!((moment.now(&clock), moment.earliest(&clock)), (then + minute, then + minute));
        assert_eq!(Moment::default().now(&clock), clock.wall());
    }
}
