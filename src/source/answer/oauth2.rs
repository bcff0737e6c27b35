//! What OAuth puts into an answer: RFC 6749 section 5.1, RFC 8693 section 2.2.1.

use super::{
    AnswerError, Names, Object, error,
    lifetime::{Ends, Said},
    object, of_text, string,
};
use crate::{InvalidToken, Token};
use serde_json::value::RawValue;
use std::time::SystemTime;
use zeroize::Zeroizing;

const ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";

/// The token in an answer that the server wrote at `date`, if it says when. What a token exchange gives may be of a type that has no name.
pub(in crate::source) fn access_token(
    body: &[u8],
    date: Option<SystemTime>,
    exchanged: bool,
) -> Result<Token, AnswerError> {
    if body.trim_ascii().is_empty() {
        return Err(AnswerError::Empty);
    }
    let whole: &RawValue = serde_json::from_slice(body).map_err(|_| AnswerError::NotAnObject)?;
    let top = Object::read(whole).ok_or(AnswerError::NotAnObject)?;
    // An error tells more than that there is no token.
    let refused = |or| error(&top).map_or(or, |code| AnswerError::Refused { code });
    let text = match top.get("access_token")?.map(string) {
        Some(Some(text)) if !text.is_empty() => text,
        Some(Some(_)) => return Err(refused(AnswerError::IllegalToken(InvalidToken::Empty))),
        Some(None) => return Err(refused(AnswerError::NoAccessToken { found: "something else than a string" })),
        None => return Err(refused(AnswerError::NoAccessToken { found: "no token" })),
    };
    let token = of_text(&text)?;
    if !is_bearer(&top, exchanged)? {
        return Err(AnswerError::NotBearer);
    }
    Ok(Said::by([None, Some(&top)], whole, &Names::OF_ENDPOINTS, &Ends::default())?.put_on(token, date))
}

/// The new refresh token, whatever else is wrong with the answer: the server may have withdrawn the old one.
pub(in crate::source) fn refresh_token(body: &[u8]) -> Option<Zeroizing<String>> {
    let top = object(body).ok()?;
    top.get("refresh_token").ok()?.and_then(string).filter(|token| !token.is_empty())
}

/// A missing type counts as Bearer: some servers leave it out, and nothing else could be meant.
fn is_bearer(top: &Object<'_>, exchanged: bool) -> Result<bool, AnswerError> {
    let Some(kind) = top.get("token_type")? else { return Ok(true) };
    let Some(kind) = string(kind) else { return Ok(false) };
    // RFC 8693 section 2.2.1: of what is no access token there is no way of use to name.
    let of_no_type = || {
        let issued = top.get("issued_token_type")?.and_then(string);
        Ok(exchanged && kind.eq_ignore_ascii_case("N_A") && issued.is_none_or(|issued| *issued != ACCESS_TOKEN))
    };
    if kind.eq_ignore_ascii_case("Bearer") { Ok(true) } else { of_no_type() }
}

/// A member that is a string; none if it is there twice, since nothing says which is meant.
pub(in crate::source) fn string_at(object: &Object<'_>, name: &str) -> Option<String> {
    member(object, name)
}

/// A member that is a list of strings.
pub(in crate::source) fn strings_at(object: &Object<'_>, name: &str) -> Option<Vec<String>> {
    member(object, name)
}

fn member<'a, T: serde::Deserialize<'a>>(object: &Object<'a>, name: &str) -> Option<T> {
    let raw: &'a RawValue = object.get(name).ok()??;
    serde_json::from_str(raw.get()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(rest: &str, exchanged: bool) -> Result<String, AnswerError> {
        let body = format!(r#"{{"access_token":"t"{rest}}}"#);
        access_token(body.as_bytes(), None, exchanged).map(|token| token.expose_secret().to_owned())
    }

    #[test]
    fn a_token_that_takes_a_proof_is_refused_and_bearer_is_written_in_any_case() {
        for kind in [r#""Bearer""#, r#""bearer""#, r#""BEARER""#, "null"] {
            assert_eq!(read(&format!(r#","token_type":{kind}"#), false).unwrap(), "t", "{kind}");
        }
        assert_eq!(read("", false).unwrap(), "t");
        for kind in [r#""DPoP""#, r#""mac""#, r#""N_A""#, r#""""#, "7"] {
            assert_eq!(read(&format!(r#","token_type":{kind}"#), false), Err(AnswerError::NotBearer), "{kind}");
        }
        assert_eq!(
            read(r#","token_type":"Bearer","token_type":"DPoP""#, false),
            Err(AnswerError::Duplicate { name: "token_type".into() })
        );
    }

    #[test]
    fn what_a_token_exchange_gives_may_be_no_access_token_and_then_has_no_type() {
        let issued = |kind: &str| format!(r#","token_type":"N_A","issued_token_type":"{kind}""#);
        assert_eq!(read(&issued("urn:ietf:params:oauth:token-type:id_token"), true).unwrap(), "t");
        assert_eq!(read(r#","token_type":"n_a""#, true).unwrap(), "t");
        assert_eq!(read(&issued(ACCESS_TOKEN), true), Err(AnswerError::NotBearer));
        assert_eq!(read(r#","token_type":"DPoP""#, true), Err(AnswerError::NotBearer));
    }

    #[test]
    fn only_access_token_is_the_token_and_an_error_tells_more_than_its_absence() {
        let read = |body: &str| access_token(body.as_bytes(), None, false).map(drop);
        for body in [r#"{"jwt":"s3cr3t"}"#, r#"{"access_token":null,"id_token":"s3cr3t"}"#] {
            assert_eq!(read(body), Err(AnswerError::NoAccessToken { found: "no token" }), "{body}");
        }
        assert_eq!(read(" "), Err(AnswerError::Empty));
        assert_eq!(read("<html>"), Err(AnswerError::NotAnObject));
        assert_eq!(read(r#"{"access_token":""}"#), Err(AnswerError::IllegalToken(InvalidToken::Empty)));
        assert_eq!(read(r#"{"error":"invalid_target"}"#), Err(AnswerError::Refused { code: Some("invalid_target") }));
        assert_eq!(read(r#"{"access_token":"","error":"x"}"#), Err(AnswerError::Refused { code: None }));
    }

    #[test]
    fn a_refresh_token_is_found_in_an_answer_whose_access_token_is_of_no_use() {
        let found = |body: &str| refresh_token(body.as_bytes()).map(|token| token.to_string());
        for body in [r#"{"access_token":7,"refresh_token":"r2"}"#, r#"{"token_type":"DPoP","refresh_token":"r2"}"#] {
            assert_eq!(found(body).as_deref(), Some("r2"), "{body}");
        }
        for body in [
            "",
            "{}",
            r#"{"refresh_token":null}"#,
            r#"{"refresh_token":""}"#,
            r#"{"refresh_token":7}"#,
            r#"{"refresh_token":"a","refresh_token":"b"}"#,
        ] {
            assert_eq!(found(body), None, "{body}");
        }
    }
}
