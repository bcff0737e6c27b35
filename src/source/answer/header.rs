//! A token that comes in a header of the answer.

use super::{AnswerError, Ends, Names, Object, error, lifetime::Said, of_text};
use crate::{InvalidToken, Token};
use http::{HeaderMap, HeaderName};
use serde_json::value::RawValue;
use std::time::SystemTime;

/// The token in this header, raw or after `Bearer`. The body is read for its lifetime alone, and need be no JSON unless a place in it was named.
pub(in crate::source) fn token_in_header(
    headers: &HeaderMap,
    name: &HeaderName,
    body: &[u8],
    ends: &Ends,
    date: Option<SystemTime>,
) -> Result<Token, AnswerError> {
    let whole: Option<&RawValue> = serde_json::from_slice(body).ok();
    let top = whole.and_then(Object::read);
    let mut all = headers.get_all(name).iter();
    let Some(value) = all.next() else {
        // An error tells more than that there is no token.
        return Err(match top.as_ref().and_then(error) {
            Some(code) => AnswerError::Refused { code },
            None => AnswerError::NoToken { place: format!("the header `{name}`") },
        });
    };
    if all.next().is_some() {
        return Err(AnswerError::Duplicate { name: name.to_string() });
    }
    let illegal = |byte: &u8| !byte.is_ascii_graphic() && *byte != b' ';
    let text = value.to_str().map_err(|_| {
        let at = value.as_bytes().iter().position(illegal).unwrap_or_default();
        AnswerError::IllegalToken(InvalidToken::IllegalCharacter { at })
    })?;
    // RFC 9110 section 11.1: a scheme's name has no case.
    let token = match text.split_at_checked(7) {
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("bearer ") => of_text(rest.trim())?,
        _ => of_text(text)?,
    };
    let said = match whole {
        Some(whole) => Said::by([None, top.as_ref()], whole, &Names::OF_ENDPOINTS, ends)?,
        None if ends.are_named() => return Err(AnswerError::NotAnObject),
        None => Said::default(),
    };
    Ok(said.put_on(token, date))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::token::Expiry;
    use http::HeaderValue;
    use std::time::Duration;

    const NAME: HeaderName = HeaderName::from_static("x-subject-token");

    fn read(values: &[&'static str], body: &str, ends: &Ends) -> Result<Token, AnswerError> {
        let headers = values.iter().map(|value| (NAME, HeaderValue::from_str(value).unwrap())).collect();
        token_in_header(&headers, &NAME, body.as_bytes(), ends, None)
    }

    #[test]
    fn the_header_holds_the_token_raw_or_as_bearer_and_the_body_may_be_anything() {
        for value in ["t", "Bearer t", "bearer  t", "BEARER t"] {
            for body in ["", "<html>", "[]", "7", r#"{"token":"another","error":"x"}"#] {
                let token = read(&[value], body, &Ends::default()).unwrap();
                assert_eq!((token.expose_secret(), token.expiry), ("t", Expiry::Unknown), "{value} {body}");
            }
        }
        let token = read(&["t"], r#"{"expires_in":60}"#, &Ends::default()).unwrap();
        assert_eq!(token.expiry, Expiry::In(Duration::from_secs(60)));
    }

    #[test]
    fn a_lifetime_whose_place_was_named_needs_a_body_that_can_hold_it() {
        let ends = Ends { expiry: Some("/token/expires_at".into()), ..Ends::default() };
        let token = read(&["t"], r#"{"token":{"expires_at":"2027-01-15T08:00:00.000000Z"}}"#, &ends).unwrap();
        assert!(matches!(token.expiry, Expiry::At(_)));
        assert_eq!(read(&["t"], "", &ends).unwrap_err(), AnswerError::NotAnObject);
        assert_eq!(read(&["t"], "{}", &ends).unwrap().expiry, Expiry::Absurd, "the log says so");
    }

    #[test]
    fn a_header_that_is_not_there_or_of_no_use_is_an_error_that_quotes_nothing() {
        let says = |values: &[&'static str], body: &str| {
            let error = read(values, body, &Ends::default()).unwrap_err();
            assert!(!format!("{error} {error:?}").contains("s3cr3t"), "{error:?}");
            error.to_string()
        };
        assert!(says(&[], "").contains("no token at the header `x-subject-token`"));
        assert!(says(&[], r#"{"error":"invalid_grant"}"#).contains("(invalid_grant)"));
        assert!(says(&["s3cr3t", "s3cr3t2"], "").contains("`x-subject-token` twice"));
        for useless in ["", "Bearer ", "s3cr3t s3cr3t", "s3cr3t\u{fc}"] {
            assert!(says(&[useless], "").contains("of no use"), "{useless}");
        }
    }
}
