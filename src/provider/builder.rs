//! Settings of a provider, checked when it is built.

use super::{Background, Core, Handle, Settings, TokenProvider, jitter::Jitter};
use crate::{
    BoxError, ConfigError, Token, TokenRequest,
    clock::{Clock, Clocks, SystemClock},
};
use std::{fmt, sync::Arc, time::Duration};
use tower::{Service, ServiceExt, util::BoxService};

/// Settings of a [`TokenProvider`].
///
/// The defaults suit tokens of a few minutes to a few days; shorter ones are met by clamping to fractions of a token's life, so
/// most users set nothing.
///
/// | setting | default | clamped to |
/// | --- | --- | --- |
/// | [`refresh_before`](Self::refresh_before) | 300 s | half of the token's life |
/// | [`min_runway`](Self::min_runway) | 60 s | 5 % of the token's life |
/// | [`min_interval`](Self::min_interval) | 1 s | |
/// | [`fetch_timeout`](Self::fetch_timeout) | 30 s | |
/// | [`backoff`](Self::backoff) | 1 s to 60 s | half of what a living token has left |
#[must_use = "a builder does nothing until it builds"]
pub struct TokenProviderBuilder {
    refresh_before: Option<Duration>,
    min_runway: Option<Duration>,
    min_interval: Duration,
    fetch_timeout: Duration,
    backoff: (Duration, Duration),
    seed: Option<Token>,
    clock: Box<dyn Clock>,
    jitter: Option<u64>,
}

impl Default for TokenProviderBuilder {
    fn default() -> Self {
        let Settings { min_interval, fetch_timeout, backoff, .. } = Settings::default();
        Self {
            refresh_before: None,
            min_runway: None,
            min_interval,
            fetch_timeout,
            backoff,
            seed: None,
            clock: Box::new(SystemClock),
            jitter: None,
        }
    }
}

impl TokenProviderBuilder {
    /// How long before it expires a token's successor is fetched, while requests go on with the old one. Default 300 s, which is how long an
    /// endpoint may be down unnoticed; never more than half of the token's life. A jitter takes up to 10 % off, so that a fleet
    /// does not refresh in step.
    pub fn refresh_before(self, span: Duration) -> Self {
        Self { refresh_before: Some(span), ..self }
    }

    /// With less left than this a token may die on its way, so requests wait for its successor: at most 1 s or half of what is
    /// left, then the living token is sent after all. Default 60 s or, where `refresh_before` is set below 300 s, a fifth of that; never more
    /// than 5 % of the token's life.
    pub fn min_runway(self, span: Duration) -> Self {
        Self { min_runway: Some(span), ..self }
    }

    /// Two fetches are never closer than this, whatever happens. Default 1 s.
    pub fn min_interval(self, span: Duration) -> Self {
        Self { min_interval: span, ..self }
    }

    /// A source that has not answered by then has failed. Default 30 s: more than slow identity providers need, and callers with a
    /// living token do not wait for it.
    pub fn fetch_timeout(self, span: Duration) -> Self {
        Self { fetch_timeout: span, ..self }
    }

    /// The wait after the first failure, doubled by each further one up to the cap, less a jitter of up to half. Default 1 s to 60 s.
    pub fn backoff(self, base: Duration, cap: Duration) -> Self {
        Self { backoff: (base, cap), ..self }
    }

    /// A token from elsewhere to start with: nothing is fetched until it nears its expiry. Nobody knows how long it lay about,
    /// so the thresholds apply to it as they are set.
    pub fn seed(self, token: Token) -> Self {
        Self { seed: Some(token), ..self }
    }

    /// [`seed`](Self::seed) with a JWT as text, from a file or variable perhaps. One that cannot be read is logged and counts as dead.
    pub fn seed_jwt(self, jwt: &str) -> Self {
        match Token::from_jwt(jwt) {
            Ok(token) => self.seed(token),
            Err(error) => {
                tracing::warn!(%error, "the seed is not a readable JWT: starting without");
                self
            }
        }
    }

    /// Other clocks than the machine's, for tests.
    pub fn clock(self, clock: impl Clock) -> Self {
        Self { clock: Box::new(clock), ..self }
    }

