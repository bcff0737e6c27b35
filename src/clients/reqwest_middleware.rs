//! The layer as a middleware of `reqwest-middleware`, whose clients are no tower services.

use crate::{Attempt, BoxError, JwtRefreshLayer, NoToken, ScopeError, TokenError, UseToken, body::KeepBody};
use async_trait::async_trait;
use http::Extensions;
use reqwest::{Body, Request, Response};
use reqwest_middleware::{Error, Middleware, Next};
use std::{
    future::Future,
    io,
    pin::Pin,
    task::{Context, Poll},
};
use tokio::sync::Mutex;
use tower::{Layer, Service, retry::Policy};

/// `ClientBuilder::new(client).with(JwtRefreshLayer::new(provider))`: the same layer, rules and policy as around a tower service.
///
/// [`UseToken`] and [`NoToken`] are read from the request's extensions (`RequestBuilder::with_extension`). A
/// [`TokenError`] or [`ScopeError`] comes as `reqwest_middleware::Error::Middleware`, and is found by downcast.
///
/// Middlewares that were added before it see one request and its last answer, those after it each sending.
#[async_trait]
impl<P, K> Middleware for JwtRefreshLayer<P, K>
where
    P: Policy<Attempt<Request>, Response, BoxError> + Clone + Send + Sync + 'static,
    P::Future: Send,
    K: KeepBody<Option<Body>> + Clone + Send + Sync + 'static,
{
    async fn handle(&self, request: Request, extensions: &mut Extensions, next: Next<'_>) -> Result<Response, Error> {
        if extensions.get::<NoToken>().is_some() {
            return next.run(request, extensions).await;
        }
        let tenant = extensions.get::<UseToken>().map(|tenant| tenant.0.clone());
        let extensions = Mutex::new(extensions);
        let rest = Rest { next, extensions: &extensions };
        let answer = match tenant {
            Some(provider) => self.clone().with_provider(provider).layer(rest).call(request),
            None => self.layer(rest).call(request),
        };
        answer.await.map_err(error)
    }
}

/// The middlewares below, as a service. Always ready.
#[derive(Clone)]
struct Rest<'a, 'e> {
    next: Next<'a>,
    // One sending at a time, so nobody ever waits for it.
    extensions: &'a Mutex<&'e mut Extensions>,
}

impl<'a> Service<Request> for Rest<'a, '_> {
    type Response = Response;
    type Error = Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response, Error>> + Send + 'a>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let Self { next, extensions } = self.clone();
        Box::pin(async move { next.run(request, *extensions.lock().await).await })
    }
}

/// Back to a type that its users can take apart.
fn error(error: BoxError) -> Error {
    error
        .downcast()
        .map(|error| *error)
        .or_else(|error| error.downcast::<TokenError>().map(|error| Error::middleware(*error)))
        .or_else(|error| error.downcast::<ScopeError>().map(|error| Error::middleware(*error)))
        .unwrap_or_else(|error| Error::middleware(io::Error::other(error)))
}
