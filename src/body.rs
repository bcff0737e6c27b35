//! What becomes of a request's body, so that it can be sent again.
//!
//! The inner service always sees the caller's own body type. By default the type itself knows ([`ReplayBody`]); for body types of third
//! crates the layer takes a [strategy](KeepBody): never keep, or a closure that copies.

mod tee;

pub use tee::Tee;

use bytes::{Buf, Bytes};
use http_body::Body;
use http_body_util::{
    Either, Empty, Full,
    combinators::{BoxBody, UnsyncBoxBody},
};
use std::{any::TypeId, fmt, pin::Pin, sync::Arc};

/// A body that knows how to be sent again.
pub trait ReplayBody: Sized {
    /// What is sent, and what is kept of it. `limit` is how many bytes may be copied or recorded; what is merely shared does not
    /// count.
    fn split(self, limit: usize) -> Split<Self>;
}

/// A body for sending, and, if it can be sent again, what is kept.
#[derive(Debug)]
pub struct Split<B> {
    pub(crate) send: B,
    pub(crate) keep: Option<KeptBody<B>>,
}

impl<B> Split<B> {
    /// It can be sent once only.
    pub fn once(send: B) -> Self {
        Self { send, keep: None }
    }

    /// Both are the same bytes, and neither reads from the other: not for clones that share one stream.
    pub fn copied(send: B, kept: B) -> Self {
        Self { send, keep: Some(KeptBody(Kept::Copy(kept))) }
    }

    /// Records up to `limit` bytes while the body is sent, so that what was recorded and what is left can be sent again: for bodies
    /// that box any other. `wrap` makes the caller's type of a [`Tee`], `map_err` the error of what it boxes.
    ///
    /// A body that says it is longer is not recorded; once more has come than fits, the record is dropped and the body can be sent this once. The
    /// first sending of a body that is sent again ends with an error, so that no server takes the half for the whole; an error type that cannot say so
    /// (anything but [`BoxError`](crate::BoxError), [`io::Error`](std::io::Error) and, with their features, tonic's `Status` and axum's `Error`) is resent only if the server
    /// had read it all.
    ///
    /// ```
    /// use bytes::Bytes;
    /// use http_body_util::{BodyExt, combinators::BoxBody};
    /// use tower_jwt_refresh::{BoxError, ReplayBody, body::Split};
    ///
    /// struct Mine(BoxBody<Bytes, BoxError>);
    /// # impl http_body::Body for Mine {
    /// #     type Data = Bytes;
    /// #     type Error = BoxError;
    /// #     fn poll_frame(mut self: std::pin::Pin<&mut Self>, cx: &mut std::task::Context<'_>) -> std::task::Poll<Option<Result<http_body::Frame<Bytes>, BoxError>>> {
    /// #         std::pin::Pin::new(&mut self.0).poll_frame(cx)
    /// #     }
    /// # }
    ///
    /// impl ReplayBody for Mine {
    ///     fn split(self, limit: usize) -> Split<Self> {
    ///         Split::tee(self, limit, |tee| Mine(tee.boxed()), |error| error)
    ///     }
    /// }
    /// ```
    pub fn tee<E>(body: B, limit: usize, wrap: fn(Tee<B, E>) -> B, map_err: fn(B::Error) -> E) -> Self
    where
        B: Body<Data = Bytes> + Unpin + Send + 'static,
        E: 'static,
    {
        if body.size_hint().lower() > limit as u64 {
            return Self::once(body);
        }
        let (send, record) = tee::tee(body, limit, wrap, map_err);
        Self { send, keep: Some(KeptBody(Kept::Record(record))) }
    }

    /// The same split of a body that holds this one.
    pub fn map<C: 'static>(self, map: fn(B) -> C) -> Split<C>
    where
        B: 'static,
    {
        let keep = self.keep.map(|kept| match kept.0 {
            Kept::Copy(body) => KeptBody(Kept::Copy(map(body))),
            Kept::Record(record) => KeptBody(Kept::Record(Box::new(tee::Mapped { record, map }))),
        });
        Split { send: map(self.send), keep }
    }
}

