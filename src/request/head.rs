//! A request's head, kept to be sent again.
//!
//! Nearly no copy is ever needed, so it is made to be cheap to make: URI, names and values are written one after the other into one buffer, and a head is
//! built of it only when the request is sent again, or when a policy asks for the headers. Cloning the head instead would copy the map, and
//! turn each buffer in it into a shared one, at an allocation each.

use super::{At, Target};
use http::{
    Extensions, HeaderMap, HeaderName, HeaderValue, Method, Uri, Version,
    request::Parts,
    uri::{self, Authority, PathAndQuery, Scheme},
};
use std::fmt;

/// Values that are longer than this are shared: an allocation is cheaper then than the copy.
const LONG: usize = 1024;

/// What an [`http::Request`] is besides its body, kept to be sent again.
pub struct RequestHead {
    method: Method,
    version: Version,
    extensions: Extensions,
    scheme: Option<Scheme>,
    /// In `text`, before the headers.
    authority: usize,
    /// Of path and query, after the authority; none in authority form (RFC 9112 section 3.2.3).
    path: Option<usize>,
    text: Vec<u8>,
    headers: Headers,
}

enum Headers {
    /// So many in `text`, each after the lengths of its name and value in four bytes. Some values are shared instead: what is marked sensitive, so that
    /// no credential is copied to where nobody wipes it, and what is long.
    Written {
        count: usize,
        shared: Vec<HeaderValue>,
    },
    Map(HeaderMap),
}

/// In place of a value's length.
const SHARED: usize = 0xffff;

impl RequestHead {
    pub(super) fn copy<B>(request: &http::Request<B>) -> Self {
        let (uri, headers) = (request.uri(), request.headers());
        let authority = uri.authority().map_or("", Authority::as_str);
        let path = uri.path_and_query().map(PathAndQuery::as_str);
        // A guess that mostly holds: asking each header for its length costs more than a buffer that grows now and then.
        let mut text = Vec::with_capacity(authority.len() + path.map_or(0, str::len) + headers.len() * 64);
        text.extend_from_slice(authority.as_bytes());
        text.extend_from_slice(path.unwrap_or_default().as_bytes());
        let mut shared = Vec::new();
        for (name, value) in headers {
            let name = name.as_str().as_bytes();
            let share = value.is_sensitive() || value.len() > LONG;
            let lengths = (name.len() << 16) | if share { SHARED } else { value.len() };
            text.extend_from_slice(&u32::try_from(lengths).expect("a name is below 64 KiB").to_ne_bytes());
            text.extend_from_slice(name);
            if share {
                shared.push(value.clone());
            } else {
                text.extend_from_slice(value.as_bytes());
            }
        }
        Self {
            method: request.method().clone(),
            version: request.version(),
            extensions: request.extensions().clone(),
            scheme: uri.scheme().cloned(),
            authority: authority.len(),
            path: path.map(str::len),
            text,
            headers: Headers::Written { count: headers.len(), shared },
        }
    }

    pub(super) fn method(&self) -> &Method {
        &self.method
    }

    pub(super) fn target(&self) -> Target<'_> {
        let authority = self.authority();
        let path = match self.path_and_query() {
            Some(path) => match path.split('?').next().unwrap_or_default() {
                "" => "/",
                path => path,
            },
            None => "",
        };
        Target {
            scheme: self.scheme.as_ref().map(Scheme::as_str),
            at: (!authority.is_empty()).then_some(At::Authority(authority)),
            path,
        }
    }

    pub(super) fn headers_mut(&mut self) -> &mut HeaderMap {
        if let Headers::Written { .. } = self.headers {
            self.headers = Headers::Map(self.map());
        }
        match &mut self.headers {
            Headers::Map(map) => map,
            Headers::Written { .. } => unreachable!("a map by now"),
        }
    }

    pub(super) fn request<B>(mut self, body: B) -> http::Request<B> {
        let headers = std::mem::take(self.headers_mut());
        let uri = self.uri();
        let (mut parts, body): (Parts, B) = http::Request::new(body).into_parts();
        parts.uri = uri;
        parts.headers = headers;
        parts.method = self.method;
        parts.version = self.version;
        parts.extensions = self.extensions;
        http::Request::from_parts(parts, body)
    }

    fn map(&self) -> HeaderMap {
        let Headers::Written { count, shared } = &self.headers else { return HeaderMap::new() };
        // The token has room as well. There may be any number of values, but not of places for them.
        let mut map = HeaderMap::with_capacity((count + 1).min(64));
        let mut rest = &self.text[self.authority + self.path.unwrap_or_default()..];
        let mut take = |length: usize| {
            let (taken, after) = rest.split_at(length);
            rest = after;
            taken
        };
        let mut shared = shared.iter();
        for _ in 0..*count {
            let lengths = u32::from_ne_bytes(take(4).try_into().expect("four bytes")) as usize;
            let name = HeaderName::from_bytes(take(lengths >> 16)).expect("the name of a header");
            let value = match lengths & SHARED {
                SHARED => shared.next().expect("as many as were shared").clone(),
                value => HeaderValue::from_bytes(take(value)).expect("the value of a header"),
            };
            map.append(name, value);
        }
        map
    }

    fn uri(&self) -> Uri {
        let mut parts = uri::Parts::default();
        parts.scheme.clone_from(&self.scheme);
        let authority = self.authority();
        parts.authority =
            (!authority.is_empty()).then(|| Authority::try_from(authority).expect("the authority of a URI"));
        parts.path_and_query =
            self.path_and_query().map(|path| PathAndQuery::try_from(path).expect("the path of a URI"));
        Uri::from_parts(parts).expect("the parts of a URI")
    }

    fn authority(&self) -> &str {
        std::str::from_utf8(&self.text[..self.authority]).expect("it was a string")
    }

    fn path_and_query(&self) -> Option<&str> {
        let path = &self.text[self.authority..self.authority + self.path?];
        Some(std::str::from_utf8(path).expect("it was a string"))
    }
}

