//! What can go wrong on the way to a token.

use crate::BoxError;
#[cfg(feature = "tonic")]
use crate::clients;
use std::{error::Error, fmt, sync::Arc, time::Duration};

/// Why there is no token to send.
///
/// Clones share their cause, so that all who waited for one fetch get the same error. Its `source` chain is the source's own error;
/// nothing of this crate puts a token or credential into it. Around a client it is the service's error, boxed: find it by
/// `downcast_ref`.
///
/// With the feature `tonic` the chain holds a `tonic::Status` as well, between this and its cause, so that a generated client reports
/// `Unavailable` (try again) or `Unauthenticated` (somebody must act) instead of `Unknown`.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum TokenError {
    /// The source fails, and is asked again by itself. Nothing to do but to try later, or to look at the source.
    #[non_exhaustive]
    Unavailable {
        /// The last failure.
        error: Arc<FetchError>,
        /// Since the first failure after the last success.
        failing_for: Duration,
        /// Until the next fetch may begin.
        retry_in: Duration,
        /// The same for tonic.
        #[cfg(feature = "tonic")]
        #[doc(hidden)]
        status: clients::StatusSlot,
    },
    /// The source refuses the durable credential. Somebody must repair it; a repair is noticed by itself within a minute, at once
    /// after [`refresh`](crate::TokenProvider::refresh) or [`set`](crate::TokenProvider::set).
    #[non_exhaustive]
    NeedsCredential {
        /// The last failure.
        error: Arc<FetchError>,
        /// Since the first failure after the last success.
        failing_for: Duration,
        /// Until the next fetch may begin.
        retry_in: Duration,
        /// The same for tonic.
        #[cfg(feature = "tonic")]
        #[doc(hidden)]
        status: clients::StatusSlot,
    },
    /// A fetch is under way, but this caller waited as long as any may: `min_interval + fetch_timeout`. Try again.
    TimedOut {
        /// How long it waited.
        after: Duration,
    },
    /// The token was rejected, and so were those before it: the next is fetched when the wait is over. Look at what the server says.
    NotReplaced {
        /// Until the next fetch may begin.
        retry_in: Duration,
    },
    /// [`clear`](crate::TokenProvider::clear) was called. [`set`](crate::TokenProvider::set) signs in again.
    SignedOut,
    /// [`shutdown`](crate::TokenProvider::shutdown) was called. It is final: build a new provider.
    ShutDown,
    /// A fetch is needed, and needs a tokio runtime to run in. Call from within one.
    NoRuntime,
    /// The source itself asked for the token that it was asked for. Give it a client without this layer.
    Recursive,
}

impl TokenError {
    pub(crate) fn unavailable(error: Arc<FetchError>, failing_for: Duration, retry_in: Duration) -> Self {
        Self::Unavailable {
            error,
            failing_for,
            retry_in,
            #[cfg(feature = "tonic")]
            status: clients::StatusSlot::default(),
        }
    }

    pub(crate) fn needs_credential(error: Arc<FetchError>, failing_for: Duration, retry_in: Duration) -> Self {
        Self::NeedsCredential {
            error,
            failing_for,
            retry_in,
            #[cfg(feature = "tonic")]
            status: clients::StatusSlot::default(),
        }
    }
}

impl fmt::Display for TokenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unavailable { failing_for, retry_in, .. } => write!(
                f,
                "no token: its source has been failing for {failing_for:.1?}; it is asked again in {retry_in:.1?} if somebody wants a token then"
            ),
            Self::NeedsCredential { failing_for, retry_in, .. } => write!(
                f,
                "no token: its source has refused the credential for {failing_for:.1?}; repair the credential, or push a token with `TokenProvider::set` (asked again in {retry_in:.1?})"
            ),
            Self::TimedOut { after } => write!(
                f,
                "no token within {after:.1?}: the fetch under way has not ended; if its source sends through the client that waits for it, that is recursion, and the source needs a client of its own"
            ),
            Self::NotReplaced { retry_in } => write!(
                f,
                "no newer token: servers rejected the last ones too, so the next is fetched in {retry_in:.1?} at the earliest; look at what the server says"
            ),
            Self::SignedOut => {
                f.write_str("no token: signed out by `TokenProvider::clear`; `TokenProvider::set` signs in again")
            }
            Self::ShutDown => f.write_str("no token: the provider was shut down; build a new one"),
            Self::NoRuntime => f.write_str(
                "no token: a fetch is needed, and there is no tokio runtime here to run it; call from within one",
            ),
            Self::Recursive => f.write_str(
                "no token: the source asked for the very token it is to fetch; give it a client without this layer",
            ),
        }
    }
}

impl Error for TokenError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        #[cfg(feature = "tonic")]
        return Some(clients::status_of(self));
        #[cfg(not(feature = "tonic"))]
        match self {
            Self::Unavailable { error, .. } | Self::NeedsCredential { error, .. } => Some(&**error),
            _ => None,
        }
    }
}

/// How one fetch failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FetchError {
    /// The source returned an error; see there.
    #[error("the token source failed")]
    Source(#[source] BoxError),
    /// The source did not answer within `fetch_timeout`.
    #[error(
        "the token source did not answer within {after:.1?}; if it sends through the client that waits for it, that is recursion, and the source needs a client of its own"
    )]
    TimedOut {
        /// The limit, `fetch_timeout`.
        after: Duration,
    },
    /// The source panicked.
    #[error("the token source panicked")]
    Panicked,
    /// The source returned the very token that was rejected.
    #[error("the token source returned the very token that the server has rejected")]
    RejectedTokenAgain,
}

