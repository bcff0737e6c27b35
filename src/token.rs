//! One credential value, its expiry if known, and its generation.

mod claims;

use bytes::Bytes;
use http::HeaderValue;
use std::{
    fmt,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};
use zeroize::{Zeroize, Zeroizing};

const BEARER: &str = "Bearer ";

/// No server takes a longer header; hyper and nginx stop at a fraction of it.
const LONGEST: usize = 64 * 1024;

/// One credential value, its expiry if known, and its [`Generation`].
///
/// Cheap to clone: clones share one buffer, which is wiped when the last of them, and the last request that carries it,
/// is gone. Never printed: `Debug` shows the expiry and the generation alone, and header values made from it are marked
/// [sensitive](HeaderValue::set_sensitive).
///
/// ```
/// # use std::time::Duration;
/// use tower_jwt_refresh::Token;
///
/// let token = Token::opaque("s3cr3t")?.with_expires_in(Duration::from_secs(3600));
/// assert!(!format!("{token:?}").contains("s3cr3t"));
/// # Ok::<(), tower_jwt_refresh::InvalidToken>(())
/// ```
#[derive(Clone)]
pub struct Token {
    secret: Arc<Secret>,
    pub(crate) expiry: Expiry,
    pub(crate) refresh_after: Option<Duration>,
    pub(crate) not_before: Option<SystemTime>,
    generation: Generation,
}

/// What a token says of its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Expiry {
    Unknown,
    /// It says something that cannot be: negative, no number, too far for any clock. Counts as unknown.
    Absurd,
    At(SystemTime),
    /// From the moment the source was asked.
    In(Duration),
}

impl Token {
    /// Reads `exp` and `nbf` (RFC 7519 section 4.1) from a JWT.
    ///
    /// The signature is *not* verified: that is the server's to do, the client only wants to know when to fetch the next.
    /// `exp` may be an integer, a fraction, or either of them as a string. A token without it, or with one that cannot be
    /// (negative, not a number), has no known expiry and is sent until the server rejects it.
    ///
    /// # Errors
    /// [`InvalidToken`] if this is no JWT in compact form (RFC 7519 section 3.1), or could not be sent in a header. An encrypted
    /// token (JWE, five parts) or one that is no JWT at all goes through [`opaque`](Self::opaque).
    pub fn from_jwt(jwt: impl Into<String>) -> Result<Self, InvalidToken> {
        let jwt = Zeroizing::new(jwt.into());
        legal(&jwt)?;
        let claims = claims::read(&jwt)?;
        Ok(Self { expiry: claims.exp, not_before: claims.nbf, ..Self::holding(&jwt) })
    }

    /// A token that says nothing of itself: it has no known expiry unless one is added.
    ///
    /// # Errors
    /// [`InvalidToken`] if it is empty, longer than 64 KiB, or holds anything but visible ASCII: such a value is no legal header
    /// (RFC 9110 section 5.5), and a newline in one is an injection. Trim what you read from a file.
    pub fn opaque(token: impl Into<String>) -> Result<Self, InvalidToken> {
        let token = Zeroizing::new(token.into());
        legal(&token)?;
        Ok(Self::holding(&token))
    }

    fn holding(token: &str) -> Self {
        Self {
            secret: Arc::new(Secret::new(token)),
            expiry: Expiry::Unknown,
            refresh_after: None,
            not_before: None,
            generation: Generation::NONE,
        }
    }

    /// Expires at this moment of the wall clock. Over ten years ahead counts as unknown.
    #[must_use]
    pub fn with_expires_at(mut self, at: SystemTime) -> Self {
        self.expiry = Expiry::At(at);
        self
    }

    /// Expires this long after the source was *asked* for it (OAuth's `expires_in`, RFC 6749 section 5.1), whatever the wall clock
    /// says. Over ten years counts as unknown.
    #[must_use]
    pub fn with_expires_in(mut self, span: Duration) -> Self {
        self.expiry = Expiry::In(span);
        self
    }

    /// Ask the source again after this long, even if nothing is known to expire: the hint of a source that can change at any
    /// time at no cost, such as a file. The same token again is then neither progress nor a failure.
    #[must_use]
    pub fn with_refresh_after(mut self, span: Duration) -> Self {
        self.refresh_after = Some(span);
        self
    }

    /// When it expires on the wall clock, if that is known. One that says "in 60 s" has a moment once a provider holds it.
    #[must_use]
    pub fn expires_at(&self) -> Option<SystemTime> {
        match self.expiry {
            Expiry::At(at) => Some(at),
            Expiry::Unknown | Expiry::Absurd | Expiry::In(_) => None,
        }
    }

