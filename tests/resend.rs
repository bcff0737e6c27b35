//! The resend: what is sent the second time, and what is not sent twice.

mod support;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode, Version, header::AUTHORIZATION};
use http_body_util::Full;
use std::time::Duration;
use support::{Api, Endpoint, HOUR, MINUTE, Reply, SECOND, answer, get, pass, post, revoked, settle};
use tokio::time::Instant;
use tower::{BoxError, Layer, ServiceExt};
use tower_jwt_refresh::{JwtRefreshLayer, NoToken, Origin, Placement, RetryPolicy};

const URI: &str = "https://api.example.com/jobs/1?page=2";

async fn send(
    layer: &JwtRefreshLayer,
    api: &Api,
    request: Request<Full<Bytes>>,
) -> Result<Response<Full<Bytes>>, BoxError> {
    layer.layer(api.clone()).oneshot(request).await
}

// Scenario 53; thomaslazar/abs-cli#89, jackmusick/bifrost#17.
#[tokio::test(start_paused = true)]
async fn the_resend_is_the_same_request_but_for_the_token() {
    let (provider, api) = revoked(&Endpoint::hourly()).await;
    let whole = |mut headers: HeaderMap| {
        let tokens: Vec<_> =
            headers.get_all(AUTHORIZATION).iter().map(|value| value.to_str().unwrap().to_owned()).collect();
        headers.remove(AUTHORIZATION);
        (headers, tokens)
    };
    for method in [Method::POST, Method::PUT, Method::PATCH, Method::DELETE] {
        provider.set(tower_jwt_refresh::Token::opaque("t1").unwrap().with_expires_in(HOUR));
        pass(MINUTE).await;
        api.forget_seen();
        let mut request = Request::builder()
            .method(method.clone())
            .uri(URI)
            .version(Version::HTTP_2)
            .header("x-trace", "7")
            .header("accept", "a")
            .header("accept", "b");
        request.extensions_mut().unwrap().insert("an extension");
        let request = request.body(Full::from("{\"job\": 1}")).unwrap();
        let headers = request.headers().clone();
        let response = send(&JwtRefreshLayer::new(provider.clone()), &api, request).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        let seen = api.seen();
        let newest = format!("Bearer {}", provider.current().unwrap().expose_secret());
        assert_eq!(seen.len(), 2);
        for (seen, token) in seen.into_iter().zip(["Bearer t1", &newest]) {
            assert_eq!(
                whole(seen.headers),
                (headers.clone(), vec![token.to_owned()]),
                "one token, not the old one beside it"
            );
            assert_eq!((seen.method, seen.uri.to_string()), (method.clone(), URI.to_owned()));
            assert_eq!(seen.body, "{\"job\": 1}");
        }
    }
}

// jackmusick/bifrost#17.
#[tokio::test(start_paused = true)]
async fn a_header_of_its_own_holds_only_the_new_token_too() {
    let (provider, api) = revoked(&Endpoint::hourly()).await;
    let layer = JwtRefreshLayer::new(provider).place(Placement::header("x-api-key".parse().unwrap()));
    assert_eq!(send(&layer, &api, post(URI, "x")).await.unwrap().status(), StatusCode::OK);
    let keys: Vec<_> = api.seen().iter().map(|seen| seen.headers.get_all("x-api-key").iter().count()).collect();
    assert_eq!((api.tokens(), keys), (vec!["t1".to_owned(), "t2".to_owned()], vec![1, 1]));
}

// n8n-io/n8n#37000.
#[tokio::test(start_paused = true)]
async fn what_cannot_be_sent_again_gets_its_401_at_once_and_the_next_request_a_new_token() {
    let endpoint = Endpoint::hourly();
    let (provider, api) = revoked(&endpoint).await;
    endpoint.set_delay(5 * SECOND);
    let layer = JwtRefreshLayer::new(provider).replay_none();
    let sent = Instant::now();
    let response = layer.layer(api.clone()).oneshot(post(URI, "once")).await.unwrap();
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(sent.elapsed(), Duration::ZERO);
    assert_eq!(layer.layer(api.clone()).oneshot(post(URI, "once")).await.unwrap().status(), StatusCode::OK);
    assert_eq!(api.tokens(), ["t1", "t2"]);
    assert_eq!(endpoint.fetches(), 2);
}

// DuendeArchive/Duende.AccessTokenManagement#31: a business 401, not to be sent twice.
#[tokio::test(start_paused = true)]
async fn a_policy_of_no_resends_sends_once_and_still_heals_the_next_request() {
    let endpoint = Endpoint::hourly();
    let (provider, api) = revoked(&endpoint).await;
    let layer = JwtRefreshLayer::new(provider).retry(RetryPolicy::none());
    assert_eq!(send(&layer, &api, post(URI, "order")).await.unwrap().status(), StatusCode::UNAUTHORIZED);
    assert_eq!(send(&layer, &api, post(URI, "order")).await.unwrap().status(), StatusCode::OK);
    assert_eq!(api.tokens(), ["t1", "t2"]);
    assert_eq!(endpoint.fetches(), 2);
}