/// What is kept of a body that was sent.
pub struct KeptBody<B>(Kept<B>);

enum Kept<B> {
    Copy(B),
    Record(Box<dyn tee::Replay<B>>),
}

impl<B> KeptBody<B> {
    /// Can it be sent again?
    pub(crate) fn is_whole(&self) -> bool {
        match &self.0 {
            Kept::Copy(_) => true,
            Kept::Record(record) => record.is_whole(),
        }
    }

    /// The body to send again, and what keeps it for a third time, if that is the same. None: it cannot be sent again any more.
    pub(crate) fn again(self) -> Option<(B, Option<Self>)> {
        match self.0 {
            Kept::Copy(body) => Some((body, None)),
            Kept::Record(record) => Some((record.again()?, Some(Self(Kept::Record(record))))),
        }
    }
}

impl<B> fmt::Debug for KeptBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeptBody").finish_non_exhaustive()
    }
}

/// By clone, if that copies at most `limit` bytes.
fn by_clone<B: Clone>(body: B, copied: usize, limit: usize) -> Split<B> {
    if copied > limit {
        return Split::once(body);
    }
    let kept = body.clone();
    Split::copied(body, kept)
}

impl<D: Buf + Clone + 'static> ReplayBody for Full<D> {
    /// `Bytes` and static slices are shared, whatever their size; other buffers are copied up to the limit.
    fn split(self, limit: usize) -> Split<Self> {
        let shared = [TypeId::of::<Bytes>(), TypeId::of::<&'static [u8]>()].contains(&TypeId::of::<D>());
        let size = http_body::Body::size_hint(&self).lower();
        by_clone(self, if shared { 0 } else { usize::try_from(size).unwrap_or(usize::MAX) }, limit)
    }
}

impl<D: Buf> ReplayBody for Empty<D> {
    fn split(self, _: usize) -> Split<Self> {
        Split::copied(self, Empty::new())
    }
}

impl ReplayBody for () {
    fn split(self, _: usize) -> Split<Self> {
        Split::copied((), ())
    }
}

impl ReplayBody for Bytes {
    fn split(self, limit: usize) -> Split<Self> {
        by_clone(self, 0, limit)
    }
}

impl ReplayBody for String {
    fn split(self, limit: usize) -> Split<Self> {
        let size = self.len();
        by_clone(self, size, limit)
    }
}

impl ReplayBody for Vec<u8> {
    fn split(self, limit: usize) -> Split<Self> {
        let size = self.len();
        by_clone(self, size, limit)
    }
}

impl ReplayBody for &'static str {
    fn split(self, limit: usize) -> Split<Self> {
        by_clone(self, 0, limit)
    }
}

impl<E: 'static> ReplayBody for BoxBody<Bytes, E> {
    fn split(self, limit: usize) -> Split<Self> {
        Split::tee(self, limit, Self::new, |error| error)
    }
}

impl<E: 'static> ReplayBody for UnsyncBoxBody<Bytes, E> {
    fn split(self, limit: usize) -> Split<Self> {
        Split::tee(self, limit, Self::new, |error| error)
    }
}

impl<E: 'static> ReplayBody for Pin<Box<dyn Body<Data = Bytes, Error = E> + Send>> {
    fn split(self, limit: usize) -> Split<Self> {
        Split::tee(self, limit, |tee| Box::pin(tee), |error| error)
    }
}

impl<B: ReplayBody + 'static> ReplayBody for Option<B> {
    fn split(self, limit: usize) -> Split<Self> {
        match self {
            Some(body) => body.split(limit).map(Some),
            None => Split::copied(None, None),
        }
    }
}

impl<L: ReplayBody + 'static, R: ReplayBody + 'static> ReplayBody for Either<L, R> {
    fn split(self, limit: usize) -> Split<Self> {
        match self {
            Self::Left(body) => body.split(limit).map(Self::Left),
            Self::Right(body) => body.split(limit).map(Self::Right),
        }
    }
}

/// How a layer keeps bodies: [`ByType`], [`Never`] or [`CopyWith`].
pub trait KeepBody<B> {
    /// What is sent, and what is kept of it.
    fn split(&self, body: B, limit: usize) -> Split<B>;
}

