//! Endpoints of other shapes than a POST that answers with JSON: what is sent to them, and where their token is found.

#[path = "support/exchange.rs"]
mod server;

use flate2::{Compression, write::GzEncoder};
use http::{HeaderName, Method};
use server::{Server, Step, answer, exchange_error, is_permanent, ok, once, printed, provider};
use std::{io::Write, time::Duration};
use tower_jwt_refresh::{
    clock::Clock,
    source::{EndpointError, Exchange},
};

const X_SUBJECT_TOKEN: HeaderName = HeaderName::from_static("x-subject-token");

#[tokio::test]
async fn a_get_carries_the_credential_and_neither_a_body_nor_its_length() {
    let server = Server::new(|_| ok(r#"{"token":"t"}"#)).await;
    once(Exchange::get(server.url()).bearer("durable")).await.unwrap();
    let request = server.asked().remove(0);
    assert!(request.starts_with("GET /api/v1/auth/token HTTP/1.1\r\n"), "{request}");
    assert!(request.contains("\r\nauthorization: Bearer durable\r\n"), "{request}");
    assert!(request.ends_with("\r\n\r\n") && !request.contains("content-"), "{request}");
}

// As cloud metadata services want it: the token is the whole answer.
#[tokio::test]
async fn a_put_gets_a_token_that_comes_in_a_header() {
    let server = Server::new(|_| answer("200 OK", "x-subject-token: Bearer t\r\n", "no JSON")).await;
    let source = Exchange::request(Method::PUT, server.url()).token_from_header(X_SUBJECT_TOKEN);
    assert_eq!(once(source).await.unwrap().expose_secret(), "t");
    let request = server.asked().remove(0);
    assert!(request.starts_with("PUT ") && request.contains("\r\ncontent-length: 0\r\n"), "{request}");
}

#[tokio::test]
async fn a_form_is_sent_as_one() {
    let server = Server::new(|_| ok(r#"{"access_token":"t"}"#)).await;
    let pairs = [("grant_type", "urn:x:apikey"), ("apikey", "a&b=c d")];
    once(Exchange::post(server.url()).json("{}").form(pairs)).await.unwrap();
    let request = server.asked().remove(0);
    let (head, body) = request.split_once("\r\n\r\n").unwrap();
    assert_eq!(body, "grant_type=urn%3Ax%3Aapikey&apikey=a%26b%3Dc+d");
    assert!(head.contains("\r\ncontent-type: application/x-www-form-urlencoded"), "{head}");
    assert_eq!(head.matches("content-type").count(), 1, "the last body counts: {head}");
}

// OpenStack's Keystone: 201, the token in a header, its end in the body.
#[tokio::test]
async fn a_token_in_a_header_ends_when_the_body_says() {
    let body = r#"{"token":{"methods":["password"],"expires_at":"2026-01-01T01:00:00.500000Z"}}"#;
    let server = Server::new(move |_| answer("201 Created", "x-subject-token: t\r\n", body)).await;
    let keystone = || Exchange::post(server.url()).token_from_header(X_SUBJECT_TOKEN);
    let (provider, clock) = provider(keystone().expiry_at("/token/expires_at"));
    let token = provider.token().await.unwrap();
    assert_eq!(token.expose_secret(), "t");
    assert_eq!(token.expires_at(), Some(clock.wall() + Duration::from_secs(3600)));
    assert_eq!(once(keystone()).await.unwrap().expires_at(), None, "not guessed at");
}

#[tokio::test]
async fn an_answer_without_the_header_says_which() {
    let server = Server::new(|_| ok(r#"{"token":"s3cr3t"}"#)).await;
    let error = once(Exchange::post(server.url()).token_from_header(X_SUBJECT_TOKEN)).await.unwrap_err();
    assert!(matches!(exchange_error(&error), EndpointError::Answer { .. }), "{error:?}");
    let text = printed(&error);
    assert!(text.contains("no token at the header `x-subject-token`") && !text.contains("s3cr3t"), "{text}");
}

fn packed(status: &str, body: &[u8]) -> Vec<Step> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(body).unwrap();
    let body = encoder.finish().unwrap();
    let head = format!("HTTP/1.1 {status}\r\ncontent-encoding: gzip\r\ncontent-length: {}\r\n\r\n", body.len());
    vec![Step::Send([head.into_bytes(), body].concat())]
}

#[tokio::test]
async fn a_packed_answer_is_asked_for_and_unpacked() {
    let server = Server::new(|_| packed("200 OK", br#"{"jwt":"t"}"#)).await;
    assert_eq!(once(Exchange::post(server.url())).await.unwrap().expose_secret(), "t");
    assert!(server.asked()[0].contains("\r\naccept-encoding: gzip, deflate\r\n"), "{}", server.asked()[0]);
    let server = Server::new(|_| packed("400 Bad Request", br#"{"error":"invalid_grant"}"#)).await;
    assert!(is_permanent(&once(Exchange::post(server.url())).await.unwrap_err()), "so is a refusal");
}

// Scenario 62.
#[tokio::test]
async fn an_answer_that_unpacks_to_ten_megabytes_is_given_up_at_one() {
    let bomb = format!(r#"{{"jwt":"t","x":"{}"}}"#, "x".repeat(10 << 20));
    let steps = packed("200 OK", bomb.as_bytes());
    let server = Server::new(move |_| steps.clone()).await;
    let error = once(Exchange::post(server.url())).await.unwrap_err();
    assert!(matches!(exchange_error(&error), EndpointError::TooLarge { limit: 1_048_576, .. }), "{error:?}");
}

#[tokio::test]
async fn an_answer_packed_in_another_way_says_so() {
    let server = Server::new(|_| answer("200 OK", "content-encoding: br\r\n", "s3cr3t")).await;
    let text = printed(&once(Exchange::post(server.url())).await.unwrap_err());
    assert!(text.contains("packed in another way than asked for") && !text.contains("s3cr3t"), "{text}");
}
