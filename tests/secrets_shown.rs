//! No public type shows a token or a credential.

mod support;

use bytes::Bytes;
use http_body_util::{Empty, combinators::BoxBody};
use std::fmt::{Debug, Write};
use support::{Api, HOUR, MINUTE, builder, get};
use tower::{BoxError, Layer, Service, ServiceExt, service_fn};
use tower_jwt_refresh::{
    JwtRefreshLayer, NoToken, OnUnavailable, Origin, Placement, ReplayBody, ReplayRequest, RetryPolicy, SourceError,
    Token, TokenRequest, UseToken, body, clock, request,
};

fn holds_none(text: &str) {
    assert!(!text.contains("s3cr3t") && !text.contains("cr3dential"), "{text}");
}

// Scenario 61.
#[tokio::test(start_paused = true)]
async fn no_public_type_shows_a_secret() {
    let (builder, clock) = builder();
    let token = Token::opaque("s3cr3t").unwrap().with_expires_in(HOUR).with_refresh_after(MINUTE);
    let source = service_fn(|_: TokenRequest| async { Ok::<_, BoxError>(Token::opaque("s3cr3t")?) });
    let builder = builder.seed(token.clone());
    let mut shown = format!("{builder:#?}");
    let provider = builder.build(source).unwrap();
    let layer = JwtRefreshLayer::new(provider.clone()).allow_origin(Origin::parse("https://example.com").unwrap());
    let service = layer.clone().layer(Api::new());
    let call = service.clone().oneshot(get("https://example.com"));
    let pending = service.clone().ready().await.unwrap().call(get("https://example.com"));
    let split = Empty::<Bytes>::new().split(1);
    let tee = BoxBody::<Bytes, BoxError>::default().split(1);
    let uri = http::Uri::from_static("https://cr3dential@example.com/");
    let mut request = get("https://cr3dential@example.com");
    request.headers_mut().insert("cookie", "cr3dential".parse().unwrap());
    let all: [&dyn Debug; 24] = [
        &token,
        &token.generation(),
        &provider,
        &provider.subscribe(),
        &layer,
        &service,
        &call,
        &pending,
        &split,
        &tee,
        &Placement::bearer(),
        &Origin::parse("https://example.com").unwrap(),
        &OnUnavailable::Fail,
        &UseToken(provider.clone()),
        &NoToken,
        &SourceError::permanent("revoked"),
        &RetryPolicy::default(),
        &layer.clone().replay_none(),
        &layer.clone().replay_with(|body: &String| Some(body.clone())),
        &(body::ByType, body::Never),
        &clock,
        &clock::SystemClock,
        &request::Target::of_uri(&uri),
        &ReplayRequest::copy_head(&mut request).unwrap(),
    ];
    for one in all {
        write!(shown, "{one:?}\n{one:#?}\n").unwrap();
    }
    support::whole_run::print(&shown);
    holds_none(&shown);
}

// Scenario 61: an address with a password in it is a likely mistake, and its error a likely line in a log.
#[test]
fn an_origin_with_a_password_or_a_query_is_refused_without_quoting_them() {
    for bad in [
        "https://me:cr3dential@example.com",
        "https://example.com/?key=cr3dential",
        "https://cr3dential@",
        "https://a/b#cr3dential",
        "cr3dential@example.com/@",
    ] {
        let error = Origin::parse(bad).unwrap_err();
        holds_none(&format!("{error} {error:?}"));
        assert!(error.to_string().contains("https://api.example.com"), "it still says what to write: {error}");
    }
    let error = Origin::parse("https://example.com/path").unwrap_err();
    assert!(error.to_string().contains("https://example.com/path"), "what is no secret is quoted: {error}");
}
