//! What is sent: the credential, in a header or the body.

use super::ExchangeBuilder;
use crate::{ConfigError, source::endpoint::form};
use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use http::{HeaderName, HeaderValue, header};
use zeroize::Zeroizing;

impl ExchangeBuilder {
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

    fn content(mut self, kind: &'static str, body: Zeroizing<Vec<u8>>) -> Self {
        self.body = Some(Bytes::from_owner(body));
        self.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
        self
    }
}