    /// The token itself, bare. Do not log it.
    #[must_use]
    pub fn expose_secret(&self) -> &str {
        self.secret.as_str()
    }

    /// Which of its provider's tokens this is; one that no provider has held yet has a generation equal to no other's.
    #[must_use]
    pub fn generation(&self) -> Generation {
        self.generation
    }

    pub(crate) fn same_bytes(&self, other: &Token) -> bool {
        self.secret.bearer == other.secret.bearer
    }

    pub(crate) fn with_generation(mut self, generation: Generation) -> Self {
        self.generation = generation;
        self
    }

    /// `Bearer <token>`, finished.
    pub(crate) fn bearer(&self) -> &HeaderValue {
        &self.secret.bearer
    }

    /// The bare token, finished.
    pub(crate) fn raw(&self) -> &HeaderValue {
        &self.secret.raw
    }

    /// `<prefix> <token>`, built by the first who asks.
    pub(crate) fn prefixed(&self, prefix: &str) -> &HeaderValue {
        let mut slot = &self.secret.prefixed;
        loop {
            let it = slot.get_or_init(|| {
                let value = Secret::build(prefix, " ", self.expose_secret());
                Box::new(Prefixed { prefix: prefix.into(), value: header(value), next: OnceLock::new() })
            });
            if *it.prefix == *prefix {
                return &it.value;
            }
            slot = &it.next;
        }
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token")
            .field("generation", &self.generation)
            .field("expiry", &self.expiry)
            .finish_non_exhaustive()
    }
}

/// The bytes, once, and the finished header values that point into them.
struct Secret {
    bearer: HeaderValue,
    raw: HeaderValue,
    prefixed: OnceLock<Box<Prefixed>>,
}

struct Prefixed {
    prefix: Box<str>,
    value: HeaderValue,
    next: OnceLock<Box<Prefixed>>,
}

impl Secret {
    fn new(token: &str) -> Self {
        let bytes = Self::build(BEARER, "", token);
        Self { raw: header(bytes.slice(BEARER.len()..)), bearer: header(bytes), prefixed: OnceLock::new() }
    }

    /// Memory that wipes itself when the last header value over it is dropped. Of its final size from the start, so that no
    /// growth leaves a copy behind.
    fn build(prefix: &str, gap: &str, token: &str) -> Bytes {
        let mut buffer = Zeroizing::new(Vec::with_capacity(prefix.len() + gap.len() + token.len()));
        for part in [prefix, gap, token] {
            buffer.extend_from_slice(part.as_bytes());
        }
        Bytes::from_owner(Wiped(buffer))
    }

    fn as_str(&self) -> &str {
        self.raw.to_str().expect("a token is visible ASCII")
    }
}

struct Wiped(Zeroizing<Vec<u8>>);

impl AsRef<[u8]> for Wiped {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Wiped {
    fn drop(&mut self) {
        self.0.zeroize();
        #[cfg(test)]
        tests::WIPED.with(|wiped| wiped.set(wiped.get() + usize::from(self.0.iter().all(|byte| *byte == 0))));
    }
}

fn header(bytes: Bytes) -> HeaderValue {
    let mut value = HeaderValue::from_maybe_shared(bytes).expect("visible ASCII is a legal header value");
    value.set_sensitive(true);
    value
}

fn legal(token: &str) -> Result<(), InvalidToken> {
    if token.is_empty() {
        return Err(InvalidToken::Empty);
    }
    if token.len() > LONGEST {
        return Err(InvalidToken::TooLong { length: token.len() });
    }
    match token.bytes().position(|byte| !byte.is_ascii_graphic()) {
        Some(at) => Err(InvalidToken::IllegalCharacter { at }),
        None => Ok(()),
    }
}

/// Which of a provider's tokens one is: unique to the provider, and growing.
///
/// A rejection names a generation, so that a late one of an old token can never hit a newer, and one of another provider's
/// token hits nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Generation {
    provider: u64,
    number: u64,
}

impl Generation {
    /// Of a token that no provider holds.
    const NONE: Self = Self { provider: 0, number: 0 };

    /// Before the first token of a new provider.
    pub(crate) fn new_provider() -> Self {
        static PROVIDERS: AtomicU64 = AtomicU64::new(1);
        // Relaxed: all that is asked of the number is that no two providers get the same.
        Self { provider: PROVIDERS.fetch_add(1, Ordering::Relaxed), number: 0 }
    }

    pub(crate) fn next(self) -> Self {
        Self { number: self.number + 1, ..self }
    }
}

