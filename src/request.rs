//! Requests that can be sent twice, and answers that can refuse a token.

use http::{Extensions, HeaderMap, Method, StatusCode, Uri, request::Parts};

use crate::Origin;

/// Where a request goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Target<'a> {
    /// The URI's scheme, if it has one.
    pub scheme: Option<&'a str>,
    /// The URI's host, if it has one; an IPv6 address in brackets.
    pub host: Option<&'a str>,
    /// The URI's port, if it names one.
    pub port: Option<u16>,
    /// The path, without the query.
    pub path: &'a str,
}

impl<'a> Target<'a> {
    /// Reads it from a URI.
    #[must_use]
    pub fn of_uri(uri: &'a Uri) -> Self {
        Self { scheme: uri.scheme_str(), host: uri.host(), port: uri.port_u16(), path: uri.path() }
    }

    /// The same for equal origins, and, with a method, for equal origin, method and path.
    pub(crate) fn key(&self, method: Option<&Method>) -> u64 {
        // FNV-1a: a few nanoseconds, and all that a collision does is that two resources share a wait.
        let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
        let mut add = |byte: u8| hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        for part in [self.scheme, self.host] {
            part.unwrap_or_default().bytes().for_each(|byte| add(byte.to_ascii_lowercase()));
            add(0);
        }
        let port = self.port.or_else(|| crate::scope::default_port(self.scheme.unwrap_or_default()));
        port.unwrap_or_default().to_be_bytes().into_iter().for_each(&mut add);
        if let Some(method) = method {
            method.as_str().bytes().for_each(&mut add);
            add(0);
            self.path.bytes().for_each(add);
        }
        hash
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
    type Head = Parts;

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

    fn copy_head(&mut self) -> Option<Parts> {
        let (mut parts, ()) = http::Request::new(()).into_parts();
        parts.method.clone_from(self.method());
        parts.uri.clone_from(self.uri());
        parts.version = self.version();
        parts.headers.clone_from(self.headers());
        parts.extensions.clone_from(self.extensions());
        Some(parts)
    }

    fn map_body(self, map: impl FnOnce(B) -> B) -> Self {
        self.map(map)
    }

    fn assemble(head: Parts, body: B) -> Self {
        Self::from_parts(head, body)
    }

    fn head_method(head: &Parts) -> &Method {
        &head.method
    }

    fn head_target(head: &Parts) -> Target<'_> {
        Target::of_uri(&head.uri)
    }

    fn head_headers_mut(head: &mut Parts) -> &mut HeaderMap {
        &mut head.headers
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
