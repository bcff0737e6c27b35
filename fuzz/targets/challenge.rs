//! `WWW-Authenticate` through the whole layer: challenges built by the grammar (RFC 9110 section 11.6.1) whose meaning is known, and
//! bytes that mean nothing.

#![no_main]

use arbitrary::{Arbitrary, Result, Unstructured};
use http::{HeaderValue, Request, Response, header::WWW_AUTHENTICATE};
use libfuzzer_sys::fuzz_target;
use std::{
    sync::{Arc, Mutex},
    time::Duration,
};
use tower::{Layer, Service, ServiceExt, service_fn};
use tower_jwt_refresh::{BoxError, JwtRefreshLayer, Token, TokenProvider, TokenRequest, clock::ManualClock};
use tower_jwt_refresh_fuzz::run;

fuzz_target!(|data: &[u8]| {
    match data.split_first() {
        Some((b'!', text)) => {
            let values = text.split(|byte| *byte == b'\n').filter_map(|line| HeaderValue::from_bytes(line).ok());
            sent(&values.take(8).collect::<Vec<_>>());
        }
        _ => {
            let Ok(said) = Said::arbitrary(&mut Unstructured::new(data)) else { return };
            let values: Vec<_> =
                said.headers.iter().map(|text| HeaderValue::from_bytes(text).expect("legal")).collect();
            assert_eq!(sent(&values), !said.blames_the_request, "{values:?}");
        }
    }
});

/// Sends a request that is refused with these challenges. Was it sent again, with a new token?
fn sent(challenges: &[HeaderValue]) -> bool {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let told = Arc::clone(&seen);
    let source = service_fn(move |request: TokenRequest| {
        told.lock().unwrap().push(request.challenge().map(str::to_owned));
        async { Ok::<_, BoxError>(Token::opaque("new")?) }
    });
    let status = run(async {
        let builder = TokenProvider::builder().clock(ManualClock::following_tokio());
        let builder = builder.min_interval(Duration::from_millis(1)).seed(Token::opaque("old").unwrap());
        let client = service_fn(|request: Request<()>| {
            let refused = request.headers()["authorization"] == "Bearer old";
            let mut response = Response::new(());
            if refused {
                *response.status_mut() = http::StatusCode::UNAUTHORIZED;
                for challenge in challenges {
                    response.headers_mut().append(WWW_AUTHENTICATE, challenge.clone());
                }
            }
            async { Ok::<_, BoxError>(response) }
        });
        let mut client = JwtRefreshLayer::new(builder.build(source).unwrap()).layer(client);
        let request = Request::get("https://api.example.com/").body(()).unwrap();
        client.ready().await.unwrap().call(request).await.unwrap().status()
    });
    let seen = seen.lock().unwrap();
    if status == 401 {
        assert!(seen.is_empty());
        return false;
    }
    let all: Vec<_> = challenges.iter().map(|value| String::from_utf8_lossy(value.as_bytes())).collect();
    let all = all.iter().skip_while(|text| text.is_empty()).map(|text| &**text).collect::<Vec<_>>().join(", ");
    let told = seen[0].as_deref().unwrap_or_default();
    assert!(seen.len() == 1 && told.len() <= 4096 && all.starts_with(told), "{seen:?}");
    assert!(told.len() == all.len() || told.len() > 4092, "as much as may be");
    true
}

/// Headers, and what they mean.
#[derive(Debug)]
struct Said {
    headers: Vec<Vec<u8>>,
    blames_the_request: bool,
}

const HEALED: [&str; 3] = ["invalid_token", "insufficient_claims", "insufficient_user_authentication"];

impl<'a> Arbitrary<'a> for Said {
    fn arbitrary(u: &mut Unstructured<'a>) -> Result<Self> {
        let mut said = Self { headers: Vec::new(), blames_the_request: false };
        for _ in 0..u.int_in_range(0..=2)? {
            let mut text = Vec::new();
            for nth in 0..u.int_in_range(0..=3)? {
                if nth > 0 {
                    text.extend(u.choose(&[",", ", ", " ,\t", ", ,", ",,"])?.bytes());
                }
                said.challenge(u, &mut text)?;
            }
            said.headers.push(text);
        }
        Ok(said)
    }
}

impl Said {
    fn challenge(&mut self, u: &mut Unstructured<'_>, text: &mut Vec<u8>) -> Result<()> {
        let scheme = *u.choose(&["Bearer", "bearer", "BEARER", "Basic", "DPoP", "Negotiate", "error", "Bearer2"])?;
        text.extend(scheme.bytes());
        match u.int_in_range(0..=5)? {
            0 => {}
            1 => {
                text.push(b' ');
                text.extend(word(u, b"-._~+/", &["error", "abc", "realm"])?.bytes());
                text.extend(u.choose(&["", "=", "=="])?.bytes());
            }
            _ => {
                text.extend(u.choose(&[" ", "  "])?.bytes());
                let mut names = Vec::new();
                for nth in 0..u.int_in_range(1..=4)? {
                    let name = word(u, b"!#$%&'*+-.^_`|~", &["error", "ERROR", "error_description", "scope", "realm"])?;
                    // Each name once (RFC 9110 section 11.2).
                    if names.iter().any(|other: &String| other.eq_ignore_ascii_case(&name)) {
                        continue;
                    }
                    if nth > 0 && !names.is_empty() {
                        text.extend(u.choose(&[",", ", ", " , "])?.bytes());
                    }
                    text.extend(name.bytes());
                    text.extend(u.choose(&["=", " =", "= ", "\t=  "])?.bytes());
                    let value = value(u, text)?;
                    let is_error = scheme.eq_ignore_ascii_case("bearer") && name.eq_ignore_ascii_case("error");
                    self.blames_the_request |= is_error && !HEALED.iter().any(|healed| healed.as_bytes() == value);
                    names.push(name);
                }
            }
        }
        Ok(())
    }
}

fn word(u: &mut Unstructured<'_>, more: &[u8], known: &[&str]) -> Result<String> {
    if u.ratio(3, 4)? {
        return Ok((*u.choose(known)?).to_owned());
    }
    let mut word = String::new();
    for _ in 0..u.int_in_range(1..=6)? {
        let byte: u8 = u.arbitrary()?;
        word.push(if byte.is_ascii_alphanumeric() || more.contains(&byte) { byte.into() } else { 'x' });
    }
    Ok(word)
}

/// Writes a token or a quoted string, and gives what it stands for.
fn value(u: &mut Unstructured<'_>, text: &mut Vec<u8>) -> Result<Vec<u8>> {
    let known = ["invalid_token", "insufficient_scope", "invalid_request", "insufficient_claims", "Invalid_Token"];
    if u.arbitrary()? {
        let value = word(u, b"!#$%&'*+-.^_`|~", &known)?;
        text.extend(value.bytes());
        return Ok(value.into());
    }
    let mut value: Vec<u8> = if u.arbitrary()? { (*u.choose(&known)?).into() } else { Vec::new() };
    if u.ratio(1, 3)? {
        for _ in 0..u.int_in_range(0..=8)? {
            // RFC 9110 section 5.6.4: all but controls, obs-text among them.
            let byte: u8 = u.arbitrary()?;
            value.push(if byte == b'\t' || byte >= b' ' && byte != 0x7f { byte } else { b',' });
        }
    }
    text.push(b'"');
    for byte in &value {
        if matches!(byte, b'"' | b'\\') || u.ratio(1, 8)? {
            text.push(b'\\');
        }
        text.push(*byte);
    }
    text.push(b'"');
    Ok(value)
}
