//! What a policy of one's own sees of each sending, and what it is given to send again.

mod support;

use bytes::Bytes;
use futures_util::FutureExt;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt, Full};
use std::{
    cell::RefCell,
    future::{Ready, ready},
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
};
use support::{Api, Endpoint, MINUTE, answer, get, pass, post, provider, settle};
use tower::{BoxError, Layer, ServiceExt, retry::Policy, service_fn};
use tower_jwt_refresh::{
    Attempt, JwtRefreshLayer, RejectableResponse, ReplayBody, RetryPolicy,
    body::{Split, Tee},
};

const URI: &str = "https://api.example.com/jobs/1";

/// Rejects by status, and writes down what it is shown.
#[derive(Clone, Default)]
struct Witness(Arc<Mutex<Vec<String>>>);

type Try = Attempt<Request<Full<Bytes>>>;

impl Witness {
    fn notes(&self, what: &str, attempt: &Try) {
        let uri = attempt.request().map(|request| request.uri().path().to_owned());
        let note = format!(
            "{what} {:?} {uri:?} {:?} {}",
            attempt.method().map(ToString::to_string),
            attempt.generation().is_some(),
            attempt.resends()
        );
        self.0.lock().unwrap().push(note);
    }
}

impl Policy<Try, Response<Full<Bytes>>, BoxError> for Witness {
    type Future = Ready<()>;

    fn retry(&mut self, attempt: &mut Try, result: &mut Result<Response<Full<Bytes>>, BoxError>) -> Option<Ready<()>> {
        self.notes("answer", attempt);
        let shown = format!("{attempt:?}");
        assert!(shown.contains("can_resend: true") && !shown.contains("jobs"), "{shown}");
        (result.as_ref().ok()?.status() == StatusCode::UNAUTHORIZED).then(|| attempt.reject_token())?;
        Some(ready(()))
    }

    fn clone_request(&mut self, attempt: &Try) -> Option<Try> {
        self.notes("send", attempt);
        Some(attempt.keep(1024))
    }
}

#[tokio::test(start_paused = true)]
async fn a_policy_sees_the_request_before_it_is_sent_and_its_method_and_token_afterwards() {
    let (endpoint, api) = (Endpoint::hourly(), Api::new());
    let (provider, _) = provider(&endpoint);
    provider.init().await.unwrap();
    pass(MINUTE).await;
    api.revoke("t1");
    let witness = Witness::default();
    let service = JwtRefreshLayer::new(provider).retry(witness.clone()).layer(api.clone());
    assert_eq!(service.oneshot(post(URI, "hello")).await.unwrap().status(), StatusCode::OK);
    let seen = [
        r#"send Some("POST") Some("/jobs/1") false 0"#,
        r#"answer Some("POST") None true 0"#,
        r#"send Some("POST") Some("/jobs/1") false 1"#,
        r#"answer Some("POST") None true 1"#,
    ];
    assert_eq!(*witness.0.lock().unwrap(), seen);
}

#[tokio::test(start_paused = true)]
async fn a_judge_reads_the_headers_of_an_answer_and_its_debug_shows_none() {
    let (endpoint, api) = (Endpoint::hourly(), Api::new());
    let (provider, _) = provider(&endpoint);
    api.judge_by(|seen| {
        let mut refusal = answer(403, "expired");
        refusal.headers_mut().insert("x-expired", "s3cr3t".parse().unwrap());
        (seen.token.as_deref() == Some("t1")).then_some(refusal)
    });
    let policy = RetryPolicy::default().reject_when(|answer| {
        let shown = format!("{answer:?}");
        assert!(shown.contains("status: ") && !shown.contains("s3cr3t"), "{shown}");
        answer.headers().get("x-expired").is_some_and(|value| value == "s3cr3t")
    });
    let service = JwtRefreshLayer::new(provider).retry(policy).layer(api.clone());
    assert_eq!(service.oneshot(get(URI)).await.unwrap().status(), StatusCode::OK);
    assert_eq!(api.tokens(), ["t1", "t2"]);
}

type Hook = Box<dyn FnOnce(&HeaderMap) + Send>;

/// An answer whose trailers are still to come.
struct Stream {
    headers: HeaderMap,
    hook: Option<Hook>,
}

impl RejectableResponse for Stream {
    fn status(&self) -> StatusCode {
        StatusCode::OK
    }

    fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    fn watch(self, hook: impl FnOnce(&HeaderMap) + Send + 'static) -> Self {
        Self { hook: Some(Box::new(hook)), ..self }
    }
}

fn headers(name: &'static str, value: &'static str) -> HeaderMap {
    HeaderMap::from_iter([(name.parse().unwrap(), value.parse().unwrap())])
}

