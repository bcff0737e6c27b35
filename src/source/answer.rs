//! Reading the token out of an answer.
//!
//! Members are looked at as raw JSON, borrowed from the answer: nothing is copied that would have to be wiped, a number that no `f64` holds makes
//! nothing unreadable, and of two members with one name none is taken.

#[cfg(feature = "exchange")]
mod header;
mod lifetime;
#[cfg(feature = "oauth2")]
mod oauth2;

#[cfg(feature = "exchange")]
pub(super) use header::token_in_header;
pub(super) use lifetime::Ends;
#[cfg(feature = "oauth2")]
pub(super) use oauth2::{access_token, refresh_token, string_at, strings_at};

use crate::{InvalidToken, Token};
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;
use std::{fmt, time::SystemTime};
use zeroize::Zeroizing;

/// What things are called where nobody said where they are. Of each kind the first that is there, or makes sense.
#[derive(Debug)]
pub(super) struct Names {
    /// JSON pointers to the objects that tokens are in.
    pub(super) holders: &'static [&'static str],
    pub(super) tokens: &'static [&'static str],
    /// Lifetimes in seconds.
    pub(super) spans: &'static [&'static str],
    /// Ends.
    pub(super) moments: &'static [&'static str],
}

impl Names {
    /// In an endpoint's answer: what RFC 6749 section 5.1 names, and what is in use beside it.
    #[cfg(feature = "exchange")]
    const OF_ENDPOINTS: Self = Self {
        holders: &[""],
        tokens: &["jwt", "access_token", "token", "id_token"],
        spans: &["expires_in"],
        moments: &["expires_at"],
    };

    /// The tokens', as an error tells them.
    fn listed(&self) -> String {
        let (last, first) = self.tokens.split_last().expect("there is a name");
        format!("`{}` or `{last}`", first.join("`, `"))
    }
}

/// RFC 6749 section 5.2 and RFC 8707 section 2: the credential or the request is wrong, so the same again gets the same answer. Codes of
/// other places (`temporarily_unavailable`, `slow_down`) say that it may change.
pub(super) const FINAL: [&str; 7] = [
    "invalid_request",
    "invalid_client",
    "invalid_grant",
    "unauthorized_client",
    "unsupported_grant_type",
    "invalid_scope",
    "invalid_target",
];

/// What is wrong with an answer that should hold a token. Never quotes it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AnswerError {
    /// There is nothing.
    #[error("the answer is empty: is this the URL of the token endpoint?")]
    Empty,
    /// Packed, and not as it says.
    #[error(
        "the answer is packed in another way than asked for (gzip, deflate), or does not unpack: look at its `content-encoding`, and at what is on the way"
    )]
    NotUnpacked,
    /// A login page, perhaps.
    #[error(
        "the answer is no JSON object: is this the URL of the token endpoint, or does a proxy or login page answer in its place?"
    )]
    NotAnObject,
    /// A member twice, of which only one can be meant.
    #[error("the answer has `{name}` twice, and nothing says which is meant")]
    Duplicate {
        /// Which.
        name: String,
    },
    /// An error under a status of success.
    #[error("the answer is an error in spite of its status{}: look at what the endpoint logs", code.map(|code| format!(" ({code})")).unwrap_or_default())]
    Refused {
        /// OAuth's error code (RFC 6749 section 5.2), if it is one; then asking again cannot help.
        code: Option<&'static str>,
    },
    /// There is none where it was looked for.
    #[error("the answer has no token at {place}: name its place with `token_at` or `token_from_header`")]
    NoToken {
        /// Where.
        place: String,
    },
    /// There is something else where it was looked for.
    #[error("the answer has something else than a string at {place}: name the token's place with `token_at`")]
    NotAString {
        /// Where.
        place: String,
    },
    /// No `access_token` that is a string, where OAuth says it is (RFC 6749 section 5.1).
    #[error("the answer has {found} at `access_token`: is this the URL of an OAuth token endpoint?")]
    NoAccessToken {
        /// What is there instead.
        found: &'static str,
    },
    /// A token that is no good by itself: it takes a proof with each request (DPoP, MAC), and must not be used by who does not know how (RFC 6749
    /// section 7.1).
    #[error(
        "the answer's `token_type` is not Bearer, so the token cannot be sent as it is: have the server give this client bearer tokens"
    )]
    NotBearer,
    /// It could not be sent.
    #[error("the answer's token is of no use")]
    IllegalToken(#[source] InvalidToken),
}

