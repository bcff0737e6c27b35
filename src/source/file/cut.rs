//! Telling a half-written token from a whole one, by the token before it.

use super::read::Read;
use crate::{Token, TokenRequest, source::Reason};
use std::time::{Duration, SystemTime};

/// No writer stops for longer in the middle of a token.
const WRITING: Duration = Duration::from_secs(60);

/// The token whose successor may be cut short in the file. None as soon as the doubt is of no use: a whole token of another kind can look like half of one, so a
/// doubt that did not end would keep it out for good.
pub(super) fn doubted<'a>(request: &'a TokenRequest, read: &Read) -> Option<&'a Token> {
    let now = SystemTime::now();
    let held = request.previous()?;
    let lives = match request.reason() {
        Reason::Rejected => false,
        // By the provider's clock, which need not be ours.
        Reason::Scheduled => true,
        _ => held.expires_at().is_none_or(|end| end > now),
    };
    (lives && read.was_written_within(WRITING, now)).then_some(held)
}

/// After a JWT: what begins like one, and ends too early.
pub(super) fn is_cut(text: &str, previous: &str) -> bool {
    let Ok([header, _, signature]) = <[&str; 3]>::try_from(previous.splitn(4, '.').collect::<Vec<_>>()) else {
        return false;
    };
    if !header.starts_with("eyJ") || Token::from_jwt(previous).is_err() {
        return false;
    }
    match <[&str; 3]>::try_from(text.splitn(4, '.').collect::<Vec<_>>()) {
        // The header names the algorithm and mostly the key, so the signature is as long as before. Some issuers write it in DER (against RFC 7518 section 3.4),
        // whose length varies a little.
        Ok([same, _, now]) => same == header && now.len() + 8 < signature.len(),
        // Four parts and more are no beginning of a JWT.
        Err(parts) => parts.len() < 3 && (text.starts_with("eyJ") || "eyJ".starts_with(text)),
    }
}

#[cfg(test)]
mod tests {
    use super::{super::read::tests::look, *};
    use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};

    fn jwt(kid: u32, exp: u64, signature: usize) -> String {
        let part = |json: String| BASE64_URL_SAFE_NO_PAD.encode(json);
        let header = part(format!(r#"{{"alg":"RS256","kid":"{kid}"}}"#));
        format!("{header}.{}.{}", part(format!(r#"{{"exp":{exp}}}"#)), "s".repeat(signature))
    }

    // Scenario 64.
    #[test]
    fn after_a_jwt_its_successor_cut_short_is_no_token_wherever_it_was_cut() {
        let (old, new) = (jwt(1, 4_000_000_000, 342), jwt(1, 4_000_003_600, 342));
        for length in 1..new.len() - 8 {
            assert!(is_cut(&new[..length], &old), "{length}");
        }
        assert!(!is_cut(&new, &old));
    }

    #[test]
    fn a_change_of_key_or_kind_is_no_cut() {
        let old = jwt(1, 4_000_000_000, 342);
        for new in [jwt(2, 4_000_000_000, 86), jwt(1, 4_000_000_000, 340), "opaque".into(), "eyJh.b.c.d.e".into()] {
            assert!(!is_cut(&new, &old), "{new}");
        }
        for old in ["opaque", "eyJrIjoiT0tTIn0=", "eyJh.b.c"] {
            assert!(!is_cut("eyJrIjoiT0tUIn0=", old), "{old}");
        }
    }

    #[test]
    fn a_file_is_doubted_only_while_it_is_young_and_the_token_held_lives_and_was_not_refused() {
        let second = Duration::from_secs(1);
        let held = |exp| Token::from_jwt(jwt(1, exp, 342)).unwrap();
        let (alive, dead, endless) = (held(4_000_000_000), held(1_000_000_000), Token::opaque("t").unwrap());
        let doubts = |held: &Token, reason, age| {
            let request = TokenRequest::new(reason, Some(held.clone()), None);
            doubted(&request, &look(b"t", age, true)).is_some()
        };
        for reason in [Reason::Scheduled, Reason::Expiring, Reason::Forced] {
            assert!(doubts(&alive, reason, second) && doubts(&endless, reason, second), "{reason}");
            assert_eq!(doubts(&dead, reason, second), reason == Reason::Scheduled, "{reason}: then it lives");
            assert!(!doubts(&alive, reason, WRITING), "{reason}");
        }
        assert!(!doubts(&alive, Reason::Rejected, second));
        let first = TokenRequest::new(Reason::Initial, None, None);
        assert!(doubted(&first, &look(b"t", second, true)).is_none());
    }
}
