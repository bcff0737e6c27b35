//! What to copy: from a durable credential to answers, through a client that never sends a stale token.
//!
//! `cargo run --example minimal`. Its service is on loopback, gives tokens that live for 2 s, and says which one it saw.

mod support;

// README.md shows all that follows.
use bytes::Bytes;
use http::{HeaderName, Request};
use http_body_util::{BodyExt, Full};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use tower::{Service, ServiceBuilder, ServiceExt};
use tower_jwt_refresh::{BoxError, JwtRefreshLayer, TokenProvider, source::Exchange};

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let server = support::serve(&["my-api-key"]).await?; // stands in for your service

    let source =
        Exchange::post(server.auth_url()).header(HeaderName::from_static("x-api-key"), "my-api-key").build()?;
    let provider = TokenProvider::new(source);
    provider.init().await?;
    let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
    let mut client = ServiceBuilder::new().layer(JwtRefreshLayer::new(provider)).service(client);

    for second in 0..6 {
        let request = Request::get(server.api_url()).body(Full::default())?;
        let response = client.ready().await?.call(request).await?;
        let (status, body) = (response.status(), response.into_body().collect().await?.to_bytes());
        println!("after {second} s: {status}, the server saw {}", String::from_utf8_lossy(&body));
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    }
    Ok(())
}
