//! The HTTP client: a connection for each exchange, TLS by rustls with ring.

use crate::{BoxError, ConfigError};
use bytes::Bytes;
use http::{Request, Response, Uri};
use http_body::Body;
use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};
use hyper_rustls::{ConfigBuilderExt, HttpsConnectorBuilder, MaybeHttpsStream};
use hyper_util::{
    client::legacy::{self, connect::HttpConnector},
    rt::TokioExecutor,
};
use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, pem::PemObject},
};
use std::{sync::Arc, time::Duration};
use tower::{
    Service, ServiceExt,
    timeout::{Timeout, error::Elapsed},
    util::BoxCloneSyncService,
};

type Connector = BoxCloneSyncService<Uri, MaybeHttpsStream<<HttpConnector as Service<Uri>>::Response>, BoxError>;

/// The HTTP client of a source, as a layer around it sees it: see [`ExchangeBuilder::layer`](crate::source::ExchangeBuilder::layer).
pub type EndpointClient = BoxCloneSyncService<Request<Full<Bytes>>, Response<UnsyncBoxBody<Bytes, BoxError>>, BoxError>;

pub(super) fn client(roots: Roots, connect_timeout: Duration) -> Result<EndpointClient, ConfigError> {
    let mut tcp = HttpConnector::new();
    // The connector around it knows both schemes.
    tcp.enforce_http(false);
    // Shared out among the addresses of a name, so that a dead first one leaves time for the second.
    tcp.set_connect_timeout(Some(connect_timeout));
    let https =
        HttpsConnectorBuilder::new().with_tls_config(roots.tls()?).https_or_http().enable_http1().wrap_connector(tcp);
    // Around the whole: the name's lookup and the handshake can hang as well.
    let bounded = Timeout::new(https, connect_timeout).map_err(move |error| match error.downcast::<Elapsed>() {
        Ok(_) => format!("no connection (name, TCP and TLS) within {connect_timeout:.1?}").into(),
        Err(error) => error,
    });
    // No idle connections: by the next exchange they would be dead, or belong to a runtime that is.
    let client = legacy::Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build(Connector::new(bounded));
    Ok(boxed(client))
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

/// Whom to trust.
pub(super) enum Roots {
    /// Nobody: no TLS will be spoken.
    Unused,
    System,
    Only(RootCertStore),
}

impl Roots {
    pub(super) fn only(pem: &[u8]) -> Result<RootCertStore, ConfigError> {
        let problem = "the root certificates are no PEM, or hold no certificate: pass the text that begins with `-----BEGIN CERTIFICATE-----`";
        let refuse = || ConfigError::RootCertificates { problem };
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(pem) {
            roots.add(certificate.map_err(|_| refuse())?).map_err(|_| refuse())?;
        }
        if roots.is_empty() { Err(refuse()) } else { Ok(roots) }
    }

    fn tls(self) -> Result<ClientConfig, ConfigError> {
        // By name: the process's default provider is the program's to choose, and two in one program have none.
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("ring supports rustls' default versions");
        let config = match self {
            Self::Unused => config.with_root_certificates(RootCertStore::empty()),
            Self::Only(roots) => config.with_root_certificates(roots),
            Self::System => config.with_native_roots().map_err(|_| ConfigError::RootCertificates {
                problem: "this system has no root certificates: install them (`ca-certificates`), or pass your own to `root_certificates`",
            })?,
        };
        Ok(config.with_no_client_auth())
    }
}
