//! Settings of an exchange, checked when it is built.

mod credential;
mod places;

use super::{Exchange, Inner, Place};
use crate::{
    BoxError, ConfigError,
    source::{
        answer::Ends,
        endpoint::{AGENT, EndpointClient, Settings},
    },
};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, header};
use http_body::Body;
use http_body_util::Full;
use std::{fmt, sync::Arc, time::Duration};
use tower::{Layer, Service};

/// Settings of an [`Exchange`]. Credentials are kept in memory that is wiped when the last exchange is gone, and never printed.
///
/// What was set wrong is told by [`build`](Self::build), the first mistake first.
#[must_use = "a builder does nothing until it builds"]
pub struct ExchangeBuilder {
    method: Method,
    endpoint: Settings,
    headers: HeaderMap,
    body: Option<Bytes>,
    token: Place,
    ends: Ends,
}

impl ExchangeBuilder {
    pub(super) fn new(method: Method, url: &str) -> Self {
        let headers = HeaderMap::from_iter([
            (header::ACCEPT, HeaderValue::from_static("application/json")),
            (header::USER_AGENT, HeaderValue::from_static(AGENT)),
        ]);
        let mut endpoint = Settings::new(url);
        if matches!(method, Method::CONNECT | Method::OPTIONS | Method::TRACE) {
            endpoint.wrong(ConfigError::NoMethodForTokens { method: method.clone() });
        }
        Self { method, endpoint, headers, body: None, token: Place::Usual, ends: Ends::default() }
    }

    /// Puts a tower layer around the exchange's own HTTP client: for an endpoint that wants a token itself, a signature, a log. Called again, the layer goes *inside* of those
    /// before it, as in a [`ServiceBuilder`](tower::ServiceBuilder).
    ///
    /// An endpoint that wants a short-lived token of another kind gets it from a provider of its own. A GitHub App does it so: a JWT that it
    /// signed is shown for the token of an installation.
    ///
    /// ```no_run
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # fn signed_jwt() -> String { "e30.e30.c2ln".into() }
    /// use tower_jwt_refresh::{BoxError, JwtRefreshLayer, Token, TokenProvider, TokenRequest, source::Exchange};
    ///
    /// let app = TokenProvider::new(tower::service_fn(|_: TokenRequest| async { Ok::<_, BoxError>(Token::from_jwt(signed_jwt())?) }));
    /// let installation = Exchange::post("https://api.github.com/app/installations/42/access_tokens")
    ///     .layer(JwtRefreshLayer::new(app))
    ///     .build()?;
    /// let provider = TokenProvider::new(installation);
    /// # Ok(()) }
    /// ```
    ///
    /// A credential that must be a new one for every exchange, such as an assertion with a `jti` (RFC 7523 section 3), is put on by a layer that makes it, here
    /// [`MapRequestLayer`](tower::util::MapRequestLayer):
    ///
    /// ```
    /// # fn main() -> Result<(), tower_jwt_refresh::ConfigError> {
    /// # fn assertion() -> http::HeaderValue { http::HeaderValue::from_static("e30.e30.c2ln") }
    /// use bytes::Bytes;
    /// use http_body_util::Full;
    /// use tower::util::MapRequestLayer;
    /// use tower_jwt_refresh::source::Exchange;
    ///
    /// let source = Exchange::post("http://localhost/token")
    ///     .layer(MapRequestLayer::new(|mut request: http::Request<Full<Bytes>>| {
    ///         let mut assertion = assertion();
    ///         assertion.set_sensitive(true);
    ///         request.headers_mut().insert("x-assertion", assertion);
    ///         request
    ///     }))
    ///     .build()?;
    /// # Ok(()) }
    /// ```
    ///
    /// - [`timeout`](Self::timeout) covers what a layer waits for; what it fails with is [`EndpointError::Layer`](crate::source::EndpointError::Layer).
    ///   Where that is a [`TokenError`](crate::TokenError) that needs somebody to act, so does this source's.
    /// - A header that was set here is there already: a [`JwtRefreshLayer`](crate::JwtRefreshLayer) leaves a request alone that has its header.
    /// - The provider that this source feeds is no help for it: [`TokenError::Recursive`](crate::TokenError::Recursive).
    /// - A layer sees the credential and the answer, tokens and all. Answers are unpacked after it.
    pub fn layer<L, B>(mut self, layer: L) -> Self
    where
        L: Layer<EndpointClient> + Send + 'static,
        L::Service: Service<Request<Full<Bytes>>, Response = Response<B>, Error: Into<BoxError>, Future: Send + 'static>
            + Clone
            + Send
            + Sync
            + 'static,
        B: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
    {
        self.endpoint.layer(layer);
        self
    }

