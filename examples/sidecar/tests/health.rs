//! How the token fares, and never the token.

mod support;

use http::{Method, Request, StatusCode};
use serde_json::Value;
use support::{Service, empty, sidecar, world};

#[tokio::test]
async fn health_tells_of_the_token_and_never_shows_it() {
    let (service, _sidecar, mut client) = world().await;
    client.get("/").await;
    let answer = client.get("/.sidecar/health").await;
    assert_eq!(answer.status, StatusCode::OK);
    let report: Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!((&report["token"], &report["usable"]), (&"fresh".into(), &true.into()));
    let left = report["expires_in_seconds"].as_f64().unwrap();
    assert!((0.0..=3600.0).contains(&left), "{left}");
    let whole = format!("{:?} {}", answer.headers, answer.text());
    assert!(!whole.contains("token-1") && !whole.contains(support::CREDENTIAL), "{whole}");
    assert_eq!(service.seen().len(), 1, "it is not forwarded");
}

#[tokio::test]
async fn health_is_503_while_there_is_no_token_and_says_since_when() {
    for (endpoint, told) in
        [(StatusCode::SERVICE_UNAVAILABLE, "failing"), (StatusCode::UNAUTHORIZED, "needs credential")]
    {
        let service = Service::start().await;
        service.endpoint_answers(endpoint);
        let sidecar = sidecar(&service, &[]).await;
        let mut client = sidecar.client().await;
        client.get("/").await;
        let answer = client.get("/.sidecar/health").await;
        assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
        let report: Value = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!((&report["token"], &report["usable"]), (&told.into(), &false.into()));
        assert!(report["failing_for_seconds"].is_number(), "{report}");
    }
}

#[tokio::test]
async fn what_is_the_sidecars_own_is_read_only_and_never_forwarded() {
    let (service, _sidecar, mut client) = world().await;
    let post = Request::builder().method(Method::POST).uri("/.sidecar/health").body(empty()).unwrap();
    assert_eq!(client.answer(post).await.status, StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(client.get("/.sidecar/token").await.status, StatusCode::NOT_FOUND);
    assert!(service.seen().is_empty());
}
