//! What an API asks for with a 401 reaches the authorization server, if the source was told to answer, and nothing else does.

#[path = "support/oauth2.rs"]
mod oauth2;
#[path = "support/exchange.rs"]
mod server;
mod support;

use base64::{Engine, prelude::BASE64_STANDARD};
use http::header::WWW_AUTHENTICATE;
use oauth2::{Asked, asked, client_credentials, oauth2_error, provider, rotating};
use server::{Server, exchange_error, is_permanent, ok};
use std::sync::atomic::{AtomicUsize, Ordering};
use support::{Api, HOUR, MINUTE, get};
use tokio::sync::mpsc;
use tower::{Layer, Service, ServiceExt, service_fn};
use tower_jwt_refresh::{
    BoxError, JwtRefreshLayer, Token, TokenProvider, TokenRequest,
    clock::ManualClock,
    source::{
        EndpointError,
        oauth2::{OAuth2, OAuth2Builder, OAuth2Error},
    },
};

const CLAIMS: &str = r#"{"access_token":{"nbf":{"essential":true,"value":"1604106651"}}}"#;

fn insufficient_claims() -> String {
    let claims = BASE64_STANDARD.encode(CLAIMS);
    format!(
        r#"Bearer realm="", authorization_uri="https://login.example.com/", error="insufficient_claims", claims="{claims}""#
    )
}