    /// An exchange that has not ended by then has failed, connecting included. Default 20 s: below the provider's
    /// [`fetch_timeout`](crate::TokenProviderBuilder::fetch_timeout) of 30 s, so that the error names the endpoint.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.endpoint.timeout(timeout);
        self
    }

    /// A connection that is not there by then, with the name's lookup and the TLS handshake, has failed. Default 5 s, which is two lost packets and
    /// their repetition.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.endpoint.connect_timeout(timeout);
        self
    }

    /// Sends the credential to another machine without TLS. Everybody on the way can read it, and the token: only for networks where
    /// something else encrypts.
    pub fn allow_plaintext(mut self) -> Self {
        self.endpoint.allow_plaintext();
        self
    }

    /// Trusts the authorities in this PEM *instead of* the system's: for a private CA, or a container that has none. Called again it adds to
    /// them.
    pub fn root_certificates(mut self, pem: impl AsRef<[u8]>) -> Self {
        self.endpoint.root_certificates(pem.as_ref());
        self
    }

    /// Asks the endpoint itself, whatever proxy the environment names.
    pub fn no_proxy(mut self) -> Self {
        self.endpoint.no_proxy();
        self
    }

    /// Asks through this proxy, `http://`, `https://` or `socks5://`, and not through one that the environment names. A user and password in the URL are shown to
    /// it and never printed. An endpoint on this machine is asked without it.
    pub fn proxy(mut self, url: impl Into<String>) -> Self {
        self.endpoint.proxy(url.into());
        self
    }

    /// Builds it. Needs no runtime and asks nobody; reads the system's root certificates if it needs them, and the environment's proxies.
    ///
    /// # Errors
    /// [`ConfigError`] for a URL that is none, plaintext to another machine, a credential that no header can hold, and other settings that
    /// cannot work.
    pub fn build(mut self) -> Result<Exchange, ConfigError> {
        if matches!(self.method, Method::GET | Method::HEAD) {
            // RFC 9110 section 9.3.1: content has no meaning there.
            if self.body.is_some() {
                self.endpoint.wrong(ConfigError::BodyNotAllowed { method: self.method.clone() });
            }
        } else {
            // hyper leaves it out for an empty body, and some servers answer 411 to a POST without it.
            let length = self.body.as_ref().map_or(0, Bytes::len);
            self.headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
        }
        Ok(Exchange(Arc::new(Inner {
            endpoint: self.endpoint.build()?,
            method: self.method,
            headers: self.headers,
            body: self.body.unwrap_or_default(),
            token: self.token,
            ends: self.ends,
        })))
    }

    fn wrong(mut self, mistake: ConfigError) -> Self {
        self.endpoint.wrong(mistake);
        self
    }
}