/// The token in an endpoint's answer, written at `date`, if it says when.
#[cfg(feature = "exchange")]
pub(super) fn token(
    body: &[u8],
    pointer: Option<&str>,
    ends: &Ends,
    date: Option<SystemTime>,
) -> Result<Token, AnswerError> {
    named_token(body, &Names::OF_ENDPOINTS, pointer, ends, date)
}

/// The token in an answer that uses these names.
pub(super) fn named_token(
    body: &[u8],
    names: &Names,
    pointer: Option<&str>,
    ends: &Ends,
    date: Option<SystemTime>,
) -> Result<Token, AnswerError> {
    if body.trim_ascii().is_empty() {
        return Err(AnswerError::Empty);
    }
    let whole: &RawValue = serde_json::from_slice(body).map_err(|_| AnswerError::NotAnObject)?;
    let top = Object::read(whole);
    let place = || pointer.map_or_else(|| names.listed(), |at| format!("`{at}`"));
    let (beside, found) = match pointer {
        Some(pointer) => find(whole, pointer)?,
        None => find_named(whole, names)?,
    };
    let text = match found.map(string) {
        Some(Some(text)) if !text.is_empty() => text,
        other => {
            // An error tells more than that there is no token.
            if let Some(top) = &top
                && let Some(code) = error(top)
            {
                return Err(AnswerError::Refused { code });
            }
            return Err(match other {
                None => AnswerError::NoToken { place: place() },
                Some(None) => AnswerError::NotAString { place: place() },
                Some(Some(_)) => AnswerError::IllegalToken(InvalidToken::Empty),
            });
        }
    };
    let token = of_text(&text)?;
    let said = lifetime::Said::by([beside.as_ref(), top.as_ref()], whole, names, ends)?;
    Ok(said.put_on(token, date))
}

/// The first of the names that is there; also gives the object that has it.
fn find_named<'a>(
    whole: &'a RawValue,
    names: &Names,
) -> Result<(Option<Object<'a>>, Option<&'a RawValue>), AnswerError> {
    Object::read(whole).ok_or(AnswerError::NotAnObject)?;
    for holder in names.holders {
        let Some(holder) = find(whole, holder)?.1.and_then(Object::read) else { continue };
        let mut found = None;
        for name in names.tokens {
            found = found.or(holder.get(name)?);
        }
        if found.is_some() {
            return Ok((Some(holder), found));
        }
    }
    Ok((None, None))
}

/// A JWT, or what is none.
pub(super) fn of_text(text: &str) -> Result<Token, AnswerError> {
    let token = match Token::from_jwt(text) {
        Err(InvalidToken::NotAJwt { .. } | InvalidToken::NotBase64 | InvalidToken::NotJson) => Token::opaque(text),
        result => result,
    };
    token.map_err(AnswerError::IllegalToken)
}

pub(super) fn object(body: &[u8]) -> Result<Object<'_>, AnswerError> {
    let whole = serde_json::from_slice(body).map_err(|_| AnswerError::NotAnObject)?;
    Object::read(whole).ok_or(AnswerError::NotAnObject)
}

