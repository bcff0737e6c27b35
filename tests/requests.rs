//! What becomes of a request on its way: its parts, its body, its answer.

mod support;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode, Version, header::AUTHORIZATION, request::Parts};
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt, Full, StreamBody, combinators::BoxBody};
use std::{
    convert::Infallible,
    pin::{Pin, pin},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};
use support::{Api, Endpoint, Reply, post, provider, settle};
use tower::{BoxError, Layer, Service, ServiceExt, service_fn};
use tower_jwt_refresh::{JwtRefreshLayer, ScopeError, TokenError};

const URI: &str = "https://api.example.com/jobs/1?page=2";

/// What an inner service got: the head, the bytes, the trailers.
type Got = (Parts, Bytes, Option<HeaderMap>);

/// Answers 401 to the token `t1` and 200 to any other, and keeps what it got.
fn records(
    got: &Arc<Mutex<Vec<Got>>>,
) -> impl Service<Request<BoxBody<Bytes, BoxError>>, Response = Response<()>, Error = BoxError, Future: Send> + Clone {
    let got = Arc::clone(got);
    service_fn(move |request: Request<BoxBody<Bytes, BoxError>>| {
        let got = Arc::clone(&got);
        async move {
            let (head, body) = request.into_parts();
            let refused = head.headers[AUTHORIZATION] == "Bearer t1";
            let body = body.collect().await?;
            let trailers = body.trailers().cloned();
            got.lock().unwrap().push((head, body.to_bytes(), trailers));
            Ok(Response::builder().status(if refused { 401 } else { 200 }).body(())?)
        }
    })
}

// Scenarios 52 and 53; jackmusick/bifrost#17, emdash-cms/emdash#2556, thomaslazar/abs-cli#89.
#[tokio::test(start_paused = true)]
async fn the_resend_equals_the_first_send_in_all_but_the_token() {
    let (provider, _) = provider(&Endpoint::hourly());
    let got = Arc::default();
    let trailers: HeaderMap = [("x-sum".parse().unwrap(), "7".parse().unwrap())].into_iter().collect();
    let frames = [
        Frame::data(Bytes::from_static(b"hello, ")),
        Frame::data(Bytes::from_static(b"world")),
        Frame::trailers(trailers.clone()),
    ];
    let frames = futures_util::stream::iter(frames.map(Ok::<_, BoxError>));
    let request = Request::builder()
        .method(Method::POST)
        .version(Version::HTTP_2)
        .uri(URI)
        .header("accept", "a")
        .header("accept", "b")
        .header("trailer", "x-sum")
        .extension("mine")
        .body(BodyExt::boxed(StreamBody::new(frames)))
        .unwrap();
    let response = JwtRefreshLayer::new(provider).layer(records(&got)).oneshot(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK, "the caller sees the second answer");

    let mut got = std::mem::take(&mut *got.lock().unwrap());
    let tokens: Vec<_> = got
        .iter_mut()
        .map(|(head, ..)| {
            let all: Vec<_> =
                head.headers.get_all(AUTHORIZATION).iter().map(|it| it.to_str().unwrap().to_owned()).collect();
            head.headers.remove(AUTHORIZATION);
            all
        })
        .collect();
    assert_eq!(tokens, [["Bearer t1"], ["Bearer t2"]], "one header in each, and no old token beside the new one");
    for (head, body, trailer) in &got {
        assert_eq!((&head.method, head.version, head.uri.to_string().as_str()), (&Method::POST, Version::HTTP_2, URI));
        assert_eq!(head.headers.get_all("accept").iter().collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!((head.headers.len(), &head.headers["trailer"]), (3, &"x-sum".parse().unwrap()));
        assert_eq!(head.extensions.get::<&str>(), Some(&"mine"));
        assert_eq!(body, "hello, world");
        assert_eq!(trailer.as_ref(), Some(&trailers));
    }
}

// Scenario 51.
#[tokio::test(start_paused = true)]
async fn a_header_that_the_caller_set_is_left_alone_and_its_401_is_the_callers() {
    let (endpoint, api) = (Endpoint::hourly(), Api::new());
    let (provider, _) = provider(&endpoint);
    provider.init().await.unwrap();
    api.revoke("mine");
    let mut request = post(URI, "hello");
    request.headers_mut().insert(AUTHORIZATION, "Basic mine".parse().unwrap());
    let response = JwtRefreshLayer::new(provider.clone()).layer(api.clone()).oneshot(request).await.unwrap();
    settle().await;
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(api.seen().len(), 1);
    assert_eq!(api.seen()[0].headers.get_all(AUTHORIZATION).iter().collect::<Vec<_>>(), ["Basic mine"]);
    assert_eq!(endpoint.fetches(), 1, "a 401 that is not the token's rejects nothing");
}

/// Bytes that tell whether they are still somewhere.
struct Owned {
    _alive: Arc<()>,
}

impl AsRef<[u8]> for Owned {
    fn as_ref(&self) -> &[u8] {
        b"hello"
    }
}

// Scenario 57.
#[tokio::test(start_paused = true)]
async fn the_copy_is_freed_when_the_answer_is_accepted_whoever_still_holds_the_future() {
    let (provider, _) = provider(&Endpoint::hourly());
    let alive = Arc::new(());
    let body = Full::new(Bytes::from_owner(Owned { _alive: Arc::clone(&alive) }));
    let kept = Arc::downgrade(&alive);
    drop(alive);
    let answers = service_fn({
        let kept = kept.clone();
        move |request: Request<Full<Bytes>>| {
            drop(request);
            assert!(kept.upgrade().is_some(), "until the answer is there a copy is kept");
            async { Ok::<_, Infallible>(Response::new(Full::new(Bytes::from_static(b"ok")))) }
        }
    });
    let mut service = JwtRefreshLayer::new(provider).layer(answers);
    let mut call = pin!(service.ready().await.unwrap().call(Request::post(URI).body(body).unwrap()));
    let response = call.as_mut().await.unwrap();
    assert!(kept.upgrade().is_none());
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "ok");
}

