//! Whatever an endpoint answers: a clear error, and no secret in it or in the log.
//!
//! One test in a file of its own: a thread without a subscriber would switch off the log's call sites for all.

#[path = "support/exchange.rs"]
mod server;
mod support;

use server::{Server, Step, answer, exchange, is_permanent, ok, once, printed};
use support::Logs;

fn raw(text: &str) -> Vec<Step> {
    vec![Step::Send(text.as_bytes().to_vec())]
}

/// What the endpoint does, what the error says, whether only a repair helps. Whatever it writes holds a secret.
fn refusals() -> Vec<(Vec<Step>, &'static str, bool)> {
    let json = |status, error: &str| {
        answer(status, "", &format!(r#"{{"error":"{error}","error_description":"echoes durable-s3cr3t"}}"#))
    };
    let text = |status| {
        answer(status, "www-authenticate: Bearer realm=\"echoes durable-s3cr3t\"\r\n", "echoes durable-s3cr3t")
    };
    vec![
        (json("400 Bad Request", "invalid_grant"), "(400 Bad Request, invalid_grant): replace or repair it", true),
        (json("401 durable-s3cr3t", "invalid_client"), "(401 Unauthorized, invalid_client)", true),
        (json("400 Bad Request", "durable-s3cr3t"), "answered 400 Bad Request: it does not understand", false),
        (text("401 Unauthorized"), "refuses the credential (401 Unauthorized)", true),
        (text("403 Forbidden"), "refuses the credential (403 Forbidden)", true),
        (text("404 Not Found"), "is this the URL of the token endpoint?", false),
        (text("429 Too Many Requests"), "asked again later", false),
        (text("500 Internal Server Error"), "it is in trouble", false),
        (json("503 Service Unavailable", "invalid_client"), "asked again later", false),
        (text("200 OK"), "is no JSON object", false),
        (ok(""), "is empty", false),
        (answer("204 No Content", "", ""), "is empty", false),
        (ok(r#"{"message":"durable-s3cr3t"}"#), "no token at `jwt`", false),
        (ok(r#"{"jwt":{"durable-s3cr3t":1}}"#), "something else than a string", false),
        (ok(r#"{"jwt":"durable-s3cr3t\r\nx-admin: 1"}"#), "of no use", false),
        (json("200 OK", "durable-s3cr3t"), "an error in spite of its status", false),
        (json("200 OK", "invalid_grant"), "an error in spite of its status (invalid_grant)", true),
        (raw("durable-s3cr3t\r\n\r\n"), "does not speak HTTP", false),
        (raw(""), "gave no whole answer: the connection broke", false),
        (
            raw("HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n{\"jwt\":\"durable-s3cr3t\""),
            "the connection broke",
            false,
        ),
        (raw("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\n{\"jwt"), "the connection broke", false),
        (raw("HTTP/1.1 401 Unauthorized\r\ncontent-length: 99\r\n\r\ndurable-s3cr3t"), "refuses the credential", true),
    ]
}

// Scenarios 62, 73, 61; abraunegg/onedrive#3838, PelicanPlatform/pelican#2758.
#[tokio::test]
async fn every_refusal_is_a_clear_error_that_holds_no_secret_in_any_form_nor_does_the_log() {
    let (logs, _guard) = Logs::listen();
    for (steps, says, permanent) in refusals() {
        let server = Server::new(move |_| steps.clone()).await;
        let error = once(exchange(&server)).await.unwrap_err();
        let text = printed(&error);
        assert!(text.contains(says) && text.contains(&server.url()), "{says} not in {text}");
        assert_eq!(is_permanent(&error), permanent, "{text}");
        assert!(!text.contains("s3cr3t"), "{text}");
        assert_eq!(server.asked().len(), 1, "no retry inside a flight: {text}");
    }
    assert!(logs.text().contains("flight over"), "the log was on");
    assert!(!logs.text().contains("s3cr3t"), "{}", logs.text());
}
