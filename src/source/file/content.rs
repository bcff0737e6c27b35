//! From what is in the file to a token.

use super::{TokenFileError, cut};
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

/// The token in a file, which may be the cut successor of this one.
pub(super) fn token(bytes: &[u8], before: Option<&Token>) -> Result<Token, Wrong> {
    let bytes = bytes.strip_prefix(BYTE_ORDER_MARK).unwrap_or(bytes).trim_ascii();
    if bytes.is_empty() {
        return Err(Wrong::Empty);
    }
    let text = std::str::from_utf8(bytes).map_err(|_| Wrong::NotText)?;
    // On one line it would pass for a token.
    if text.starts_with(['{', '[', '"']) {
        return Err(Wrong::Json);
    }
    if before.is_some_and(|before| cut::is_cut(text, before.expose_secret())) {
        return Err(Wrong::Torn);
    }
    let token = Token::from_jwt(text).or_else(|error| match error {
        InvalidToken::NotAJwt { .. } | InvalidToken::NotBase64 | InvalidToken::NotJson => Token::opaque(text),
        error => Err(error),
    });
    token.map_err(Wrong::Illegal)
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
    use std::time::{Duration, SystemTime};

    fn jwt(exp: u64) -> String {
        let part = |json: String| BASE64_URL_SAFE_NO_PAD.encode(json);
        format!("{}.{}.c2ln", part(r#"{"alg":"RS256"}"#.into()), part(format!(r#"{{"exp":{exp}}}"#)))
    }

    #[test]
    fn a_jwt_gives_its_end_and_anything_else_has_none() {
        let exp = 4_000_000_000;
        let token = token(jwt(exp).as_bytes(), None).unwrap();
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
    fn what_is_cut_is_no_token_after_one_that_is_doubted() {
        let (before, cut) = (Token::from_jwt(jwt(4_000_000_000)).unwrap(), &jwt(4_000_003_600)[..20]);
        assert_eq!(token(cut.as_bytes(), Some(&before)).unwrap_err(), Wrong::Torn);
        assert!(token(cut.as_bytes(), None).is_ok());
    }
}
