//! Requests that can be sent twice, and answers that can refuse a token.

mod head;

pub use head::RequestHead;

use crate::Origin;
use http::{Extensions, HeaderMap, Method, StatusCode, Uri};
use std::fmt;

/// Where a request goes. Shows no user name or password that its URI may hold.
#[derive(Clone, Copy)]
pub struct Target<'a> {
    scheme: Option<&'a str>,
    at: Option<At<'a>>,
    path: &'a str,
}

/// An authority (RFC 3986 section 3.2) is taken apart only where somebody asks: most requests are told by their scheme.
#[derive(Clone, Copy)]
enum At<'a> {
    Authority(&'a str),
    Host(&'a str, Option<u16>),
}

/// Case is all that two schemes or hosts can differ by in these bits alone.
const FOLD: u64 = 0x2020_2020_2020_2020;

impl<'a> Target<'a> {
    /// Of a client whose requests hold no [`Uri`]. An IPv6 address is in brackets, the path without the query.
    #[must_use]
    pub fn new(scheme: Option<&'a str>, host: Option<&'a str>, port: Option<u16>, path: &'a str) -> Self {
        Self { scheme, at: host.map(|host| At::Host(host, port)), path }
    }

    /// Reads it from a URI.
    #[must_use]
    #[inline]
    pub fn of_uri(uri: &'a Uri) -> Self {
        let at = uri.authority().map(|authority| At::Authority(authority.as_str()));
        Self { scheme: uri.scheme_str(), at, path: uri.path() }
    }

    /// The URI's scheme, if it has one.
    #[must_use]
    #[inline]
    pub fn scheme(&self) -> Option<&'a str> {
        self.scheme
    }

    /// The URI's host, if it has one; an IPv6 address in brackets.
    #[must_use]
    pub fn host(&self) -> Option<&'a str> {
        Some(self.at?.parts().0)
    }

    /// The URI's port, if it names one.
    #[must_use]
    pub fn port(&self) -> Option<u16> {
        self.at?.parts().1
    }

    /// The path, without the query.
    #[must_use]
    pub fn path(&self) -> &'a str {
        self.path
    }

    #[inline]
    pub(crate) fn has_host(&self) -> bool {
        self.at.is_some()
    }

    /// The same for equal origins, and, with a method, for equal origin, method and path.
    pub(crate) fn key(&self, method: Option<&Method>) -> u64 {
        let (host, port) = self.at.map(At::parts).unwrap_or_default();
        let port = port.or_else(|| crate::scope::default_port(self.scheme.unwrap_or_default()));
        let mut hash = Hash(u64::from(port.unwrap_or_default()));
        match self.scheme {
            Some("https") => hash.mix(1),
            scheme => hash.add(scheme.unwrap_or_default(), FOLD),
        }
        hash.add(host, FOLD);
        if let Some(method) = method {
            hash.add(method.as_str(), 0);
            hash.add(self.path, 0);
        }
        hash.0
    }
}

impl fmt::Debug for Target<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Target")
            .field("scheme", &self.scheme)
            .field("host", &self.host())
            .field("port", &self.port())
            .field("path", &self.path)
            .finish()
    }
}

impl<'a> At<'a> {
    /// Host and port, as [`Uri::host`] and [`Uri::port_u16`] have them: a client connects to what those say.
    fn parts(self) -> (&'a str, Option<u16>) {
        let authority = match self {
            Self::Host(host, port) => return (host, port),
            Self::Authority(authority) => authority,
        };
        // The rule is a host alone, and eight bytes at a time are enough to see that.
        if !words(authority).any(|word| holds(word, b':') || holds(word, b'@')) && !authority.starts_with('[') {
            return (authority, None);
        }
        let port = authority.rsplit_once(':').and_then(|(_, port)| port.parse().ok());
        let place = authority.rsplit_once('@').map_or(authority, |(_, place)| place);
        let end = if place.starts_with('[') { place.find(']').map(|end| end + 1) } else { place.find(':') };
        (&place[..end.unwrap_or(place.len())], port)
    }
}

