//! The layer in a `ServiceBuilder`, in every place among tower's and tower-http's layers where it makes sense.

mod support;

use bytes::Bytes;
use futures_util::future;
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body_util::Full;
use std::{
    convert::Infallible,
    future::{Ready, ready},
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};
use support::{Api, Endpoint, Logs, SECOND, get, provider};
use tower::{
    BoxError, Service, ServiceBuilder, ServiceExt, balance::p2c::Balance, discover::ServiceList, load::Constant,
    retry::Policy, steer::Steer, util::BoxCloneSyncService,
};
use tower_http::{
    decompression::DecompressionLayer, follow_redirect::FollowRedirectLayer, set_header::SetRequestHeaderLayer,
    trace::TraceLayer,
};
use tower_jwt_refresh::{JwtRefreshLayer, ServiceBuilderExt, TokenProvider};

const URI: &str = "https://api.example.com/jobs/1";

type Req = Request<Full<Bytes>>;
type Res = Response<Full<Bytes>>;

/// An API that refuses the first token, and a provider.
fn setting() -> (Api, Endpoint, TokenProvider) {
    let (endpoint, api) = (Endpoint::hourly(), Api::new());
    let (provider, _) = provider(&endpoint);
    api.revoke("t1");
    (api, endpoint, provider)
}

/// The caller sees 200, the API the refused token and the next, and there were two fetches.
async fn heals<S, B>(api: &Api, endpoint: &Endpoint, service: S)
where
    S: Service<Req, Response = Response<B>>,
    S::Error: Into<BoxError>,
{
    let answer = service.oneshot(get(URI)).await.map_err(Into::into).unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    assert_eq!(api.tokens(), ["t1", "t2"]);
    assert_eq!(endpoint.fetches(), 2);
}

/// Resends what was answered by 503, so often.
#[derive(Clone)]
struct Busy(u32);

impl<B, E> Policy<Req, Response<B>, E> for Busy {
    type Future = Ready<()>;

    fn retry(&mut self, _: &mut Req, answer: &mut Result<Response<B>, E>) -> Option<Ready<()>> {
        let busy = answer.as_ref().is_ok_and(|answer| answer.status() == 503) && self.0 > 0;
        self.0 = self.0.saturating_sub(1);
        busy.then(|| ready(()))
    }

    fn clone_request(&mut self, request: &Req) -> Option<Req> {
        Some(request.clone())
    }
}

/// The first answer to this token is 503.
fn busy_once_for(api: &Api, token: &'static str) {
    let mut first = true;
    api.judge_by(move |seen| {
        let busy = seen.token.as_deref() == Some(token) && std::mem::take(&mut first);
        busy.then(|| Response::builder().status(503).body(Full::default()).unwrap())
    });
}

#[tokio::test(start_paused = true)]
async fn a_builder_takes_it_by_name() {
    let (api, endpoint, provider) = setting();
    heals(&api, &endpoint, ServiceBuilder::new().jwt_refresh(provider).service(api.clone())).await;
}

