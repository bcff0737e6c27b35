//! In what form the token travels, and whose it is.

mod support;

use http::{HeaderName, StatusCode, header::AUTHORIZATION};
use std::error::Error;
use support::{Api, Endpoint, MINUTE, get, pass, post, provider, settle};
use tower::{BoxError, Layer, ServiceExt, service_fn};
use tower_jwt_refresh::{
    InvalidToken, JwtRefreshLayer, Placement, Token, TokenError, TokenProvider, TokenRequest, UseToken,
};

const URI: &str = "https://api.example.com/jobs/1";
const API_KEY: HeaderName = HeaderName::from_static("x-api-key");

// Scenarios 13 and 116.
#[tokio::test(start_paused = true)]
async fn each_layer_over_one_provider_has_its_own_form_and_the_flight_is_shared() {
    let (endpoint, api) = (Endpoint::hourly(), Api::new());
    let (provider, _) = provider(&endpoint);
    let layer = |placement| JwtRefreshLayer::new(provider.clone()).place(placement).layer(api.clone());
    let forms = [
        (layer(Placement::bearer()), AUTHORIZATION, "Bearer "),
        (layer(Placement::header(API_KEY)), API_KEY, ""),
        (layer(Placement::prefixed(AUTHORIZATION, "Token").unwrap()), AUTHORIZATION, "Token "),
        (layer(Placement::prefixed(API_KEY, "Key").unwrap()), API_KEY, "Key "),
    ];
    for token in ["t1", "t2"] {
        api.forget_seen();
        for (service, ..) in &forms {
            for _ in 0..2 {
                assert_eq!(service.clone().oneshot(get(URI)).await.unwrap().status(), StatusCode::OK);
            }
        }
        for (pair, (_, name, prefix)) in api.seen().chunks(2).zip(&forms) {
            let values: Vec<_> = pair.iter().map(|seen| seen.headers[name].clone()).collect();
            assert_eq!(values[0], format!("{prefix}{token}"));
            assert!(values[0].is_sensitive());
            assert_eq!(values[0].as_bytes().as_ptr(), values[1].as_bytes().as_ptr(), "built once");
            assert!(pair.iter().all(|seen| seen.headers.len() == 1), "nowhere else");
        }
        provider.refresh().await.unwrap();
    }
    assert_eq!(endpoint.fetches(), 3, "the first, and one a refresh");
}

// Scenario 107 in its smallest form; jackmusick/bifrost#17.
#[tokio::test(start_paused = true)]
async fn the_resend_has_the_form_of_the_first_send_and_only_the_new_token() {
    for (placement, name, prefix) in [
        (Placement::header(API_KEY), API_KEY, ""),
        (Placement::prefixed(AUTHORIZATION, "Token").unwrap(), AUTHORIZATION, "Token "),
    ] {
        let api = Api::new();
        let (provider, _) = provider(&Endpoint::hourly());
        api.revoke("t1");
        JwtRefreshLayer::new(provider).place(placement).layer(api.clone()).oneshot(post(URI, "hello")).await.unwrap();
        for (seen, token) in api.seen().iter().zip(["t1", "t2"]) {
            assert_eq!(seen.headers.get_all(&name).iter().collect::<Vec<_>>(), [&*format!("{prefix}{token}")]);
        }
        assert_eq!(api.tokens(), ["t1", "t2"]);
    }
}

/// A provider whose tokens bear a name.
fn named(name: &'static str) -> TokenProvider {
    let mut minted = 0;
    TokenProvider::new(service_fn(move |_: TokenRequest| {
        minted += 1;
        let token = format!("{name}{minted}");
        async move { Ok::<_, BoxError>(Token::opaque(token)?) }
    }))
}

// Scenario 117.
#[tokio::test(start_paused = true)]
async fn a_request_with_another_providers_token_is_judged_and_resent_for_that_one() {
    let api = Api::new();
    let (ours, theirs) = (named("ours"), named("theirs"));
    ours.init().await.unwrap();
    theirs.init().await.unwrap();
    pass(MINUTE).await;
    api.revoke("theirs1");
    let service = JwtRefreshLayer::new(ours.clone()).layer(api.clone());
    let mut request = post(URI, "hello");
    request.extensions_mut().insert(UseToken(theirs.clone()));
    let response = service.clone().oneshot(request).await.unwrap();
    settle().await;
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(api.tokens(), ["theirs1", "theirs2"]);
    let held = |provider: &TokenProvider| provider.current().unwrap().expose_secret().to_owned();
    assert_eq!((held(&ours), held(&theirs)), ("ours1".into(), "theirs2".into()), "the layer's own is not touched");
    service.oneshot(get(URI)).await.unwrap();
    assert_eq!(api.tokens()[2..], ["ours1"]);
}

// Scenario 90.
#[tokio::test(start_paused = true)]
async fn a_token_that_no_header_can_hold_is_an_error_and_never_an_injection() {
    for bad in ["t\r\nX-Admin: 1", "t\0", "tökén", "t ", ""] {
        let api = Api::new();
        let provider = TokenProvider::new(service_fn(move |_: TokenRequest| async move {
            let token = Token::opaque(bad)?;
            Ok::<_, InvalidToken>(token)
        }));
        for placement in [Placement::bearer(), Placement::header(API_KEY)] {
            let service = JwtRefreshLayer::new(provider.clone()).place(placement).layer(api.clone());
            let error = service.oneshot(get(URI)).await.unwrap_err();
            let error: &TokenError = error.downcast_ref().unwrap();
            let cause = std::iter::successors(error.source(), |error| (*error).source()).last().unwrap();
            assert!(cause.is::<InvalidToken>(), "{cause}");
        }
        assert!(api.seen().is_empty());
    }
}
