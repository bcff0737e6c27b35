//! The connections to Redis: one for commands in each runtime that uses the store, made when it is first needed.
//!
//! A connection is driven by a task of the runtime that made it. So each runtime has its own, and one that nobody drives holds up no other.

use super::{error::RedisFailure, news::Subscriber};
use redis::{AsyncConnectionConfig, Client, Cmd, FromRedisValue, RedisResult, aio::MultiplexedConnection};
use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{
    runtime::{Handle, Id},
    sync::Mutex as AsyncMutex,
    time::timeout,
};

/// One command, with the connection that it may need: a fifth of the lease, so that a renewal can fail and the next one still comes in time.
pub(super) const ANSWER: Duration = Duration::from_secs(2);

/// Where the Redis of a [`RedisStore`](super::RedisStore) is, as the `redis` crate says it: TLS, user, database and all that is the client's.
///
/// Made `from` a `redis::Client`; with the feature `redis-cluster` from a `redis::cluster::ClusterClient`, with `redis-sentinel` from a
/// `redis::sentinel::SentinelClient`, which finds the master anew for each connection, one at a time for all who share it. A runtime that nobody drives any more while it looks for the
/// master so keeps the others from connecting until it is driven again or dropped: where there may be one, give each runtime a store with a client of its own.
pub struct RedisServer(Kind);

enum Kind {
    One(Client),
    #[cfg(feature = "redis-sentinel")]
    Sentinel(AsyncMutex<redis::sentinel::SentinelClient>),
    #[cfg(feature = "redis-cluster")]
    Cluster(Box<redis::cluster::ClusterClient>),
}

impl From<Client> for RedisServer {
    fn from(client: Client) -> Self {
        Self(Kind::One(client))
    }
}

#[cfg(feature = "redis-sentinel")]
impl From<redis::sentinel::SentinelClient> for RedisServer {
    fn from(client: redis::sentinel::SentinelClient) -> Self {
        Self(Kind::Sentinel(AsyncMutex::new(client)))
    }
}

#[cfg(feature = "redis-cluster")]
impl From<redis::cluster::ClusterClient> for RedisServer {
    fn from(client: redis::cluster::ClusterClient) -> Self {
        Self(Kind::Cluster(Box::new(client)))
    }
}

impl fmt::Debug for RedisServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Addresses may hold passwords.
        f.debug_struct("RedisServer").finish_non_exhaustive()
    }
}

impl RedisServer {
    async fn connect(&self) -> RedisResult<Connection> {
        match &self.0 {
            Kind::One(client) => Connection::to(client).await,
            #[cfg(feature = "redis-sentinel")]
            Kind::Sentinel(client) => Connection::to(&master(client).await?).await,
            #[cfg(feature = "redis-cluster")]
            Kind::Cluster(client) => Ok(Connection::Cluster(client.get_async_connection().await?)),
        }
    }

    pub(super) async fn subscribe(&self) -> RedisResult<Subscriber> {
        match &self.0 {
            Kind::One(client) => Subscriber::to(client).await,
            #[cfg(feature = "redis-sentinel")]
            Kind::Sentinel(client) => Subscriber::to(&master(client).await?).await,
            #[cfg(feature = "redis-cluster")]
            Kind::Cluster(client) => Subscriber::to_cluster(client).await,
        }
    }
}

#[cfg(feature = "redis-sentinel")]
async fn master(client: &AsyncMutex<redis::sentinel::SentinelClient>) -> RedisResult<Client> {
    client.lock().await.async_get_client().await
}

#[derive(Clone)]
enum Connection {
    One(MultiplexedConnection),
    #[cfg(feature = "redis-cluster")]
    Cluster(redis::cluster_async::ClusterConnection),
}

impl Connection {
    async fn to(client: &Client) -> RedisResult<Self> {
        // The limit on connecting is the caller's, over all of it.
        let config = AsyncConnectionConfig::new().set_connection_timeout(None).set_response_timeout(Some(ANSWER));
        Ok(Self::One(client.get_multiplexed_async_connection_with_config(&config).await?))
    }

    async fn ask<T: FromRedisValue>(mut self, command: &Cmd) -> RedisResult<T> {
        match &mut self {
            Self::One(connection) => command.query_async(connection).await,
            #[cfg(feature = "redis-cluster")]
            Self::Cluster(connection) => command.query_async(connection).await,
        }
    }
}

/// The connections of one runtime.
#[derive(Default)]
pub(super) struct Local {
    /// Held while one connects, so that a thousand make one connection.
    commands: AsyncMutex<Held>,
    pub(super) news: Mutex<Option<super::news::Asking>>,
}

/// And how many there have been, so that nobody drops a newer one than the one that failed.
#[derive(Default)]
struct Held {
    connection: Option<Connection>,
    number: u64,
}

/// A server, and the connections to it. Shared by all stores on it.
pub(super) struct Link {
    pub(super) server: Arc<RedisServer>,
    locals: Mutex<Vec<(Id, Arc<Local>)>>,
}

/// More runtimes than that are not at work at once in any program: the oldest is forgotten, and connects anew if it still is.
const RUNTIMES: usize = 8;

impl Link {
    pub(super) fn new(server: RedisServer) -> Self {
        Self { server: Arc::new(server), locals: Mutex::default() }
    }

    pub(super) fn local(&self) -> Arc<Local> {
        let id = Handle::current().id();
        let mut locals = self.locals.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, local)) = locals.iter().find(|(known, _)| *known == id) {
            return Arc::clone(local);
        }
        if locals.len() == RUNTIMES {
            locals.remove(0);
        }
        let local = Arc::<Local>::default();
        locals.push((id, Arc::clone(&local)));
        local
    }

    /// Sends a command that may be run twice: once more if the connection, made earlier, turns out to be dead.
    pub(super) async fn ask<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, RedisFailure> {
        let local = self.local();
        let mut number = 0;
        let asked = async {
            let (connection, used) = self.connection(&local, &mut number).await?;
            match connection.ask(command).await {
                Err(error) if used && error.is_connection_dropped() => {
                    local.forget(number);
                    let (connection, _) = self.connection(&local, &mut number).await?;
                    connection.ask(command).await
                }
                answer => answer,
            }
        };
        let answer = match timeout(ANSWER, asked).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) if error.is_timeout() => Err(RedisFailure::TimedOut { within: ANSWER }),
            Ok(Err(error)) => Err(error.into()),
            Err(_) => Err(RedisFailure::TimedOut { within: ANSWER }),
        };
        if answer.as_ref().is_err_and(RedisFailure::breaks_the_connection) {
            local.forget(number);
        }
        answer
    }

    /// And whether it was there before.
    async fn connection(&self, local: &Local, number: &mut u64) -> RedisResult<(Connection, bool)> {
        let mut held = local.commands.lock().await;
        let used = held.connection.is_some();
        let connection = match &held.connection {
            Some(connection) => connection.clone(),
            None => {
                let connection = self.server.connect().await?;
                held.number += 1;
                held.connection.insert(connection).clone()
            }
        };
        *number = held.number;
        Ok((connection, used))
    }
}

impl Local {
    /// The next command connects anew, if nobody has meanwhile.
    fn forget(&self, number: u64) {
        // Not waited for: whoever holds it is connecting.
        if let Ok(mut held) = self.commands.try_lock()
            && held.number == number
        {
            held.connection = None;
        }
    }
}
