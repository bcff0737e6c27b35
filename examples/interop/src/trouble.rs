//! What must end well although something is wrong, and what must end in an error that says what.

use crate::{
    callers::{CALLERS, Callers, bottom},
    report::Report,
    server::{OPAQUE, Server, resource},
    user::permanent,
};
use tower_jwt_refresh::{
    BoxError, Token, TokenError, TokenProvider,
    source::oauth2::{ClientAuth, OAuth2, OAuth2Builder, TokenEndpoint},
};

const REVOKED: (&str, &str) = ("revoked", "s3cr3t-of-the-revoked");
const REFUSED: (&str, &str) = ("refused", "s3cr3t-of-the-refused");

fn machine(server: &Server, auth: ClientAuth) -> OAuth2Builder {
    OAuth2::client_credentials(TokenEndpoint::discover(server.issuer()), auth).scope("api:read")
}

/// A token that the provider revokes: the API's 401 becomes one fetch, and every request is sent again.
pub(crate) async fn revoked(server: &Server, report: &Report) -> Result<(), BoxError> {
    let auth = ClientAuth::basic(REVOKED.0, REVOKED.1);
    let provider = TokenProvider::new(machine(server, auth).resource(resource(OPAQUE)).build()?);
    let callers = Callers::new(server.http(), &provider, server.api(OPAQUE));
    let before = callers.call_once().await?;
    let token = provider.current().ok_or("a request was sent without a token")?;
    server.revoke(&token, REVOKED.0, Some(REVOKED.1)).await?;
    let after = callers.call_once().await?;
    let fetches = server.seen().await?.grants(REVOKED.0, "client_credentials");
    report.claim(
        "a revoked token",
        format!("{CALLERS} callers before: {before}; after: {after}; {fetches} fetches"),
        before.are_well() && after.are_well() && fetches == 2,
    );
    Ok(())
}

/// Errors of RFC 6749 section 5.2 and RFC 8707, as this provider says them.
pub(crate) async fn refused(server: &Server, report: &Report) -> Result<(), BoxError> {
    let wrong_secret = machine(server, ClientAuth::basic(REFUSED.0, "s3cr3t-of-another"));
    let unknown = machine(server, ClientAuth::basic(REFUSED.0, REFUSED.1)).resource("urn:interop:unknown");
    for (what, builder, code) in
        [("a wrong secret", wrong_secret, "invalid_client"), ("an unknown resource", unknown, "invalid_target")]
    {
        let end = TokenProvider::new(builder.build()?).token().await;
        report.claim(
            "a refusal",
            format!("{what}: {}", refusal(&end)),
            permanent(&end) && refusal(&end).contains(code),
        );
    }
    Ok(())
}

/// The provider's own document, fetched by another name than it says it has (RFC 8414 section 3.3).
pub(crate) async fn wrong_issuer(server: &Server, report: &Report) -> Result<(), BoxError> {
    let (auth, misnamed) = (ClientAuth::basic(REFUSED.0, REFUSED.1), server.misnamed());
    let source = OAuth2::client_credentials(TokenEndpoint::discover(&misnamed), auth).build()?;
    let end = TokenProvider::new(source).token().await;
    let refusal = refusal(&end);
    let holds = permanent(&end) && refusal.contains(&misnamed) && refusal.contains(server.issuer());
    report.claim("a wrong issuer", refusal, holds);
    Ok(())
}

/// What an end was for.
pub(crate) fn refusal(end: &Result<Token, TokenError>) -> String {
    let Err(error) = end else { return "accepted".into() };
    bottom(error)
}
