//! A sidecar, a service behind it, and a client before it, all on real sockets.

#![allow(dead_code, unused_imports, reason = "each test file uses its part")]

mod client;
mod service;

pub use client::{Answer, Client, body, empty, streamed};
pub use service::Service;

use sidecar::{Options, Sidecar};
use std::ffi::OsString;
use tokio::sync::oneshot;

pub const CREDENTIAL: &str = "durable-credential";

/// A sidecar in this process, before that service. It ends when this is dropped.
pub struct Running {
    pub address: String,
    _stop: oneshot::Sender<()>,
}

impl Running {
    /// Host and port.
    pub fn host(&self) -> &str {
        self.address.strip_prefix("http://").expect("it listens on TCP")
    }

    pub async fn client(&self) -> Client {
        Client::tcp(self.host()).await
    }
}

pub fn options(arguments: &[&str]) -> Result<Options, String> {
    let environment = |name: &str| (name == "SIDECAR_CREDENTIAL").then(|| CREDENTIAL.to_owned());
    Options::read(arguments.iter().map(OsString::from), environment)
        .map(|options| options.expect("no help was asked for"))
}

pub async fn sidecar(service: &Service, more: &[&str]) -> Running {
    let (upstream, token_url) = (service.url(), service.token_url());
    let mut arguments = vec!["--upstream", &upstream, "--token-url", &token_url, "--listen", "127.0.0.1:0"];
    arguments.extend(more);
    let sidecar = Sidecar::bind(&options(&arguments).unwrap()).await.unwrap();
    let address = sidecar.address();
    let (stop, stopped) = oneshot::channel();
    tokio::spawn(sidecar.run(async move { drop(stopped.await) }));
    Running { address, _stop: stop }
}

/// Both, and a connection.
pub async fn world() -> (Service, Running, Client) {
    let service = Service::start().await;
    let sidecar = sidecar(&service, &[]).await;
    let client = sidecar.client().await;
    (service, sidecar, client)
}
