//! One provider per key, made on first use: the keyed form of [`TokenProvider`].
//!
//! # Who may do what
//! All that changes is in [`State`], behind one lock. It is held for a look-up or a few steps of house-keeping; never across an await, never while
//! the factory runs, and never while a provider is dropped (which drops a source, foreign code). Of foreign code it sees the key's own `Hash`, `Eq`,
//! `Clone` and `Drop`, as in any map.
//!
//! # One provider per key
//! Whoever finds none for a key puts the key into `making`, lets go of the lock, and alone runs the factory; others who want that key meanwhile wait on
//! `made`, and look again: there it is, or the factory failed or panicked, and one of them is next. A guard takes the key out of `making` however
//! the factory ends. Other keys never wait. A `remove` meanwhile makes what the factory brings void: it saw what was there before.
//!
//! # Only what nobody uses is dropped
//! To drop what somebody holds would free nothing, and the next `get` would make a second provider beside it, which could show a refresh token that the
//! first has just spent. So a provider gives way only if this map has the one handle to it *and* no flight of it is under way; then it
//! ends in the same step, and none begins after that. Two arguments make this sound:
//! - A handle comes from another handle. If ours is the only one, there is no other to clone, and ours is cloned under the lock alone. The loop of a
//!   provider turns its weak reference into a handle for a moment: then it is in use, or finds that it has ended.
//! - Whoever started a flight did so under the provider's own lock *before* it let go of its handle. We see that handle gone, and take that lock
//!   afterwards: so we see the flight.

mod builder;
mod recent;
mod sweep;

pub use builder::TokenProvidersBuilder;

use crate::{BoxError, TokenProvider};
use recent::Recent;
use std::{
    borrow::Borrow,
    collections::HashMap,
    fmt,
    hash::Hash,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::{self, ThreadId},
    time::Duration,
};
use tokio::{
    runtime::Handle,
    sync::Notify,
    time::{Instant, timeout},
};

/// How many of the oldest are looked at in one step, so that no request waits for a thousand others' house-keeping.
const LOOKS: usize = 8;

