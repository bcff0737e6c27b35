//! Streaming bodies through the whole layer: recorded up to the limit, sent again whole or not at all.

mod support;

use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, Request, Response, StatusCode, header::AUTHORIZATION};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody, combinators::BoxBody};
use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};
use support::{Endpoint, provider, settle};
use tokio::sync::oneshot;
use tower::{BoxError, Layer, Service, ServiceExt};
use tower_jwt_refresh::{JwtRefreshLayer, RetryPolicy};

const URI: &str = "https://api.example.com/upload";
const DEFAULT_LIMIT: usize = 128 * 1024;

type Boxed = BoxBody<Bytes, BoxError>;
type Step = Result<Frame<Bytes>, BoxError>;

fn data(text: &'static str) -> Step {
    Ok(Frame::data(Bytes::from_static(text.as_bytes())))
}

/// Of unknown length: nothing but the end tells how much it is.
fn body(steps: impl IntoIterator<Item = Step, IntoIter: Send + Sync + 'static>) -> Boxed {
    BodyExt::boxed(StreamBody::new(stream::iter(steps)))
}

/// How one sending of a body went, as the server saw it.
#[derive(Debug, Default, PartialEq)]
struct Sending {
    token: String,
    text: Vec<u8>,
    trailers: Option<HeaderMap>,
    /// Ended cleanly; otherwise with this error.
    end: Option<Result<(), String>>,
}

/// Answers 401 to `t1`. What it answers 401 to it reads up to so many frames before it answers, and the rest in a task of its own,
/// as a connection does.
#[derive(Clone)]
struct Upload {
    reads_first: usize,
    sendings: Arc<Mutex<Vec<Sending>>>,
    /// Resolves when the first sending is over, however.
    over: Arc<Mutex<Option<oneshot::Sender<()>>>>,
}

impl Upload {
    fn new(reads_first: usize) -> (Self, oneshot::Receiver<()>) {
        let (over, done) = oneshot::channel();
        (Self { reads_first, sendings: Arc::default(), over: Arc::new(Mutex::new(Some(over))) }, done)
    }

    fn sendings(&self) -> Vec<Sending> {
        std::mem::take(&mut *self.sendings.lock().unwrap())
    }

    fn with<T>(&self, number: usize, act: impl FnOnce(&mut Sending) -> T) -> T {
        act(&mut self.sendings.lock().unwrap()[number])
    }

    /// False: the body is over.
    async fn read(&self, number: usize, body: &mut Boxed) -> bool {
        let end = match body.frame().await {
            Some(Ok(frame)) => {
                self.with(number, |sending| match frame.into_data() {
                    Ok(data) => sending.text.extend_from_slice(&data),
                    Err(frame) => sending.trailers = frame.into_trailers().ok(),
                });
                return true;
            }
            Some(Err(error)) => Err(error.to_string()),
            None => Ok(()),
        };
        self.with(number, |sending| sending.end = Some(end));
        false
    }

    async fn serve(self, request: Request<Boxed>) -> Result<Response<()>, BoxError> {
        let (head, mut body) = request.into_parts();
        let token = head.headers[AUTHORIZATION].to_str()?.replace("Bearer ", "");
        let refused = token == "t1";
        let number = {
            let mut sendings = self.sendings.lock().unwrap();
            sendings.push(Sending { token, ..Sending::default() });
            sendings.len() - 1
        };
        let first = if refused { self.reads_first } else { usize::MAX };
        let mut more = true;
        for _ in 0..first {
            more = self.read(number, &mut body).await;
            if !more {
                break;
            }
        }
        let over = self.over.lock().unwrap().take();
        let rest = {
            let upload = self.clone();
            async move {
                while more && upload.read(number, &mut body).await {}
                over.map(|over| over.send(()))
            }
        };
        tokio::spawn(rest);
        if let Some(Err(error)) = self.with(number, |sending| sending.end.clone()) {
            return Err(error.into());
        }
        Ok(Response::builder().status(if refused { 401 } else { 200 }).body(())?)
    }
}

impl Service<Request<Boxed>> for Upload {
    type Response = Response<()>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Response<()>, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Boxed>) -> Self::Future {
        Box::pin(self.clone().serve(request))
    }
}

