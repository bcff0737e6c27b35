//! Whom an endpoint's client trusts.

use crate::ConfigError;
use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, pem::PemObject},
};
use std::sync::{Arc, Mutex, PoisonError, Weak};

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
            Self::System => config.with_root_certificates(system()?),
        };
        Ok(config.with_no_client_auth())
    }
}

/// The system's, read anew, so that a source that is built again sees new ones; but kept once for all sources that trust the same: some 100 KB, and there may
/// be a source a tenant.
fn system() -> Result<Arc<RootCertStore>, ConfigError> {
    static SHARED: Mutex<Weak<RootCertStore>> = Mutex::new(Weak::new());

    let mut roots = RootCertStore::empty();
    // What cannot be read is left out: one odd certificate is no reason to trust none.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        return Err(ConfigError::RootCertificates {
            problem: "this system has no root certificates: install them (`ca-certificates`), or pass your own to `root_certificates`",
        });
    }
    let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(same) = shared.upgrade().filter(|shared| shared.roots == roots.roots) {
        return Ok(same);
    }
    let roots = Arc::new(roots);
    *shared = Arc::downgrade(&roots);
    Ok(roots)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_that_trust_the_system_share_its_roots() {
        let (one, other) = (system().unwrap(), system().unwrap());
        assert!(Arc::ptr_eq(&one, &other));
    }
}
