//! `reqwest::Client` as it is, a `Service` of its own requests.

use crate::{
    BoxError, Origin, RejectableResponse, ReplayRequest,
    body::{ReplayBody, Split},
    request::Target,
};
use bytes::Bytes;
use http::{Extensions, HeaderMap, Method, StatusCode};
use http_body::Body as _;
use reqwest::{Body, Request, Response};
use std::{
    pin::Pin,
    task::{Context, Poll, Waker},
};

impl ReplayBody for Body {
    /// Bytes are shared, whatever their size, as by reqwest's own `try_clone`; a stream is recorded up to the limit while it is sent.
    fn split(mut self, limit: usize) -> Split<Self> {
        if self.as_bytes().is_none() {
            return Split::tee::<BoxError>(self, limit, Self::wrap, Into::into);
        }
        // In memory, so it is here at once and in one piece; reqwest has no other way to get at it without a copy.
        let bytes = match Pin::new(&mut self).poll_frame(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Some(Ok(frame))) => frame.into_data().unwrap_or_default(),
            _ => Bytes::new(),
        };
        Split::copied(bytes.clone().into(), bytes.into())
    }
}

impl ReplayRequest for Request {
    type Body = Option<Body>;
    type Head = Self;

    fn method(&self) -> &Method {
        self.method()
    }

    fn target(&self) -> Target<'_> {
        head_target(self)
    }

    fn headers(&self) -> &HeaderMap {
        self.headers()
    }

    fn headers_mut(&mut self) -> &mut HeaderMap {
        self.headers_mut()
    }

    /// None: reqwest shows them to nobody.
    fn extensions(&self) -> Option<&Extensions> {
        None
    }

    fn follows_redirects(&self) -> bool {
        true
    }

    fn copy_head(&mut self) -> Option<Self> {
        let body = self.body_mut().take();
        let head = self.try_clone();
        *self.body_mut() = body;
        head
    }

    fn map_body(mut self, map: impl FnOnce(Option<Body>) -> Option<Body>) -> Self {
        let body = map(self.body_mut().take());
        *self.body_mut() = body;
        self
    }

    fn assemble(mut head: Self, body: Option<Body>) -> Self {
        *head.body_mut() = body;
        head
    }

    fn head_method(head: &Self) -> &Method {
        head.method()
    }

    fn head_target(head: &Self) -> Target<'_> {
        head_target(head)
    }

    fn head_headers_mut(head: &mut Self) -> &mut HeaderMap {
        head.headers_mut()
    }
}

fn head_target(head: &Request) -> Target<'_> {
    let url = head.url();
    Target::new(Some(url.scheme()), url.host_str(), url.port(), url.path())
}

impl RejectableResponse for Response {
    fn status(&self) -> StatusCode {
        self.status()
    }

    fn headers(&self) -> &HeaderMap {
        self.headers()
    }

    fn answered_by(&self) -> Option<Origin> {
        let url = self.url();
        Some(Origin::of(url.scheme(), url.host_str()?, url.port()))
    }
}
