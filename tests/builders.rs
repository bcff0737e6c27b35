//! The layer in a `ServiceBuilder`, outside and inside of tower-http's layers and of `Retry`.

mod support;

use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full};
use std::future::Ready;
use support::{Api, Endpoint, HOUR, Logs, MINUTE, Reply, SECOND, answer, get, pass, post, provider, refused, settle};
use tokio::time::Instant;
use tower::{Service, ServiceBuilder, ServiceExt, retry::Policy};
use tower_http::{
    classify::{ServerErrorsAsFailures, SharedClassifier},
    timeout::TimeoutLayer,
    trace::{DefaultMakeSpan, TraceLayer},
};
use tower_jwt_refresh::{ServiceBuilderExt, Token, TokenProvider};

const URI: &str = "https://api.example.com/jobs/1";

/// One request through a stack: its status and its text.
async fn send<S, B>(stack: S, request: Request<Full<Bytes>>) -> (StatusCode, String)
where
    S: Service<Request<Full<Bytes>>, Response = Response<B>>,
    S::Error: std::fmt::Debug,
    B: http_body::Body,
    B::Error: std::fmt::Debug,
{
    let response = stack.oneshot(request).await.unwrap();
    let status = response.status();
    let text = response.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8_lossy(&text).into_owned())
}

#[tokio::test(start_paused = true)]
async fn the_builders_method_is_the_layer_with_its_defaults() {
    let (endpoint, api) = (Endpoint::hourly(), Api::new());
    let provider = refused(&endpoint, &api).await;
    let stack = ServiceBuilder::new().jwt_refresh(provider).service(api.clone());
    assert_eq!(send(stack, post(URI, "hello")).await, (StatusCode::OK, "ok".into()));
    assert_eq!(api.tokens(), ["t1", "t2"]);
    assert_eq!(api.seen()[1].headers[header::AUTHORIZATION], "Bearer t2");
}

