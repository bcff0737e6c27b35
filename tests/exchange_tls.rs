//! Whom an exchange gives the credential to: a server that proves its name, and nobody else.

#[path = "support/authority.rs"]
mod authority;
#[path = "support/exchange.rs"]
mod server;

use authority::Authority;
use server::{Server, Step, exchange_error, is_permanent, ok, once, printed};
use std::time::Duration;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream},
    net::TcpStream,
};
use tower_jwt_refresh::source::{EndpointError, Exchange, ExchangeBuilder};

fn token() -> Vec<Step> {
    ok(r#"{"jwt":"t"}"#)
}

fn exchange(server: &Server) -> ExchangeBuilder {
    Exchange::post(format!("https://localhost:{}/token", server.port)).bearer("durable-s3cr3t")
}

#[tokio::test]
async fn a_server_of_a_private_authority_gets_the_credential() {
    let (authority, other) = (Authority::new("ours"), Authority::new("another"));
    let server = authority.server("localhost", token()).await;
    assert_eq!(once(exchange(&server).root_certificates(&authority.pem)).await.unwrap().expose_secret(), "t");
    let both = exchange(&server).root_certificates(&authority.pem).root_certificates(&other.pem);
    assert_eq!(once(both).await.unwrap().expose_secret(), "t", "called again it adds to them");
    assert!(server.asked()[0].contains("\r\nauthorization: Bearer durable-s3cr3t\r\n"));
}

// Scenario 62.
#[tokio::test]
async fn a_server_that_does_not_prove_its_name_gets_nothing() {
    let (authority, other) = (Authority::new("ours"), Authority::new("another"));
    let (good, named_otherwise) =
        (authority.server("localhost", token()).await, authority.server("example.com", token()).await);
    for (server, source, why) in [
        (&good, exchange(&good), "UnknownIssuer"),
        (&good, exchange(&good).root_certificates(&other.pem), "UnknownIssuer"),
        (&named_otherwise, exchange(&named_otherwise).root_certificates(&authority.pem), "NotValidForName"),
    ] {
        let error = once(source).await.unwrap_err();
        let text = printed(&error);
        assert!(matches!(exchange_error(&error), EndpointError::Tls { .. }), "{text}");
        assert!(text.contains("root_certificates") && text.contains(why), "{text}");
        assert!(!is_permanent(&error), "a renewed certificate heals it");
        assert!(server.asked().is_empty());
    }
}

#[tokio::test]
async fn a_server_without_tls_gets_nothing() {
    let (server, listener) = Server::listen().await;
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
            let _ = stream.shutdown().await;
        }
    });
    let error = once(exchange(&server)).await.unwrap_err();
    assert!(matches!(exchange_error(&error), EndpointError::Tls { .. }), "{error:?}");
}

// In TLS 1.3 the client's handshake is over before the server looks for its certificate.
#[tokio::test]
async fn that_nothing_was_sent_is_not_said_of_a_server_that_ends_tls_after_the_request() {
    let authority = Authority::new("ours");
    let request = "x".repeat(2_000);
    for (version, with_request) in [(&rustls::version::TLS12, 0), (&rustls::version::TLS13, request.len())] {
        let acceptor = authority.acceptor_for_known_clients("localhost", version);
        let (server, listener) = Server::listen().await;
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(acceptor.accept(late(stream, with_request)));
            }
        });
        let source = exchange(&server).root_certificates(&authority.pem).json(format!("{request:?}"));
        let error = once(source).await.unwrap_err();
        let text = printed(&error);
        let as_it_is = match exchange_error(&error) {
            EndpointError::Broken { .. } => with_request > 0 && text.contains("client certificate"),
            EndpointError::Tls { .. } => with_request == 0 && text.contains("nothing was sent"),
            _ => false,
        };
        assert!(as_it_is && text.contains("AlertReceived") && !is_permanent(&error), "{text}");
    }
}

/// What the client sends after its hello is held back until it is so many bytes.
fn late(stream: TcpStream, bytes: usize) -> DuplexStream {
    let (near, far) = tokio::io::duplex(1 << 16);
    let ((mut from_client, mut to_client), (mut from_server, mut to_server)) =
        (stream.into_split(), tokio::io::split(near));
    tokio::spawn(async move { tokio::io::copy(&mut from_server, &mut to_client).await.map(|_| to_client) });
    tokio::spawn(async move {
        let mut hello = vec![0; 5];
        from_client.read_exact(&mut hello).await?;
        hello.resize(5 + usize::from(u16::from_be_bytes([hello[3], hello[4]])), 0);
        from_client.read_exact(&mut hello[5..]).await?;
        to_server.write_all(&hello).await?;
        let mut held = vec![0; bytes];
        from_client.read_exact(&mut held).await?;
        to_server.write_all(&held).await?;
        // Until the client goes: a reset could overtake the server's last word.
        let gone = tokio::io::copy(&mut from_client, &mut to_server).await;
        tokio::io::copy(&mut from_client, &mut tokio::io::sink()).await.and(gone)
    });
    far
}

// The kernel connects, and then nobody answers the handshake.
#[tokio::test]
async fn a_handshake_that_hangs_ends_at_the_connect_timeout() {
    let (server, _listener) = Server::listen().await;
    let error = once(exchange(&server).connect_timeout(Duration::from_millis(50))).await.unwrap_err();
    assert!(matches!(exchange_error(&error), EndpointError::Connect { .. }), "{error:?}");
    assert!(printed(&error).contains("(name, TCP and TLS) within 50.0ms"), "{}", printed(&error));
    assert!(!is_permanent(&error));
}

// A connection that ends at each stage of the handshake: nothing was sent.
#[tokio::test]
async fn a_handshake_that_breaks_off_is_transient_and_sends_nothing() {
    for (read, reset) in [(0, false), (0, true), (5, true), (100, false)] {
        let (server, listener) = Server::listen().await;
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let _ = stream.read_exact(&mut vec![0; read]).await;
                if reset {
                    stream.set_zero_linger().unwrap();
                }
            }
        });
        let error = once(exchange(&server)).await.unwrap_err();
        assert!(matches!(exchange_error(&error), EndpointError::Connect { .. }), "{error:?}");
        assert!(!is_permanent(&error));
    }
}

// After the handshake the stages are those of a plain connection.
#[tokio::test]
async fn an_answer_that_breaks_off_under_tls_is_never_taken_for_a_whole_one() {
    let authority = Authority::new("ours");
    let until_close = "HTTP/1.1 200 OK\r\n\r\n{\"jwt\":\"t\"}";
    for sent in ["", "HTTP/1.1 20", "HTTP/1.1 200 OK\r\ncontent-length: 40\r\n\r\n{\"jwt\":", until_close] {
        for end in [Step::Reset, Step::Vanish] {
            let server = authority.server("localhost", vec![Step::Send(sent.into()), end]).await;
            let error = once(exchange(&server).root_certificates(&authority.pem)).await.unwrap_err();
            assert!(matches!(exchange_error(&error), EndpointError::Broken { .. }), "{sent:?}: {error:?}");
            assert_eq!(server.asked().len(), 1);
        }
    }
}
