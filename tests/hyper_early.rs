//! An upload that is refused early: how much had been read is up to the transport's windows, and no byte is doubled, lost or cut off in silence.

#[path = "support/server.rs"]
mod server;
mod support;

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body::{Body, Frame};
use http_body_util::BodyExt;
use server::{Boxed, Frames, Refuse, Server, Stack, data, fed, numbered, provider, whole};
use std::{
    pin::Pin,
    task::{Context, Poll},
};
use support::Endpoint;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
};
use tower::{BoxError, Layer, ServiceExt};
use tower_jwt_refresh::{JwtRefreshLayer, RetryPolicy};

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

fn layer(policy: RetryPolicy) -> JwtRefreshLayer {
    JwtRefreshLayer::new(provider(&Endpoint::hourly()).0).retry(policy)
}

fn limit(bytes: usize) -> RetryPolicy {
    RetryPolicy::default().body_limit(bytes)
}

/// Tells how many bytes of it were read.
struct Watched(Frames, watch::Sender<usize>);

impl Body for Watched {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let frame = Pin::new(&mut self.0).poll_frame(cx);
        if let Poll::Ready(Some(Ok(frame))) = &frame {
            self.1.send_modify(|read| *read += frame.data_ref().map_or(0, Bytes::len));
        }
        frame
    }
}

/// Uploads so much over HTTP/2 to a server with such a window, that refuses it unread once the client can read no further: when it has read `read`.
async fn refused_at_the_window(window: u32, read: usize, size: usize, policy: RetryPolicy) -> (Server, StatusCode) {
    let server = Server::with(Stack::Http2, |builder| {
        builder.http2().initial_stream_window_size(window).initial_connection_window_size(window.max(1 << 20));
    })
    .await;
    server.refuse(Refuse::AndStop(0));
    server.hold("old");
    let client = layer(policy).layer(server.client());
    let (sender, mut bytes) = watch::channel(0);
    let body = Watched(Frames::numbered(size), sender);
    let request = Request::post(server.uri()).body(body.boxed() as Boxed).unwrap();
    let (answer, ()) = tokio::join!(client.clone().oneshot(request), async {
        server.seen_times(1).await;
        bytes.wait_for(|bytes| *bytes >= read).await.unwrap();
        support::settle().await;
        assert_eq!(*bytes.borrow(), read, "the window lets no more through");
        // One more, for a next request that would come with the old token again.
        server.let_go(2);
    });
    let answer = answer.unwrap().status();
    if answer == StatusCode::OK {
        let resent = server.request(1).await;
        assert!(resent.body == numbered(size) && resent.end == Some(Ok(())));
    }
    let next = client.oneshot(Request::post(server.uri()).body(whole("next")).unwrap()).await.unwrap();
    assert_eq!(next.status(), StatusCode::OK);
    (server, answer)
}

// Scenario 82: the default limit is above what a client has read before a server's first window update.
#[tokio::test]
async fn over_http2_a_refusal_after_80_kib_is_healed_with_the_default_limit() {
    let (server, answer) = refused_at_the_window(65_535, 80 * KIB, 300 * KIB, RetryPolicy::default()).await;
    assert_eq!(answer, StatusCode::OK);
    assert_eq!(server.tokens(), ["old", "t1", "t1"]);
}

// Scenario 82.
#[tokio::test]
async fn over_http2_a_refusal_after_1040_kib_is_healed_if_the_limit_allows_and_else_the_next_request_is() {
    let (server, answer) = refused_at_the_window(1 << 20, 1040 * KIB, 2 * MIB, limit(1040 * KIB)).await;
    assert_eq!(answer, StatusCode::OK);
    assert_eq!(server.tokens(), ["old", "t1", "t1"]);

    let (server, answer) = refused_at_the_window(1 << 20, 1040 * KIB, 2 * MIB, limit(1040 * KIB - 1)).await;
    assert_eq!(answer, StatusCode::UNAUTHORIZED);
    assert_eq!(server.tokens(), ["old", "t1"]);
}