impl fmt::Debug for RequestHead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestHead").field("method", &self.method).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Request;

    fn again<B: Clone>(request: &Request<B>) -> Request<B> {
        RequestHead::copy(request).request(request.body().clone())
    }

    #[test]
    fn every_form_of_uri_comes_back_as_it_was() {
        for uri in [
            "https://a",
            "https://a/",
            "https://a?x",
            "https://a/?x",
            "https://a/x?y=1&z#f",
            "http://user:pass@a.b:8080/x//y/../z?",
            "HTTPS://A.B/X",
            "https://[2001:db8::1]:443/x",
            "custom+scheme://a/x",
            "/x?y",
            "/",
            "*",
            "a.b:443",
            "[::1]:443",
        ] {
            let request = Request::builder().uri(uri).body(()).unwrap();
            let copy = RequestHead::copy(&request);
            let (here, there) = (copy.target(), Target::of_uri(request.uri()));
            assert_eq!(
                (here.scheme(), here.host(), here.port()),
                (there.scheme(), there.host(), there.port()),
                "{uri}"
            );
            assert_eq!(here.path(), there.path(), "{uri}");
            let method = Some(&Method::GET);
            assert_eq!(here.key(method), there.key(method), "{uri}");
            let uri = copy.request(()).into_parts().0.uri;
            assert_eq!(&uri, request.uri());
            assert_eq!(uri.to_string(), request.uri().to_string());
        }
    }

    #[test]
    fn headers_come_back_in_order_with_all_their_values_and_marks() {
        let mut request = Request::new(());
        let headers = request.headers_mut();
        for (name, value) in [("accept", "a"), ("x-own", "1"), ("cookie", "c"), ("x-own", "2"), ("empty", "")] {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        headers.append("binary", HeaderValue::from_bytes(b"\xff\x80 \t\xfe").unwrap());
        for length in [LONG, LONG + 1, 0xffff, 0x1_0000] {
            headers.append("long", "x".repeat(length).parse().unwrap());
        }
        headers.append(HeaderName::try_from("n".repeat(40_000)).unwrap(), HeaderValue::from_static("v"));
        let mut secret = HeaderValue::from_static("s3cr3t");
        secret.set_sensitive(true);
        headers.append("x-own", secret);
        let copy = again(&request);
        let list = |headers: &HeaderMap| -> Vec<_> {
            headers.iter().map(|(name, value)| (name.clone(), value.clone(), value.is_sensitive())).collect()
        };
        assert_eq!(list(copy.headers()), list(request.headers()));
    }

    #[test]
    fn any_number_of_values_is_sent_again() {
        let mut request = Request::new(());
        for _ in 0..30_000 {
            request.headers_mut().append("x", HeaderValue::from_static("1"));
        }
        assert_eq!(again(&request).headers().len(), 30_000);
    }

    #[test]
    fn a_value_that_is_marked_sensitive_is_shared_and_not_copied() {
        let mut secret: HeaderValue = "s3cr3t".parse().unwrap();
        secret.set_sensitive(true);
        let request = Request::builder().header("cookie", secret).body(()).unwrap();
        let copy = RequestHead::copy(&request);
        assert!(!copy.text.windows(6).any(|part| part == b"s3cr3t"));
        let copy = copy.request(());
        let at = |request: &Request<()>| request.headers()["cookie"].as_bytes().as_ptr();
        assert_eq!(at(&copy), at(&request), "one buffer");
    }

    #[test]
    fn what_a_policy_changes_is_sent() {
        let request = Request::builder().header("a", "1").body(()).unwrap();
        let mut copy = RequestHead::copy(&request);
        copy.headers_mut().insert("b", HeaderValue::from_static("2"));
        copy.headers_mut().remove("a");
        let copy = copy.request(());
        assert_eq!(copy.headers().len(), 1);
        assert_eq!(copy.headers()["b"], "2");
    }

    #[test]
    fn debug_shows_no_header() {
        let request = Request::put("https://a/x").header("x-api-key", "s3cr3t").body(()).unwrap();
        assert_eq!(format!("{:?}", RequestHead::copy(&request)), "RequestHead { method: PUT, .. }");
    }
}
