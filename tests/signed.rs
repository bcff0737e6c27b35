//! Tokens that the program signs itself: an implementation that shares no code with ours verifies them.

mod support;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use jsonwebtoken::{Algorithm, DecodingKey, TokenData, Validation, decode};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519};
use serde_json::{Value, json};
use std::{
    error::Error,
    sync::{Arc, Mutex},
    time::SystemTime,
};
use support::{HOUR, MINUTE, SECOND, pass};
use tower::{Layer, ServiceExt, service_fn};
use tower_jwt_refresh::{
    BoxError, ConfigError, JwtRefreshLayer, TokenError, TokenProvider, TokenRequest,
    clock::ManualClock,
    source::{SignedJwt, SigningKey},
};

const SECRET: &str = "s3cr3t-s3cr3t-s3cr3t-s3cr3t-s3cr3t";

fn unix_now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs()
}

async fn signed_by(source: SignedJwt) -> String {
    TokenProvider::new(source).token().await.unwrap().expose_secret().to_owned()
}

fn verify(jwt: &str, key: &DecodingKey, algorithm: Algorithm) -> Option<TokenData<Value>> {
    let mut validation = Validation::new(algorithm);
    validation.leeway = 0;
    validation.set_audience(&["them"]);
    validation.set_issuer(&["us"]);
    decode(jwt, key, &validation).ok()
}

fn hmac() -> SignedJwt {
    SignedJwt::new(SigningKey::hmac(SECRET).unwrap()).issuer("us").audience("them")
}

fn claims(jwt: &str) -> Value {
    verify(jwt, &DecodingKey::from_secret(SECRET.as_bytes()), Algorithm::HS256).unwrap().claims
}

/// All that an error says, down to its last cause.
fn printed(error: &TokenError) -> String {
    let mut text = String::new();
    let mut next: Option<&dyn Error> = Some(error);
    while let Some(error) = next {
        text += &format!("{error} {error:?}\n");
        next = error.source();
    }
    text
}

#[tokio::test]
async fn what_each_kind_of_key_signs_is_accepted_with_its_public_half_and_with_no_other() {
    let generated = |algorithm| {
        let pair = KeyPair::generate_for(algorithm).unwrap();
        (pair.serialize_pem(), pair.public_key_pem())
    };
    let committed = |private: &str, public: &str| (private.to_owned(), public.to_owned());
    let rsa = include_str!("keys/rsa-public.pem");
    let ((p256, p256_public), (p384, p384_public)) =
        (generated(&PKCS_ECDSA_P256_SHA256), generated(&PKCS_ECDSA_P384_SHA384));
    let other_p256 = generated(&PKCS_ECDSA_P256_SHA256).1;
    let (ed, ed_public) = generated(&PKCS_ED25519);
    // As OpenSSL writes it: without the public half, which others put in.
    let (short_ed, short_ed_public) =
        committed(include_str!("keys/ed25519.pem"), include_str!("keys/ed25519-public.pem"));

    let key = |pem: String| SigningKey::from_pem(pem).unwrap();
    let read_rsa = || DecodingKey::from_rsa_pem(rsa.as_bytes()).unwrap();
    let read_ec = |pem: &str| DecodingKey::from_ec_pem(pem.as_bytes()).unwrap();
    let read_ed = |pem: &str| DecodingKey::from_ed_pem(pem.as_bytes()).unwrap();
    for (key, public, algorithm) in [
        (key(include_str!("keys/rsa.pem").into()), read_rsa(), Algorithm::RS256),
        (key(include_str!("keys/rsa-pkcs1.pem").into()), read_rsa(), Algorithm::RS256),
        (key(p256.clone()), read_ec(&p256_public), Algorithm::ES256),
        (key(p384), read_ec(&p384_public), Algorithm::ES384),
        (key(ed), read_ed(&ed_public), Algorithm::EdDSA),
        (key(short_ed), read_ed(&short_ed_public), Algorithm::EdDSA),
        (SigningKey::hmac(SECRET).unwrap(), DecodingKey::from_secret(SECRET.as_bytes()), Algorithm::HS256),
    ] {
        let source = SignedJwt::new(key.key_id("k\"1")).issuer("us").subject("me").audience("them");
        let jwt = signed_by(source).await;
        let TokenData { header, claims } = verify(&jwt, &public, algorithm).unwrap_or_else(|| panic!("{algorithm:?}"));
        assert_eq!((header.alg, header.typ.as_deref()), (algorithm, Some("JWT")));
        assert_eq!(header.kid.as_deref(), Some("k\"1"));
        assert_eq!(claims["sub"], "me");

        // One bit of the claims, then of the signature.
        for part in [1, 2] {
            let mut parts: Vec<String> = jwt.split('.').map(str::to_owned).collect();
            let (first, rest) = parts[part].split_at(1);
            parts[part] = format!("{}{rest}", if first == "A" { "B" } else { "A" });
            assert!(verify(&parts.join("."), &public, algorithm).is_none(), "{algorithm:?}, part {part} altered");
        }
    }
    let jwt = signed_by(SignedJwt::new(SigningKey::from_pem(p256).unwrap()).issuer("us").audience("them")).await;
    assert!(verify(&jwt, &read_ec(&other_p256), Algorithm::ES256).is_none(), "another key");
}

