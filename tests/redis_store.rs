//! The lease and the token of `RedisStore`, in a real Redis.
#![cfg(unix)]

#[path = "support/redis.rs"]
mod server;

use server::{Redis, soon, until};
use std::{
    future::Future,
    pin::pin,
    task::{Context, Waker},
    time::{Duration, SystemTime},
};
use tokio::runtime::Builder;
use tower_jwt_refresh::store::{Loaded, RedisStore, StoreError, StoreLock, TokenStore};

const KEY: &str = "token:api";
/// Longer than any test: what comes before it ends does not come by it.
const LONG: Duration = Duration::from_secs(300);
const NOW: Duration = Duration::ZERO;

/// One of several processes, by connections of its own.
fn store(redis: &Redis) -> RedisStore {
    RedisStore::new(redis.client(), KEY).with_lease(LONG)
}

async fn taken(store: &RedisStore) -> Box<dyn StoreLock> {
    soon(store.lock(NOW)).await.unwrap()
}

async fn is_busy(store: &RedisStore) -> bool {
    matches!(soon(store.lock(NOW)).await, Err(StoreError::Busy))
}

async fn value(store: &RedisStore) -> Option<Vec<u8>> {
    soon(store.load()).await.unwrap().value().map(<[u8]>::to_vec)
}

#[tokio::test]
async fn of_two_one_has_the_lease_until_it_gives_it_back() {
    let redis = Redis::start();
    let (a, b) = (store(&redis), store(&redis));
    let lock = taken(&a).await;
    assert!(lock.is_held());
    assert!(is_busy(&b).await);
    assert!(is_busy(&a).await, "nor twice in one process");
    lock.unlock().await;
    let lock = taken(&b).await;
    drop(lock);
    // Given back in the background.
    soon(a.lock(LONG)).await.unwrap();
}

#[tokio::test]
async fn what_one_saves_another_loads_with_the_time_by_redis() {
    let redis = Redis::start();
    let (a, b) = (store(&redis), store(&redis));
    assert!(soon(b.load()).await.unwrap().value().is_none());
    let mut lock = taken(&a).await;
    lock.save(b"\0\xffbytes").await.unwrap();
    let at = |loaded: Loaded| loaded.now().unwrap().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    let time = || redis.run::<(u64, u64)>("TIME").0;
    let before = time();
    let loaded = soon(b.load()).await.unwrap();
    assert_eq!(loaded.value().unwrap(), b"\0\xffbytes");
    assert!((before..=time()).contains(&at(loaded)));
    assert_eq!(redis.run::<i64>(&format!("PTTL {KEY}")), -1, "it has no expiry");
}

#[tokio::test]
async fn stores_of_other_keys_share_connections_and_nothing_else() {
    let redis = Redis::start();
    let store = store(&redis);
    let other = store.with_key("token:other");
    let mut lock = taken(&store).await;
    lock.save(b"one").await.unwrap();
    assert_eq!(value(&other).await, None);
    taken(&other).await.save(b"other").await.unwrap();
    assert_eq!(value(&store).await.unwrap(), b"one");
    let clients: String = redis.run("CLIENT LIST TYPE normal");
    assert_eq!(clients.lines().count(), 2, "and the one that asks this: {clients}");
}

#[tokio::test]
async fn a_late_save_is_refused_once_another_has_had_the_lease() {
    let redis = Redis::start();
    let (a, b) = (store(&redis), store(&redis));
    let mut late = taken(&a).await;
    redis.end_the_lease(KEY);
    let mut lock = taken(&b).await;
    assert!(matches!(late.save(b"late").await, Err(StoreError::LockLost)));
    lock.save(b"new").await.unwrap();
    assert!(matches!(late.save(b"late").await, Err(StoreError::LockLost)));
    lock.unlock().await;
    assert!(matches!(late.save(b"late").await, Err(StoreError::LockLost)));
    assert_eq!(value(&b).await.unwrap(), b"new");
}

#[tokio::test]
async fn a_late_save_is_refused_though_who_had_the_lease_since_has_saved_nothing() {
    let redis = Redis::start();
    let (a, b) = (store(&redis), store(&redis));
    let mut late = taken(&a).await;
    redis.end_the_lease(KEY);
    taken(&b).await.unlock().await;
    assert!(matches!(late.save(b"late").await, Err(StoreError::LockLost)));
    assert_eq!(value(&b).await, None);
}

#[tokio::test]
async fn a_late_save_is_taken_if_nobody_has_had_the_lease_since() {
    let redis = Redis::start();
    let a = store(&redis);
    let mut late = taken(&a).await;
    redis.end_the_lease(KEY);
    late.save(b"only copy").await.unwrap();
    assert_eq!(value(&a).await.unwrap(), b"only copy");
}

