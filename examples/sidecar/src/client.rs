//! Where the token comes from, and the client that carries it.

use crate::{
    Body,
    options::Options,
    upstream::{Upstream, allows, plaintext},
};
use http::Uri;
use hyper_rustls::{ConfigBuilderExt, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{self, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, pem::PemObject},
};
use std::{sync::Arc, time::Duration};
use tower::Layer;
use tower_jwt_refresh::{
    BoxError, ConfigError, JwtRefresh, JwtRefreshLayer, Placement, TokenProvider, source::Exchange,
};

pub(crate) type Client = JwtRefresh<legacy::Client<HttpsConnector<HttpConnector>, Body>>;

pub(crate) fn provider(options: &Options) -> Result<TokenProvider, BoxError> {
    let mut exchange = Exchange::post(&options.token_url);
    exchange = match options.credential_header.clone() {
        Some(name) => exchange.header(name, options.credential.as_str()),
        None => exchange.bearer(options.credential.as_str()),
    };
    if let Some(pointer) = &options.token_at {
        exchange = exchange.token_at(pointer.as_str());
    }
    if let Some(pem) = &options.root_certificates {
        exchange = exchange.root_certificates(pem);
    }
    let host = options.token_url.parse::<Uri>().ok().and_then(|url| url.host().map(str::to_owned));
    if host.is_some_and(|host| allows(&options.plaintext_to, &host)) {
        exchange = exchange.allow_plaintext();
    }
    let source = exchange.build().map_err(|error| match error {
        ConfigError::PlaintextEndpoint { host } => plaintext(&host),
        error => error.to_string(),
    })?;
    Ok(TokenProvider::new(source))
}

pub(crate) fn client(options: &Options, provider: TokenProvider) -> Result<Client, BoxError> {
    let placement = options.token_header.clone().map_or_else(Placement::bearer, Placement::header);
    let layer = JwtRefreshLayer::new(provider)
        .place(placement)
        .allow_origin(options.upstream.origin().clone())
        // Of what is plaintext, `Upstream` takes this machine, and what is allowed by name.
        .allow_plaintext();
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp.set_connect_timeout(Some(Duration::from_secs(10)));
    // HTTP/1.1 alone: a WebSocket begins with it.
    let https = HttpsConnectorBuilder::new()
        .with_tls_config(tls(&options.upstream, options.root_certificates.as_deref())?)
        .https_or_http()
        .enable_http1()
        .wrap_connector(tcp);
    let client = legacy::Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(Duration::from_secs(30))
        .build(https);
    Ok(layer.layer(client))
}

fn tls(upstream: &Upstream, pem: Option<&[u8]>) -> Result<ClientConfig, BoxError> {
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?;
    let config = match pem {
        Some(pem) => {
            let mut roots = RootCertStore::empty();
            for certificate in CertificateDer::pem_slice_iter(pem) {
                roots.add(certificate?)?;
            }
            config.with_root_certificates(roots)
        }
        None if upstream.is_tls() => config.with_native_roots()?,
        None => config.with_root_certificates(RootCertStore::empty()),
    };
    Ok(config.with_no_client_auth())
}
