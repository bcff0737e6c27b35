//! A token that this program signs itself, with a key of its own.

mod key;

pub use key::SigningKey;

use crate::{BoxError, ConfigError, InvalidToken, SourceError, Token, TokenRequest};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use ring::rand::{SecureRandom, SystemRandom};
use serde::Serialize;
use serde_json::{Map, Value};
use std::{
    fmt,
    future::{Ready, ready},
    task::{Context, Poll},
    time::{Duration, SystemTime},
};
use tower::Service;
use zeroize::Zeroizing;

/// A source that signs a short-lived JWT of its own for each fetch (RFC 7519, RFC 7515 section 3.1).
///
/// For an API that knows your public key (or shares a secret) and takes what you signed as the bearer token, or in exchange for one.
/// Nobody is asked, so a fetch takes the time of a signature: half a millisecond with RSA of 2048 bits, three with 4096, less with the others.
///
/// ```no_run
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use std::time::Duration;
/// use tower_jwt_refresh::{TokenProvider, source::{SignedJwt, SigningKey}};
///
/// let key = SigningKey::from_pem(std::fs::read("private-key.pem")?)?.key_id("2026-11");
/// let source = SignedJwt::new(key)
///     .issuer("my-service")
///     .audience("https://api.example.com")
///     .lifetime(Duration::from_secs(600))?
///     .claim("scope", "read")?;
/// let provider = TokenProvider::new(source);
/// # Ok(()) }
/// ```
///
/// # What a token says
/// Beside what is set here, each has an `exp`, an `iat` and a `jti` of its own (RFC 7519 sections 4.1.4, 4.1.6, 4.1.7), the times as whole
/// seconds, which some servers insist on. The `jti` is 128 random bits: no two tokens are equal, so none is taken for a replay.
///
/// # The clock
/// `exp` and `iat` come from this machine's clock; no server is asked what it has. A clock that is ahead by more than
/// [`backdate`](Self::backdate) makes tokens that are not valid yet, one that is behind by more than [`lifetime`](Self::lifetime) makes dead
/// ones, and servers that limit `exp` refuse tokens of a clock that is ahead by what the limit leaves. All of these are 401s. The first token
/// that is signed once the clock is right works again. When to sign the next does not depend on the clock: a provider counts the lifetime
/// from when it asked.
///
/// # Failures
/// The error is a [`SourceError`] around a [`SignError`]. Neither holds the key or a token.
///
/// Who needs a token gets it as the cause of [`TokenError::Unavailable`](crate::TokenError::Unavailable), or of
/// [`TokenError::NeedsCredential`](crate::TokenError::NeedsCredential) where the table says "seldom": each minute while requests fail for it, else each 15.
///
/// | what happened | error | asked again |
/// | --- | --- | --- |
/// | the clock stands before 1970 | [`ClockBefore1970`](SignError::ClockBefore1970) | after the provider's backoff, 1 to 60 s |
/// | the system gave no random numbers, or the signature failed | [`Crypto`](SignError::Crypto) | backoff |
/// | claims and header make a token over 64 KiB | [`Token`](SignError::Token) | seldom: the claims need repair |
/// | the API answers 401: it does not know this key or `kid`, wants another `iss` or `aud`, or the clocks differ | none here | the layer sends one newly signed token, then passes the 401 on, and [slows down](crate::TokenError::NotReplaced) |
///
/// # Cancel safety
/// Nothing to cancel: the token is signed in `call`.
#[derive(Clone)]
pub struct SignedJwt {
    key: SigningKey,
    header: Map<String, Value>,
    claims: Map<String, Value>,
    lifetime: Duration,
    backdate: Duration,
}

impl SignedJwt {
    /// Begins with this key and no claims but those of time.
    #[must_use]
    pub fn new(key: SigningKey) -> Self {
        Self {
            key,
            header: Map::from_iter([("typ".to_owned(), "JWT".into())]),
            claims: Map::new(),
            lifetime: Duration::from_secs(5 * 60),
            backdate: Duration::from_secs(60),
        }
    }

    /// Who signs: `iss` (RFC 7519 section 4.1.1).
    #[must_use]
    pub fn issuer(self, issuer: impl Into<String>) -> Self {
        self.with("iss", issuer.into())
    }

    /// Whom it speaks for: `sub` (RFC 7519 section 4.1.2).
    #[must_use]
    pub fn subject(self, subject: impl Into<String>) -> Self {
        self.with("sub", subject.into())
    }

    /// Whom it is for: `aud` (RFC 7519 section 4.1.3). For several, `claim("aud", ["one", "two"])`.
    #[must_use]
    pub fn audience(self, audience: impl Into<String>) -> Self {
        self.with("aud", audience.into())
    }