#[tokio::test(start_paused = true)]
async fn a_timeout_outside_bounds_the_whole_and_the_fetch_goes_on_for_the_next() {
    let (api, endpoint, provider) = setting();
    endpoint.set_delay(2 * SECOND);
    let service = ServiceBuilder::new().timeout(3 * SECOND).jwt_refresh(provider.clone()).service(api.clone());
    let error = service.clone().oneshot(get(URI)).await.unwrap_err();
    assert!(error.is::<tower::timeout::error::Elapsed>(), "two fetches take longer: {error}");
    let answer = service.oneshot(get(URI)).await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    assert_eq!(endpoint.fetches(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_timeout_inside_bounds_each_sending() {
    let (api, endpoint, provider) = setting();
    endpoint.set_delay(2 * SECOND);
    api.set_delay(SECOND);
    let limit = Duration::from_millis(1500);
    heals(&api, &endpoint, ServiceBuilder::new().jwt_refresh(provider).timeout(limit).service(api.clone())).await;
}

// Scenario 80.
#[tokio::test(start_paused = true)]
async fn a_retry_outside_repeats_what_the_layer_answered() {
    let (api, endpoint, provider) = setting();
    busy_once_for(&api, "t2");
    let service = ServiceBuilder::new().retry(Busy(3)).jwt_refresh(provider).service(api.clone());
    assert_eq!(service.oneshot(get(URI)).await.unwrap().status(), StatusCode::OK);
    assert_eq!(api.tokens(), ["t1", "t2", "t2"]);
    assert_eq!(endpoint.fetches(), 2);
}

// Scenario 80.
#[tokio::test(start_paused = true)]
async fn a_retry_inside_repeats_with_the_same_token_and_lets_a_401_up() {
    let (api, endpoint, provider) = setting();
    busy_once_for(&api, "t1");
    let service = ServiceBuilder::new().jwt_refresh(provider).retry(Busy(3)).service(api.clone());
    assert_eq!(service.oneshot(get(URI)).await.unwrap().status(), StatusCode::OK);
    assert_eq!(api.tokens(), ["t1", "t1", "t2"]);
    assert_eq!(endpoint.fetches(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_trace_outside_sees_one_request_and_inside_each_sending_and_never_the_token() {
    let (logs, _guard) = Logs::listen();
    let answers = |logs: &Logs| logs.text().matches("finished processing request").count();

    let (api, endpoint, provider) = setting();
    let trace =
        || TraceLayer::new_for_http().make_span_with(tower_http::trace::DefaultMakeSpan::new().include_headers(true));
    heals(&api, &endpoint, ServiceBuilder::new().layer(trace()).jwt_refresh(provider).service(api.clone())).await;
    assert_eq!(answers(&logs), 1);

    let (api, endpoint, provider) = setting();
    heals(&api, &endpoint, ServiceBuilder::new().jwt_refresh(provider).layer(trace()).service(api.clone())).await;
    assert_eq!(answers(&logs), 1 + 2);
    assert!(logs.text().contains("Sensitive") && !logs.text().contains("Bearer"), "{}", logs.text());
}

#[tokio::test(start_paused = true)]
async fn decompression_goes_on_either_side() {
    let (api, endpoint, provider) = setting();
    let outside = ServiceBuilder::new().layer(DecompressionLayer::new()).jwt_refresh(provider).service(api.clone());
    heals(&api, &endpoint, outside).await;
    let (api, endpoint, provider) = setting();
    let inside = ServiceBuilder::new().jwt_refresh(provider).layer(DecompressionLayer::new()).service(api.clone());
    heals(&api, &endpoint, inside).await;
}

#[tokio::test(start_paused = true)]
async fn a_header_set_outside_is_the_callers_and_one_set_inside_comes_after_the_token() {
    let own = SetRequestHeaderLayer::overriding(header::AUTHORIZATION, HeaderValue::from_static("Bearer t1"));
    let (api, endpoint, provider) = setting();
    let service = ServiceBuilder::new().layer(own.clone()).jwt_refresh(provider).service(api.clone());
    assert_eq!(service.oneshot(get(URI)).await.unwrap().status(), StatusCode::UNAUTHORIZED);
    assert_eq!((api.tokens().len(), endpoint.fetches()), (1, 0));

    let (api, endpoint, provider) = setting();
    let service = ServiceBuilder::new().jwt_refresh(provider).layer(own).service(api.clone());
    assert_eq!(service.oneshot(get(URI)).await.unwrap().status(), StatusCode::UNAUTHORIZED);
    assert_eq!((api.tokens(), endpoint.fetches()), (vec!["t1".to_owned(), "t1".to_owned()], 2));
}

#[tokio::test(start_paused = true)]
async fn redirects_are_followed_outside_and_inside() {
    let (api, endpoint, provider) = setting();
    let outside = ServiceBuilder::new().layer(FollowRedirectLayer::new()).jwt_refresh(provider).service(api.clone());
    heals(&api, &endpoint, outside).await;
    let (api, endpoint, provider) = setting();
    let inside = ServiceBuilder::new().jwt_refresh(provider).layer(FollowRedirectLayer::new()).service(api.clone());
    heals(&api, &endpoint, inside).await;
}

// Scenario 60.
#[tokio::test(start_paused = true)]
async fn a_buffer_a_limit_and_a_load_shedder_go_on_either_side() {
    let (api, endpoint, provider) = setting();
    let outside = ServiceBuilder::new().load_shed().concurrency_limit(1).buffer(1).jwt_refresh(provider);
    heals(&api, &endpoint, outside.service(api.clone())).await;
    let (api, endpoint, provider) = setting();
    let inside = ServiceBuilder::new().jwt_refresh(provider).load_shed().concurrency_limit(1).buffer(1);
    heals(&api, &endpoint, inside.service(api.clone())).await;
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_cloned_goes_behind_a_buffer() {
    let (api, endpoint, provider) = setting();
    let limited = ServiceBuilder::new().jwt_refresh(provider).buffer(8).rate_limit(100, SECOND).service(api.clone());
    heals(&api, &endpoint, limited).await;

    let (api, endpoint, provider) = setting();
    let both = ServiceList::new([api.clone(), api.clone()].map(|api| Constant::new(api, 1)));
    let balanced = ServiceBuilder::new().jwt_refresh(provider).buffer(8).service(Balance::<_, Req>::new(both));
    heals(&api, &endpoint, balanced).await;
}

// Steer's clones take one another's readiness for their own: twenty at once, each through both of its services.
#[tokio::test(start_paused = true)]
async fn steer_goes_behind_a_buffer() {
    let (api, endpoint, provider) = setting();
    let turn = AtomicUsize::new(0);
    let pick = move |_: &Req, services: &[BoxCloneSyncService<Req, Res, Infallible>]| {
        turn.fetch_add(1, Ordering::Relaxed) % services.len()
    };
    let limited = || BoxCloneSyncService::new(ServiceBuilder::new().concurrency_limit(1).service(api.clone()));
    let steer = Steer::new(vec![limited(), limited()], pick);
    let service = ServiceBuilder::new().jwt_refresh(provider).buffer(8).service(steer);
    let answers = future::join_all((0..20).map(|_| service.clone().oneshot(get(URI)))).await;
    assert!(answers.iter().all(|answer| answer.as_ref().unwrap().status() == StatusCode::OK));
    assert_eq!(endpoint.fetches(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_clonable_box_is_fine_inside_and_outside() {
    let (api, endpoint, provider) = setting();
    let inside: BoxCloneSyncService<Req, Res, Infallible> = BoxCloneSyncService::new(api.clone());
    let service = ServiceBuilder::new().layer(JwtRefreshLayer::new(provider)).service(inside);
    let outside: BoxCloneSyncService<Req, Res, BoxError> = BoxCloneSyncService::new(service);
    heals(&api, &endpoint, outside).await;
}