#[tokio::test]
async fn a_token_says_what_was_set_and_when_it_was_signed() {
    let source = hmac()
        .lifetime(10 * MINUTE)
        .unwrap()
        .backdate(5 * SECOND)
        .unwrap()
        .claim("scope", "read")
        .unwrap()
        .claim("roles", ["a", "b"])
        .unwrap()
        .claim("act", json!({"sub": "robot"}))
        .unwrap()
        .header("typ", "at+jwt")
        .unwrap();
    let before = unix_now();
    let jwt = signed_by(source).await;
    let after = unix_now();
    let header = jsonwebtoken::decode_header(&jwt).unwrap();
    assert_eq!(header.typ.as_deref(), Some("at+jwt"));
    assert_eq!(header.kid, None);
    let claims = claims(&jwt);
    assert!((before + 600..=after + 600).contains(&claims["exp"].as_u64().unwrap()), "{claims}");
    assert!((before - 5..=after - 5).contains(&claims["iat"].as_u64().unwrap()), "{claims}");
    assert_eq!(
        (&claims["iss"], &claims["aud"], &claims["scope"], &claims["roles"], &claims["act"]),
        (&json!("us"), &json!("them"), &json!("read"), &json!(["a", "b"]), &json!({"sub": "robot"}))
    );
}

#[tokio::test]
async fn without_settings_it_lives_for_five_minutes_and_is_a_minute_old() {
    let claims = claims(&signed_by(hmac()).await);
    let (exp, iat) = (claims["exp"].as_u64().unwrap(), claims["iat"].as_u64().unwrap());
    assert_eq!(exp - iat, 6 * 60);
    assert!((unix_now() + 298..=unix_now() + 300).contains(&exp));
}

// Scenario 102; govuk-one-login/authentication-api#8427.
#[tokio::test(start_paused = true)]
async fn every_fetch_brings_a_token_unlike_all_before_it() {
    let clock = ManualClock::following_tokio();
    let provider = TokenProvider::builder().clock(clock).build(hmac()).unwrap();
    let mut seen = Vec::new();
    for _ in 0..4 {
        let token = provider.refresh().await.unwrap();
        let jti = claims(token.expose_secret())["jti"].as_str().unwrap().to_owned();
        assert_eq!(jti.len(), 22, "128 bits: {jti}");
        assert!(!seen.contains(&jti), "{jti} again");
        seen.push(jti);
        pass(2 * SECOND).await;
    }
}

#[tokio::test(start_paused = true)]
async fn when_to_sign_the_next_does_not_depend_on_the_wall_clock() {
    let clock = ManualClock::following_tokio();
    clock.jump_wall_back(10 * HOUR);
    let provider = TokenProvider::builder().clock(clock.clone()).build(hmac()).unwrap();
    let first = provider.token().await.unwrap();
    pass(2 * MINUTE).await;
    assert_eq!(provider.token().await.unwrap().generation(), first.generation(), "fresh");
    pass(3 * MINUTE).await;
    assert_ne!(provider.token().await.unwrap().generation(), first.generation(), "five minutes are over");
}

