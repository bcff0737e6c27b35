//! The inner service is called only when it is ready, and what readiness costs (a permit, a place in a queue) is given back.

mod support;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use std::{
    sync::{Arc, Mutex},
    task::{Context, Poll, ready},
    time::Duration,
};
use support::{Api, Endpoint, HOUR, MINUTE, Reply, SECOND, builder, get, pass, post, provider, settle};
use tokio::sync::Semaphore;
use tower::{
    BoxError, Layer, Service, ServiceExt, buffer::Buffer, limit::ConcurrencyLimit, load_shed::LoadShed, service_fn,
};
use tower_jwt_refresh::{JwtRefreshLayer, ScopeError, Token, TokenError, TokenProvider, TokenRequest};

const URI: &str = "https://api.example.com/jobs/1";

/// Panics when it is called without a `poll_ready` of its own, as services may. A clone has to be polled again.
struct Probe<S> {
    inner: S,
    ready: bool,
}

impl<S: Clone> Clone for Probe<S> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), ready: false }
    }
}

impl<R, S: Service<R>> Service<R> for Probe<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        ready!(self.inner.poll_ready(cx))?;
        self.ready = true;
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: R) -> S::Future {
        assert!(std::mem::take(&mut self.ready), "called without readiness");
        self.inner.call(request)
    }
}

type Limited = Probe<ConcurrencyLimit<Api>>;

/// So many at once, and the permits to look at.
fn limited(api: &Api, permits: usize) -> (Limited, Arc<Semaphore>) {
    let semaphore = Arc::new(Semaphore::new(permits));
    let inner = ConcurrencyLimit::with_semaphore(api.clone(), Arc::clone(&semaphore));
    (Probe { inner, ready: false }, semaphore)
}

// Scenario 60; joshrotenberg/tower-resilience#286 and #362, cduvray/jwt-authorizer#21.
#[tokio::test(start_paused = true)]
async fn each_of_several_sends_is_polled_ready_first_and_gives_its_permit_back() {
    let (endpoint, api) = (Endpoint::hourly(), Api::new());
    let (provider, _) = provider(&endpoint);
    let (inner, permits) = limited(&api, 1);
    let mut service = JwtRefreshLayer::new(provider).layer(inner);
    for (token, sends) in [("t1", 2), ("t2", 2), ("-", 1)] {
        api.forget_seen();
        api.revoke(token);
        let response = service.ready().await.unwrap().call(post(URI, "hello")).await.unwrap();
        assert_eq!((response.status(), api.seen().len()), (StatusCode::OK, sends));
        assert_eq!(permits.available_permits(), 1);
        pass(MINUTE).await;
    }
}

// Scenario 60; tower-rs/tower#547.
#[tokio::test(start_paused = true)]
async fn a_buffer_under_the_layer_is_polled_ready_before_both_sends() {
    let (endpoint, api) = (Endpoint::hourly().taking(SECOND), Api::new());
    let (provider, _) = provider(&endpoint);
    provider.init().await.unwrap();
    pass(MINUTE).await;
    api.revoke("t1");
    api.set_delay(SECOND);
    let service = JwtRefreshLayer::new(provider).layer(Buffer::new(api.clone(), 1));
    let calls = (0..20).map(|_| service.clone().oneshot(post(URI, "hello")));
    for response in futures_util::future::join_all(calls).await {
        assert_eq!(response.unwrap().status(), StatusCode::OK);
    }
    assert_eq!(api.tokens().iter().filter(|token| *token == "t2").count(), 20);
    assert_eq!(endpoint.fetches(), 2);
}

// Scenario 60.
#[tokio::test(start_paused = true)]
async fn what_a_load_shedder_turns_away_is_the_callers_and_rejects_nothing() {
    let (endpoint, api) = (Endpoint::hourly(), Api::new());
    let (provider, _) = provider(&endpoint);
    provider.init().await.unwrap();
    api.set_delay(SECOND);
    let (inner, permits) = limited(&api, 1);
    let service = JwtRefreshLayer::new(provider).layer(LoadShed::new(inner));
    let (first, second) = tokio::join!(service.clone().oneshot(get(URI)), service.clone().oneshot(get(URI)));
    assert_eq!(first.unwrap().status(), StatusCode::OK);
    assert!(second.unwrap_err().is::<tower::load_shed::error::Overloaded>());
    assert_eq!((endpoint.fetches(), api.seen().len(), permits.available_permits()), (1, 1, 1));

    api.revoke("t1");
    let healed = service.oneshot(get(URI)).await.unwrap();
    assert_eq!(healed.status(), StatusCode::OK, "the permit of the first send is free again for the second");
}

/// A source that asks through the same limited service as the requests it mints for.
fn shared(inner: &Limited) -> TokenProvider {
    let (inner, minted) = (inner.clone(), Arc::new(Mutex::new(0)));
    let (builder, _) = builder();
    let source = service_fn(move |_: TokenRequest| {
        let (mut inner, minted) = (inner.clone(), Arc::clone(&minted));
        async move {
            inner.ready().await?.call(get("https://auth.example.com/token")).await?;
            let mut minted = minted.lock().unwrap();
            *minted += 1;
            Ok::<_, BoxError>(Token::opaque(format!("t{minted}"))?.with_expires_in(HOUR))
        }
    });
    builder.build(source).unwrap()
}