/// One [`TokenProvider`] per key, such as a tenant, an audience or an installation; made on first use, dropped when idle.
///
/// Each key has its own token, flight, failures and waits: one whose source hangs, fails or is refused delays no other. Clones are handles to the
/// same providers.
///
/// ```
/// # use http::Request;
/// use tower_jwt_refresh::{BoxError, Token, TokenProvider, TokenProviders, TokenRequest, UseToken};
///
/// # async fn exchange(key: String) -> Result<String, BoxError> { Ok(key) }
/// # fn api_key(tenant: &str) -> Option<String> { (tenant == "acme").then(|| "key".into()) }
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), BoxError> {
/// let providers: TokenProviders<String> = TokenProviders::new(|tenant: &String| {
///     let key = api_key(tenant).ok_or("unknown tenant")?;
///     Ok(TokenProvider::new(tower::service_fn(move |_: TokenRequest| {
///         let key = key.clone();
///         async move { Ok::<_, BoxError>(Token::opaque(exchange(key).await?)?) }
///     })))
/// });
///
/// // Behind one `JwtRefreshLayer`, each request names whose token it takes.
/// let request = Request::get("https://api.example.com/jobs/1").extension(UseToken(providers.get("acme")?)).body(());
/// assert_eq!(providers.get("nobody").unwrap_err().to_string(), "unknown tenant");
/// # drop(request); Ok(()) }
/// ```
///
/// # The factory
/// Makes the provider of a key that has none, on the thread that asks. It runs for one key once at a time, and for several keys in parallel. Let it only build:
/// what takes time, such as reading the tenant's credential from a database, belongs into the source, which is asked in a task of its own. An error
/// goes to whoever asked, nothing is kept, and the next to ask has it called again; the same after a panic. Where keys come from
/// requests, let it refuse those that you do not know: else anybody may fill the map with keys of their own making.
///
/// A provider that was dropped is made anew when it is wanted again. So build from what lasts: an API key, a client secret. A refresh token that the
/// server rotates must be kept where the factory finds its newest successor, by the source's `on_rotation`; or keep the source yourself, and let the factory hand
/// out its clones. What [`set`](TokenProvider::set) or [`clear`](TokenProvider::clear) told a provider is gone with it: refuse in the factory who is to stay signed out.
///
/// # What is kept
/// At most [`capacity`](TokenProvidersBuilder::capacity), each until nobody [asked](Self::get) for it for [`idle_after`](TokenProvidersBuilder::idle_after).
/// A provider in use is never dropped: one whose handle is held elsewhere (by a request under way, by a layer) or whose fetch is under way. When all are in use
/// and another is wanted, there is one more than `capacity`, until one is free: those that hold the others keep them in memory anyhow.
///
/// Idle ones are dropped by a task that is there only while there are any, and by whoever asks for another. Around 2 KiB is what a provider takes
/// in memory, beyond its source and token.
///
/// # No loop
/// There is no [`init`](TokenProvider::init) here: a loop for each of ten thousand tenants would fetch for those who send nothing. The first
/// request that finds a token stale starts the fetch and goes on with it. For the few that must never wait, call it on what `get`
/// returns; their loop ends when they are dropped.
pub struct TokenProviders<K, E = BoxError> {
    shared: Arc<Shared<K, E>>,
}

type Factory<K, E> = dyn Fn(&K) -> Result<TokenProvider, E> + Send + Sync;

struct Shared<K, E> {
    factory: Box<Factory<K, E>>,
    capacity: usize,
    idle_after: Duration,
    state: Mutex<State<K>>,
    /// A factory returned.
    made: Condvar,
    /// The last handle is gone.
    gone: Arc<Notify>,
}

struct State<K> {
    kept: Recent<K, TokenProvider>,
    /// Keys whose factory runs.
    making: HashMap<K, Making>,
    /// Is there a task that drops what is idle?
    swept: bool,
    shut_down: bool,
}

struct Making {
    by: ThreadId,
    /// The key was removed meanwhile.
    void: bool,
}

impl<K, E> TokenProviders<K, E>
where
    K: Hash + Eq + Clone + Send + 'static,
    E: 'static,
{
    /// Keyed providers with the [default settings](TokenProvidersBuilder).
    pub fn new<F>(factory: F) -> Self
    where
        F: Fn(&K) -> Result<TokenProvider, E> + Send + Sync + 'static,
    {
        TokenProvidersBuilder::default().build(factory).expect("the default settings are valid")
    }

    fn with(settings: &TokenProvidersBuilder, factory: Box<Factory<K, E>>) -> Self {
        let state = State { kept: Recent::new(), making: HashMap::new(), swept: false, shut_down: false };
        let shared = Shared {
            factory,
            capacity: settings.capacity,
            idle_after: settings.idle_after,
            state: Mutex::new(state),
            made: Condvar::new(),
            gone: Arc::new(Notify::new()),
        };
        Self { shared: Arc::new(shared) }
    }

    /// The provider of this key: the one that is kept, else a new one.
    ///
    /// Never waits for a fetch. Take it anew for each request, and let go of it afterwards: a handle that is kept aside keeps the
    /// provider, and one of a [removed](Self::remove) key stays with the old provider.
    ///
    /// # Errors
    /// The factory's own.
    ///
    /// # Panics
    /// If the factory does, or if it asks for the key that it is to make. One that asks for *other* keys, as for a token that fetches another, must not
    /// go in a circle.
    pub fn get<Q>(&self, key: &Q) -> Result<TokenProvider, E>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ToOwned<Owned = K> + ?Sized,
    {
        loop {
            let turn = match self.shared.find(key) {
                Found::Kept(kept) => return Ok(self.hand_out(kept)),
                Found::Missing(turn) => turn,
            };
            let provider = (self.shared.factory)(&turn.key)?;
            if let Some(kept) = turn.keep(provider) {
                return Ok(self.hand_out(kept));
            }
        }
    }

    /// What is left to do once the lock is free.
    fn hand_out(&self, kept: Kept) -> TokenProvider {
        drop(kept.idle);
        if kept.shut_down {
            kept.provider.end();
        } else if !kept.swept {
            sweep::start(&self.shared);
        }
        kept.provider
    }

    /// Keeps this key's provider no longer: its credential has changed, say. The next [`get`](Self::get) makes a new one. Gives back the old one, which goes on for
    /// those who hold it.
    ///
    /// A fetch under way goes on too, beside one of the new provider. Where that must not be, since both would show the same refresh token,
    /// call [`shutdown`](TokenProvider::shutdown) on the old one *before* you remove it.
    pub fn remove<Q>(&self, key: &Q) -> Option<TokenProvider>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let mut state = self.shared.lock();
        if let Some(making) = state.making.get_mut(key) {
            making.void = true;
        }
        state.kept.remove(key)
    }

    /// How many are kept.
    #[must_use]
    pub fn len(&self) -> usize {
        self.shared.lock().kept.len()
    }

    /// Is none kept?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Shuts all of them [down](TokenProvider::shutdown): none fetches any more, and fetches under way are waited for, all together no longer than the one with
    /// the longest limit. Requests afterwards fail with [`TokenError::ShutDown`](crate::TokenError::ShutDown), also those of keys that are new.
    ///
    /// # Cancel safety
    /// All are shut down all the same; only the wait ends.
    pub async fn shutdown(&self) {
        let providers: Vec<TokenProvider> = {
            let mut state = self.shared.lock();
            state.shut_down = true;
            state.kept.values().cloned().collect()
        };
        // All of them before the first wait, so that none begins another fetch meanwhile.
        let longest = providers.iter().filter_map(TokenProvider::end).max();
        let Some(longest) = longest.filter(|_| Handle::try_current().is_ok()) else { return };
        let all = async {
            for provider in &providers {
                provider.shutdown().await;
            }
        };
        let _ = timeout(longest, all).await;
    }
}

