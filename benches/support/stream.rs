//! A body that streams, and a service that reads it.
//!
//! What any such body costs is a copy out of somewhere for each frame, and one into somewhere else when it is sent, so that is what these
//! two do: as from a file into a socket, without either.

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body, Frame};
use http_body_util::{BodyExt, combinators::UnsyncBoxBody};
use std::{
    future::Future,
    hint::black_box,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, Waker},
};
use tower::{BoxError, Service};

/// As an HTTP/2 frame is by default.
pub const FRAME: usize = 16 * 1024;

pub type Streaming = UnsyncBoxBody<Bytes, BoxError>;

struct Frames {
    from: Arc<[u8]>,
    left: usize,
}

impl Body for Frames {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        let length = FRAME.min(self.left);
        self.left -= length;
        let start = self.left % (self.from.len() - FRAME + 1);
        Poll::Ready(Some(Ok(Frame::data(Bytes::copy_from_slice(&self.from[start..start + length])))))
    }
}

/// Of so many bytes, without saying so.
pub fn streaming(from: &Arc<[u8]>, bytes: usize) -> Request<Streaming> {
    Request::post("https://api.example.com/upload")
        .body(Frames { from: Arc::clone(from), left: bytes }.boxed_unsync())
        .expect("a valid request")
}

/// What frames are copied from: more than a cache of the first level holds.
pub fn material() -> Arc<[u8]> {
    (0..1 << 20).map(|nth: u32| nth.to_le_bytes()[0]).collect()
}

/// Copies each frame to the same place, and answers.
#[derive(Clone)]
pub struct Reads;

impl Service<Request<Streaming>> for Reads {
    type Response = Response<()>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Response<()>, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Streaming>) -> Self::Future {
        Box::pin(async move {
            let mut body = request.into_body();
            let mut socket = vec![0; FRAME];
            while let Some(frame) = body.frame().await.transpose()? {
                if let Ok(data) = frame.into_data() {
                    socket[..data.len()].copy_from_slice(&data);
                    black_box(&socket);
                }
            }
            Ok(Response::new(()))
        })
    }
}

/// Sends it; nothing in here ever waits.
pub fn upload<S>(service: &mut S, request: Request<Streaming>)
where
    S: Service<Request<Streaming>, Response = Response<()>, Error = BoxError>,
{
    let mut cx = Context::from_waker(Waker::noop());
    assert!(service.poll_ready(&mut cx).is_ready());
    let answer = pin!(service.call(request)).poll(&mut cx);
    assert!(matches!(answer, Poll::Ready(Ok(_))));
}
