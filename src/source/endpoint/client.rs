//! The HTTP client: a connection for each exchange, straight or through a proxy, TLS by rustls with ring.

use super::proxy::{Proxied, Proxies, Stream, straight};
use crate::BoxError;
use bytes::Bytes;
use http::{Request, Response, Uri, header};
use http_body::Body;
use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};
use hyper_util::{client::legacy, rt::TokioExecutor};
use rustls::ClientConfig;
use std::{sync::Arc, time::Duration};
use tokio::time::timeout;
use tower::{Service, ServiceExt, service_fn, util::BoxCloneSyncService};

/// The HTTP client of a source, as a layer around it sees it: see [`ExchangeBuilder::layer`](crate::source::ExchangeBuilder::layer).
pub type EndpointClient = BoxCloneSyncService<Request<Full<Bytes>>, Response<UnsyncBoxBody<Bytes, BoxError>>, BoxError>;

pub(super) fn client(tls: ClientConfig, proxies: Proxies, connect_timeout: Duration) -> EndpointClient {
    let proxies = Arc::new(proxies);
    let ways = Arc::clone(&proxies);
    let connector =
        service_fn(move |target: Uri| Box::pin(connect(target, Arc::clone(&ways), tls.clone(), connect_timeout)));
    // No idle connections: by the next exchange they would be dead, or belong to a runtime that is.
    let client = legacy::Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build(connector);
    boxed(client.map_request(move |mut request: Request<Full<Bytes>>| {
        if let Ok(Some(proxy)) = proxies.of(request.uri())
            && let Some(credential) = proxy.credential(request.uri()).cloned()
        {
            request.headers_mut().insert(header::PROXY_AUTHORIZATION, credential);
        }
        request
    }))
}

async fn connect(
    target: Uri,
    proxies: Arc<Proxies>,
    tls: ClientConfig,
    connect_timeout: Duration,
) -> Result<Stream, BoxError> {
    let proxy = proxies.of(&target)?;
    let connector = match proxy {
        Some(proxy) => proxy.connector(&target, tls, connect_timeout),
        None => straight(tls, connect_timeout),
    };
    // Around the whole: the name's lookup and the handshake can hang as well.
    timeout(connect_timeout, connector.oneshot(target)).await.unwrap_or_else(|_| {
        let error = format!("no connection (name, TCP and TLS) within {connect_timeout:.1?}").into();
        Err(match proxy {
            Some(proxy) => Proxied { proxy: proxy.name(), error }.into(),
            None => error,
        })
    })
}

/// Any client in the one form that the endpoint and its layers know.
pub(super) fn boxed<S, B>(client: S) -> EndpointClient
where
    S: Service<Request<Full<Bytes>>, Response = Response<B>, Error: Into<BoxError>, Future: Send + 'static>
        + Clone
        + Send
        + Sync
        + 'static,
    B: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    let unified = |response: Response<B>| response.map(|body| body.map_err(Into::into).boxed_unsync());
    EndpointClient::new(client.map_response(unified).map_err(Into::into))
}
