//! The layer in a `ServiceBuilder` with what queues, limits, sheds and chooses, and inside and outside of a box.

mod support;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use std::time::Duration;
use support::{Api, Endpoint, SECOND, get, pass, post, provider, refused, settle};
use tokio::time::Instant;
use tower::{
    BoxError, Layer, Service, ServiceBuilder, ServiceExt, balance::p2c::Balance, buffer::Buffer, discover::ServiceList,
    load::Constant, load_shed::error::Overloaded, steer::Steer, util::BoxCloneSyncService,
};
use tower_jwt_refresh::{JwtRefreshLayer, NoToken, ServiceBuilderExt};

const URI: &str = "https://api.example.com/jobs/1";

type Answer = Response<Full<Bytes>>;

/// Twenty requests, refused at once, all end well: two sends each, one fetch.
async fn heals<S>(name: &str, endpoint: &Endpoint, api: &Api, stack: S)
where
    S: Service<Request<Full<Bytes>>, Response = Answer, Error: Into<BoxError>> + Clone,
{
    let calls = (0..20).map(|_| async {
        let mut stack = stack.clone();
        stack.ready().await.map_err(Into::into)?.call(post(URI, "hello")).await.map_err(Into::<BoxError>::into)
    });
    for answer in futures_util::future::join_all(calls).await {
        assert_eq!(answer.unwrap().status(), StatusCode::OK, "{name}");
    }
    let tokens = api.tokens();
    assert_eq!(tokens.iter().filter(|token| *token == "t2").count(), 20, "{name}: {tokens:?}");
    assert!(api.seen().iter().all(|seen| seen.body == "hello"), "{name}");
    assert_eq!((endpoint.fetches(), endpoint.most_at_once()), (2, 1), "{name}");
}

/// A stack around a new API, with a provider whose token is refused.
macro_rules! each_heals {
    ($($name:literal: |$provider:ident, $api:ident| $stack:expr;)+) => {$({
        let (endpoint, api) = (Endpoint::hourly().taking(SECOND), Api::new());
        let $provider = refused(&endpoint, &api).await;
        let $api = api.clone();
        api.set_delay(SECOND);
        heals($name, &endpoint, &api, $stack).await;
    })+};
}

// Scenario 60.
#[tokio::test(start_paused = true)]
async fn a_401_heals_through_queues_and_limits_outside_and_inside() {
    each_heals! {
        "buffer outside": |provider, api| ServiceBuilder::new().buffer(1).jwt_refresh(provider).service(api);
        "buffer inside": |provider, api| ServiceBuilder::new().jwt_refresh(provider).buffer(1).service(api);
        "limit outside": |provider, api| ServiceBuilder::new().concurrency_limit(4).jwt_refresh(provider).service(api);
        "limit inside": |provider, api| ServiceBuilder::new().jwt_refresh(provider).concurrency_limit(4).service(api);
        "limit and buffer inside": |provider, api| {
            ServiceBuilder::new().jwt_refresh(provider).buffer(4).concurrency_limit(1).service(api)
        };
        "shedder outside": |provider, api| ServiceBuilder::new().load_shed().jwt_refresh(provider).service(api);
        "shedder inside": |provider, api| ServiceBuilder::new().jwt_refresh(provider).load_shed().service(api);
    }
}

#[tokio::test(start_paused = true)]
async fn a_401_heals_through_steer_and_balance_behind_a_buffer_and_outside_of_us() {
    each_heals! {
        "steer inside": |provider, api| {
            let steer = Steer::new([api.clone(), api], |_: &Request<Full<Bytes>>, _: &[Api]| 1);
            ServiceBuilder::new().jwt_refresh(provider).buffer(4).service(steer)
        };
        "balance inside": |provider, api| {
            let replicas = ServiceList::new([Constant::new(api.clone(), 1), Constant::new(api, 1)]);
            ServiceBuilder::new().jwt_refresh(provider).buffer(4).service(Balance::new(replicas))
        };
        "steer outside": |provider, api| {
            let layer = JwtRefreshLayer::new(provider);
            let services = [layer.layer(api.clone()), layer.layer(api)];
            Buffer::new(Steer::new(services, |_: &Request<Full<Bytes>>, _: &[_]| 1), 4)
        };
        "balance outside": |provider, api| {
            let layer = JwtRefreshLayer::new(provider);
            let replicas = [layer.layer(api.clone()), layer.layer(api)].map(|service| Constant::new(service, 1));
            Buffer::new(Balance::new(ServiceList::new(replicas)), 4)
        };
    }
}

