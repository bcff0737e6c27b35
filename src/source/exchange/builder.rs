//! Settings of an exchange, checked when it is built.

use super::{Exchange, Inner};
use crate::{
    ConfigError,
    source::{
        answer,
        endpoint::{AGENT, Settings},
    },
};
use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, header};
use std::{fmt, sync::Arc, time::Duration};
use zeroize::Zeroizing;

/// Settings of an [`Exchange`]. Credentials are kept in memory that is wiped when the last exchange is gone, and never printed.
///
/// What was set wrong is told by [`build`](Self::build), the first mistake first.
#[must_use = "a builder does nothing until it builds"]
pub struct ExchangeBuilder {
    endpoint: Settings,
    headers: HeaderMap,
    body: Bytes,
    token_at: Option<String>,
}

impl ExchangeBuilder {
    pub(super) fn new(url: &str) -> Self {
        let headers = HeaderMap::from_iter([
            (header::ACCEPT, HeaderValue::from_static("application/json")),
            (header::USER_AGENT, HeaderValue::from_static(AGENT)),
        ]);
        Self { endpoint: Settings::new(url), headers, body: Bytes::new(), token_at: None }
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
    pub fn json(mut self, body: impl Into<String>) -> Self {
        let body = Zeroizing::new(body.into().into_bytes());
        if serde_json::from_slice::<serde::de::IgnoredAny>(&body).is_err() {
            let problem = "is no valid JSON: does a value in it need escaping?";
            return self.wrong(ConfigError::IllegalCredential { place: "the body".into(), problem });
        }
        self.body = Bytes::from_owner(body);
        self.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
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
    pub fn token_at(mut self, pointer: impl Into<String>) -> Self {
        let pointer = pointer.into();
        if !answer::is_pointer(&pointer) {
            return self.wrong(ConfigError::NotAPointer(pointer));
        }
        self.token_at = Some(pointer);
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

    /// Builds it. Needs no runtime and asks nobody; reads the system's root certificates if it needs them.
    ///
    /// # Errors
    /// [`ConfigError`] for a URL that is none, plaintext to another machine, a credential that no header can hold, and other settings that
    /// cannot work.
    pub fn build(mut self) -> Result<Exchange, ConfigError> {
        // hyper leaves it out for an empty body, and some servers answer 411 to a POST without it.
        self.headers.insert(header::CONTENT_LENGTH, HeaderValue::from(self.body.len()));
        Ok(Exchange(Arc::new(Inner {
            endpoint: self.endpoint.build()?,
            headers: self.headers,
            body: self.body,
            token_at: self.token_at,
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
