//! A reverse proxy on loopback that puts a fresh token on each request to one upstream: for programs in other languages.
//!
//! A request's way is [`proxy`]: [`gate`] says who may come in, [`fields`] which header fields end here, [`client`] carries the rest
//! with the token, [`upstream`] turns redirects back to us, [`upgrade`] copies WebSockets, [`health`] tells how the token fares.

mod answer;
mod client;
mod drain;
mod fields;
mod gate;
mod health;
mod listen;
mod options;
mod proxy;
mod upgrade;
mod upstream;

pub use options::{HELP, Options};

use bytes::Bytes;
use drain::{Drain, Work};
use fields::Fields;
use gate::Gate;
use http_body_util::combinators::BoxBody;
use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use listen::{Listener, Stream};
use proxy::Proxy;
use std::{convert::Infallible, fmt, pin::pin, sync::Arc, time::Duration};
use tokio::select;
use tower_jwt_refresh::{BoxError, TokenProvider};

type Body = BoxBody<Bytes, BoxError>;

/// A sidecar that listens, and serves once it [runs](Sidecar::run).
pub struct Sidecar {
    listener: Listener,
    proxy: Arc<Proxy>,
    patience: Duration,
}

impl Sidecar {
    /// Listens. Says what is wrong with the options, if anything is.
    pub async fn bind(options: &Options) -> Result<Self, BoxError> {
        let provider = client::provider(options).map_err(|error| format!("--token-url and its credential: {error}"))?;
        let client = client::client(options, provider.clone())?;
        let listener = Listener::bind(&options.listen).await?;
        if listener.port().is_some_and(|port| options.upstream.is_port_here(port)) {
            return Err(
                "--upstream is the address that this sidecar listens on: requests would go round for ever".into()
            );
        }
        let credentials = options.token_header.iter().chain(&options.credential_header).cloned();
        let proxy = Proxy {
            gate: Gate::new(listener.hosts(), options.browser_origins.clone()),
            fields: Fields::new(credentials, options.cookies),
            upstream: options.upstream.clone(),
            client,
            provider,
            drain: Arc::new(Drain::new()),
        };
        Ok(Self { listener, proxy: Arc::new(proxy), patience: options.drain })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> String {
        self.listener.name()
    }

    /// Serves until `stop`; then takes no new request, gives those under way their time, and a refresh too, whose rotated credential must not
    /// be lost.
    pub async fn run(self, stop: impl Future<Output = ()>) {
        let Self { listener, proxy, patience } = self;
        // A first token before anybody asks, and a loop that keeps it fresh. Failures are logged, and seen by those who ask.
        tokio::spawn(first_token(proxy.provider.clone()));
        let mut stop = pin!(stop);
        loop {
            select! {
                stream = listener.accept() => match stream {
                    Ok(stream) => drop(tokio::spawn(serve(stream, Arc::clone(&proxy), proxy.drain.begin()))),
                    // No file descriptors, mostly: they come back as connections end.
                    Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
                },
                () = &mut stop => break,
            }
        }
        drop(listener);
        proxy.drain.finish(patience).await;
        proxy.provider.shutdown().await;
    }
}

async fn first_token(provider: TokenProvider) {
    let _ = provider.init().await;
}

async fn serve(stream: Box<dyn Stream>, proxy: Arc<Proxy>, mut work: Work) {
    let service = service_fn(move |request| {
        let proxy = Arc::clone(&proxy);
        async move { Ok::<_, Infallible>(proxy.answer(request).await) }
    });
    let connection =
        http1::Builder::new().timer(TokioTimer::new()).serve_connection(TokioIo::new(stream), service).with_upgrades();
    let mut connection = pin!(connection);
    // An error is the client's doing or the upstream's, and both know of it.
    select! {
        _ = connection.as_mut() => return,
        () = work.draining() => connection.as_mut().graceful_shutdown(),
    }
    select! {
        _ = connection => {}
        () = work.over() => {}
    }
}

impl fmt::Debug for Sidecar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sidecar").field("address", &self.address()).finish_non_exhaustive()
    }
}
