//! The whole of an answer: unpacked, of bounded size, in memory that wipes itself, since it may hold a token.

use super::EndpointError;
use crate::{BoxError, source::AnswerError};
use bytes::Bytes;
use flate2::write::{DeflateDecoder, GzDecoder, ZlibDecoder};
use http::{HeaderMap, HeaderValue, header};
use http_body::Body;
use http_body_util::BodyExt;
use std::{
    io::{self, Write},
    sync::Arc,
};
use zeroize::Zeroizing;

/// Tokens are of a few KiB.
const LIMIT: usize = 1024 * 1024;

/// What is read: what every server packs with, if it packs at all.
pub(super) const ACCEPTED: HeaderValue = HeaderValue::from_static("gzip, deflate");

/// How an answer is packed (RFC 9110 section 8.4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Coding {
    Identity,
    Gzip,
    Deflate,
    /// None that was asked for, or several.
    Other,
}

impl Coding {
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let mut all = headers.get_all(header::CONTENT_ENCODING).iter();
        let Some(first) = all.next() else { return Self::Identity };
        let first = first.to_str().unwrap_or("?").trim();
        let is = |name: &str| first.eq_ignore_ascii_case(name);
        if all.next().is_some() {
            Self::Other
        } else if is("gzip") || is("x-gzip") {
            Self::Gzip
        } else if is("deflate") {
            Self::Deflate
        } else if is("identity") || first.is_empty() {
            Self::Identity
        } else {
            Self::Other
        }
    }
}

/// Reads it to its end, and no further than the limit, packed and unpacked.
pub(super) async fn read<B>(body: B, coding: Coding, endpoint: Arc<str>) -> Result<Zeroizing<Vec<u8>>, EndpointError>
where
    B: Body<Data = Bytes, Error: Into<BoxError>>,
{
    let too_large = || EndpointError::TooLarge { endpoint: Arc::clone(&endpoint), limit: LIMIT };
    let mangled = || EndpointError::Answer { endpoint: Arc::clone(&endpoint), error: AnswerError::NotUnpacked };
    let announced = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    if announced > LIMIT {
        return Err(too_large());
    }
    let mut unpacking = None;
    let mut received = 0;
    let mut body = std::pin::pin!(body);
    while let Some(frame) = body.frame().await {
        let frame =
            frame.map_err(|error| EndpointError::Broken { endpoint: Arc::clone(&endpoint), error: error.into() })?;
        let Some(data) = frame.into_data().ok().filter(|data| !data.is_empty()) else { continue };
        // Packed nothings would never fill the other end.
        received += data.len();
        if received > LIMIT {
            return Err(too_large());
        }
        let unpack = match &mut unpacking {
            Some(unpack) => unpack,
            None => unpacking.insert(Unpack::new(coding, data[0], announced).ok_or_else(mangled)?),
        };
        unpack.write(&data).map_err(|error| if error.kind() == FULL { too_large() } else { mangled() })?;
    }
    match unpacking {
        Some(unpack) => unpack.finish().map_err(|error| if error.kind() == FULL { too_large() } else { mangled() }),
        None => Ok(Zeroizing::default()),
    }
}

const FULL: io::ErrorKind = io::ErrorKind::FileTooLarge;

enum Unpack {
    Identity(Whole),
    Gzip(GzDecoder<Whole>),
    Zlib(ZlibDecoder<Whole>),
    Deflate(DeflateDecoder<Whole>),
}

impl Unpack {
    fn new(coding: Coding, first: u8, announced: usize) -> Option<Self> {
        let whole = Whole(Zeroizing::new(Vec::with_capacity(announced)));
        Some(match coding {
            Coding::Identity => Self::Identity(whole),
            Coding::Gzip => Self::Gzip(GzDecoder::new(whole)),
            // RFC 9110 section 8.4.1.2: zlib's format; some send the bare stream under that name, whose first byte differs (RFC 1950 section 2.2).
            Coding::Deflate if first & 0x0f == 8 => Self::Zlib(ZlibDecoder::new(whole)),
            Coding::Deflate => Self::Deflate(DeflateDecoder::new(whole)),
            Coding::Other => return None,
        })
    }

    fn write(&mut self, data: &[u8]) -> io::Result<()> {
        match self {
            Self::Identity(whole) => whole.write_all(data),
            Self::Gzip(whole) => whole.write_all(data),
            Self::Zlib(whole) => whole.write_all(data),
            Self::Deflate(whole) => whole.write_all(data),
        }
    }

    fn finish(self) -> io::Result<Zeroizing<Vec<u8>>> {
        let whole = match self {
            Self::Identity(whole) => whole,
            Self::Gzip(whole) => whole.finish()?,
            Self::Zlib(whole) => whole.finish()?,
            Self::Deflate(whole) => whole.finish()?,
        };
        Ok(whole.0)
    }
}

struct Whole(Zeroizing<Vec<u8>>);

