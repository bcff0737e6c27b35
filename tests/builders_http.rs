//! The layer outside and inside of tower-http's layers that change requests or answers: decompression, redirects, headers.

mod support;

use bytes::Bytes;
use http::{HeaderValue, Request, Response, header};
use http_body_util::{BodyExt, Full};
use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};
use support::{Api, Endpoint, MINUTE, get, pass, provider, refused, settle};
use tower::{Service, ServiceBuilder, ServiceExt};
use tower_http::{
    decompression::DecompressionLayer, follow_redirect::FollowRedirectLayer, set_header::SetRequestHeaderLayer,
};
use tower_jwt_refresh::{JwtRefreshLayer, Origin, ServiceBuilderExt};

const URI: &str = "https://api.example.com/jobs/1";
/// `hello` and `refused`, as gzip has them.
const HELLO: &[u8] = &[31, 139, 8, 0, 0, 0, 0, 0, 2, 3, 203, 72, 205, 201, 201, 7, 0, 134, 166, 16, 54, 5, 0, 0, 0];
const REFUSED: &[u8] =
    &[31, 139, 8, 0, 0, 0, 0, 0, 2, 3, 43, 74, 77, 43, 45, 78, 77, 1, 0, 124, 190, 211, 240, 7, 0, 0, 0];

/// One request through a stack: its status and its text.
async fn send<S, B>(stack: S, request: Request<Full<Bytes>>) -> (u16, String)
where
    S: Service<Request<Full<Bytes>>, Response = Response<B>>,
    S::Error: std::fmt::Debug,
    B: http_body::Body,
    B::Error: std::fmt::Debug,
{
    let response = stack.oneshot(request).await.unwrap();
    let status = response.status().as_u16();
    let text = response.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8_lossy(&text).into_owned())
}

#[tokio::test(start_paused = true)]
async fn decompression_outside_and_inside_gives_the_same_answers_healed_or_refused() {
    for inside in [false, true] {
        let (endpoint, api) = (Endpoint::hourly(), Api::new());
        let provider = refused(&endpoint, &api).await;
        api.judge_by(|seen| {
            let refuses = seen.token.as_deref() == Some("t1") || seen.uri.path() == "/forbidden";
            let answer = Response::builder().header(header::CONTENT_ENCODING, "gzip");
            let answer = if refuses { answer.status(401) } else { answer };
            answer.body(Full::from(if refuses { REFUSED } else { HELLO })).ok()
        });
        let unzip = DecompressionLayer::new();
        for (uri, expected) in
            [(URI, (200, "hello".into())), ("https://api.example.com/forbidden", (401, "refused".into()))]
        {
            let answer = if inside {
                send(
                    ServiceBuilder::new().jwt_refresh(provider.clone()).layer(unzip.clone()).service(api.clone()),
                    get(uri),
                )
                .await
            } else {
                send(
                    ServiceBuilder::new().layer(unzip.clone()).jwt_refresh(provider.clone()).service(api.clone()),
                    get(uri),
                )
                .await
            };
            assert_eq!(answer, expected, "inside: {inside}");
            pass(MINUTE).await;
        }
        assert_eq!(api.tokens()[..2], ["t1", "t2"]);
        assert!(api.seen().iter().all(|seen| seen.headers[header::ACCEPT_ENCODING] == "gzip"), "on resends too");
    }
}

/// `/moved` leads to another host, where everybody is refused; `/here` to the same.
fn redirects(api: &Api) {
    api.judge_by(|seen| {
        let to = match (seen.uri.host(), seen.uri.path()) {
            (Some("other.example.net"), _) => return Some(support::answer(401, "who are you?")),
            (_, "/moved") => "https://other.example.net/jobs/1",
            (_, "/here") if seen.token.as_deref() != Some("t1") => "/jobs/1",
            _ => return None,
        };
        Response::builder().status(307).header(header::LOCATION, to).body(Full::default()).ok()
    });
}