    /// From the moment of signing until `exp`, which is rounded down to the second. Default 5 min: well within what servers allow (GitHub 10 min,
    /// App Store Connect 20 min, Google 1 h), so that a clock some minutes off harms nothing, and what leaks is soon worthless.
    ///
    /// # Errors
    /// [`ConfigError`] below 1 s, as no `exp` could say it, and above a year.
    pub fn lifetime(self, lifetime: Duration) -> Result<Self, ConfigError> {
        let second = Duration::from_secs(1);
        if lifetime < second {
            return Err(ConfigError::TooShort { setting: "lifetime", value: lifetime, at_least: second });
        }
        ConfigError::if_too_long("lifetime", lifetime)?;
        Ok(Self { lifetime, ..self })
    }

    /// How far `iat` is set back. Default 60 s: a server whose clock is behind ours takes a token of the future for a forgery. GitHub's
    /// documentation asks for these 60 s.
    ///
    /// A server that limits `exp - iat` sees `lifetime + backdate`.
    ///
    /// # Errors
    /// [`ConfigError`] above a year.
    pub fn backdate(self, backdate: Duration) -> Result<Self, ConfigError> {
        ConfigError::if_too_long("backdate", backdate)?;
        Ok(Self { backdate, ..self })
    }

    /// Any other claim, as JSON. Called again with the same name it replaces.
    ///
    /// # Errors
    /// [`ConfigError::IllegalClaim`] for `exp`, `iat` and `jti`, which each token has anew, and for a value that is no JSON.
    pub fn claim(mut self, name: impl Into<String>, value: impl Serialize) -> Result<Self, ConfigError> {
        let name = name.into();
        let problem = match name.as_str() {
            "exp" => Some("is set anew in each token: say how long it is valid with `lifetime`"),
            "iat" => Some("is set anew in each token: say how far it is set back with `backdate`"),
            "jti" => Some("is set anew in each token, so that none is taken for a replay: leave it out"),
            _ => None,
        };
        set(&mut self.claims, name, value, problem)?;
        Ok(self)
    }

    /// A parameter of the JOSE header (RFC 7515 section 4.1), as JSON: `typ`, which is `JWT` by default, or `x5t#S256`, for example.
    ///
    /// # Errors
    /// [`ConfigError::IllegalClaim`] for `alg` and `kid`, which are the key's, for `crit` and `b64`, which ask for other ways of signing, and for
    /// a value that is no JSON.
    pub fn header(mut self, name: impl Into<String>, value: impl Serialize) -> Result<Self, ConfigError> {
        let name = name.into();
        let problem = match name.as_str() {
            "alg" => Some("follows from the key: leave it out"),
            "kid" => Some("belongs to the key: set it with `SigningKey::key_id`"),
            "crit" | "b64" => Some("asks for a way of signing that is not supported: leave it out"),
            _ => None,
        };
        set(&mut self.header, name, value, problem)?;
        Ok(self)
    }

    /// A token as of this moment, unlike all before it.
    pub(crate) fn sign(&self, now: SystemTime) -> Result<Token, SignError> {
        let now = now.duration_since(SystemTime::UNIX_EPOCH).map_err(|_| SignError::ClockBefore1970)?;
        // Down, not up: a server may limit it, to the second.
        let exp = (now + self.lifetime).as_secs();
        let mut jti = [0; 16];
        SystemRandom::new().fill(&mut jti).map_err(|_| SignError::Crypto)?;
        let header = Header { alg: self.key.algorithm(), kid: self.key.kid(), others: &self.header };
        let claims = Claims {
            exp,
            iat: now.saturating_sub(self.backdate).as_secs(),
            jti: BASE64_URL_SAFE_NO_PAD.encode(jti),
            others: &self.claims,
        };
        let token = Token::opaque(self.compact(&json(&header), &json(&claims))?)?;
        Ok(token.with_expires_in(Duration::from_secs(exp).saturating_sub(now)))
    }

    /// The compact form (RFC 7515 section 7.1).
    fn compact(&self, header: &[u8], claims: &[u8]) -> Result<String, SignError> {
        let [header, claims] = [header, claims].map(|part| BASE64_URL_SAFE_NO_PAD.encode(part));
        let signed = format!("{header}.{claims}");
        let signature = self.key.sign(signed.as_bytes()).map_err(|_| SignError::Crypto)?;
        let signature = Zeroizing::new(BASE64_URL_SAFE_NO_PAD.encode(&*signature));
        // Only with its signature is it secret. Of its final size from the start, so that no growth leaves a copy behind.
        let mut jwt = String::with_capacity(signed.len() + 1 + signature.len());
        for part in [&*signed, ".", &signature] {
            jwt.push_str(part);
        }
        Ok(jwt)
    }

