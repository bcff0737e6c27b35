//! A durable credential in, a short-lived token out, by one HTTP request.

mod builder;

pub use builder::ExchangeBuilder;

use super::{
    answer::{self, Ends},
    endpoint::{Endpoint, EndpointError, Failed},
};
use crate::{BoxError, Token, TokenRequest};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, Method, Request};
use http_body_util::Full;
use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};
use tower::Service;

/// A source that sends a durable credential to an endpoint, and reads a token out of its answer.
///
/// ```no_run
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use http::HeaderName;
/// use tower_jwt_refresh::{TokenProvider, source::Exchange};
///
/// let key = std::env::var("EXAMPLE_API_KEY")?;
/// let source = Exchange::post("https://api.example.com/api/v1/auth/token")
///     .header(HeaderName::from_static("x-api-key"), key)
///     .build()?;
/// let provider = TokenProvider::new(source);
/// # Ok(()) }
/// ```
///
/// # The request
/// HTTP/1.1 over TLS, with the system's root certificates or [your own](ExchangeBuilder::root_certificates). Plaintext goes to this machine only,
/// unless it is [allowed](ExchangeBuilder::allow_plaintext). The body is empty, or what [`json`](ExchangeBuilder::json) or
/// [`form`](ExchangeBuilder::form) set. Each exchange
/// has a connection of its own: tokens are fetched minutes apart, when an idle one would be dead, and no task outlives an exchange.
/// Redirects are not followed.
///
/// # Proxies
/// The environment names them, as for curl: `https_proxy`, `http_proxy`, `all_proxy` and `no_proxy`, or where one of these is not set or empty, the same in
/// capitals. It is read when the exchange is built; [`proxy`](ExchangeBuilder::proxy) and [`no_proxy`](ExchangeBuilder::no_proxy) go before it.
/// - https goes through a tunnel, in which the proxy reads nothing; http, where it is allowed, in absolute form.
/// - A proxy is spoken to in HTTP, in HTTP over TLS (its certificate is checked as the endpoint's), or in SOCKS 5, where it looks up the endpoint's name itself.
///   One that speaks anything else is an error at once, so that nothing goes by it unnoticed.
/// - Its user and password stand in its URL, with `@`, `/`, `?` and `#` in them written as `%40`, `%2F`, `%3F` and `%23`.
/// - An endpoint on this machine (`localhost`, 127.0.0.0/8, `::1`) is asked without it.
/// - In a CGI program, where `REQUEST_METHOD` is set, `HTTP_PROXY` in capitals is what a client said and is not believed (CVE-2016-5385). Elsewhere it is, unlike
///   in curl, which never believes it.
///
/// # The answer
/// A JSON object, packed by gzip or deflate perhaps. The token is the first of `jwt`, `access_token`, `token` and `id_token` that is there, or what
/// [`token_at`](ExchangeBuilder::token_at) points at, or what [a header](ExchangeBuilder::token_from_header) holds. Its end is the first of these that makes sense,
/// if no [other](ExchangeBuilder::lifetime_at) [place](ExchangeBuilder::expiry_at) was named:
/// - `expires_in` (RFC 6749 section 5.1): seconds from when the endpoint was asked, as a number or in a string;
/// - `expires_at`: seconds or milliseconds since 1970, or a date and time (RFC 3339);
/// - the `exp` of a token that is a JWT. It also caps the others where they can be compared.
///
/// With a `Date` in the answer, and no `Age`, the server's own clock says how long the token has left, so ours may be wrong. Of a
/// lifetime that cannot be (null, negative, not a number, over ten years) nothing is believed. With none at all the token is sent until a server
/// rejects it. No lifetime is ever taken over from an earlier answer.
///
/// # Failures
/// The error is a [`SourceError`](crate::SourceError) around an [`EndpointError`]. Neither it nor its chain holds the credential, a token, or
/// anything the endpoint wrote.
///
/// Who needs a token gets it as the cause of [`TokenError::Unavailable`](crate::TokenError::Unavailable), or of
/// [`TokenError::NeedsCredential`](crate::TokenError::NeedsCredential) where the table says "seldom": each minute while requests fail for it, else each 15.
///
/// | what the server did | error | asked again |
/// | --- | --- | --- |
/// | no connection: name, TCP | [`Connect`](EndpointError::Connect) | after the provider's backoff, 1 to 60 s |
/// | no connection through the proxy: it is not there, 407, 403, 502, no name for the endpoint | [`Proxy`](EndpointError::Proxy) | backoff |
/// | 407 of a proxy to a request in plaintext | [`Status`](EndpointError::Status) | backoff |
/// | TLS: unknown issuer, wrong name, expired certificate, or the server breaks the handshake off with an alert | [`Tls`](EndpointError::Tls) | backoff |
/// | cut its answer short, speaks no HTTP, or ended TLS after the handshake, as one that wants a client certificate can: there is none to show | [`Broken`](EndpointError::Broken) | backoff |
/// | no whole answer within the [timeout](ExchangeBuilder::timeout) | [`TimedOut`](EndpointError::TimedOut) | backoff |
/// | nothing: a [layer](ExchangeBuilder::layer) around the client failed | [`Layer`](EndpointError::Layer) | as the [`SourceError`](crate::SourceError) or [`TokenError`](crate::TokenError) in it says, else backoff |
/// | over 1 MiB, packed or unpacked | [`TooLarge`](EndpointError::TooLarge) | backoff |
/// | 3xx | [`Redirected`](EndpointError::Redirected) | backoff |
/// | 401, 403 | [`Refused`](EndpointError::Refused) | seldom: the credential needs repair |
/// | any 4xx, or 200, with an `error` of RFC 6749 section 5.2: `invalid_grant`, `invalid_client`, ... | [`Refused`](EndpointError::Refused), [`Answer`](EndpointError::Answer) | seldom |
/// | 403 with `Retry-After` (a rate limit), 408, 425, 429, 5xx | [`Status`](EndpointError::Status) | after `Retry-After`, seconds or date, and no sooner than the backoff |
/// | any other status: 400, 404, 405, ... | [`Status`](EndpointError::Status) | the same: a deployment or proxy may be at fault, which heals by itself |
/// | 2xx without a usable token: HTML, empty, an error object, another shape, packed in a way that was not asked for | [`Answer`](EndpointError::Answer) | backoff |
///
/// # Cancel safety
/// Dropping the future ends the exchange and its connection. The endpoint may have minted a token that nobody gets.
#[derive(Clone)]
pub struct Exchange(Arc<Inner>);

