//! Sends a streaming body and records it, so that it can be sent again.
//!
//! Two readers may exist over one source: the one that the first send left half-read, and that of the resend. They share a
//! [`Record`]; each reader has an *epoch*, and the one with the highest is the newest.
//!
//! - The newest reader first replays what is recorded, then reads on from the source. A resend never wraps a tee in a tee: it is a
//!   new reader over the same record.
//! - A reader that is overtaken ends with an *error*. Ending with `None` would make a truncated body look whole to the server (on HTTP/2,
//!   and chunked on HTTP/1.1); never ending would leak the stream. Where the body's error type cannot say so, there is no second reader
//!   before the source has ended, and an overtaken one reads on to the end, which stays on record for it.
//! - The source is taken out of the record while it is polled: no foreign code runs under the lock. A newer reader that finds it gone parks
//!   its waker. The reader that polls, overtaken or not, puts the source back, records what it got *whatever the limit* if it was
//!   overtaken meanwhile, and wakes the newest: a frame dropped there would be missing from the replay. If the source panics, a
//!   guard leaves an error behind, so that nobody waits for ever.

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use std::{
    any::Any,
    collections::VecDeque,
    error::Error,
    fmt, io,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use crate::BoxError;

/// A body over a record that others may read again; made by [`Split::tee`](super::Split::tee).
pub struct Tee<B: Body, E> {
    shared: Arc<Shared<B, E>>,
    epoch: u32,
    /// The next frame to replay, counted from the first that ever was.
    next: usize,
    delivered: u64,
    /// It gave its last frame or an error.
    over: bool,
}

struct Shared<B: Body, E> {
    record: Mutex<Record<B>>,
    /// What the source's length was when the tee was made.
    hint: SizeHint,
    map_err: fn(B::Error) -> E,
}

struct Record<B: Body> {
    /// None while somebody polls it.
    source: Option<B>,
    frames: VecDeque<Recorded>,
    /// Frames that were freed before the first of `frames`.
    freed: usize,
    bytes: usize,
    limit: usize,
    /// Can somebody still ask for another reader?
    kept: bool,
    /// Can an overtaken reader say that it is? Otherwise it has to read on.
    can_cut: bool,
    /// More came than may be recorded.
    overflown: bool,
    end: End,
    newest: u32,
    /// How many frames the newest reader was given.
    given: usize,
    /// Of the newest reader, while it waits: for the source, or for the source to come back.
    waiting: Option<Waker>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    NotYet,
    Whole,
    /// With an error, or a panic.
    Broken,
}

enum Recorded {
    Data(Bytes),
    Trailers(HeaderMap),
}

/// Another reader took over: this body is sent again, and this sending of it is void.
#[derive(Debug)]
struct BodyMoved {
    /// Makes hyper reset an HTTP/2 stream with CANCEL, not INTERNAL_ERROR.
    #[cfg(feature = "tonic")]
    reset: h2::Error,
}

impl BodyMoved {
    fn new() -> Self {
        Self {
            #[cfg(feature = "tonic")]
            reset: h2::Reason::CANCEL.into(),
        }
    }
}

impl fmt::Display for BodyMoved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the server refused the token before it read the whole body, which is now sent again")
    }
}

impl Error for BodyMoved {
    #[cfg(feature = "tonic")]
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.reset)
    }
}

/// The source broke while an overtaken reader polled it.
#[derive(Debug)]
struct BodyBroke;

impl fmt::Display for BodyBroke {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the body failed while it was being sent the first time")
    }
}

impl Error for BodyBroke {}

/// How to say any error in one of type `E`, if that is a type that can hold any.
fn voice<E: 'static>() -> Option<fn(BoxError) -> E> {
    let voices: &[&dyn Any] = &[
        &((|error| error) as fn(BoxError) -> BoxError),
        &(io::Error::other as fn(BoxError) -> io::Error),
        #[cfg(feature = "axum")]
        &(axum_core::Error::new as fn(BoxError) -> axum_core::Error),
        #[cfg(feature = "tonic")]
        &(tonic::Status::from_error as fn(BoxError) -> tonic::Status),
    ];
    voices.iter().find_map(|voice| voice.downcast_ref()).copied()
}

fn say<E: 'static>(error: impl Into<BoxError>) -> Option<E> {
    voice().map(|voice| voice(error.into()))
}

/// What can be read again, whatever the body's type.
pub(super) trait Replay<B>: Send {
    fn is_whole(&self) -> bool;
    /// A new reader from the start; the one before is void from now on. None: it is not whole any more.
    fn again(&self) -> Option<B>;
}

