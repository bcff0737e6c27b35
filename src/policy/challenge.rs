//! Reading `WWW-Authenticate` (RFC 9110 section 11.6.1): does a new token help, and what does the source get to see?

use http::{HeaderMap, HeaderValue, header::WWW_AUTHENTICATE};
use std::{borrow::Cow, sync::Arc};

/// Untrusted text: a source gets no more of it than this.
pub(crate) const LONGEST: usize = 4096;

/// Errors of a `Bearer` challenge that a new token can heal: RFC 6750 section 3.1, Microsoft's claims challenge, RFC 9470 section 3. All others
/// say that the request, not the token, is at fault.
const HEALED: [&str; 3] = ["invalid_token", "insufficient_claims", "insufficient_user_authentication"];

/// True unless a `Bearer` challenge names an error that no new token heals. What cannot be read counts as a token refused.
pub(super) fn wants_new_token(headers: &HeaderMap) -> bool {
    !texts(headers).any(|text| bearer_errors(&text).any(|error| !HEALED.contains(&error.as_str())))
}

/// All challenges as they came, joined by commas.
pub(super) fn raw(headers: &HeaderMap) -> Option<Arc<str>> {
    let mut all = String::new();
    for text in texts(headers) {
        if !all.is_empty() {
            all.push_str(", ");
        }
        all.push_str(&text);
    }
    let end = (0..=all.len().min(LONGEST)).rev().find(|end| all.is_char_boundary(*end)).unwrap_or_default();
    all.truncate(end);
    (!all.is_empty()).then(|| all.into())
}

/// A quoted string may hold more than ASCII (RFC 9110 section 5.6.4), which must not hide what stands beside it.
fn texts(headers: &HeaderMap) -> impl Iterator<Item = Cow<'_, str>> {
    headers.get_all(WWW_AUTHENTICATE).iter().map(HeaderValue::as_bytes).map(String::from_utf8_lossy)
}

/// The `error` parameters of the `Bearer` challenges in one header.
fn bearer_errors(text: &str) -> impl Iterator<Item = String> {
    bearer_params(text).filter(|param| param.name.eq_ignore_ascii_case("error")).map(|param| param.value)
}

/// A parameter of a `Bearer` challenge.
pub(crate) struct Param<'a> {
    /// The number of its challenge among all.
    #[cfg_attr(not(feature = "oauth2"), expect(dead_code, reason = "only a source that answers challenges looks"))]
    pub(crate) challenge: usize,
    pub(crate) name: &'a str,
    pub(crate) value: String,
}

/// The parameters of the `Bearer` challenges in one header.
pub(crate) fn bearer_params(text: &str) -> impl Iterator<Item = Param<'_>> {
    let (mut bearer, mut challenge) = (false, 0);
    elements(text).into_iter().filter_map(move |element| {
        let (name, rest) = token(element);
        let after = rest.trim_start();
        let (name, value) = if after.starts_with('=') && (!bearer || !after.starts_with("==")) {
            (name, after[1..].trim_start())
        } else {
            bearer = name.eq_ignore_ascii_case("Bearer");
            challenge += 1;
            let (name, rest) = token(after);
            (name, rest.trim_start().strip_prefix('=')?.trim_start())
        };
        if bearer { Some(Param { challenge, name, value: unquoted(value)? }) } else { None }
    })
}

/// Splits at commas outside of quotes. An open quote ends with the text.
fn elements(text: &str) -> Vec<&str> {
    let (mut quoted, mut escaped) = (false, false);
    text.split(move |c: char| {
        let escape = quoted && c == '\\' && !escaped;
        if c == '"' && !escaped {
            quoted = !quoted;
        }
        escaped = escape;
        c == ',' && !quoted
    })
    .map(str::trim)
    .filter(|element| !element.is_empty())
    .collect()
}

fn token(text: &str) -> (&str, &str) {
    let legal = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
    text.split_at(text.find(|c| !legal(c)).unwrap_or(text.len()))
}

