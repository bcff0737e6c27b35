//! Why an endpoint gave no token, and whether asking again can help.

use crate::{
    BoxError, SourceError,
    source::{AnswerError, chain},
};
use http::StatusCode;
use hyper_util::client::legacy;
use std::{error::Error, sync::Arc, time::Duration};

/// Why an endpoint gave no token.
///
/// `endpoint` is the URL without its query. Nothing here or in the `source` chain quotes the credential, a token, or what the endpoint
/// wrote; of OAuth's error codes, those that RFC 6749 section 5.2 names are told.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EndpointError {
    /// No connection.
    #[error("no connection to {endpoint}: check its name and port, and the network")]
    Connect {
        /// Where to.
        endpoint: Arc<str>,
        /// The client's error.
        #[source]
        error: BoxError,
    },
    /// The server does not prove who it is, or speaks no TLS. Nothing was sent.
    #[error("no TLS with {endpoint}, nothing was sent: for a private CA pass its certificate to `root_certificates`")]
    Tls {
        /// Where to.
        endpoint: Arc<str>,
        /// The client's error.
        #[source]
        error: BoxError,
    },
    /// The connection broke before the answer was whole, or what came is not HTTP.
    #[error("{endpoint} gave no whole answer: the connection broke, or it does not speak HTTP/1.1")]
    Broken {
        /// Who.
        endpoint: Arc<str>,
        /// The client's error.
        #[source]
        error: BoxError,
    },
    /// No whole answer in time.
    #[error("{endpoint} gave no whole answer within {after:.1?}: look at it, or raise `timeout`")]
    TimedOut {
        /// Who.
        endpoint: Arc<str>,
        /// The limit.
        after: Duration,
    },
    /// More than any token needs.
    #[error(
        "the answer of {endpoint} has over {limit} bytes, so it is no token: is this the URL of the token endpoint?"
    )]
    TooLarge {
        /// Whose.
        endpoint: Arc<str>,
        /// The limit in bytes.
        limit: usize,
    },
    /// A redirect, which is not followed: it could lead the credential anywhere.
    #[error(
        "{endpoint} redirects ({status}), and the credential is not sent there: if the new place is right, make it the URL of the exchange"
    )]
    Redirected {
        /// Who.
        endpoint: Arc<str>,
        /// Its status.
        status: StatusCode,
    },
    /// The credential, or the request as such, is refused for good.
    #[error("{endpoint} refuses the credential ({status}{}): replace or repair it", code.map(|code| format!(", {code}")).unwrap_or_default())]
    Refused {
        /// Who.
        endpoint: Arc<str>,
        /// Its status.
        status: StatusCode,
        /// OAuth's error code (RFC 6749 section 5.2), if it gave one.
        code: Option<&'static str>,
    },
    /// Any other status that is no success.
    #[error("{endpoint} answered {status}: {}", advice(*status))]
    Status {
        /// Who.
        endpoint: Arc<str>,
        /// Its status.
        status: StatusCode,
    },
    /// A success without a usable token.
    #[error("{endpoint} answered without a usable token")]
    Answer {
        /// Who.
        endpoint: Arc<str>,
        /// What is wrong with the answer.
        #[source]
        error: AnswerError,
    },
}

fn advice(status: StatusCode) -> &'static str {
    match status.as_u16() {
        404 | 405 | 410 => "is this the URL of the token endpoint?",
        403 | 408 | 425 | 429 | 503 => "it wants to be asked again later",
        400..500 => "it does not understand the request; look at how the credential is sent",
        500..600 => "it is in trouble; look there",
        _ => "that is no answer of a token endpoint",
    }
}

impl EndpointError {
    pub(super) fn of_client(endpoint: Arc<str>, error: legacy::Error) -> Self {
        if chain(&error).any(<dyn Error>::is::<rustls::Error>) {
            Self::Tls { endpoint, error: error.into() }
        } else if error.is_connect() {
            Self::Connect { endpoint, error: error.into() }
        } else {
            Self::Broken { endpoint, error: error.into() }
        }
    }

    /// Asking again cannot help: it is the credential, or the request as such.
    fn is_permanent(&self) -> bool {
        match self {
            Self::Refused { .. } => true,
            Self::Answer { error, .. } => {
                matches!(error, AnswerError::Refused { code: Some(_) } | AnswerError::NotBearer)
            }
            _ => false,
        }
    }
}

/// An error, and what the endpoint says of when to ask again.
pub(in crate::source) struct Failed {
    pub(in crate::source) error: EndpointError,
    pub(in crate::source) retry_after: Option<Duration>,
}

impl From<EndpointError> for Failed {
    fn from(error: EndpointError) -> Self {
        Self { error, retry_after: None }
    }
}

impl Failed {
    pub(in crate::source) fn into_source_error(self) -> SourceError {
        let permanent = self.error.is_permanent();
        let error = if permanent { SourceError::permanent(self.error) } else { SourceError::transient(self.error) };
        match self.retry_after {
            Some(wait) => error.retry_after(wait),
            None => error,
        }
    }
}
