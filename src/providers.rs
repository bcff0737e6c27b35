//! One provider per key, made on first use: the keyed form of [`TokenProvider`].

mod builder;
mod recent;
mod shared;
mod sweep;

pub use builder::TokenProvidersBuilder;

use crate::{BoxError, TokenProvider};
use shared::{Factory, Found, Kept, Shared};
use std::{borrow::Borrow, fmt, hash::Hash, sync::Arc};
use tokio::{runtime::Handle, time::timeout};

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
/// // Behind one `JwtRefreshLayer`, each request names whose token it takes. The layer's own provider is for those that name none: here, one
/// // whose source refuses.
/// let request = Request::get("https://api.example.com/jobs/1").extension(UseToken(providers.get("acme")?)).body(());
/// assert_eq!(providers.get("nobody").unwrap_err().to_string(), "unknown tenant");
/// # drop(request); Ok(()) }
/// ```
///
/// # The factory
/// Makes the provider of a key that has none, on the thread that asks. It runs for one key once at a time, and for several keys in parallel. Let it only build:
/// what takes time, such as reading the tenant's credential from a database, belongs into the source, which is asked in a task of its own. An error
/// goes to whoever asked, nothing is kept, and the next to ask has it called again; the same after a panic. Where keys come from
/// requests, let it refuse those that you do not know: else anybody may fill the map with keys of their own making. Give each key a provider of
/// its own: one that the factory keeps a handle to, or hands out for two keys, counts as in use for ever.
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
        Self { shared: Arc::new(Shared::new(factory, settings.capacity, settings.idle_after)) }
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
        self.shared.remove(key)
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
        let providers = self.shared.shut_down();
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