/// None for what is no value: then it is no parameter either, but a word of the form token68.
fn unquoted(value: &str) -> Option<String> {
    let Some(inner) = value.strip_prefix('"') else {
        return Some(token(value).0.to_owned()).filter(|word| !word.is_empty());
    };
    let mut out = String::new();
    let mut chars = inner.chars();
    while let Some(c) = chars.next() {
        match c {
            '"' => break,
            '\\' => out.extend(chars.next()),
            c => out.push(c),
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(texts: &[&str]) -> HeaderMap {
        texts.iter().map(|text| (WWW_AUTHENTICATE, text.parse().unwrap())).collect()
    }

    fn refreshes(texts: &[&str]) -> bool {
        wants_new_token(&headers(texts))
    }

    #[test]
    fn errors_of_the_token_refresh() {
        for error in HEALED {
            assert!(refreshes(&[&format!("Bearer error=\"{error}\"")]), "{error}");
            assert!(refreshes(&[&format!("Bearer realm=\"a, b\", error={error}, scope=\"x\"")]), "{error}");
        }
    }

    #[cfg(feature = "oauth2")]
    #[test]
    fn the_parameters_of_two_challenges_are_told_apart() {
        let numbers = |text| bearer_params(text).map(|param| param.challenge).collect::<Vec<_>>();
        assert_eq!(numbers("Bearer a=b, c=d, Basic e=f, Bearer g=h"), [1, 1, 3]);
    }

    #[test]
    fn errors_of_the_request_do_not() {
        for text in [
            r#"Bearer error="insufficient_scope""#,
            r#"Bearer realm="x", error="insufficient_scope""#,
            r#"Bearer realm="a\\", error="insufficient_scope""#,
            r#"bearer error="invalid_request""#,
            r#"Bearer realm="x",error="insufficient_scope", scope="a b""#,
            r#"Bearer realm="say \"hi\", you", error="insufficient_scope""#,
            r#"Bearer   error = "insufficient_scope""#,
            r#"BEARER scope="a", ERROR=insufficient_scope"#,
            r#"Basic realm="x", Bearer error="insufficient_scope""#,
            r#"Negotiate abc==, Bearer error="insufficient_scope""#,
            r#"Bearer error="insufficient_scope", Basic realm="x""#,
            r#"Bearer error="insufficient\_scope""#,
        ] {
            assert!(!refreshes(&[text]), "{text}");
        }
        assert!(!refreshes(&["Basic realm=x", "Bearer error=insufficient_scope"]));
        assert!(!refreshes(&["Bearer error=insufficient_scope", "Basic realm=x"]));
    }

    // RFC 9110 section 5.6.4: a quoted string may hold obs-text, and servers write descriptions in their own language.
    #[test]
    fn errors_are_read_beside_text_that_is_not_ascii() {
        for text in [
            &b"Bearer error=\"insufficient_scope\", error_description=\"gr\xc3\xb6\xc3\x9fer\""[..],
            b"Basic realm=\"\xfc\", Bearer error=invalid_request",
        ] {
            let headers = HeaderMap::from_iter([(WWW_AUTHENTICATE, HeaderValue::from_bytes(text).unwrap())]);
            assert!(!wants_new_token(&headers), "{}", text.escape_ascii());
        }
    }

    #[test]
    fn no_header_other_schemes_and_unreadable_ones_refresh() {
        assert!(refreshes(&[]));
        for text in [
            r#"Bearer realm="a\", error=insufficient_scope""#,
            "",
            "Bearer",
            "Bearer realm=\"x\"",
            "Basic realm=\"x\"",
            r#"Basic realm="Bearer error=insufficient_scope""#,
            r#"DPoP error="insufficient_scope""#,
            r#"Bearer realm="x", DPoP error="insufficient_scope""#,
            r#"error="insufficient_scope""#,
            "\"",
            ",,,=,;",
            "Bearer error",
            r#"Bearer error_description="error=insufficient_scope""#,
            // By the grammar no parameter, but one long word.
            "Bearer error=",
            "Bearer error==",
        ] {
            assert!(refreshes(&[text]), "{text}");
        }
        let mut raw = HeaderMap::new();
        raw.insert(WWW_AUTHENTICATE, HeaderValue::from_bytes(b"Bearer \xff").unwrap());
        assert!(wants_new_token(&raw));
    }

    #[test]
    fn the_source_sees_all_challenges_up_to_4_kib() {
        assert_eq!(raw(&headers(&["Bearer a=b", "Basic"])).as_deref(), Some("Bearer a=b, Basic"));
        assert_eq!(raw(&headers(&[])), None);
        assert_eq!(raw(&headers(&[&"x".repeat(10_000)])).unwrap().len(), LONGEST);
        let mut latin = HeaderMap::new();
        latin.insert(WWW_AUTHENTICATE, HeaderValue::from_bytes(&[0xe4; 4000]).unwrap());
        assert!(raw(&latin).unwrap().len() <= LONGEST, "cut between characters");
    }
}
