//! A store for processes on many hosts: Redis or Valkey.

mod error;
mod lease;
mod link;
mod news;
mod scripts;
mod watch;

pub use error::RedisFailure;
pub use link::RedisServer;

use super::{BoxFuture, Loaded, StoreError, StoreLock, TokenStore};
use lease::Lease;
use link::Link;
use news::{Slot, Slots};
use scripts::{Kept, Scripts};
use std::{fmt, sync::Arc, time::Duration};
use tokio::sync::Notify;

/// Keeps one token in one key of a Redis (5 or later) or a Valkey.
///
/// ```no_run
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use tower_jwt_refresh::store::RedisStore;
///
/// let client = redis::Client::open("rediss://tokens:password@redis.example.com")?;
/// let store = RedisStore::new(client, "token:billing-api");
/// let other = store.with_key("token:search-api");
/// # Ok(()) }
/// ```
///
/// TLS, user, database and timeouts of connecting are the client's: see [`RedisServer`]. Its crate, `redis` 1.8, is yours to depend on, with the
/// features that you need of it, such as `tokio-rustls-comp` for `rediss://`.
///
/// Nothing is connected before it is needed, and a command has 2 s, the connection that it may need included. One that broke is made anew by the next
/// command. Clones, and stores made by
/// [`with_key`](Self::with_key), share their connections, one for commands and, once somebody has waited for a lease or follows, one that hears what is published.
/// Both end with the last of them.
///
/// # The lease
/// Who has it asks the source and saves. It lasts [10 s](Self::with_lease) by Redis's own clock and is renewed each third of that, for as long as it is
/// used, and for a minute at most (twice its length, if that is longer): whoever has it then stands still. If its process dies, or stands still for that long, another gets it then. Whoever stood still finds it run out before it asks the
/// source, and what it saves late is refused if anybody has had the lease since: its name is the fence. A name is random, and written down for one
/// lease alone.
///
/// Those who wait hear at once, by pub/sub, that a token was saved or the lease given back. Where that is not to be had (a broken connection, a user
/// without the right, a cluster's client that does not speak RESP3) they ask each second instead. Providers that [follow](super::Stored::follow) hear by the same
/// subscription; without it they find a new token when theirs is due.
///
/// # The key
/// A hash with that name, and a channel with the same name. It has no expiry: the refresh token in it lives longer than any access token. It is
/// gone when you `DEL` it, and then nobody is signed in any more but by the memory of running processes. What has to happen at once is a script on
/// this one key, so that any cluster will do. What is in it can be read by whoever may read there: take [`Sealed`](super::Sealed) if that is not you
/// alone.
///
/// The user needs `+eval +hget +hmget +hset +hdel +hincrby +time +publish +subscribe +unsubscribe`, the key `~name` and the channel `&name`.
///
/// # What Redis can lose
/// - **Failover.** Replication is asynchronous: a master that dies may take its last second of writes along. A lost lease may be held twice for a while,
///   and two may show the same refresh token; a lost save leaves the one that was spent before it. Issuers with a grace window of some seconds heal
///   both. For one that takes reuse for theft at once, set `min-replicas-to-write 1`, which makes it rarer, or use one Redis with `appendfsync
///   always`.
/// - **Restart.** Without persistence all is gone, and everybody goes on from memory or from a login; a lease under way goes on, and saves. With `appendfsync everysec`
///   it is the last second.
/// - **Eviction.** `allkeys-*` policies may evict the token, which is then fetched anew; a refresh token is gone with it. `noeviction` and
///   `volatile-*` leave it alone: it has no expiry. That is why the lease is no key of its own.
#[derive(Clone)]
pub struct RedisStore {
    link: Arc<Link>,
    slots: Arc<Slots>,
    slot: Arc<Slot>,
    lease: Duration,
}

impl RedisStore {
    /// The token of this key. Whoever names the same key of the same Redis shares it.
    pub fn new(server: impl Into<RedisServer>, key: impl Into<String>) -> Self {
        let slots = Arc::<Slots>::default();
        let slot = slots.of(key.into());
        Self { link: Arc::new(Link::new(server.into())), slots, slot, lease: Duration::from_secs(10) }
    }

    /// Another token, by the same connections: one for each tenant, say.
    #[must_use]
    pub fn with_key(&self, key: impl Into<String>) -> Self {
        Self { slot: self.slots.of(key.into()), ..self.clone() }
    }

    /// How long a lease lasts that is not renewed, held to 1..300 s: 10 s, which a pause of a busy host seldom reaches, and which nobody minds
    /// to wait for when a process died.
    #[must_use]
    pub fn with_lease(self, lease: Duration) -> Self {
        Self { lease: lease.clamp(Duration::from_secs(1), Duration::from_secs(300)), ..self }
    }

    fn scripts(&self) -> Scripts<'_> {
        Scripts { link: &self.link, key: &self.slot.key }
    }
}

impl TokenStore for RedisStore {
    fn load(&self) -> BoxFuture<'_, Result<Loaded, StoreError>> {
        Box::pin(async move {
            let Kept { value, revision, now } = self.scripts().load().await?;
            self.slot.seen(revision);
            Ok(Loaded { value, now: Some(now) })
        })
    }

    fn lock(&self, wait: Duration) -> BoxFuture<'_, Result<Box<dyn StoreLock>, StoreError>> {
        Box::pin(async move { Ok(Box::new(Lease::acquire(self, wait).await?) as Box<dyn StoreLock>) })
    }

    fn watch<'a>(&'a self, changed: &'a Notify) -> BoxFuture<'a, ()> {
        Box::pin(watch::watch(self, changed))
    }
}

impl fmt::Debug for RedisStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisStore").field("key", &self.slot.key).finish_non_exhaustive()
    }
}
