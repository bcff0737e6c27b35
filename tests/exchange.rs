//! A durable credential becomes a token: what is sent, what is read, how long it lives.

#[path = "support/exchange.rs"]
mod server;
mod support;

use http::HeaderName;
use server::{Server, Step, exchange, jwt, ok, once, provider};
use std::{sync::Arc, time::Duration};
use support::{Api, HOUR, MINUTE, SECOND, get};
use tokio::sync::Semaphore;
use tower::{Layer, Service, ServiceExt};
use tower_jwt_refresh::{
    JwtRefreshLayer, Placement, TokenProvider,
    clock::{Clock, ManualClock},
};

const X_API_KEY: HeaderName = HeaderName::from_static("x-api-key");

// Scenario 13.
#[tokio::test]
async fn an_api_key_is_exchanged_for_a_token_that_goes_raw_into_the_same_header() {
    let server = Server::new(|_| ok(r#"{"jwt": "short-lived"}"#)).await;
    let (provider, _) = provider(exchange(&server));
    let api = Api::new();
    let mut client = JwtRefreshLayer::new(provider).place(Placement::header(X_API_KEY)).layer(api.clone());
    let request = get("https://api.example.com/jobs/1");
    assert_eq!(client.ready().await.unwrap().call(request).await.unwrap().status(), 200);
    assert_eq!(api.seen()[0].headers["x-api-key"], "short-lived");
    assert_eq!(api.seen()[0].headers.get("authorization"), None);
}

#[tokio::test]
async fn the_request_is_an_empty_post_with_the_credential_in_its_header() {
    let server = Server::new(|_| ok(r#"{"jwt": "t"}"#)).await;
    once(exchange(&server)).await.unwrap();
    let request = server.asked().remove(0);
    assert!(request.starts_with("POST /api/v1/auth/token HTTP/1.1\r\n"), "{request}");
    for line in [
        "content-length: 0",
        "accept: application/json",
        concat!("user-agent: tower-jwt-refresh/", env!("CARGO_PKG_VERSION")),
        "x-api-key: durable-s3cr3t",
    ] {
        assert_eq!(request.lines().filter(|it| *it == line).count(), 1, "{line} in {request}");
    }
    // Some servers refuse an empty body that calls itself JSON.
    assert!(request.ends_with("\r\n\r\n") && !request.contains("content-type"), "{request}");
}

#[tokio::test]
async fn the_credential_goes_as_bearer_as_basic_or_in_a_json_body() {
    let server = Server::new(|_| ok(r#"{"data": {"key": "t"}}"#)).await;
    let post = || exchange(&server).token_at("/data/key");
    once(post().bearer("durable")).await.unwrap();
    once(post().basic("Aladdin", "open sesame")).await.unwrap();
    once(post().json(r#"{"api_key": "durable"}"#)).await.unwrap();
    let asked = server.asked();
    assert!(asked[0].contains("\r\nauthorization: Bearer durable\r\n"), "{}", asked[0]);
    assert!(asked[1].contains("\r\nauthorization: Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==\r\n"), "{}", asked[1]);
    assert!(asked[2].contains("\r\ncontent-type: application/json\r\n"), "{}", asked[2]);
    assert!(asked[2].contains("\r\ncontent-length: 22\r\n"), "{}", asked[2]);
    assert!(asked[2].ends_with("\r\n\r\n{\"api_key\": \"durable\"}"), "{}", asked[2]);
}

// Scenario 47.
#[tokio::test]
async fn expires_in_counts_from_the_asking_however_long_the_answer_takes() {
    let (permits, clock) = (Arc::new(Semaphore::new(0)), ManualClock::new());
    let wait = Arc::clone(&permits);
    let server =
        Server::new(move |_| [vec![Step::Wait(Arc::clone(&wait))], ok(r#"{"jwt":"t","expires_in":3600}"#)].concat())
            .await;
    let provider = TokenProvider::builder().clock(clock.clone()).build(exchange(&server).build().unwrap()).unwrap();
    let asked_at = clock.wall();
    let waiting = tokio::spawn({
        let provider = provider.clone();
        async move { provider.token().await }
    });
    while server.asked().is_empty() {
        tokio::task::yield_now().await;
    }
    clock.advance(SECOND * 8);
    permits.add_permits(1);
    let token = waiting.await.unwrap().unwrap();
    assert_eq!(token.expires_at(), Some(asked_at + HOUR));
}

/// What is left of a token whose server says that it has ten minutes, with our clock off by so much.
async fn left(ours_ahead: Duration, ours_behind: Duration, age: &str) -> Duration {
    let clock = ManualClock::new();
    let (theirs, age) = (clock.wall(), age.to_owned());
    clock.jump_wall_ahead(ours_ahead);
    clock.jump_wall_back(ours_behind);
    let body = format!(r#"{{"jwt":"{}"}}"#, jwt(theirs + MINUTE * 10));
    let date = httpdate::fmt_http_date(theirs);
    let server = Server::new(move |_| server::answer("200 OK", &format!("date: {date}\r\n{age}"), &body)).await;
    let provider = TokenProvider::builder().clock(clock.clone()).build(exchange(&server).build().unwrap()).unwrap();
    let token = provider.token().await.unwrap();
    token.expires_at().map_or(Duration::MAX, |at| at.duration_since(clock.wall()).unwrap())
}

// Scenario 44; googleapis/python-api-core#223.
#[tokio::test]
async fn with_a_date_the_expiry_is_right_though_our_clock_is_an_hour_off() {
    let none = Duration::ZERO;
    assert_eq!(left(HOUR, none, "").await, MINUTE * 10, "ahead");
    assert_eq!(left(none, HOUR, "").await, MINUTE * 10, "behind");
    assert_eq!(left(none, HOUR, "age: 0\r\n").await, MINUTE * 70, "the date of a cache's copy says nothing");
}

// Scenario 100; openclaw/openclaw#144082.
#[tokio::test]
async fn an_answer_without_a_lifetime_never_inherits_the_last_ones() {
    let server =
        Server::new(|count| ok(if count == 0 { r#"{"jwt":"t1","expires_in":60}"# } else { r#"{"jwt":"t2"}"# })).await;
    let (provider, clock) = provider(exchange(&server));
    assert!(provider.token().await.unwrap().expires_at().is_some());
    clock.advance(HOUR);
    let token = provider.token().await.unwrap();
    assert_eq!((token.expose_secret(), token.expires_at()), ("t2", None));
}

// Scenario 101; decocms/studio#6112, boto/botocore#3775.
#[tokio::test]
async fn an_absurd_lifetime_leads_neither_to_a_panic_nor_to_a_storm() {
    for lifetime in [
        r#""expires_in":null"#,
        r#""expires_in":-1"#,
        r#""expires_in":0"#,
        r#""expires_in":1e20"#,
        r#""expires_in":1e400"#,
        r#""expires_in":"NaN""#,
        r#""expires_in":3600000"#,
        r#""expires_at":"0001-01-01T00:00:00Z""#,
        r#""expires_at":"tomorrow""#,
        r#""expires_at":1e300"#,
    ] {
        let server = Server::new(move |_| ok(&format!(r#"{{"jwt":"t",{lifetime}}}"#))).await;
        let (provider, clock) = provider(exchange(&server));
        for _ in 0..100 {
            assert_eq!(provider.token().await.unwrap().expose_secret(), "t");
            clock.advance(MINUTE);
        }
        assert_eq!(server.asked().len(), 1, "{lifetime}");
    }
}

// Scenario 72.
#[tokio::test]
async fn nothing_of_an_exchange_is_left_when_it_is_over() {
    let server = Server::new(|_| {
        let head = "HTTP/1.1 200 OK\r\ncontent-length: 11\r\n\r\n";
        // The server would keep the connection open.
        vec![Step::Send(format!("{head}{{\"jwt\":\"t\"}}").into_bytes()), Step::Hang]
    })
    .await;
    let source = exchange(&server).build().unwrap();
    for _ in 0..20 {
        // The server serves one connection at a time: the next is served once this one was closed.
        TokenProvider::new(source.clone()).token().await.unwrap();
    }
    assert_eq!(server.asked().len(), 20);
}
