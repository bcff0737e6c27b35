//! A durable credential in, a short-lived token out, by one HTTP request.

mod answer;
mod builder;
mod client;
mod error;
mod lifetime;
mod refusal;

pub use answer::AnswerError;
pub use builder::ExchangeBuilder;
pub use error::ExchangeError;

use crate::{BoxError, Token, TokenRequest};
use bytes::Bytes;
use client::Client;
use error::Failed;
use http::{HeaderMap, Method, Request, Uri, header};
use http_body_util::Full;
use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, SystemTime},
};
use tokio::time::{Instant, timeout_at};
use tower::Service;

/// A source that POSTs a durable credential to an endpoint, and reads a token out of its JSON answer.
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
/// unless it is [allowed](ExchangeBuilder::allow_plaintext). The body is empty, or what [`json`](ExchangeBuilder::json) set. Each exchange
/// has a connection of its own: tokens are fetched minutes apart, when an idle one would be dead, and no task outlives an exchange.
/// Redirects are not followed, and proxies named by the environment are not used.
///
/// # The answer
/// A JSON object. The token is the first of `jwt`, `access_token`, `token` and `id_token` that is there, or what
/// [`token_at`](ExchangeBuilder::token_at) points at. Its end is the first of these that makes sense:
/// - `expires_in` (RFC 6749 section 5.1): seconds from when the endpoint was asked, as a number or in a string;
/// - `expires_at`: seconds or milliseconds since 1970, or a date and time (RFC 3339);
/// - the `exp` of a token that is a JWT. It also caps the others where they can be compared.
///
/// With a `Date` in the answer, and no `Age`, the server's own clock says how long the token has left, so ours may be wrong. Of a
/// lifetime that cannot be (null, negative, not a number, over ten years) nothing is believed. With none at all the token is sent until a server
/// rejects it. No lifetime is ever taken over from an earlier answer.
///
/// # Failures
/// The error is a [`SourceError`](crate::SourceError) around an [`ExchangeError`]. Neither it nor its chain holds the credential, a token, or
/// anything the endpoint wrote.
///
/// | what the server did | error | asked again |
/// | --- | --- | --- |
/// | no connection: name, TCP | [`Connect`](ExchangeError::Connect) | after the provider's backoff, 1 to 60 s |
/// | TLS: unknown issuer, wrong name, expired certificate | [`Tls`](ExchangeError::Tls) | backoff |
/// | cut its answer short, or speaks no HTTP | [`Broken`](ExchangeError::Broken) | backoff |
/// | no whole answer within the [timeout](ExchangeBuilder::timeout) | [`TimedOut`](ExchangeError::TimedOut) | backoff |
/// | over 1 MiB | [`TooLarge`](ExchangeError::TooLarge) | backoff |
/// | 3xx | [`Redirected`](ExchangeError::Redirected) | backoff |
/// | 401, 403 | [`Refused`](ExchangeError::Refused) | seldom: the credential needs repair |
/// | any 4xx, or 200, with an `error` of RFC 6749 section 5.2: `invalid_grant`, `invalid_client`, ... | [`Refused`](ExchangeError::Refused), [`Answer`](ExchangeError::Answer) | seldom |
/// | 403 with `Retry-After` (a rate limit), 408, 425, 429, 5xx | [`Status`](ExchangeError::Status) | after `Retry-After`, seconds or date, and no sooner than the backoff |
/// | any other status: 400, 404, 405, ... | [`Status`](ExchangeError::Status) | the same: a deployment or proxy may be at fault, which heals by itself |
/// | 2xx without a usable token: HTML, empty, an error object, another shape | [`Answer`](ExchangeError::Answer) | backoff |
///
/// # Cancel safety
/// Dropping the future ends the exchange and its connection. The endpoint may have minted a token that nobody gets.
#[derive(Clone)]
pub struct Exchange(Arc<Inner>);

struct Inner {
    client: Client,
    endpoint: Endpoint,
    headers: HeaderMap,
    body: Bytes,
    timeout: Duration,
    token_at: Option<String>,
}

/// Where it is, and how errors name it: without the query, which may hold a secret.
#[derive(Clone)]
struct Endpoint {
    uri: Uri,
    name: Arc<str>,
}

impl Exchange {
    /// Begins an exchange by POST with this endpoint, an absolute URL. A wrong one is found by [`build`](ExchangeBuilder::build).
    pub fn post(url: impl AsRef<str>) -> ExchangeBuilder {
        ExchangeBuilder::new(url.as_ref())
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
        let deadline = Instant::now() + self.timeout;
        let asked = SystemTime::now();
        let name = || Arc::clone(&self.endpoint.name);
        let timed_out = |_| ExchangeError::TimedOut { endpoint: name(), after: self.timeout };

        let response = timeout_at(deadline, self.client.request(self.request())).await.map_err(timed_out)?;
        let (head, body) = response.map_err(|error| ExchangeError::of_client(name(), error))?.into_parts();
        if head.status.is_redirection() {
            return Err(ExchangeError::Redirected { endpoint: name(), status: head.status }.into());
        }
        let body = timeout_at(deadline, client::read(body, name())).await.map_err(timed_out).and_then(|read| read);
        let date = date(&head.headers).map(|date| within(date, asked));
        if !head.status.is_success() {
            // The status says enough where the body of a refusal does not come.
            let body = body.unwrap_or_default();
            return Err(refusal::judge(name(), head.status, &head.headers, date, &body));
        }
        answer::token(&body?, self.token_at.as_deref(), date)
            .map_err(|error| ExchangeError::Answer { endpoint: name(), error }.into())
    }

    fn request(&self) -> Request<Full<Bytes>> {
        let mut request = Request::new(Full::new(self.body.clone()));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.endpoint.uri.clone();
        *request.headers_mut() = self.headers.clone();
        request
    }
}

/// When the server wrote the answer, by its own clock; unknown for what a cache kept (RFC 9111 section 5.1).
fn date(headers: &HeaderMap) -> Option<SystemTime> {
    if headers.contains_key(header::AGE) {
        return None;
    }
    httpdate::parse_http_date(headers.get(header::DATE)?.to_str().ok()?).ok()
}

/// A `Date` names a second, and of a token that lives for two that is half. Where our clock stood within that very second when we asked, it
/// agrees with the server's, and says which part of the second it was.
fn within(date: SystemTime, asked: SystemTime) -> SystemTime {
    let agrees = asked.duration_since(date).is_ok_and(|part| part < Duration::from_secs(1));
    if agrees { asked } else { date }
}

impl fmt::Debug for Exchange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exchange")
            .field("endpoint", &self.0.endpoint.name)
            .field("timeout", &self.0.timeout)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Scenario 44.
    #[test]
    fn a_clock_that_agrees_with_the_date_says_which_part_of_its_second_it_was() {
        let date = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        let (part, second) = (Duration::from_millis(750), Duration::from_secs(1));
        assert_eq!(within(date, date + part), date + part);
        assert_eq!(within(date, date - part), date, "the second turned while we asked");
        assert_eq!(within(date, date + second), date, "our clock is ahead");
        assert_eq!(within(date, date - second * 3600), date, "our clock is behind");
    }
}