async fn send(server: &Upload, policy: RetryPolicy, body: Boxed) -> StatusCode {
    let (provider, _) = provider(&Endpoint::hourly());
    let service = JwtRefreshLayer::new(provider).retry(policy).layer(server.clone());
    let answer = service.clone().oneshot(Request::post(URI).body(body).unwrap()).await.unwrap().status();
    if answer == StatusCode::UNAUTHORIZED {
        // What could not be sent again has still healed the next request.
        let next = service.oneshot(Request::post(URI).body(Boxed::default()).unwrap()).await.unwrap();
        assert_eq!(next.status(), StatusCode::OK);
        assert_eq!(server.sendings.lock().unwrap().pop().unwrap().token, "t2");
    }
    answer
}

fn whole(token: &str, text: &[u8]) -> Sending {
    Sending { token: token.into(), text: text.into(), trailers: None, end: Some(Ok(())) }
}

// Scenario 54 and 83; kubernetes-sigs/headlamp#7482.
#[tokio::test(start_paused = true)]
async fn exactly_the_limit_is_sent_again_and_one_byte_more_is_sent_once_whole() {
    let chunk = || Bytes::from(vec![7; 1024]);
    for (extra, resent) in [(0, true), (1, false)] {
        let frames: Vec<_> = std::iter::repeat_with(|| Ok(Frame::data(chunk())))
            .take(DEFAULT_LIMIT / 1024)
            .chain((0..extra).map(|_| data("x")))
            .collect();
        let text = [vec![7; DEFAULT_LIMIT], vec![b'x'; extra]].concat();
        let (server, _) = Upload::new(usize::MAX);
        let answer = send(&server, RetryPolicy::default(), body(frames)).await;
        let mut expected = vec![whole("t1", &text)];
        if resent {
            expected.push(whole("t2", &text));
        }
        assert_eq!(answer, if resent { StatusCode::OK } else { StatusCode::UNAUTHORIZED });
        assert!(server.sendings() == expected, "{extra} bytes over the limit");
    }
}

// Scenario 83; n8n-io/n8n#37000.
#[tokio::test(start_paused = true)]
async fn empty_bodies_empty_frames_and_trailers_are_sent_again_as_they_were() {
    let trailers = || [("x-sum".parse().unwrap(), "7".parse().unwrap())].into_iter().collect::<HeaderMap>();
    let end = || Ok(Frame::trailers(trailers()));
    for (steps, text, trailers) in [
        (vec![], "", None),
        (vec![end()], "", Some(trailers())),
        (vec![data(""), data("ab"), data(""), data("c"), data("")], "abc", None),
        (vec![data("abc"), end()], "abc", Some(trailers())),
    ] {
        let (server, _) = Upload::new(usize::MAX);
        assert_eq!(send(&server, RetryPolicy::default(), body(steps)).await, StatusCode::OK);
        let expected =
            ["t1", "t2"].map(|token| Sending { trailers: trailers.clone(), ..whole(token, text.as_bytes()) });
        assert_eq!(server.sendings(), expected);
    }
}

// Scenario 55.
#[tokio::test(start_paused = true)]
async fn an_answer_before_the_body_was_read_is_followed_by_all_of_it_and_the_first_send_ends_in_an_error() {
    for reads_first in [0, 1, 2] {
        let (server, over) = Upload::new(reads_first);
        // The rest waits until the resend was made, or the first send would be through with it.
        let rest = stream::once(async {
            tokio::time::sleep(support::MINUTE).await;
            data("c")
        });
        let frames = stream::StreamExt::chain(stream::iter([data("a"), data("b")]), rest);
        let body = BodyExt::boxed(StreamBody::new(frames));
        assert_eq!(send(&server, RetryPolicy::default(), body).await, StatusCode::OK);
        over.await.unwrap();
        let [first, second]: [Sending; 2] = server.sendings().try_into().unwrap();
        assert_eq!(second, whole("t2", b"abc"), "answered after {reads_first} frames");
        assert!(b"ab".starts_with(&first.text) && first.text.len() >= reads_first);
        let error = first.end.unwrap().expect_err("a truncated body never ends cleanly");
        assert!(error.contains("sent again"), "{error}");
    }
}

