//! An upstream over TLS: one that proves its name gets the token, and nobody else.

mod support;

use http::{StatusCode, header};
use std::{fs, path::PathBuf};
use support::{Service, sidecar};

/// A file that goes with the test.
struct Pem(PathBuf);

impl Pem {
    fn new(name: &str, text: &str) -> Self {
        let path = std::env::temp_dir().join(format!("sidecar-{name}-{}.pem", std::process::id()));
        fs::write(&path, text).unwrap();
        Self(path)
    }
}

impl Drop for Pem {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

#[tokio::test]
async fn an_upstream_of_a_private_authority_gets_the_token_over_tls() {
    let (service, certificate) = Service::start_tls().await;
    let pem = Pem::new("trusted", &certificate);
    let sidecar = sidecar(&service, &["--root-certificates", pem.0.to_str().unwrap()]).await;
    assert_eq!(sidecar.client().await.get("/").await.status, StatusCode::OK);
    assert_eq!(service.seen()[0].headers[header::AUTHORIZATION], "Bearer token-1");
}

#[tokio::test]
async fn an_upstream_that_does_not_prove_its_name_gets_nothing() {
    let (upstream, _) = Service::start_tls().await;
    let (_, another) = Service::start_tls().await;
    let pem = Pem::new("another", &another);
    let tokens = Service::start().await;
    let more = ["--upstream", &upstream.url(), "--root-certificates", pem.0.to_str().unwrap()];
    let sidecar = sidecar(&tokens, &more).await;
    let answer = sidecar.client().await.get("/").await;
    assert_eq!(answer.status, StatusCode::BAD_GATEWAY);
    assert!(answer.text().contains("invalid peer certificate"), "{}", answer.text());
    assert!(upstream.seen().is_empty());
}
