//! A token endpoint that refuses, breaks, hangs or lies: a clear error, asked again at the right time, and no secret in it.

#[path = "support/exchange.rs"]
mod server;
mod support;

use server::{Server, Step, answer, exchange, exchange_error, is_permanent, ok, once, printed, provider};
use std::time::Duration;
use support::{MINUTE, SECOND};
use tower_jwt_refresh::{TokenError, source::EndpointError};

const TINY: Duration = Duration::from_millis(50);

fn raw(text: &str) -> Vec<Step> {
    vec![Step::Send(text.as_bytes().to_vec())]
}

fn retry_in(error: &TokenError) -> Duration {
    match error {
        TokenError::Unavailable { retry_in, .. } | TokenError::NeedsCredential { retry_in, .. } => *retry_in,
        other => panic!("{other}"),
    }
}

// Scenario 62; ginlix-ai/LangAlpha#379.
#[tokio::test]
async fn retry_after_is_kept_to_as_seconds_and_as_a_date() {
    let seconds = "retry-after: 200\r\n";
    let date = "date: Sun, 06 Nov 1994 08:49:37 GMT\r\nretry-after: Sun, 06 Nov 1994 08:52:57 GMT\r\n";
    for status in ["429 Too Many Requests", "503 Service Unavailable", "403 Forbidden"] {
        for headers in [seconds, date] {
            let server = Server::new(move |_| answer(status, headers, "")).await;
            let error = once(exchange(&server)).await.unwrap_err();
            assert!(!is_permanent(&error), "{status}");
            assert_eq!(retry_in(&error), SECOND * 200, "{status}, {headers}");
        }
    }
}

// Scenario 99; golang/oauth2#805, apify/crawlee#4134.
#[tokio::test]
async fn a_redirect_is_not_followed_with_the_credential() {
    let target = Server::new(|_| ok(r#"{"jwt":"from elsewhere"}"#)).await;
    for status in
        ["301 Moved", "302 Found", "303 See Other", "307 Temporary Redirect", "308 Permanent Redirect", "304 x"]
    {
        let location = format!("location: {}\r\n", target.url());
        let server = Server::new(move |_| answer(status, &location, "")).await;
        let error = once(exchange(&server)).await.unwrap_err();
        assert!(matches!(exchange_error(&error), EndpointError::Redirected { .. }), "{error:?}");
        assert!(exchange_error(&error).to_string().contains("the credential is not sent there"));
        assert!(!is_permanent(&error), "a login page of a proxy goes by itself");
    }
    assert!(target.asked().is_empty());
}

// Scenario 62. Also for a body that does not say how long it is.
#[tokio::test]
async fn an_answer_of_ten_megabytes_is_given_up_at_one() {
    let whole = format!(r#"{{"jwt":"t","x":"{}"}}"#, "x".repeat(10 << 20));
    let chunked =
        format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{:x}\r\n{whole}\r\n0\r\n\r\n", whole.len());
    let until_close = format!("HTTP/1.1 200 OK\r\n\r\n{whole}");
    let announced = vec![Step::Send(b"HTTP/1.1 200 OK\r\ncontent-length: 10485760\r\n\r\n".to_vec()), Step::Hang];
    for steps in [ok(&whole), raw(&chunked), raw(&until_close), announced] {
        let server = Server::new(move |_| steps.clone()).await;
        let error = once(exchange(&server)).await.unwrap_err();
        assert!(matches!(exchange_error(&error), EndpointError::TooLarge { limit: 1_048_576, .. }), "{error:?}");
    }
    let most = format!(r#"{{"jwt":"t","x":"{}"}}"#, "x".repeat((1 << 20) - 18));
    assert_eq!(most.len(), 1 << 20);
    let server = Server::new(move |_| ok(&most)).await;
    assert_eq!(once(exchange(&server)).await.unwrap().expose_secret(), "t");
}

#[tokio::test]
async fn a_refusal_whose_body_never_comes_is_judged_by_its_status() {
    let steps = vec![Step::Send(b"HTTP/1.1 401 Unauthorized\r\ncontent-length: 9\r\n\r\n".to_vec()), Step::Hang];
    let server = Server::new(move |_| steps.clone()).await;
    let error = once(exchange(&server).timeout(TINY)).await.unwrap_err();
    assert!(is_permanent(&error), "{error:?}");
}

// Scenario 62.
#[tokio::test]
async fn a_refused_connection_is_transient_and_says_why() {
    let url = server::nobody().await;
    let error = once(tower_jwt_refresh::source::Exchange::post(&url)).await.unwrap_err();
    assert!(matches!(exchange_error(&error), EndpointError::Connect { .. }), "{error:?}");
    assert!(!is_permanent(&error));
    let text = printed(&error);
    assert!(text.contains(&url) && text.contains("ConnectionRefused"), "{text}");
}

// Scenario 65; zalando/tokens#10, camunda-community-hub/zeebe-client-node-js#244.
#[tokio::test]
async fn a_refused_credential_is_not_hammered_and_heals_when_it_is_repaired() {
    let server = Server::new(|count| match count {
        0 => answer("400 Bad Request", "", r#"{"error":"invalid_grant"}"#),
        _ => ok(r#"{"jwt":"t"}"#),
    })
    .await;
    let (provider, clock) = provider(exchange(&server));
    for _ in 0..100 {
        assert!(is_permanent(&provider.token().await.unwrap_err()));
    }
    assert_eq!(server.asked().len(), 1);
    clock.advance(MINUTE);
    assert_eq!(provider.token().await.unwrap().expose_secret(), "t");
}
