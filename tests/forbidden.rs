//! A thing that is forbidden for ever: the server answers 401 for it whatever the token.

mod support;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use std::time::Duration;
use support::{Api, Endpoint, HOUR, MINUTE, Reply, SECOND, get, pass, provider};
use tokio::time::Instant;
use tower::{Layer, ServiceExt};
use tower_jwt_refresh::{JwtRefreshLayer, TokenProvider};

const GOOD: &str = "https://api.example.com/good";
const FORBIDDEN: &str = "https://api.example.com/forbidden";
const DAY: Duration = HOUR.saturating_mul(24);

async fn send(provider: &TokenProvider, api: &Api, request: Request<Full<Bytes>>) -> Response<Full<Bytes>> {
    JwtRefreshLayer::new(provider.clone()).layer(api.clone()).oneshot(request).await.unwrap()
}

async fn status(provider: &TokenProvider, api: &Api, uri: &str) -> StatusCode {
    send(provider, api, get(uri)).await.status()
}

/// A provider whose token is a minute old, and an API that forbids one path.
async fn forbidding(endpoint: &Endpoint) -> (TokenProvider, Api) {
    let (provider, _) = provider(endpoint);
    provider.init().await.unwrap();
    pass(MINUTE).await;
    let api = Api::new();
    api.forbid("/forbidden");
    (provider, api)
}

// Scenario 76.
#[tokio::test(start_paused = true)]
async fn a_forbidden_thing_costs_one_refresh_and_then_its_401s_pass_through() {
    let endpoint = Endpoint::new(Reply::New(DAY)).taking(SECOND);
    let (provider, api) = forbidding(&endpoint).await;
    assert_eq!(status(&provider, &api, FORBIDDEN).await, StatusCode::UNAUTHORIZED);
    assert_eq!((endpoint.fetches(), api.tokens()), (2, vec!["t1".to_owned(), "t2".to_owned()]));
    for _ in 0..11 {
        let sent = Instant::now();
        assert_eq!(status(&provider, &api, GOOD).await, StatusCode::OK);
        assert_eq!(status(&provider, &api, FORBIDDEN).await, StatusCode::UNAUTHORIZED);
        assert_eq!(sent.elapsed(), Duration::ZERO, "nobody waits");
        pass(5 * SECOND).await;
    }
    assert_eq!(endpoint.fetches(), 2, "inside its minute nothing is fetched for it");
    assert_eq!(api.tokens().iter().filter(|token| *token == "t2").count(), 23, "and nothing is sent twice");
}