    fn with(mut self, claim: &str, value: String) -> Self {
        self.claims.insert(claim.to_owned(), value.into());
        self
    }
}

#[derive(Serialize)]
struct Header<'a> {
    alg: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    kid: Option<&'a str>,
    #[serde(flatten)]
    others: &'a Map<String, Value>,
}

#[derive(Serialize)]
struct Claims<'a> {
    exp: u64,
    iat: u64,
    jti: String,
    #[serde(flatten)]
    others: &'a Map<String, Value>,
}

fn json(part: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(part).expect("maps with string keys are JSON")
}

fn set(
    fields: &mut Map<String, Value>,
    name: String,
    value: impl Serialize,
    problem: Option<&'static str>,
) -> Result<(), ConfigError> {
    if let Some(problem) = problem {
        return Err(ConfigError::IllegalClaim { name, problem });
    }
    match serde_json::to_value(value) {
        Ok(value) => {
            fields.insert(name, value);
            Ok(())
        }
        // The error is left out: it may quote the value.
        Err(_) => {
            Err(ConfigError::IllegalClaim { name, problem: "cannot be written as JSON: are the keys in it strings?" })
        }
    }
}

impl Service<TokenRequest> for SignedJwt {
    type Response = Token;
    type Error = BoxError;
    type Future = Ready<Result<Token, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: TokenRequest) -> Self::Future {
        ready(self.sign(SystemTime::now()).map_err(|error| error.into_source_error().into()))
    }
}

impl fmt::Debug for SignedJwt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SignedJwt")
            .field("key", &self.key)
            .field("lifetime", &self.lifetime)
            .field("backdate", &self.backdate)
            .finish_non_exhaustive()
    }
}

/// How signing failed. Holds neither key nor token.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SignError {
    /// No JWT can say so.
    #[error("this machine's clock stands before 1970: set it")]
    ClockBefore1970,
    /// No random numbers from the system, or a signature that did not verify.
    #[error("the system gave no random numbers, or the signature failed")]
    Crypto,
    /// The claims make it too long.
    #[error("what was signed is no usable token")]
    Token(#[from] InvalidToken),
}

impl SignError {
    pub(crate) fn into_source_error(self) -> SourceError {
        match self {
            Self::ClockBefore1970 | Self::Crypto => SourceError::transient(self),
            // The claims are what they are until somebody changes them.
            Self::Token(_) => SourceError::permanent(self),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::token::Expiry;

    const SECOND: Duration = Duration::from_secs(1);

    fn source() -> SignedJwt {
        SignedJwt::new(SigningKey::hmac([7; 32]).unwrap())
    }

    fn times(token: &Token) -> (u64, u64) {
        let payload = token.expose_secret().split('.').nth(1).unwrap();
        let claims: Value = serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(payload).unwrap()).unwrap();
        (claims["iat"].as_u64().unwrap(), claims["exp"].as_u64().unwrap())
    }

    // GitHub, for one, answers 401 to an `exp` more than 10 minutes ahead and to one that is no integer.
    #[test]
    fn the_end_is_never_later_than_the_lifetime_says_and_the_token_knows_it_to_the_millisecond() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_millis(1_800_000_000_900);
        let token = source().lifetime(600 * SECOND).unwrap().sign(now).unwrap();
        assert_eq!(times(&token), (1_799_999_940, 1_800_000_600));
        assert_eq!(token.expiry, Expiry::In(Duration::from_millis(599_100)));
    }

    #[test]
    fn the_shortest_lifetime_makes_a_token_that_lives() {
        for part in [0, 1, 999] {
            let now = SystemTime::UNIX_EPOCH + Duration::from_millis(1_800_000_000_000 + part);
            let token = source().lifetime(SECOND).unwrap().sign(now).unwrap();
            assert_eq!(token.expiry, Expiry::In(Duration::from_millis(1000 - part)));
        }
    }

    #[test]
    fn a_clock_near_the_beginning_of_time_makes_no_panic() {
        let token = source().sign(SystemTime::UNIX_EPOCH + SECOND).unwrap();
        assert_eq!(times(&token), (0, 301));
        let before = source().sign(SystemTime::UNIX_EPOCH - SECOND).unwrap_err();
        assert!(matches!(before, SignError::ClockBefore1970));
        assert!(!before.into_source_error().is_permanent(), "a clock is set by itself");
    }

    #[test]
    fn the_text_is_of_its_final_size_from_the_start() {
        let jwt = source().compact(b"{}", &[b'x'; 100]).unwrap();
        assert_eq!(jwt.capacity(), jwt.len());
    }
}
