//! Settings of an exchange, checked when it is built.

use super::{Exchange, Inner, Place};
use crate::{
    BoxError, ConfigError,
    source::{
        answer::{self, Ends},
        endpoint::{AGENT, EndpointClient, Settings, form},
    },
};
use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, header};
use http_body::Body;
use http_body_util::Full;
use std::{fmt, sync::Arc, time::Duration};
use tower::{Layer, Service};
use zeroize::Zeroizing;

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

    /// Sends the credential in this header, as it is: `x-api-key`, for example. Each header is sent once, with what was set last.
    pub fn header(self, name: HeaderName, value: impl Into<String>) -> Self {
        let value = Zeroizing::new(value.into());
        self.secret_header(name, &["", &value])
    }

    /// Sends the credential as `Authorization: Bearer <secret>` (RFC 6750 section 2.1).
    pub fn bearer(self, secret: impl Into<String>) -> Self {
        let secret = Zeroizing::new(secret.into());
        self.secret_header(header::AUTHORIZATION, &["Bearer ", &secret])
    }

    /// Sends the credential as `Authorization: Basic …` (RFC 7617), in UTF-8. Either part may be empty, as with an API key in place of a user.
    pub fn basic(self, user: impl Into<String>, password: impl Into<String>) -> Self {
        let (user, password) = (Zeroizing::new(user.into()), Zeroizing::new(password.into()));
        let problem = if user.is_empty() && password.is_empty() {
            Some("is empty: is its variable or file missing?")
        } else if user.contains(':') {
            Some("has a user name with a colon, which ends it (RFC 7617 section 2): is part of it the password?")
        } else if user.chars().chain(password.chars()).any(char::is_control) {
            Some("has a control character, a line break perhaps (RFC 7617 section 2): trim what was read from a file")
        } else {
            None
        };
        if let Some(problem) = problem {
            return self.wrong(ConfigError::IllegalCredential { place: "basic authentication".into(), problem });
        }
        let mut pair = Zeroizing::new(String::with_capacity(user.len() + 1 + password.len()));
        for part in [&*user, ":", &*password] {
            pair.push_str(part);
        }
        let pair = Zeroizing::new(BASE64_STANDARD.encode(&*pair));
        self.secret_header(header::AUTHORIZATION, &["Basic ", &pair])
    }

    /// Sends this JSON as the body, with `content-type: application/json`, and keeps it secret. Without it the body is empty.
    pub fn json(self, body: impl Into<String>) -> Self {
        let body = Zeroizing::new(body.into().into_bytes());
        if serde_json::from_slice::<serde::de::IgnoredAny>(&body).is_err() {
            let problem = "is no valid JSON: does a value in it need escaping?";
            return self.wrong(ConfigError::IllegalCredential { place: "the body".into(), problem });
        }
        self.content("application/json", body)
    }

    /// Sends these pairs as the body of a form, with `content-type: application/x-www-form-urlencoded`, and keeps them secret.
    ///
    /// ```
    /// # fn main() -> Result<(), tower_jwt_refresh::ConfigError> {
    /// # let key = "secret";
    /// use tower_jwt_refresh::source::Exchange;
    ///
    /// let source = Exchange::post("http://localhost/identity/token")
    ///     .form([("grant_type", "urn:ibm:params:oauth:grant-type:apikey"), ("apikey", key)])
    ///     .build()?;
    /// # Ok(()) }
    /// ```
    pub fn form<K: AsRef<str>, V: AsRef<str>>(self, pairs: impl IntoIterator<Item = (K, V)>) -> Self {
        let pairs: Vec<_> = pairs.into_iter().collect();
        self.content("application/x-www-form-urlencoded", form(&pairs))
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

    /// Where the token is in the answer, as a JSON pointer (RFC 6901): `/data/token`; `""` for an answer that is nothing but a JSON string. The
    /// lifetime is then looked for beside the token first, then at the top.
    pub fn token_at(self, pointer: impl Into<String>) -> Self {
        self.pointer(pointer.into(), |this, pointer| this.token = Place::At(pointer))
    }

    /// The token is in this header of the answer, as it is or after `Bearer`, and not in its body, which may then be empty or no JSON. Of this and
    /// [`token_at`](Self::token_at) the last one counts.
    ///
    /// OpenStack's Keystone does it so:
    ///
    /// ```no_run
    /// # fn main() -> Result<(), tower_jwt_refresh::ConfigError> {
    /// # let login = "{}";
    /// use http::HeaderName;
    /// use tower_jwt_refresh::source::Exchange;
    ///
    /// let source = Exchange::post("https://keystone.example.com/v3/auth/tokens")
    ///     .json(login)
    ///     .token_from_header(HeaderName::from_static("x-subject-token"))
    ///     .expiry_at("/token/expires_at")
    ///     .build()?;
    /// # Ok(()) }
    /// ```
    pub fn token_from_header(self, name: HeaderName) -> Self {
        Self { token: Place::Header(name), ..self }
    }

    /// Where the token's lifetime is in the answer, as a JSON pointer to seconds: in place of `expires_in` and `expires_at`, which are then not
    /// looked for.
    pub fn lifetime_at(self, pointer: impl Into<String>) -> Self {
        self.pointer(pointer.into(), |this, pointer| this.ends.lifetime = Some(pointer))
    }

    /// Where the moment of the token's end is in the answer, as a JSON pointer to seconds or milliseconds since 1970, or RFC 3339: in place of `expires_in`
    /// and `expires_at`, which are then not looked for. With [`lifetime_at`](Self::lifetime_at) as well that one goes first.
    pub fn expiry_at(self, pointer: impl Into<String>) -> Self {
        self.pointer(pointer.into(), |this, pointer| this.ends.expiry = Some(pointer))
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

    /// The last part is the secret.
    fn secret_header(mut self, name: HeaderName, parts: &[&str; 2]) -> Self {
        let secret = parts[1];
        let problem = if secret.is_empty() {
            Some("is empty: is its variable or file missing?")
        } else if secret.trim() != secret || !secret.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic()) {
            Some("has a character that no header can hold (only visible ASCII can): trim what was read from a file")
        } else {
            None
        };
        if let Some(problem) = problem {
            let place = format!("the header `{name}`");
            return self.wrong(ConfigError::IllegalCredential { place, problem });
        }
        // Of its final size from the start, so that no growth leaves a copy behind.
        let mut bytes = Zeroizing::new(Vec::with_capacity(parts.iter().map(|part| part.len()).sum()));
        for part in parts {
            bytes.extend_from_slice(part.as_bytes());
        }
        let mut value =
            HeaderValue::from_maybe_shared(Bytes::from_owner(bytes)).expect("visible ASCII is a legal header value");
        value.set_sensitive(true);
        self.headers.insert(name, value);
        self
    }

    fn pointer(mut self, pointer: String, set: impl FnOnce(&mut Self, String)) -> Self {
        if !answer::is_pointer(&pointer) {
            return self.wrong(ConfigError::NotAPointer(pointer));
        }
        set(&mut self, pointer);
        self
    }

    fn content(mut self, kind: &'static str, body: Zeroizing<Vec<u8>>) -> Self {
        self.body = Some(Bytes::from_owner(body));
        self.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
        self
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
            .json(r#"{"key":"s3cr3t"}"#);
        assert!(builder.headers.iter().filter(|(_, value)| value.is_sensitive()).count() == 2);
        let first = format!("{builder:?}");
        let text = format!("{first} {:?}", builder.build().unwrap());
        assert!(text.contains("http://localhost/token") && !text.contains("s3cr3t"), "{text}");
    }
}
