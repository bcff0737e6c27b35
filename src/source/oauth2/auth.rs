//! How the client says who it is.

use super::error::OAuth2Error;
use crate::{
    BoxError, ConfigError, SourceError, Token,
    source::{SignedJwt, SigningKey, endpoint::form},
};
use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use http::HeaderValue;
use std::{
    fmt,
    time::{Duration, SystemTime},
};
use zeroize::Zeroizing;

/// It is sent the moment it is signed, so this is for clocks that differ.
const LIFETIME: Duration = Duration::from_secs(60);

/// How the client says who it is to the token endpoint (RFC 6749 section 2.3). Secrets are kept in memory that is wiped, and never printed.
///
/// What is wrong with one is told by [`build`](super::OAuth2Builder::build). Client certificates
/// are not supported: a client that is known by one (RFC 8705) cannot be one here.
///
/// ```no_run
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use tower_jwt_refresh::source::{SigningKey, oauth2::ClientAuth};
///
/// let by_secret = ClientAuth::basic("my-service", std::env::var("EXAMPLE_CLIENT_SECRET")?);
/// let key = SigningKey::from_pem(std::fs::read("private-key.pem")?)?.key_id("2026-11");
/// let by_key = ClientAuth::private_key_jwt("my-service", key);
/// # Ok(()) }
/// ```
pub struct ClientAuth(Result<Kind, ConfigError>);

enum Kind {
    Basic(HeaderValue),
    Post { id: String, secret: Zeroizing<String> },
    PrivateKey { id: String, key: SigningKey, audience: Option<String> },
    Public { id: String },
    None,
}

impl ClientAuth {
    /// In the `Authorization` header: what every server must take (RFC 6749 section 2.3.1). Both parts are form-encoded first, as that section
    /// asks for: a secret with a `+` or `%` in it is not what `basic` elsewhere makes of it.
    pub fn basic(id: impl Into<String>, secret: impl Into<String>) -> Self {
        let (id, secret) = (id.into(), Zeroizing::new(secret.into()));
        Self(checked(&id, Some(&secret)).map(|()| Kind::Basic(basic(&id, &secret))))
    }

    /// In the request's body: for servers that do not take it in the header (RFC 6749 section 2.3.1).
    pub fn post(id: impl Into<String>, secret: impl Into<String>) -> Self {
        let (id, secret) = (id.into(), Zeroizing::new(secret.into()));
        Self(checked(&id, Some(&secret)).map(|()| Kind::Post { id, secret }))
    }

    /// By a JWT that is signed anew for each fetch (RFC 7523 section 2.2). The key never leaves this process; servers that remember the `jti`
    /// refuse the same assertion twice.
    ///
    /// It lives for 60 s, says `iss` and `sub` of the client's id, and is for the issuer where that is known by
    /// [discovery](super::TokenEndpoint::discover), else for the token endpoint's URL. The issuer is what servers are moving to: several endpoints
    /// can share one that a hostile server names as its own, the issuer is checked. A server that takes the other only is told so by
    /// [`audience`](Self::audience).
    ///
    /// Its times are this machine's clock's: see [`SignedJwt`].
    pub fn private_key_jwt(id: impl Into<String>, key: SigningKey) -> Self {
        let id = id.into();
        Self(checked(&id, None).map(|()| Kind::PrivateKey { id, key, audience: None }))
    }

    /// Whom the JWT of [`private_key_jwt`](Self::private_key_jwt) is for. With another way to authenticate it is refused when the source is built: a
    /// token's audience is set by [`OAuth2Builder::audience`](super::OAuth2Builder::audience).
    #[must_use]
    pub fn audience(mut self, to: impl Into<String>) -> Self {
        match &mut self.0 {
            Ok(Kind::PrivateKey { audience, .. }) => *audience = Some(to.into()),
            Ok(_) => {
                self.0 =
                    Err(ConfigError::NotOfThisClientAuth { setting: "ClientAuth::audience", only: "private_key_jwt" });
            }
            Err(_) => {}
        }
        self
    }

    /// By its id alone: a client that can keep no secret (RFC 6749 section 2.1).
    pub fn public(id: impl Into<String>) -> Self {
        let id = id.into();
        Self(checked(&id, None).map(|()| Kind::Public { id }))
    }

    /// Not at all: where what is shown says enough, as an assertion does (RFC 7521 section 4.1).
    #[must_use]
    pub fn none() -> Self {
        Self(Ok(Kind::None))
    }

    pub(super) fn mistake(&self) -> Option<ConfigError> {
        self.0.as_ref().err().cloned()
    }

    pub(super) fn built(self) -> Result<Client, ConfigError> {
        self.0.map(Client)
    }
}

impl fmt::Debug for ClientAuth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let method = self.0.as_ref().map_or(Some("?"), Kind::method);
        f.debug_tuple("ClientAuth").field(&method.unwrap_or("-")).finish()
    }
}

fn checked(id: &str, secret: Option<&str>) -> Result<(), ConfigError> {
    [Some(id), secret].into_iter().flatten().try_for_each(|part| text("client authentication", part))
}

/// RFC 6749 appendix A knows visible characters and spaces only; we are no stricter than what else could be meant.
pub(super) fn text(place: &str, text: &str) -> Result<(), ConfigError> {
    let problem = if text.is_empty() {
        "is empty: is its variable or file missing?"
    } else if text.trim() != text || text.chars().any(char::is_control) {
        "has a line break, another control character, or a space around it: trim what was read from a file"
    } else {
        return Ok(());
    };
    Err(ConfigError::IllegalCredential { place: place.to_owned(), problem })
}