/// The body's type knows. The default.
#[derive(Clone, Copy, Debug, Default)]
pub struct ByType;

impl<B: ReplayBody> KeepBody<B> for ByType {
    fn split(&self, body: B, limit: usize) -> Split<B> {
        body.split(limit)
    }
}

/// No body is kept, of whatever type: a rejection is not answered by a resend, but heals the next request. See
/// [`JwtRefreshLayer::replay_none`](crate::JwtRefreshLayer::replay_none).
#[derive(Clone, Copy, Debug, Default)]
pub struct Never;

impl<B> KeepBody<B> for Never {
    fn split(&self, body: B, _: usize) -> Split<B> {
        Split::once(body)
    }
}

/// A closure copies it, or says that it cannot. See [`JwtRefreshLayer::replay_with`](crate::JwtRefreshLayer::replay_with).
pub struct CopyWith<F>(Arc<F>);

impl<F> CopyWith<F> {
    pub(crate) fn new(copy: F) -> Self {
        Self(Arc::new(copy))
    }
}

impl<F> Clone for CopyWith<F> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<F> fmt::Debug for CopyWith<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CopyWith").finish_non_exhaustive()
    }
}

impl<B, F: Fn(&B) -> Option<B>> KeepBody<B> for CopyWith<F> {
    fn split(&self, body: B, _: usize) -> Split<B> {
        match (self.0)(&body) {
            Some(copy) => Split::copied(body, copy),
            None => Split::once(body),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;
    use http_body_util::BodyExt;
    use std::{collections::VecDeque, convert::Infallible};

    fn is_kept<B: ReplayBody>(body: B, limit: usize) -> bool {
        body.split(limit).keep.is_some()
    }

    #[test]
    fn what_is_copied_is_kept_up_to_the_limit_and_not_a_byte_beyond() {
        assert!(is_kept("x".repeat(10), 10) && !is_kept("x".repeat(11), 10));
        assert!(is_kept(vec![0; 10], 10) && !is_kept(vec![0; 11], 10));
        assert!(is_kept(Full::new(VecDeque::from([0; 10])), 10) && !is_kept(Full::new(VecDeque::from([0; 11])), 10));
    }

    #[test]
    fn what_is_shared_is_kept_whatever_its_size() {
        let data = Bytes::from(vec![7; 1000]);
        let split = Full::new(data.clone()).split(0);
        assert!(split.keep.is_some());
        assert!(is_kept(data, 0) && is_kept("static", 0) && is_kept(Full::new(&b"static"[..]), 0));
        assert!(is_kept(Empty::<Bytes>::new(), 0) && is_kept((), 0));
    }

    #[test]
    fn a_strategy_serves_types_that_know_nothing() {
        struct Foreign(u8);
        assert!(Never.split(Foreign(1), 10).keep.is_none());
        let small = CopyWith::new(|body: &Foreign| (body.0 < 5).then_some(Foreign(body.0)));
        assert_eq!(small.split(Foreign(1), 0).keep.and_then(KeptBody::again).map(|(body, _)| body.0), Some(1));
        assert!(small.split(Foreign(9), 0).keep.is_none());
    }

    #[test]
    fn what_holds_a_recorded_body_is_sent_again_when_that_can_be() {
        let read = |body: Option<BoxBody<Bytes, Infallible>>| {
            body.unwrap().collect().now_or_never().expect("all is there").unwrap().to_bytes()
        };
        let split = Some(BoxBody::new(Full::new(Bytes::from("hello")))).split(10);
        let kept = split.keep.unwrap();
        assert!(!kept.is_whole(), "its error cannot say that the first sending is void");
        assert_eq!(read(split.send), "hello");
        assert!(kept.is_whole());
        assert_eq!(read(kept.again().unwrap().0), "hello");
    }

    #[test]
    fn debug_shows_no_body() {
        let kept = String::from("s3cr3t").split(10).keep.unwrap();
        assert_eq!(format!("{kept:?}"), "KeptBody { .. }");
        assert_eq!(format!("{:?}", CopyWith::new(|body: &String| Some(body.clone()))), "CopyWith { .. }");
    }
}