/// Eight bytes at a time; the last word goes back to be whole, or is filled up with zeros.
fn words(text: &str) -> impl Iterator<Item = u64> {
    let bytes = text.as_bytes();
    let last = match bytes.len() {
        1..8 => Some(bytes.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte))),
        _ => bytes.last_chunk().copied().map(u64::from_le_bytes),
    };
    let whole = bytes.chunks_exact(8).map(|word| u64::from_le_bytes(word.try_into().expect("eight bytes")));
    whole.chain(last)
}

/// Is one of the word's bytes this one?
fn holds(word: u64, byte: u8) -> bool {
    const ONES: u64 = 0x0101_0101_0101_0101;
    let zero = word ^ (ONES * u64::from(byte));
    zero.wrapping_sub(ONES) & !zero & (ONES << 7) != 0
}

/// Fast, and not for hostile keys: whoever makes two collide lets two resources share a wait, or the 401 of a redirect's target cost a refresh.
struct Hash(u64);

impl Hash {
    /// Each byte with the bits of `fold` set, and the length, so that parts stay apart.
    fn add(&mut self, part: &str, fold: u64) {
        words(part).for_each(|word| self.mix(word | fold));
        self.mix(part.len() as u64);
    }

    fn mix(&mut self, word: u64) {
        self.0 = (self.0.rotate_left(5) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 ^= self.0 >> 32;
    }
}

/// A request that can be sent again: its head can be copied, its body taken out.
///
/// Implemented for `http::Request` of any body; what becomes of the body is the layer's
/// [strategy](crate::body::KeepBody). Implement it for a client's own request type.
pub trait ReplayRequest: Sized {
    /// Its body.
    type Body;
    /// All of it but the body.
    type Head;

    /// Its method.
    fn method(&self) -> &Method;
    /// Where it goes.
    fn target(&self) -> Target<'_>;
    /// Its headers.
    fn headers(&self) -> &HeaderMap;
    /// Its headers, for the token.
    fn headers_mut(&mut self) -> &mut HeaderMap;
    /// Its extensions, if it has any: [`UseToken`](crate::UseToken) and [`NoToken`](crate::NoToken) are looked for there.
    fn extensions(&self) -> Option<&Extensions>;

    /// Does the client that takes it follow redirects by itself, and then strip no header but `Authorization` on the way to another host? Then a token goes
    /// nowhere else, until [`redirects_handled`](crate::JwtRefreshLayer::redirects_handled) is said.
    fn follows_redirects(&self) -> bool {
        false
    }

    /// A copy of the head, to send it again; none if it cannot be copied. The body stays where it is.
    fn copy_head(&mut self) -> Option<Self::Head>;
    /// The body out, and another of its type in its place.
    fn map_body(self, map: impl FnOnce(Self::Body) -> Self::Body) -> Self;
    /// A request again.
    fn assemble(head: Self::Head, body: Self::Body) -> Self;

    /// A copied head's method.
    fn head_method(head: &Self::Head) -> &Method;
    /// Where a copied head goes.
    fn head_target(head: &Self::Head) -> Target<'_>;
    /// A copied head's headers, for a policy that marks resends.
    fn head_headers_mut(head: &mut Self::Head) -> &mut HeaderMap;
}

impl<B: 'static> ReplayRequest for http::Request<B> {
    type Body = B;
    type Head = RequestHead;

    fn method(&self) -> &Method {
        self.method()
    }

