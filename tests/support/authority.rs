//! A private certificate authority, and servers that it vouches for.
//!
//! Stands beside `support/exchange.rs`, which the test file names `server`.

#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]

use crate::server::{Server, Step};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, pem::PemObject},
    server::{WebPkiClientVerifier, danger::ClientCertVerifier},
};
use std::sync::Arc;
use tokio_rustls::TlsAcceptor;

pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub pem: String,
}

impl Authority {
    pub fn new(name: &str) -> Self {
        let mut params = CertificateParams::new([]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    /// A server whose certificate, of this authority, is for `name`.
    pub async fn server(&self, name: &str, steps: Vec<Step>) -> Server {
        let acceptor = self.acceptor(name);
        let (server, listener) = Server::listen().await;
        let this = server.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                if let Ok(stream) = acceptor.accept(stream).await {
                    this.serve_one(stream, &steps).await;
                }
            }
        });
        server
    }

    pub fn acceptor(&self, name: &str) -> TlsAcceptor {
        self.acceptor_with(name, WebPkiClientVerifier::no_client_auth(), rustls::ALL_VERSIONS)
    }

    /// Of a server that wants a certificate of this authority from its clients too.
    pub fn acceptor_for_known_clients(
        &self,
        name: &str,
        version: &'static rustls::SupportedProtocolVersion,
    ) -> TlsAcceptor {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.pem.as_bytes()).unwrap()).unwrap();
        let ring = Arc::new(rustls::crypto::ring::default_provider());
        let clients = WebPkiClientVerifier::builder_with_provider(roots.into(), ring).build().unwrap();
        self.acceptor_with(name, clients, &[version])
    }

    fn acceptor_with(
        &self,
        name: &str,
        clients: Arc<dyn ClientCertVerifier>,
        versions: &[&'static rustls::SupportedProtocolVersion],
    ) -> TlsAcceptor {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new([name.to_owned()]).unwrap().signed_by(&key, &self.issuer).unwrap();
        let ring = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(ring)
            .with_protocol_versions(versions)
            .unwrap()
            .with_client_cert_verifier(clients)
            .with_single_cert(
                vec![certificate.der().clone()],
                PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der())),
            )
            .unwrap();
        TlsAcceptor::from(Arc::new(config))
    }
}
