//! Over real sockets: what is special in HTTP goes through the layer as without it.

mod support;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Empty, Full};
use hyper::body::Incoming;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioIo},
};
use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{Arc, Mutex},
};
use support::Endpoint;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tower::{Layer, ServiceExt};
use tower_jwt_refresh::{JwtRefresh, JwtRefreshLayer, Token, TokenProvider, clock::ManualClock};

type Body = Empty<Bytes>;
/// Method and token of each request, in order.
type Seen = Arc<Mutex<Vec<(Method, String)>>>;

/// A client whose first token, `old`, every server here refuses. The second is `t1`.
fn client() -> JwtRefresh<Client<HttpConnector, Body>> {
    let old = Token::opaque("old").unwrap();
    let builder = TokenProvider::builder().clock(ManualClock::new()).seed(old);
    let provider = builder.build(Endpoint::hourly().source()).unwrap();
    JwtRefreshLayer::new(provider).layer(Client::builder(TokioExecutor::new()).build_http())
}

/// A server for real, that echoes on what was upgraded.
async fn server() -> (SocketAddr, Seen) {
    let seen = Seen::default();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let log = Arc::clone(&seen);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let log = Arc::clone(&log);
            let service = hyper::service::service_fn(move |request| answer(Arc::clone(&log), request));
            let connection = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
            tokio::spawn(connection.with_upgrades());
        }
    });
    (address, seen)
}

async fn answer(seen: Seen, mut request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let token = request.headers()[header::AUTHORIZATION].to_str().unwrap().replace("Bearer ", "");
    seen.lock().unwrap().push((request.method().clone(), token.clone()));
    let answer = Response::builder();
    let answer = if token == "old" {
        answer.status(401).body(Full::from("refused"))
    } else if request.method() == Method::CONNECT || request.headers().contains_key(header::UPGRADE) {
        let status = if request.method() == Method::CONNECT { 200 } else { 101 };
        tokio::spawn(async move {
            let mut upgraded = TokioIo::new(hyper::upgrade::on(&mut request).await.unwrap());
            let mut word = [0; 4];
            upgraded.read_exact(&mut word).await.unwrap();
            upgraded.write_all(&word).await.unwrap();
        });
        answer
            .status(status)
            .header(header::CONNECTION, "upgrade")
            .header(header::UPGRADE, "echo")
            .body(Full::default())
    } else {
        answer.header("x-page", "1").body(Full::from("hello"))
    };
    Ok(answer.unwrap())
}

fn both(method: Method) -> [(Method, String); 2] {
    [(method.clone(), "old".into()), (method, "t1".into())]
}

/// Speaks through what was a connection for HTTP, and hears itself.
async fn echoes(response: Response<Incoming>) {
    let mut upgraded = TokioIo::new(hyper::upgrade::on(response).await.unwrap());
    upgraded.write_all(b"ping").await.unwrap();
    let mut word = [0; 4];
    upgraded.read_exact(&mut word).await.unwrap();
    assert_eq!(&word, b"ping");
}

// Scenario 84.
#[tokio::test]
async fn a_head_request_stays_one_and_its_answer_has_headers_alone() {
    let (address, seen) = server().await;
    let request = Request::head(format!("http://{address}/")).body(Body::new()).unwrap();
    let response = client().oneshot(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(
        (&response.headers()["x-page"], &response.headers()["content-length"]),
        (&"1".parse().unwrap(), &"5".parse().unwrap())
    );
    assert!(response.into_body().collect().await.unwrap().to_bytes().is_empty());
    assert_eq!(*seen.lock().unwrap(), both(Method::HEAD));
}

// Scenario 84.
#[tokio::test]
async fn a_tunnel_is_opened_by_connect_after_a_refusal_too() {
    let (address, seen) = server().await;
    let request = Request::connect(format!("{address}")).body(Body::new()).unwrap();
    let response = client().oneshot(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    echoes(response).await;
    assert_eq!(*seen.lock().unwrap(), both(Method::CONNECT));
}

// Scenario 84.
#[tokio::test]
async fn a_protocol_is_switched_after_a_refusal_too() {
    let (address, seen) = server().await;
    let request = Request::get(format!("http://{address}/"))
        .header(header::CONNECTION, "upgrade")
        .header(header::UPGRADE, "echo")
        .body(Body::new())
        .unwrap();
    let response = client().oneshot(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
    echoes(response).await;
    assert_eq!(*seen.lock().unwrap(), both(Method::GET));
}

/// Reads one request's head, answers with this, and hangs up.
async fn say(stream: &mut TcpStream, answer: &str) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    stream.write_all(answer.as_bytes()).await.unwrap();
    String::from_utf8(head).unwrap()
}

// Scenario 84.
#[tokio::test]
async fn informational_answers_reach_who_asked_for_them_on_both_sends() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = tokio::spawn(async move {
        let mut heads = Vec::new();
        for answer in [
            "HTTP/1.1 103 Early Hints\r\nlink: a\r\n\r\nHTTP/1.1 401 Unauthorized\r\nconnection: close\r\ncontent-length: 0\r\n\r\n",
            "HTTP/1.1 103 Early Hints\r\nlink: b\r\n\r\nHTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok",
        ] {
            let (mut stream, _) = listener.accept().await.unwrap();
            heads.push(say(&mut stream, answer).await);
        }
        heads
    });
    let hints = Arc::new(Mutex::new(Vec::new()));
    let mut request = Request::get(format!("http://{address}/")).body(Body::new()).unwrap();
    let heard = Arc::clone(&hints);
    hyper::ext::on_informational(&mut request, move |answer| {
        heard.lock().unwrap().push((answer.status().as_u16(), answer.headers()["link"].clone()));
    });
    let response = client().oneshot(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "ok");
    let heads = server.await.unwrap();
    assert!(heads[0].contains("Bearer old") && heads[1].contains("Bearer t1"), "an early hint is no answer: {heads:?}");
    let hints: Vec<_> =
        hints.lock().unwrap().iter().map(|(status, link)| format!("{status} {}", link.to_str().unwrap())).collect();
    assert_eq!(hints, ["103 a", "103 b"]);
}
