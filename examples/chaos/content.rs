//! What a call carries: bytes that its number alone decides, so that whoever receives them can tell each from any other.

use bytes::Bytes;
use fastrand::Rng;
use http_body::{Body, Frame, SizeHint};
use std::{
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::time::Sleep;
use tower_jwt_refresh::BoxError;

/// So many bytes may be recorded: the layer's default.
pub const LIMIT: u64 = 128 * 1024;

/// The bytes of an answer are not those of its request.
pub fn of_answer(id: u64) -> u64 {
    !id
}

/// Eight bytes of it. Splitmix64's last step, cut down to printable ASCII: a gRPC word is text.
fn word(id: u64, at: u64) -> [u8; 8] {
    let mut mixed = id.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ at.wrapping_mul(0xd134_2543_de82_ef95);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((mixed ^ (mixed >> 31)) & 0x3f3f_3f3f_3f3f_3f3f).wrapping_add(0x3030_3030_3030_3030).to_le_bytes()
}

/// The bytes from `from` on.
fn stream(id: u64, from: u64) -> impl Iterator<Item = u8> {
    let skip = usize::try_from(from % 8).expect("below 8");
    (from / 8..).flat_map(move |at| word(id, at)).skip(skip)
}

pub fn bytes(id: u64, from: u64, length: u64) -> Bytes {
    stream(id, from).take(usize::try_from(length).expect("it fits into memory")).collect::<Vec<_>>().into()
}

pub fn text(id: u64, from: u64, length: u64) -> String {
    String::from_utf8(bytes(id, from, length).into()).expect("it is ASCII")
}

pub fn matches(id: u64, from: u64, data: &[u8]) -> bool {
    stream(id, from).zip(data).all(|(right, is)| right == *is)
}

/// How much a call carries: mostly little, now and then the limit to the byte, or more.
pub fn draw_length(rng: &mut Rng) -> u64 {
    match rng.u8(0..100) {
        0..5 => 0,
        5..80 => rng.u64(1..2 * 1024),
        80..95 => rng.u64(2 * 1024..20 * 1024),
        95..98 => rng.u64(20 * 1024..120 * 1024),
        98 => LIMIT,
        _ => rng.u64(140 * 1024..300 * 1024),
    }
}

/// A body that is made while it is sent, with pauses, so that it can be refused half-way.
pub struct Slow {
    id: u64,
    at: u64,
    length: u64,
    rng: Rng,
    /// It says how long it is.
    hinted: bool,
    /// It says with its last frame that it was the last.
    tells_end: bool,
    /// It takes so long that its first sending is under way when it is sent again.
    crawls: bool,
    pause: Option<Pin<Box<Sleep>>>,
}

impl Slow {
    pub fn new(id: u64, length: u64, rng: &mut Rng) -> Self {
        let (hinted, tells_end, crawls) = (rng.u8(0..4) == 0, rng.bool(), rng.u8(0..6) == 0);
        Self { id, at: 0, length, rng: rng.fork(), hinted, tells_end, crawls, pause: None }
    }

    fn poll_bytes(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        if let Some(pause) = &mut self.pause {
            ready!(pause.as_mut().poll(cx));
            self.pause = None;
        }
        if self.at == self.length {
            return Poll::Ready(None);
        }
        let most = if self.crawls { self.length / 4 + 1 } else { 16 * 1024 };
        let size = self.rng.u64(1..=most).min(self.length - self.at);
        let data = bytes(self.id, self.at, size);
        self.at += size;
        if self.crawls || self.rng.u8(0..4) == 0 {
            let pause = Duration::from_millis(self.rng.u64(0..if self.crawls { 150 } else { 8 }));
            self.pause = Some(Box::pin(tokio::time::sleep(pause)));
        }
        Poll::Ready(Some(data))
    }

    /// Its frames as text, for a stream of words.
    pub fn into_words(self) -> impl futures_util::Stream<Item = String> + Send + 'static {
        futures_util::stream::unfold(self, |mut slow| async {
            let data = std::future::poll_fn(|cx| slow.poll_bytes(cx)).await?;
            Some((String::from_utf8(data.into()).expect("it is ASCII"), slow))
        })
    }
}

impl Body for Slow {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        self.poll_bytes(cx).map(|data| data.map(|data| Ok(Frame::data(data))))
    }

    fn is_end_stream(&self) -> bool {
        self.tells_end && self.at == self.length
    }

    fn size_hint(&self) -> SizeHint {
        if self.hinted { SizeHint::with_exact(self.length - self.at) } else { SizeHint::default() }
    }
}
