//! What people write by hand: a cell with the token and its end, a boxed future, a header formatted for each request. They refresh when the token
//! is near its end, here never, so the refresh is left out.

use crate::{cf_gears, support::request::Req};
use http::{HeaderValue, header::AUTHORIZATION};
use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};
use tokio::sync::{Mutex, RwLock, watch};
use toolkit_auth::fetch_token;
use tower::{BoxError, Layer, Service, layer::layer_fn};

#[derive(Clone)]
pub struct Fetched {
    pub value: String,
    end: Instant,
}

pub async fn fetch(url: &str) -> Result<Fetched, BoxError> {
    let token = fetch_token(cf_gears::config(url)?).await?;
    Ok(Fetched { value: token.bearer.expose().to_owned(), end: Instant::now() + token.expires_in })
}

impl Fetched {
    fn header(&self) -> Result<HeaderValue, BoxError> {
        if self.end < Instant::now() + Duration::from_secs(60) {
            return Err("a refresh, which this bench never needs".into());
        }
        let mut value = HeaderValue::try_from(format!("Bearer {}", self.value))?;
        value.set_sensitive(true);
        Ok(value)
    }
}

/// Where the token is kept.
pub trait Cell: Clone + Send + 'static {
    fn header(&self) -> impl Future<Output = Result<HeaderValue, BoxError>> + Send;
}

impl Cell for Arc<RwLock<Fetched>> {
    async fn header(&self) -> Result<HeaderValue, BoxError> {
        self.read().await.header()
    }
}

impl Cell for Arc<Mutex<Fetched>> {
    async fn header(&self) -> Result<HeaderValue, BoxError> {
        self.lock().await.header()
    }
}

impl Cell for watch::Receiver<Fetched> {
    async fn header(&self) -> Result<HeaderValue, BoxError> {
        self.borrow().header()
    }
}

pub async fn rw_lock<S>(
    url: &str,
) -> Result<impl Layer<S, Service = ByHand<S, Arc<RwLock<Fetched>>>> + use<S>, BoxError> {
    Ok(layer(Arc::new(RwLock::new(fetch(url).await?))))
}

pub async fn mutex<S>(url: &str) -> Result<impl Layer<S, Service = ByHand<S, Arc<Mutex<Fetched>>>> + use<S>, BoxError> {
    Ok(layer(Arc::new(Mutex::new(fetch(url).await?))))
}

pub async fn watch<S>(
    url: &str,
) -> Result<impl Layer<S, Service = ByHand<S, watch::Receiver<Fetched>>> + use<S>, BoxError> {
    let (sender, receiver) = watch::channel(fetch(url).await?);
    // The task that refreshes.
    tokio::spawn(async move { sender.closed().await });
    Ok(layer(receiver))
}

fn layer<S, C: Cell>(cell: C) -> impl Layer<S, Service = ByHand<S, C>> {
    layer_fn(move |inner| ByHand { inner, cell: cell.clone() })
}

#[derive(Clone)]
pub struct ByHand<S, C> {
    inner: S,
    cell: C,
}

impl<S, C> Service<Req> for ByHand<S, C>
where
    S: Service<Req, Error: Into<BoxError>, Future: Send> + Clone + Send + 'static,
    C: Cell,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, mut request: Req) -> Self::Future {
        let clone = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, clone);
        let cell = self.cell.clone();
        Box::pin(async move {
            let value = cell.header().await?;
            request.headers_mut().insert(AUTHORIZATION, value);
            inner.call(request).await.map_err(Into::into)
        })
    }
}
