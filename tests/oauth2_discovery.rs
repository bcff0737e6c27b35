//! Where the token endpoint is, as the issuer says: found, and checked before anything is sent there.

#[path = "support/authority.rs"]
mod authority;
#[path = "support/oauth2.rs"]
mod oauth2;
#[path = "support/exchange.rs"]
mod server;
mod support;

use authority::Authority;
use oauth2::{Asked, asked, issuer, judging, metadata, oauth2_error, once, provider, token_requests, with_metadata};
use server::{Server, Step, answer, exchange_error, is_permanent, ok, printed};
use std::{path::Path, process::Command};
use support::{HOUR, SECOND};
use tower_jwt_refresh::source::{
    EndpointError,
    oauth2::{ClientAuth, OAuth2, OAuth2Builder, OAuth2Error, TokenEndpoint},
};

const RFC_8414: &str = "/.well-known/oauth-authorization-server/tenant";
const OPENID: &str = "/tenant/.well-known/openid-configuration";

fn token(_: &Asked) -> Vec<Step> {
    ok(r#"{"access_token":"t","expires_in":60}"#)
}

fn discovering(server: &Server) -> OAuth2Builder {
    OAuth2::client_credentials(TokenEndpoint::discover(issuer(server)), ClientAuth::basic("id", "durable-s3cr3t"))
}

fn paths(server: &Server) -> Vec<String> {
    asked(server).iter().map(|asked| asked.path().to_owned()).collect()
}

#[tokio::test]
async fn the_token_endpoint_is_where_the_issuers_metadata_says_and_is_asked_for_once() {
    let server = with_metadata(token).await;
    let (provider, clock) = provider(discovering(&server));
    for _ in 0..3 {
        assert_eq!(provider.token().await.unwrap().expose_secret(), "t");
        clock.advance(HOUR);
    }
    assert_eq!(paths(&server), [RFC_8414, "/token", "/token", "/token"]);
    let first = &asked(&server)[0];
    assert_eq!(
        (first.header("authorization"), first.is_token_request()),
        (None, false),
        "no credential is shown for it"
    );
    assert_eq!(first.header("accept"), Some("application/json"));
}

#[tokio::test]
async fn where_rfc_8414_finds_nothing_openid_may() {
    for nothing in [
        answer("404 Not Found", "", ""),
        answer("403 Forbidden", "", ""),
        answer("400 Bad Request", "", "{}"),
        answer("302 Found", "location: /login\r\n", ""),
        ok("<!doctype html><title>An app of one page</title>"),
        ok("{}"),
    ] {
        let server = judging(move |asked| match asked.path() {
            OPENID => ok(&metadata(asked, "")),
            RFC_8414 => nothing.clone(),
            _ => token(asked),
        })
        .await;
        once(discovering(&server)).await.unwrap();
        assert_eq!(paths(&server), [RFC_8414, OPENID, "/token"]);
    }
}

#[tokio::test]
async fn an_issuer_that_ends_in_a_slash_keeps_it_and_its_documents_do_not() {
    let server = judging(|asked| match asked.path() {
        "/.well-known/openid-configuration" => {
            let origin = asked.origin();
            ok(&format!(r#"{{"issuer":"{origin}/","token_endpoint":"{origin}/token"}}"#))
        }
        "/token" => token(asked),
        _ => answer("404 Not Found", "", ""),
    })
    .await;
    let place = TokenEndpoint::discover(format!("http://127.0.0.1:{}/", server.port));
    once(OAuth2::client_credentials(place, ClientAuth::none())).await.unwrap();
    let documents = ["/.well-known/oauth-authorization-server", "/.well-known/openid-configuration", "/token"];
    assert_eq!(paths(&server), documents);
}

#[tokio::test]
async fn an_issuer_in_trouble_is_not_passed_over_and_says_when_to_ask_again() {
    for status in ["503 Service Unavailable", "429 Too Many Requests", "403 Forbidden"] {
        let server = judging(move |_| answer(status, "retry-after: 200\r\n", "")).await;
        let error = once(discovering(&server)).await.unwrap_err();
        assert!(matches!(oauth2_error(&error), OAuth2Error::NoMetadata { .. }), "{error:?}");
        assert!(!is_permanent(&error));
        let waits =
            matches!(error, tower_jwt_refresh::TokenError::Unavailable { retry_in, .. } if retry_in == SECOND * 200);
        assert!(waits, "{error:?}");
        assert_eq!(paths(&server), [RFC_8414], "{status}");
    }
}

#[tokio::test]
async fn an_issuer_without_metadata_is_a_clear_error_and_never_permanent() {
    for (steps, says) in [
        (answer("404 Not Found", "", ""), "no metadata of the issuer"),
        (answer("401 Unauthorized", "", ""), "name the token endpoint itself"),
        (ok("<html>"), "no JSON object with an `issuer`"),
        (ok(r#"{"issuer":7}"#), "no JSON object with an `issuer`"),
        (ok(r#"{"issuer":"a","issuer":"b"}"#), "no JSON object with an `issuer`"),
    ] {
        let server = judging(move |_| steps.clone()).await;
        let error = once(discovering(&server)).await.unwrap_err();
        let text = printed(&error);
        assert!(text.contains(says) && text.contains(&issuer(&server)), "{text}");
        assert!(!is_permanent(&error), "{text}");
        assert!(token_requests(&server).is_empty());
    }
}

#[tokio::test]
async fn metadata_of_another_issuer_is_refused_for_good_and_both_are_named() {
    for said in ["https://evil.example.com", "HTTP://127.0.0.1", "", "\\u001b[31m\\nx"] {
        let server = judging(move |asked| {
            let origin = asked.origin();
            ok(&format!(r#"{{"issuer":"{said}","token_endpoint":"{origin}/token"}}"#))
        })
        .await;
        let error = once(discovering(&server)).await.unwrap_err();
        assert!(is_permanent(&error), "{said}");
        let text = oauth2_error(&error).to_string();
        assert!(matches!(oauth2_error(&error), OAuth2Error::OtherIssuer { .. }), "{error:?}");
        assert!(text.contains(&issuer(&server)) && !text.contains(char::is_control), "{text}");
        assert!(text.contains("evil") || !said.contains("evil"), "{text}");
        assert!(token_requests(&server).is_empty(), "no credential goes there");
    }
    let long = "x".repeat(100_000);
    let server = judging(move |_| ok(&format!(r#"{{"issuer":"{long}"}}"#))).await;
    let error = once(discovering(&server)).await.unwrap_err();
    assert!(oauth2_error(&error).to_string().len() < 600);
}

// The issuer but for its last slash: RFC 8414 section 3.3 wants both the same.
#[tokio::test]
async fn an_issuer_that_differs_by_a_slash_is_another() {
    let server = with_metadata(token).await;
    let place = TokenEndpoint::discover(format!("{}/", issuer(&server)));
    let error = once(OAuth2::client_credentials(place, ClientAuth::none())).await.unwrap_err();
    assert!(matches!(oauth2_error(&error), OAuth2Error::OtherIssuer { .. }), "{error:?}");
}

#[tokio::test]
async fn a_token_endpoint_that_no_credential_may_go_to_is_refused_for_good() {
    for (endpoint, says) in [
        (r#""http://login.example.com/token""#, "not sent to login.example.com in plaintext"),
        (r#""ftp://127.0.0.1/token""#, "no absolute http or https URL"),
        (r#""/token""#, "no absolute http or https URL"),
        (r#""https://a:s3cr3t@login.example.com/token""#, "has a user name"),
        ("7", "is not named"),
        ("null", "is not named"),
    ] {
        let server = judging(move |asked| {
            let origin = asked.origin();
            ok(&format!(r#"{{"issuer":"{origin}/tenant","token_endpoint":{endpoint}}}"#))
        })
        .await;
        let error = once(discovering(&server)).await.unwrap_err();
        let text = printed(&error);
        assert!(is_permanent(&error) && text.contains(says), "{text}");
        assert!(!text.contains("s3cr3t"), "{text}");
        assert!(matches!(oauth2_error(&error), OAuth2Error::NoTokenEndpoint { .. }), "{text}");
    }
}

#[tokio::test]
async fn a_refusal_names_the_way_to_authenticate_if_the_metadata_does_not_list_it() {
    let refusing = |rest: &'static str, refusal: &'static str| {
        judging(move |asked| match asked.path() {
            RFC_8414 => ok(&metadata(asked, rest)),
            _ => answer("401 Unauthorized", "", refusal),
        })
    };
    let others = r#","token_endpoint_auth_methods_supported":["private_key_jwt","client_secret_post"]"#;
    let client = r#"{"error":"invalid_client"}"#;
    let not_listed = async |rest, refusal| {
        let error = once(discovering(&refusing(rest, refusal).await)).await.unwrap_err();
        assert!(is_permanent(&error));
        assert!(matches!(exchange_error(&error), EndpointError::Refused { .. }), "in the chain in any case");
        printed(&error).contains("does not list `client_secret_basic`")
    };
    assert!(not_listed(others, client).await);
    assert!(not_listed(others, "").await);
    assert!(!not_listed(others, r#"{"error":"invalid_scope"}"#).await, "another reason");
    assert!(!not_listed("", client).await, "none listed: then basic is the way");
    assert!(!not_listed(r#","token_endpoint_auth_methods_supported":["client_secret_basic"]"#, client).await);
}

#[tokio::test]
async fn a_way_that_the_metadata_does_not_list_is_tried_all_the_same() {
    let rest = r#","token_endpoint_auth_methods_supported":["none"]"#;
    let server =
        judging(move |asked| if asked.path() == RFC_8414 { ok(&metadata(asked, rest)) } else { token(asked) }).await;
    once(discovering(&server)).await.unwrap();
}

#[tokio::test]
async fn the_time_for_a_fetch_is_for_the_discovery_too() {
    let server = judging(|_| vec![Step::Hang]).await;
    let error = once(discovering(&server).timeout(SECOND / 20)).await.unwrap_err();
    assert!(matches!(exchange_error(&error), EndpointError::TimedOut { .. }), "{error:?}");
    assert!(printed(&error).contains(RFC_8414), "the one that hangs is named");
    assert_eq!(paths(&server), [RFC_8414]);
}

#[tokio::test]
async fn many_providers_over_one_source_ask_the_issuer_once() {
    let server = with_metadata(token).await;
    let source = discovering(&server).build().unwrap();
    let waiting: Vec<_> = (0..8)
        .map(|_| {
            let provider = oauth2::provider_of(source.clone()).0;
            tokio::spawn(async move { provider.token().await.map(drop) })
        })
        .collect();
    for waiting in waiting {
        waiting.await.unwrap().unwrap();
    }
    assert_eq!(paths(&server).iter().filter(|path| *path == RFC_8414).count(), 1);
}

#[tokio::test]
async fn the_way_to_the_endpoint_that_was_found_is_its_own() {
    let proxy = Server::new(|_| ok(r#"{"access_token":"t"}"#)).await;
    let server = judging(|asked| {
        let origin = asked.origin();
        ok(&format!(r#"{{"issuer":"{origin}/tenant","token_endpoint":"http://login.example.test/token"}}"#))
    })
    .await;
    let source = discovering(&server).allow_plaintext().proxy(format!("http://127.0.0.1:{}", proxy.port));
    once(source).await.unwrap();
    assert_eq!(paths(&server), [RFC_8414], "this machine is asked without a proxy");
    assert_eq!(paths(&proxy), ["http://login.example.test/token"]);
}

#[tokio::test]
async fn layers_see_the_discovery_and_the_request_for_a_token() {
    let server = with_metadata(token).await;
    let layer = || {
        tower::util::MapRequestLayer::new(|mut request: http::Request<http_body_util::Full<bytes::Bytes>>| {
            request.headers_mut().insert("x-gateway", http::HeaderValue::from_static("key"));
            request
        })
    };
    once(discovering(&server).layer(layer())).await.unwrap();
    assert!(asked(&server).iter().all(|asked| asked.header("x-gateway") == Some("key")));
    assert_eq!(paths(&server), [RFC_8414, "/token"]);
}

/// An issuer without TLS whose endpoint has it, at `localhost`.
async fn naming(endpoint: &Server) -> Server {
    let port = endpoint.port;
    judging(move |asked| {
        let origin = asked.origin();
        ok(&format!(r#"{{"issuer":"{origin}/tenant","token_endpoint":"https://localhost:{port}/token"}}"#))
    })
    .await
}

#[tokio::test]
async fn an_endpoint_that_was_found_must_prove_its_name() {
    let authority = Authority::new("ours");
    for (name, proven) in [("localhost", true), ("other.example.com", false)] {
        let endpoint = authority.server(name, ok(r#"{"access_token":"t"}"#)).await;
        let issuer = naming(&endpoint).await;
        let token = once(discovering(&issuer).root_certificates(&authority.pem)).await;
        assert_eq!((token.is_ok(), endpoint.asked().len()), (proven, usize::from(proven)), "{name}");
        if let Err(error) = token {
            assert!(matches!(exchange_error(&error), EndpointError::Tls { .. }), "{error:?}");
        }
    }
}

const CHILD: &str = "DISCOVERY_IN_A_CHILD";

/// What a child process prints that asks this issuer, and whose system trusts the authorities in this file.
fn child(test: &str, issuer: &Server, roots: &Path) -> String {
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", test, "--nocapture"]).env(CHILD, oauth2::issuer(issuer));
    child.env("SSL_CERT_FILE", roots).env_remove("SSL_CERT_DIR");
    let output = tokio::task::block_in_place(|| child.output().unwrap());
    String::from_utf8(output.stdout).unwrap()
}

/// In that child process: asks, and says what came of it.
async fn is_child() -> bool {
    let Ok(issuer) = std::env::var(CHILD) else { return false };
    let place = TokenEndpoint::discover(issuer);
    let source = OAuth2::client_credentials(place, ClientAuth::basic("id", "durable-s3cr3t")).build();
    let token = match source {
        Ok(source) => oauth2::provider_of(source).0.token().await.map_err(|error| printed(&error)),
        Err(error) => Err(format!("not built: {error}")),
    };
    println!("{:?}", token.map(|token| token.expose_secret().to_owned()));
    true
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_endpoint_that_a_plaintext_issuer_names_is_trusted_as_the_system_trusts() {
    if is_child().await {
        return;
    }
    let authority = Authority::new("ours");
    let endpoint = authority.server("localhost", ok(r#"{"access_token":"t"}"#)).await;
    let issuer = naming(&endpoint).await;
    let roots = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(roots.path(), &authority.pem).unwrap();
    let said =
        child("an_endpoint_that_a_plaintext_issuer_names_is_trusted_as_the_system_trusts", &issuer, roots.path());
    assert!(said.contains("Ok(\"t\")"), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plaintext_issuer_needs_no_system_that_trusts_anybody() {
    if is_child().await {
        return;
    }
    let issuer = with_metadata(token).await;
    let nobody = tempfile::NamedTempFile::new().unwrap();
    let said = child("a_plaintext_issuer_needs_no_system_that_trusts_anybody", &issuer, nobody.path());
    assert!(said.contains("Ok(\"t\")"), "{said}");
}

#[tokio::test]
async fn the_first_discovery_leaves_half_of_the_time_for_the_token() {
    let server = judging(|_| vec![Step::Hang]).await;
    let error = once(discovering(&server).timeout(SECOND / 5)).await.unwrap_err();
    let EndpointError::TimedOut { after, .. } = exchange_error(&error) else { panic!("{error:?}") };
    assert!(*after <= SECOND / 10, "{after:?}");
}

#[tokio::test]
async fn where_rfc_8414_finds_another_issuer_openid_may_find_the_right_one() {
    let server = judging(|asked| match asked.path() {
        OPENID => ok(&metadata(asked, "")),
        RFC_8414 => ok(r#"{"issuer":"https://other.example.com"}"#),
        _ => token(asked),
    })
    .await;
    once(discovering(&server)).await.unwrap();
    assert_eq!(paths(&server), [RFC_8414, OPENID, "/token"]);
}

#[tokio::test]
async fn another_issuer_at_rfc_8414_is_what_is_told_where_openid_fails_as_well() {
    for other in [
        answer("404 Not Found", "", ""),
        answer("503 Service Unavailable", "", ""),
        ok("<html>"),
        ok(r#"{"issuer":"https://second.example.com"}"#),
    ] {
        let server = judging(move |asked| match asked.path() {
            RFC_8414 => ok(r#"{"issuer":"https://first.example.com"}"#),
            _ => other.clone(),
        })
        .await;
        let error = once(discovering(&server)).await.unwrap_err();
        let told = oauth2_error(&error);
        assert!(
            matches!(told, OAuth2Error::OtherIssuer { said, .. } if said == "https://first.example.com"),
            "{told:?}"
        );
        assert!(is_permanent(&error));
        assert_eq!(paths(&server), [RFC_8414, OPENID]);
    }
}
