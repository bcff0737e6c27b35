//! The issuer's book: all tokens that were minted, and what became of each.

use crate::world::lock;
use std::{sync::Mutex, time::Duration};

/// Stands in every token, in plain text: whoever sees it where only TLS should be has seen a token.
pub const MARK: &str = "chaos-token";

#[derive(Clone, Debug)]
pub struct Minted {
    value: String,
    pub at: Duration,
    pub expires: Duration,
    revoked: bool,
    /// Its clock jumped while it was fetched, so nobody who holds it knows when it ends.
    skewed: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Good,
    Expired,
    Revoked,
    Unknown,
}

#[derive(Default)]
pub struct Book(Mutex<Vec<Minted>>);

impl Book {
    /// A token that nobody can guess or confuse.
    pub fn mint(&self, now: Duration, life: Duration) -> String {
        let mut book = lock(&self.0);
        let value = format!("{MARK}.{}.{:032x}", book.len(), fastrand::u128(..));
        book.push(Minted { value: value.clone(), at: now, expires: now + life, revoked: false, skewed: false });
        value
    }

    /// All tokens that there are.
    pub fn revoke(&self) {
        lock(&self.0).iter_mut().for_each(|minted| minted.revoked = true);
    }

    pub fn skewed(&self, value: &str) {
        if let Some(number) = number(value) {
            lock(&self.0)[number as usize].skewed = true;
        }
    }

    pub fn judge(&self, value: &str, now: Duration) -> Verdict {
        let book = lock(&self.0);
        match number(value).and_then(|number| book.get(number as usize)).filter(|minted| minted.value == value) {
            None => Verdict::Unknown,
            Some(minted) if minted.revoked => Verdict::Revoked,
            Some(minted) if now >= minted.expires => Verdict::Expired,
            Some(_) => Verdict::Good,
        }
    }

    /// How long it was dead at this moment, as its holder had to know.
    pub fn dead_for(&self, value: &str, now: Duration) -> Duration {
        let book = lock(&self.0);
        let minted = number(value).and_then(|number| book.get(number as usize)).filter(|minted| !minted.skewed);
        minted.map_or(Duration::ZERO, |minted| now.saturating_sub(minted.expires))
    }

    pub fn minted_at(&self, number: u32) -> Option<Duration> {
        lock(&self.0).get(number as usize).map(|minted| minted.at)
    }
}

/// Which one it is.
pub fn number(value: &str) -> Option<u32> {
    value.strip_prefix(MARK)?.split('.').nth(1)?.parse().ok()
}
