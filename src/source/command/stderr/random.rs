//! Telling tokens from words, where nothing around them says what they are.

use super::redact::{is_piece, runs};
use std::ops::Range;

/// What no person would write: keys, hashes, tokens. All of the word goes, since a JWT's shorter parts are no less secret.
pub(super) fn words(text: &str, cuts: &mut Vec<Range<usize>>) {
    cuts.extend(runs(text, is_token).filter(|run| {
        let run = &text[run.clone()];
        let base64 = (run.contains('+') || run.ends_with('=')) && is_random(run);
        base64 || run.starts_with("eyJ") || run.split(|char| !is_piece(char)).any(is_random)
    }));
}

/// By how it changes between small letters, capitals and digits. Words written together change often too, but leave no small letter alone.
fn is_random(piece: &str) -> bool {
    #[derive(Clone, Copy, PartialEq)]
    enum Kind {
        Small,
        Capital,
        Digit,
    }
    let kinds: Vec<Kind> = piece
        .bytes()
        .filter(u8::is_ascii_alphanumeric)
        .map(|byte| match byte {
            b'0'..=b'9' => Kind::Digit,
            b'A'..=b'Z' => Kind::Capital,
            _ => Kind::Small,
        })
        .collect();
    let length = kinds.len();
    let digits = kinds.iter().filter(|kind| **kind == Kind::Digit).count();
    let changes = kinds.windows(2).filter(|two| two[0] != two[1]).count();
    let alone = kinds.windows(3).any(|three| matches!(three, [Kind::Capital, Kind::Small, Kind::Capital]));
    let often = |percent| changes * 100 >= length * percent;
    let mixed = match digits {
        0 | 1 => often(50) || (often(25) && alone),
        _ => often(15) && digits + 2 <= length,
    };
    let long = piece.split(['-', '_']).any(|part| {
        let digit =
            part.bytes().any(|byte| byte.is_ascii_digit()) && part.bytes().any(|byte| byte.is_ascii_alphabetic());
        part.len() >= 33 || (part.len() >= 20 && digit)
    });
    (length >= 16 && mixed) || long
}

/// RFC 6750 section 2.1, and `%`.
fn is_token(char: char) -> bool {
    char.is_ascii_alphanumeric() || "-_.~+/=%".contains(char)
}

#[cfg(test)]
mod tests {
    use super::super::redact::redact;

    fn of(text: &str) -> String {
        redact(text, b"", &[]).to_string()
    }

    /// Where programs put tokens, with nothing around them that says what they are.
    const PLACES: [&str; 7] =
        ["{}", "got {}.", "got '{}', again", "[\"{}\"]", "https://x.example.com/v1/{}/y?z=1", "a={}&b=2", "({})"];

    #[test]
    fn tokens_of_every_alphabet_are_cut_wherever_they_stand() {
        const ALPHABETS: [(&str, usize); 5] = [
            ("0123456789abcdef", 32),
            ("ABCDEFGHIJKLMNOPQRSTUVWXYZ234567", 32),
            ("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_", 22),
            ("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789", 24),
            ("abcdefghijklmnopqrstuvwxyz", 40),
        ];
        // Of a fixed beginning, so that it fails for all or for none.
        let mut rng = fastrand::Rng::with_seed(1);
        let mut below = |most: usize| rng.usize(..most);
        let (mut missed, mut all) = (Vec::new(), 0);
        for (alphabet, length) in ALPHABETS {
            for _ in 0..500 {
                let token: String =
                    (0..length).map(|_| char::from(alphabet.as_bytes()[below(alphabet.len())])).collect();
                for place in PLACES {
                    all += 1;
                    let left = of(&place.replace("{}", &token));
                    if (0..=token.len() - 8).any(|at| left.contains(&token[at..at + 8])) {
                        missed.push(token.clone());
                    }
                }
            }
        }
        // By chance one or the other looks like words written together.
        assert!(missed.len() * 300 < all, "{} of {all}: {:?}", missed.len(), missed.first());
        for (token, left) in [
            ("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJ4In0.c2ln", "[cut]"),
            ("4fzzzcd1-58cc-4372-a567-0e02b2c3d479", "[cut]"),
            ("Zm9vYmFy+YmF6/cXV4cXV1eA==", "[cut]"),
        ] {
            assert_eq!(of(token), left);
        }
    }
}