    fn target(&self) -> Target<'_> {
        Target::of_uri(self.uri())
    }

    fn headers(&self) -> &HeaderMap {
        self.headers()
    }

    fn headers_mut(&mut self) -> &mut HeaderMap {
        self.headers_mut()
    }

    fn extensions(&self) -> Option<&Extensions> {
        Some(self.extensions())
    }

    /// True for a body of reqwest's: whoever takes that, such as tower-reqwest, hands it to reqwest.
    #[cfg(feature = "reqwest")]
    fn follows_redirects(&self) -> bool {
        std::any::TypeId::of::<B>() == std::any::TypeId::of::<reqwest::Body>()
    }

    fn copy_head(&mut self) -> Option<RequestHead> {
        Some(RequestHead::copy(self))
    }

    fn map_body(self, map: impl FnOnce(B) -> B) -> Self {
        self.map(map)
    }

    fn assemble(head: RequestHead, body: B) -> Self {
        head.request(body)
    }

    fn head_method(head: &RequestHead) -> &Method {
        head.method()
    }

    fn head_target(head: &RequestHead) -> Target<'_> {
        head.target()
    }

    fn head_headers_mut(head: &mut RequestHead) -> &mut HeaderMap {
        head.headers_mut()
    }
}

/// An answer that can refuse a token. Only [`RetryPolicy`](crate::RetryPolicy) asks for it; a policy of your own may read its answers in
/// its own way.
pub trait RejectableResponse: Sized {
    /// Its status.
    fn status(&self) -> StatusCode;
    /// Its headers.
    fn headers(&self) -> &HeaderMap;
    /// Who gave it, where a redirect below the layer may have led elsewhere and the answer tells. A refusal from another origin than the
    /// token was attached for is none: it did not get the token.
    fn answered_by(&self) -> Option<Origin> {
        None
    }

    /// Shows `hook` the trailers of a body that is still to come, if it ends with any: a gRPC stream that has begun says only there that the token
    /// died. The answer is the caller's all the same.
    ///
    /// By default nobody looks: `hook` is dropped. Implemented for gRPC answers of tonic, with that feature.
    #[must_use]
    fn watch(self, hook: impl FnOnce(&HeaderMap) + Send + 'static) -> Self {
        drop(hook);
        self
    }
}