/// Keeps the record, and frees it when dropped.
struct Keeper<B: Body, E> {
    shared: Arc<Shared<B, E>>,
    wrap: fn(Tee<B, E>) -> B,
}

/// The same record, its readers in another type.
pub(super) struct Mapped<B, C> {
    pub(super) record: Box<dyn Replay<B>>,
    pub(super) map: fn(B) -> C,
}

impl<B, C> Replay<C> for Mapped<B, C> {
    fn is_whole(&self) -> bool {
        self.record.is_whole()
    }

    fn again(&self) -> Option<C> {
        self.record.again().map(self.map)
    }
}

pub(super) fn tee<B, E>(
    body: B,
    limit: usize,
    wrap: fn(Tee<B, E>) -> B,
    map_err: fn(B::Error) -> E,
) -> (B, Box<dyn Replay<B>>)
where
    B: Body<Data = Bytes> + Unpin + Send + 'static,
    E: 'static,
{
    let end = if body.is_end_stream() { End::Whole } else { End::NotYet };
    let shared = Arc::new(Shared {
        hint: body.size_hint(),
        record: Mutex::new(Record {
            source: Some(body),
            frames: VecDeque::new(),
            freed: 0,
            bytes: 0,
            limit,
            kept: true,
            can_cut: voice::<E>().is_some(),
            overflown: false,
            end,
            newest: 0,
            given: 0,
            waiting: None,
        }),
        map_err,
    });
    let keeper = Keeper { shared: Arc::clone(&shared), wrap };
    (wrap(Tee::reader(shared, 0)), Box::new(keeper))
}

impl<B, E> Replay<B> for Keeper<B, E>
where
    B: Body<Data = Bytes> + Unpin + Send + 'static,
    E: 'static,
{
    fn is_whole(&self) -> bool {
        self.shared.lock().is_whole()
    }

    fn again(&self) -> Option<B> {
        let mut record = self.shared.lock();
        if !record.is_whole() {
            return None;
        }
        record.newest += 1;
        record.given = 0;
        let epoch = record.newest;
        let void = record.waiting.take();
        drop(record);
        // The void reader may wait for the source, which will wake another from now on.
        if let Some(void) = void {
            void.wake();
        }
        Some((self.wrap)(Tee::reader(Arc::clone(&self.shared), epoch)))
    }
}

impl<B: Body, E> Drop for Keeper<B, E> {
    fn drop(&mut self) {
        let mut record = self.shared.lock();
        record.kept = false;
        // What the newest reader still has to replay it frees itself.
        if record.can_cut || record.newest == 0 {
            let read = record.given.saturating_sub(record.freed);
            let read: Vec<_> = record.frames.drain(..read).collect();
            record.freed += read.len();
            // Whoever owns the bytes is foreign code: not under the lock.
            drop(record);
            drop(read);
        }
    }
}

impl<B: Body, E> Shared<B, E> {
    fn lock(&self) -> MutexGuard<'_, Record<B>> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<B: Body> Record<B> {
    fn is_whole(&self) -> bool {
        self.end != End::Broken && !self.overflown && (self.end == End::Whole || self.can_cut)
    }

    fn total(&self) -> usize {
        self.freed + self.frames.len()
    }

    /// Puts a frame on record. `must`: whatever the limit, since a newer reader has to see it. Gives what is not on record any
    /// more, to be dropped without the lock.
    fn push(&mut self, frame: &Frame<Bytes>, must: bool) -> VecDeque<Recorded> {
        let mut dropped = VecDeque::new();
        // An empty frame counts as a byte, so that they cannot fill memory either.
        let size = frame.data_ref().map_or(1, |data| data.len().max(1));
        self.bytes = self.bytes.saturating_add(size);
        if !must && self.bytes > self.limit {
            self.overflown = true;
            dropped = std::mem::take(&mut self.frames);
            self.freed += dropped.len();
        }
        if !must && (self.overflown || !self.kept) {
            self.freed += 1;
            return dropped;
        }
        self.frames.push_back(match (frame.data_ref(), frame.trailers_ref()) {
            (Some(data), _) => Recorded::Data(data.clone()),
            (None, trailers) => Recorded::Trailers(trailers.cloned().unwrap_or_default()),
        });
        dropped
    }
}

/// Holds the source while it is polled, and puts something in its place whatever happens.
struct Taken<'a, B: Body, E> {
    shared: &'a Shared<B, E>,
    source: Option<B>,
}