/// Why a string is no token. Never quotes it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidToken {
    /// Nothing there.
    #[error("the token is empty: the source has nothing to give, or looked in the wrong place")]
    Empty,
    /// Longer than 64 KiB.
    #[error("the token has {length} bytes, and no server takes a header of more than 65536: is this really a token?")]
    TooLong {
        /// Its length in bytes.
        length: usize,
    },
    /// Anything but visible ASCII: a space, a line break, a NUL, an umlaut.
    #[error(
        "the token has a character at byte {at} that no header can hold (only visible ASCII can): trim what was read from a file or command"
    )]
    IllegalCharacter {
        /// Its position in bytes.
        at: usize,
    },
    /// Not of the form `header.payload.signature`.
    #[error(
        "the token has {parts} part(s) between dots where a JWT has three: use `Token::opaque` for a token of another kind"
    )]
    NotAJwt {
        /// How many parts it has.
        parts: usize,
    },
    /// The payload is not base64url.
    #[error(
        "the JWT's payload is not base64url: it was cut or altered on its way, or is no JWT (then use `Token::opaque`)"
    )]
    NotBase64,
    /// The payload is not a JSON object, or names a claim twice.
    #[error(
        "the JWT's payload is not a JSON object of claims, each named once: it was altered on its way, or is no JWT (then use `Token::opaque`)"
    )]
    NotJson,
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    thread_local! {
        pub(super) static WIPED: Cell<usize> = const { Cell::new(0) };
    }

    #[test]
    fn memory_is_wiped_when_the_last_header_value_is_gone_and_not_before() {
        let before = WIPED.with(Cell::get);
        let token = Token::opaque("secret").unwrap();
        let sent = token.bearer().clone();
        let other = token.prefixed("Key").clone();
        drop(token);
        assert_eq!(WIPED.with(Cell::get), before, "requests under way still carry it");
        assert_eq!(sent, "Bearer secret");
        drop(sent);
        drop(other);
        assert_eq!(WIPED.with(Cell::get), before + 2);
    }

    #[test]
    fn a_header_value_is_built_once_and_shared() {
        let token = Token::opaque("secret").unwrap();
        let again = token.clone();
        assert_eq!(token.bearer().as_bytes().as_ptr(), again.bearer().as_bytes().as_ptr());
        assert_eq!(token.raw().as_bytes().as_ptr(), token.bearer().as_bytes()[7..].as_ptr(), "one buffer, two views");
        let (key, tok) = (token.prefixed("Key").as_bytes().as_ptr(), token.prefixed("Tok").as_bytes().as_ptr());
        assert_eq!(again.prefixed("Key").as_bytes().as_ptr(), key);
        assert_eq!(again.prefixed("Tok").as_bytes().as_ptr(), tok);
        assert_eq!(token.prefixed("Tok"), "Tok secret");
    }

    #[test]
    fn every_header_value_is_sensitive() {
        let token = Token::opaque("secret").unwrap();
        for value in [token.bearer(), token.raw(), token.prefixed("Key")] {
            assert!(value.is_sensitive());
            assert!(!format!("{value:?}").contains("secret"));
        }
    }

    #[test]
    fn debug_shows_the_expiry_and_no_byte_of_the_token() {
        let shown = format!("{:?}", Token::opaque("s3cr3t").unwrap().with_expires_in(Duration::from_secs(7)));
        assert!(
            shown.starts_with("Token {") && shown.contains("expiry: In(7s)") && !shown.contains("s3cr3t"),
            "{shown}"
        );
    }

    #[test]
    fn what_no_header_can_hold_is_refused_and_never_quoted() {
        for bad in ["\n", "\r\nX-Admin: 1", "\0", "ö", " ", "\x7f"] {
            for token in [format!("s3cr3t{bad}"), format!("{bad}s3cr3t"), format!("s3cr3t{bad}s3cr3t")] {
                let error = Token::opaque(token.clone()).unwrap_err();
                assert!(matches!(error, InvalidToken::IllegalCharacter { .. }), "{token:?}: {error}");
                assert!(!format!("{error} {error:?}").contains("s3cr3t"));
                assert_eq!(Token::from_jwt(token).unwrap_err(), error);
            }
        }
        assert_eq!(Token::opaque("").unwrap_err(), InvalidToken::Empty);
        assert!(matches!(Token::opaque("a".repeat(65_537)), Err(InvalidToken::TooLong { .. })));
        assert!(Token::opaque("a".repeat(65_536)).is_ok());
    }

    #[test]
    fn generations_grow_and_are_unique_to_a_provider() {
        let (one, two) = (Generation::new_provider(), Generation::new_provider());
        assert!(one < one.next() && one.next() < one.next().next());
        assert_ne!(one.next(), two.next());
        assert_ne!(one, Generation::NONE);
    }
}
