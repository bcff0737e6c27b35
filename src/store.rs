//! One token for many processes: a layer around a source, and the stores behind it.
//!
//! [`StoreLayer`] is the layer, `FileStore` a store for one machine; others implement [`TokenStore`]. The [page](crate::docs::sharing) says what is guaranteed.

#[cfg(unix)]
mod file;
mod follow;
mod known;
mod layer;
mod question;
mod record;
#[cfg(feature = "redis")]
mod redis;
mod refresh;
#[cfg(feature = "seal")]
mod seal;

#[cfg(unix)]
pub use file::FileStore;
pub use layer::{StoreLayer, Stored};
#[cfg(feature = "redis")]
pub use redis::{RedisFailure, RedisServer, RedisStore};
#[cfg(feature = "seal")]
pub use seal::{SealKey, Sealed};

use crate::BoxError;
use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    time::{Duration, SystemTime},
};
use tokio::sync::Notify;
use zeroize::Zeroizing;

/// What the traits here return: a boxed future, which `Box::pin(async move { … })` makes.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Where processes share one token. Bytes in, bytes out: what they mean is the layer's.
///
/// ```
/// use std::{sync::{Arc, Mutex}, time::Duration};
/// use tower_jwt_refresh::store::{BoxFuture, Loaded, StoreError, StoreLock, TokenStore};
///
/// /// For the providers of one process.
/// #[derive(Default)]
/// struct InMemory {
///     kept: Arc<Mutex<Loaded>>,
///     lock: Arc<tokio::sync::Mutex<()>>,
/// }
///
/// impl TokenStore for InMemory {
///     fn load(&self) -> BoxFuture<'_, Result<Loaded, StoreError>> {
///         Box::pin(async { Ok(self.kept.lock().unwrap().clone()) })
///     }
///
///     fn lock(&self, wait: Duration) -> BoxFuture<'_, Result<Box<dyn StoreLock>, StoreError>> {
///         Box::pin(async move {
///             let locked = tokio::time::timeout(wait, Arc::clone(&self.lock).lock_owned());
///             let _guard = locked.await.map_err(|_| StoreError::Busy)?;
///             Ok(Box::new(Locked { kept: Arc::clone(&self.kept), _guard }) as Box<dyn StoreLock>)
///         })
///     }
/// }
///
/// struct Locked {
///     kept: Arc<Mutex<Loaded>>,
///     _guard: tokio::sync::OwnedMutexGuard<()>,
/// }
///
/// impl StoreLock for Locked {
///     // Nobody takes it over.
///     fn is_held(&self) -> bool {
///         true
///     }
///
///     fn save<'a>(&'a mut self, value: &'a [u8]) -> BoxFuture<'a, Result<(), StoreError>> {
///         Box::pin(async {
///             *self.kept.lock().unwrap() = Loaded::holding(value.to_vec());
///             Ok(())
///         })
///     }
///
///     fn unlock(self: Box<Self>) -> BoxFuture<'static, ()> {
///         Box::pin(async {})
///     }
/// }
/// ```
///
/// Any future of it may be dropped at any point, and may be run on another runtime each time. The layer bounds all waits.
pub trait TokenStore: Send + Sync + 'static {
    /// What is kept now, and the time by a clock that all processes share, if the store has one. Needs no lock, and must not wait for one.
    fn load(&self) -> BoxFuture<'_, Result<Loaded, StoreError>>;

    /// The lock: who holds it may ask the source, and save. Waits for it at most `wait`, then fails with [`StoreError::Busy`]. A future that is
    /// dropped leaves nothing locked. It may fail so before that, once another one has saved: the layer looks, and goes on waiting if that is of no use to it.
    ///
    /// It ends by itself if its holder dies. Where it may end before that, because the holder was too slow, its [`save`](StoreLock::save) is refused.
    fn lock(&self, wait: Duration) -> BoxFuture<'_, Result<Box<dyn StoreLock>, StoreError>>;

    /// Tells, for as long as it is polled, that what is kept may have changed: by `changed.notify_one()`, once when it begins to hear, after each save that it
    /// hears of, and again whenever it may have missed one. Never fails: while it hears nothing it tries to, quietly.
    ///
    /// For [`Stored::follow`]. By default it tells nothing and never ends, and tokens are found when they are needed.
    fn watch<'a>(&'a self, changed: &'a Notify) -> BoxFuture<'a, ()> {
        let _ = changed;
        Box::pin(std::future::pending())
    }
}

