//! reqwest follows redirects by itself, and strips `Authorization` alone on the way to another host.

mod support;

use axum::{Router, extract::State, http::HeaderMap, routing::get};
use http::{HeaderName, StatusCode, header};
use reqwest::{Body, Client, redirect};
use std::{
    error::Error,
    sync::{Arc, Mutex},
};
use support::Endpoint;
use tokio::net::TcpListener;
use tower::{Layer, ServiceBuilder, ServiceExt};
use tower_jwt_refresh::{JwtRefreshLayer, Placement, ScopeError, TokenProvider};
use tower_reqwest::HttpClientLayer;

const API_KEY: HeaderName = HeaderName::from_static("x-api-key");

type Seen = Arc<Mutex<Vec<HeaderMap>>>;

/// One host that redirects to another, which refuses all and writes down what it got.
struct Hosts {
    ours: String,
    theirs: Seen,
}

impl Hosts {
    async fn up() -> Self {
        let theirs = Seen::default();
        let refuse = |State(seen): State<Seen>, headers: HeaderMap| async move {
            seen.lock().unwrap().push(headers);
            StatusCode::UNAUTHORIZED
        };
        let other = serve(Router::new().route("/stolen", get(refuse)).with_state(theirs.clone())).await;
        let to = format!("http://localhost:{other}/stolen");
        let moved = move || async move { (StatusCode::FOUND, [(header::LOCATION, to.clone())]) };
        let ours = serve(Router::new().route("/moved", get(moved)).route("/here", get(|| async { "ok" }))).await;
        Self { ours: format!("http://127.0.0.1:{ours}"), theirs }
    }

    fn stolen(&self) -> Vec<HeaderMap> {
        self.theirs.lock().unwrap().clone()
    }
}

async fn serve(router: Router) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move { axum::serve(listener, router).await });
    port
}

fn provider() -> (TokenProvider, Endpoint) {
    let endpoint = Endpoint::hourly();
    (TokenProvider::new(endpoint.source()), endpoint)
}

fn client(policy: redirect::Policy) -> Client {
    Client::builder().no_proxy().redirect(policy).build().unwrap()
}

fn request(url: String) -> reqwest::Request {
    Client::new().get(url).build().unwrap()
}

// Scenarios 59, 99; golang/oauth2#805, Azure/azure-sdk-for-net#59606.
#[tokio::test]
async fn a_redirect_to_another_host_gets_no_bearer_token_and_its_401_rejects_nothing() {
    let (hosts, (provider, endpoint)) = (Hosts::up().await, provider());
    let service = JwtRefreshLayer::new(provider.clone()).layer(client(redirect::Policy::default()));
    let answer = service.oneshot(request(format!("{}/moved", hosts.ours))).await.unwrap();
    assert_eq!(answer.status(), StatusCode::UNAUTHORIZED);
    let stolen = hosts.stolen();
    assert_eq!(stolen.len(), 1, "their 401 is not ours to heal");
    assert!(!stolen[0].contains_key(header::AUTHORIZATION));
    assert_eq!(endpoint.fetches(), 1);
    assert_eq!(provider.try_token().unwrap().expose_secret(), "t1");
}

// Scenario 59; adobe/fetch#447, apify/crawlee#4134, pfBlockerNG/pfBlockerNG#1953.
#[tokio::test]
async fn a_token_in_another_header_is_refused_with_the_remedy_in_the_error() {
    let (hosts, (provider, endpoint)) = (Hosts::up().await, provider());
    let layer = JwtRefreshLayer::new(provider).place(Placement::header(API_KEY));
    let url = format!("{}/moved", hosts.ours);

    let plain = layer.clone().layer(client(redirect::Policy::default()));
    let error = plain.oneshot(request(url.clone())).await.unwrap_err();
    refused(&*error);

    let tower =
        ServiceBuilder::new().layer(layer.clone()).layer(HttpClientLayer).service(client(redirect::Policy::default()));
    let error = tower.oneshot(http::Request::get(&url).body(Body::default()).unwrap()).await.unwrap_err();
    refused(&*error);

    let middleware = reqwest_middleware::ClientBuilder::new(client(redirect::Policy::default())).with(layer).build();
    match middleware.get(&url).send().await.unwrap_err() {
        reqwest_middleware::Error::Middleware(error) => refused(error.downcast_ref::<ScopeError>().unwrap()),
        other => panic!("{other}"),
    }
    assert!(hosts.stolen().is_empty(), "nothing was sent");
    assert_eq!(endpoint.fetches(), 0);
}

fn refused(error: &(dyn Error + 'static)) {
    assert!(matches!(error.downcast_ref(), Some(ScopeError::Redirects { header }) if *header == API_KEY), "{error}");
    let text = error.to_string();
    assert!(text.contains("x-api-key") && text.contains("redirect::Policy::none()"), "{text}");
    assert!(text.contains("JwtRefreshLayer::redirects_handled"), "{text}");
}

#[tokio::test]
async fn a_client_that_follows_no_redirect_may_carry_it_once_that_is_said() {
    let (hosts, (provider, _)) = (Hosts::up().await, provider());
    let layer = JwtRefreshLayer::new(provider).place(Placement::header(API_KEY)).redirects_handled();
    let service = layer.layer(client(redirect::Policy::none()));
    let answer = service.clone().oneshot(request(format!("{}/here", hosts.ours))).await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    let answer = service.oneshot(request(format!("{}/moved", hosts.ours))).await.unwrap();
    assert_eq!(answer.status(), StatusCode::FOUND);
    assert!(hosts.stolen().is_empty());
}