// basecamp/hey-sdk#138: no more resends than the policy says, and each with a newer token.
#[tokio::test(start_paused = true)]
async fn many_resends_allowed_are_no_loop_against_a_server_that_refuses_everything() {
    let endpoint = Endpoint::hourly();
    let (provider, api) = revoked(&endpoint).await;
    api.refuse_all(true);
    let layer = JwtRefreshLayer::new(provider).retry(RetryPolicy::default().max_resends(100));
    assert_eq!(send(&layer, &api, get(URI)).await.unwrap().status(), StatusCode::UNAUTHORIZED);
    assert_eq!(api.tokens(), ["t1", "t2"], "a token that was just minted and is refused ends it");
    assert_eq!(endpoint.fetches(), 2);
    // Nor if the refusals take so long that the token is no longer young.
    api.forget_seen();
    pass(MINUTE).await;
    api.set_delay(20 * SECOND);
    assert_eq!(send(&layer, &api, get(URI)).await.unwrap().status(), StatusCode::UNAUTHORIZED);
    assert_eq!(api.tokens().len(), 2);
}

/// A token is revoked, its successor too, and others fetch a third while the resend is under way.
async fn revoked_twice(policy: RetryPolicy) -> (StatusCode, Vec<String>, usize) {
    let endpoint = Endpoint::hourly();
    let (provider, api) = revoked(&endpoint).await;
    let layer = JwtRefreshLayer::new(provider.clone()).retry(policy);
    api.revoke("t2");
    api.set_delay(5 * SECOND);
    let request = tokio::spawn({
        let (layer, api) = (layer.clone(), api.clone());
        async move { send(&layer, &api, post(URI, "x")).await.unwrap().status() }
    });
    pass(7 * SECOND).await;
    provider.refresh().await.unwrap();
    let status = request.await.unwrap();
    (status, api.tokens(), endpoint.fetches())
}

// basecamp/hey-sdk#138.
#[tokio::test(start_paused = true)]
async fn there_is_one_resend_by_default_though_a_newer_token_is_at_hand() {
    let (status, tokens, fetches) = revoked_twice(RetryPolicy::default()).await;
    assert_eq!((status, fetches), (StatusCode::UNAUTHORIZED, 3));
    assert_eq!(tokens, ["t1", "t2"]);
}

#[tokio::test(start_paused = true)]
async fn a_second_resend_if_allowed_takes_a_token_that_is_newer_still() {
    let (status, tokens, fetches) = revoked_twice(RetryPolicy::default().max_resends(2)).await;
    assert_eq!((status, fetches), (StatusCode::OK, 3));
    assert_eq!(tokens, ["t1", "t2", "t3"]);
}

// Scenario 105; Alamofire/Alamofire#3805.
#[tokio::test(start_paused = true)]
async fn requests_that_take_no_token_do_not_wait_while_it_is_replaced() {
    let endpoint = Endpoint::hourly();
    let (provider, api) = revoked(&endpoint).await;
    endpoint.set_delay(20 * SECOND);
    let layer = JwtRefreshLayer::new(provider).allow_origin(Origin::parse("https://api.example.com").unwrap());
    let refused = tokio::spawn({
        let (layer, api) = (layer.clone(), api.clone());
        async move { send(&layer, &api, get(URI)).await.unwrap().status() }
    });
    settle().await;
    assert_eq!(endpoint.busy(), 1);
    api.judge_by(|seen| seen.token.is_none().then(|| answer(200, "public")));
    let mut public = get(URI);
    public.extensions_mut().insert(NoToken);
    let mut own = get(URI);
    own.headers_mut().insert(AUTHORIZATION, "Bearer mine".parse().unwrap());
    let start = Instant::now();
    for request in [public, own, get("https://other.example.com/")] {
        assert_eq!(send(&layer, &api, request).await.unwrap().status(), StatusCode::OK);
    }
    assert_eq!(start.elapsed(), Duration::ZERO);
    assert_eq!(refused.await.unwrap(), StatusCode::OK);
    assert_eq!(start.elapsed(), 20 * SECOND);
    assert_eq!(api.tokens(), ["t1", "-", "mine", "-", "t2"]);
}

// Scenario 25.
#[tokio::test(start_paused = true)]
async fn an_error_of_the_transport_is_passed_on_and_neither_refreshes_nor_resends() {
    let endpoint = Endpoint::new(Reply::New(HOUR));
    let (provider, _) = revoked(&endpoint).await;
    for kind in [std::io::ErrorKind::ConnectionReset, std::io::ErrorKind::TimedOut, std::io::ErrorKind::BrokenPipe] {
        let sends = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let broken = tower::service_fn(|_: Request<Full<Bytes>>| {
            sends.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            std::future::ready(Err::<Response<()>, _>(std::io::Error::from(kind)))
        });
        let error = JwtRefreshLayer::new(provider.clone()).layer(broken).oneshot(get(URI)).await.unwrap_err();
        assert_eq!(error.downcast_ref::<std::io::Error>().unwrap().kind(), kind);
        settle().await;
        assert_eq!((sends.load(std::sync::atomic::Ordering::Relaxed), endpoint.fetches()), (1, 1));
    }
}
