//! The layer around a source, and the source that it makes.

use super::{
    StoreError, TokenStore,
    follow::Follow,
    known::{Core, LockWait, give_back},
    record::{Access, Id, Record},
    refresh::{Refresh, Settings, Source},
};
use crate::{
    BoxError, Token, TokenProvider, TokenRequest,
    clock::{Clock, SystemClock},
};
use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
    time::Duration,
};
use tokio::runtime::Handle;
use tower::{Layer, Service, ServiceExt, util::BoxService};
use zeroize::Zeroizing;

/// As long as the sources of this crate take at most, by default: who waits for a lock finds a token when the holder's fetch ends at its last moment.
const LOCK_WAIT: Duration = Duration::from_secs(20);

/// Shares the token of a source with other processes, by way of a [`TokenStore`].
///
/// It goes around any source, and the provider is built on it as on the source itself. The [page](crate::docs::sharing) says what is guaranteed, and what is not.
///
/// ```
/// use tower::Layer;
/// use tower_jwt_refresh::{BoxError, Token, TokenProvider, TokenRequest, store::StoreLayer};
/// # use std::time::Duration;
/// # use tower_jwt_refresh::store::{BoxFuture, Loaded, StoreError, StoreLock, TokenStore};
/// # struct MyStore;
/// # impl TokenStore for MyStore {
/// #     fn load(&self) -> BoxFuture<'_, Result<Loaded, StoreError>> { Box::pin(async { Ok(Loaded::empty()) }) }
/// #     fn lock(&self, _: Duration) -> BoxFuture<'_, Result<Box<dyn StoreLock>, StoreError>> { Box::pin(async { Err(StoreError::Busy) }) }
/// # }
///
/// # fn main() {
/// # let store = MyStore;
/// let source = tower::service_fn(|_: TokenRequest| async { Ok::<_, BoxError>(Token::opaque("secret")?) });
/// let provider = TokenProvider::new(StoreLayer::new(store).layer(source));
/// # }
/// ```
///
/// A clone of what it makes can tell the provider of new tokens at once: [`Stored::follow`].
///
/// Clones share what they know of the store. One layer is for one credential: sources of different accounts or audiences have stores of their own.
#[derive(Clone)]
#[must_use = "a layer does nothing until it is put around a source"]
pub struct StoreLayer {
    core: Arc<Core>,
    settings: Settings,
}

impl StoreLayer {
    /// A layer over this store.
    pub fn new(store: impl TokenStore) -> Self {
        let settings = Settings { clock: Arc::new(SystemClock), lock_wait: LOCK_WAIT, spend_without_lock: false };
        Self { core: Arc::new(Core::new(store)), settings }
    }

    /// How long to wait for another process that is asking the source. Then the store is looked into once more, and if that process has brought nothing, this one
    /// goes on alone. Default 20 s: what the sources of this crate take at most by default, and two thirds of the provider's
    /// [`fetch_timeout`](crate::TokenProviderBuilder::fetch_timeout), which is to be changed with it.
    pub fn lock_wait(mut self, wait: Duration) -> Self {
        // What never ends cannot be added to a moment.
        self.settings.lock_wait = wait.min(Duration::from_secs(86_400));
        self
    }

    /// Shows a refresh token also where the lock cannot be had, because the store is down or its holder hangs. Off by default: if two processes do so at once, a server that
    /// takes each refresh token once answers one of them by `invalid_grant`, and many withdraw all that came from that login.
    ///
    /// For servers that do not rotate refresh tokens, or where an outage is worse than a login. Sources without refresh tokens need it
    /// not: they are asked without the lock anyway.
    pub fn spend_without_lock(mut self) -> Self {
        self.settings.spend_without_lock = true;
        self
    }

