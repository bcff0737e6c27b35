//! A WebSocket through the sidecar.

mod support;

use futures_util::{SinkExt, StreamExt};
use http::{StatusCode, header};
use support::{Client, Running, Service, sidecar, world};
use tokio::net::TcpStream;
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{Message, client::IntoClientRequest},
};

async fn websocket(sidecar: &Running) -> WebSocketStream<TcpStream> {
    let stream = TcpStream::connect(sidecar.host()).await.unwrap();
    let request = format!("ws://{}/ws", sidecar.host()).into_client_request().unwrap();
    client_async(request, stream).await.unwrap().0
}

#[tokio::test]
async fn a_websocket_passes_both_ways_with_the_token_on_its_handshake() {
    let (service, sidecar, _client) = world().await;
    let mut socket = websocket(&sidecar).await;
    let large = "x".repeat(1024 * 1024);
    for said in ["one", "two", &large] {
        socket.send(Message::text(said)).await.unwrap();
        assert_eq!(socket.next().await.unwrap().unwrap().into_text().unwrap(), said);
    }
    socket.close(None).await.unwrap();
    while socket.next().await.is_some_and(|next| next.is_ok()) {}
    assert_eq!(service.seen()[0].headers[header::AUTHORIZATION], "Bearer token-1");
}

#[tokio::test]
async fn a_refused_handshake_is_made_again_with_a_new_token() {
    let (service, sidecar, mut client) = world().await;
    client.get("/").await;
    service.revoke();
    let mut socket = websocket(&sidecar).await;
    socket.send(Message::text("hello")).await.unwrap();
    assert_eq!(socket.next().await.unwrap().unwrap(), Message::text("hello"));
    assert_eq!(service.seen()[1].headers[header::AUTHORIZATION], "Bearer token-2");
}

#[tokio::test]
async fn a_page_of_another_origin_gets_no_websocket() {
    let (service, sidecar, _client) = world().await;
    let stream = TcpStream::connect(sidecar.host()).await.unwrap();
    let mut request = format!("ws://{}/ws", sidecar.host()).into_client_request().unwrap();
    request.headers_mut().insert(header::ORIGIN, "https://evil.example".parse().unwrap());
    let error = client_async(request, stream).await.unwrap_err();
    assert!(error.to_string().contains("403"), "{error}");
    assert!(service.seen().is_empty());
}

#[tokio::test]
async fn no_other_protocol_is_switched_to() {
    let service = Service::start().await;
    let sidecar = sidecar(&service, &[]).await;
    let asked = [("connection", "upgrade"), ("upgrade", "h2c"), ("sec-websocket-key", "a")];
    let mut client = Client::tcp(sidecar.host()).await;
    // The service switches to what nobody asked it for any more.
    let answer = client.get_with("/ws", &asked).await;
    assert_eq!(answer.status, StatusCode::BAD_GATEWAY);
    assert!(!service.seen()[0].headers.contains_key(header::UPGRADE));
}