impl<B: Body, E> Drop for Taken<'_, B, E> {
    fn drop(&mut self) {
        // Only still here if the source panicked.
        if let Some(source) = self.source.take() {
            let mut record = self.shared.lock();
            if !record.can_cut {
                // Nobody else reads it, and no error can be left in its place.
                record.source = Some(source);
                return;
            }
            record.end = End::Broken;
            let waiting = record.waiting.take();
            drop(record);
            drop(source);
            if let Some(waiting) = waiting {
                waiting.wake();
            }
        }
    }
}

impl<B: Body<Data = Bytes> + Unpin, E: 'static> Tee<B, E> {
    fn reader(shared: Arc<Shared<B, E>>, epoch: u32) -> Self {
        Self { shared, epoch, next: 0, delivered: 0, over: false }
    }

    fn finish(&mut self, error: Option<E>) -> Poll<Option<Result<Frame<Bytes>, E>>> {
        self.over = true;
        Poll::Ready(error.map(Err))
    }

    fn deliver(&mut self, frame: Frame<Bytes>) -> Poll<Option<Result<Frame<Bytes>, E>>> {
        self.next += 1;
        self.delivered += frame.data_ref().map_or(0, |data| data.len() as u64);
        Poll::Ready(Some(Ok(frame)))
    }
}

impl<B: Body<Data = Bytes> + Unpin, E: 'static> Body for Tee<B, E> {
    type Data = Bytes;
    type Error = E;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, E>>> {
        let this = &mut *self;
        if this.over {
            return Poll::Ready(None);
        }
        let shared = Arc::clone(&this.shared);
        let mut record = shared.lock();
        if this.epoch < record.newest && record.can_cut {
            drop(record);
            return this.finish(say(BodyMoved::new()));
        }
        if this.next < record.total() {
            let at = this.next.saturating_sub(record.freed);
            let frame = match &record.frames[at] {
                Recorded::Data(data) => Frame::data(data.clone()),
                Recorded::Trailers(trailers) => Frame::trailers(trailers.clone()),
            };
            if this.epoch == record.newest {
                record.given = this.next + 1;
            }
            if !record.kept && record.can_cut {
                record.frames.pop_front();
                record.freed += 1;
            }
            drop(record);
            return this.deliver(frame);
        }
        match record.end {
            End::Whole => return this.finish(None),
            End::Broken => return this.finish(say(BodyBroke)),
            End::NotYet => {}
        }
        let Some(source) = record.source.take() else {
            record.waiting = Some(cx.waker().clone());
            return Poll::Pending;
        };
        drop(record);

        let mut taken = Taken { shared: &shared, source: Some(source) };
        let polled = taken.source.as_mut().map(|source| Pin::new(source).poll_frame(cx));
        let ended = taken.source.as_ref().is_some_and(Body::is_end_stream);
        let mut record = shared.lock();
        record.source = taken.source.take();
        drop(taken);
        let overtaken = this.epoch < record.newest;
        let mut dropped = VecDeque::new();
        match &polled {
            Some(Poll::Ready(Some(Ok(frame)))) => {
                dropped = record.push(frame, overtaken);
                if !overtaken {
                    record.given = this.next + 1;
                }
                if ended {
                    record.end = End::Whole;
                }
            }
            Some(Poll::Ready(Some(Err(_)))) => record.end = End::Broken,
            Some(Poll::Ready(None)) => record.end = End::Whole,
            Some(Poll::Pending) | None if overtaken => {}
            Some(Poll::Pending) | None => record.waiting = Some(cx.waker().clone()),
        }
        // The newest reader may have found the source gone.
        let waiting = if overtaken { record.waiting.take() } else { None };
        drop(record);
        drop(dropped);
        if let Some(waiting) = waiting {
            waiting.wake();
        }
        match polled {
            _ if overtaken => this.finish(say(BodyMoved::new())),
            Some(Poll::Ready(Some(Ok(frame)))) => this.deliver(frame),
            Some(Poll::Ready(Some(Err(error)))) => this.finish(Some((shared.map_err)(error))),
            Some(Poll::Ready(None)) => this.finish(None),
            Some(Poll::Pending) | None => Poll::Pending,
        }
    }

    fn is_end_stream(&self) -> bool {
        let record = self.shared.lock();
        let reads_on = self.epoch == record.newest || !record.can_cut;
        self.over || reads_on && record.end == End::Whole && self.next >= record.total()
    }

    fn size_hint(&self) -> SizeHint {
        let left = |size: u64| size.saturating_sub(self.delivered);
        let mut hint = SizeHint::new();
        hint.set_lower(left(self.shared.hint.lower()));
        if let Some(upper) = self.shared.hint.upper() {
            hint.set_upper(left(upper));
        }
        hint
    }
}

impl<B: Body, E> fmt::Debug for Tee<B, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tee").field("epoch", &self.epoch).field("delivered", &self.delivered).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