/// The error that an answer reports; its code, if that is one that will not change.
fn error(top: &Object<'_>) -> Option<Option<&'static str>> {
    let error = top.get("error").ok()??;
    let none = matches!(error.get(), "false" | "0" | "\"\"" | "{}" | "[]");
    (!none).then(|| final_code(top))
}

/// The object's `error`, if it is one that will not change; ours, not the endpoint's text.
pub(super) fn final_code(object: &Object<'_>) -> Option<&'static str> {
    let error = object.get("error").ok()??;
    let error: String = serde_json::from_str(error.get()).ok()?;
    FINAL.into_iter().find(|code| *code == error)
}

fn string(raw: &RawValue) -> Option<Zeroizing<String>> {
    serde_json::from_str(raw.get()).ok().map(Zeroizing::new)
}

/// RFC 6901 section 3.
pub(super) fn is_pointer(pointer: &str) -> bool {
    let escaped = pointer.split('~').skip(1).all(|rest| rest.starts_with(['0', '1']));
    escaped && (pointer.is_empty() || pointer.starts_with('/'))
}

/// Follows a pointer; also gives the object that holds what it points at.
fn find<'a>(whole: &'a RawValue, pointer: &str) -> Result<(Option<Object<'a>>, Option<&'a RawValue>), AnswerError> {
    let (mut holder, mut at) = (None, Some(whole));
    for step in pointer.split('/').skip(1) {
        let step = step.replace("~1", "/").replace("~0", "~");
        let Some(here) = at else { return Ok((None, None)) };
        holder = Object::read(here);
        at = match &holder {
            Some(object) => object.get(&step)?,
            None => serde_json::from_str::<Vec<&RawValue>>(here.get())
                .ok()
                .and_then(|list| list.get(step.parse::<usize>().ok()?).copied()),
        };
    }
    Ok((holder, at.filter(|at| at.get() != "null")))
}

/// The members of a JSON object, as they stand.
pub(super) struct Object<'a>(Vec<(String, &'a RawValue)>);

impl<'a> Object<'a> {
    fn read(raw: &'a RawValue) -> Option<Self> {
        serde_json::from_str(raw.get()).ok()
    }

    /// None also for null.
    pub(super) fn get(&self, name: &str) -> Result<Option<&'a RawValue>, AnswerError> {
        let mut all = self.0.iter().filter(|(key, _)| key == name).map(|(_, value)| *value);
        let first = all.next().filter(|value| value.get() != "null");
        if all.next().is_some() { Err(AnswerError::Duplicate { name: name.to_owned() }) } else { Ok(first) }
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Object<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;

        impl<'de> Visitor<'de> for Members {
            type Value = Vec<(String, &'de RawValue)>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(members)
            }
        }

        deserializer.deserialize_map(Members).map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const JWT: &str = "e30.eyJleHAiOjE5MDAwMDAwMDB9.c2ln";

    fn read(body: &str) -> Result<String, AnswerError> {
        token(body.as_bytes(), None, &Ends::default(), None).map(|token| token.expose_secret().to_owned())
    }

    fn at(pointer: &str, body: &str) -> Result<String, AnswerError> {
        token(body.as_bytes(), Some(pointer), &Ends::default(), None).map(|token| token.expose_secret().to_owned())
    }

