//! Bodies for real sockets: in memory, fed by the test, or of so many frames.

use super::Boxed;
use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt, Full};
use std::{
    collections::VecDeque,
    marker::PhantomData,
    pin::Pin,
    task::{Context, Poll},
};
use tokio::sync::mpsc;
use tower_jwt_refresh::BoxError;

/// In memory.
pub fn whole(text: &'static str) -> Boxed {
    Full::from(text).map_err(|never| match never {}).boxed()
}

/// A body that says what it was given and ends when its [`Feed`] is dropped. Its error may be of any type, since it has none.
pub struct Fed<E> {
    frames: mpsc::UnboundedReceiver<Frame<Bytes>>,
    /// What is left of it, if it says so.
    pub length: Option<u64>,
    error: PhantomData<fn() -> E>,
}

pub type Feed = mpsc::UnboundedSender<Frame<Bytes>>;

pub fn fed<E>() -> (Feed, Fed<E>) {
    let (feed, frames) = mpsc::unbounded_channel();
    (feed, Fed { frames, length: None, error: PhantomData })
}

pub fn data(text: &'static str) -> Frame<Bytes> {
    Frame::data(Bytes::from(text))
}

pub fn trailers() -> HeaderMap {
    [("x-sum".parse().unwrap(), "7".parse().unwrap())].into_iter().collect()
}

impl<E> Body for Fed<E> {
    type Data = Bytes;
    type Error = E;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, E>>> {
        let frame = self.frames.poll_recv(cx);
        if let (Poll::Ready(Some(frame)), Some(left)) = (&frame, self.length) {
            self.length = Some(left - frame.data_ref().map_or(0, |data| data.len() as u64));
        }
        frame.map(|frame| frame.map(Ok))
    }

    fn size_hint(&self) -> SizeHint {
        self.length.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

/// A body that has all its frames from the start, of known length or not.
pub struct Frames {
    pub frames: VecDeque<Frame<Bytes>>,
    pub length: Option<u64>,
}

impl Frames {
    pub fn of_unknown_length(frames: impl IntoIterator<Item = Frame<Bytes>>) -> Self {
        Self { frames: frames.into_iter().collect(), length: None }
    }

    /// So many bytes in frames of 16 KiB, no two alike.
    pub fn numbered(bytes: usize) -> Self {
        Self::of_unknown_length(
            numbered(bytes).chunks(16 * 1024).map(|chunk| Frame::data(Bytes::copy_from_slice(chunk))),
        )
    }
}

pub fn numbered(bytes: usize) -> Vec<u8> {
    (0u32..).flat_map(u32::to_be_bytes).take(bytes).collect()
}

impl Body for Frames {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let frame = self.frames.pop_front();
        if let (Some(frame), Some(left)) = (&frame, self.length) {
            self.length = Some(left - frame.data_ref().map_or(0, |data| data.len() as u64));
        }
        Poll::Ready(frame.map(Ok))
    }

    fn size_hint(&self) -> SizeHint {
        self.length.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}
