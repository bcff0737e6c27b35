//! hyper-util's client under the layer, over HTTP/1.1 and HTTP/2: streamed uploads, one of them refused half-way because its token was revoked.
//!
//! `cargo run --example hyper_client`. The server is on loopback, and its numbered tokens live until the next one is minted.

use axum::{
    Json, Router,
    extract::{Request, State},
    http::{StatusCode, header},
    routing::post,
};
use bytes::Bytes;
use futures_util::stream;
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody, combinators::UnsyncBoxBody};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};
use tower::{Service, ServiceBuilder, ServiceExt};
use tower_jwt_refresh::{BoxError, JwtRefreshLayer, TokenProvider, source::Exchange};

/// Any body in a box can be sent again: what the server had is recorded, up to 128 KiB, and what it had not is read on.
type Body = UnsyncBoxBody<Bytes, BoxError>;

/// The number of the newest token.
type Newest = Arc<AtomicU32>;

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}", listener.local_addr()?);
    let newest = Newest::default();
    let service = Router::new().route("/token", post(token)).route("/uploads", post(upload));
    let service = service.with_state(Arc::clone(&newest));
    tokio::spawn(async move { axum::serve(listener, service).await });

    let provider = TokenProvider::new(Exchange::post(format!("{url}/token")).bearer("my-api-key").build()?);
    for http2 in [false, true] {
        let client = Client::builder(TokioExecutor::new()).http2_only(http2).build_http::<Body>();
        let mut client = ServiceBuilder::new().layer(JwtRefreshLayer::new(provider.clone())).service(client);
        for revoked in [false, true] {
            if revoked {
                newest.fetch_add(1, Ordering::SeqCst);
                println!("        the token is revoked");
            }
            let request = http::Request::post(format!("{url}/uploads")).body(six_chunks())?;
            let response = client.ready().await?.call(request).await?;
            let (status, text) = (response.status(), response.into_body().collect().await?.to_bytes());
            println!("client: {status}, {}", String::from_utf8_lossy(&text));
        }
    }
    Ok(())
}

/// Made while it is sent, and so of unknown length.
fn six_chunks() -> Body {
    BodyExt::boxed_unsync(StreamBody::new(stream::unfold(0, |number| async move {
        tokio::time::sleep(Duration::from_millis(150)).await;
        (number < 6).then(|| (Ok(Frame::data(Bytes::from(format!("chunk {number}\n")))), number + 1))
    })))
}

async fn token(State(newest): State<Newest>) -> Json<serde_json::Value> {
    let number = newest.fetch_add(1, Ordering::SeqCst) + 1;
    println!("server: token {number} for the API key");
    Json(serde_json::json!({"access_token": number.to_string(), "expires_in": 3600}))
}

async fn upload(State(newest): State<Newest>, request: Request) -> (StatusCode, String) {
    let token = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let token = token.unwrap_or_default().replace("Bearer ", "token ");
    let (version, mut body, mut bytes) = (request.version(), request.into_body(), 0);
    while let Some(Ok(frame)) = body.frame().await {
        bytes += frame.data_ref().map_or(0, Bytes::len);
        if bytes > 20 && token != format!("token {}", newest.load(Ordering::SeqCst)) {
            println!("server: 401 to {token} after {bytes} bytes over {version:?}");
            return (StatusCode::UNAUTHORIZED, "Invalid JWT".into());
        }
    }
    (StatusCode::OK, format!("the server has all {bytes} bytes over {version:?}, with {token}"))
}