// Scenario 82. Whether the client sees the 401 or a broken pipe is up to the kernel.
#[tokio::test]
async fn over_http1_a_large_upload_refused_early_ends_in_an_answer_or_a_broken_pipe_and_the_next_request_heals() {
    for round in 0..16 {
        let choice = |bit: u32| round & (1 << bit) != 0;
        let server = Server::start(Stack::Http1).await;
        let reads_on = choice(0);
        server.refuse(if reads_on { Refuse::AndReadOn(0) } else { Refuse::AndStop(0) });
        let client = layer(if choice(1) { limit(2 * MIB) } else { RetryPolicy::default() }).layer(server.client());
        let body = Frames { length: choice(2).then_some(MIB as u64), ..Frames::numbered(MIB) };
        let answer = client.clone().oneshot(Request::post(server.uri()).body(body.boxed()).unwrap()).await;
        match answer.map(|answer| answer.status()) {
            Ok(status) => assert!([StatusCode::OK, StatusCode::UNAUTHORIZED].contains(&status), "{status}"),
            Err(error) => assert!(error.is::<hyper_util::client::legacy::Error>(), "{error:?}"),
        }
        let next = client.oneshot(Request::post(server.uri()).body(whole("next")).unwrap()).await.unwrap();
        assert_eq!(next.status(), StatusCode::OK);

        let tokens = server.tokens();
        assert_eq!((&*tokens[0], &**tokens.last().unwrap()), ("old", "t1"));
        for number in (0..tokens.len()).filter(|number| reads_on || tokens[*number] == "t1") {
            let seen = server.request(number).await;
            if seen.end == Some(Ok(())) {
                assert!(seen.body == numbered(MIB) || seen.body == b"next", "a clean end is the whole body");
            } else {
                assert!(numbered(MIB).starts_with(&seen.body));
                assert_eq!(seen.token, "old");
            }
        }
    }
}

/// Reads a request up to `until`, and gives what came.
async fn read_until(stream: &mut TcpStream, until: &str) -> String {
    let mut text = Vec::new();
    while !text.ends_with(until.as_bytes()) {
        text.push(stream.read_u8().await.unwrap());
    }
    String::from_utf8(text).unwrap()
}

// Scenario 55: a server of its own mind, that keeps the connection and reads on after its 401.
#[tokio::test]
async fn over_http1_the_cut_closes_the_connection_and_no_last_chunk_is_sent() {
    for (length, first_bytes, all_bytes) in
        [(None, "\r\n2\r\nab\r\n", "\r\n2\r\nab\r\n2\r\ncd\r\n0\r\n\r\n"), (Some(4), "\r\nab", "\r\nabcd")]
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let uri = format!("http://{}/", listener.local_addr().unwrap());
        let (feed, mut body) = fed();
        body.length = length;
        feed.send(data("ab")).unwrap();
        let request = Request::post(uri).body(body.boxed() as Boxed).unwrap();
        let server = async {
            let (mut first, _) = listener.accept().await.unwrap();
            let head = read_until(&mut first, &format!("\r\n{first_bytes}")).await;
            assert!(head.contains("authorization: Bearer old\r\n"));
            first.write_all(b"HTTP/1.1 401 Unauthorized\r\ncontent-length: 0\r\n\r\n").await.unwrap();
            let (mut second, _) = tokio::select! {
                biased;
                connection = listener.accept() => connection.unwrap(),
                Ok(byte @ 1..) = first.read_u8() => panic!("the connection goes on after the cut, with {byte}"),
            };
            read_until(&mut second, &format!("\r\n{first_bytes}")).await;
            // By now the first sending is void, and must have been closed: else this would wait for ever.
            let more = first.read(&mut [0; 64]).await.unwrap();
            assert_eq!(more, 0, "a connection that ends in the middle of a body");
            feed.send(data("cd")).unwrap();
            drop(feed);
            read_until(&mut second, all_bytes.strip_prefix(first_bytes).unwrap()).await;
            second.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.unwrap();
        };
        let client = JwtRefreshLayer::new(provider(&Endpoint::hourly()).0)
            .layer(hyper_util::client::legacy::Client::builder(hyper_util::rt::TokioExecutor::new()).build_http());
        let (answer, ()) = tokio::join!(client.oneshot(request), server);
        assert_eq!(answer.unwrap().status(), StatusCode::OK);
    }
}