/// The right to ask the source and to save, of one at a time.
pub trait StoreLock: Send {
    /// Whether it is still held, so far as this can be told without asking anybody: a lease that has run out by this machine's own monotonic clock is
    /// not. Asked right before the source is.
    fn is_held(&self) -> bool;

    /// Replaces what is kept, at once or not at all: whoever loads meanwhile, and whoever comes after a crash, sees the old or the new. When it has
    /// returned, the new one lasts.
    ///
    /// Fails with [`StoreError::LockLost`], and changes nothing, if another one has, or has had, the lock meanwhile.
    fn save<'a>(&'a mut self, value: &'a [u8]) -> BoxFuture<'a, Result<(), StoreError>>;

    /// Gives the lock back. Dropping does so too, without waiting for it.
    fn unlock(self: Box<Self>) -> BoxFuture<'static, ()>;
}

/// What a store keeps.
#[derive(Clone, Default)]
pub struct Loaded {
    value: Option<Zeroizing<Vec<u8>>>,
    now: Option<SystemTime>,
}

impl Loaded {
    /// Nothing, so far.
    #[must_use]
    pub fn empty() -> Self {
        Self::default()
    }

    /// These bytes.
    #[must_use]
    pub fn holding(value: Vec<u8>) -> Self {
        Self::of(Zeroizing::new(value))
    }

    pub(crate) fn of(value: Zeroizing<Vec<u8>>) -> Self {
        Self { value: Some(value), now: None }
    }

    /// With the time by a clock that all who use the store share. Without it they agree so far as their own clocks do.
    #[must_use]
    pub fn at(self, now: SystemTime) -> Self {
        Self { now: Some(now), ..self }
    }

    /// What was saved last.
    #[must_use]
    pub fn value(&self) -> Option<&[u8]> {
        self.value.as_ref().map(|value| value.as_slice())
    }

    /// The time by the store's clock, if it has one.
    #[must_use]
    pub fn now(&self) -> Option<SystemTime> {
        self.now
    }
}

impl fmt::Debug for Loaded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Loaded")
            .field("bytes", &self.value.as_ref().map(|value| value.len()))
            .field("now", &self.now)
            .finish()
    }
}

/// Why a store did not do it. Holds no token.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// Another process has had the lock for the whole wait, or has saved meanwhile.
    #[error("another process has held the store's lock for the whole wait")]
    Busy,
    /// Another process has, or has had, the lock meanwhile: nothing was saved.
    #[error("another process took the store's lock over meanwhile, so nothing was saved")]
    LockLost,
    /// It cannot be reached or does not work. It may later.
    #[error("the store is not available")]
    Unavailable(#[source] BoxError),
    /// What it is or what it holds cannot be used until somebody sees to it: open to others, sealed with another key, of another version.
    #[error("the store is not usable")]
    Unusable(#[source] BoxError),
}

impl<T: TokenStore + ?Sized> TokenStore for Arc<T> {
    fn load(&self) -> BoxFuture<'_, Result<Loaded, StoreError>> {
        (**self).load()
    }

    fn lock(&self, wait: Duration) -> BoxFuture<'_, Result<Box<dyn StoreLock>, StoreError>> {
        (**self).lock(wait)
    }

    fn watch<'a>(&'a self, changed: &'a Notify) -> BoxFuture<'a, ()> {
        (**self).watch(changed)
    }
}