// Scenario 59; golang/oauth2#805.
#[tokio::test(start_paused = true)]
async fn below_a_redirect_layer_each_hop_is_judged_by_the_scope() {
    let (endpoint, api) = (Endpoint::hourly(), Api::new());
    let (provider, _) = provider(&endpoint);
    redirects(&api);
    let ours = JwtRefreshLayer::new(provider).allow_origin(Origin::parse("https://api.example.com").unwrap());
    let stack = ServiceBuilder::new().layer(FollowRedirectLayer::new()).layer(ours).service(api.clone());
    assert_eq!(send(stack.clone(), get("https://api.example.com/moved")).await, (401, "who are you?".into()));
    settle().await;
    assert_eq!(api.tokens(), ["t1", "-"]);
    assert_eq!(endpoint.fetches(), 1, "another host refuses nothing");

    api.forget_seen();
    pass(MINUTE).await;
    api.revoke("t1");
    assert_eq!(send(stack, get("https://api.example.com/here")).await, (200, "ok".into()));
    assert_eq!(api.tokens(), ["t1", "t2", "t2"], "refused, redirected, answered");
}

// Scenarios 59 and 99; Azure/azure-sdk-for-net#59606.
#[tokio::test(start_paused = true)]
async fn above_a_redirect_layer_the_other_host_gets_no_token_and_refuses_none() {
    let (endpoint, api) = (Endpoint::hourly(), Api::new());
    let (provider, _) = provider(&endpoint);
    redirects(&api);
    let stack = ServiceBuilder::new().jwt_refresh(provider).layer(FollowRedirectLayer::new()).service(api.clone());
    assert_eq!(send(stack.clone(), get("https://api.example.com/moved")).await, (401, "who are you?".into()));
    settle().await;
    assert_eq!(api.tokens(), ["t1", "-"]);
    assert_eq!(endpoint.fetches(), 1);

    api.forget_seen();
    pass(MINUTE).await;
    api.revoke("t1");
    assert_eq!(send(stack, get("https://api.example.com/here")).await, (200, "ok".into()));
    assert_eq!(api.tokens(), ["t1", "t2", "t2"]);
}

#[tokio::test(start_paused = true)]
async fn a_header_is_set_once_outside_and_on_each_send_inside() {
    for (inside, expected) in [(false, ["1", "1"]), (true, ["1", "2"])] {
        let (endpoint, api) = (Endpoint::hourly(), Api::new());
        let provider = refused(&endpoint, &api).await;
        let set = Arc::new(AtomicUsize::new(0));
        let count = move |_: &Request<Full<Bytes>>| Some(HeaderValue::from(set.fetch_add(1, Ordering::Relaxed) + 1));
        let number = SetRequestHeaderLayer::overriding(header::FROM, count);
        let answer = if inside {
            send(ServiceBuilder::new().jwt_refresh(provider).layer(number).service(api.clone()), get(URI)).await
        } else {
            send(ServiceBuilder::new().layer(number).jwt_refresh(provider).service(api.clone()), get(URI)).await
        };
        assert_eq!(answer.0, 200);
        assert_eq!(api.tokens(), ["t1", "t2"]);
        let numbers: Vec<_> = api.seen().iter().map(|seen| seen.headers[header::FROM].clone()).collect();
        assert_eq!(numbers, expected);
    }
}

#[tokio::test(start_paused = true)]
async fn a_layer_outside_that_sets_the_tokens_header_makes_the_request_the_callers_own() {
    let (endpoint, api) = (Endpoint::hourly(), Api::new());
    let provider = refused(&endpoint, &api).await;
    api.revoke("own");
    let own = SetRequestHeaderLayer::overriding(header::AUTHORIZATION, HeaderValue::from_static("Bearer own"));
    let stack = ServiceBuilder::new().layer(own).jwt_refresh(provider).service(api.clone());
    assert_eq!(send(stack, get(URI)).await, (401, "refused".into()));
    settle().await;
    assert_eq!(api.tokens(), ["own"]);
    assert_eq!(endpoint.fetches(), 1, "its 401 refuses no token of ours");
}
