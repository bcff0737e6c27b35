//! A GitHub App in two stages: a JWT that the app signs gets it the token of an installation, and that goes onto every request.
//!
//! `cargo run --example github_app`. Its GitHub is on loopback, judges as GitHub's documentation says, and lets installation tokens live for 3
//! to 4 s in place of an hour. Fails unless every request was accepted, the one after a revocation too.
//!
//! For the real one: `https://api.github.com` for `github.url`, the app's client id, the private key that its settings page gave you (it is PKCS#1
//! and goes in as it is), the installation's id, from a webhook or from `GET /repos/{owner}/{repo}/installation`, and a client with TLS. `installation`
//! stays as it is.

mod github;

use bytes::Bytes;
use github::{GitHub, INSTALLATION};
use http::{Request, Response, header};
use http_body_util::{BodyExt, Full};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use std::{error::Error, time::Duration};
use tower::{Service, ServiceBuilder, ServiceExt};
use tower_jwt_refresh::{
    BoxError, ConfigError, JwtRefreshLayer, TokenProvider,
    source::{Exchange, SignedJwt, SigningKey},
};

const CLIENT_ID: &str = "Iv23example";

/// The installation's token. The app's own JWT, which asks for it, has a provider of its own: two stages, two providers.
fn installation(github: &GitHub, id: u64, key: SigningKey) -> Result<TokenProvider, ConfigError> {
    // Five minutes, with `iat` a minute back: within GitHub's ten, and the clocks need not agree to the second.
    let app = TokenProvider::new(SignedJwt::new(key).issuer(CLIENT_ID));
    let source = Exchange::post(format!("{}/app/installations/{id}/access_tokens", github.url))
        .layer(JwtRefreshLayer::new(app))
        .build()?;
    Ok(TokenProvider::new(source))
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    // A key made for tests; the stand-in knows its public half.
    let key = SigningKey::from_pem(include_str!("../../tests/keys/rsa-pkcs1.pem"))?;
    let github = GitHub::serve(CLIENT_ID, include_str!("../../tests/keys/rsa-public.pem")).await?;

    let provider = installation(&github, INSTALLATION, key.clone())?;
    provider.init().await?;
    let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
    let mut client = ServiceBuilder::new().layer(JwtRefreshLayer::new(provider.clone())).service(client);
    let mut accepted = 0;
    for second in 0..6 {
        if second == 3 {
            // A new one is in hand for sure, and then somebody else gives it back (`DELETE /installation/token`).
            provider.refresh().await?;
            github.revoke_all();
            println!("revoked");
        }
        let request = Request::get(format!("{}/installation/repositories", github.url))
            .header(header::USER_AGENT, "github-app-example")
            .body(Full::default())?;
        let (status, body) = text(client.ready().await?.call(request).await?).await?;
        accepted += u32::from(status.is_success());
        println!("after {second} s: {status}, {body}");
        tokio::time::sleep(Duration::from_secs(1)).await;
    }

    // An installation that is gone, and an app whose key is not the one that GitHub knows: what the errors say.
    for (what, id, key) in [
        ("another installation", INSTALLATION + 1, key),
        ("another key", INSTALLATION, SigningKey::from_pem(github::another_key())?),
    ] {
        let error = installation(&github, id, key)?.token().await.err().ok_or(what)?;
        println!("{what}: {}", cause(&error));
    }

    let seen = github.seen();
    println!(
        "{accepted} of 6 accepted; GitHub gave {} tokens to the app, which showed {} JWT, and refused {} request for its revoked token",
        seen.tokens, seen.jwts, seen.refused
    );
    if accepted != 6 || seen.tokens < 3 || seen.jwts == 0 || seen.refused != 1 {
        return Err("not every request was accepted as it should be".into());
    }
    Ok(())
}

async fn text(response: Response<hyper::body::Incoming>) -> Result<(http::StatusCode, String), BoxError> {
    let (head, body) = response.into_parts();
    Ok((head.status, String::from_utf8_lossy(&body.collect().await?.to_bytes()).into_owned()))
}

/// The last of a chain of errors: what happened at the endpoint.
fn cause<'a>(mut error: &'a (dyn Error + 'static)) -> &'a (dyn Error + 'static) {
    while let Some(source) = error.source() {
        error = source;
    }
    error
}