impl TokenProviders<()> {
    /// Settings. Keys and errors are those of the factory that it is built with.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use tower_jwt_refresh::{BoxError, TokenProvider, TokenProviders};
    /// # fn provider_of(tenant: u64) -> Result<TokenProvider, BoxError> { Err("none".into()) }
    /// # fn main() -> Result<(), BoxError> {
    /// let providers = TokenProviders::builder()
    ///     .capacity(500)
    ///     .idle_after(Duration::from_secs(900))
    ///     .build(|tenant: &u64| provider_of(*tenant))?;
    /// # assert!(providers.get(&7).is_err()); Ok(()) }
    /// ```
    pub fn builder() -> TokenProvidersBuilder {
        TokenProvidersBuilder::default()
    }
}

impl<K, E> Clone for TokenProviders<K, E> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl<K, E> fmt::Debug for TokenProviders<K, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // No keys: they may say who the customers are.
        f.debug_struct("TokenProviders")
            .field("capacity", &self.shared.capacity)
            .field("idle_after", &self.shared.idle_after)
            .finish_non_exhaustive()
    }
}

/// A provider to hand out, and what its caller does for all others.
struct Kept {
    provider: TokenProvider,
    /// Ended, and to be dropped outside of the lock.
    idle: Vec<TokenProvider>,
    swept: bool,
    shut_down: bool,
}

enum Found<'a, K: Hash + Eq + Clone, E> {
    Kept(Kept),
    Missing(Turn<'a, K, E>),
}

impl<K, E> Shared<K, E> {
    fn lock(&self) -> MutexGuard<'_, State<K>> {
        // A key's own code may have panicked. The state is whole all the same: see `recent`.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Hash + Eq + Clone, E> Shared<K, E> {
    fn find<Q>(&self, key: &Q) -> Found<'_, K, E>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ToOwned<Owned = K> + ?Sized,
    {
        let mut state = self.lock();
        loop {
            let now = Instant::now();
            if let Some(provider) = state.kept.touch(key, now) {
                let provider = provider.clone();
                return Found::Kept(self.tidied(&mut state, provider, now));
            }
            let Some(making) = state.making.get(key) else { break };
            if making.by == thread::current().id() {
                drop(state);
                panic!("the factory of a `TokenProviders` asked for the very key whose provider it is to make");
            }
            state = self.made.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        let key = key.to_owned();
        state.making.insert(key.clone(), Making { by: thread::current().id(), void: false });
        Found::Missing(Turn { shared: self, key, over: false })
    }

    fn tidied(&self, state: &mut State<K>, provider: TokenProvider, now: Instant) -> Kept {
        Kept { provider, idle: self.tidy(state, self.capacity, now), swept: state.swept, shut_down: false }
    }

    /// Takes out what is idle for too long, or one too many, a few at a time. One that is in use counts as used now, and its turn comes again.
    fn tidy(&self, state: &mut State<K>, capacity: usize, now: Instant) -> Vec<TokenProvider> {
        let mut idle = Vec::new();
        for _ in 0..LOOKS {
            let Some((provider, used)) = state.kept.oldest() else { break };
            if state.kept.len() <= capacity && now.saturating_duration_since(used) < self.idle_after {
                break;
            }
            if provider.retire() {
                idle.extend(state.kept.remove_oldest());
            } else {
                state.kept.renew_oldest(now);
            }
        }
        idle
    }

    /// Drops some that are idle, says when to look again. None: none is kept, and this was the last look.
    fn sweep(&self) -> Option<Instant> {
        let mut state = self.lock();
        let idle = self.tidy(&mut state, usize::MAX, Instant::now());
        let next = state.kept.oldest().map(|(_, used)| used + self.idle_after);
        state.swept = next.is_some();
        drop(state);
        drop(idle);
        next
    }
}

impl<K, E> Drop for Shared<K, E> {
    fn drop(&mut self) {
        self.gone.notify_one();
    }
}

/// The right to make this key's provider. Over when it is dropped, with or without one.
struct Turn<'a, K: Hash + Eq + Clone, E> {
    shared: &'a Shared<K, E>,
    key: K,
    over: bool,
}

impl<K: Hash + Eq + Clone, E> Turn<'_, K, E> {
    /// None: the key was removed meanwhile, and this one is void.
    fn keep(mut self, provider: TokenProvider) -> Option<Kept> {
        let now = Instant::now();
        let mut state = self.shared.lock();
        self.over = true;
        if state.making.remove(&self.key).is_none_or(|making| making.void) {
            return None;
        }
        if state.shut_down {
            return Some(Kept { provider, idle: Vec::new(), swept: false, shut_down: true });
        }
        state.kept.insert(self.key.clone(), provider.clone(), now);
        Some(self.shared.tidied(&mut state, provider, now))
    }
}

impl<K: Hash + Eq + Clone, E> Drop for Turn<'_, K, E> {
    fn drop(&mut self) {
        if !self.over {
            self.shared.lock().making.remove(&self.key);
        }
        self.shared.made.notify_all();
    }
}