impl Write for Whole {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        if data.len() > LIMIT - self.0.len() {
            return Err(FULL.into());
        }
        make_room(&mut self.0, data.len());
        self.0.extend_from_slice(data);
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Grows by a new buffer, so that the old one is wiped: `Vec` itself would leave it behind.
fn make_room(buffer: &mut Zeroizing<Vec<u8>>, more: usize) {
    if buffer.capacity() - buffer.len() < more {
        let mut larger = Zeroizing::new(Vec::with_capacity((buffer.len() + more).max(buffer.capacity() * 2)));
        larger.extend_from_slice(buffer);
        *buffer = larger;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::{Compression, write};
    use http_body_util::StreamBody;

    const TEXT: &[u8] = br#"{"jwt":"t"}"#;

    fn gzip(text: &[u8]) -> Vec<u8> {
        let mut encoder = write::GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    fn zlib(text: &[u8]) -> Vec<u8> {
        let mut encoder = write::ZlibEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    fn deflate(text: &[u8]) -> Vec<u8> {
        let mut encoder = write::DeflateEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    async fn unpacked(coding: Coding, packed: &[u8], chunk: usize) -> Result<Zeroizing<Vec<u8>>, EndpointError> {
        let frames = packed.chunks(chunk).map(|data| Ok::<_, BoxError>(http_body::Frame::data(data.to_vec().into())));
        read(StreamBody::new(futures_util::stream::iter(frames.collect::<Vec<_>>())), coding, "here".into()).await
    }

    #[tokio::test]
    async fn what_is_packed_is_unpacked_however_it_is_cut() {
        for (coding, packed) in [
            (Coding::Identity, TEXT.to_vec()),
            (Coding::Gzip, gzip(TEXT)),
            (Coding::Deflate, zlib(TEXT)),
            (Coding::Deflate, deflate(TEXT)),
        ] {
            for chunk in [1, 2, 7, 1000] {
                assert_eq!(**unpacked(coding, &packed, chunk).await.unwrap(), *TEXT, "{coding:?} {chunk}");
            }
        }
        for coding in [Coding::Gzip, Coding::Deflate, Coding::Other] {
            assert!(unpacked(coding, b"", 1).await.unwrap().is_empty(), "of nothing there is nothing to unpack");
        }
    }

    #[tokio::test]
    async fn a_megabyte_is_the_most_packed_or_unpacked() {
        let most = vec![b' '; LIMIT];
        let more = vec![b' '; LIMIT + 1];
        for (coding, pack) in
            [(Coding::Gzip, gzip as fn(&[u8]) -> _), (Coding::Deflate, zlib), (Coding::Deflate, deflate)]
        {
            assert_eq!(unpacked(coding, &pack(&most), 1000).await.unwrap().len(), LIMIT);
            let error = unpacked(coding, &pack(&more), 1000).await.unwrap_err();
            assert!(matches!(error, EndpointError::TooLarge { limit: LIMIT, .. }), "{error}");
        }
        // Blocks of no bytes (RFC 1951 section 3.2.4).
        let nothings = [0, 0, 0, 0xff, 0xff].repeat(LIMIT / 5 + 1);
        let error = unpacked(Coding::Deflate, &nothings, 1000).await.unwrap_err();
        assert!(matches!(error, EndpointError::TooLarge { .. }), "{error}");
    }

    #[tokio::test]
    async fn what_does_not_unpack_is_an_error_that_says_so() {
        let cut = gzip(TEXT)[..20].to_vec();
        let mut wrong_sum = gzip(TEXT);
        *wrong_sum.iter_mut().rev().nth(5).unwrap() ^= 1;
        let tail = [gzip(TEXT), b"s3cr3t".to_vec()].concat();
        let twice = [gzip(TEXT), gzip(TEXT)].concat();
        for (coding, packed) in [
            (Coding::Gzip, TEXT.to_vec()),
            (Coding::Gzip, cut),
            (Coding::Gzip, wrong_sum),
            (Coding::Gzip, tail),
            (Coding::Gzip, twice),
            (Coding::Deflate, TEXT.to_vec()),
            (Coding::Other, TEXT.to_vec()),
        ] {
            let error = unpacked(coding, &packed, 1000).await.unwrap_err();
            assert!(
                matches!(error, EndpointError::Answer { error: AnswerError::NotUnpacked, .. }),
                "{coding:?}: {error}"
            );
        }
    }

    #[test]
    fn one_coding_that_was_asked_for_is_understood() {
        let of = |values: &[&'static str]| {
            Coding::of(
                &values.iter().map(|value| (header::CONTENT_ENCODING, HeaderValue::from_static(value))).collect(),
            )
        };
        assert_eq!([of(&[]), of(&["identity"]), of(&[""])], [Coding::Identity; 3]);
        assert_eq!([of(&["gzip"]), of(&["GZIP "]), of(&["x-gzip"])], [Coding::Gzip; 3]);
        assert_eq!(of(&["deflate"]), Coding::Deflate);
        assert_eq!([of(&["br"]), of(&["gzip, gzip"]), of(&["gzip", "gzip"])], [Coding::Other; 3]);
    }
}
