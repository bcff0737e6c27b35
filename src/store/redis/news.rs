//! What Redis publishes: that somebody has saved, or has given the lease back.
//!
//! One subscription in each runtime that waits for a lease or [watches](super::watch), begun when somebody does for the first time, and over with the last store on its server.
//! One that breaks is over too: who waits next, or watches, begins another. Meanwhile a lease is asked for again and again instead, so nothing but time is lost
//! with a message.

use super::link::{ANSWER, Link, RedisServer};
use futures_util::{
    StreamExt,
    future::{Either, select},
};
use redis::{
    Client, RedisResult,
    aio::{PubSubSink, PubSubStream},
};
use std::{
    collections::HashMap,
    pin::pin,
    sync::{Arc, Mutex, PoisonError, Weak},
};
use tokio::{
    sync::{Semaphore, mpsc, oneshot, watch},
    time::timeout,
};

/// What is known of a key without asking.
#[derive(Clone, Copy, Default, PartialEq)]
pub(super) struct Heard {
    /// Of the newest value that this process has seen or heard of.
    pub(super) revision: u64,
    /// How often the lease was given back.
    freed: u64,
    /// How often something may have been missed: a subscription ended, or Redis told of an older value.
    pub(super) missed: u64,
}

/// One key, and those who wait for its lease. All stores with this key on the same server share it.
pub(super) struct Slot {
    pub(super) key: String,
    heard: watch::Sender<Heard>,
    /// Of those in this process who want the lease, one at a time asks Redis for it.
    pub(super) turn: Arc<Semaphore>,
    slots: Weak<Slots>,
}

impl Slot {
    /// What is heard from now on.
    pub(super) fn hear(&self) -> watch::Receiver<Heard> {
        self.heard.subscribe()
    }

    /// Somebody has saved, this process itself perhaps: its own waiters need no Redis to hear of it. Word of an older one comes late, or Redis has lost
    /// something.
    pub(super) fn saved(&self, revision: u64) {
        self.heard.send_if_modified(|heard| {
            let is_known = heard.revision == revision;
            heard.missed += u64::from(revision < heard.revision);
            heard.revision = heard.revision.max(revision);
            !is_known
        });
    }

    /// This is what Redis holds, be it an older one, of before it lost something.
    pub(super) fn seen(&self, revision: u64) {
        self.heard.send_if_modified(|heard| std::mem::replace(&mut heard.revision, revision) != revision);
    }

    fn freed(&self) {
        self.heard.send_modify(|heard| heard.freed += 1);
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let Some(slots) = self.slots.upgrade() else { return };
        let mut known = slots.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Not one of the same key that is newer.
        if known.get(&self.key).is_some_and(|slot| slot.strong_count() == 0) {
            known.remove(&self.key);
        }
    }
}

/// The keys in use.
#[derive(Default)]
pub(super) struct Slots(Mutex<HashMap<String, Weak<Slot>>>);

impl Slots {
    pub(super) fn of(self: &Arc<Self>, key: String) -> Arc<Slot> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(slot) = known.get(&key).and_then(Weak::upgrade) {
            return slot;
        }
        let slot = Arc::new(Slot {
            key: key.clone(),
            heard: watch::Sender::default(),
            turn: Arc::new(Semaphore::new(1)),
            slots: Arc::downgrade(self),
        });
        known.insert(key, Arc::downgrade(&slot));
        slot
    }

    fn missed(&self) {
        // Not under the lock: the last user of one that goes takes it.
        let known: Vec<_> = {
            let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            known.values().filter_map(Weak::upgrade).collect()
        };
        for slot in known {
            slot.heard.send_modify(|heard| heard.missed += 1);
        }
    }

    fn known(&self, key: &str) -> Option<Arc<Slot>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(key).and_then(Weak::upgrade)
    }
}

/// To the task of a subscription: hear of this key too. Answered once Redis has confirmed it.
pub(super) type Asking = mpsc::UnboundedSender<(String, oneshot::Sender<()>)>;

impl Link {
    /// Whether Redis will tell from now on. Without a word of it the caller must ask by itself.
    pub(super) async fn listen(&self, slots: &Arc<Slots>, key: &str) -> bool {
        let local = self.local();
        let (confirm, confirmed) = oneshot::channel();
        {
            let mut asking = local.news.lock().unwrap_or_else(PoisonError::into_inner);
            let ask = (key.to_owned(), confirm);
            let unheard = match &*asking {
                Some(task) => task.send(ask).err().map(|unheard| unheard.0),
                None => Some(ask),
            };
            if let Some(ask) = unheard {
                let (send, asked) = mpsc::unbounded_channel();
                let _ = send.send(ask);
                tokio::spawn(hear(Arc::clone(&self.server), Arc::clone(slots), asked));
                *asking = Some(send);
            }
        }
        matches!(timeout(ANSWER, confirmed).await, Ok(Ok(())))
    }
}

