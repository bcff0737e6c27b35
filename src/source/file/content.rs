//! From what is in the file to a token.

use super::TokenFileError;
use crate::{InvalidToken, Token};
use std::{path::Path, sync::Arc};

/// What some editors and shells put before UTF-8.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Why there is no token in it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Wrong {
    Empty,
    NotText,
    Json,
    Illegal(InvalidToken),
    Torn,
}

impl Wrong {
    pub(super) fn at(self, path: &Arc<Path>) -> TokenFileError {
        let path = Arc::clone(path);
        match self {
            Self::Empty => TokenFileError::Empty { path },
            Self::NotText => TokenFileError::NotText { path },
            Self::Json => TokenFileError::Json { path },
            Self::Illegal(error) => TokenFileError::Illegal { path, error },
            Self::Torn => TokenFileError::Torn { path },
        }
    }
}

/// The token in a file, which holds one after this one.
pub(super) fn token(bytes: &[u8], previous: Option<&Token>) -> Result<Token, Wrong> {
    let bytes = bytes.strip_prefix(BYTE_ORDER_MARK).unwrap_or(bytes).trim_ascii();
    if bytes.is_empty() {
        return Err(Wrong::Empty);
    }
    let text = std::str::from_utf8(bytes).map_err(|_| Wrong::NotText)?;
    // On one line it would pass for a token.
    if text.starts_with(['{', '[', '"']) {
        return Err(Wrong::Json);
    }
    if previous.is_some_and(|previous| is_cut(text, previous.expose_secret())) {
        return Err(Wrong::Torn);
    }
    let token = Token::from_jwt(text).or_else(|error| match error {
        InvalidToken::NotAJwt { .. } | InvalidToken::NotBase64 | InvalidToken::NotJson => Token::opaque(text),
        error => Err(error),
    });
    token.map_err(Wrong::Illegal)
}

/// After a JWT: what begins like one, and ends too early.
fn is_cut(text: &str, previous: &str) -> bool {
    let Ok([header, _, signature]) = <[&str; 3]>::try_from(previous.splitn(4, '.').collect::<Vec<_>>()) else {
        return false;
    };
    if !header.starts_with("eyJ") || Token::from_jwt(previous).is_err() {
        return false;
    }
    match <[&str; 3]>::try_from(text.splitn(4, '.').collect::<Vec<_>>()) {
        // The header names algorithm and key, so the signature is as long as before. Some issuers write it in DER (against RFC 7518 section 3.4), whose length
        // varies a little.
        Ok([same, _, now]) => same == header && now.len() + 8 < signature.len(),
        // Four parts and more are no beginning of a JWT.
        Err(parts) => parts.len() < 3 && (text.starts_with("eyJ") || "eyJ".starts_with(text)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
    use std::time::{Duration, SystemTime};

    fn jwt(kid: u32, exp: u64, signature: usize) -> String {
        let part = |json: String| BASE64_URL_SAFE_NO_PAD.encode(json);
        let header = part(format!(r#"{{"alg":"RS256","kid":"{kid}"}}"#));
        format!("{header}.{}.{}", part(format!(r#"{{"exp":{exp}}}"#)), "s".repeat(signature))
    }

    fn held(text: &str) -> Token {
        Token::opaque(text).unwrap()
    }

    #[test]
    fn a_jwt_gives_its_end_and_anything_else_has_none() {
        let exp = 4_000_000_000;
        let token = token(jwt(1, exp, 342).as_bytes(), None).unwrap();
        assert_eq!(token.expires_at(), Some(SystemTime::UNIX_EPOCH + Duration::from_secs(exp)));
        for other in ["s3cr3t", "a.b.c", "eyJrIjoiT0tTIn0=", "eyJh.b.c.d.e", "ghp_x.y"] {
            let token = super::token(other.as_bytes(), None).unwrap();
            assert_eq!((token.expose_secret(), token.expires_at()), (other, None));
        }
    }

    #[test]
    fn blanks_line_ends_and_a_byte_order_mark_are_left_out() {
        for around in ["s3cr3t\n", "s3cr3t\r\n", "\n\t s3cr3t \n\n", "\u{feff}s3cr3t\r\n", "\u{feff}\ns3cr3t"] {
            assert_eq!(token(around.as_bytes(), None).unwrap().expose_secret(), "s3cr3t", "{around:?}");
        }
    }

    #[test]
    fn what_is_no_token_is_told_apart() {
        for (bytes, wrong) in [
            (&b""[..], Wrong::Empty),
            (b" \r\n\t", Wrong::Empty),
            (b"\xef\xbb\xbf", Wrong::Empty),
            (b"\xff\xfet\0o\0k\0", Wrong::NotText),
            (b"tok\xffen", Wrong::NotText),
            (br#"{"token":"s3cr3t"}"#, Wrong::Json),
            (br#"["s3cr3t"]"#, Wrong::Json),
            (br#""s3cr3t""#, Wrong::Json),
            (b"two\nlines", Wrong::Illegal(InvalidToken::IllegalCharacter { at: 3 })),
            (b"nul\0", Wrong::Illegal(InvalidToken::IllegalCharacter { at: 3 })),
            (b"Bearer s3cr3t", Wrong::Illegal(InvalidToken::IllegalCharacter { at: 6 })),
        ] {
            assert_eq!(token(bytes, None).unwrap_err(), wrong, "{bytes:?}");
        }
    }

    // Scenario 64.
    #[test]
    fn after_a_jwt_its_successor_cut_short_is_no_token_wherever_it_was_cut() {
        let (old, new) = (held(&jwt(1, 4_000_000_000, 342)), jwt(1, 4_000_003_600, 342));
        for length in 1..new.len() - 8 {
            assert_eq!(token(&new.as_bytes()[..length], Some(&old)).unwrap_err(), Wrong::Torn, "{length}");
        }
        assert!(token(new.as_bytes(), Some(&old)).is_ok());
    }

    #[test]
    fn a_change_of_key_or_kind_is_no_cut() {
        let old = held(&jwt(1, 4_000_000_000, 342));
        for new in [jwt(2, 4_000_000_000, 86), jwt(1, 4_000_000_000, 340), "opaque".into(), "eyJh.b.c.d.e".into()] {
            assert_eq!(token(new.as_bytes(), Some(&old)).unwrap().expose_secret(), new);
        }
        for old in ["opaque", "eyJrIjoiT0tTIn0=", "eyJh.b.c"] {
            assert!(token(b"eyJrIjoiT0tUIn0=", Some(&held(old))).is_ok(), "{old}");
        }
    }
}
