//! User credentials, as `gcloud auth application-default login` leaves them, by their builder. It has no layer: this one asks the
//! credentials for each request's headers, as its documentation says to ("the credentials already cache the headers").

use crate::support::request::Req;
use google_cloud_auth::credentials::{CacheableResource, Credentials, user_account};
use http::Extensions;
use serde_json::json;
use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};
use tower::{BoxError, Layer, Service, layer::layer_fn};

pub async fn layer<S>(url: &str) -> Result<impl Layer<S, Service = WithCredentials<S>> + use<S>, BoxError> {
    let user =
        json!({"type": "authorized_user", "client_id": "bench", "client_secret": "secret", "refresh_token": "refresh"});
    let credentials = user_account::Builder::new(user).with_token_uri(url).build()?;
    credentials.headers(Extensions::new()).await?;
    Ok(layer_fn(move |inner| WithCredentials { inner, credentials: credentials.clone() }))
}

#[derive(Clone, Debug)]
pub struct WithCredentials<S> {
    inner: S,
    credentials: Credentials,
}

impl<S> Service<Req> for WithCredentials<S>
where
    S: Service<Req, Error: Into<BoxError>, Future: Send> + Clone + Send + 'static,
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
        let credentials = self.credentials.clone();
        Box::pin(async move {
            if let CacheableResource::New { data, .. } = credentials.headers(Extensions::new()).await? {
                request.headers_mut().extend(data);
            }
            inner.call(request).await.map_err(Into::into)
        })
    }
}
