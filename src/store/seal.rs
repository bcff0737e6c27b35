//! A store whose content only those can read, or make, who have the key.
//!
//! XChaCha20-Poly1305: its nonce of 24 bytes may be drawn at random by any number of processes for as long as a key lives, without counting.

use super::{BoxFuture, Loaded, StoreError, StoreLock, TokenStore};
use crate::ConfigError;
use chacha20poly1305::{
    KeyInit, XChaCha20Poly1305, XNonce,
    aead::{Aead, Payload},
};
use std::{fmt, sync::Arc, time::Duration};
use tokio::sync::Notify;
use zeroize::Zeroizing;

/// What a sealed value begins with: what it is, and the version of its format. The nonce and the sealed bytes follow.
const HEAD: [u8; 5] = *b"tjrs\x01";
const NONCE: usize = 24;

/// A key of 32 bytes that [`Sealed`] seals by. Wiped with its last user, never printed.
#[derive(Clone)]
pub struct SealKey(Arc<XChaCha20Poly1305>);

impl SealKey {
    /// Takes 32 bytes of good randomness, such as `openssl rand 32` gives. A password is none: derive a key from it.
    ///
    /// # Errors
    /// [`ConfigError::SealKey`] for any other number of bytes.
    pub fn new(key: &[u8]) -> Result<Self, ConfigError> {
        let cipher = XChaCha20Poly1305::new_from_slice(key);
        Ok(Self(Arc::new(cipher.map_err(|_| ConfigError::SealKey { length: key.len() })?)))
    }
}

impl fmt::Debug for SealKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SealKey").finish_non_exhaustive()
    }
}

/// A store that holds what it keeps encrypted, and takes nothing that was not sealed by its key, for its purpose.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # #[cfg(feature = "redis")] {
/// use tower_jwt_refresh::store::{RedisStore, SealKey, Sealed};
///
/// # let key = [7; 32];
/// let store = RedisStore::new(redis::Client::open("rediss://redis.example.com")?, "token:billing-api");
/// let store = Sealed::new(store, SealKey::new(&key)?, "token:billing-api");
/// # } Ok(()) }
/// ```
///
/// XChaCha20-Poly1305 with a random nonce. Who can write to the store, and has no key, can still delete the value or put back an older one: whoever
/// uses that asks the issuer with a refresh token that was spent.
///
/// # Another key
/// [`also_opened_by`](Self::also_opened_by) takes what an earlier key has sealed; the next token is sealed by the first. To change the key of
/// processes that run side by side: let all of them also open by the new key, then let all of them seal by it, then leave the old one out.
///
/// # What it cannot open
/// Is an error, [`StoreError::Unusable`], and the store counts as not usable: nothing is put over it, as it may be the token of a process with the right key.
/// Delete it if it is of no use. That goes too for a value from before the store was sealed.
#[derive(Clone)]
pub struct Sealed<S> {
    store: S,
    seal: Seal,
}

#[derive(Clone)]
struct Seal {
    key: SealKey,
    others: Vec<SealKey>,
    /// What a value is bound to besides the key.
    bound_to: Arc<[u8]>,
}

impl<S: TokenStore> Sealed<S> {
    /// Seals what `store` keeps. `purpose` tells one token from another under the same key, such as the store's own key or the tenant: a value
    /// that somebody moves from one to another is not opened there. All who share the token name the same.
    pub fn new(store: S, key: SealKey, purpose: impl AsRef<str>) -> Self {
        let bound_to = [&HEAD, purpose.as_ref().as_bytes()].concat();
        Self { store, seal: Seal { key, others: Vec::new(), bound_to: bound_to.into() } }
    }

    /// Opens what this key has sealed, too.
    #[must_use]
    pub fn also_opened_by(mut self, key: SealKey) -> Self {
        self.seal.others.push(key);
        self
    }
}

impl Seal {
    fn seal(&self, value: &[u8]) -> Result<Vec<u8>, StoreError> {
        let mut nonce = [0; NONCE];
        getrandom::fill(&mut nonce).map_err(|error| StoreError::Unavailable(error.into()))?;
        let payload = Payload { msg: value, aad: &self.bound_to };
        let sealed = self.key.0.encrypt(&XNonce::from(nonce), payload).map_err(|_| unusable(SealError::TooLong))?;
        Ok([&HEAD[..], &nonce, &sealed].concat())
    }

    fn open(&self, value: &[u8]) -> Result<Vec<u8>, SealError> {
        let (name, version) = (&HEAD[..4], HEAD[4]);
        let (found, rest) = value.strip_prefix(name).and_then(<[u8]>::split_first).ok_or(SealError::NotSealed)?;
        if *found != version {
            return Err(SealError::Version { found: *found, known: version });
        }
        let (nonce, msg) = rest.split_first_chunk::<NONCE>().ok_or(SealError::NotOpened)?;
        let opened = |key: &SealKey| key.0.decrypt(&XNonce::from(*nonce), Payload { msg, aad: &self.bound_to }).ok();
        std::iter::once(&self.key).chain(&self.others).find_map(opened).ok_or(SealError::NotOpened)
    }
}

/// The cause of a [`StoreError::Unusable`] of [`Sealed`].
#[derive(Debug, thiserror::Error)]
enum SealError {
    #[error("what the store holds is not sealed: delete it, so that a sealed one is put there")]
    NotSealed,
    #[error(
        "what the store holds is sealed in format {found}, and this version of tower-jwt-refresh knows {known}: use the same everywhere"
    )]
    Version { found: u8, known: u8 },
    #[error(
        "what the store holds is not opened by any key given: it is sealed by another key or for another purpose, or was changed"
    )]
    NotOpened,
    #[error("what is to be stored is too long to be sealed")]
    TooLong,
}

