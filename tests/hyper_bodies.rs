//! Body types over real sockets, refused half-read: sent again byte for byte, or not at all, and never cut short in silence.

#[path = "support/server.rs"]
mod server;
mod support;

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode, header};
use http_body::{Body, Frame};
use http_body_util::{
    BodyExt, Either, Full,
    combinators::{BoxBody, UnsyncBoxBody},
};
use hyper::body::Incoming;
use server::{Boxed, Fed, Feed, Frames, Refuse, Server, Stack, data, fed, provider, trailers};
use std::{
    convert::Infallible,
    io,
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};
use support::Endpoint;
use tower::{BoxError, Layer, Service, ServiceExt};
use tower_jwt_refresh::{JwtRefreshLayer, ReplayBody, RetryPolicy, Token, body::Split};

const PLAIN: [Stack; 2] = [Stack::Http1, Stack::Http2];

fn layer() -> JwtRefreshLayer {
    JwtRefreshLayer::new(provider(&Endpoint::hourly()).0)
}

/// An upload that the server refuses when it has two of four bytes, and reads on. The other two come once the caller has his answer, or the server the
/// two of a resend.
async fn upload<B, S>(server: &Server, client: S, feed: Feed, body: B) -> StatusCode
where
    S: Service<Request<B>, Response = Response<Incoming>, Error = BoxError>,
{
    server.refuse(Refuse::AndReadOn(2));
    feed.send(data("ab")).unwrap();
    let request = Request::post(server.uri()).body(body).unwrap();
    let mut answer = pin!(client.oneshot(request));
    let early = tokio::select! {
        answer = &mut answer => Some(answer),
        () = server.read_bytes(1, 2) => None,
    };
    feed.send(data("cd")).unwrap();
    drop(feed);
    let answer = match early {
        Some(answer) => answer,
        None => answer.await,
    };
    answer.unwrap().status()
}

/// The second sending is whole, and the first was cut so that it cannot be taken for whole.
async fn was_sent_again(server: &Server) {
    let (first, second) = (server.request(0).await, server.request(1).await);
    assert_eq!((first.body, second.body, second.end), (b"ab".to_vec(), b"abcd".to_vec(), Some(Ok(()))));
    let reset = first.end.unwrap().expect_err("half a body never looks whole");
    assert_eq!(reset, (first.version == http::Version::HTTP_2).then_some(h2::Reason::CANCEL));
    let framing = |headers: &HeaderMap| {
        [header::CONTENT_LENGTH, header::TRANSFER_ENCODING].map(|name| headers.get(name).cloned())
    };
    assert_eq!(framing(&first.headers), framing(&second.headers));
    assert_eq!(server.tokens(), ["old", "t1"]);
}

/// The 401 was the caller's, and the body was sent once, whole.
async fn was_sent_once(server: &Server) {
    let only = server.request(0).await;
    assert_eq!((only.body, only.end), (b"abcd".to_vec(), Some(Ok(()))));
    assert_eq!(server.tokens(), ["old"]);
}

/// On HTTP/1.1 and HTTP/2, of unknown and of known length.
async fn is_sent_again<B, E>(make: fn(Fed<E>) -> B)
where
    B: ReplayBody + Body<Data: Send, Error: Into<BoxError>> + Send + Unpin + 'static,
{
    for stack in PLAIN {
        for length in [None, Some(4)] {
            let server = Server::start(stack).await;
            let (feed, mut body) = fed();
            body.length = length;
            let answer = upload(&server, layer().layer(server.client()), feed, make(body)).await;
            assert_eq!(answer, StatusCode::OK, "{stack:?}, {length:?}");
            was_sent_again(&server).await;
        }
    }
}

#[tokio::test]
async fn a_box_body_is_sent_again() {
    is_sent_again::<BoxBody<Bytes, BoxError>, _>(BodyExt::boxed).await;
}

#[tokio::test]
async fn an_unsync_box_body_with_io_errors_is_sent_again() {
    is_sent_again::<UnsyncBoxBody<Bytes, io::Error>, _>(BodyExt::boxed_unsync).await;
}

#[tokio::test]
async fn a_pinned_box_is_sent_again() {
    is_sent_again::<Pin<Box<dyn Body<Data = Bytes, Error = BoxError> + Send>>, _>(|body| Box::pin(body)).await;
}

