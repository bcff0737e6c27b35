//! A client for an endpoint that names others, as an issuer names its token endpoint: the way to each is found when it is asked.

use super::{Settings, Way};
use crate::{
    BoxError, ConfigError,
    source::endpoint::{
        Endpoint,
        client::{EndpointClient, client},
        proxy::Proxy,
        roots::Roots,
    },
};
use bytes::Bytes;
use http::{Request, Uri, uri::Scheme};
use http_body_util::Full;
use rustls::ClientConfig;
use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};
use tower::{Service, ServiceExt};

impl Settings {
    /// Like [`build`](Settings::build), with a client that serves others too.
    pub(in crate::source) fn build_for_others(self) -> Result<Endpoint, ConfigError> {
        if let Some(mistake) = self.mistake {
            return Err(mistake);
        }
        self.url.is_safe(self.plaintext)?;
        self.way.proxy(&self.url.uri, &|name| std::env::var_os(name))?;
        let tls = match self.roots {
            Some(roots) => Some(Roots::Only(roots).tls()?),
            None if is_tls(&self.url.uri) => Some(Roots::System.tls()?),
            // Perhaps nobody here speaks TLS, and reading the system's certificates takes long.
            None => None,
        };
        let means = Means { tls, way: self.way, connect_timeout: self.connect_timeout };
        let client = EndpointClient::new(ToWhom(Arc::new(means)));
        let client = self.layers.into_iter().rev().fold(client, |client, wrap| wrap(client));
        Ok(Endpoint { url: self.url, client, timeout: self.timeout, plaintext: self.plaintext })
    }
}

/// Makes a client for each request. That costs nothing worth keeping: none has connections to spare.
#[derive(Clone)]
struct ToWhom(Arc<Means>);

struct Means {
    /// None: read when it is needed.
    tls: Option<ClientConfig>,
    way: Way,
    connect_timeout: Duration,
}

impl Means {
    fn client(&self, endpoint: &Uri) -> Result<EndpointClient, ConfigError> {
        let proxy = self.way.proxy(endpoint, &|name| std::env::var_os(name))?;
        let tls = match &self.tls {
            Some(tls) => tls.clone(),
            None if is_tls(endpoint) || proxy.as_ref().is_some_and(Proxy::speaks_tls) => Roots::System.tls()?,
            None => Roots::Unused.tls()?,
        };
        Ok(client(tls, proxy, self.connect_timeout))
    }
}

fn is_tls(endpoint: &Uri) -> bool {
    endpoint.scheme() == Some(&Scheme::HTTPS)
}

impl Service<Request<Full<Bytes>>> for ToWhom {
    type Response = <EndpointClient as Service<Request<Full<Bytes>>>>::Response;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Full<Bytes>>) -> Self::Future {
        let client = self.0.client(request.uri());
        Box::pin(async move { client?.oneshot(request).await })
    }
}