#[tokio::test(start_paused = true)]
async fn a_401_heals_inside_and_outside_of_a_box() {
    each_heals! {
        "in a box": |provider, api| {
            BoxCloneSyncService::new(ServiceBuilder::new().jwt_refresh(provider).service(api))
        };
        "around a box": |provider, api| {
            ServiceBuilder::new().jwt_refresh(provider).service(BoxCloneSyncService::new(api))
        };
        "as a layer that boxes": |provider, api| {
            let inner = ServiceBuilder::new().concurrency_limit(4).service(api);
            ServiceBuilder::new().layer(BoxCloneSyncService::layer()).jwt_refresh(provider).service(inner)
        };
    }
}

/// How long a request that needs no token takes while another waits 5 s for one.
async fn passes_by<S>(stack: S) -> Duration
where
    S: Service<Request<Full<Bytes>>, Response = Answer, Error: std::fmt::Debug> + Clone,
{
    let public = async {
        settle().await;
        let mut request = get(URI);
        request.extensions_mut().insert(NoToken);
        let began = Instant::now();
        stack.clone().oneshot(request).await.unwrap();
        began.elapsed()
    };
    let (answer, took) = tokio::join!(stack.clone().oneshot(get(URI)), public);
    assert_eq!(answer.unwrap().status(), StatusCode::OK);
    took
}

// Scenario 60.
#[tokio::test(start_paused = true)]
async fn a_limit_outside_holds_its_permit_while_a_token_is_waited_for_and_one_inside_does_not() {
    // Nobody holds a token yet, and the endpoint takes its time.
    let endpoint = Endpoint::hourly().taking(5 * SECOND);
    let stack = ServiceBuilder::new().jwt_refresh(provider(&endpoint).0).concurrency_limit(1);
    assert_eq!(passes_by(stack.service(Api::new())).await, Duration::ZERO);

    let endpoint = Endpoint::hourly().taking(5 * SECOND);
    let stack = ServiceBuilder::new().concurrency_limit(1).jwt_refresh(provider(&endpoint).0);
    let outside = stack.service(Api::new());
    assert_eq!(passes_by(outside).await, 5 * SECOND);
}

// Scenario 60.
#[tokio::test(start_paused = true)]
async fn a_shedder_outside_sheds_callers_and_what_it_let_in_waits_its_turn_to_be_resent() {
    let (endpoint, api) = (Endpoint::hourly(), Api::new());
    let provider = refused(&endpoint, &api).await;
    endpoint.set_delay(SECOND);
    api.set_delay(4 * SECOND);
    let stack = ServiceBuilder::new().load_shed().jwt_refresh(provider).concurrency_limit(1).service(api.clone());
    let first = tokio::spawn(stack.clone().oneshot(get(URI)));
    pass(SECOND).await;
    assert!(stack.clone().oneshot(get(URI)).await.unwrap_err().is::<Overloaded>(), "the first send has the permit");
    // The first has its 401, waits for a token and holds no permit: another takes it.
    pass(3 * SECOND + SECOND / 2).await;
    let mut request = get(URI);
    request.extensions_mut().insert(NoToken);
    stack.oneshot(request).await.unwrap();
    assert_eq!(first.await.unwrap().unwrap().status(), StatusCode::OK);
    assert_eq!(api.tokens(), ["t1", "-", "t2"]);
}

// Scenario 60.
#[tokio::test(start_paused = true)]
async fn a_shedder_inside_may_shed_the_resend_and_refuses_no_token_by_it() {
    let (endpoint, api) = (Endpoint::hourly(), Api::new());
    let provider = refused(&endpoint, &api).await;
    endpoint.set_delay(SECOND);
    api.set_delay(4 * SECOND);
    let stack = ServiceBuilder::new().jwt_refresh(provider).load_shed().concurrency_limit(1).service(api.clone());
    let first = tokio::spawn(stack.clone().oneshot(get(URI)));
    pass(4 * SECOND + SECOND / 2).await;
    let mut request = get(URI);
    request.extensions_mut().insert(NoToken);
    stack.clone().oneshot(request).await.unwrap();
    assert!(first.await.unwrap().unwrap_err().is::<Overloaded>());
    assert_eq!(stack.oneshot(get(URI)).await.unwrap().status(), StatusCode::OK);
    assert_eq!(api.tokens(), ["t1", "-", "t2"]);
    assert_eq!(endpoint.fetches(), 2);
}

// Scenario 60.
#[tokio::test(start_paused = true)]
async fn a_rate_limit_behind_a_buffer_counts_each_send() {
    let (endpoint, api) = (Endpoint::hourly(), Api::new());
    let provider = refused(&endpoint, &api).await;
    let stack = ServiceBuilder::new().jwt_refresh(provider).buffer(4).rate_limit(1, 10 * SECOND).service(api.clone());
    assert_eq!(stack.oneshot(get(URI)).await.unwrap().status(), StatusCode::OK);
    let seen = api.seen();
    assert_eq!(seen.len(), 2);
    assert!(seen[1].at - seen[0].at >= 10 * SECOND);
}