async fn hear(
    server: Arc<RedisServer>,
    slots: Arc<Slots>,
    asked: mpsc::UnboundedReceiver<(String, oneshot::Sender<()>)>,
) {
    let slots = Hearing(slots);
    // Dropped before that one: who is told that it is over finds it over.
    let mut asked = asked;
    let Ok(Ok(mut subscriber)) = timeout(ANSWER, server.subscribe()).await else { return };
    loop {
        let next = match select(pin!(asked.recv()), pin!(subscriber.next())).await {
            Either::Left((ask, _)) => Either::Left(ask),
            Either::Right((message, _)) => Either::Right(message),
        };
        match next {
            Either::Left(Some((key, confirm))) => {
                // Also where it is subscribed to already: the answer shows that the connection lives.
                let Ok(Ok(())) = timeout(ANSWER, subscriber.subscribe(&key)).await else { return };
                let _ = confirm.send(());
            }
            Either::Right(Some((key, word))) => match slots.0.known(&key) {
                Some(slot) => match std::str::from_utf8(&word).ok().and_then(|word| word.strip_prefix("saved:")) {
                    Some(revision) => slot.saved(revision.parse().unwrap_or(u64::MAX)),
                    None => slot.freed(),
                },
                None => {
                    let Ok(Ok(())) = timeout(ANSWER, subscriber.unsubscribe(&key)).await else { return };
                }
            },
            Either::Left(None) | Either::Right(None) => return,
        }
    }
}

/// Says so when it ends.
struct Hearing(Arc<Slots>);

impl Drop for Hearing {
    fn drop(&mut self) {
        self.0.missed();
    }
}

/// A connection that hears what is published.
pub(super) enum Subscriber {
    One {
        asks: PubSubSink,
        messages: PubSubStream,
    },
    #[cfg(feature = "redis-cluster")]
    Cluster {
        asks: redis::cluster_async::ClusterConnection,
        messages: mpsc::UnboundedReceiver<redis::PushInfo>,
    },
}

impl Subscriber {
    pub(super) async fn to(client: &Client) -> RedisResult<Self> {
        let (asks, messages) = client.get_async_pubsub().await?.split();
        Ok(Self::One { asks, messages })
    }

    /// Needs RESP3: with RESP2 a cluster's connections cannot subscribe.
    #[cfg(feature = "redis-cluster")]
    pub(super) async fn to_cluster(client: &redis::cluster::ClusterClient) -> RedisResult<Self> {
        let (send, messages) = mpsc::unbounded_channel();
        let config = redis::cluster::ClusterConfig::new().set_push_sender(send);
        let asks = client.get_async_connection_with_config(config).await?;
        Ok(Self::Cluster { asks, messages })
    }

    async fn subscribe(&mut self, key: &str) -> RedisResult<()> {
        match self {
            Self::One { asks, .. } => asks.subscribe(key).await,
            #[cfg(feature = "redis-cluster")]
            Self::Cluster { asks, .. } => asks.subscribe(key).await,
        }
    }

    async fn unsubscribe(&mut self, key: &str) -> RedisResult<()> {
        match self {
            Self::One { asks, .. } => asks.unsubscribe(key).await,
            #[cfg(feature = "redis-cluster")]
            Self::Cluster { asks, .. } => asks.unsubscribe(key).await,
        }
    }

    /// The channel, and what was said there; none when the connection is gone.
    async fn next(&mut self) -> Option<(String, Vec<u8>)> {
        match self {
            Self::One { messages, .. } => {
                let message = messages.next().await?;
                Some((message.get_channel_name().to_owned(), message.get_payload_bytes().to_owned()))
            }
            #[cfg(feature = "redis-cluster")]
            Self::Cluster { messages, .. } => loop {
                let push = messages.recv().await?;
                match push.kind {
                    redis::PushKind::Message => {
                        if let Ok(message) = redis::from_redis_value(redis::Value::Array(push.data)) {
                            return Some(message);
                        }
                    }
                    redis::PushKind::Disconnection => return None,
                    _ => {}
                }
            },
        }
    }
}
