//! A token endpoint's answers, JSON and other, through an exchange and the provider that holds its token: read the same way each time, and
//! as `serde_json::Value` has it.

#![no_main]

use arbitrary::{Result, Unstructured};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use bytes::Bytes;
use http::{HeaderName, Response, header};
use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use std::time::SystemTime;
use tower_jwt_refresh::Token;
use tower_jwt_refresh_fuzz::{
    NOW, at,
    endpoint::{Asked, Outcome},
    json::Object,
    same,
};

thread_local! {
    /// Usual places, a pointer, a header, places of the lifetime.
    static ASKED: [Asked; 4] = [
        Asked::new(|exchange| exchange),
        Asked::new(|exchange| exchange.token_at("/data/0/token")),
        Asked::new(|exchange| exchange.token_from_header(HeaderName::from_static("x-token"))),
        Asked::new(|exchange| exchange.lifetime_at("/data/ttl").expiry_at("/data/end")),
    ];
}

fuzz_target!(|data: &[u8]| {
    let Some((form, body)) = data.split_first() else { return };
    // JSON by the bytes, or put together.
    let body = if form & 8 == 0 { Ok(body.to_vec()) } else { written(&mut Unstructured::new(body)) };
    let Ok(body) = body else { return };
    // The server's clock is a minute behind ours.
    let date = form & 16 != 0;
    let ask = || {
        let mut answer = Response::builder().status(if form & 32 == 0 { 200 } else { 400 });
        if date {
            answer = answer.header(header::DATE, httpdate::fmt_http_date(at((NOW - 60) as f64)));
        }
        let answer = answer.header("x-token", "Bearer from-the-header").body(Bytes::from(body.clone()));
        ASKED.with(|asked| asked[usize::from(form & 3)].answering(answer.expect("legal")))
    };
    let outcome = ask();
    assert_eq!(told(&outcome), told(&ask()));
    if let Err(error) = &outcome.token {
        let text = format!("{error} {error:?}");
        assert!(!text.contains("s3cr3t"), "{text}");
    }
    if form & 32 != 0 {
        outcome.token.expect_err("400 is no success");
    } else if form & 3 == 0
        && let Some(object) = Object::read(&body)
    {
        check(&object, date, &outcome);
    }
});

/// In words, without what differs from one provider to the next.
fn told(outcome: &Outcome) -> String {
    match &outcome.token {
        Ok(token) => format!("{} until {:?}", token.expose_secret(), token.expires_at()),
        Err(error) => {
            let mut text = error.to_string();
            let mut source = std::error::Error::source(error);
            while let Some(error) = source {
                text = format!("{text}: {error}");
                source = error.source();
            }
            text
        }
    }
}

const NAMES: [&str; 4] = ["jwt", "access_token", "token", "id_token"];
const TEN_YEARS: f64 = (10 * 366 * 24 * 3600) as f64;

fn check(object: &Object, date: bool, outcome: &Outcome) {
    let token = outcome.token.as_ref();
    if NAMES.into_iter().chain(["expires_in", "expires_at"]).any(|name| object.is_double(name)) {
        token.expect_err("nothing says which is meant");
        return;
    }
    let found = NAMES.into_iter().find_map(|name| object.get(name));
    let Some(text) = found.and_then(Value::as_str).filter(|text| Token::opaque(*text).is_ok()) else {
        token.expect_err("there is no token");
        return;
    };
    let token = token.expect("there is a token");
    assert_eq!(token.expose_secret(), text);

    let own = Token::from_jwt(text).ok().and_then(|token| token.expires_at());
    // By our clock, if the server's is a minute behind and says so.
    let own = own.and_then(seconds).map(|own| if date { own + 60.0 } else { own });
    let span = match object.get("expires_in") {
        None => None,
        Some(Value::Number(number)) => number.as_f64().filter(|span| *span > 0.0 && *span <= TEN_YEARS),
        // A number in a string may be one: enough is checked without it.
        Some(Value::String(_)) => return,
        Some(_) => None,
    };
    let expected = match (span, own) {
        (Some(span), Some(own)) if date => Some((NOW as f64 + span).min(own)),
        (Some(span), _) => Some(NOW as f64 + span),
        (None, own) if object.get("expires_at").is_none() => own,
        _ => return,
    };
    // What is dead on arrival, or lives for more than ten years, is held as opaque.
    let near = |end: f64| end > NOW as f64 + 1.0 && end < NOW as f64 + TEN_YEARS - 61.0;
    match expected {
        Some(end) if near(end) => {
            let expires = token.expires_at().expect("it says when it ends");
            assert!(same(expires, at(end)), "{expires:?}, not {end}");
        }
        None => assert_eq!(token.expires_at(), None),
        Some(_) => {}
    }
}

fn seconds(moment: SystemTime) -> Option<f64> {
    Some(moment.duration_since(SystemTime::UNIX_EPOCH).ok()?.as_secs_f64())
}

/// An object with members that mean something, most of the time.
fn written(u: &mut Unstructured<'_>) -> Result<Vec<u8>> {
    let mut members = Vec::new();
    for _ in 0..u.int_in_range(0..=4)? {
        let name =
            *u.choose(&["jwt", "access_token", "token", "id_token", "expires_in", "expires_at", "error", "data"])?;
        members.push(format!("\"{name}\":{}", written_value(u, name)?));
    }
    Ok(format!("{{{}}}", members.join(",")).into_bytes())
}

fn written_value(u: &mut Unstructured<'_>, name: &str) -> Result<String> {
    let near: u16 = u.arbitrary()?;
    let moment = NOW + u64::from(near);
    Ok(match u.int_in_range(0..=11)? {
        0 => "null".into(),
        1 => "\"s3cr3t\"".into(),
        2 | 3 => {
            let exp = *u.choose(&["", "\"", ".5", "e3", "000"])?;
            let payload =
                format!("{{\"exp\":{moment}{exp}}}").replace(&format!("{moment}\""), &format!("\"{moment}\""));
            format!("\"e30.{}.c2ln\"", BASE64_URL_SAFE_NO_PAD.encode(payload))
        }
        4 => near.to_string(),
        5 => moment.to_string(),
        6 => format!("{moment}000"),
        7 => format!("\"{}\"", u.choose(&["invalid_grant", "3600", "2026-01-02T00:00:00Z", "soon", "", "1e9"])?),
        8 => u.choose(&["-1", "0", "1e400", "0.25", "1e-9", "3e9", "true", "{}", "[]"])?.to_string(),
        9 if name == "data" => format!("[{{\"token\":\"s3cr3t\",\"expires_in\":{near}}}]"),
        10 => format!("{{\"ttl\":{near},\"end\":{moment},\"token\":\"s3cr3t\"}}"),
        _ => format!("\"{}\"", u.choose(&["opaque", "a.b.c", "Bearer x", "\\u0041", "\\ud800"])?),
    })
}