/// Gives `t1`, `t2`, ...
async fn counting() -> Server {
    Server::new(|count| ok(&format!(r#"{{"access_token":"t{}","expires_in":3600}}"#, count + 1))).await
}

/// A provider whose first token the API refuses with this challenge, and an hour of nothing before that.
async fn refused(source: OAuth2Builder, challenge: String) -> (TokenProvider, ManualClock, Api) {
    let (provider, clock) = provider(source);
    provider.token().await.unwrap();
    clock.advance(MINUTE);
    let api = Api::new();
    api.revoke("t1");
    api.refuse_with(move || {
        let mut refused = support::answer(401, "refused");
        refused.headers_mut().append(WWW_AUTHENTICATE, challenge.parse().unwrap());
        refused
    });
    (provider, clock, api)
}

async fn send(provider: &TokenProvider, api: &Api) -> u16 {
    let request = get("https://api.example.com/me");
    JwtRefreshLayer::new(provider.clone()).layer(api.clone()).oneshot(request).await.unwrap().status().as_u16()
}

/// The last request, of two that the server got for this challenge.
async fn answered(source: impl FnOnce(OAuth2Builder) -> OAuth2Builder, challenge: String) -> Asked {
    let server = counting().await;
    let (provider, _, api) = refused(source(client_credentials(&server)), challenge).await;
    assert_eq!(send(&provider, &api).await, 200, "the fetch went on");
    assert_eq!(asked(&server).len(), 2);
    asked(&server).remove(1)
}

// Azure/azure-sdk-for-net#46129.
#[tokio::test]
async fn the_claims_of_a_challenge_are_asked_for_and_the_request_is_resent_with_what_comes() {
    let asked = answered(OAuth2Builder::answer_challenges, insufficient_claims()).await;
    assert_eq!(asked.param("claims").as_deref(), Some(CLAIMS));
}

#[tokio::test]
async fn own_claims_go_along_with_those_of_the_challenge() {
    let own = r#"{"access_token":{"xms_cc":{"values":["cp1"]}}}"#;
    let asked = answered(|source| source.answer_challenges().param("claims", own), insufficient_claims()).await;
    let both = r#"{"access_token":{"nbf":{"essential":true,"value":"1604106651"},"xms_cc":{"values":["cp1"]}}}"#;
    assert_eq!(asked.param("claims").as_deref(), Some(both));
}

#[tokio::test]
async fn a_stronger_login_is_asked_for() {
    let challenge = r#"Bearer error="insufficient_user_authentication", acr_values="urn:a urn:b", max_age="5""#;
    let asked = answered(OAuth2Builder::answer_challenges, challenge.into()).await;
    assert_eq!(asked.param("acr_values").as_deref(), Some("urn:a urn:b"));
    assert_eq!(asked.param("max_age").as_deref(), Some("5"));
    assert_eq!(asked.param("claims"), None);
}

#[tokio::test]
async fn an_api_weakens_no_login_that_the_source_asks_for_itself() {
    let challenge =
        |age| format!(r#"Bearer error="insufficient_user_authentication", acr_values="urn:theirs", max_age="{age}""#);
    for (theirs, sent) in [("999999999", "60"), ("5", "5")] {
        let own =
            |source: OAuth2Builder| source.answer_challenges().param("acr_values", "urn:own").param("max_age", "60");
        let asked = answered(own, challenge(theirs)).await;
        assert_eq!(asked.param("acr_values").as_deref(), Some("urn:own"));
        assert_eq!(asked.param("max_age").as_deref(), Some(sent));
    }
}

#[tokio::test]
async fn nothing_of_a_challenge_is_sent_unless_the_source_was_told_to() {
    let asked = answered(|source| source, insufficient_claims()).await;
    assert_eq!(asked.form().len(), 1, "{asked:?}");
}

#[tokio::test]
async fn what_is_malformed_is_ignored_and_the_fetch_goes_on_without() {
    for challenge in [
        "Bearer".to_owned(),
        insufficient_claims().replace("Bearer", "DPoP"),
        insufficient_claims().replace("claims=\"", "claims=\"!"),
        r#"Bearer error="insufficient_claims", claims="WzFd""#.to_owned(),
        format!(r#"Bearer error="insufficient_user_authentication", acr_values="{}""#, "a".repeat(5000)),
        r#"Bearer error="insufficient_user_authentication", acr_values="a&grant_type=password" , max_age="1e3""#
            .to_owned(),
    ] {
        let asked = answered(OAuth2Builder::answer_challenges, challenge.clone()).await;
        let known = ["grant_type", "acr_values"];
        assert!(asked.form().iter().all(|(name, _)| known.contains(&name.as_str())), "{challenge}: {asked:?}");
        assert_eq!(asked.param("grant_type").as_deref(), Some("client_credentials"), "nothing is injected");
        let acr = asked.param("acr_values");
        assert_eq!(acr.is_some(), challenge.contains("grant_type"), "{acr:?}");
    }
}

#[tokio::test]
async fn later_fetches_do_not_ask_for_it_again() {
    let server = rotating().await;
    let source = oauth2::refreshing(&server).answer_challenges();
    let (provider, clock, api) = refused(source, insufficient_claims()).await;
    assert_eq!(send(&provider, &api).await, 200);
    clock.advance(HOUR);
    provider.token().await.unwrap();
    let claims: Vec<_> = asked(&server).iter().map(|asked| asked.param("claims")).collect();
    assert_eq!(claims, [None, Some(CLAIMS.to_owned()), None]);
}

/// Gives tokens, but never where claims are asked for.
async fn refusing(error: &'static str) -> Server {
    let given = AtomicUsize::new(0);
    oauth2::judging(move |asked| {
        if asked.param("claims").is_some() {
            return server::answer("400 Bad Request", "", &format!(r#"{{"error":"{error}"}}"#));
        }
        let number = given.fetch_add(1, Ordering::SeqCst) + 1;
        ok(&format!(r#"{{"access_token":"t{number}","expires_in":3600}}"#))
    })
    .await
}

#[tokio::test]
async fn a_refusal_of_what_an_api_asked_for_is_not_taken_for_a_refused_credential() {
    for error in ["invalid_request", "invalid_grant", "invalid_client"] {
        let server = refusing(error).await;
        let source = client_credentials(&server).answer_challenges().build().unwrap();
        let error = provider_of_request(source, challenged_request().await).token().await.unwrap_err();
        assert!(!is_permanent(&error), "{error:?}");
        assert!(matches!(oauth2_error(&error), OAuth2Error::Challenged { .. }), "{error:?}");
        assert!(matches!(exchange_error(&error), EndpointError::Refused { .. }), "{error:?}");
    }
}

#[tokio::test]
async fn after_a_refused_wish_the_next_fetch_is_without_it() {
    let server = refusing("invalid_request").await;
    let (provider, clock, api) = refused(client_credentials(&server).answer_challenges(), insufficient_claims()).await;
    assert_eq!(send(&provider, &api).await, 401, "the API's own answer");
    clock.advance(MINUTE * 2);
    assert_eq!(send(&provider, &api).await, 200, "by a flight that no challenge began");
    let claims: Vec<_> = asked(&server).iter().map(|asked| asked.param("claims").is_some()).collect();
    assert_eq!(claims, [false, true, false]);
}

/// What a source is asked after a 401 with a challenge.
async fn challenged_request() -> TokenRequest {
    let (send_request, mut requests) = mpsc::unbounded_channel();
    let source = service_fn(move |request: TokenRequest| {
        send_request.send(request).unwrap();
        async { Ok::<_, BoxError>(Token::opaque("t1")?) }
    });
    let clock = ManualClock::new();
    let provider = TokenProvider::builder().clock(clock.clone()).build(source).unwrap();
    provider.token().await.unwrap();
    clock.advance(MINUTE);
    let api = Api::new();
    api.revoke("t1");
    api.refuse_with(move || {
        let mut refused = support::answer(401, "refused");
        refused.headers_mut().append(WWW_AUTHENTICATE, insufficient_claims().parse().unwrap());
        refused
    });
    send(&provider, &api).await;
    requests.recv().await.unwrap();
    requests.recv().await.unwrap()
}

/// A provider whose source is always asked that.
fn provider_of_request(mut source: OAuth2, request: TokenRequest) -> TokenProvider {
    TokenProvider::new(service_fn(move |_: TokenRequest| source.call(request.clone())))
}
