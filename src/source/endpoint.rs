//! An HTTP endpoint that is shown a credential: where it may be, how long it may take, how much it may say.
//!
//! Errors name it without its query, and quote neither what was sent nor what came back.

mod body;
mod client;
mod error;
mod form;
mod proxy;
mod refusal;
mod roots;
mod settings;

pub use client::EndpointClient;
pub use error::EndpointError;
pub(super) use error::Failed;
pub(super) use form::form;
pub(super) use settings::Settings;

use body::Coding;
use bytes::Bytes;
use http::{HeaderMap, Request, Uri, header};
use http_body_util::Full;
use std::{
    fmt,
    sync::Arc,
    time::{Duration, SystemTime},
};
use tokio::time::{Instant, timeout_at};
use tower::ServiceExt;
use zeroize::Zeroizing;

pub(super) const AGENT: &str = concat!("tower-jwt-refresh/", env!("CARGO_PKG_VERSION"));

pub(super) struct Endpoint {
    url: Url,
    client: EndpointClient,
    timeout: Duration,
    #[cfg(feature = "oauth2")]
    plaintext: bool,
}

/// Where it is, and how errors name it: without the query, which may hold a secret.
#[derive(Clone)]
pub(super) struct Url {
    uri: Uri,
    name: Arc<str>,
}

/// A success.
pub(super) struct Reply {
    pub(super) headers: HeaderMap,
    pub(super) body: Zeroizing<Vec<u8>>,
    /// When it was written, by the server's clock.
    pub(super) date: Option<SystemTime>,
}

impl Endpoint {
    pub(super) fn name(&self) -> Arc<str> {
        Arc::clone(&self.url.name)
    }

    #[cfg(feature = "oauth2")]
    pub(super) fn timeout(&self) -> Duration {
        self.timeout
    }

    /// The same client for another URL, which is held to the same rules.
    #[cfg(feature = "oauth2")]
    pub(super) fn at(&self, url: &str) -> Result<Self, crate::ConfigError> {
        let url = Url::parse(url)?;
        url.is_safe(self.plaintext)?;
        Ok(Self { url, client: self.client.clone(), ..*self })
    }

    /// Sends this request there, whatever its own URI, and reads the whole answer. Anything but a success is an error.
    ///
    /// Dropping the future ends the connection.
    pub(super) async fn ask(&self, request: Request<Full<Bytes>>) -> Result<Reply, Failed> {
        self.ask_until(Instant::now() + self.timeout, request).await
    }

    /// The same for a request that is part of something longer, whose time began before it.
    pub(super) async fn ask_until(
        &self,
        deadline: Instant,
        mut request: Request<Full<Bytes>>,
    ) -> Result<Reply, Failed> {
        let asked = SystemTime::now();
        let timed_out = |_| EndpointError::TimedOut { endpoint: self.name(), after: self.timeout };
        *request.uri_mut() = self.url.uri.clone();
        request.headers_mut().entry(header::ACCEPT_ENCODING).or_insert(body::ACCEPTED);

        // A layer around the client may have to wait until it is ready.
        let response = timeout_at(deadline, self.client.clone().oneshot(request)).await.map_err(timed_out)?;
        let (head, body) = response.map_err(|error| EndpointError::of_client(self.name(), error))?.into_parts();
        if head.status.is_redirection() {
            return Err(EndpointError::Redirected { endpoint: self.name(), status: head.status }.into());
        }
        let reading = body::read(body, Coding::of(&head.headers), self.name());
        let body = timeout_at(deadline, reading).await.map_err(timed_out).and_then(|read| read);
        let date = date(&head.headers).map(|date| within(date, asked));
        if !head.status.is_success() {
            // The status says enough where the body of a refusal does not come.
            let body = body.unwrap_or_default();
            return Err(refusal::judge(self.name(), head.status, &head.headers, date, &body));
        }
        Ok(Reply { headers: head.headers, body: body?, date })
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

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint").field("url", &self.url.name).field("timeout", &self.timeout).finish_non_exhaustive()
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
