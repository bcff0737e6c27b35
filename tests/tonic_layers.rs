//! The layer around a channel that queues, and between retries.

mod echo;
mod support;

use bytes::Bytes;
use echo::{EchoClient, Server, word};
use futures_util::poll;
use http_body_util::Full;
use std::future::{Ready, ready};
use support::{Endpoint, HOUR};
use tonic::{Status, body::Body};
use tower::{BoxError, Layer, Service, ServiceBuilder, retry::Policy};
use tower_jwt_refresh::{Attempt, RetryPolicy, TokenProvider, clock::ManualClock};

type Request = http::Request<Body>;
type Response = http::Response<Body>;

/// Repeats a call once that the server was too busy for.
#[derive(Clone, Debug, Default)]
struct Busy {
    repeated: bool,
}

fn is_busy<E>(result: &Result<Response, E>) -> bool {
    result.as_ref().is_ok_and(|response| response.headers().get("grpc-status").is_some_and(|code| code == "14"))
}

/// For `tower::retry` itself: a body of tonic's is no `Clone`, so it knows what is said.
impl<E> Policy<Request, Response, E> for Busy {
    type Future = Ready<()>;

    fn retry(&mut self, _: &mut Request, result: &mut Result<Response, E>) -> Option<Ready<()>> {
        (is_busy(result) && !std::mem::replace(&mut self.repeated, true)).then(|| ready(()))
    }

    fn clone_request(&mut self, request: &Request) -> Option<Request> {
        let hello = Full::new(Bytes::from_static(b"\0\0\0\0\x07\x0a\x05hello"));
        let mut copy = Request::new(Body::new(hello));
        *copy.uri_mut() = request.uri().clone();
        *copy.method_mut() = request.method().clone();
        *copy.version_mut() = request.version();
        *copy.headers_mut() = request.headers().clone();
        Some(copy)
    }
}

/// The same within the layer, on top of its own rules.
#[derive(Clone, Debug, Default)]
struct WithinTheLayer {
    own: RetryPolicy,
    repeated: bool,
}

impl Policy<Attempt<Request>, Response, BoxError> for WithinTheLayer {
    type Future = Ready<()>;

    fn retry(&mut self, attempt: &mut Attempt<Request>, result: &mut Result<Response, BoxError>) -> Option<Ready<()>> {
        if is_busy(result) && !std::mem::replace(&mut self.repeated, true) {
            return Some(ready(()));
        }
        self.own.retry(attempt, result)
    }

    fn clone_request(&mut self, attempt: &Attempt<Request>) -> Option<Attempt<Request>> {
        Policy::<_, Response, BoxError>::clone_request(&mut self.own, attempt)
    }
}

/// Too busy for the first call, and the token expires meanwhile: with it the server takes no other.
fn busy_past_expiry(server: &Server, clock: ManualClock) {
    let mut first = true;
    server.judge_by(move |seen| {
        if std::mem::take(&mut first) {
            clock.advance(2 * HOUR);
            return Some(Status::unavailable("busy"));
        }
        (seen.token == "old").then(echo::refusal)
    });
}

async fn start() -> (Server, Endpoint, TokenProvider) {
    let (server, endpoint) = (Server::start().await, Endpoint::hourly());
    let (provider, clock) = echo::provider(&endpoint);
    busy_past_expiry(&server, clock);
    (server, endpoint, provider)
}

async fn says_hello<S>(channel: S)
where
    S: Service<Request, Response = Response, Error: Into<BoxError> + Send + Sync, Future: Send> + Clone + Send + Sync,
    S: 'static,
{
    let answer = EchoClient::new(channel).say(word("hello")).await.unwrap();
    assert_eq!(answer.into_inner().text, "hello");
}

// Scenario 80; grpc/grpc-go#5550.
#[tokio::test]
async fn a_retry_above_asks_for_the_token_of_the_moment() {
    let (server, endpoint, provider) = start().await;
    let retries = ServiceBuilder::new().retry(Busy::default()).layer(server.layer(&provider));
    says_hello(retries.service(server.endpoint().connect_lazy())).await;
    assert_eq!((server.tokens(), endpoint.fetches()), (vec!["old".to_owned(), "t1".into()], 1));
}

// Scenario 80; grpc/grpc-go#5550.
#[tokio::test]
async fn a_retry_by_the_layers_own_policy_asks_for_the_token_of_the_moment() {
    let (server, endpoint, provider) = start().await;
    let layer = server.layer(&provider).retry(WithinTheLayer::default());
    says_hello(layer.layer(server.endpoint().connect_lazy())).await;
    assert_eq!((server.tokens(), endpoint.fetches()), (vec!["old".to_owned(), "t1".into()], 1));
}

// Scenario 80.
#[tokio::test]
async fn a_retry_below_repeats_the_same_token_and_its_refusal_is_healed() {
    let (server, endpoint, provider) = start().await;
    let retries = ServiceBuilder::new().layer(server.layer(&provider)).retry(Busy::default());
    says_hello(retries.service(server.endpoint().connect_lazy())).await;
    assert_eq!((server.tokens(), endpoint.fetches()), (vec!["old".to_owned(), "old".into(), "t1".into()], 1));
}

// Scenario 98; bazelbuild/bazel#12106: the token was attached, and then the call waited for its turn.
#[tokio::test]
async fn a_token_that_expires_while_the_call_waits_in_the_channel_is_healed_by_its_refusal() {
    let (server, endpoint) = (Server::start().await, Endpoint::hourly());
    let (provider, clock) = echo::provider(&endpoint);
    server.shut();
    let channel = server.endpoint().concurrency_limit(1).connect_lazy();
    let client = EchoClient::new(server.layer(&provider).layer(channel));
    let call = |text| {
        let mut client = client.clone();
        async move { client.say(word(text)).await }
    };
    let first = tokio::spawn(call("first"));
    server.until(|seen| seen.len() == 1).await;
    let mut second = std::pin::pin!(call("second"));
    assert!(poll!(second.as_mut()).is_pending());
    clock.advance(2 * HOUR);
    server.revoke("old");
    assert_eq!(server.tokens(), ["old"], "the second waits in the channel");
    server.open();
    assert_eq!(second.await.unwrap().into_inner().text, "second");
    assert_eq!(first.await.unwrap().unwrap().into_inner().text, "first");
    let mut sent: Vec<_> = server.seen().into_iter().map(|seen| (seen.words.concat(), seen.token)).collect();
    sent.sort();
    let expected = [("first", "old"), ("first", "t1"), ("second", "old"), ("second", "t1")];
    assert_eq!(sent, expected.map(|(text, token)| (text.to_owned(), token.to_owned())));
    assert_eq!(endpoint.fetches(), 1);
}
