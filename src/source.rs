//! What mints tokens: any [`tower::Service`] of [`TokenRequest`] that answers with a [`Token`].
//!
//! Timeouts, rate limits and retries around a source are tower layers; a closure works through
//! [`service_fn`](tower::service_fn):
//!
//! ```
//! use tower_jwt_refresh::{Token, TokenProvider, TokenRequest};
//!
//! # async fn ask_somebody() -> std::io::Result<String> { Ok("secret".into()) }
//! let provider = TokenProvider::new(tower::service_fn(|_: TokenRequest| async {
//!     let token = ask_somebody().await?;
//!     Ok::<_, tower::BoxError>(Token::opaque(token)?)
//! }));
//! ```
//!
//! A source has a client of its own: one that sends through the layer it feeds would wait for itself
//! ([`TokenError::Recursive`](crate::TokenError::Recursive)).

#[cfg(any(feature = "command", feature = "exchange"))]
mod answer;
#[cfg(feature = "command")]
mod command;
#[cfg(feature = "exchange")]
mod endpoint;
#[cfg(feature = "exchange")]
mod exchange;
#[cfg(feature = "file")]
mod file;
#[cfg(feature = "oauth2")]
pub mod oauth2;
mod shared;
#[cfg(feature = "signed-jwt")]
mod signed;
#[cfg(any(feature = "command", feature = "file", feature = "store"))]
pub(crate) mod turns;

#[cfg(any(feature = "command", feature = "exchange"))]
pub use answer::AnswerError;
#[cfg(all(feature = "command", jwt_refresh_fuzz))]
#[doc(hidden)]
pub use command::read_output;
#[cfg(feature = "command")]
pub use command::{CommandError, OutputError, TokenCommand, TokenCommandBuilder};
#[cfg(feature = "exchange")]
pub use endpoint::{EndpointClient, EndpointError};
#[cfg(feature = "exchange")]
pub use exchange::{Exchange, ExchangeBuilder};
#[cfg(feature = "file")]
pub use file::{TokenFile, TokenFileError};
#[cfg(feature = "signed-jwt")]
pub use signed::{SignError, SignedJwt, SigningKey};

pub(crate) use shared::SharedRefreshToken;

use crate::{BoxError, Token};
use std::{error::Error, fmt, sync::Arc, time::Duration};

/// What a source is asked.
#[derive(Clone, Debug)]
pub struct TokenRequest {
    pub(crate) reason: Reason,
    pub(crate) previous: Option<Token>,
    pub(crate) challenge: Option<Arc<str>>,
    /// Of a store around the source.
    pub(crate) shared: Option<Arc<SharedRefreshToken>>,
}

impl TokenRequest {
    pub(crate) fn new(reason: Reason, previous: Option<Token>, challenge: Option<Arc<str>>) -> Self {
        Self { reason, previous, challenge, shared: None }
    }

    /// Why a token is wanted.
    #[must_use]
    pub fn reason(&self) -> Reason {
        self.reason
    }

    /// The token held until now, whatever its age.
    #[must_use]
    pub fn previous(&self) -> Option<&Token> {
        self.previous.as_ref()
    }

    /// The `WWW-Authenticate` of the rejection that began this flight (RFC 9110 section 11.6.1), several joined by commas: the way by which a server
    /// asks for other claims or a stronger login (RFC 9470).
    ///
    /// Untrusted text of at most 4 KiB: never put it on a command line or in a path.
    #[must_use]
    pub fn challenge(&self) -> Option<&str> {
        self.challenge.as_deref()
    }

    /// The refresh token that processes share: what a [store](crate::docs::sharing) around the source keeps. It goes before the one that the source was
    /// made with, which may have been spent long ago. After [`keep_refresh_token`](Self::keep_refresh_token) it is that one. `None` where there is no store, or nothing in it yet.
    #[must_use]
    pub fn refresh_token(&self) -> Option<&str> {
        self.shared.as_ref()?.kept()
    }

    /// Whether a refresh token may be shown which the server takes only once. Not if a store is around the source and its lock could not be had: another
    /// process may be showing the same one now. A source that shows one answers with an error then. It may end while the source is at work: the lock is looked at each time before
    /// its future is polled, so ask right before the refresh token is shown.
    #[must_use]
    pub fn may_spend_refresh_token(&self) -> bool {
        self.shared.as_ref().is_none_or(|shared| shared.may_spend())
    }