fn basic(id: &str, secret: &str) -> HeaderValue {
    // A form's single name and value, with the colon for `=`.
    let mut pair = form(&[(id, secret)]);
    let middle = pair.iter().position(|byte| *byte == b'=').expect("a pair has a middle: `=` in a part is encoded");
    pair[middle] = b':';
    let pair = Zeroizing::new(BASE64_STANDARD.encode(&*pair));
    let mut value = Zeroizing::new(Vec::with_capacity("Basic ".len() + pair.len()));
    value.extend_from_slice(b"Basic ");
    value.extend_from_slice(pair.as_bytes());
    let mut value = HeaderValue::from_maybe_shared(Bytes::from_owner(value)).expect("base64 is a legal header value");
    value.set_sensitive(true);
    value
}

/// A client whose identity was found good.
pub(super) struct Client(Kind);

impl Client {
    /// As RFC 7591 section 2 and metadata name it.
    pub(super) fn method(&self) -> Option<&'static str> {
        self.0.method()
    }

    pub(super) fn header(&self) -> Option<&HeaderValue> {
        match &self.0 {
            Kind::Basic(value) => Some(value),
            _ => None,
        }
    }

    /// A new assertion, if that is the way.
    pub(super) fn assertion(&self, server: &str) -> Result<Option<Token>, BoxError> {
        let Kind::PrivateKey { id, key, audience } = &self.0 else { return Ok(None) };
        let jwt = SignedJwt::new(key.clone()).issuer(id).subject(id).audience(audience.as_deref().unwrap_or(server));
        let jwt = jwt.lifetime(LIFETIME).expect("a minute is a lifetime");
        let assertion = jwt.sign(SystemTime::now()).map_err(|error| {
            let what = "client assertion";
            OAuth2Error::around(error.into_source_error(), |error| OAuth2Error::Presented { what, error })
        });
        Ok(assertion.map(Some).map_err(Box::<SourceError>::new)?)
    }

    pub(super) fn pairs<'a>(&'a self, assertion: Option<&'a Token>) -> Vec<(&'a str, &'a str)> {
        match (&self.0, assertion) {
            (Kind::Basic(_) | Kind::None, _) => vec![],
            (Kind::Post { id, secret }, _) => vec![("client_id", id), ("client_secret", secret)],
            (Kind::PrivateKey { id, .. }, Some(assertion)) => vec![
                ("client_id", id),
                ("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"),
                ("client_assertion", assertion.expose_secret()),
            ],
            (Kind::Public { id } | Kind::PrivateKey { id, .. }, _) => vec![("client_id", id)],
        }
    }
}

impl Kind {
    fn method(&self) -> Option<&'static str> {
        match self {
            Self::Basic(_) => Some("client_secret_basic"),
            Self::Post { .. } => Some("client_secret_post"),
            Self::PrivateKey { .. } => Some("private_key_jwt"),
            Self::Public { .. } => Some("none"),
            Self::None => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(id: &str, secret: &str) -> String {
        let client = ClientAuth::basic(id, secret).built().unwrap();
        let value = client.header().unwrap();
        assert!(value.is_sensitive());
        let pair = value.to_str().unwrap().strip_prefix("Basic ").unwrap();
        String::from_utf8(BASE64_STANDARD.decode(pair).unwrap()).unwrap()
    }

    #[test]
    fn id_and_secret_are_form_encoded_before_they_become_a_basic_header() {
        assert_eq!(decoded("my-client", "secret"), "my-client:secret");
        assert_eq!(decoded("a:b=c", "p+q%/ \u{fc}"), "a%3Ab%3Dc:p%2Bq%25%2F+%C3%BC");
        assert_eq!(decoded("=", "="), "%3D:%3D");
    }

    #[test]
    fn what_cannot_be_an_id_or_secret_is_refused_and_not_quoted() {
        for (id, secret) in [("", "s3cr3t"), ("a", ""), ("a", "s3cr3t\n"), ("a", " s3cr3t"), ("a\0", "s3cr3t")] {
            for auth in [ClientAuth::basic(id, secret), ClientAuth::post(id, secret)] {
                let debug = format!("{auth:?}");
                let error = auth.built().err().expect("it is wrong");
                assert!(matches!(error, ConfigError::IllegalCredential { .. }));
                assert!(!format!("{debug} {error} {error:?}").contains("s3cr3t"), "{error:?}");
            }
        }
        assert!(ClientAuth::public("").built().is_err());
        let key = SigningKey::hmac([7; 32]).unwrap();
        assert!(ClientAuth::private_key_jwt(" a", key).built().is_err());
    }

    #[test]
    fn an_audience_is_refused_where_no_jwt_is_signed_for_one() {
        for auth in [
            ClientAuth::basic("id", "s3cr3t"),
            ClientAuth::post("id", "s3cr3t"),
            ClientAuth::public("id"),
            ClientAuth::none(),
        ] {
            let error = auth.audience("https://named.example.com").built().err().expect("it is wrong");
            assert!(error.to_string().contains("`private_key_jwt` alone"), "{error}");
        }
        let key = SigningKey::hmac([7; 32]).unwrap();
        assert!(ClientAuth::private_key_jwt("id", key).audience("https://named.example.com").built().is_ok());
        let first = ClientAuth::public("").audience("https://named.example.com").built().err();
        assert!(matches!(first, Some(ConfigError::IllegalCredential { .. })), "the first mistake is told: {first:?}");
    }

    #[test]
    fn debug_says_how_and_not_what() {
        let shown = format!("{:?} {:?}", ClientAuth::basic("id", "s3cr3t"), ClientAuth::post("id", "s3cr3t"));
        assert_eq!(shown, r#"ClientAuth("client_secret_basic") ClientAuth("client_secret_post")"#);
    }
}
