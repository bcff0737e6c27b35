//! One request in.

use crate::{
    BoxError, NoToken, RetryPolicy, UseToken,
    body::{ByType, KeepBody},
    future::{ResponseFuture, Sender},
    layer::{Route, Way},
    policy::Attempt,
    request::ReplayRequest,
};
use std::{
    fmt,
    sync::Arc,
    task::{Context, Poll},
};
use tower::{Service, retry::Policy};

/// The service of a [`JwtRefreshLayer`](crate::JwtRefreshLayer).
///
/// Its error is [`BoxError`]: the inner service's own, a [`TokenError`](crate::TokenError) or a [`ScopeError`](crate::ScopeError), to be found by
/// `downcast_ref`.
///
/// # Readiness
/// `call` takes the instance of the inner service that was polled ready and leaves a clone. A request that has to wait for a
/// token first gives the readiness (a permit of `ConcurrencyLimit`, a place in a `Buffer`) back, and asks a fresh clone again when it has
/// the token. A service whose clone copies readiness (`Steer`), or that is no `Clone` (`Balance`, `RateLimit`), goes behind a `Buffer`.
pub struct JwtRefresh<S, P = RetryPolicy, K = ByType> {
    inner: S,
    policy: P,
    keep: K,
    way: Arc<Way>,
}

impl<S, P, K> JwtRefresh<S, P, K> {
    pub(crate) fn new(inner: S, policy: P, keep: K, way: Arc<Way>) -> Self {
        Self { inner, policy, keep, way }
    }
}

impl<S, P, K, R> Service<R> for JwtRefresh<S, P, K>
where
    S: Service<R> + Clone,
    S::Error: Into<BoxError>,
    R: ReplayRequest,
    P: Policy<Attempt<R>, S::Response, BoxError> + Clone,
    K: KeepBody<R::Body> + Clone,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = ResponseFuture<S, P, K, R>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, request: R) -> Self::Future {
        let marks = request.extensions();
        if marks.is_some_and(|marks| marks.get::<NoToken>().is_some())
            || request.headers().contains_key(self.way.placement.name())
        {
            return ResponseFuture::pass(self.inner.call(request));
        }
        match self.way.admits(&request) {
            Ok(true) => {}
            Ok(false) => return ResponseFuture::pass(self.inner.call(request)),
            Err(error) => {
                // Drops the readiness that nobody uses now: kept here, its permit would be missing elsewhere.
                self.inner = self.inner.clone();
                return ResponseFuture::fail(error.into());
            }
        }
        let tenant = marks.and_then(|marks| marks.get::<UseToken>()).map(|tenant| tenant.0.clone());
        let clone = self.inner.clone();
        let ready = std::mem::replace(&mut self.inner, clone);
        let route = Route { way: Arc::clone(&self.way), tenant };
        let sender = Sender::new(ready, self.policy.clone(), self.keep.clone(), Attempt::new(request, route));
        ResponseFuture::new(sender, &self.inner)
    }
}

impl<S: Clone, P: Clone, K: Clone> Clone for JwtRefresh<S, P, K> {
    fn clone(&self) -> Self {
        Self {
            inner: self.inner.clone(),
            policy: self.policy.clone(),
            keep: self.keep.clone(),
            way: Arc::clone(&self.way),
        }
    }
}

impl<S, P, K> fmt::Debug for JwtRefresh<S, P, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JwtRefresh").field("way", &self.way).finish_non_exhaustive()
    }
}