#[tokio::test]
async fn an_axum_body_is_sent_again() {
    is_sent_again::<axum::body::Body, BoxError>(axum::body::Body::new).await;
}

#[tokio::test]
async fn either_of_two_bodies_is_sent_again() {
    is_sent_again::<Either<Full<Bytes>, Boxed>, BoxError>(|body| Either::Right(body.boxed())).await;
}

struct Mine(Boxed);

impl Body for Mine {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        Pin::new(&mut self.0).poll_frame(cx)
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.0.size_hint()
    }
}

impl ReplayBody for Mine {
    fn split(self, limit: usize) -> Split<Self> {
        Split::tee(self, limit, |tee| Self(tee.boxed()), |error| error)
    }
}

#[tokio::test]
async fn a_users_own_body_is_sent_again() {
    is_sent_again::<Mine, BoxError>(|body| Mine(body.boxed())).await;
}

#[tokio::test]
async fn a_body_in_memory_is_sent_again_whatever_its_size() {
    for stack in PLAIN {
        let server = Server::start(stack).await;
        let data = Bytes::from(server::numbered(1024 * 1024));
        let request = Request::post(server.uri()).body(Full::new(data.clone())).unwrap();
        assert_eq!(layer().layer(server.client()).oneshot(request).await.unwrap().status(), StatusCode::OK);
        for number in 0..2 {
            assert!(server.request(number).await.body == data);
        }
    }
}

// Its error cannot say that the first sending is void: half-read it is not sent again, read to its end it is.
#[tokio::test]
async fn a_box_body_that_cannot_fail_is_sent_again_only_if_it_was_read_whole() {
    for stack in PLAIN {
        let server = Server::start(stack).await;
        let client = layer().layer(server.client::<BoxBody<Bytes, Infallible>>());
        let (feed, body) = fed();
        assert_eq!(upload(&server, client.clone(), feed, body.boxed()).await, StatusCode::UNAUTHORIZED);
        was_sent_once(&server).await;
        let next = Request::post(server.uri()).body(BoxBody::default()).unwrap();
        assert_eq!(client.oneshot(next).await.unwrap().status(), StatusCode::OK, "the next request heals");
        assert_eq!(server.tokens(), ["old", "t1"]);

        let server = Server::start(stack).await;
        let request = Request::post(server.uri()).body(Full::from("abcd").boxed()).unwrap();
        assert_eq!(layer().layer(server.client()).oneshot(request).await.unwrap().status(), StatusCode::OK);
        assert_eq!(server.request(1).await.body, b"abcd");
    }
}

/// What another server streams to us: the body of an answer, to be sent on.
async fn incoming(stack: Stack) -> (Feed, Incoming) {
    let server = Server::start(stack).await;
    let (feed, body) = fed();
    server.offer(body.boxed());
    let request = Request::get(server.uri()).header("authorization", "Bearer good").body(Boxed::default()).unwrap();
    (feed, server.client().request(request).await.unwrap().into_body())
}

#[tokio::test]
async fn what_came_in_and_goes_on_as_it_is_is_sent_once_and_the_next_request_heals() {
    for stack in PLAIN {
        let server = Server::start(stack).await;
        let client = layer().replay_none().layer(server.client::<Incoming>());
        let (feed, body) = incoming(stack).await;
        assert_eq!(upload(&server, client.clone(), feed, body).await, StatusCode::UNAUTHORIZED);
        was_sent_once(&server).await;
        let (feed, body) = incoming(stack).await;
        drop(feed);
        let next = client.oneshot(Request::post(server.uri()).body(body).unwrap()).await.unwrap();
        assert_eq!(next.status(), StatusCode::OK);
        assert_eq!(server.tokens(), ["old", "t1"]);
    }
}

#[tokio::test]
async fn what_came_in_and_goes_on_in_a_box_is_sent_again() {
    for stack in PLAIN {
        let server = Server::start(stack).await;
        let (feed, body) = incoming(stack).await;
        let body: Boxed = body.map_err(Into::into).boxed();
        assert_eq!(upload(&server, layer().layer(server.client()), feed, body).await, StatusCode::OK);
        was_sent_again(&server).await;
    }
}

