//! The HTTP client: a connection for each exchange, straight or through a proxy, TLS by rustls with ring.

use super::proxy::{Connector, Proxied, Proxy, straight};
use crate::BoxError;
use bytes::Bytes;
use http::{Request, Response, header};
use http_body::Body;
use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};
use hyper_util::{client::legacy, rt::TokioExecutor};
use rustls::ClientConfig;
use std::time::Duration;
use tower::{
    Service, ServiceExt,
    timeout::{Timeout, error::Elapsed},
    util::BoxCloneSyncService,
};

/// The HTTP client of a source, as a layer around it sees it: see [`ExchangeBuilder::layer`](crate::source::ExchangeBuilder::layer).
pub type EndpointClient = BoxCloneSyncService<Request<Full<Bytes>>, Response<UnsyncBoxBody<Bytes, BoxError>>, BoxError>;

pub(super) fn client(tls: ClientConfig, proxy: Option<Proxy>, connect_timeout: Duration) -> EndpointClient {
    let connector = match &proxy {
        Some(proxy) => proxy.connector(tls, connect_timeout),
        None => straight(tls, connect_timeout),
    };
    let by_proxy = proxy.as_ref().map(|proxy| proxy.name());
    // Around the whole: the name's lookup and the handshake can hang as well.
    let bounded = Timeout::new(connector, connect_timeout).map_err(move |error| {
        let error = match error.downcast::<Elapsed>() {
            Ok(_) => format!("no connection (name, TCP and TLS) within {connect_timeout:.1?}").into(),
            Err(error) => return error,
        };
        match &by_proxy {
            Some(proxy) => Proxied { proxy: proxy.clone(), error }.into(),
            None => error,
        }
    });
    // No idle connections: by the next exchange they would be dead, or belong to a runtime that is.
    let client = legacy::Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build(Connector::new(bounded));
    match proxy.and_then(Proxy::into_credential) {
        Some(credential) => boxed(client.map_request(move |mut request: Request<Full<Bytes>>| {
            request.headers_mut().insert(header::PROXY_AUTHORIZATION, credential.clone());
            request
        })),
        None => boxed(client),
    }
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