    /// Other clocks than the machine's, for tests.
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.settings.clock = Arc::new(clock);
        self
    }

    /// Stores the tokens of a new login, in place of all there is. Other processes adopt them when they need a token, at the latest when a server rejects the one they
    /// hold; for a provider of this process call [`refresh`](crate::TokenProvider::refresh) after it. [`TokenProvider::set`](crate::TokenProvider::set)
    /// stores nothing.
    ///
    /// # Errors
    /// [`StoreError`], and then nothing is stored, unless it is [`Unavailable`](StoreError::Unavailable): the answer of the store may have been lost, or come too late, and
    /// then all may be stored, or is a little later. Doing it again harms nothing. [`Busy`](StoreError::Busy) after [`lock_wait`](Self::lock_wait).
    ///
    /// # Cancel safety
    /// Dropped before its end, it stores all or nothing.
    pub async fn set(&self, token: Token, refresh_token: Option<&str>) -> Result<(), StoreError> {
        self.put(Some(token), refresh_token).await
    }

    /// Signs out for all processes: the store forgets both tokens. Call [`TokenProvider::clear`](crate::TokenProvider::clear) too, for this process.
    ///
    /// The others go on with the access token that they hold until it is due or rejected. Then a source that has a refresh token does not show it (one of a new login it does:
    /// of `set_refresh_token`, or what it was made with, in a process that has not seen the login that was ended), and answers with an error that says so; other sources get a new token by their own credential. The server is told nothing:
    /// withdraw the tokens there (RFC 7009) before this.
    ///
    /// # Errors
    /// As with [`set`](Self::set).
    ///
    /// # Cancel safety
    /// As with [`set`](Self::set).
    pub async fn clear(&self) -> Result<(), StoreError> {
        self.put(None, None).await
    }

    async fn put(&self, token: Option<Token>, refresh_token: Option<&str>) -> Result<(), StoreError> {
        let clock = &*self.settings.clock;
        let wait = LockWait::of(self.settings.lock_wait);
        let mut lock = loop {
            match self.core.lock(wait.left()).await {
                Err(StoreError::Busy) if wait.goes_on().await => {}
                locked => break locked?,
            }
        };
        let seen = self.core.look(clock).await?;
        let now = seen.moment.now(clock);
        let record = Record {
            id: Id::after(seen.id(), now),
            access: token.map(|token| Access::new(&token, now)),
            refresh_token: refresh_token.map(|token| Zeroizing::new(token.to_owned())),
        };
        self.core.save(&mut *lock, &record, self.settings.lock_wait).await?;
        self.core.remember(&record);
        give_back(lock).await;
        Ok(())
    }
}

impl<S> Layer<S> for StoreLayer
where
    S: Service<TokenRequest, Response = Token> + Send + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send + 'static,
{
    type Service = Stored;

    fn layer(&self, source: S) -> Stored {
        Stored {
            core: Arc::clone(&self.core),
            settings: self.settings.clone(),
            source: Arc::new(Source::new(BoxService::new(source.map_err(Into::into)))),
            given: Arc::default(),
        }
    }
}

impl fmt::Debug for StoreLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoreLayer")
            .field("lock_wait", &self.settings.lock_wait)
            .field("spend_without_lock", &self.settings.spend_without_lock)
            .finish_non_exhaustive()
    }
}

/// A source whose token other processes share: what a [`StoreLayer`] makes of one. Clones are the same source.
///
/// Needs a tokio runtime with a timer, as a provider's fetches do.
///
/// # Cancel safety
/// Dropping the future ends a wait for the lock. Once the source has been asked, that goes on in a task of its own until what it answered is stored.
#[derive(Clone)]
pub struct Stored {
    core: Arc<Core>,
    settings: Settings,
    source: Arc<Source>,
    given: Arc<Mutex<Option<Id>>>,
}

impl Stored {
    /// Gives the provider what other processes have stored at once, before it is due or rejected here, where the store tells of it ([`TokenStore::watch`]).
    ///
    /// A provider that does not follow goes on with the token that it has for as long as that lives. That is all the same to a server, unless it withdraws all
    /// tokens at once: then the provider finds the stored one, which is withdrawn as well, and its request is refused twice.
    ///
    /// ```
    /// # use tower::Layer;
    /// # use tower_jwt_refresh::{BoxError, Token, TokenProvider, TokenRequest, store::{StoreLayer, TokenStore}};
    /// # fn f(store: impl TokenStore) {
    /// # let source = tower::service_fn(|_: TokenRequest| async { Ok::<_, BoxError>(Token::opaque("secret")?) });
    /// let shared = StoreLayer::new(store).layer(source);
    /// let provider = TokenProvider::new(shared.clone());
    /// shared.follow(&provider);
    /// # }
    /// ```
    ///
    /// To be called once, with the provider that was built on it. It starts no fetch and wakes nobody who is signed out; what is in the store already is given too. Its task ends with the
    /// provider's last handle, with [`shutdown`](crate::TokenProvider::shutdown), or with the runtime that it was called on. Outside of a runtime it does
    /// nothing.
    pub fn follow(&self, provider: &TokenProvider) {
        let Ok(runtime) = Handle::try_current() else { return };
        let follow = Follow {
            core: Arc::clone(&self.core),
            clock: Arc::clone(&self.settings.clock),
            given: Arc::clone(&self.given),
            follower: provider.follower(),
            looked: None,
        };
        drop(runtime.spawn(follow.run()));
    }
}

impl Service<TokenRequest> for Stored {
    type Response = Token;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Token, BoxError>> + Send>>;

    /// Always ready: the source gets ready when it is asked, which most refreshes of a fleet do not come to.
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: TokenRequest) -> Self::Future {
        let refresh = Refresh {
            core: Arc::clone(&self.core),
            begun: self.settings.clock.monotonic(),
            settings: self.settings.clone(),
            source: Arc::clone(&self.source),
            given: Arc::clone(&self.given),
            request,
        };
        Box::pin(refresh.run())
    }
}

impl fmt::Debug for Stored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stored").finish_non_exhaustive()
    }
}
