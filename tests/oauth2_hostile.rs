//! Whatever a token endpoint or an issuer does: a clear error, asked again at the right time, and no secret in it or in the log.
//!
//! One test in a file of its own: a thread without a subscriber would switch off the log's call sites for all.

#[path = "support/hostile.rs"]
mod hostile;
#[path = "support/oauth2.rs"]
mod oauth2;
#[path = "support/exchange.rs"]
mod server;
mod support;

use hostile::{Case, SECRET, Subject};
use oauth2::{asked, issuer, judging, metadata};
use server::{is_permanent, ok, printed};
use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};
use support::{Logs, MINUTE, SECOND};
use tower_jwt_refresh::source::oauth2::{ClientAuth, OAuth2, TokenEndpoint};

const GOOD: &str = r#"{"access_token":"t","token_type":"Bearer"}"#;

fn credentials(url: &str, timeout: Duration) -> OAuth2 {
    let auth = ClientAuth::basic("id", format!("durable-{SECRET}"));
    OAuth2::client_credentials(url, auth).timeout(timeout).build().unwrap()
}

fn refreshing(url: &str, timeout: Duration) -> OAuth2 {
    let auth = ClientAuth::post("id", format!("durable-{SECRET}"));
    let source = OAuth2::refresh_token(url, auth, format!("refresh-{SECRET}"));
    source.on_rotation(|_| async { Ok(()) }).timeout(timeout).build().unwrap()
}

/// The issuer does it with each of its documents, and is then well again.
async fn endure_as_issuer(case: &Case) {
    let Some(steps) = case.steps().map(<[_]>::to_vec) else { return };
    let documents = AtomicUsize::new(0);
    let server = judging(move |asked| match asked.is_token_request() {
        true => ok(GOOD),
        false if documents.fetch_add(1, Ordering::SeqCst) < 2 => steps.clone(),
        false => ok(&metadata(asked, "")),
    })
    .await;
    let auth = ClientAuth::basic("id", format!("durable-{SECRET}"));
    let source = OAuth2::client_credentials(TokenEndpoint::discover(issuer(&server)), auth);
    let (provider, clock) = oauth2::provider(source.timeout(if case.hangs() { SECOND / 20 } else { MINUTE }));
    let mut failures = 0;
    while let Err(error) = provider.token().await {
        let text = printed(&error);
        assert!(!text.contains(SECRET), "{}: {text}", case.name);
        assert!(text.contains(&issuer(&server)), "{}: {text}", case.name);
        assert!(!is_permanent(&error), "{}: no credential was refused: {text}", case.name);
        failures += 1;
        clock.advance(MINUTE * 5);
    }
    assert!((1..=2).contains(&failures), "{}: {failures}", case.name);
    let requests = asked(&server);
    assert!(requests.last().unwrap().is_token_request());
    assert!(requests.iter().all(|asked| asked.is_token_request() || asked.header("authorization").is_none()));
}

// Scenarios 62, 73, 61, 65, 101.
#[tokio::test]
async fn whatever_a_server_does_the_error_is_clear_holds_no_secret_and_the_source_heals() {
    let (logs, _guard) = Logs::listen();
    let cases = || hostile::table("access_token").into_iter().chain(hostile::absurd_lifetimes(GOOD));
    for make in [credentials, refreshing] {
        let subject = Subject { make: &make, good: GOOD };
        for case in cases() {
            hostile::endure(&case, &subject).await;
        }
    }
    for case in cases() {
        endure_as_issuer(&case).await;
    }
    assert!(logs.text().contains("flight over"), "the log was on");
    assert!(!logs.text().contains(SECRET), "{}", logs.text());
}
