//! Which answers refuse the token, and which are the caller's.

mod support;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use support::{Api, Endpoint, MINUTE, SECOND, answer, get, pass, post, provider, settle};
use tower::{Layer, ServiceExt};
use tower_jwt_refresh::{JwtRefreshLayer, RetryPolicy, TokenProvider};

const URI: &str = "https://api.example.com/jobs/1";

/// A provider whose token is a minute old, and an API that has revoked it.
async fn revoked(endpoint: &Endpoint) -> (TokenProvider, Api) {
    let (provider, _) = provider(endpoint);
    provider.init().await.unwrap();
    pass(MINUTE).await;
    let api = Api::new();
    api.revoke("t1");
    (provider, api)
}

async fn send(layer: &JwtRefreshLayer, api: &Api, request: Request<Full<Bytes>>) -> Response<Full<Bytes>> {
    layer.layer(api.clone()).oneshot(request).await.unwrap()
}

fn grpc(code: &str, message: &str) -> Response<Full<Bytes>> {
    let mut answer = answer(200, "");
    answer.headers_mut().insert("grpc-status", code.parse().unwrap());
    answer.headers_mut().insert("grpc-message", message.parse().unwrap());
    answer
}

// Scenario 23.
#[tokio::test(start_paused = true)]
async fn other_errors_are_the_callers_and_refresh_nothing() {
    let endpoint = Endpoint::hourly();
    let (provider, api) = revoked(&endpoint).await;
    let layer = JwtRefreshLayer::new(provider);
    let others = [100, 101, 204, 302, 400, 403, 404, 407, 409, 419, 429, 500, 502, 503];
    for status in others {
        api.refuse_with(move || answer(status, "not about the token"));
        let response = send(&layer, &api, post(URI, "x")).await;
        assert_eq!(response.status(), status);
        assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "not about the token");
    }
    settle().await;
    assert_eq!((api.tokens().len(), endpoint.fetches()), (others.len(), 1));
}

// Scenario 26; grpc/grpc-java#10462, grpc/grpc-java#5856, grpc/grpc-java#7345.
#[tokio::test(start_paused = true)]
async fn grpcs_unauthenticated_in_the_headers_is_a_refusal_and_permission_denied_is_not() {
    let endpoint = Endpoint::hourly();
    let (provider, api) = revoked(&endpoint).await;
    let layer = JwtRefreshLayer::new(provider);
    api.refuse_with(|| grpc("7", "not yours"));
    assert_eq!(send(&layer, &api, post(URI, "call")).await.headers()["grpc-status"], "7");
    assert_eq!((api.tokens().len(), endpoint.fetches()), (1, 1));
    api.refuse_with(|| grpc("16", "expired"));
    let response = send(&layer, &api, post(URI, "call")).await;
    assert!(!response.headers().contains_key("grpc-status"));
    assert_eq!(api.tokens(), ["t1", "t1", "t2"]);
    assert_eq!(endpoint.fetches(), 2);
}

// Scenario 127.
#[tokio::test(start_paused = true)]
async fn what_the_user_calls_a_refusal_is_refreshed_and_resent_like_a_401() {
    let refusals: [fn() -> Response<Full<Bytes>>; 4] = [
        || answer(403, "permission denied"),
        || answer(419, "page expired"),
        || grpc("3", "etcdserver: invalid%20auth token"),
        || answer(401, "still one"),
    ];
    let policy = || {
        RetryPolicy::default().reject_when(|answer| {
            matches!(answer.status().as_u16(), 403 | 419)
                || matches!(answer.grpc(), Some((3, message)) if message.contains("invalid auth token"))
        })
    };
    for refusal in refusals {
        let endpoint = Endpoint::hourly();
        let (provider, api) = revoked(&endpoint).await;
        let layer = JwtRefreshLayer::new(provider).retry(policy());
        api.refuse_with(refusal);
        let response = send(&layer, &api, post(URI, "x")).await;
        assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "ok");
        assert_eq!(api.tokens(), ["t1", "t2"]);
        assert_eq!(endpoint.fetches(), 2);
    }
    // The same code with another message is no refusal.
    let endpoint = Endpoint::hourly();
    let (provider, api) = revoked(&endpoint).await;
    let layer = JwtRefreshLayer::new(provider).retry(policy());
    api.refuse_with(|| grpc("3", "key is empty"));
    assert_eq!(send(&layer, &api, post(URI, "x")).await.headers()["grpc-message"], "key is empty");
    assert_eq!((api.tokens().len(), endpoint.fetches()), (1, 1));
}

// Scenario 127: the same brake. A 403 that is refused for ever is remembered, and its like pass.
#[tokio::test(start_paused = true)]
async fn a_forbidden_thing_that_says_403_is_braked_like_one_that_says_401() {
    let endpoint = Endpoint::hourly();
    let (provider, api) = revoked(&endpoint).await;
    let layer = JwtRefreshLayer::new(provider).retry(RetryPolicy::default().reject_when(|it| it.status() == 403));
    api.judge_by(|seen| (seen.uri.path() == "/forbidden").then(|| answer(403, "never")));
    for _ in 0..10 {
        let forbidden = send(&layer, &api, get("https://api.example.com/forbidden")).await;
        assert_eq!(forbidden.status(), StatusCode::FORBIDDEN);
        assert_eq!(send(&layer, &api, get(URI)).await.status(), StatusCode::OK);
        pass(5 * SECOND).await;
    }
    assert_eq!(endpoint.fetches(), 2);
    assert_eq!(api.tokens().len(), 11 + 10, "one resend");
}