    /// The same jitter on each run, for a test that must be repeatable; another version of Rust may draw otherwise. By default each
    /// provider draws its own.
    #[cfg(feature = "test-util")]
    pub fn jitter_seed(self, seed: u64) -> Self {
        Self { jitter: Some(seed), ..self }
    }

    /// Builds it. Needs no runtime, and fetches nothing yet.
    ///
    /// # Errors
    /// [`ConfigError`] for settings that cannot work.
    pub fn build<S>(self, source: S) -> Result<TokenProvider, ConfigError>
    where
        S: Service<TokenRequest, Response = Token> + Send + 'static,
        S::Error: Into<BoxError>,
        S::Future: Send + 'static,
    {
        let settings = self.settings()?;
        let (clocks, jitter) = (Clocks::new(self.clock), Jitter::new(self.jitter));
        let core = Core::new(settings, clocks, jitter, BoxService::new(source.map_err(Into::into)));
        if let Some(seed) = self.seed {
            core.event(|machine, now, jitter| machine.seed(now, seed, jitter.roll()));
        }
        Ok(TokenProvider { handle: Arc::new(Handle { core: Arc::new(core), background: Background::default() }) })
    }

    fn settings(&self) -> Result<Settings, ConfigError> {
        let default = Settings::default();
        let refresh_before =
            self.refresh_before.unwrap_or_else(|| default.refresh_before.max(self.min_runway.unwrap_or_default()));
        let min_runway = self.min_runway.unwrap_or_else(|| default.min_runway.min(refresh_before / 5));
        if min_runway > refresh_before {
            return Err(ConfigError::MinRunwayAboveRefreshBefore { min_runway, refresh_before });
        }
        let (base, cap) = self.backoff;
        for (setting, value, consequence) in [
            (
                "min_interval",
                self.min_interval,
                "a server that rejects every token would be answered by endless fetches",
            ),
            ("fetch_timeout", self.fetch_timeout, "every fetch would fail at once"),
            ("backoff's base", base, "a failing source would be asked again without a pause"),
        ] {
            ConfigError::if_zero(setting, value, consequence)?;
        }
        for (setting, value) in [
            ("refresh_before", refresh_before),
            ("min_interval", self.min_interval),
            ("fetch_timeout", self.fetch_timeout),
            ("backoff's cap", cap),
        ] {
            ConfigError::if_too_long(setting, value)?;
        }
        if base > cap {
            return Err(ConfigError::BackoffBaseAboveCap { base, cap });
        }
        Ok(Settings {
            refresh_before,
            min_runway,
            min_interval: self.min_interval,
            fetch_timeout: self.fetch_timeout,
            backoff: self.backoff,
        })
    }
}

impl fmt::Debug for TokenProviderBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenProviderBuilder").field("settings", &self.settings()).field("seed", &self.seed).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn settings_that_cannot_work_are_refused_with_what_to_do() {
        let both = TokenProvider::builder().min_runway(MINUTE).refresh_before(MINUTE / 2).settings().unwrap_err();
        assert!(both.to_string().contains("min_runway (60s) is above refresh_before (30s)"), "{both}");
        let zero = TokenProvider::builder().min_interval(Duration::ZERO).settings().unwrap_err();
        assert!(zero.to_string().starts_with("min_interval must be above zero"), "{zero}");
        assert!(TokenProvider::builder().fetch_timeout(Duration::ZERO).settings().is_err());
        assert!(TokenProvider::builder().backoff(Duration::ZERO, MINUTE).settings().is_err());
        assert!(TokenProvider::builder().backoff(MINUTE, MINUTE / 2).settings().is_err());
        assert!(TokenProvider::builder().refresh_before(Duration::MAX).settings().is_err());
    }

    #[test]
    fn one_threshold_set_by_hand_takes_the_other_along() {
        let short = TokenProvider::builder().refresh_before(Duration::from_secs(1)).settings().unwrap();
        assert_eq!(short.min_runway, Duration::from_millis(200));
        let long = TokenProvider::builder().min_runway(MINUTE * 10).settings().unwrap();
        assert_eq!(long.refresh_before, MINUTE * 10);
        assert_eq!(TokenProvider::builder().settings().unwrap(), Settings::default());
    }
}
