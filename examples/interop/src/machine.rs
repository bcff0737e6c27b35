//! Client credentials, in each way in which a client can say who it is.

use crate::{
    callers::{CALLERS, Callers},
    report::Report,
    server::{JWT, Server, resource},
};
use futures_util::future::try_join_all;
use std::time::Duration;
use tower_jwt_refresh::{
    BoxError, TokenProvider,
    source::oauth2::{ClientAuth, OAuth2, TokenEndpoint},
};

/// As in `provider/clients.mjs`: every character that a form changes.
const BASIC: (&str, &str) = ("basic:client 1+1", "s3cr3t basic:100% &=+/");
const POST: (&str, &str) = ("post-client", "s3cr3t post:100% &=+/");
/// Three lifetimes of a token.
const SPAN: Duration = Duration::from_secs(9);

pub(crate) async fn credentials(server: &Server, report: &Report) -> Result<(), BoxError> {
    let discovered = || TokenEndpoint::discover(server.issuer());
    let key = |algorithm: &str| -> Result<_, BoxError> {
        let id = format!("key-{algorithm}");
        Ok((id.clone(), ClientAuth::private_key_jwt(id, server.key(algorithm)?)))
    };
    let (es256, rs256, eddsa) = (key("ES256")?, key("RS256")?, key("EdDSA")?);
    let clients = [
        ("basic", BASIC.0.to_owned(), ClientAuth::basic(BASIC.0, BASIC.1), discovered()),
        ("post", POST.0.to_owned(), ClientAuth::post(POST.0, POST.1), discovered()),
        ("private_key_jwt, ES256", es256.0, es256.1, discovered()),
        ("private_key_jwt, RS256", rs256.0, rs256.1, discovered()),
        // Without discovery the assertion is for another audience: the endpoint, since nobody named the issuer.
        ("private_key_jwt, EdDSA, no discovery", eddsa.0, eddsa.1, TokenEndpoint::url(server.token_url())),
    ];
    try_join_all(clients.map(async |(way, id, auth, endpoint)| {
        let source = OAuth2::client_credentials(endpoint, auth).scope("api:read").resource(resource(JWT)).build()?;
        let provider = TokenProvider::new(source);
        // If it fails, so do the callers.
        let _ = provider.init().await;
        let ends = Callers::new(server.http(), &provider, server.api(JWT)).call_for(SPAN).await?;
        provider.shutdown().await;
        let seen = server.seen().await?;
        let (fetches, errors) = (seen.grants(&id, "client_credentials"), seen.errors(&id, "client_credentials"));
        report.claim(
            "client credentials",
            format!("{way}: {CALLERS} callers, {ends}; {fetches} tokens, refused: {}", errors.len()),
            ends.are_well() && (3..=10).contains(&fetches) && errors.is_empty(),
        );
        Ok::<_, BoxError>(())
    }))
    .await?;
    Ok(())
}
