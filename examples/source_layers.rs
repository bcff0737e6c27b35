//! Tower layers around the sources of two tenants: a timeout for each attempt, repeats of what timed out, and one limit for both.
//!
//! `cargo run --example source_layers`. Its service is on loopback, gives tokens that live for 2 s, and leaves one fetch of each tenant unanswered.

mod support;

use bytes::Bytes;
use http::{HeaderName, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use std::time::{Duration, Instant};
use support::Faults;
use tower::{
    Layer, ServiceBuilder, ServiceExt, limit::GlobalConcurrencyLimitLayer, retry::Policy, timeout::error::Elapsed,
};
use tower_jwt_refresh::{BoxError, JwtRefreshLayer, Token, TokenProvider, TokenRequest, source::Exchange};

/// An attempt that takes longer is given up, and made again so often.
const ATTEMPT: Duration = Duration::from_millis(500);
const REPEATS: u32 = 2;

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let keys = ["key-of-a", "key-of-b"];
    let server = support::serve(&keys).await?; // stands in for your service
    let now = Instant::now();
    server.plan(Faults { silent_from: now, down_from: now + Duration::from_secs(3600) });

    // From the outside in: no more than two fetches a second for each tenant, one at a time for all, repeats, and a budget for each attempt.
    let limit = GlobalConcurrencyLimitLayer::new(1);
    let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
    let mut clients = Vec::new();
    for key in keys {
        let exchange = Exchange::post(server.auth_url()).header(HeaderName::from_static("x-api-key"), key).build()?;
        let limited = ServiceBuilder::new().layer(&limit).retry(Repeats(REPEATS)).timeout(ATTEMPT).service(exchange);
        // The place in line is the clone's and goes with the call. In the provider's hands it would outlast a fetch that timed out in line, and keep the others out.
        let source = ServiceBuilder::new()
            .rate_limit(2, Duration::from_secs(1))
            .service_fn(move |request: TokenRequest| limited.clone().oneshot(request));
        let provider = TokenProvider::new(source);
        provider.init().await?;
        println!("{key}: its first token after {:.1?}", now.elapsed());
        clients.push((key, JwtRefreshLayer::new(provider).layer(client.clone())));
    }

    for step in 0..10 {
        for (key, client) in &clients {
            let request = Request::get(server.api_url()).body(Full::default())?;
            let response = client.clone().oneshot(request).await?;
            let (status, body) = (response.status(), response.into_body().collect().await?.to_bytes());
            println!("{key}: {status}, the server saw {}", String::from_utf8_lossy(&body));
            if status != StatusCode::OK {
                return Err(format!("{key} was answered {status} in step {step}").into());
            }
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    for key in keys {
        let unanswered = server.faced(key).unanswered;
        println!("{key}: {unanswered} fetch was never answered, and no request failed for it");
        if unanswered != 1 {
            return Err("one fetch of each was to be left unanswered".into());
        }
    }
    Ok(())
}

/// Repeats what timed out, and nothing else: a refused key does not get better.
#[derive(Clone)]
struct Repeats(u32);

impl Policy<TokenRequest, Token, BoxError> for Repeats {
    type Future = std::future::Ready<()>;

    fn retry(&mut self, _: &mut TokenRequest, outcome: &mut Result<Token, BoxError>) -> Option<Self::Future> {
        outcome.as_ref().err().filter(|error| error.is::<Elapsed>())?;
        self.0 = self.0.checked_sub(1)?;
        Some(std::future::ready(()))
    }

    fn clone_request(&mut self, request: &TokenRequest) -> Option<TokenRequest> {
        Some(request.clone())
    }
}