/// A body that counts what happens to it.
struct Watched {
    polls: Arc<AtomicUsize>,
    drops: Arc<AtomicUsize>,
}

impl Body for Watched {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        self.polls.fetch_add(1, Ordering::SeqCst);
        Poll::Ready(None)
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::new()
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.drops.fetch_add(1, Ordering::SeqCst);
    }
}

// Scenario 103.
#[tokio::test(start_paused = true)]
async fn the_body_of_a_request_that_gets_no_token_is_dropped_once_and_never_polled() {
    let endpoint = Endpoint::new(Reply::Fail);
    let (provider, _) = provider(&endpoint);
    let never = service_fn(|_: Request<BoxBody<Bytes, BoxError>>| async {
        panic!("sent without a token");
        #[allow(unreachable_code, reason = "says the type")]
        Ok::<_, Infallible>(Response::new(()))
    });
    let (polls, drops) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let request = |uri: &str| {
        let body = Watched { polls: Arc::clone(&polls), drops: Arc::clone(&drops) };
        Request::post(uri).body(BoxBody::new(body)).unwrap()
    };
    let service = JwtRefreshLayer::new(provider).layer(never);

    let waited = service.clone().oneshot(request(URI)).await.unwrap_err();
    assert!(waited.is::<TokenError>(), "{waited}");
    assert_eq!((polls.load(Ordering::SeqCst), drops.load(Ordering::SeqCst)), (0, 1), "after a wait");

    let at_once = service.clone().oneshot(request(URI)).await.unwrap_err();
    assert!(at_once.is::<TokenError>(), "{at_once}");
    assert_eq!(endpoint.fetches(), 1, "the second was turned away by the backoff");
    assert_eq!((polls.load(Ordering::SeqCst), drops.load(Ordering::SeqCst)), (0, 2), "without a wait");

    let outside = service.oneshot(request("http://example.com/")).await.unwrap_err();
    assert!(outside.is::<ScopeError>(), "{outside}");
    assert_eq!((polls.load(Ordering::SeqCst), drops.load(Ordering::SeqCst)), (0, 3), "not in scope");
}

#[tokio::test]
async fn debug_shows_what_was_configured_and_nothing_of_requests_and_tokens() {
    let (provider, _) = provider(&Endpoint::hourly());
    let layer = JwtRefreshLayer::new(provider);
    let mut service = layer.clone().layer(Api::new());
    service.clone().oneshot(post(URI, "s3cr3t")).await.unwrap();
    for (shown, name) in [(format!("{layer:?}"), "JwtRefreshLayer {"), (format!("{service:?}"), "JwtRefresh {")] {
        assert!(shown.starts_with(name) && shown.contains("status: Fresh"), "{shown}");
        assert!(!shown.contains("t1") && !shown.contains("s3cr3t"), "{shown}");
    }
    let call = service.ready().await.unwrap().call(post(URI, "s3cr3t"));
    assert_eq!(format!("{call:?}"), "ResponseFuture { .. }");
}
