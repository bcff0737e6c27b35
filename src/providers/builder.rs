//! Settings of keyed providers, checked when they are built.

use super::TokenProviders;
use crate::{ConfigError, TokenProvider};
use std::{hash::Hash, time::Duration};

/// Settings of [`TokenProviders`].
///
/// | setting | default |
/// | --- | --- |
/// | [`capacity`](Self::capacity) | 10,000 |
/// | [`idle_after`](Self::idle_after) | 1 hour |
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing until it builds"]
pub struct TokenProvidersBuilder {
    pub(super) capacity: usize,
    pub(super) idle_after: Duration,
}

impl Default for TokenProvidersBuilder {
    fn default() -> Self {
        Self { capacity: 10_000, idle_after: Duration::from_secs(3600) }
    }
}

impl TokenProvidersBuilder {
    /// How many providers are kept. For one more, that which nobody has asked for longest gives way, unless it is in use. Default 10,000, which is
    /// some 20 MB beyond what the sources themselves hold.
    ///
    /// Let it be more than the keys in use within a token's life: below that, providers are dropped that have good tokens, and each that comes
    /// back fetches again.
    pub fn capacity(self, capacity: usize) -> Self {
        Self { capacity, ..self }
    }

    /// A provider that nobody asked for in so long is dropped, unless it is in use. Default 1 hour: what most tokens live, so that little of worth is lost.
    pub fn idle_after(self, span: Duration) -> Self {
        Self { idle_after: span, ..self }
    }

    /// Builds it. `factory` makes the provider of a key that has none; [what it may do](TokenProviders#the-factory).
    ///
    /// # Errors
    /// [`ConfigError`] for settings that cannot work.
    pub fn build<K, E, F>(self, factory: F) -> Result<TokenProviders<K, E>, ConfigError>
    where
        K: Hash + Eq + Clone + Send + 'static,
        E: 'static,
        F: Fn(&K) -> Result<TokenProvider, E> + Send + Sync + 'static,
    {
        if self.capacity == 0 {
            let consequence = "no provider would be kept, and every request would fetch";
            return Err(ConfigError::Zero { setting: "capacity", consequence });
        }
        ConfigError::if_zero(
            "idle_after",
            self.idle_after,
            "no provider would be kept, and every request would fetch",
        )?;
        ConfigError::if_too_long("idle_after", self.idle_after)?;
        Ok(TokenProviders::with(&self, Box::new(factory)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_that_cannot_work_are_refused() {
        let build = |builder: TokenProvidersBuilder| builder.build(|_: &u8| Err::<TokenProvider, _>(())).unwrap_err();
        let builder = TokenProvidersBuilder::default;
        assert!(build(builder().capacity(0)).to_string().starts_with("capacity must be above zero"));
        assert!(build(builder().idle_after(Duration::ZERO)).to_string().starts_with("idle_after must be above zero"));
        assert!(matches!(build(builder().idle_after(Duration::MAX)), ConfigError::TooLong { .. }));
    }
}
