//! Whom an endpoint's client trusts.

use crate::ConfigError;
use hyper_rustls::ConfigBuilderExt;
use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, pem::PemObject},
};
use std::sync::Arc;

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

    pub(super) fn tls(self) -> Result<ClientConfig, ConfigError> {
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