// A key is withdrawn while the program runs: the refused request is sent again with what the new key signs.
#[tokio::test(start_paused = true)]
async fn a_refused_token_is_signed_anew() {
    let signed_with = |secret: &str| SignedJwt::new(SigningKey::hmac(secret).unwrap()).issuer("us").audience("them");
    let (sign, accept) = (Arc::new(Mutex::new(signed_with(SECRET))), Arc::new(Mutex::new(SECRET.to_owned())));
    let source = {
        let sign = Arc::clone(&sign);
        service_fn(move |request: TokenRequest| sign.lock().unwrap().clone().oneshot(request))
    };
    let api = {
        let accept = Arc::clone(&accept);
        service_fn(move |request: Request<Full<Bytes>>| {
            let token = request.headers()["authorization"].to_str().unwrap().strip_prefix("Bearer ").unwrap();
            let key = DecodingKey::from_secret(accept.lock().unwrap().as_bytes());
            let mut response = Response::new(Full::<Bytes>::default());
            if verify(token, &key, Algorithm::HS256).is_none() {
                *response.status_mut() = StatusCode::UNAUTHORIZED;
            }
            std::future::ready(Ok::<_, BoxError>(response))
        })
    };
    let provider = TokenProvider::builder().clock(ManualClock::following_tokio()).build(source).unwrap();
    let client = JwtRefreshLayer::new(provider).layer(api);
    let status = || async {
        let request = Request::get("https://api.test/").body(Full::default()).unwrap();
        client.clone().oneshot(request).await.unwrap().status()
    };
    assert_eq!(status().await, StatusCode::OK);
    pass(MINUTE).await;
    let other = SECRET.to_uppercase();
    *sign.lock().unwrap() = signed_with(&other);
    *accept.lock().unwrap() = other;
    assert_eq!(status().await, StatusCode::OK);
}

#[tokio::test]
async fn a_token_too_long_for_any_header_is_an_error_that_waits_for_repair() {
    let source = hmac().claim("everything", "x".repeat(64 * 1024)).unwrap();
    let error = TokenProvider::new(source).token().await.unwrap_err();
    assert!(matches!(error, TokenError::NeedsCredential { .. }), "{error:?}");
    assert!(printed(&error).contains("no server takes a header"), "{error:?}");
}

#[test]
fn settings_that_cannot_work_are_refused_with_the_remedy() {
    let refused = |result: Result<SignedJwt, ConfigError>| result.unwrap_err().to_string();
    assert!(refused(hmac().lifetime(SECOND / 2)).contains("lifetime is 500ms, under 1s"));
    assert!(matches!(hmac().lifetime(10_000 * HOUR).unwrap_err(), ConfigError::TooLong { setting: "lifetime", .. }));
    assert!(matches!(hmac().backdate(10_000 * HOUR).unwrap_err(), ConfigError::TooLong { setting: "backdate", .. }));
    for (claim, remedy) in [("exp", "`lifetime`"), ("iat", "`backdate`"), ("jti", "leave it out")] {
        let text = refused(hmac().claim(claim, 1));
        assert!(text.contains(claim) && text.contains(remedy), "{text}");
    }
    for (name, remedy) in [("alg", "from the key"), ("kid", "`SigningKey::key_id`"), ("crit", "not"), ("b64", "not")] {
        let text = refused(hmac().header(name, "none"));
        assert!(text.contains(name) && text.contains(remedy), "{text}");
    }
    let unspeakable = std::collections::BTreeMap::from([((1, 2), "s3cr3t")]);
    let text = refused(hmac().claim("pairs", &unspeakable)) + &refused(hmac().header("pairs", &unspeakable));
    assert!(text.contains("`pairs`") && !text.contains("s3cr3t"), "{text}");
}

#[test]
fn nothing_printed_holds_key_or_claims() {
    let pem = KeyPair::generate().unwrap().serialize_pem();
    let line = pem.lines().nth(1).unwrap().to_owned();
    let ec = SignedJwt::new(SigningKey::from_pem(pem).unwrap().key_id("k1")).subject("s3cr3t");
    let text = format!("{ec:?} {:?}", hmac());
    assert!(text.contains("ES256") && text.contains("HS256") && text.contains("k1"), "{text}");
    assert!(!text.contains("s3cr3t") && !text.contains(&line), "{text}");
}
