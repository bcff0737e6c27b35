//! Why there is no token where the token endpoint itself is not to blame, or not alone.

use crate::{BoxError, ConfigError, SourceError};
use std::{future::Future, sync::Arc, time::Duration};
use tokio::time::{Instant, timeout_at};

/// Why an [`OAuth2`](super::OAuth2) source gave no token, where an [`EndpointError`](crate::source::EndpointError) alone does not say it.
///
/// Neither this nor its `source` chain quotes a credential, a token, or an `error_description`. What metadata says of issuers is quoted, escaped
/// and cut: it was fetched without a credential.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OAuth2Error {
    /// The issuer's metadata could not be fetched.
    #[error(
        "no metadata of the issuer {issuer}: is that its identifier, letter by letter? Where it publishes none, name the token endpoint itself"
    )]
    NoMetadata {
        /// The issuer, as set.
        issuer: Arc<str>,
        /// An [`EndpointError`](crate::source::EndpointError): how the last document could not be had.
        #[source]
        error: BoxError,
    },
    /// What was fetched is no metadata: a web page, perhaps.
    #[error(
        "what {issuer} publishes as its metadata is no JSON object with an `issuer`: does a proxy or login page answer in its place?"
    )]
    UnreadableMetadata {
        /// The issuer, as set.
        issuer: Arc<str>,
    },
    /// The metadata is another issuer's (RFC 8414 section 3.3), so nothing is sent where it points.
    #[error(
        "the metadata of the issuer `{issuer}` says that it is of `{said}`: both must be the same, letter by letter (RFC 8414 section 3.3); if that one is right, discover it"
    )]
    OtherIssuer {
        /// The issuer, as set.
        issuer: Arc<str>,
        /// What the metadata says, escaped, and cut if it is long.
        said: String,
    },
    /// The metadata names no token endpoint, or one that no credential may go to.
    #[error("the metadata of {issuer} names no token endpoint of use")]
    NoTokenEndpoint {
        /// The issuer, as set.
        issuer: Arc<str>,
        /// What is wrong with it.
        #[source]
        error: ConfigError,
    },
    /// The source of an assertion, a subject token or an actor token failed; its own error says whether asking again can help.
    #[error("no {what} to show to the token endpoint")]
    Presented {
        /// Which.
        what: &'static str,
        /// The source's error.
        #[source]
        error: BoxError,
    },
    /// The time was over before the token endpoint was asked: that of the whole fetch, or the half of it in which a refresh token must be at hand.
    #[error("{what} took until the end of the {limit:.1?} that a fetch has for it: look there, or raise `timeout`")]
    Late {
        /// What took the time.
        what: &'static str,
        /// The limit.
        limit: Duration,
    },
    /// Processes share the refresh token by a store, and its lock could not be had: another one may be showing the token at this moment, and servers take that
    /// for theft.
    #[error(
        "the refresh token was not shown, as other processes share it and the store's lock could not be had: one of them has held it all the time, or the store does not work, and then a warning says why"
    )]
    NotShown,
    /// Another process has signed out for all that share the refresh token.
    #[error("another process has signed out: somebody has to log in again")]
    SignedOut,
    /// The credential is refused, and the server's metadata does not list the way in which it was shown.
    #[error(
        "the server's metadata does not list `{method}`, the way in which the client authenticates: that may be why"
    )]
    MethodNotListed {
        /// The way, as RFC 7591 section 2 and OpenID Connect Core section 9 name it.
        method: &'static str,
        /// The refusal, an [`EndpointError`](crate::source::EndpointError).
        #[source]
        error: BoxError,
    },
    /// The request carried what an API had asked for. It may be that which is refused, not the credential; the next fetch will tell.
    #[error("refused while it asked for what an API's challenge had named")]
    Challenged {
        /// The refusal, an [`EndpointError`](crate::source::EndpointError).
        #[source]
        error: BoxError,
    },
}

impl OAuth2Error {
    /// Puts an error around another, which stays as permanent as it was.
    pub(super) fn around(inner: SourceError, outer: impl FnOnce(BoxError) -> Self) -> SourceError {
        SourceError { error: outer(inner.error).into(), ..inner }
    }
}

/// The end of one fetch.
#[derive(Clone, Copy)]
pub(super) struct Deadline {
    pub(super) at: Instant,
    pub(super) limit: Duration,
}

impl Deadline {
    pub(super) fn after(limit: Duration) -> Self {
        Self { at: Instant::now() + limit, limit }
    }

    /// The moment at which half of what is left is over.
    pub(super) fn half(self) -> Instant {
        let now = Instant::now();
        now + self.at.saturating_duration_since(now) / 2
    }

    /// What comes before a refresh token is shown ends by then: shown with little time left, its successor would be lost, and it be shown again.
    pub(super) fn before_it_is_shown(self) -> Self {
        Self { at: self.at.checked_sub(self.limit / 2).unwrap_or(self.at), limit: self.limit / 2 }
    }

    pub(super) fn is_over(self) -> bool {
        self.at <= Instant::now()
    }

    pub(super) async fn bound<T>(self, what: &'static str, future: impl Future<Output = T>) -> Result<T, SourceError> {
        timeout_at(self.at, future).await.map_err(|_| self.late(what))
    }

    pub(super) fn late(self, what: &'static str) -> SourceError {
        SourceError::transient(OAuth2Error::Late { what, limit: self.limit })
    }
}
