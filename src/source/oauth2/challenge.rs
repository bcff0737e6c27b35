//! What an API asks for with a 401, as parameters of the next token request.
//!
//! Untrusted text: only what can be nothing else than claims or a wish for a stronger login is taken over, form-encoded.

use crate::policy::challenge::{LONGEST, Param, bearer_params};
use base64::{
    Engine,
    alphabet::{STANDARD, URL_SAFE},
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use serde_json::{Map, Value};

/// A form's parameters.
pub(super) type Asked = Vec<(&'static str, String)>;

const CLAIMS: &str = "claims";

/// What the first `Bearer` challenge that asks for something asks for. Nothing if it is malformed: then the fetch goes on without.
pub(super) fn asked(challenge: &str) -> Asked {
    // Text of full length may have been cut, in the middle of a value.
    if challenge.len() + char::MAX.len_utf8() > LONGEST {
        return Asked::new();
    }
    let params: Vec<_> = bearer_params(challenge).collect();
    params
        .chunk_by(|one, next| one.challenge == next.challenge)
        .map(of_one)
        .find(|asked| !asked.is_empty())
        .unwrap_or_default()
}

fn of_one(params: &[Param<'_>]) -> Asked {
    // One that is there twice is malformed (RFC 9110 section 11.2).
    let param = |name: &str| {
        let mut all = params.iter().filter(|param| param.name.eq_ignore_ascii_case(name));
        all.next().filter(|_| all.next().is_none()).map(|param| param.value.as_str())
    };
    match param("error") {
        // Microsoft's continuous access evaluation.
        Some("insufficient_claims") => {
            param(CLAIMS).and_then(claims).map(|claims| (CLAIMS, claims)).into_iter().collect()
        }
        // RFC 9470 section 3.
        Some("insufficient_user_authentication") => {
            let acr =
                param("acr_values").filter(|values| is_list(values)).map(|values| ("acr_values", values.to_owned()));
            let age = param("max_age").filter(|age| is_seconds(age)).map(|age| ("max_age", age.to_owned()));
            acr.into_iter().chain(age).collect()
        }
        _ => Asked::new(),
    }
}

/// A JSON object, in base64 of either alphabet, padded or not.
fn claims(encoded: &str) -> Option<String> {
    let alphabet = if encoded.contains(['-', '_']) { URL_SAFE } else { STANDARD };
    let config = GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    let decoded = GeneralPurpose::new(&alphabet, config).decode(encoded).ok()?;
    serde_json::from_slice::<Map<String, Value>>(&decoded).ok()?;
    String::from_utf8(decoded).ok()
}

/// Names between single spaces, such as `acr_values` are (OpenID Connect Core section 3.1.2.1).
fn is_list(values: &str) -> bool {
    values.split(' ').all(|value| !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_graphic()))
}

/// Up to 31 years.
fn is_seconds(age: &str) -> bool {
    (1..10).contains(&age.len()) && age.bytes().all(|byte| byte.is_ascii_digit())
}

/// What is sent where the user and the challenge both ask for something: no API weakens the login that the user asks for.
///
/// RFC 9470 section 4 sends `acr_values` and `max_age` to the authorization endpoint, with the user; a token endpoint that takes them extends it.
pub(super) fn merged(name: &str, own: &str, asked: &str) -> String {
    match name {
        CLAIMS => merged_claims(own, asked),
        "max_age" => match (own.parse::<u64>(), asked.parse::<u64>()) {
            (Ok(mine), Ok(theirs)) if theirs < mine => asked.to_owned(),
            _ => own.to_owned(),
        },
        _ => own.to_owned(),
    }
}

/// The claims that the user always asks for, and those of the challenge. Where both name one, the challenge's is what the API waits for.
fn merged_claims(own: &str, asked: &str) -> String {
    match (serde_json::from_str(own), serde_json::from_str(asked)) {
        (Ok(Value::Object(mut own)), Ok(Value::Object(asked))) => {
            merge(&mut own, asked);
            Value::Object(own).to_string()
        }
        _ => asked.to_owned(),
    }
}

fn merge(own: &mut Map<String, Value>, asked: Map<String, Value>) {
    for (name, value) in asked {
        match (own.get_mut(&name), value) {
            (Some(Value::Object(own)), Value::Object(value)) => merge(own, value),
            (_, value) => {
                own.insert(name, value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `{"access_token":{"nbf":{"essential":true,"value":"1604106651"}}}`, with the characters in which the alphabets differ: `?`, `>`.
    const CLAIMS_JSON: &str = r#"{"access_token":{"x":">>>???"}}"#;

    fn encoded(padded: bool, url: bool) -> String {
        use base64::prelude::*;
        match (padded, url) {
            (true, true) => BASE64_URL_SAFE.encode(CLAIMS_JSON),
            (false, true) => BASE64_URL_SAFE_NO_PAD.encode(CLAIMS_JSON),
            (true, false) => BASE64_STANDARD.encode(CLAIMS_JSON),
            (false, false) => BASE64_STANDARD_NO_PAD.encode(CLAIMS_JSON),
        }
    }

    // Azure/azure-sdk-for-net#46129.
    #[test]
    fn claims_are_read_from_base64_of_any_kind() {
        assert_ne!(encoded(true, true), encoded(true, false));
        for text in [encoded(true, true), encoded(false, true), encoded(true, false), encoded(false, false)] {
            let challenge = format!(r#"Bearer realm="", error="insufficient_claims", claims="{text}""#);
            assert_eq!(asked(&challenge), [(CLAIMS, CLAIMS_JSON.to_owned())], "{challenge}");
        }
    }

    #[test]
    fn a_stronger_login_is_asked_for_as_it_stands() {
        let acr = ("acr_values", "a:b c".to_owned());
        let age = ("max_age", "300".to_owned());
        let asked = |rest| asked(&format!("Basic realm=x, Bearer error=\"insufficient_user_authentication\", {rest}"));
        assert_eq!(asked(r#"acr_values="a:b c", max_age="300""#), [acr.clone(), age.clone()]);
        assert_eq!(asked("max_age=300"), std::slice::from_ref(&age));
        assert_eq!(asked(r#"acr_values="a:b c", max_age="soon""#), [acr], "what can be read is");
        assert_eq!(asked("MAX_AGE=300, Basic realm=y"), [age]);
    }

    #[test]
    fn what_is_malformed_or_of_another_scheme_or_error_is_ignored() {
        let good = encoded(true, true);
        for challenge in [
            String::new(),
            "\"".to_owned(),
            "Bearer".to_owned(),
            format!("Bearer claims=\"{good}\""),
            format!("Bearer error=invalid_token, claims=\"{good}\""),
            format!("DPoP error=\"insufficient_claims\", claims=\"{good}\""),
            format!("Bearer error=\"insufficient_claims\", DPoP claims=\"{good}\""),
            format!("Bearer error=\"insufficient_claims\", Bearer claims=\"{good}\""),
            format!("Bearer error=\"insufficient_claims\", claims=\"{good}\", claims=\"{good}\""),
            format!("Bearer error=\"insufficient_claims\", acr_values=\"{good}\""),
            "Bearer error=\"insufficient_claims\", claims=\"%%%\"".to_owned(),
            "Bearer error=\"insufficient_claims\", claims=\"eyJh\"".to_owned(),
            "Bearer error=\"insufficient_claims\", claims=\"WzFd\"".to_owned(),
            "Bearer error=\"insufficient_claims\", claims=\"_w\"".to_owned(),
            "Bearer error=\"insufficient_claims\", claims=\"\"".to_owned(),
            r#"Bearer error="insufficient_user_authentication", acr_values="", max_age="-1""#.to_owned(),
            r#"Bearer error="insufficient_user_authentication", acr_values="a  b", max_age="1.5""#.to_owned(),
            "Bearer error=\"insufficient_user_authentication\", acr_values=\"a\tb\", max_age=\"9999999999\"".to_owned(),
            "Bearer error=\"insufficient_user_authentication\", acr_values=\"\u{fc}\"".to_owned(),
        ] {
            assert_eq!(asked(&challenge), [], "{challenge}");
        }
    }

    #[test]
    fn text_that_may_have_been_cut_is_ignored() {
        let challenge = |length: usize| {
            let head = "Bearer error=insufficient_user_authentication, max_age=1, acr_values=";
            format!("{head}{}", "a".repeat(length - head.len()))
        };
        assert_eq!(asked(&challenge(LONGEST)), []);
        assert_eq!(asked(&challenge(LONGEST - 3)), [], "cut between characters");
        assert_eq!(asked(&challenge(LONGEST - 4)).len(), 2);
    }

    #[test]
    fn own_claims_and_those_of_the_challenge_are_both_asked_for() {
        let own = r#"{"access_token":{"xms_cc":{"values":["cp1"]},"a":1}}"#;
        let both = merged(CLAIMS, own, r#"{"access_token":{"a":2,"b":3},"c":null}"#);
        assert_eq!(both, r#"{"access_token":{"a":2,"b":3,"xms_cc":{"values":["cp1"]}},"c":null}"#);
        assert_eq!(merged(CLAIMS, "no json", r#"{"c":1}"#), r#"{"c":1}"#);
    }

    #[test]
    fn of_two_ages_the_smaller_is_asked_for_and_own_acr_values_stay() {
        for (own, asked, sent) in
            [("60", "999999999", "60"), ("60", "5", "5"), ("10000000000", "5", "5"), ("9", "10", "9")]
        {
            assert_eq!(merged("max_age", own, asked), sent);
        }
        assert_eq!(merged("max_age", "own", "5"), "own", "as it stands, for the server to judge");
        assert_eq!(merged("acr_values", "own", "theirs"), "own");
    }
}