// Scenarios 54 and 55: the record overflows while the server goes on reading after its answer.
#[tokio::test(start_paused = true)]
async fn a_body_over_the_limit_is_sent_whole_though_it_was_refused_early() {
    let (server, over) = Upload::new(1);
    let answer = send(&server, RetryPolicy::default().body_limit(3), body([data("ab"), data("cd"), data("ef")])).await;
    over.await.unwrap();
    settle().await;
    // Whichever came first: read to the limit, then the answer is passed on and nothing is cut off.
    let sendings = server.sendings();
    assert_eq!((answer, sendings), (StatusCode::UNAUTHORIZED, vec![whole("t1", b"abcdef")]));
}

// Scenario 56.
#[tokio::test(start_paused = true)]
async fn a_body_that_breaks_reaches_the_inner_service_with_its_own_error() {
    #[derive(Debug, thiserror::Error)]
    #[error("the disk is gone")]
    struct DiskGone;

    let (endpoint, seen) = (Endpoint::hourly(), Arc::new(Mutex::new(Vec::new())));
    let (provider, _) = provider(&endpoint);
    let inner = tower::service_fn({
        let seen = Arc::clone(&seen);
        move |request: Request<Boxed>| {
            let seen = Arc::clone(&seen);
            async move {
                let mut body = request.into_body();
                while let Some(frame) = body.frame().await {
                    let frame = frame.inspect_err(|error| assert!(error.is::<DiskGone>()))?;
                    seen.lock().unwrap().extend(frame.into_data().unwrap());
                }
                Ok::<_, BoxError>(Response::new(()))
            }
        }
    });
    let steps = [data("ab"), Err(DiskGone.into()), data("cd")];
    let request = Request::post(URI).body(body(steps)).unwrap();
    let error = JwtRefreshLayer::new(provider).layer(inner).oneshot(request).await.unwrap_err();
    assert!(error.is::<DiskGone>(), "{error}");
    assert_eq!((&*seen.lock().unwrap(), endpoint.fetches()), (&b"ab".to_vec(), 1));
}

// Scenario 56: the server's 401 for half a body is the caller's, for the other half is not to be had.
#[tokio::test(start_paused = true)]
async fn a_body_that_broke_is_not_sent_again() {
    let (server, over) = Upload::new(1);
    let answer = send(&server, RetryPolicy::default(), body([data("ab"), Err("the disk is gone".into())])).await;
    over.await.unwrap();
    assert_eq!(answer, StatusCode::UNAUTHORIZED);
    let [only]: [Sending; 1] = server.sendings().try_into().unwrap();
    assert_eq!((only.text, only.end), (b"ab".to_vec(), Some(Err("the disk is gone".into()))));
}

/// Bytes that are counted while they are somewhere.
struct Counted(Arc<AtomicUsize>);

impl Counted {
    fn frame(alive: &Arc<AtomicUsize>) -> Frame<Bytes> {
        alive.fetch_add(1, Ordering::SeqCst);
        Frame::data(Bytes::from_owner(Self(Arc::clone(alive))))
    }
}

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &[0; 1024]
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

// Scenario 54.
#[tokio::test(start_paused = true)]
async fn a_long_body_is_held_up_to_the_limit_and_then_not_at_all() {
    let (provider, _) = provider(&Endpoint::hourly());
    let (alive, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let counted = Arc::clone(&alive);
    let frames = std::iter::repeat_with(move || Ok(Counted::frame(&counted))).take(10_000);
    let inner = tower::service_fn({
        let (alive, most) = (Arc::clone(&alive), Arc::clone(&most));
        move |request: Request<Boxed>| {
            let (alive, most) = (Arc::clone(&alive), Arc::clone(&most));
            async move {
                let mut body = request.into_body();
                while body.frame().await.transpose()?.is_some() {
                    most.fetch_max(alive.load(Ordering::SeqCst), Ordering::SeqCst);
                }
                assert_eq!(alive.load(Ordering::SeqCst), 0, "nothing is held of what cannot be sent again");
                Ok::<_, BoxError>(Response::new(()))
            }
        }
    });
    let request = Request::post(URI).body(body(frames)).unwrap();
    JwtRefreshLayer::new(provider).layer(inner).oneshot(request).await.unwrap();
    let most = most.load(Ordering::SeqCst);
    assert!((DEFAULT_LIMIT / 1024..=DEFAULT_LIMIT / 1024 + 1).contains(&most), "{most} KiB at most");
}
