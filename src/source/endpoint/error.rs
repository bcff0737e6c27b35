//! Why an endpoint gave no token, and whether asking again can help.

use super::proxy::Proxied;
use crate::{
    BoxError, SourceError, TokenError,
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
    /// No connection through the proxy: it is not there, wants another user and password, or does not let anybody through to there.
    #[error(
        "no connection to {endpoint} through {proxy}: check the proxy's address, user and password, and what it lets through; `no_proxy`, or the variable NO_PROXY, goes around it"
    )]
    Proxy {
        /// Where to.
        endpoint: Arc<str>,
        /// Through which, without user and password.
        proxy: Arc<str>,
        /// The client's error.
        #[source]
        error: BoxError,
    },
    /// The server does not prove who it is, speaks no TLS, or breaks the handshake off, as one may that wants a client certificate. Nothing was sent.
    #[error(
        "no TLS with {endpoint}, nothing was sent: for a private CA pass its certificate to `root_certificates`; client certificates are not supported"
    )]
    Tls {
        /// Where to.
        endpoint: Arc<str>,
        /// The client's error.
        #[source]
        error: BoxError,
    },
    /// The connection broke before the answer was whole, or what came is not HTTP. The request may have been sent.
    ///
    /// Also the end of a handshake that only the server knows to have failed: in TLS 1.3 it looks at the client's certificate when the
    /// request may already be on its way, and this client has none (`CertificateRequired` in the chain).
    #[error(
        "{endpoint} gave no whole answer: the connection broke, it does not speak HTTP/1.1, or it wants a client certificate, and those are not supported"
    )]
    Broken {
        /// Who.
        endpoint: Arc<str>,
        /// The client's error.
        #[source]
        error: BoxError,
    },
    /// A [layer](crate::source::ExchangeBuilder::layer) around the client failed: the provider of the source's own token, perhaps.
    #[error("a layer around the client of {endpoint} failed, or let nothing through: see its error")]
    Layer {
        /// Where the request was to go.
        endpoint: Arc<str>,
        /// The layer's error.
        #[source]
        error: BoxError,
    },
    /// No whole answer in time, what [layers](crate::source::ExchangeBuilder::layer) waited for included.
    #[error(
        "{endpoint} gave no whole answer within {after:.1?}: look at it, and at what layers around its client wait for, or raise `timeout`"
    )]
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
        407 => "that is a proxy, which wants a user and password: write them into its URL",
        404 | 405 | 410 => "is this the URL of the token endpoint?",
        403 | 408 | 425 | 429 | 503 => "it wants to be asked again later",
        400..500 => "it does not understand the request; look at how the credential is sent",
        500..600 => "it is in trouble; look there",
        _ => "that is no answer of a token endpoint",
    }
}

impl EndpointError {
    pub(super) fn of_client(endpoint: Arc<str>, error: BoxError) -> Self {
        // What is behind a token that a layer wanted is the failure of another endpoint's client.
        let own = chain(&*error).take_while(|error| !error.is::<TokenError>());
        let Some(client) = own.filter_map(|error| error.downcast_ref::<legacy::Error>()).next() else {
            return Self::Layer { endpoint, error };
        };
        let proxied = chain(client).find_map(|error| error.downcast_ref::<Proxied>());
        if let Some(proxy) = proxied.map(|proxied| Arc::clone(&proxied.proxy)) {
            Self::Proxy { endpoint, proxy, error }
        } else if !client.is_connect() {
            // TLS can fail after the handshake as well, and then something may have been sent.
            Self::Broken { endpoint, error }
        } else if chain(client).any(<dyn Error>::is::<rustls::Error>) {
            Self::Tls { endpoint, error }
        } else {
            Self::Connect { endpoint, error }
        }
    }

    /// Can asking again help, or is it the credential, or the request as such?
    fn outlook(&self) -> Outlook {
        match self {
            Self::Refused { .. } => Outlook::Permanent,
            Self::Answer { error: AnswerError::Refused { code: Some(_) } | AnswerError::NotBearer, .. } => {
                Outlook::Permanent
            }
            Self::Layer { error, .. } => Outlook::of_layer(&**error),
            _ => Outlook::Transient(None),
        }
    }
}

enum Outlook {
    Transient(Option<Duration>),
    Permanent,
}

impl Outlook {
    /// Whoever needs a token of its own fares as its provider does: where somebody must act for that one, asking here cannot help, and where
    /// that one asks again at a certain time, asking here before can only fail.
    fn of_layer(error: &(dyn Error + 'static)) -> Self {
        match chain(error).find_map(|error| error.downcast_ref::<TokenError>()) {
            Some(TokenError::NeedsCredential { .. } | TokenError::SignedOut | TokenError::ShutDown) => Self::Permanent,
            Some(TokenError::Unavailable { retry_in, .. }) => Self::Transient(Some(*retry_in)),
            Some(_) => Self::Transient(None),
            None => match SourceError::find(error) {
                Some(said) if said.is_permanent() => Self::Permanent,
                said => Self::Transient(said.and_then(SourceError::wait)),
            },
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
        let (error, wait) = match self.error.outlook() {
            Outlook::Permanent => (SourceError::permanent(self.error), None),
            Outlook::Transient(wait) => (SourceError::transient(self.error), wait),
        };
        match self.retry_after.or(wait) {
            Some(wait) => error.retry_after(wait),
            None => error,
        }
    }
}
