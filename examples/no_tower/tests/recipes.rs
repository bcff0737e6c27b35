//! Each recipe against the real thing, as far as that is cheap: a database is not.

use futures_util::{SinkExt, StreamExt};
use http::{HeaderMap, header::AUTHORIZATION};
use no_tower_recipes::{closure, generated, object_store::Credentials, otlp, websocket};
use object_store::CredentialProvider;
use opentelemetry_sdk::trace::SpanExporter;
use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::net::TcpListener;
use tokio_tungstenite::{
    accept_hdr_async,
    tungstenite::{
        Message,
        handshake::server::{Request, Response},
    },
};
use tower::service_fn;
use tower_jwt_refresh::{BoxError, Token, TokenProvider, TokenRequest};

/// Tokens `t1`, `t2`, … that live so long.
fn provider(life: Duration) -> TokenProvider {
    let minted = AtomicUsize::new(0);
    let source = service_fn(move |_: TokenRequest| {
        let token = Token::opaque(format!("t{}", minted.fetch_add(1, Ordering::Relaxed) + 1));
        async move { Ok::<_, BoxError>(token?.with_expires_in(life)) }
    });
    TokenProvider::builder().min_interval(Duration::from_millis(10)).build(source).unwrap()
}

const HOUR: Duration = Duration::from_secs(3600);

#[tokio::test]
async fn an_exporter_sends_the_token_with_what_it_exports() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let record = Arc::clone(&seen);
    let collector = axum::Router::new().fallback(move |headers: HeaderMap| async move {
        record.lock().unwrap().push(headers[AUTHORIZATION].clone());
        [("content-type", "application/grpc"), ("grpc-status", "0")]
    });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, collector).await });

    let provider = provider(HOUR);
    provider.init().await.unwrap();
    let exporter = otlp::exporter(&url, provider).unwrap();
    // The collector's answer is no message, and so an error to the exporter: what it sent is what counts.
    drop(exporter.export(Vec::new()).await);
    assert!(seen.lock().unwrap().iter().all(|value| value == "Bearer t1"));
    assert!(!seen.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_generated_clients_hook_puts_the_token_on() {
    let mut headers = HeaderMap::new();
    generated::before_request(&mut headers, &provider(HOUR)).await.unwrap();
    assert_eq!(headers[AUTHORIZATION], "Bearer t1");
}

#[tokio::test]
async fn a_closure_is_called_again_with_the_next_token_when_the_first_is_refused() {
    let get = |token: Token| async move { if token.expose_secret() == "t1" { 401 } else { 200 } };
    assert_eq!(closure::job_status(&provider(HOUR), get).await.unwrap(), 200);
}

#[tokio::test]
async fn an_object_store_gets_the_token_as_its_credential() {
    let credential = Credentials(provider(HOUR)).get_credential().await.unwrap();
    assert_eq!(credential.bearer, "t1");
}

#[tokio::test]
async fn a_websocket_is_left_for_another_before_its_token_dies() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ws://{}", listener.local_addr().unwrap());
    let server = tokio::spawn(async move {
        let mut tokens = Vec::new();
        for connection in 0..2 {
            let (stream, _) = listener.accept().await.unwrap();
            #[allow(clippy::result_large_err, reason = "tungstenite's own type")]
            let look = |request: &Request, response: Response| {
                tokens.push(request.headers()[AUTHORIZATION].to_str().unwrap().to_owned());
                Ok(response)
            };
            let mut socket = accept_hdr_async(stream, look).await.unwrap();
            socket.send(Message::text(format!("hello {connection}"))).await.unwrap();
            if connection == 1 {
                socket.close(None).await.unwrap();
            }
            // Until the client leaves.
            while let Some(Ok(_)) = socket.next().await {}
        }
        tokens
    });
    let mut messages = Vec::new();
    let mut seen = |message: Message| {
        if let Message::Text(text) = message {
            messages.push(text.to_string());
        }
    };
    websocket::read(&url, &provider(Duration::from_secs(2)), &mut seen).await.unwrap();
    assert_eq!(messages, ["hello 0", "hello 1"]);
    let tokens = server.await.unwrap();
    assert!(tokens[0] != tokens[1], "{tokens:?}");
}