    #[test]
    fn the_first_of_the_usual_names_that_is_there_is_the_token() {
        for name in Names::OF_ENDPOINTS.tokens {
            assert_eq!(read(&format!(r#" {{"a":[1],"{name}":"s3cr3t"}} "#)).unwrap(), "s3cr3t");
        }
        assert_eq!(read(r#"{"id_token":"4","token":"3","access_token":"2","jwt":"1"}"#).unwrap(), "1");
        assert_eq!(read(r#"{"jwt":null,"access_token":"2"}"#).unwrap(), "2");
        assert_eq!(read(r#"{"error":null,"jwt":"1"}"#).unwrap(), "1");
        assert_eq!(read(r#"{"jwt":"\u0061\/b"}"#).unwrap(), "a/b", "escapes are undone");
    }

    #[test]
    fn a_pointer_finds_it_anywhere() {
        assert_eq!(at("/data/token", r#"{"token":"no","data":{"token":"yes"}}"#).unwrap(), "yes");
        assert_eq!(at("/a/1/b", r#"{"a":[0,{"b":"yes"}]}"#).unwrap(), "yes");
        assert_eq!(at("/a~1b/~0c", r#"{"a/b":{"~c":"yes"}}"#).unwrap(), "yes");
        assert_eq!(at("", r#""yes""#).unwrap(), "yes");
        for (pointer, body) in [
            ("/x", "{}"),
            ("/x/y", r#"{"x":"s3cr3t"}"#),
            ("/x/9", r#"{"x":[]}"#),
            ("/x", "[]"),
            ("/x/a", r#"{"x":["s3cr3t"]}"#),
        ] {
            let error = at(pointer, body).unwrap_err();
            assert_eq!(error, AnswerError::NoToken { place: format!("`{pointer}`") }, "{body}");
        }
        assert!(["", "/", "/a/0", "/~0~1"].into_iter().all(is_pointer));
        assert!(!["a", "a/b", "/~", "/~2", "$.a"].into_iter().any(is_pointer));
    }

    #[test]
    fn with_a_pointer_the_lifetime_beside_the_token_goes_before_the_one_at_the_top() {
        let expiry = |body: &str| token(body.as_bytes(), Some("/data/token"), &Ends::default(), None).unwrap().expiry;
        let seconds = |seconds| crate::token::Expiry::In(std::time::Duration::from_secs(seconds));
        assert_eq!(expiry(r#"{"expires_in":9,"data":{"token":"t","expires_in":5}}"#), seconds(5));
        assert_eq!(expiry(r#"{"expires_in":9,"data":{"token":"t","expires_in":null}}"#), seconds(9));
    }

    #[test]
    fn a_jwt_says_when_it_ends_and_another_token_is_opaque() {
        let expires = |body: &str| token(body.as_bytes(), None, &Ends::default(), None).unwrap().expires_at();
        assert!(expires(&format!(r#"{{"jwt":"{JWT}"}}"#)).is_some());
        for opaque in ["opaque", "a.b.c", "e30.e30.e30.e30.e30", "e30.W10.c2ln"] {
            assert_eq!(expires(&format!(r#"{{"jwt":"{opaque}"}}"#)), None, "{opaque}");
        }
    }

    // Scenarios 62 and 101; boto/botocore#3775.
    #[test]
    fn an_answer_without_a_usable_token_is_an_error_that_says_what_it_is_and_quotes_nothing() {
        let deep = format!(r#"{{"jwt":{}"s3cr3t"{}}}"#, "[".repeat(50_000), "]".repeat(50_000));
        for (body, says) in [
            ("", "is empty"),
            (" \r\n", "is empty"),
            ("<!doctype html>s3cr3t", "no JSON object"),
            ("s3cr3t", "no JSON object"),
            (r#""s3cr3t""#, "no JSON object"),
            (r#"["s3cr3t"]"#, "no JSON object"),
            (r#"{"jwt":"s3cr3t""#, "no JSON object"),
            (r#"{"jwt":"s3cr3t"} x"#, "no JSON object"),
            ("{}", "no token at `jwt`"),
            (r#"{"error":false}"#, "no token at `jwt`"),
            (r#"{"error":0,"jwt":null}"#, "no token at `jwt`"),
            (r#"{"jwt":null}"#, "no token at `jwt`"),
            (r#"{"JWT":"s3cr3t"}"#, "`token_at`"),
            (r#"{"jwt":7}"#, "something else than a string"),
            (r#"{"jwt":{"token":"s3cr3t"},"token":"s3cr3t"}"#, "something else than a string"),
            (&deep, "something else than a string"),
            (r#"{"jwt":"\ud800"}"#, "something else than a string"),
            (r#"{"jwt":""}"#, "of no use"),
            (r#"{"jwt":"s3cr3t\n"}"#, "of no use"),
            (r#"{"jwt":"s3cr3t\u0000"}"#, "of no use"),
            (r#"{"jwt":"Bearer s3cr3t"}"#, "of no use"),
            (r#"{"jwt":"s3cr3t","jwt":"s3cr3t2"}"#, "`jwt` twice"),
            (r#"{"jwt":"s3cr3t","token":"a","token":"a"}"#, "`token` twice"),
            (r#"{"jwt":"s3cr3t","expires_in":1,"expires_in":2}"#, "`expires_in` twice"),
            (r#"{"error":"s3cr3t"}"#, "an error in spite of its status:"),
            (r#"{"error":{"message":"s3cr3t"}}"#, "an error in spite of its status:"),
            (r#"{"ok":false,"error":"invalid_auth","token":""}"#, "an error in spite of its status:"),
            (r#"{"error":"invalid_grant","error_description":"s3cr3t"}"#, "(invalid_grant)"),
        ] {
            let error = read(body).unwrap_err();
            let text = error.to_string();
            assert!(text.contains(says), "{text}");
            assert!(!format!("{text} {error:?}").contains("s3cr3t"), "{error:?}");
        }
    }
}