// Restarted without persistence, or flushed.
#[tokio::test]
async fn what_redis_has_lost_it_takes_from_who_has_the_lease() {
    let redis = Redis::start();
    let (a, b) = (store(&redis), store(&redis).with_lease(Duration::from_secs(3)));
    let mut lock = taken(&b).await;
    redis.run::<()>("FLUSHALL");
    until(|| redis.field(KEY, "owner").is_some()).await;
    assert!(is_busy(&a).await, "a renewal brings the lease back");
    redis.run::<()>("FLUSHALL");
    lock.save(b"only copy").await.unwrap();
    assert_eq!(value(&a).await.unwrap(), b"only copy");
    lock.unlock().await;
    redis.run::<()>("FLUSHALL");
    taken(&a).await.unlock().await;
}

#[tokio::test]
async fn who_does_not_have_the_lease_any_more_cannot_give_it_back() {
    let redis = Redis::start();
    let (a, b) = (store(&redis), store(&redis));
    let late = taken(&a).await;
    redis.end_the_lease(KEY);
    let lock = taken(&b).await;
    let owner = redis.field(KEY, "owner");
    late.unlock().await;
    assert!(is_busy(&a).await);
    assert_eq!(redis.field(KEY, "owner"), owner);
    drop(lock);
}

#[tokio::test]
async fn a_lease_is_renewed_while_it_is_used_and_no_longer() {
    let redis = Redis::start();
    let a = store(&redis).with_lease(Duration::from_secs(1));
    let lock = taken(&a).await;
    let end = || redis.field(KEY, "until");
    for _ in 0..4 {
        let before = end();
        until(|| end() != before).await;
    }
    assert!(lock.is_held(), "longer than it lasts");
    assert!(is_busy(&store(&redis)).await);
    lock.unlock().await;
    assert_eq!(redis.field(KEY, "owner").unwrap(), "", "and no renewal brings it back");
    assert_eq!(end(), None);
}

#[tokio::test]
async fn a_holder_learns_by_its_renewal_that_another_took_the_lease() {
    let redis = Redis::start();
    let a = store(&redis).with_lease(Duration::from_secs(3));
    let lock = taken(&a).await;
    redis.end_the_lease(KEY);
    let _other = taken(&store(&redis)).await;
    until(|| !lock.is_held()).await;
}

// The owner is gone as a killed process is: nothing renews, nothing gives back.
#[test]
fn the_lease_of_an_owner_that_died_goes_to_who_waits() {
    let redis = Redis::start();
    let dies = Builder::new_current_thread().enable_all().build().unwrap();
    let store = |redis: &Redis| RedisStore::new(redis.client(), KEY).with_lease(Duration::from_secs(1));
    let mut late = dies.block_on(async { taken(&store(&redis)).await });
    // Nobody drives it any more.
    let lives = Builder::new_current_thread().enable_all().build().unwrap();
    lives.block_on(async {
        let mut lock = soon(store(&redis).lock(LONG)).await.unwrap();
        lock.save(b"new").await.unwrap();
        lock.unlock().await;
    });
    assert!(!late.is_held(), "thawed, it knows");
    assert!(matches!(dies.block_on(late.save(b"late")), Err(StoreError::LockLost)));
}

#[tokio::test]
async fn who_waits_hears_at_once_that_the_lease_was_given_back() {
    let redis = Redis::start();
    let (a, b) = (store(&redis), store(&redis));
    let lock = taken(&a).await;
    let waits = tokio::spawn(async move { b.lock(LONG).await.map(drop) });
    // One by the holder; one before it listens, and one after: now it sleeps until the lease is over.
    until(|| redis.scripts_run() == 3).await;
    lock.unlock().await;
    soon(waits).await.unwrap().unwrap();
}

#[tokio::test]
async fn who_waits_looks_again_as_soon_as_a_token_was_saved() {
    let redis = Redis::start();
    let (a, b) = (store(&redis), store(&redis));
    let mut lock = taken(&a).await;
    let waits = tokio::spawn(async move { b.lock(LONG).await.map(drop) });
    until(|| redis.scripts_run() == 3).await;
    lock.save(b"new").await.unwrap();
    assert!(matches!(soon(waits).await.unwrap(), Err(StoreError::Busy)));
    assert!(lock.is_held());
}

#[tokio::test]
async fn late_word_of_a_token_that_was_seen_sends_nobody_away() {
    let redis = Redis::start();
    let (a, b) = (store(&redis), store(&redis));
    let mut lock = taken(&a).await;
    lock.save(b"seen").await.unwrap();
    value(&b).await;
    let waits = tokio::spawn(async move { b.lock(LONG).await.map(drop) });
    // The lock and the save of the holder, a load, and two tries.
    until(|| redis.scripts_run() == 5).await;
    assert_eq!(redis.run::<u32>(&format!("PUBLISH {KEY} saved:1")), 1);
    lock.unlock().await;
    soon(waits).await.unwrap().unwrap();
}

