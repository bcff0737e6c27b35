//! A store in a file, for the processes of one user on one machine.
//!
//! **What lasts.** A new value is written beside the old one, synced, and renamed over it; then the directory is synced. So whoever reads, and whoever comes after a
//! crash at any step, finds the old value or the new, whole. What a killed process leaves beside it is removed by the next that saves.
//!
//! **The lock** is `flock` on a file of its own that is never deleted: the system gives it back when its holder dies, however that happens. That file carries no data, and
//! whoever locks it makes sure that it still is the one of that name. It is tried again and again instead of waited for: a thread that waits in the kernel
//! cannot be called back.
//!
//! **Frozen.** A holder whose runtime nobody drives any more would keep the lock for ever. Whoever in the same process finds it [`OVERDUE`] closes its file, and
//! with it goes the lock; its own save then finds nothing to save under. A whole process that stands still (`SIGSTOP`, a debugger) keeps the lock.

mod place;

use super::{BoxFuture, Loaded, StoreError, StoreLock, TokenStore};
use crate::source::turns::Turns;
use place::Place;
use std::{
    fmt,
    fs::File,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError, Weak},
    time::Duration,
};
use tokio::time::{Instant, sleep};
use zeroize::Zeroizing;

/// Longer than a refresh may hold the lock, with all that may go wrong.
const OVERDUE: Duration = Duration::from_secs(60);

/// Between two tries for the lock: at first as long as a save takes, then as long as a request to a server.
const PAUSES: (Duration, Duration) = (Duration::from_millis(2), Duration::from_millis(50));

/// A store in a file, for the processes of one user on one machine. Unix only.
///
/// ```no_run
/// use tower::Layer;
/// use tower_jwt_refresh::{BoxError, Token, TokenProvider, TokenRequest, store::{FileStore, StoreLayer}};
///
/// let source = tower::service_fn(|_: TokenRequest| async { Ok::<_, BoxError>(Token::opaque("secret")?) });
/// let store = FileStore::new("/home/me/.local/state/my-cli/token");
/// let provider = TokenProvider::new(StoreLayer::new(store).layer(source));
/// ```
///
/// Beside the file `token` there are `token.lock`, which stays, and `token.new` while it is written. All are for their owner alone (mode 0600). They hold what a
/// login is worth, unencrypted: whoever may read them may act as the user.
///
/// # The directory
/// It is made, with those above it, for its owner alone (0700) where it is missing. One that is there must belong to this user or to root, and nobody else may write to
/// it, unless it is sticky as `/tmp` is: who can rename in it could give this process another one's login. Directories above it are not looked at. The file
/// and its lock must be regular files of this user, closed to all others; symbolic links are not followed. Else the store is
/// [`Unusable`](StoreError::Unusable), with an error that names the remedy, and nothing is changed.
///
/// # Several users
/// Each needs a file of their own: one that is in another's hands is refused.
///
/// # Other machines
/// The lock is `flock`, which network file systems hand on to their server, if at all, and some only seem to. Take a store that is made for several machines.
/// What containers of one machine mount from it works.
///
/// # A runtime that is driven now and then
/// `block_on` for each request, on a `current_thread` runtime, may end in the middle of a refresh, which then keeps the lock until the runtime is driven again: meanwhile other
/// processes find it [`Busy`](StoreError::Busy). Others of the same process get it after a minute. Take a runtime that is always driven.
///
/// # Blocking
/// All I/O is done in tokio's blocking threads, at most two at a time for one store and its clones: a disk that hangs costs no worker, and no more threads than these.
#[derive(Clone)]
pub struct FileStore(Arc<Inner>);

struct Inner {
    place: Place,
    reading: Turns,
    writing: Turns,
    /// Who of this process has the lock.
    holder: Mutex<Weak<Hold>>,
    overdue: Duration,
}

impl FileStore {
    /// A store in this file. A relative path is taken from where the process is now. Nothing is read, made or checked yet.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self::taken_over_after(path.into(), OVERDUE)
    }

    fn taken_over_after(path: PathBuf, overdue: Duration) -> Self {
        let path = std::path::absolute(&path).unwrap_or(path);
        Self(Arc::new(Inner {
            place: Place::new(path),
            reading: Turns::default(),
            writing: Turns::default(),
            holder: Mutex::default(),
            overdue,
        }))
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.0.place.path()
    }
}

impl fmt::Debug for FileStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileStore").field("path", &self.path()).finish_non_exhaustive()
    }
}

