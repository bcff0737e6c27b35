//! A refused token: one refresh, one resend.

mod support;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use support::{Api, Endpoint, MINUTE, Reply, SECOND, get, pass, post, provider, settle};
use tower::{BoxError, Service, ServiceExt};
use tower_jwt_refresh::{JwtRefreshLayer, TokenProvider};

const URI: &str = "https://api.example.com/jobs/1";

type Answered = Result<Response<Full<Bytes>>, BoxError>;

async fn send(provider: &TokenProvider, api: &Api, request: Request<Full<Bytes>>) -> Answered {
    use tower::Layer;
    JwtRefreshLayer::new(provider.clone()).layer(api.clone()).ready().await?.call(request).await
}

async fn body(response: Response<Full<Bytes>>) -> String {
    String::from_utf8_lossy(&response.into_body().collect().await.unwrap().to_bytes()).into_owned()
}

// Scenario 16; bitwarden/sdk-internal#1098.
#[tokio::test(start_paused = true)]
async fn a_401_leads_to_one_refresh_and_one_resend_and_the_caller_sees_the_second_answer() {
    let (endpoint, api) = (Endpoint::hourly(), Api::new());
    let (provider, _) = provider(&endpoint);
    api.revoke("t1");
    let response = send(&provider, &api, post(URI, "hello")).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(api.tokens(), ["t1", "t2"]);
    assert_eq!(endpoint.fetches(), 2);
    assert!(api.seen().iter().all(|seen| seen.body == "hello"), "both sends carry the body");
}

// Scenario 17; ktorio/ktor#2676.
#[tokio::test(start_paused = true)]
async fn a_hundred_rejections_of_one_generation_cost_one_refresh_and_a_hundred_resends() {
    let (endpoint, api) = (Endpoint::hourly().taking(SECOND), Api::new());
    let (provider, _) = provider(&endpoint);
    provider.init().await.unwrap();
    pass(MINUTE).await;
    api.revoke("t1");
    api.set_delay(SECOND);
    let all = (0..100).map(|_| send(&provider, &api, get(URI)));
    for response in futures_util::future::join_all(all).await {
        assert_eq!(response.unwrap().status(), StatusCode::OK);
    }
    assert_eq!(endpoint.fetches(), 2);
    assert_eq!(api.tokens().iter().filter(|token| *token == "t1").count(), 100);
    assert_eq!(api.tokens().iter().filter(|token| *token == "t2").count(), 100);
}

// Scenario 20; basecamp/hey-sdk#138.
#[tokio::test(start_paused = true)]
async fn a_401_on_the_resend_too_is_the_callers_with_its_body() {
    let (endpoint, api) = (Endpoint::hourly(), Api::new());
    let (provider, _) = provider(&endpoint);
    api.refuse_all(true);
    let response = send(&provider, &api, get(URI)).await.unwrap();
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(body(response).await, "refused");
    assert_eq!(api.tokens(), ["t1", "t2"]);
    assert_eq!(endpoint.fetches(), 2);
}

// Scenario 21.
#[tokio::test(start_paused = true)]
async fn a_failed_refresh_after_a_401_leaves_the_caller_the_servers_answer() {
    let (endpoint, api) = (Endpoint::hourly(), Api::new());
    let (provider, _) = provider(&endpoint);
    provider.init().await.unwrap();
    api.revoke("t1");
    endpoint.usually(Reply::Fail);
    let response = send(&provider, &api, get(URI)).await.unwrap();
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(body(response).await, "refused");
    assert_eq!(api.tokens(), ["t1"], "nothing is resent with the same token");
    settle().await;
    assert_eq!(endpoint.fetches(), 2);
}
