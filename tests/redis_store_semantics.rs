//! The store of `tests/store_model` does what the scripts do in a real Redis: both are asked the same, at random, and answer the same.
#![cfg(unix)]

#[path = "store_model/lease.rs"]
mod lease;
#[path = "support/redis.rs"]
mod server;

use lease::{Leased, Owner};
use server::{Redis, soon};
use std::time::Duration;
use tower_jwt_refresh::store::{RedisStore, StoreError, StoreLock, TokenStore};

const KEY: &str = "token";
const LEASE: Duration = Duration::from_secs(300);

#[tokio::test]
async fn the_model_answers_as_the_scripts_do() {
    let redis = Redis::start();
    let store = RedisStore::new(redis.client(), KEY).with_lease(LEASE);
    let (mut model, mut now, mut next) = (Leased::default(), Duration::ZERO, 0);
    let mut locks: Vec<(Owner, Box<dyn StoreLock>)> = Vec::new();
    let mut random = fastrand::Rng::with_seed(1);
    let mut seen = [0; 4];
    for step in 0..2_000 {
        match random.usize(0..10) {
            0..3 => {
                next += 1;
                let expected = model.acquire(next, now, LEASE).is_zero();
                // Of another process each: in one they take turns.
                let store = RedisStore::new(redis.client(), KEY).with_lease(LEASE);
                match soon(store.lock(Duration::ZERO)).await {
                    Ok(lock) => locks.push((next, lock)),
                    Err(error) => assert!(matches!(error, StoreError::Busy), "{error:?}"),
                }
                assert_eq!(locks.last().is_some_and(|(owner, _)| *owner == next), expected, "step {step}");
                seen[usize::from(expected)] += 1;
            }
            3..6 if !locks.is_empty() => {
                let nth = random.usize(0..locks.len());
                let (owner, lock) = &mut locks[nth];
                let value = step.to_string().into_bytes();
                let saved = soon(lock.save(&value)).await;
                assert!(matches!(saved, Ok(()) | Err(StoreError::LockLost)), "{saved:?}");
                assert_eq!(saved.is_ok(), model.save(*owner, &value), "step {step}");
                seen[2 + usize::from(saved.is_ok())] += 1;
            }
            6..8 if !locks.is_empty() => {
                let (owner, lock) = locks.swap_remove(random.usize(0..locks.len()));
                soon(lock.unlock()).await;
                model.release(owner);
            }
            8 if model.owner.is_some() && model.until > now => {
                redis.end_the_lease(KEY);
                now = model.until;
            }
            _ => {
                let loaded = soon(store.load()).await.unwrap();
                assert_eq!(loaded.value(), model.value.as_deref(), "step {step}");
            }
        }
    }
    assert!(seen.iter().all(|times| *times > 50), "{seen:?}");
}
