//! A client that sends just what it is told to.

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode, header::HOST};
use http_body_util::{BodyExt, Empty, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    body::{Frame, Incoming},
    client::conn::http1::{SendRequest, handshake},
};
use hyper_util::rt::TokioIo;
use std::convert::Infallible;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, UnixStream},
    sync::mpsc,
};

pub type Body = UnsyncBoxBody<Bytes, Infallible>;

pub struct Client {
    sender: SendRequest<Body>,
    host: String,
}

/// A whole answer.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Answer {
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub async fn of(response: Response<Incoming>) -> Self {
        let (head, body) = response.into_parts();
        let body = body.collect().await.expect("the body ends well").to_bytes();
        Self { status: head.status, headers: head.headers, body }
    }
}

impl Client {
    pub async fn tcp(host: &str) -> Self {
        Self::over(TcpStream::connect(host).await.unwrap(), host).await
    }

    pub async fn unix(path: &std::path::Path) -> Self {
        Self::over(UnixStream::connect(path).await.unwrap(), "localhost").await
    }

    async fn over(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, host: &str) -> Self {
        let (sender, connection) = handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection.with_upgrades());
        Self { sender, host: host.to_owned() }
    }

    /// With the right `Host`, if the request has none.
    pub async fn send(&mut self, mut request: Request<Body>) -> Response<Incoming> {
        if !request.headers().contains_key(HOST) {
            request.headers_mut().insert(HOST, self.host.parse().unwrap());
        }
        self.sender.ready().await.unwrap();
        self.sender.send_request(request).await.expect("the sidecar answers")
    }

    pub async fn answer(&mut self, request: Request<Body>) -> Answer {
        Answer::of(self.send(request).await).await
    }

    pub async fn get(&mut self, path: &str) -> Answer {
        self.answer(Request::get(path).body(empty()).unwrap()).await
    }

    /// With these header fields.
    pub async fn get_with(&mut self, path: &str, fields: &[(&str, &str)]) -> Answer {
        let mut request = Request::get(path).body(empty()).unwrap();
        for (name, value) in fields {
            request.headers_mut().append(http::HeaderName::try_from(*name).unwrap(), value.parse().unwrap());
        }
        self.answer(request).await
    }
}

pub fn empty() -> Body {
    Empty::new().boxed_unsync()
}

pub fn body(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).boxed_unsync()
}

/// A body of unknown length, sent chunk by chunk.
pub fn streamed() -> (mpsc::Sender<Bytes>, Body) {
    let (sender, receiver) = mpsc::channel(1);
    let frames = futures_util::stream::unfold(receiver, |mut receiver: mpsc::Receiver<Bytes>| async {
        let chunk = receiver.recv().await?;
        Some((Ok(Frame::data(chunk)), receiver))
    });
    (sender, BodyExt::boxed_unsync(StreamBody::new(frames)))
}
