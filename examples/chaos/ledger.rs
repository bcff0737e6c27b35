//! What became of each call: how often it was sent, how often it arrived, how often it was carried out.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// No token, no connection.
pub const NONE: u32 = u32::MAX;

/// A request may be sent twice: the second time after a refusal.
pub const MOST_SENDS: usize = 2;

#[derive(Clone, Debug)]
pub struct Entry {
    pub sends: usize,
    /// The token of each send.
    pub tokens: [u32; MOST_SENDS],
    pub arrivals: [u8; MOST_SENDS],
    /// The connection that each send arrived over.
    pub connections: [u32; MOST_SENDS],
    /// Answered by REFUSED_STREAM, unread: whoever sent it may send it over again.
    pub nacks: u8,
    /// Refusals of its token.
    pub refused: u8,
    /// When the first one was, by the run's clock.
    pub refused_at: Duration,
    /// It was refused before its body had come.
    pub early: bool,
    /// The server itself broke it off.
    pub broken: bool,
    pub executed: u8,
    pub executed_send: usize,
}

impl Default for Entry {
    fn default() -> Self {
        Self {
            sends: 0,
            tokens: [NONE; MOST_SENDS],
            arrivals: [0; MOST_SENDS],
            connections: [NONE; MOST_SENDS],
            nacks: 0,
            refused: 0,
            refused_at: Duration::ZERO,
            early: false,
            broken: false,
            executed: 0,
            executed_send: 0,
        }
    }
}

const SHARDS: usize = 64;

/// All calls, by their numbers, which are drawn one after the other.
pub struct Ledger(Vec<Mutex<Vec<Entry>>>);

impl Default for Ledger {
    fn default() -> Self {
        Self((0..SHARDS).map(|_| Mutex::default()).collect())
    }
}

impl Ledger {
    pub fn entry<T>(&self, id: u64, change: impl FnOnce(&mut Entry) -> T) -> T {
        let id = usize::try_from(id).expect("a count");
        let mut shard = lock(&self.0[id % SHARDS]);
        let at = id / SHARDS;
        if shard.len() <= at {
            shard.resize_with(at + 1, Entry::default);
        }
        change(&mut shard[at])
    }

    /// What it takes in memory.
    pub fn bytes(&self) -> usize {
        self.0.iter().map(|shard| lock(shard).capacity() * size_of::<Entry>()).sum()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