    /// Gives a new refresh token to the store around the source, which keeps it before the access token is used, and also if the source fails
    /// afterwards: so call it as soon as the server has answered. Without a store it does nothing.
    ///
    /// ```
    /// use tower_jwt_refresh::{BoxError, Token, TokenRequest};
    ///
    /// # struct Answer { access_token: String, refresh_token: String }
    /// # async fn ask(_: &str) -> Result<Answer, BoxError> { unimplemented!() }
    /// async fn source(request: TokenRequest) -> Result<Token, BoxError> {
    ///     if !request.may_spend_refresh_token() {
    ///         return Err("another process may be using the refresh token".into());
    ///     }
    ///     let answer = ask(request.refresh_token().unwrap_or("the one of the login")).await?;
    ///     request.keep_refresh_token(answer.refresh_token);
    ///     Ok(Token::from_jwt(answer.access_token)?)
    /// }
    /// ```
    pub fn keep_refresh_token(&self, refresh_token: impl Into<String>) {
        if let Some(shared) = &self.shared {
            shared.keep(refresh_token.into());
        }
    }
}

/// Why a source is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Reason {
    /// There is no token yet.
    Initial,
    /// The token is stale: it lives for a good while, but its successor is due.
    Scheduled,
    /// The token is about to die, or is dead.
    Expiring,
    /// A server rejected the token.
    Rejected,
    /// Somebody called [`refresh`](crate::TokenProvider::refresh) or
    /// [`token_valid_for`](crate::TokenProvider::token_valid_for).
    Forced,
}

impl Reason {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Initial => "initial",
            Self::Scheduled => "scheduled",
            Self::Expiring => "expiring",
            Self::Rejected => "rejected",
            Self::Forced => "forced",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// An error of a source that says whether asking again can help, and when.
///
/// It may stand anywhere in the chain of what the source returns; an error without one is transient.
///
/// ```
/// # use std::time::Duration;
/// use tower_jwt_refresh::source::SourceError;
///
/// let revoked = SourceError::permanent("invalid_grant");
/// let busy = SourceError::transient("503").retry_after(Duration::from_secs(20));
/// ```
#[derive(Debug)]
pub struct SourceError {
    error: BoxError,
    permanent: bool,
    retry_after: Option<Duration>,
}

impl SourceError {
    /// Asking again can help: the provider waits 1 s, then twice as long each time, up to 60 s.
    pub fn transient(error: impl Into<BoxError>) -> Self {
        Self { error: error.into(), permanent: false, retry_after: None }
    }

    /// Asking again cannot help until somebody repairs the credential: a refused API key, OAuth's `invalid_grant` (RFC 6749 section 5.2). The provider asks
    /// seldom, each 15 minutes or each minute while requests fail for it.
    ///
    /// An overloaded endpoint (429, 503) is never permanent.
    pub fn permanent(error: impl Into<BoxError>) -> Self {
        Self { permanent: true, ..Self::transient(error) }
    }

    /// Not before this long from now (RFC 9110 section 10.2.3). Held to 1..300 s, and only ever lengthens the provider's own wait.
    #[must_use]
    pub fn retry_after(self, wait: Duration) -> Self {
        Self { retry_after: Some(wait), ..self }
    }

    /// The one that a source put into its error's chain.
    pub(crate) fn find<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a Self> {
        chain(error).find_map(|error| error.downcast_ref())
    }

    /// Is asking again of no use until somebody repairs the credential? A retry around a source asks this.
    #[must_use]
    pub fn is_permanent(&self) -> bool {
        self.permanent
    }

    pub(crate) fn wait(&self) -> Option<Duration> {
        self.retry_after
    }
}

impl fmt::Display for SourceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.permanent {
            "the source refused for good, until its credential is repaired"
        } else {
            "the source could not give a token now"
        })
    }
}

impl Error for SourceError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&*self.error)
    }
}

/// An error and what is behind it, so far as anybody would read.
pub(crate) fn chain<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    // An `io::Error` hides what it was made of: its `source` is that one's source.
    let inner = |error: &'a (dyn Error + 'static)| match error.downcast_ref::<std::io::Error>() {
        Some(outer) => outer.get_ref().map(|inner| inner as &(dyn Error + 'static)),
        None => error.source(),
    };
    std::iter::successors(Some(error), move |error| inner(*error)).take(64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_a_word_in_the_log() {
        use Reason::{Expiring, Forced, Initial, Rejected, Scheduled};
        let words = [Initial, Scheduled, Expiring, Rejected, Forced].map(|reason| reason.to_string());
        assert_eq!(words, ["initial", "scheduled", "expiring", "rejected", "forced"]);
    }

    #[test]
    fn a_source_error_shows_and_holds_its_cause() {
        let error = SourceError::permanent("the key was revoked");
        assert!(error.to_string().contains("credential"), "{error}");
        assert_eq!(error.source().unwrap().to_string(), "the key was revoked");
    }

    #[test]
    fn a_source_error_is_found_wherever_it_stands_in_the_chain() {
        let inner = SourceError::permanent("invalid_grant").retry_after(Duration::from_secs(7));
        let outer = std::io::Error::other(std::io::Error::other(inner));
        let found = SourceError::find(&outer).unwrap();
        assert!(found.is_permanent());
        assert_eq!(found.wait(), Some(Duration::from_secs(7)));
        assert!(SourceError::find(&std::io::Error::other("plain")).is_none());
    }
}