#[tokio::test(start_paused = true)]
async fn a_refusal_in_the_trailers_of_a_begun_stream_replaces_the_token_for_the_next() {
    let endpoint = Endpoint::hourly();
    let (provider, _) = provider(&endpoint);
    let streams = service_fn(async |_: Request<Full<Bytes>>| {
        Ok::<_, BoxError>(Stream { headers: headers("content-type", "application/grpc"), hook: None })
    });
    let service = JwtRefreshLayer::new(provider).layer(streams);
    for (code, fetches) in [("0", 1), ("16", 2)] {
        let stream = service.clone().oneshot(get(URI)).await.unwrap();
        pass(MINUTE).await;
        assert_eq!(endpoint.fetches(), 1);
        let mut trailers = headers("grpc-status", code);
        trailers.insert("www-authenticate", "Bearer error=\"invalid_token\"".parse().unwrap());
        stream.hook.expect("somebody watches")(&trailers);
        settle().await;
        assert_eq!(endpoint.fetches(), fetches);
    }
    assert_eq!(endpoint.asked()[1].challenge.as_deref(), Some("Bearer error=\"invalid_token\""));
    let plain = service_fn(async |_: Request<Full<Bytes>>| {
        Ok::<_, BoxError>(Stream { headers: headers("content-type", "text/plain"), hook: None })
    });
    let (provider, _) = support::provider(&endpoint);
    let stream = JwtRefreshLayer::new(provider).layer(plain).oneshot(get(URI)).await.unwrap();
    assert!(stream.hook.is_none(), "nothing is to come there");
}

/// Says which reader of its record it is.
enum Told {
    Source(Full<Bytes>),
    Reader(Box<Tee<Told, BoxError>>),
}

thread_local! {
    static READERS: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

impl Body for Told {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match self.get_mut() {
            Self::Source(body) => Pin::new(body).poll_frame(cx).map_err(|never| match never {}),
            Self::Reader(tee) => Pin::new(tee).poll_frame(cx),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Source(body) => body.size_hint(),
            Self::Reader(tee) => tee.size_hint(),
        }
    }
}

impl ReplayBody for Told {
    fn split(self, limit: usize) -> Split<Self> {
        let wrap = |tee| {
            READERS.with_borrow_mut(|readers| readers.push(format!("{tee:?}")));
            Self::Reader(Box::new(tee))
        };
        Split::tee(self, limit, wrap, |error| error)
    }
}

/// Sends again whatever it gets, twice.
#[derive(Clone)]
struct Thrice(usize);

impl Policy<Attempt<Request<Told>>, Response<()>, BoxError> for Thrice {
    type Future = Ready<()>;

    fn retry(&mut self, _: &mut Attempt<Request<Told>>, _: &mut Result<Response<()>, BoxError>) -> Option<Ready<()>> {
        self.0 = self.0.checked_sub(1)?;
        Some(ready(()))
    }

    fn clone_request(&mut self, attempt: &Attempt<Request<Told>>) -> Option<Attempt<Request<Told>>> {
        Some(attempt.keep(1024))
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_that_is_sent_three_times_is_recorded_once() {
    let (provider, _) = provider(&Endpoint::hourly());
    provider.init().await.unwrap();
    let reads = service_fn(async |request: Request<Told>| {
        assert_eq!(request.into_body().collect().await?.to_bytes(), "hello");
        Ok::<_, BoxError>(Response::new(()))
    });
    let service = JwtRefreshLayer::new(provider).retry(Thrice(2)).layer(reads);
    let request = Request::post(URI).body(Told::Source(Full::from("hello"))).unwrap();
    service.oneshot(request).now_or_never().expect("nothing is waited for").unwrap();
    let readers = READERS.take();
    assert_eq!(readers.len(), 3, "{readers:?}");
    assert!((0..3).all(|epoch| readers[epoch].contains(&format!("epoch: {epoch}"))), "{readers:?}");
}

#[tokio::test(start_paused = true)]
async fn a_policy_that_never_resends_has_nothing_recorded() {
    let (provider, _) = provider(&Endpoint::hourly());
    let reads = service_fn(async |_: Request<Told>| Ok::<_, BoxError>(Response::new(())));
    let service = JwtRefreshLayer::new(provider).retry(RetryPolicy::none()).layer(reads);
    service.oneshot(Request::post(URI).body(Told::Source(Full::from("hello"))).unwrap()).await.unwrap();
    assert_eq!(READERS.take(), [""; 0]);
}

/// Keeps a copy, and leaves the rest to another.
#[derive(Clone)]
struct Keeps(RetryPolicy);

impl Policy<Try, Response<Full<Bytes>>, BoxError> for Keeps {
    type Future = Ready<()>;

    fn retry(&mut self, attempt: &mut Try, result: &mut Result<Response<Full<Bytes>>, BoxError>) -> Option<Ready<()>> {
        self.0.retry(attempt, result)
    }

    fn clone_request(&mut self, attempt: &Try) -> Option<Try> {
        Some(attempt.keep(1024))
    }
}

#[tokio::test(start_paused = true)]
async fn a_policy_that_never_resends_does_not_within_another_that_keeps_a_copy_either() {
    let (endpoint, api) = (Endpoint::hourly(), Api::new());
    let (provider, _) = provider(&endpoint);
    api.revoke("t1");
    let service = JwtRefreshLayer::new(provider).retry(Keeps(RetryPolicy::none())).layer(api.clone());
    assert_eq!(service.oneshot(get(URI)).await.unwrap().status(), StatusCode::UNAUTHORIZED);
    assert_eq!(api.tokens(), ["t1"]);
}
