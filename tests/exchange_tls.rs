//! Whom an exchange gives the credential to: a server that proves its name, and nobody else.

#[path = "support/exchange.rs"]
mod server;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use server::{Server, exchange_error, is_permanent, ok, once, printed};
use std::{sync::Arc, time::Duration};
use tokio_rustls::TlsAcceptor;
use tower_jwt_refresh::source::{EndpointError, Exchange, ExchangeBuilder};

struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::new([]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    /// A server whose certificate, of this authority, is for `name`.
    async fn server(&self, name: &str) -> Server {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new([name.to_owned()]).unwrap().signed_by(&key, &self.issuer).unwrap();
        let ring = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(ring)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![certificate.der().clone()],
                PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der())),
            )
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let (server, listener) = Server::listen().await;
        let this = server.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                if let Ok(stream) = acceptor.accept(stream).await {
                    this.serve_one(stream, &ok(r#"{"jwt":"t"}"#)).await;
                }
            }
        });
        server
    }
}

fn exchange(server: &Server) -> ExchangeBuilder {
    Exchange::post(format!("https://localhost:{}/token", server.port)).bearer("durable-s3cr3t")
}

#[tokio::test]
async fn a_server_of_a_private_authority_gets_the_credential() {
    let (authority, other) = (Authority::new("ours"), Authority::new("another"));
    let server = authority.server("localhost").await;
    assert_eq!(once(exchange(&server).root_certificates(&authority.pem)).await.unwrap().expose_secret(), "t");
    let both = exchange(&server).root_certificates(&authority.pem).root_certificates(&other.pem);
    assert_eq!(once(both).await.unwrap().expose_secret(), "t", "called again it adds to them");
    assert!(server.asked()[0].contains("\r\nauthorization: Bearer durable-s3cr3t\r\n"));
}

// Scenario 62.
#[tokio::test]
async fn a_server_that_does_not_prove_its_name_gets_nothing() {
    let (authority, other) = (Authority::new("ours"), Authority::new("another"));
    let (good, named_otherwise) = (authority.server("localhost").await, authority.server("example.com").await);
    for (server, source, why) in [
        (&good, exchange(&good), "UnknownIssuer"),
        (&good, exchange(&good).root_certificates(&other.pem), "UnknownIssuer"),
        (&named_otherwise, exchange(&named_otherwise).root_certificates(&authority.pem), "NotValidForName"),
    ] {
        let error = once(source).await.unwrap_err();
        let text = printed(&error);
        assert!(matches!(exchange_error(&error), EndpointError::Tls { .. }), "{text}");
        assert!(text.contains("root_certificates") && text.contains(why), "{text}");
        assert!(!is_permanent(&error), "a renewed certificate heals it");
        assert!(server.asked().is_empty());
    }
}

#[tokio::test]
async fn a_server_without_tls_gets_nothing() {
    let (server, listener) = Server::listen().await;
    tokio::spawn(async move {
        use tokio::io::AsyncWriteExt;
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
            let _ = stream.shutdown().await;
        }
    });
    let error = once(exchange(&server)).await.unwrap_err();
    assert!(matches!(exchange_error(&error), EndpointError::Tls { .. }), "{error:?}");
}

// The kernel connects, and then nobody answers the handshake.
#[tokio::test]
async fn a_handshake_that_hangs_ends_at_the_connect_timeout() {
    let (server, _listener) = Server::listen().await;
    let error = once(exchange(&server).connect_timeout(Duration::from_millis(50))).await.unwrap_err();
    assert!(matches!(exchange_error(&error), EndpointError::Connect { .. }), "{error:?}");
    assert!(printed(&error).contains("(name, TCP and TLS) within 50.0ms"), "{}", printed(&error));
    assert!(!is_permanent(&error));
}