/// A setting that cannot work, found when it is built.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// `min_runway` above `refresh_before`: requests would wait before the refresh is even due.
    #[error(
        "min_runway ({min_runway:?}) is above refresh_before ({refresh_before:?}): a refresh must be due before requests begin to wait for it; lower the first or raise the second"
    )]
    MinRunwayAboveRefreshBefore {
        /// As set.
        min_runway: Duration,
        /// As set.
        refresh_before: Duration,
    },
    /// What must not be zero.
    #[error("{setting} must be above zero: with zero {consequence}")]
    Zero {
        /// Its name.
        setting: &'static str,
        /// What would happen.
        consequence: &'static str,
    },
    /// A duration beyond a year is a mistake of units, and overflows timers.
    #[error("{setting} is {value:?}, over a year: is it in the right unit?")]
    TooLong {
        /// Its name.
        setting: &'static str,
        /// As set.
        value: Duration,
    },
    /// The backoff's base above its cap.
    #[error("backoff: the base ({base:?}) is above the cap ({cap:?})")]
    BackoffBaseAboveCap {
        /// As set.
        base: Duration,
        /// As set.
        cap: Duration,
    },
    /// A placement's prefix that no header can hold.
    #[error("the prefix of a placement must be visible ASCII without spaces, such as `Token`")]
    IllegalPrefix,
    /// What is no origin, quoted unless it may hold a password.
    #[error(
        "`{0}` is no origin: write scheme, host and, where it is not the scheme's own, port, such as `https://api.example.com`"
    )]
    NotAnOrigin(String),
    /// An endpoint that nothing can be sent to. Not quoted: it may hold a secret.
    #[error("the endpoint {problem}")]
    IllegalEndpoint {
        /// What is wrong with it, and what to write instead.
        problem: &'static str,
    },
    /// Plaintext to another machine: everybody on the way would read the credential and the token.
    #[error("the credential is not sent to {host} in plaintext: use https, or allow it by name with `allow_plaintext`")]
    PlaintextEndpoint {
        /// Where it would have gone.
        host: String,
    },
    /// A credential that cannot be sent. Not quoted.
    #[error("the credential for {place} {problem}")]
    IllegalCredential {
        /// Where it was to go.
        place: String,
        /// What is wrong with it, and what to do.
        problem: &'static str,
    },
    /// A parameter of a token request that cannot be. Its value is not quoted.
    #[error("the parameter `{name}` {problem}")]
    IllegalParameter {
        /// Its name.
        name: String,
        /// What is wrong with it, and what to do.
        problem: &'static str,
    },
    /// A setting of another OAuth grant.
    #[error("`{setting}` means nothing with the grant of `{grant}`: leave it out")]
    NotOfThisGrant {
        /// The setting.
        setting: &'static str,
        /// What began the builder.
        grant: &'static str,
    },
    /// A setting of another way in which an OAuth client authenticates.
    #[error("`{setting}` is for `{only}` alone: leave it out")]
    NotOfThisClientAuth {
        /// The setting.
        setting: &'static str,
        /// The way that it belongs to.
        only: &'static str,
    },
    /// A method that no endpoint hands out tokens by.
    #[error("no endpoint answers {method} with a token: use POST, GET or PUT")]
    NoMethodForTokens {
        /// As set.
        method: http::Method,
    },
    /// A body where none can be.
    #[error("a {method} carries no body: use POST, or leave `json` and `form` out")]
    BodyNotAllowed {
        /// As set.
        method: http::Method,
    },
    /// A proxy that cannot be used. Not quoted: it may hold a password.
    #[error("the proxy in {place} {problem}")]
    IllegalProxy {
        /// Where it was named.
        place: String,
        /// What is wrong with it, and what to do.
        problem: &'static str,
    },
    /// No certificates to check servers by.
    #[error("{problem}")]
    RootCertificates {
        /// What is wrong, and what to do.
        problem: &'static str,
    },
    /// A key that nothing can be signed with. Not quoted.
    #[error("the signing key {problem}")]
    SigningKey {
        /// What is wrong with it, and what to do.
        problem: &'static str,
    },
    /// A key that no store can be sealed by. Not quoted.
    #[error("the key to seal by has {length} bytes: it takes 32")]
    SealKey {
        /// In bytes.
        length: usize,
    },
    /// A claim or header parameter that a signed JWT cannot have.
    #[error("the JWT's `{name}` {problem}")]
    IllegalClaim {
        /// Its name.
        name: String,
        /// What is wrong with it, and what to do.
        problem: &'static str,
    },
    /// A duration too short to work.
    #[error("{setting} is {value:?}, under {at_least:?}: is it in the right unit?")]
    TooShort {
        /// Its name.
        setting: &'static str,
        /// As set.
        value: Duration,
        /// The least that works.
        at_least: Duration,
    },
    /// A command that cannot be run.
    #[error("the command {problem}")]
    IllegalCommand {
        /// What is wrong with it, and what to do.
        problem: &'static str,
    },
    /// What is no JSON pointer.
    #[error("`{0}` is no JSON pointer (RFC 6901): write the way to what is meant, such as `/data/token`")]
    NotAPointer(String),
}

/// A year and a day: longer is a mistake of units.
const LONGEST: Duration = Duration::from_secs(366 * 24 * 3600);

impl ConfigError {
    pub(crate) fn if_zero(setting: &'static str, value: Duration, consequence: &'static str) -> Result<(), Self> {
        if value.is_zero() { Err(Self::Zero { setting, consequence }) } else { Ok(()) }
    }

    pub(crate) fn if_too_long(setting: &'static str, value: Duration) -> Result<(), Self> {
        if value > LONGEST { Err(Self::TooLong { setting, value }) } else { Ok(()) }
    }
}
