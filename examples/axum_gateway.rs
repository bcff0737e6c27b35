//! A gateway whose handlers share one layered client: `cargo run --example axum_gateway`.
//!
//! Callers hold no token; the gateway puts one on what it sends on, body and all. The service's tokens live for 2 s.

mod support;

use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    http::{HeaderName, StatusCode, Uri},
    response::{IntoResponse, Response},
    routing::any,
};
use http_body_util::BodyExt;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use std::time::Duration;
use tower::{ServiceBuilder, ServiceExt};
use tower_jwt_refresh::{BoxError, JwtRefresh, JwtRefreshLayer, TokenError, TokenProvider, source::Exchange};

#[derive(Clone)]
struct Gateway {
    client: JwtRefresh<Client<HttpConnector, Body>>,
    upstream: Uri,
}

/// One client for all handlers: a clone shares its connections and the token.
async fn forward(State(gateway): State<Gateway>, mut request: Request) -> Response {
    *request.uri_mut() = gateway.upstream;
    match gateway.client.oneshot(request).await {
        Ok(answer) => answer.into_response(),
        // The caller's fault it is not, and the reason is for the log.
        Err(error) if error.is::<TokenError>() => StatusCode::SERVICE_UNAVAILABLE.into_response(),
        Err(_) => StatusCode::BAD_GATEWAY.into_response(),
    }
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let server = support::serve(&["my-api-key"]).await?; // stands in for your service

    let source =
        Exchange::post(server.auth_url()).header(HeaderName::from_static("x-api-key"), "my-api-key").build()?;
    let provider = TokenProvider::new(source);
    provider.init().await?;
    let client = ServiceBuilder::new()
        .layer(JwtRefreshLayer::new(provider.clone()))
        .service(Client::builder(TokioExecutor::new()).build_http());
    let router =
        Router::new().route("/", any(forward)).with_state(Gateway { client, upstream: server.api_url().parse()? });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}/", listener.local_addr()?);
    tokio::spawn(async move { axum::serve(listener, router).await });

    let caller: Client<_, Body> = Client::builder(TokioExecutor::new()).build_http();
    for second in 0..5 {
        let answer = caller.get(url.parse()?).await?;
        let (status, body) = (answer.status(), answer.into_body().collect().await?.to_bytes());
        println!("after {second} s: {status}, the upstream saw {}", String::from_utf8_lossy(&body));
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    provider.shutdown().await;
    Ok(())
}