#[tokio::test(start_paused = true)]
async fn a_timeout_outside_covers_the_refresh_and_the_resend_and_the_refresh_outlives_it() {
    let (endpoint, api) = (Endpoint::hourly(), Api::new());
    let provider = refused(&endpoint, &api).await;
    endpoint.set_delay(5 * SECOND);
    api.set_delay(SECOND);
    let timeout = TimeoutLayer::with_status_code(StatusCode::GATEWAY_TIMEOUT, 4 * SECOND);
    let stack = ServiceBuilder::new().layer(timeout).jwt_refresh(provider.clone()).service(api.clone());
    let began = Instant::now();
    assert_eq!(send(stack.clone(), get(URI)).await.0, StatusCode::GATEWAY_TIMEOUT);
    assert_eq!((began.elapsed(), api.tokens()), (4 * SECOND, vec!["t1".into()]));
    pass(3 * SECOND).await;
    assert_eq!(send(stack, get(URI)).await.0, StatusCode::OK);
    assert_eq!(api.tokens(), ["t1", "t2"]);
    assert_eq!(endpoint.fetches(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_timeout_inside_is_the_budget_of_each_send_and_waits_for_tokens_are_not_in_it() {
    let (endpoint, api) = (Endpoint::hourly(), Api::new());
    let provider = refused(&endpoint, &api).await;
    endpoint.set_delay(5 * SECOND);
    api.set_delay(SECOND);
    let timeout = TimeoutLayer::with_status_code(StatusCode::GATEWAY_TIMEOUT, SECOND + SECOND / 2);
    let stack = ServiceBuilder::new().jwt_refresh(provider).layer(timeout).service(api.clone());
    let began = Instant::now();
    assert_eq!(send(stack.clone(), get(URI)).await.0, StatusCode::OK);
    assert_eq!((began.elapsed(), api.tokens()), (7 * SECOND, vec!["t1".into(), "t2".into()]));

    api.set_delay(2 * SECOND);
    assert_eq!(send(stack, get(URI)).await.0, StatusCode::GATEWAY_TIMEOUT);
    settle().await;
    assert_eq!(endpoint.fetches(), 2, "a send that times out refuses no token");
}

/// Repeats what is answered with this status, so many times.
#[derive(Clone)]
struct Repeat(StatusCode, usize);

impl<B, E> Policy<Request<Full<Bytes>>, Response<B>, E> for Repeat {
    type Future = Ready<()>;

    fn retry(&mut self, _: &mut Request<Full<Bytes>>, answer: &mut Result<Response<B>, E>) -> Option<Self::Future> {
        let again = answer.as_ref().is_ok_and(|answer| answer.status() == self.0);
        self.1 = if again { self.1.checked_sub(1)? } else { return None };
        Some(std::future::ready(()))
    }

    fn clone_request(&mut self, request: &Request<Full<Bytes>>) -> Option<Request<Full<Bytes>>> {
        Some(request.clone())
    }
}

// Scenario 80; grpc/grpc-go#5550.
#[tokio::test(start_paused = true)]
async fn a_retry_outside_sees_only_our_final_answer_and_repeats_with_the_newest_token() {
    let (endpoint, api) = (Endpoint::hourly(), Api::new());
    let provider = refused(&endpoint, &api).await;
    let stack = ServiceBuilder::new()
        .retry(Repeat(StatusCode::SERVICE_UNAVAILABLE, 1))
        .jwt_refresh(provider)
        .service(api.clone());
    let mut sends = 0;
    api.judge_by(move |seen| {
        sends += 1;
        (sends == 2).then(|| {
            assert_eq!(seen.token.as_deref(), Some("t2"));
            answer(503, "busy")
        })
    });
    assert_eq!(send(stack, post(URI, "hello")).await.0, StatusCode::OK);
    assert_eq!(api.tokens(), ["t1", "t2", "t2"], "the 401 was ours to heal, the 503 theirs to repeat");
    assert!(api.seen().iter().all(|seen| seen.body == "hello"));
    assert_eq!(endpoint.fetches(), 2);
}

// Scenario 80; grpc/grpc-java#10462.
#[tokio::test(start_paused = true)]
async fn a_retry_inside_repeats_with_the_same_token_and_its_last_401_comes_up_to_us() {
    let (endpoint, api) = (Endpoint::hourly(), Api::new());
    let provider = refused(&endpoint, &api).await;
    let inside = Repeat(StatusCode::UNAUTHORIZED, 2);
    let stack = ServiceBuilder::new().jwt_refresh(provider).retry(inside).service(api.clone());
    assert_eq!(send(stack, post(URI, "hello")).await.0, StatusCode::OK);
    assert_eq!(api.tokens(), ["t1", "t1", "t1", "t2"]);
    assert!(api.seen().iter().all(|seen| seen.body == "hello"));
    assert_eq!(endpoint.fetches(), 2);
}

// Scenario 80.
#[tokio::test(start_paused = true)]
async fn retries_of_401_above_and_below_multiply_by_no_more_than_they_say_and_share_one_flight() {
    let (endpoint, api) = (Endpoint::hourly(), Api::new());
    let provider = refused(&endpoint, &api).await;
    api.refuse_all(true);
    let twice = Repeat(StatusCode::UNAUTHORIZED, 1);
    let stack = ServiceBuilder::new().retry(twice.clone()).jwt_refresh(provider).retry(twice).service(api.clone());
    endpoint.set_delay(SECOND);
    api.set_delay(SECOND);
    let calls = (0..10).map(|_| send(stack.clone(), get(URI)));
    for (status, text) in futures_util::future::join_all(calls).await {
        assert_eq!((status, text), (StatusCode::UNAUTHORIZED, "refused".into()));
    }
    let sends = |token: &str| api.tokens().iter().filter(|seen| *seen == token).count();
    // For each caller: two sends of ours, each doubled below, and all of it again for the one above.
    assert_eq!((sends("t1"), sends("t2"), sends("t3"), api.tokens().len()), (20, 40, 20, 80));
    assert_eq!((endpoint.fetches(), endpoint.most_at_once()), (3, 1));
}

/// Tokens that can be told from all else that is logged.
async fn secretive(endpoint: &Endpoint, api: &Api) -> TokenProvider {
    let (provider, _) = provider(endpoint);
    for secret in ["s3cr3t-one", "s3cr3t-two"] {
        endpoint.next(Reply::This(Token::opaque(secret).unwrap().with_expires_in(HOUR)));
    }
    provider.token().await.unwrap();
    pass(MINUTE).await;
    api.revoke("s3cr3t-one");
    provider
}

fn traced() -> TraceLayer<SharedClassifier<ServerErrorsAsFailures>, DefaultMakeSpan> {
    TraceLayer::new_for_http().make_span_with(DefaultMakeSpan::new().include_headers(true))
}

#[tokio::test(start_paused = true)]
async fn a_trace_outside_sees_one_request_and_no_token() {
    let (endpoint, api) = (Endpoint::hourly(), Api::new());
    let provider = secretive(&endpoint, &api).await;
    let (logs, _guard) = Logs::listen();
    let stack = ServiceBuilder::new().layer(traced()).jwt_refresh(provider).service(api.clone());
    assert_eq!(send(stack, get(URI)).await.0, StatusCode::OK);
    let text = logs.text();
    assert_eq!(api.tokens(), ["s3cr3t-one", "s3cr3t-two"]);
    assert_eq!(text.matches("started processing request").count(), 1);
    assert_eq!((text.matches("status=401").count(), text.matches("status=200").count()), (0, 1));
    assert!(!text.contains("s3cr3t") && !text.contains("authorization"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn a_trace_inside_sees_each_send_and_prints_no_token_even_when_it_prints_headers() {
    let (endpoint, api) = (Endpoint::hourly(), Api::new());
    let provider = secretive(&endpoint, &api).await;
    let (logs, _guard) = Logs::listen();
    let stack = ServiceBuilder::new().jwt_refresh(provider).layer(traced()).service(api.clone());
    assert_eq!(send(stack, get(URI)).await.0, StatusCode::OK);
    let text = logs.text();
    assert_eq!(api.tokens(), ["s3cr3t-one", "s3cr3t-two"]);
    assert_eq!(text.matches("started processing request").count(), 2);
    assert_eq!((text.matches("status=401").count(), text.matches("status=200").count()), (1, 1));
    assert!(text.contains(r#""authorization": Sensitive"#), "the header is there to print: {text}");
    assert!(!text.contains("s3cr3t"), "{text}");
}