impl<B: 'static> RejectableResponse for http::Response<B> {
    fn status(&self) -> StatusCode {
        self.status()
    }

    fn headers(&self) -> &HeaderMap {
        self.headers()
    }

    #[cfg(feature = "follow-redirect")]
    fn answered_by(&self) -> Option<Origin> {
        let uri = &self.extensions().get::<tower_http::follow_redirect::RequestUri>()?.0;
        Some(Origin::of(uri.scheme_str()?, uri.host()?, uri.port_u16()))
    }

    #[cfg(feature = "tonic")]
    fn watch(mut self, hook: impl FnOnce(&HeaderMap) + Send + 'static) -> Self {
        let any: &mut dyn std::any::Any = &mut self;
        if let Some(response) = any.downcast_mut() {
            crate::clients::watch_trailers(response, hook);
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(uri: &str, method: Option<&Method>) -> u64 {
        Target::of_uri(&uri.parse().unwrap()).key(method)
    }

    #[test]
    fn a_resource_is_origin_method_and_path() {
        let get = Some(&Method::GET);
        assert_eq!(key("https://a/x?1", get), key("https://A:443/x?2", get));
        for other in ["https://a/y", "https://b/x", "http://a/x", "https://a:1/x"] {
            assert_ne!(key("https://a/x", get), key(other, get), "{other}");
        }
        assert_ne!(key("https://a/x", get), key("https://a/x", Some(&Method::PUT)));
        assert_eq!(key("https://a/x", None), key("https://a/y", None), "an origin has no path");
    }

    #[test]
    fn keys_tell_all_apart_but_the_case_of_an_origin() {
        let long = "api.a-rather-long-name.example.com";
        let hosts =
            ["a", "b", "ab", "xxxxxxxx", "xxxxxxxxx", "12345678", "12345679", "1234567", "[::1]", "[::2]", long];
        let mut keys: Vec<u64> = Vec::new();
        for (scheme, host) in ["https", "http"].into_iter().flat_map(|scheme| hosts.map(|host| (scheme, host))) {
            let bare = key(&format!("{scheme}://{host}/x"), None);
            assert_eq!(bare, key(&format!("{scheme}://{}/x", host.to_uppercase()), None), "{host}");
            assert_eq!(bare, key(&format!("{scheme}://user:1@{host}/x"), None), "{host}");
            let port = if scheme == "https" { 443 } else { 80 };
            assert_eq!(bare, key(&format!("{scheme}://{host}:{port}/x"), None), "{host}");
            assert_eq!(bare, Target::new(Some(scheme), Some(host), None, "/").key(None), "{host}");
            keys.extend([bare, key(&format!("{scheme}://{host}:8443/x"), None)]);
            let paths = ["/x", "/X", "/x/", "/12345678", "/123456789"];
            keys.extend(paths.map(|path| key(&format!("{scheme}://{host}{path}"), Some(&Method::GET))));
            keys.push(key(&format!("{scheme}://{host}/x"), Some(&Method::PUT)));
        }
        let all = keys.len();
        keys.sort_unstable();
        keys.dedup();
        assert_eq!(keys.len(), all);
    }

    #[test]
    fn an_authority_is_taken_apart_as_http_does_it() {
        for host in ["a", "a.b.c.d.e.f.g.h", "[::1]", "[2001:db8::1]", "127.0.0.1"] {
            for user in ["", "u@", "u:p@", "u:8@", "u%40:8@", "verylonguser:verylongpassword@"] {
                for port in ["", ":1", ":65535"] {
                    let uri: Uri = format!("https://{user}{host}{port}/x?y").parse().unwrap();
                    let target = Target::of_uri(&uri);
                    assert_eq!((target.host(), target.port()), (uri.host(), uri.port_u16()), "{uri}");
                    assert_eq!((target.scheme(), target.path()), (Some("https"), "/x"));
                }
            }
        }
        for odd in [
            "x:[].localhost",
            "x:80[].localhost",
            "[::1]x",
            "[::1]x:1",
            "x[].y",
            "u:1@[::1]",
            "x[]",
            "[]:",
            "[a]x",
            "[]x",
        ] {
            let Ok(uri) = format!("http://{odd}/").parse::<Uri>() else { continue };
            let target = Target::of_uri(&uri);
            assert_eq!((target.host(), target.port()), (uri.host(), uri.port_u16()), "{uri}");
        }
        assert_eq!(Target::of_uri(&Uri::from_static("/x")).host(), None);
    }

    #[test]
    fn a_byte_is_found_in_a_word_wherever_it_is_and_nothing_else_is_taken_for_it() {
        for byte in [b':', b'@'] {
            for other in [0, 1, b'.', b'9', b';', b'A', b'z', 0x7f, 0x80, byte | 0x80, 0xff] {
                let mut bytes = [other; 8];
                assert!(!holds(u64::from_le_bytes(bytes), byte), "{other}");
                for at in 0..8 {
                    bytes[at] = byte;
                    assert!(holds(u64::from_le_bytes(bytes), byte), "{other} {at}");
                    bytes[at] = other;
                }
            }
        }
    }

    #[cfg(feature = "reqwest")]
    #[test]
    fn what_takes_a_body_of_reqwests_follows_redirects_and_nothing_else_does() {
        assert!(ReplayRequest::follows_redirects(&http::Request::new(reqwest::Body::from(""))));
        assert!(!ReplayRequest::follows_redirects(&http::Request::new(String::new())));
    }

    #[test]
    fn debug_shows_where_a_request_goes_and_no_user_nor_query() {
        let uri = "https://u:p@a:1/x?key=s3cr3t".parse().unwrap();
        let shown = format!("{:?}", Target::of_uri(&uri));
        assert_eq!(shown, r#"Target { scheme: Some("https"), host: Some("a"), port: Some(1), path: "/x" }"#);
    }

    #[test]
    fn a_head_is_copied_whole() {
        let mut request = http::Request::builder()
            .method("PUT")
            .uri("https://a/x")
            .version(http::Version::HTTP_2)
            .header("a", "1")
            .header("a", "2")
            .extension(7u8)
            .body("body")
            .unwrap();
        let again = http::Request::assemble(request.copy_head().unwrap(), "body");
        assert_eq!(format!("{again:?}"), format!("{request:?}"));
        assert_eq!(again.extensions().get::<u8>(), Some(&7));
    }
}