#[tokio::test]
async fn who_may_not_subscribe_asks_again_and_again() {
    let redis = Redis::start();
    redis.run::<()>("ACL SETUSER silent on >pw ~* resetchannels +@all");
    let (a, b) = (store(&redis), RedisStore::new(redis.client_as("user=silent&pass=pw"), KEY).with_lease(LONG));
    let lock = taken(&a).await;
    let waits = tokio::spawn(async move {
        let mut lock = b.lock(LONG).await.unwrap();
        // Nor publish, and saves all the same.
        lock.save(b"new").await.unwrap();
        lock.unlock().await;
    });
    until(|| redis.scripts_run() >= 4).await;
    lock.unlock().await;
    soon(waits).await.unwrap();
    assert_eq!(value(&a).await.unwrap(), b"new");
}

#[tokio::test]
async fn who_waits_for_a_dead_subscription_is_not_left_behind() {
    let redis = Redis::start();
    let (a, b) = (store(&redis), store(&redis));
    for _ in 0..2 {
        let lock = taken(&a).await;
        let (b, before) = (b.clone(), redis.scripts_run());
        let waits = tokio::spawn(async move { b.lock(LONG).await.map(drop) });
        until(|| redis.scripts_run() == before + 2).await;
        lock.unlock().await;
        soon(waits).await.unwrap().unwrap();
        // The next one finds it gone, and begins another.
        assert_eq!(redis.run::<u32>("CLIENT KILL TYPE pubsub"), 1);
    }
}

#[tokio::test]
async fn who_waits_goes_on_though_its_subscription_broke_meanwhile() {
    let redis = Redis::start();
    let (a, b) = (store(&redis), store(&redis));
    let lock = taken(&a).await;
    let waits = tokio::spawn(async move { b.lock(LONG).await.map(drop) });
    until(|| redis.scripts_run() == 3).await;
    for _ in 0..2 {
        let before = redis.scripts_run();
        assert_eq!(redis.run::<usize>("CLIENT KILL TYPE pubsub"), 1);
        // It is asked for without word of it, and again once there is another subscription.
        until(|| redis.scripts_run() == before + 2).await;
    }
    lock.unlock().await;
    soon(waits).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_wait_that_is_dropped_leaves_nothing_locked() {
    let redis = Redis::start();
    let (a, b) = (store(&redis), store(&redis));
    value(&a).await;
    {
        let mut wait = pin!(a.lock(LONG));
        assert!(wait.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        // It was sent, and is granted.
        until(|| redis.scripts_run() == 2).await;
    }
    soon(b.lock(LONG)).await.unwrap();
}

#[tokio::test]
async fn a_clock_of_redis_that_was_set_back_locks_nobody_out() {
    let redis = Redis::start();
    let (a, b) = (store(&redis), store(&redis).with_lease(Duration::from_secs(1)));
    let lock = soon(b.lock(NOW)).await.unwrap();
    std::mem::forget(lock);
    // By its end it had an hour more; the renewal is another's.
    redis.run::<u32>(&format!("HSET {KEY} owner gone until 9999999999999 lease 1000"));
    soon(a.lock(LONG)).await.unwrap();
}

#[tokio::test]
async fn connections_end_with_the_last_store() {
    let redis = Redis::start();
    let clients = || redis.run::<String>("CLIENT LIST").lines().count();
    let (a, b) = (store(&redis), store(&redis));
    let lock = taken(&a).await;
    let waits = {
        let b = b.clone();
        tokio::spawn(async move { b.lock(LONG).await.map(drop) })
    };
    until(|| redis.scripts_run() == 3).await;
    assert_eq!(clients(), 4, "two for commands, one that listens, and the one that asks this");
    lock.unlock().await;
    soon(waits).await.unwrap().unwrap();
    drop((a, b));
    until(|| clients() == 1).await;
}

#[test]
fn a_runtime_that_stands_still_holds_up_no_other() {
    let redis = Redis::start();
    let store = store(&redis);
    let one = Builder::new_current_thread().enable_all().build().unwrap();
    let other = Builder::new_current_thread().enable_all().build().unwrap();
    let lock = one.block_on(taken(&store));
    other.block_on(async {
        assert!(is_busy(&store).await);
        assert_eq!(value(&store).await, None);
        lock.unlock().await;
        taken(&store).await.unlock().await;
    });
    drop(one);
    other.block_on(taken(&store));
}
