//! Tokens of an OAuth authorization server: by client credentials, with the server's token endpoint discovered, and by a refresh token that the
//! server replaces at each use, kept in a file over a restart.
//!
//! `cargo run --example oauth2`. Its server is on loopback; tokens live for 2 s, and a refresh token shown twice is counted. Fails if a
//! request was refused or a refresh token shown twice.

#[path = "support/authority.rs"]
mod authority;

use authority::Authority;
use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use std::{fs, io::Write, path::Path};
use tower::{Service, ServiceBuilder, ServiceExt};
use tower_jwt_refresh::{
    BoxError, JwtRefreshLayer, TokenProvider,
    source::oauth2::{ClientAuth, OAuth2, TokenEndpoint},
};

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let server = Authority::serve().await?; // stands in for yours
    let client = || ClientAuth::basic("my-service", "my-secret");

    println!("client credentials");
    let place = TokenEndpoint::discover(server.issuer());
    let source = OAuth2::client_credentials(place, client()).scope("jobs.read").build()?;
    work(&server, TokenProvider::new(source), 4).await?;

    // What a login left.
    let folder = tempfile::tempdir()?;
    let kept = folder.path().join("refresh-token");
    keep(&kept, &server.log_in())?;
    for run in ["refresh token", "refresh token, after a restart"] {
        println!("{run}");
        let place = TokenEndpoint::discover(server.issuer());
        let source = OAuth2::refresh_token(place, client(), std::fs::read_to_string(&kept)?)
            .on_rotation({
                let kept = kept.clone();
                move |new| {
                    let (kept, new) = (kept.clone(), new.to_owned());
                    async move { Ok(tokio::task::spawn_blocking(move || keep(&kept, &new)).await??) }
                }
            })
            .build()?;
        let provider = TokenProvider::new(source);
        work(&server, provider.clone(), 4).await?;
        // Waits for a fetch under way, so that its refresh token is kept.
        provider.shutdown().await;
    }
    let seen = server.seen();
    println!("{seen:?}");
    if seen.refusals + seen.spent > 0 || seen.discoveries != 3 || seen.tokens < 6 {
        return Err(
            "a refused request, a refresh token shown twice, or not the fetches that these lifetimes take".into()
        );
    }
    Ok(())
}

/// For its owner alone, and by rename, so that no crash leaves half a token.
fn keep(path: &Path, token: &str) -> std::io::Result<()> {
    let new = path.with_extension("new");
    let mut options = fs::OpenOptions::new();
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.write(true).create(true).truncate(true).open(&new)?;
    file.write_all(token.as_bytes())?;
    file.sync_all()?;
    fs::rename(new, path)
}

/// A request each second.
async fn work(server: &Authority, provider: TokenProvider, seconds: u32) -> Result<(), BoxError> {
    provider.init().await?;
    let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
    let mut client = ServiceBuilder::new().layer(JwtRefreshLayer::new(provider)).service(client);
    for second in 0..seconds {
        let request = Request::get(server.api("/jobs")).body(Full::default())?;
        let response = client.ready().await?.call(request).await?;
        let (status, body) = (response.status(), response.into_body().collect().await?.to_bytes());
        println!("  after {second} s: {status}, the server saw {}", String::from_utf8_lossy(&body));
        if !status.is_success() {
            return Err("refused".into());
        }
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    }
    Ok(())
}