impl TokenStore for FileStore {
    fn load(&self) -> BoxFuture<'_, Result<Loaded, StoreError>> {
        let inner = Arc::clone(&self.0);
        Box::pin(async move {
            let turns = inner.reading.clone();
            let read = turns.take(move || inner.place.read()).await.map_err(gone)??;
            Ok(read.map_or_else(Loaded::empty, Loaded::of))
        })
    }

    fn lock(&self, wait: Duration) -> BoxFuture<'_, Result<Box<dyn StoreLock>, StoreError>> {
        let inner = Arc::clone(&self.0);
        Box::pin(async move {
            let end = Instant::now() + wait;
            let mut pause = PAUSES.0;
            loop {
                let trying = Arc::clone(&inner);
                if let Some(hold) = inner.writing.take(move || trying.try_lock()).await.map_err(gone)?? {
                    return Ok(Box::new(FileLock { inner, hold }) as Box<dyn StoreLock>);
                }
                let left = end.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    return Err(StoreError::Busy);
                }
                sleep(pause.min(left)).await;
                pause = (pause * 2).min(PAUSES.1);
            }
        })
    }
}

impl Inner {
    fn try_lock(&self) -> Result<Option<Arc<Hold>>, StoreError> {
        let mut holder = self.holder.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(hold) = holder.upgrade().filter(|hold| hold.ends <= std::time::Instant::now())
            // Not while it saves.
            && let Ok(mut file) = hold.file.try_lock()
        {
            *file = None;
        }
        let Some(file) = self.place.try_lock()? else { return Ok(None) };
        let hold = Hold { file: Mutex::new(Some(file)), ends: std::time::Instant::now() + self.overdue };
        let hold = Arc::new(hold);
        *holder = Arc::downgrade(&hold);
        Ok(Some(hold))
    }
}

/// The lock lasts as long as the file is open.
struct Hold {
    file: Mutex<Option<File>>,
    /// Not tokio's clock: the thread that looks at it may have none.
    ends: std::time::Instant,
}

impl Hold {
    fn file(&self) -> MutexGuard<'_, Option<File>> {
        self.file.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct FileLock {
    inner: Arc<Inner>,
    /// Shared with a save that has begun, which cannot be called back: the lock is given back when that is over.
    hold: Arc<Hold>,
}

impl StoreLock for FileLock {
    fn is_held(&self) -> bool {
        match self.hold.file.try_lock() {
            Ok(file) => file.is_some(),
            Err(TryLockError::Poisoned(file)) => file.into_inner().is_some(),
            // It saves, under the lock. Not waited for: the disk may hang.
            Err(TryLockError::WouldBlock) => true,
        }
    }

    fn save<'a>(&'a mut self, value: &'a [u8]) -> BoxFuture<'a, Result<(), StoreError>> {
        let (inner, hold) = (Arc::clone(&self.inner), Arc::clone(&self.hold));
        let value = Zeroizing::new(value.to_vec());
        Box::pin(async move {
            let turns = inner.writing.clone();
            let work = move || match &*hold.file() {
                Some(lock) => inner.place.replace(lock, &value),
                None => Err(StoreError::LockLost),
            };
            turns.take(work).await.map_err(gone)?
        })
    }

    fn unlock(self: Box<Self>) -> BoxFuture<'static, ()> {
        drop(self);
        Box::pin(std::future::ready(()))
    }
}

fn gone(error: tokio::task::JoinError) -> StoreError {
    StoreError::Unavailable(error.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::runtime::Builder;

    fn on_another_runtime<T>(future: impl Future<Output = T>) -> T {
        Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
    }

    #[tokio::test]
    async fn a_save_that_hangs_holds_up_nobody_who_asks_whether_the_lock_is_held() {
        let folder = tempfile::tempdir().unwrap();
        let store = FileStore::new(folder.path().join("token"));
        let lock = store.lock(Duration::ZERO).await.unwrap();
        let hold = store.0.holder.lock().unwrap().upgrade().unwrap();
        let saves = hold.file();
        let (answer, answered) = std::sync::mpsc::channel();
        std::thread::spawn(move || answer.send(lock.is_held()));
        assert_eq!(answered.recv_timeout(Duration::from_secs(20)), Ok(true));
        drop(saves);
    }

    // Scenario 133.
    #[test]
    fn a_holder_that_nobody_drives_any_more_loses_the_lock_and_saves_nothing_when_it_runs_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        for (overdue, taken) in [(Duration::ZERO, true), (OVERDUE, false)] {
            let store = FileStore::taken_over_after(path.clone(), overdue);
            let frozen = Builder::new_current_thread().enable_all().build().unwrap();
            let mut held = frozen.block_on(store.lock(Duration::ZERO)).unwrap();
            // Another process.
            let other = FileStore::new(path.clone());
            assert!(matches!(on_another_runtime(other.lock(Duration::ZERO)), Err(StoreError::Busy)));
            let next = on_another_runtime(store.lock(Duration::ZERO));
            assert_eq!((next.is_ok(), held.is_held()), (taken, !taken));
            let saved = frozen.block_on(held.save(b"late"));
            assert_eq!(matches!(saved, Err(StoreError::LockLost)), taken, "{saved:?}");
            drop(held);
            if let Ok(mut next) = next {
                on_another_runtime(next.save(b"right")).unwrap();
                assert!(matches!(on_another_runtime(other.lock(Duration::ZERO)), Err(StoreError::Busy)));
                assert_eq!(std::fs::read(&path).unwrap(), b"right");
            }
        }
    }
}
