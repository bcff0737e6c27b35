//! Whatever an endpoint does: a clear error, no secret in it or in the log, and the next answer serves.
//!
//! One test in a file of its own: a thread without a subscriber would switch off the log's call sites for all.

#[path = "support/hostile.rs"]
mod hostile;
#[path = "support/proxy.rs"]
mod proxy;
#[path = "support/exchange.rs"]
mod server;
mod support;

use hostile::Subject;
use http::HeaderName;
use proxy::{Does, Proxy};
use support::Logs;
use tower_jwt_refresh::source::Exchange;

const GOOD: &str = r#"{"jwt":"t"}"#;

// Scenarios 62, 73, 61, 101; abraunegg/onedrive#3838, PelicanPlatform/pelican#2758.
#[tokio::test]
async fn whatever_an_endpoint_does_is_a_clear_error_that_holds_no_secret_in_any_form_nor_does_the_log() {
    let (logs, _guard) = Logs::listen();
    let make = |url: &str, timeout| {
        let source = Exchange::post(url).header(HeaderName::from_static("x-api-key"), "durable-s3cr3t");
        source.timeout(timeout).build().unwrap()
    };
    let subject = Subject { make: &make, good: GOOD };
    for case in hostile::table("jwt").iter().chain(&hostile::absurd_lifetimes(GOOD)) {
        hostile::endure(case, &subject).await;
    }
    let proxy = Proxy::new(Does::Says("HTTP/1.1 407 s3cr3t\r\n\r\n")).await;
    for url in ["https://api.example.test/", "http://api.example.test/"] {
        let source = Exchange::post(url).bearer("durable-s3cr3t").allow_plaintext();
        let source = source.proxy(format!("http://user:s3cr3t@127.0.0.1:{}", proxy.port));
        server::once(source).await.unwrap_err();
    }
    assert_eq!(proxy.heads().len(), 2);
    assert!(logs.text().contains("flight over"), "the log was on");
    assert!(!logs.text().contains(hostile::SECRET));
}
