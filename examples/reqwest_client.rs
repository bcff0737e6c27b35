//! reqwest under the layer, by itself and through reqwest-middleware: `cargo run --example reqwest_client`.
//!
//! The service's tokens live for 2 s, so over the 5 s of this run each client needs several, and sees none of it.

mod support;

use http::HeaderName;
use std::time::Duration;
use tower::{Service, ServiceBuilder, ServiceExt};
use tower_jwt_refresh::{BoxError, JwtRefreshLayer, TokenProvider, source::Exchange};

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let server = support::serve(&["my-api-key"]).await?; // stands in for your service

    let source =
        Exchange::post(server.auth_url()).header(HeaderName::from_static("x-api-key"), "my-api-key").build()?;
    let provider = TokenProvider::new(source);
    provider.init().await?;
    let layer = JwtRefreshLayer::new(provider);

    // `reqwest::Client` is a tower service of its own requests.
    let client = reqwest::Client::new();
    let mut plain = ServiceBuilder::new().layer(layer.clone()).service(client.clone());
    // And a client of reqwest-middleware takes the layer as a middleware, with the same token.
    let middleware = reqwest_middleware::ClientBuilder::new(client.clone()).with(layer).build();

    for second in 0..5 {
        let request = client.get(server.api_url()).build()?;
        let response = plain.ready().await?.call(request).await?;
        println!(
            "after {second} s, reqwest:            {}, the server saw {}",
            response.status(),
            response.text().await?
        );
        let response = middleware.get(server.api_url()).send().await?;
        println!(
            "after {second} s, reqwest-middleware: {}, the server saw {}",
            response.status(),
            response.text().await?
        );
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    Ok(())
}