fn unusable(error: SealError) -> StoreError {
    StoreError::Unusable(error.into())
}

impl<S: TokenStore> TokenStore for Sealed<S> {
    fn load(&self) -> BoxFuture<'_, Result<Loaded, StoreError>> {
        Box::pin(async move {
            let mut loaded = self.store.load().await?;
            if let Some(sealed) = loaded.value.take() {
                loaded.value = Some(Zeroizing::new(self.seal.open(&sealed).map_err(unusable)?));
            }
            Ok(loaded)
        })
    }

    fn lock(&self, wait: Duration) -> BoxFuture<'_, Result<Box<dyn StoreLock>, StoreError>> {
        Box::pin(async move {
            let lock = self.store.lock(wait).await?;
            Ok(Box::new(SealedLock { lock, seal: self.seal.clone() }) as Box<dyn StoreLock>)
        })
    }

    fn watch<'a>(&'a self, changed: &'a Notify) -> BoxFuture<'a, ()> {
        self.store.watch(changed)
    }
}

struct SealedLock {
    lock: Box<dyn StoreLock>,
    seal: Seal,
}

impl StoreLock for SealedLock {
    fn is_held(&self) -> bool {
        self.lock.is_held()
    }

    fn save<'a>(&'a mut self, value: &'a [u8]) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(async move {
            let sealed = self.seal.seal(value)?;
            self.lock.save(&sealed).await
        })
    }

    fn unlock(self: Box<Self>) -> BoxFuture<'static, ()> {
        self.lock.unlock()
    }
}

impl<S: fmt::Debug> fmt::Debug for Sealed<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Sealed").field(&self.store).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: [u8; 32] = [1; 32];
    const OTHER: [u8; 32] = [2; 32];

    fn seal(key: [u8; 32], purpose: &str) -> Seal {
        struct Nowhere;
        impl TokenStore for Nowhere {
            fn load(&self) -> BoxFuture<'_, Result<Loaded, StoreError>> {
                Box::pin(async { Ok(Loaded::empty()) })
            }
            fn lock(&self, _: Duration) -> BoxFuture<'_, Result<Box<dyn StoreLock>, StoreError>> {
                Box::pin(async { Err(StoreError::Busy) })
            }
        }
        Sealed::new(Nowhere, SealKey::new(&key).unwrap(), purpose).seal
    }

    #[test]
    fn what_was_sealed_is_opened_by_the_same_key_for_the_same_purpose_alone() {
        let sealed = seal(ONE, "a").seal(b"token").unwrap();
        assert_eq!(seal(ONE, "a").open(&sealed).unwrap(), b"token");
        for other in [seal(OTHER, "a"), seal(ONE, "b"), seal(ONE, "")] {
            assert!(matches!(other.open(&sealed), Err(SealError::NotOpened)));
        }
    }

    #[test]
    fn a_sealed_value_shows_nothing_and_is_never_the_same_twice() {
        let seal = seal(ONE, "a");
        let (first, second) = (seal.seal(b"token").unwrap(), seal.seal(b"token").unwrap());
        assert_ne!(first, second);
        assert!(!first.windows(5).any(|bytes| bytes == b"token"));
        assert_ne!(first[HEAD.len()..][..NONCE], second[HEAD.len()..][..NONCE]);
    }

    #[test]
    fn an_earlier_key_still_opens_and_seals_no_more() {
        let old = seal(ONE, "a").seal(b"token").unwrap();
        let mut both = seal(OTHER, "a");
        assert!(both.open(&old).is_err());
        both.others.push(SealKey::new(&ONE).unwrap());
        assert_eq!(both.open(&old).unwrap(), b"token");
        let new = both.seal(b"next").unwrap();
        assert_eq!(seal(OTHER, "a").open(&new).unwrap(), b"next");
        assert!(seal(ONE, "a").open(&new).is_err());
    }

    #[test]
    fn no_bit_of_a_sealed_value_can_be_changed() {
        let seal = seal(ONE, "a");
        let sealed = seal.seal(b"token").unwrap();
        for bit in 0..sealed.len() * 8 {
            let mut changed = sealed.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(seal.open(&changed).is_err(), "bit {bit}");
        }
        for end in 0..sealed.len() {
            assert!(seal.open(&sealed[..end]).is_err(), "cut at {end}");
        }
    }

    #[test]
    fn what_is_not_sealed_or_of_another_version_is_told_apart() {
        let seal = seal(ONE, "a");
        for plain in [&b""[..], b"{}", b"tjr", b"tjrs"] {
            assert!(matches!(seal.open(plain), Err(SealError::NotSealed)), "{plain:?}");
        }
        let mut later = seal.seal(b"token").unwrap();
        later[4] = 2;
        assert_eq!(
            seal.open(&later).unwrap_err().to_string(),
            "what the store holds is sealed in format 2, and this version of tower-jwt-refresh knows 1: use the same everywhere"
        );
    }

    #[test]
    fn a_key_has_32_bytes_and_is_not_shown() {
        for length in [0, 16, 31, 33, 64] {
            let error = SealKey::new(&vec![7; length]).unwrap_err();
            assert_eq!(error.to_string(), format!("the key to seal by has {length} bytes: it takes 32"));
        }
        assert_eq!(format!("{:?}", SealKey::new(&[7; 32]).unwrap()), "SealKey { .. }");
    }
}