// Scenario 81; square/retrofit#3935, AzureAD/microsoft-authentication-library-for-dotnet#4472.
#[tokio::test(start_paused = true)]
async fn a_source_behind_the_same_limit_never_waits_for_those_who_wait_for_it() {
    for limit in [1, 5] {
        let api = Api::new();
        let (inner, permits) = limited(&api, limit);
        let service = JwtRefreshLayer::new(shared(&inner)).layer(inner);
        let all = || futures_util::future::join_all((0..5).map(|_| service.clone().oneshot(get(URI))));
        for response in all().await {
            assert_eq!(response.unwrap().status(), StatusCode::OK, "from a cold start, limit {limit}");
        }
        pass(MINUTE).await;
        api.revoke("t1");
        api.set_delay(SECOND);
        for response in all().await {
            assert_eq!(response.unwrap().status(), StatusCode::OK, "after a rejection, limit {limit}");
        }
        assert_eq!(permits.available_permits(), limit);
    }
}

// Scenario 85; Azure/azure-sdk-for-net#44817.
#[tokio::test(start_paused = true)]
async fn a_caller_dropped_at_any_step_leaks_no_permit_and_loses_no_flight() {
    let step = Duration::from_millis(100);
    let mut steps = 0;
    loop {
        let (endpoint, api) = (Endpoint::hourly().taking(step * 3), Api::new());
        let (provider, _) = provider(&endpoint);
        let (inner, permits) = limited(&api, 1);
        let service = JwtRefreshLayer::new(provider).layer(inner);
        api.set_delay(step * 3);
        api.revoke("t1");

        let mut call = tokio_test::task::spawn(service.clone().oneshot(post(URI, "hello")));
        let mut answered = false;
        for _ in 0..steps {
            answered = call.poll().is_ready();
            if answered {
                break;
            }
            pass(step).await;
        }
        drop(call);
        settle().await;
        assert_eq!(permits.available_permits(), 1, "dropped after {steps} steps");

        let next = service.oneshot(post(URI, "hello")).await.unwrap();
        assert_eq!(next.status(), StatusCode::OK, "dropped after {steps} steps");
        assert_eq!((endpoint.fetches(), endpoint.most_at_once()), (2, 1), "dropped after {steps} steps");
        if answered {
            break;
        }
        steps += 1;
    }
    assert!(steps > 10, "first token, first answer, second token, second answer: {steps} steps");
}

/// Says once that it is broken, when it is told to.
#[derive(Clone)]
struct Breaks {
    api: Api,
    broken: Arc<Mutex<bool>>,
}

impl Service<Request<Full<Bytes>>> for Breaks {
    type Response = Response<Full<Bytes>>;
    type Error = BoxError;
    type Future = futures_util::future::ErrInto<<Api as Service<Request<Full<Bytes>>>>::Future, BoxError>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(if *self.broken.lock().unwrap() { Err("broken".into()) } else { Ok(()) })
    }

    fn call(&mut self, request: Request<Full<Bytes>>) -> Self::Future {
        futures_util::TryFutureExt::err_into(self.api.call(request))
    }
}

// Scenario 114.
#[tokio::test(start_paused = true)]
async fn an_inner_service_that_breaks_before_the_resend_leaves_the_caller_the_servers_401() {
    let (endpoint, api) = (Endpoint::hourly(), Api::new());
    let (provider, _) = provider(&endpoint);
    let broken = Arc::new(Mutex::new(false));
    let service =
        JwtRefreshLayer::new(provider.clone()).layer(Breaks { api: api.clone(), broken: Arc::clone(&broken) });
    api.judge_by(move |seen| {
        *broken.lock().unwrap() = seen.token.as_deref() == Some("t1");
        None
    });
    api.revoke("t1");
    let response = service.clone().oneshot(get(URI)).await.unwrap();
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(api.tokens(), ["t1"]);
    assert_eq!(provider.current().unwrap().expose_secret(), "t2", "the token is replaced all the same");

    let error = service.oneshot(get(URI)).await.unwrap_err();
    assert_eq!(error.to_string(), "broken", "before a first send it is the caller's own error");
}

// Scenario 60.
#[tokio::test(start_paused = true)]
async fn a_request_that_is_turned_away_gives_its_permit_back() {
    let (provider, _) = provider(&Endpoint::new(Reply::Fail));
    let (inner, permits) = limited(&Api::new(), 1);
    let mut service = JwtRefreshLayer::new(provider).layer(inner);
    let error = service.ready().await.unwrap().call(get("http://example.com/")).await.unwrap_err();
    assert!(error.is::<ScopeError>());
    assert_eq!(permits.available_permits(), 1, "not in scope");
    for cause in ["after a failed fetch", "inside the backoff"] {
        let error = service.ready().await.unwrap().call(get(URI)).await.unwrap_err();
        assert!(error.is::<TokenError>());
        assert_eq!(permits.available_permits(), 1, "{cause}");
    }
}

// Scenario 60.
#[tokio::test(start_paused = true)]
async fn the_permit_is_free_again_with_the_answer_whoever_still_holds_the_future() {
    let (provider, _) = provider(&Endpoint::hourly());
    let (inner, permits) = limited(&Api::new(), 1);
    let mut service = JwtRefreshLayer::new(provider).layer(inner);
    let mut call = std::pin::pin!(service.ready().await.unwrap().call(get(URI)));
    call.as_mut().await.unwrap();
    assert_eq!(permits.available_permits(), 1);
}
