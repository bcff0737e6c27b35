//! An API that wants a stronger login than the token stands for (RFC 9470): its challenge goes to the authorization server, and the same request is
//! sent again with the token that comes of it.
//!
//! `cargo run --example step_up`. Both servers are on loopback. Fails if a caller sees the refusal, or if one that did not opt in does not.

#[path = "support/authority.rs"]
mod authority;

use authority::Authority;
use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::Full;
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use tower::{Layer, ServiceExt};
use tower_jwt_refresh::{
    BoxError, JwtRefreshLayer, TokenProvider,
    source::oauth2::{ClientAuth, OAuth2, OAuth2Builder},
};

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let server = Authority::serve().await?; // stands in for yours
    let source = || OAuth2::client_credentials(server.api("/token"), ClientAuth::basic("my-service", "my-secret"));

    let deaf = send(&server, source(), "/private").await?;
    println!("without `answer_challenges`: {deaf}, {:?}", server.seen());
    let plain = send(&server, source().answer_challenges(), "/jobs").await?;
    println!("where none is asked for: {plain}, {:?}", server.seen());
    let before = server.seen();
    let stronger = send(&server, source().answer_challenges(), "/private").await?;
    println!("with it: {stronger}, {:?}", server.seen());

    let seen = server.seen();
    let answered = stronger == StatusCode::OK && seen.stronger_logins == 1 && seen.refusals == before.refusals + 1;
    if deaf != StatusCode::UNAUTHORIZED || plain != StatusCode::OK || before.stronger_logins != 0 || !answered {
        return Err("the challenge was not answered, or was where it should not be".into());
    }
    Ok(())
}

async fn send(server: &Authority, source: OAuth2Builder, path: &str) -> Result<StatusCode, BoxError> {
    let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
    let client = JwtRefreshLayer::new(TokenProvider::new(source.build()?)).layer(client);
    let request = Request::get(server.api(path)).body(Full::default())?;
    Ok(client.oneshot(request).await?.status())
}
