//! `Token::from_jwt` on anything, and against `jsonwebtoken`'s own decoding of the payload.

#![no_main]

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use jsonwebtoken::dangerous::insecure_decode_claims;
use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use tower_jwt_refresh::{InvalidToken, Token};
use tower_jwt_refresh_fuzz::{at, json::Object, same};

fuzz_target!(|data: &[u8]| {
    // A payload, so that the fuzzer need not find base64 by itself; or the whole of it.
    let jwt = match data.split_first() {
        Some((b'.', whole)) => String::from_utf8_lossy(whole).into_owned(),
        _ => format!("e30.{}.c2ln", BASE64_URL_SAFE_NO_PAD.encode(data)),
    };
    let ours = Token::from_jwt(jwt.clone());
    if let Ok(token) = &ours {
        assert_eq!(token.expose_secret(), jwt);
    }
    let sendable = !jwt.is_empty() && jwt.len() <= 64 * 1024 && jwt.bytes().all(|byte| byte.is_ascii_graphic());
    let Ok(theirs) = insecure_decode_claims::<Object>(&jwt) else { return };
    // Theirs splits from the right, and so takes the payload of what has more parts.
    if !sendable || jwt.split('.').count() != 3 {
        assert!(ours.is_err());
        return;
    }
    if ["exp", "nbf"].into_iter().any(|name| theirs.is_double(name)) {
        assert_eq!(ours.err(), Some(InvalidToken::NotJson));
        return;
    }
    let expires = ours.expect("what jsonwebtoken reads").expires_at();
    match theirs.get("exp") {
        None | Some(Value::Bool(_) | Value::Array(_) | Value::Object(_)) => assert_eq!(expires, None),
        Some(Value::Number(number)) => {
            let seconds = number.as_f64().expect("without arbitrary precision every number is one");
            match expires {
                Some(expires) => assert!(same(expires, at(seconds)), "{expires:?} {seconds}"),
                // Below the epoch, or beyond what a `SystemTime` holds.
                None => assert!(seconds < 0.0 || seconds > i64::MAX as f64 / 2.0, "{seconds}"),
            }
        }
        // A number in a string is read, which is ours alone.
        Some(Value::String(text)) => assert!(expires.is_none() || text.parse::<f64>().is_ok()),
        Some(Value::Null) => unreachable!("`get` gives none for null"),
    }
});