struct Inner {
    endpoint: Endpoint,
    method: Method,
    headers: HeaderMap,
    body: Bytes,
    token: Place,
    ends: Ends,
}

/// Where the token is in the answer.
enum Place {
    /// Where it usually is.
    Usual,
    /// A JSON pointer.
    At(String),
    Header(HeaderName),
}

impl Exchange {
    /// Begins an exchange by POST with this endpoint, an absolute URL. A wrong one is found by [`build`](ExchangeBuilder::build).
    pub fn post(url: impl AsRef<str>) -> ExchangeBuilder {
        Self::request(Method::POST, url)
    }

    /// Begins an exchange by GET: for an endpoint that hands out tokens to whoever shows the credential in a header. No body is sent.
    pub fn get(url: impl AsRef<str>) -> ExchangeBuilder {
        Self::request(Method::GET, url)
    }

    /// Begins an exchange by any other method: PUT, as some metadata services want it.
    ///
    /// ```
    /// # fn main() -> Result<(), tower_jwt_refresh::ConfigError> {
    /// use http::{HeaderName, Method};
    /// use tower_jwt_refresh::source::Exchange;
    ///
    /// let source = Exchange::request(Method::PUT, "http://localhost:8080/latest/api/token")
    ///     .header(HeaderName::from_static("x-token-ttl-seconds"), "21600")
    ///     .build()?;
    /// # Ok(()) }
    /// ```
    pub fn request(method: Method, url: impl AsRef<str>) -> ExchangeBuilder {
        ExchangeBuilder::new(method, url.as_ref())
    }
}

impl Service<TokenRequest> for Exchange {
    type Response = Token;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Token, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: TokenRequest) -> Self::Future {
        let inner = Arc::clone(&self.0);
        Box::pin(async move { inner.exchange().await.map_err(|failed| failed.into_source_error().into()) })
    }
}

impl Inner {
    async fn exchange(&self) -> Result<Token, Failed> {
        let mut request = Request::new(Full::new(self.body.clone()));
        *request.method_mut() = self.method.clone();
        *request.headers_mut() = self.headers.clone();
        let reply = self.endpoint.ask(request).await?;
        let (body, ends, date) = (&reply.body, &self.ends, reply.date);
        let token = match &self.token {
            Place::Usual => answer::token(body, None, ends, date),
            Place::At(pointer) => answer::token(body, Some(pointer), ends, date),
            Place::Header(name) => answer::token_in_header(&reply.headers, name, body, ends, date),
        };
        token.map_err(|error| EndpointError::Answer { endpoint: self.endpoint.name(), error }.into())
    }
}

impl fmt::Debug for Exchange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exchange").field("endpoint", &self.0.endpoint).finish_non_exhaustive()
    }
}
