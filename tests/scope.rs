//! Where the token may go, and that nothing else waits for it or is judged.

mod support;

use bytes::Bytes;
use futures_util::FutureExt;
use http::{HeaderName, Request, Response, StatusCode, header::LOCATION};
use http_body_util::Full;
use support::{Api, Endpoint, Reply, get, pass, post, provider, settle};
use tower::{BoxError, Layer, ServiceBuilder, ServiceExt};
use tower_http::follow_redirect::{FollowRedirect, FollowRedirectLayer};
use tower_jwt_refresh::{JwtRefreshLayer, NoToken, Origin, Placement, RetryPolicy, ScopeError, TokenProvider};

const URI: &str = "https://api.example.com/jobs/1";

fn here() -> Origin {
    Origin::parse("https://api.example.com").unwrap()
}

async fn send(
    layer: &JwtRefreshLayer,
    api: &Api,
    request: Request<Full<Bytes>>,
) -> Result<Response<Full<Bytes>>, BoxError> {
    layer.layer(api.clone()).oneshot(request).await
}

// Scenario 58.
#[tokio::test(start_paused = true)]
async fn plaintext_to_another_machine_is_an_error_that_names_the_remedy_and_nothing_is_sent() {
    let (endpoint, api) = (Endpoint::hourly(), Api::new());
    let (provider, _) = provider(&endpoint);
    let layer = JwtRefreshLayer::new(provider);
    for bad in ["http://api.example.com/", "http://10.0.0.1/", "http://localhost@api.example.com/", "http://0.0.0.0/"] {
        let error = send(&layer, &api, get(bad)).await.unwrap_err();
        assert!(matches!(error.downcast_ref(), Some(ScopeError::Plaintext { .. })), "{bad}: {error}");
        assert!(error.to_string().contains("allow_plaintext"), "{error}");
    }
    settle().await;
    assert_eq!((api.seen().len(), endpoint.fetches()), (0, 0), "no token is fetched for it either");

    for good in ["https://api.example.com/", "http://localhost:1/", "http://127.0.0.1/", "http://[::1]:1/"] {
        assert_eq!(send(&layer, &api, get(good)).await.unwrap().status(), StatusCode::OK, "{good}");
    }
    let allowed = layer.allow_plaintext();
    assert_eq!(send(&allowed, &api, get("http://api.example.com/")).await.unwrap().status(), StatusCode::OK);
}

// Scenario 58.
#[tokio::test(start_paused = true)]
async fn a_uri_without_a_host_needs_an_assumed_origin_by_which_it_is_judged() {
    let (endpoint, api) = (Endpoint::hourly(), Api::new());
    let (provider, _) = provider(&endpoint);
    let layer = JwtRefreshLayer::new(provider).allow_origin(here());
    let error = send(&layer, &api, get("/jobs/1")).await.unwrap_err();
    assert!(matches!(error.downcast_ref(), Some(ScopeError::NoOrigin)), "{error}");
    assert!(error.to_string().contains("assume_origin"), "{error}");
    settle().await;
    assert_eq!((api.seen().len(), endpoint.fetches()), (0, 0));

    let assumed = layer.clone().assume_origin(here());
    api.revoke("t1");
    assert_eq!(send(&assumed, &api, get("/jobs/1")).await.unwrap().status(), StatusCode::OK);
    assert_eq!(api.tokens(), ["t1", "t2"], "its 401 counts like any other");
    let elsewhere = layer.assume_origin(Origin::parse("https://example.org").unwrap());
    send(&elsewhere, &api, get("/jobs/1")).await.unwrap();
    assert_eq!(api.tokens(), ["t1", "t2", "-"], "the list holds for what is assumed, too");
}

// Scenarios 59 and 99; golang/oauth2#805, Azure/azure-sdk-for-net#59606.
#[tokio::test(start_paused = true)]
async fn a_request_to_an_origin_outside_the_list_goes_without_and_its_401_rejects_nothing() {
    let (endpoint, api) = (Endpoint::hourly(), Api::new());
    let (provider, _) = provider(&endpoint);
    provider.init().await.unwrap();
    api.refuse_with(|| challenged("Bearer error=\"invalid_token\", claims=\"theirs\""));
    let layer = JwtRefreshLayer::new(provider).allow_origin(here());
    for outside in
        ["https://example.org/", "https://api.example.com:8443/", "http://api.example.com/", "http://localhost/"]
    {
        let response = send(&layer, &api, post(outside, "hello")).await.unwrap();
        assert_eq!(response.status(), StatusCode::UNAUTHORIZED, "{outside}");
    }
    settle().await;
    assert_eq!(api.tokens(), ["-", "-", "-", "-"]);
    assert!(api.seen().iter().all(|seen| seen.body == "hello" && seen.headers.is_empty()), "untouched");
    assert_eq!(endpoint.fetches(), 1);
}

fn challenged(challenge: &'static str) -> Response<Full<Bytes>> {
    Response::builder().status(401).header("www-authenticate", challenge).body(Full::default()).unwrap()
}

// Scenario 105; Alamofire/Alamofire#3805.
#[tokio::test(start_paused = true)]
async fn what_takes_no_token_never_waits_for_one() {
    let (endpoint, api) = (Endpoint::new(Reply::Hang), Api::new());
    let (provider, _) = provider(&endpoint);
    let layer = JwtRefreshLayer::new(provider.clone()).allow_origin(here());
    let mut login = get(URI);
    login.extensions_mut().insert(NoToken);
    let mut own = get(URI);
    own.headers_mut().insert("authorization", "Basic mine".parse().unwrap());
    let all = || [get("https://example.org/"), login.clone(), own.clone()];
    for request in all() {
        send(&layer, &api, request).now_or_never().expect("answered at once, with no token there").unwrap();
    }
    settle().await;
    assert_eq!(endpoint.fetches(), 0, "and it wakes nobody");
    let waiting = tokio::spawn(async move { provider.token().await });
    endpoint.asked_times(1).await;
    for request in all() {
        send(&layer, &api, request).now_or_never().expect("answered at once, with a flight under way").unwrap();
    }
    assert_eq!(api.tokens(), ["-", "-", "mine", "-", "-", "mine"]);
    waiting.abort();
}

