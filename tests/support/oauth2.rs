//! An authorization server on a real socket, and what a test asks of it.

#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]

use super::server::{Server, Step, answer, chain, ok};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use serde_json::Value;
use std::sync::{
    Arc, Mutex,
    atomic::{AtomicUsize, Ordering},
};
use tokio::sync::mpsc;
use tower_jwt_refresh::{
    BoxError, Token, TokenError, TokenProvider, TokenRequest,
    clock::ManualClock,
    source::oauth2::{ClientAuth, OAuth2, OAuth2Builder, OAuth2Error},
};

/// A request as the server saw it.
#[derive(Clone, Debug)]
pub struct Asked(String);

impl Asked {
    pub fn path(&self) -> &str {
        self.0.split(' ').nth(1).unwrap()
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        let head = self.0.split("\r\n\r\n").next().unwrap();
        head.lines()
            .skip(1)
            .filter_map(|line| line.split_once(": "))
            .find(|(key, _)| *key == name)
            .map(|(_, value)| value)
    }

    /// The form's pairs, in their order.
    pub fn form(&self) -> Vec<(String, String)> {
        let body = self.0.split_once("\r\n\r\n").unwrap().1;
        form_urlencoded::parse(body.as_bytes()).into_owned().collect()
    }

    pub fn param(&self, name: &str) -> Option<String> {
        let mut all = self.form().into_iter().filter(|(key, _)| key == name);
        let first = all.next().map(|(_, value)| value);
        assert_eq!(all.next(), None, "{name} twice");
        first
    }

    /// Where the server is, as the client wrote it.
    pub fn origin(&self) -> String {
        format!("http://{}", self.header("host").unwrap())
    }

    pub fn is_token_request(&self) -> bool {
        self.0.starts_with("POST ")
    }
}

pub fn asked(server: &Server) -> Vec<Asked> {
    server.asked().into_iter().map(Asked).collect()
}

/// The requests for tokens alone.
pub fn token_requests(server: &Server) -> Vec<Asked> {
    asked(server).into_iter().filter(Asked::is_token_request).collect()
}

/// A server that answers as `judge` says.
pub async fn judging(judge: impl Fn(&Asked) -> Vec<Step> + Send + Sync + 'static) -> Server {
    Server::judging(move |request| judge(&Asked(request.to_owned()))).await
}

/// One that publishes the usual metadata, by RFC 8414 alone, and answers each token request as `tokens` says.
pub async fn with_metadata(tokens: impl Fn(&Asked) -> Vec<Step> + Send + Sync + 'static) -> Server {
    judging(move |asked| match asked.path() {
        "/.well-known/oauth-authorization-server/tenant" => ok(&metadata(asked, "")),
        _ if asked.is_token_request() => tokens(asked),
        _ => answer("404 Not Found", "", ""),
    })
    .await
}

/// Metadata of the issuer `…/tenant` with its token endpoint at `/token`.
pub fn metadata(asked: &Asked, rest: &str) -> String {
    let origin = asked.origin();
    format!(r#"{{"issuer":"{origin}/tenant","token_endpoint":"{origin}/token"{rest}}}"#)
}

/// One whose n-th answer, from 1, has access token `t<n>` and refresh token `r<n + 1>`, and that takes each refresh token once.
pub async fn rotating() -> Server {
    let count = AtomicUsize::new(0);
    judging(move |asked| {
        let number = count.fetch_add(1, Ordering::SeqCst) + 1;
        if asked.param("refresh_token") != Some(format!("r{number}")) {
            return answer("400 Bad Request", "", r#"{"error":"invalid_grant"}"#);
        }
        let next = number + 1;
        ok(&format!(
            r#"{{"access_token":"t{number}","token_type":"Bearer","expires_in":3600,"refresh_token":"r{next}"}}"#
        ))
    })
    .await
}

pub fn issuer(server: &Server) -> String {
    format!("http://127.0.0.1:{}/tenant", server.port)
}

pub fn client_credentials(server: &Server) -> OAuth2Builder {
    OAuth2::client_credentials(server.url(), ClientAuth::basic("id", "durable-s3cr3t"))
}

pub fn refreshing(server: &Server) -> OAuth2Builder {
    OAuth2::refresh_token(server.url(), ClientAuth::public("id"), "r1")
}

/// A provider with clocks that stand still: time passes when the test says so.
pub fn provider_of(source: OAuth2) -> (TokenProvider, ManualClock) {
    let clock = ManualClock::new();
    (TokenProvider::builder().clock(clock.clone()).build(source).unwrap(), clock)
}

pub fn provider(source: OAuth2Builder) -> (TokenProvider, ManualClock) {
    provider_of(source.build().unwrap())
}

/// One fetch.
pub async fn once(source: OAuth2Builder) -> Result<Token, TokenError> {
    provider(source).0.token().await
}

pub fn oauth2_error(error: &TokenError) -> &OAuth2Error {
    chain(error).find_map(|error| error.downcast_ref()).expect("an error of OAuth")
}

/// What a JWT says, unverified.
pub fn claims(jwt: &str) -> Value {
    let payload = jwt.split('.').nth(1).unwrap();
    serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(payload).unwrap()).unwrap()
}

/// The refresh tokens that were shown, in their order.
pub fn shown(server: &Server) -> Vec<String> {
    asked(server).iter().map(|asked| asked.param("refresh_token").unwrap()).collect()
}

/// An answer with this refresh token.
pub fn with_refresh_token(refresh_token: &str) -> Vec<Step> {
    ok(&format!(r#"{{"access_token":"t","token_type":"Bearer","expires_in":3600,"refresh_token":"{refresh_token}"}}"#))
}

/// What a callback was given.
#[derive(Clone, Default)]
pub struct Kept(Arc<Mutex<Vec<String>>>);

impl Kept {
    pub fn put(&self, token: &str) {
        self.0.lock().unwrap().push(token.to_owned());
    }

    pub fn all(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }
}

/// What a provider asks a source.
pub async fn request() -> TokenRequest {
    let (send, mut receive) = mpsc::unbounded_channel();
    let source = tower::service_fn(move |request| {
        send.send(request).unwrap();
        async { Err::<_, BoxError>("captured".into()) }
    });
    assert!(TokenProvider::new(source).token().await.is_err());
    receive.recv().await.unwrap()
}
