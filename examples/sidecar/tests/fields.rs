//! What ends at the sidecar, and what passes.

mod support;

use http::{StatusCode, header};
use support::{Service, sidecar, world};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

// RFC 9110 section 7.6.1.
#[tokio::test]
async fn fields_of_one_connection_are_dropped_on_the_way_in() {
    let (service, _sidecar, mut client) = world().await;
    let fields = [
        ("connection", "keep-alive, X-Mine"),
        ("connection", "x-too"),
        ("keep-alive", "timeout=5"),
        ("proxy-connection", "keep-alive"),
        ("te", "trailers"),
        ("upgrade", "h2c"),
        ("expect", "100-continue"),
        ("x-mine", "1"),
        ("x-too", "1"),
        ("x-stays", "1"),
    ];
    assert_eq!(client.get_with("/", &fields).await.status, StatusCode::OK);
    let headers = &service.seen()[0].headers;
    for (name, _) in fields.iter().filter(|(name, _)| *name != "x-stays") {
        assert!(!headers.contains_key(*name), "{name}");
    }
    assert_eq!(headers["x-stays"], "1");
    assert_eq!(headers[header::VIA], "1.1 sidecar");
}

#[tokio::test]
async fn a_client_cannot_talk_the_token_away() {
    let (service, _sidecar, mut client) = world().await;
    assert_eq!(client.get_with("/", &[("connection", "authorization, host")]).await.status, StatusCode::OK);
    assert_eq!(service.seen()[0].headers[header::AUTHORIZATION], "Bearer token-1");
}

#[tokio::test]
async fn fields_of_one_connection_are_dropped_on_the_way_out() {
    let (service, _sidecar, mut client) = world().await;
    let fields = [
        ("connection", "X-Theirs"),
        ("keep-alive", "timeout=5"),
        ("proxy-authenticate", "Basic"),
        ("proxy-connection", "keep-alive"),
        ("upgrade", "h2c"),
        ("x-theirs", "1"),
    ];
    for (name, value) in fields {
        service.answers_with(name, value);
    }
    service.answers_with("x-stays", "1");
    let answer = client.get("/").await;
    for (name, _) in fields {
        assert!(!answer.headers.contains_key(name), "{name}");
    }
    assert_eq!((answer.status, &answer.headers["x-stays"]), (StatusCode::OK, &"1".parse().unwrap()));
}

// RFC 9112 section 6.3.
#[tokio::test]
async fn a_requests_body_has_one_length() {
    let (service, sidecar, _client) = world().await;
    let mut socket = TcpStream::connect(sidecar.host()).await.unwrap();
    let host = sidecar.host();
    let both = format!(
        "POST /echo HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n4\r\nsaid\r\n0\r\n\r\n"
    );
    socket.write_all(both.as_bytes()).await.unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.unwrap();
    assert!(answer.contains("said"), "{answer}");
    assert!(!service.seen()[0].headers.contains_key(header::CONTENT_LENGTH));
}

// RFC 9112 section 6.3.
#[tokio::test]
async fn an_answers_body_has_one_length() {
    let tokens = Service::start().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let upstream = format!("http://{}", listener.local_addr().unwrap());
    let sidecar = sidecar(&tokens, &["--upstream", &upstream]).await;
    let answering = tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        let mut request = [0; 4096];
        assert_ne!(socket.read(&mut request).await.unwrap(), 0);
        let both = "HTTP/1.1 200 OK\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n4\r\nsaid\r\n0\r\n\r\n";
        socket.write_all(both.as_bytes()).await.unwrap();
        socket
    });
    let answer = sidecar.client().await.get("/").await;
    assert_eq!(answer.text(), "said");
    assert!(!answer.headers.contains_key(header::CONTENT_LENGTH));
    answering.await.unwrap();
}

#[tokio::test]
async fn a_redirect_to_the_upstream_leads_to_the_sidecar_and_is_not_followed() {
    let (service, sidecar, mut client) = world().await;
    service.answers_with("location", &format!("{}/jobs/2?a=b#c", service.url()));
    let answer = client.get("/moved").await;
    assert_eq!(answer.status, StatusCode::FOUND);
    assert_eq!(answer.headers[header::LOCATION], format!("{}/jobs/2?a=b#c", sidecar.address));
    let port = sidecar.host().rsplit_once(':').unwrap().1;
    let named = client.get_with("/moved", &[("host", &format!("localhost:{port}"))]).await;
    assert_eq!(
        named.headers[header::LOCATION],
        format!("http://localhost:{port}/jobs/2?a=b#c"),
        "by the client's name for it"
    );
    assert_eq!(service.seen().len(), 2, "nobody followed it");
}

#[tokio::test]
async fn a_redirect_to_elsewhere_is_the_clients_to_follow() {
    let (service, _sidecar, mut client) = world().await;
    service.answers_with("location", "https://elsewhere.example/jobs/2");
    let answer = client.get("/moved").await;
    assert_eq!(answer.status, StatusCode::FOUND);
    assert_eq!(answer.headers[header::LOCATION], "https://elsewhere.example/jobs/2");
}