impl fmt::Debug for ExchangeBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ExchangeBuilder").field("endpoint", &self.endpoint).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderName;

    const URL: &str = "https://api.example.com/token";

    fn mistake(builder: ExchangeBuilder) -> ConfigError {
        let debug = format!("{builder:?}");
        let mistake = builder.build().unwrap_err();
        assert!(!format!("{debug} {mistake} {mistake:?}").contains("s3cr3t"), "{mistake:?}");
        mistake
    }

    #[test]
    fn an_endpoint_that_nothing_can_be_sent_to_is_refused_and_not_quoted() {
        for bad in ["", "s3cr3t", "/s3cr3t", "https://", "ftp://s3cr3t", "https://a b/s3cr3t", "http://a/s3cr3t\n"] {
            assert!(matches!(mistake(Exchange::post(bad)), ConfigError::IllegalEndpoint { .. }), "{bad}");
        }
        let with_user = mistake(Exchange::post("https://user:s3cr3t@api.example.com"));
        assert!(with_user.to_string().contains("`basic`"), "{with_user}");
    }

    #[test]
    fn plaintext_goes_to_this_machine_alone_unless_it_is_allowed() {
        for local in ["http://localhost:1", "http://127.0.0.1/x", "http://[::1]:80"] {
            assert!(Exchange::post(local).build().is_ok(), "{local}");
        }
        let far = || Exchange::post("http://localhost.example.com/token");
        let refused = mistake(far());
        assert_eq!(refused, ConfigError::PlaintextEndpoint { host: "localhost.example.com".into() });
        assert!(refused.to_string().contains("allow_plaintext"));
        assert!(far().allow_plaintext().build().is_ok());
    }

    #[test]
    fn a_credential_that_cannot_be_sent_is_refused_and_not_quoted() {
        let illegal = |builder| assert!(matches!(mistake(builder), ConfigError::IllegalCredential { .. }));
        for bad in ["", "s3cr3t\n", "s3cr3t\r\nx-admin: 1", " s3cr3t", "s3cr3t\0", "s3cr3t\u{fc}", "s3cr3t\t"] {
            illegal(Exchange::post(URL).header(header::AUTHORIZATION, bad));
            illegal(Exchange::post(URL).bearer(bad));
        }
        illegal(Exchange::post(URL).basic("", ""));
        illegal(Exchange::post(URL).basic("user:x", "s3cr3t"));
        illegal(Exchange::post(URL).basic("user", "s3cr3t\n"));
        illegal(Exchange::post(URL).json(r#"{"key":"s3cr3t" "#));
    }

    #[test]
    fn a_method_that_cannot_work_is_refused() {
        for method in [Method::CONNECT, Method::OPTIONS, Method::TRACE] {
            let refused = mistake(Exchange::request(method.clone(), URL));
            assert_eq!(refused, ConfigError::NoMethodForTokens { method });
        }
        for method in [Method::GET, Method::HEAD] {
            let refused = ConfigError::BodyNotAllowed { method: method.clone() };
            assert_eq!(mistake(Exchange::request(method.clone(), URL).json("{}")), refused);
            assert_eq!(mistake(Exchange::request(method, URL).form([("key", "s3cr3t")])), refused);
        }
    }

    #[test]
    fn settings_that_cannot_work_are_refused_the_first_first() {
        let zero = mistake(Exchange::post(URL).timeout(Duration::ZERO).token_at("x"));
        assert!(zero.to_string().starts_with("timeout must be above zero"), "{zero}");
        let long = mistake(Exchange::post(URL).connect_timeout(Duration::MAX));
        assert!(matches!(long, ConfigError::TooLong { setting: "connect_timeout", .. }));
        assert_eq!(mistake(Exchange::post(URL).token_at("data/token")), ConfigError::NotAPointer("data/token".into()));
        let proxy = mistake(Exchange::post(URL).proxy("quic://s3cr3t"));
        assert!(matches!(&proxy, ConfigError::IllegalProxy { place, .. } if place == "`proxy`"), "{proxy}");
        for pem in ["", "x", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
            let refused = mistake(Exchange::post(URL).root_certificates(pem));
            assert!(matches!(refused, ConfigError::RootCertificates { .. }), "{pem}");
        }
    }

    #[test]
    fn nothing_printed_holds_the_credential_or_the_query() {
        let builder = Exchange::post("http://localhost/token?key=s3cr3t")
            .header(HeaderName::from_static("x-api-key"), "s3cr3t")
            .basic("s3cr3t", "s3cr3t")
            .json(r#"{"key":"s3cr3t"}"#)
            .proxy("http://s3cr3t:s3cr3t@proxy");
        assert!(builder.headers.iter().filter(|(_, value)| value.is_sensitive()).count() == 2);
        let first = format!("{builder:?}");
        let text = format!("{first} {:?}", builder.build().unwrap());
        assert!(text.contains("http://localhost/token") && !text.contains("s3cr3t"), "{text}");
    }
}
