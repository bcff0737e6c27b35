//! What a 401 says in `WWW-Authenticate`: whether a new token helps, and what the source is told.

mod support;

use bytes::Bytes;
use http::{Request, Response, StatusCode, header::WWW_AUTHENTICATE};
use http_body_util::{BodyExt, Full};
use support::{Api, Endpoint, HOUR, MINUTE, Reply, SECOND, answer, get, pass, provider, settle};
use tower::{Layer, ServiceExt};
use tower_jwt_refresh::{JwtRefreshLayer, TokenProvider};

const URI: &str = "https://api.example.com/jobs/1";

async fn send(provider: &TokenProvider, api: &Api, request: Request<Full<Bytes>>) -> Response<Full<Bytes>> {
    JwtRefreshLayer::new(provider.clone()).layer(api.clone()).oneshot(request).await.unwrap()
}

fn challenged(texts: &[&str]) -> Response<Full<Bytes>> {
    let mut refused = answer(401, "refused");
    for text in texts {
        refused.headers_mut().append(WWW_AUTHENTICATE, text.parse().unwrap());
    }
    refused
}

/// A provider whose token is a minute old, and an API that refuses it with these challenges.
async fn refusing(endpoint: &Endpoint, challenges: &'static [&'static str]) -> (TokenProvider, Api) {
    let (provider, _) = provider(endpoint);
    provider.init().await.unwrap();
    pass(MINUTE).await;
    let api = Api::new();
    api.revoke("t1");
    api.refuse_with(|| challenged(challenges));
    (provider, api)
}

// Scenario 24; DuendeArchive/Duende.AccessTokenManagement#31.
#[tokio::test(start_paused = true)]
async fn a_bearer_challenge_that_blames_the_request_is_the_callers() {
    const BLAMED: [&[&str]; 6] = [
        &[r#"Bearer error="insufficient_scope", scope="admin""#],
        &[r#"Bearer realm="x", error="invalid_request""#],
        &[r#"bearer error=out_of_stock"#],
        &[r#"Basic realm="x", Bearer error="insufficient_scope""#],
        &["Basic realm=\"x\"", r#"Bearer error="insufficient_scope""#],
        &[r#"Bearer error="insufficient_scope""#, "Negotiate"],
    ];
    for challenges in BLAMED {
        let endpoint = Endpoint::hourly();
        let (provider, api) = refusing(&endpoint, challenges).await;
        let response = send(&provider, &api, get(URI)).await;
        assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
        assert_eq!(response.headers().get_all(WWW_AUTHENTICATE).iter().collect::<Vec<_>>(), challenges);
        assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "refused");
        settle().await;
        assert_eq!((api.tokens().len(), endpoint.fetches()), (1, 1), "{challenges:?}");
    }
}

// Scenario 24.
#[tokio::test(start_paused = true)]
async fn all_other_challenges_and_none_lead_to_refresh_and_resend() {
    const HEALED: [&[&str]; 10] = [
        &[],
        &[r#"Bearer error="invalid_token""#],
        &[r#"Bearer realm="x", error="insufficient_claims", claims="e30=""#],
        &[r#"Bearer error="insufficient_user_authentication", acr_values="mfa""#],
        &["Bearer"],
        &["Basic realm=\"x\""],
        &[r#"DPoP error="insufficient_scope""#],
        &["Basic realm=\"x\"", r#"Bearer error="invalid_token""#],
        &[r#"Bearer error="invalid_token", Basic realm="x""#],
        &["\"=,;=,"],
    ];
    for challenges in HEALED {
        let endpoint = Endpoint::hourly();
        let (provider, api) = refusing(&endpoint, challenges).await;
        assert_eq!(send(&provider, &api, get(URI)).await.status(), StatusCode::OK, "{challenges:?}");
        assert_eq!(api.tokens(), ["t1", "t2"]);
        assert_eq!(endpoint.fetches(), 2);
    }
}

// Scenario 28; Azure/azure-sdk-for-net#46129, Azure/azure-sdk-for-js#22324.
#[tokio::test(start_paused = true)]
async fn a_claims_challenge_reaches_the_source_as_it_came_though_the_token_is_fresh() {
    const CLAIMS: &str = r#"Bearer realm="", error="insufficient_claims", claims="eyJhY2Nlc3NfdG9rZW4iOnt9fQ==""#;
    let endpoint = Endpoint::new(Reply::New(12 * HOUR));
    let (provider, api) = refusing(&endpoint, &[CLAIMS, "Basic realm=\"x\""]).await;
    assert_eq!(send(&provider, &api, get(URI)).await.status(), StatusCode::OK);
    assert_eq!(endpoint.asked()[1].challenge.as_deref(), Some(&*format!("{CLAIMS}, Basic realm=\"x\"")));
    pass(12 * HOUR).await;
    let later = endpoint.asked();
    assert!(later.len() > 2 && later[0].challenge.is_none(), "the first and the scheduled ones have none");
    assert!(later[2..].iter().all(|asked| asked.challenge.is_none()));
}

// Scenario 28.
#[tokio::test(start_paused = true)]
async fn the_flight_carries_the_first_rejections_challenge_and_who_joins_it_is_resent_once() {
    let endpoint = Endpoint::hourly().taking(SECOND);
    let (provider, api) = refusing(&endpoint, &[]).await;
    api.judge_by(|seen| {
        (seen.token.as_deref() == Some("t1"))
            .then(|| challenged(&[&format!("Bearer error=invalid_token, n={}", seen.uri.path())]))
    });
    api.set_delay(SECOND);
    let all = ["/1", "/2", "/3"].map(|path| {
        let (provider, api) = (provider.clone(), api.clone());
        async move { send(&provider, &api, get(&format!("https://api.example.com{path}"))).await.status() }
    });
    assert_eq!(futures_util::future::join_all(all).await, [StatusCode::OK; 3]);
    assert_eq!(endpoint.asked().len(), 2);
    assert_eq!(endpoint.asked()[1].challenge.as_deref(), Some("Bearer error=invalid_token, n=/1"));
    assert_eq!(api.tokens(), ["t1", "t1", "t1", "t2", "t2", "t2"]);
}

// Scenario 28: untrusted text has an end.
#[tokio::test(start_paused = true)]
async fn the_source_gets_at_most_4_kib_of_a_challenge() {
    let endpoint = Endpoint::hourly();
    let (provider, api) = refusing(&endpoint, &[]).await;
    api.refuse_with(|| challenged(&["Bearer error=\"invalid_token\"", &"x".repeat(60_000)]));
    assert_eq!(send(&provider, &api, get(URI)).await.status(), StatusCode::OK);
    let challenge = endpoint.asked()[1].challenge.clone().unwrap();
    assert!(challenge.starts_with("Bearer error=\"invalid_token\", xxx"));
    assert_eq!(challenge.len(), 4096);
}