// Scenario 117.
#[tokio::test(start_paused = true)]
async fn a_request_marked_no_token_goes_out_untouched_and_its_401_rejects_nothing() {
    let (endpoint, api) = (Endpoint::hourly(), Api::new());
    let (provider, _) = provider(&endpoint);
    provider.init().await.unwrap();
    let layer = JwtRefreshLayer::new(provider);
    // Not even the rules of the scope hold: there is nothing to guard.
    for uri in [URI, "http://api.example.com/", "/jobs/1"] {
        let mut login = post(uri, "user and password");
        login.extensions_mut().insert(NoToken);
        assert_eq!(send(&layer, &api, login).await.unwrap().status(), StatusCode::UNAUTHORIZED);
    }
    settle().await;
    assert_eq!((api.tokens(), endpoint.fetches()), (vec!["-".to_owned(); 3], 1));
}

/// Sends `/moved` on to another host, and refuses whatever comes there.
fn redirecting() -> Api {
    let api = Api::new();
    api.judge_by(|seen| match (seen.uri.host(), seen.uri.path()) {
        (Some("evil.example.org"), _) => Some(challenged("Bearer claims=\"theirs\"")),
        (_, "/moved") => Some(moved("https://evil.example.org/")),
        (_, "/near") => Some(moved("https://api.example.com/jobs/1")),
        _ => None,
    });
    api
}

fn moved(to: &'static str) -> Response<Full<Bytes>> {
    Response::builder().status(307).header(LOCATION, to).body(Full::default()).unwrap()
}

fn placements() -> [Placement; 2] {
    [Placement::bearer(), Placement::header(HeaderName::from_static("x-api-key"))]
}

// Scenario 59; golang/oauth2#805, adobe/fetch#447, apify/crawlee#4134, pfBlockerNG/pfBlockerNG#1953.
#[tokio::test(start_paused = true)]
async fn a_redirect_followed_above_the_layer_takes_no_token_to_another_origin() {
    for placement in placements() {
        let (endpoint, api) = (Endpoint::hourly(), redirecting());
        let (provider, _) = provider(&endpoint);
        let layer = JwtRefreshLayer::new(provider).place(placement).allow_origin(here());
        let client = ServiceBuilder::new().layer(FollowRedirectLayer::new()).layer(layer).service(api.clone());
        let there = client.clone().oneshot(get("https://api.example.com/moved")).await.unwrap();
        assert_eq!(there.status(), StatusCode::UNAUTHORIZED);
        assert_eq!(api.tokens(), ["t1", "-"]);
        settle().await;
        assert_eq!(endpoint.fetches(), 1, "and the stranger's 401 rejects nothing");

        api.revoke("t1");
        let near = client.oneshot(get("https://api.example.com/near")).await.unwrap();
        assert_eq!(near.status(), StatusCode::OK);
        assert_eq!(api.tokens()[2..], ["t1", "t1", "t2"], "each hop is a request of its own");
    }
}

/// A provider that could be fooled: its token is old enough to be replaced at once.
async fn settled(endpoint: &Endpoint) -> TokenProvider {
    let (provider, _) = provider(endpoint);
    provider.init().await.unwrap();
    pass(support::MINUTE).await;
    provider
}

// Scenarios 59 and 99; Azure/azure-sdk-for-net#59606.
#[tokio::test(start_paused = true)]
async fn a_strangers_401_behind_a_redirect_below_the_layer_rejects_nothing_and_its_challenge_goes_nowhere() {
    for layer in [JwtRefreshLayer::new, |provider| JwtRefreshLayer::new(provider).retry(RetryPolicy::none())] {
        let (endpoint, api) = (Endpoint::hourly(), redirecting());
        let layer = layer(settled(&endpoint).await);
        let client = layer.layer(FollowRedirect::new(api.clone()));
        let there = client.clone().oneshot(get("https://api.example.com/moved")).await.unwrap();
        settle().await;
        assert_eq!(there.status(), StatusCode::UNAUTHORIZED);
        assert_eq!(api.tokens(), ["t1", "-"], "tower-http takes Authorization off");
        assert_eq!(endpoint.fetches(), 1);
    }

    // Without a copy, the token's own origin is known all the same.
    let (endpoint, api) = (Endpoint::hourly(), redirecting());
    let layer = JwtRefreshLayer::new(settled(&endpoint).await).retry(RetryPolicy::none());
    api.revoke("t1");
    layer.layer(FollowRedirect::new(api)).oneshot(get("https://api.example.com/near")).await.unwrap();
    settle().await;
    assert_eq!(endpoint.fetches(), 2);

    let (endpoint, api) = (Endpoint::hourly(), redirecting());
    let client = JwtRefreshLayer::new(settled(&endpoint).await).layer(FollowRedirect::new(api.clone()));
    api.revoke("t1");
    api.refuse_with(|| challenged("Bearer claims=\"ours\""));
    let near = client.oneshot(get("https://api.example.com/near")).await.unwrap();
    assert_eq!(near.status(), StatusCode::OK);
    assert_eq!(api.tokens(), ["t1", "t1", "t2", "t2"], "a 401 of the same origin counts, and the whole is sent again");
    assert_eq!(endpoint.asked()[1].challenge.as_deref(), Some("Bearer claims=\"ours\""));
}