// Scenario 83.
#[tokio::test]
async fn at_the_limit_with_trailers_or_with_empty_frames_bodies_are_sent_again_as_they_were_and_over_it_once() {
    let text = |text: &'static str| text.as_bytes().to_vec();
    for stack in PLAIN {
        for (frames, length, body, with_trailers, resent) in [
            (vec![data("abcd"), data("efgh")], None, text("abcdefgh"), false, true),
            (vec![data("abcd"), data("efgh")], Some(8), text("abcdefgh"), false, true),
            (vec![data("abcd"), data("efghi")], None, text("abcdefghi"), false, false),
            (vec![data("abcd"), data("efghi")], Some(9), text("abcdefghi"), false, false),
            (vec![], None, vec![], false, true),
            (vec![Frame::trailers(trailers())], None, vec![], true, true),
            (Vec::from(["", "ab", "", "c", ""].map(data)), None, text("abc"), false, true),
        ] {
            let server = Server::start(stack).await;
            let client = layer().retry(RetryPolicy::default().body_limit(8)).layer(server.client());
            let frames = Frames { frames: frames.into(), length };
            let request = Request::post(server.uri()).header("trailer", "x-sum").body(frames.boxed()).unwrap();
            let answer = client.oneshot(request).await.unwrap().status();
            assert_eq!(answer, if resent { StatusCode::OK } else { StatusCode::UNAUTHORIZED });
            for number in 0..=usize::from(resent) {
                let seen = server.request(number).await;
                assert_eq!((seen.body, seen.end), (body.clone(), Some(Ok(()))));
                assert_eq!(seen.trailers, with_trailers.then(trailers));
                let says =
                    seen.headers.get(header::CONTENT_LENGTH).map(|length| length.to_str().unwrap().parse().unwrap());
                assert!(says == length || length.is_none(), "{says:?}");
            }
            assert_eq!(server.tokens().len(), 1 + usize::from(resent));
        }
    }
}

/// Breaks where its feed ends.
struct Broken(Fed<BoxError>);

impl Body for Broken {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        Pin::new(&mut self.0).poll_frame(cx).map(|frame| frame.or(Some(Err("the disk is gone".into()))))
    }
}

/// What becomes of an upload that breaks after two bytes, as the client tells it and as the server saw it.
async fn breaks<S>(server: &Server, client: S) -> (String, server::Seen)
where
    S: Service<Request<Boxed>, Response = Response<Incoming>, Error: Into<BoxError>>,
{
    let (feed, body) = fed();
    feed.send(data("ab")).unwrap();
    let request = Request::post(server.uri()).body(Broken(body).boxed()).unwrap();
    let rest = async {
        server.read_bytes(0, 2).await;
        drop(feed);
    };
    let (answer, ()) = tokio::join!(client.oneshot(request), rest);
    let error: BoxError = answer.unwrap_err().into();
    (format!("{error:?}"), server.request(0).await)
}

// Scenario 56.
#[tokio::test]
async fn a_body_that_breaks_fails_the_request_as_without_the_layer_and_is_not_sent_again() {
    for stack in PLAIN {
        let (server, bare) = (Server::start(stack).await, Server::start(stack).await);
        let (error, seen) = breaks(&server, layer().layer(server.client())).await;
        let (error_without, seen_without) = breaks(&bare, bare.client()).await;
        assert_eq!(error, error_without);
        assert_eq!((seen.body, seen.end), (b"ab".to_vec(), seen_without.end));
        assert!(seen.end.unwrap().is_err());
        assert_eq!(server.tokens(), ["old"]);
    }
}

/// Bytes that are counted while they are somewhere.
struct Counted(Arc<AtomicUsize>);

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        b"ab"
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

// Scenario 57.
#[tokio::test]
async fn an_accepted_answer_frees_the_record_though_the_upload_goes_on() {
    for stack in PLAIN {
        let server = Server::start(stack).await;
        server.accept_after(2);
        let provider = provider(&Endpoint::hourly()).0;
        provider.set(Token::opaque("good").unwrap());
        let (client, alive) = (JwtRefreshLayer::new(provider).layer(server.client()), Arc::new(AtomicUsize::new(1)));
        let (feed, body) = fed();
        let counted = Bytes::from_owner(Counted(Arc::clone(&alive)));
        feed.send(Frame::data(counted)).unwrap();
        let request = Request::post(server.uri()).body(body.boxed() as Boxed).unwrap();
        let answer = client.oneshot(request).await.unwrap();
        assert_eq!((answer.status(), server.tokens()), (StatusCode::OK, vec!["good".into()]));
        assert_eq!(alive.load(Ordering::SeqCst), 0);
        drop(feed);
    }
}
