//! What a policy decides: which outcome rejects the token, and which is sent again.

mod support;

use bytes::Bytes;
use futures_util::FutureExt;
use http::{Request, Response, StatusCode, header::AUTHORIZATION};
use http_body_util::{BodyExt, Full};
use std::{
    future::Ready,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};
use support::{Api, Endpoint, MINUTE, SECOND, get, pass, post, provider, settle};
use tower::{BoxError, Layer, ServiceExt, retry::Policy};
use tower_jwt_refresh::{Attempt, JwtRefreshLayer, RetryPolicy, Token, TokenProvider, body::KeepBody};

const URI: &str = "https://api.example.com/jobs/1";

type Answered = Result<Response<Full<Bytes>>, BoxError>;
type Try = Attempt<Request<Full<Bytes>>>;

async fn body(response: Response<Full<Bytes>>) -> Bytes {
    response.into_body().collect().await.unwrap().to_bytes()
}

/// Says "again" to a 503, after a second, and never that the token was refused. Marks what it sends again, and tries a token of
/// its own.
#[derive(Clone)]
struct Busy {
    left: usize,
}

impl Policy<Try, Response<Full<Bytes>>, BoxError> for Busy {
    type Future = tokio::time::Sleep;

    fn retry(&mut self, attempt: &mut Try, result: &mut Answered) -> Option<Self::Future> {
        self.left =
            (result.as_ref().ok()?.status() == StatusCode::SERVICE_UNAVAILABLE).then_some(self.left)?.checked_sub(1)?;
        attempt.headers_mut()?.insert("x-again", "1".parse().unwrap());
        attempt.headers_mut()?.insert(AUTHORIZATION, "Bearer mine".parse().unwrap());
        Some(tokio::time::sleep(SECOND))
    }

    fn clone_request(&mut self, attempt: &Try) -> Option<Try> {
        Some(attempt.keep(1024))
    }
}

// Scenario 113.
#[tokio::test(start_paused = true)]
async fn a_policy_that_says_again_without_a_rejection_resends_with_the_current_token_and_fetches_nothing() {
    let (endpoint, api) = (Endpoint::hourly(), Api::new());
    let (provider, _) = provider(&endpoint);
    api.judge_by(|seen| (seen.headers.get("x-again").is_none()).then(|| busy(503)));
    let service = JwtRefreshLayer::new(provider.clone()).retry(Busy { left: 2 }).layer(api.clone());
    let response = service.clone().oneshot(post(URI, "hello")).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!((api.tokens(), endpoint.fetches()), (vec!["t1".to_owned(); 2], 1));
    let seen = api.seen();
    assert!(seen.iter().all(|seen| seen.body == "hello"));
    assert!(seen[1].at - seen[0].at >= SECOND, "after the policy's own pause");

    // Current is what is current after the pause.
    api.forget_seen();
    let call = tokio::spawn(service.oneshot(post(URI, "hello")));
    settle().await;
    provider.set(Token::opaque("pushed").unwrap());
    call.await.unwrap().unwrap();
    assert_eq!((api.tokens(), endpoint.fetches()), (vec!["t1".into(), "pushed".into()], 1));
}

fn busy(status: u16) -> Response<Full<Bytes>> {
    Response::builder().status(status).body(Full::from("busy")).unwrap()
}

// Scenario 113.
#[tokio::test(start_paused = true)]
async fn a_policy_that_gives_up_leaves_the_caller_the_last_answer() {
    let (endpoint, api) = (Endpoint::hourly(), Api::new());
    let (provider, _) = provider(&endpoint);
    api.judge_by(|_| Some(busy(503)));
    let service = JwtRefreshLayer::new(provider).retry(Busy { left: 2 }).layer(api.clone());
    for sends in [3, 6] {
        let response = service.clone().oneshot(post(URI, "hello")).await.unwrap();
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(body(response).await, "busy");
        assert_eq!(api.seen().len(), sends, "the policy's count is this request's own");
    }
}

/// Rejects by status alone; asks for no copy, and says "again" all the same.
#[derive(Clone)]
struct NoCopy(Arc<AtomicUsize>);

impl Policy<Try, Response<Full<Bytes>>, BoxError> for NoCopy {
    type Future = Ready<()>;

    fn retry(&mut self, attempt: &mut Try, result: &mut Answered) -> Option<Ready<()>> {
        self.0.fetch_add(1, Ordering::SeqCst);
        if result.as_ref().is_ok_and(|response| response.status() == StatusCode::UNAUTHORIZED) {
            attempt.reject_token();
        }
        Some(std::future::ready(()))
    }

    fn clone_request(&mut self, _: &Try) -> Option<Try> {
        None
    }
}

// Scenario 27's rule for any policy: every outcome is shown, copy or not, and without a copy nothing is resent.
#[tokio::test(start_paused = true)]
async fn a_policy_without_a_copy_sees_every_outcome_and_its_rejection_heals_the_next_request() {
    let (endpoint, api) = (Endpoint::hourly(), Api::new());
    let (provider, _) = provider(&endpoint);
    let outcomes = Arc::new(AtomicUsize::new(0));
    let service = JwtRefreshLayer::new(provider.clone()).retry(NoCopy(Arc::clone(&outcomes))).layer(api.clone());
    api.revoke("t1");
    provider.init().await.unwrap();
    let first = service.clone().oneshot(get(URI)).now_or_never().expect("there is nothing to wait for");
    assert_eq!(first.unwrap().status(), StatusCode::UNAUTHORIZED);
    assert_eq!(service.oneshot(get(URI)).await.unwrap().status(), StatusCode::OK);
    assert_eq!(api.tokens(), ["t1", "t2"]);
    assert_eq!(outcomes.load(Ordering::SeqCst), 2);
}

/// A rejection that cannot be answered by a resend, and the request after it.
async fn rejected_and_next<K>(layer: impl FnOnce(TokenProvider) -> JwtRefreshLayer<RetryPolicy, K>)
where
    K: KeepBody<Full<Bytes>> + Clone,
{
    let (endpoint, api) = (Endpoint::hourly(), Api::new());
    let (provider, _) = provider(&endpoint);
    provider.init().await.unwrap();
    pass(MINUTE).await;
    api.revoke("t1");
    endpoint.set_delay(10 * SECOND);
    let service = layer(provider).layer(api.clone());
    let first = service.clone().oneshot(post(URI, "hello"));
    let first = first.now_or_never().expect("nobody waits for a token that cannot help").unwrap();
    assert_eq!(first.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(body(first).await, "refused", "the server's own answer");
    assert_eq!(service.oneshot(post(URI, "hello")).await.unwrap().status(), StatusCode::OK);
    assert_eq!((api.tokens(), endpoint.fetches()), (vec!["t1".to_owned(), "t2".to_owned()], 2));
}

// DuendeArchive/Duende.AccessTokenManagement#31, n8n-io/n8n#37000.
#[tokio::test(start_paused = true)]
async fn what_cannot_be_resent_gets_its_401_at_once_and_the_next_request_a_new_token() {
    rejected_and_next(|provider| JwtRefreshLayer::new(provider).retry(RetryPolicy::none())).await;
    rejected_and_next(|provider| JwtRefreshLayer::new(provider).replay_none()).await;
    rejected_and_next(|provider| JwtRefreshLayer::new(provider).replay_with(|_: &Full<Bytes>| None)).await;
}
