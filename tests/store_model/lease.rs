//! What the store's scripts do, as plain code. `tests/redis_store_semantics.rs` holds it against the scripts in a real Redis.

#![allow(dead_code, unreachable_pub, reason = "each test uses its part")]

use std::time::Duration;

/// A name that nobody else has, drawn for one lease.
pub type Owner = u32;

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Leased {
    pub value: Option<Vec<u8>>,
    /// The last one's that had the lease; none once it has given it back.
    pub owner: Option<Owner>,
    /// By the store's own clock.
    pub until: Duration,
}

impl Leased {
    /// Zero if the lease is the caller's now, else for how long it is another's.
    pub fn acquire(&mut self, owner: Owner, now: Duration, lease: Duration) -> Duration {
        if self.owner.is_some_and(|other| other != owner) && self.until > now {
            return self.until - now;
        }
        (self.owner, self.until) = (Some(owner), now + lease);
        Duration::ZERO
    }

    pub fn renew(&mut self, owner: Owner, now: Duration, lease: Duration) -> bool {
        if self.owner == Some(owner) {
            self.until = now + lease;
        }
        self.owner == Some(owner)
    }

    pub fn save(&mut self, owner: Owner, value: &[u8]) -> bool {
        if self.owner == Some(owner) {
            self.value = Some(value.to_vec());
        }
        self.owner == Some(owner)
    }

    pub fn release(&mut self, owner: Owner) -> bool {
        let mine = self.owner == Some(owner);
        if mine {
            self.owner = None;
        }
        mine
    }
}
