//! reqwest with a fresh token on every request: the client itself as a tower service, and the same layer in `reqwest-middleware`.
//!
//! `cargo run --example reqwest_client`. Its service is on loopback, gives tokens that live for 2 s, and says which one it saw.

mod support;

use futures_util::future::try_join_all;
use http::HeaderName;
use reqwest::{Client, Method, Request};
use reqwest_middleware::ClientBuilder;
use tower::{Layer, ServiceExt};
use tower_jwt_refresh::{BoxError, JwtRefreshLayer, TokenProvider, source::Exchange};

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let server = support::serve(&["my-api-key"]).await?; // stands in for your service

    let source =
        Exchange::post(server.auth_url()).header(HeaderName::from_static("x-api-key"), "my-api-key").build()?;
    let provider = TokenProvider::new(source);
    provider.init().await?;
    let layer = JwtRefreshLayer::new(provider);

    println!("reqwest::Client under the layer, for longer than a token lives:");
    let client = layer.layer(Client::new());
    for second in 0..4 {
        let request = Request::new(Method::GET, server.api_url().parse()?);
        let response = client.clone().oneshot(request).await?;
        println!("  after {second} s: {}, the server saw {}", response.status(), response.text().await?);
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    }

    println!("reqwest-middleware over the same tokens, ten requests at once:");
    let client = ClientBuilder::new(Client::new()).with(layer).build();
    let answers = try_join_all((0..10).map(|_| client.get(server.api_url()).send())).await?;
    let accepted = answers.iter().filter(|answer| answer.status().is_success()).count();
    println!("  {accepted} of {} were accepted", answers.len());
    Ok(())
}
