//! Refresh tokens that are spent by each refresh, at a provider that ends the whole family when a spent one comes again.

use crate::{
    callers::{CALLERS, Callers},
    report::Report,
    server::{JWT, OPAQUE, Server},
    trouble::refusal,
};
use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tower_jwt_refresh::{
    BoxError, TokenError, TokenProvider,
    source::oauth2::{ClientAuth, OAuth2, TokenEndpoint},
};

const APP: (&str, &str) = ("app", "s3cr3t-of-the-app");
const NATIVE: &str = "native";
/// More than five rotations.
const SPAN: Duration = Duration::from_secs(12);

/// What a program would write to its disk: every refresh token it was given, in order.
#[derive(Clone, Default)]
struct Disk(Arc<Mutex<Vec<String>>>);

impl Disk {
    fn all(&self) -> Vec<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn newest(&self, first: &str) -> String {
        self.all().pop().unwrap_or_else(|| first.to_owned())
    }
}

fn refreshing(server: &Server, auth: ClientAuth, token: &str, disk: &Disk) -> Result<TokenProvider, BoxError> {
    let disk = disk.clone();
    let source = OAuth2::refresh_token(TokenEndpoint::discover(server.issuer()), auth, token)
        .on_rotation(move |token: &str| {
            disk.0.lock().unwrap_or_else(PoisonError::into_inner).push(token.to_owned());
            async { Ok(()) }
        })
        .build()?;
    Ok(TokenProvider::new(source))
}

pub(crate) async fn rotation(server: &Server, report: &Report) -> Result<(), BoxError> {
    let about = "refresh rotation";
    let auth = || ClientAuth::basic(APP.0, APP.1);
    let disk = Disk::default();
    let first = server.login(APP.0, JWT).await?;
    let provider = refreshing(server, auth(), &first, &disk)?;
    // If it fails, so do the callers.
    let _ = provider.init().await;
    let ends = Callers::new(server.http(), &provider, server.api(JWT)).call_for(SPAN).await?;
    provider.shutdown().await;
    let seen = server.seen().await?;
    let (rotations, errors) = (disk.all().len(), seen.errors(APP.0, "refresh_token"));
    report.claim(about, format!("{CALLERS} callers: {ends}"), ends.are_well());
    report.claim(
        about,
        format!("{rotations} rotations, no spent token sent: {} refusals", errors.len()),
        rotations >= 5 && errors.is_empty() && seen.grants(APP.0, "refresh_token") == rotations,
    );
    let given = seen.refresh_tokens(APP.0);
    report.claim(
        about,
        "what was persisted is what the provider gave, in order, and the newest at last",
        given.len() == rotations + 1 && given[1..].iter().eq(disk.all().iter()),
    );

    // The program starts anew, and knows nothing but what it wrote down.
    let newest = disk.newest(&first);
    let restarted = refreshing(server, auth(), &newest, &disk)?;
    let ends = Callers::new(server.http(), &restarted, server.api(JWT)).call_once().await?;
    restarted.shutdown().await;
    report.claim(about, format!("after a restart from what was persisted: {ends}"), ends.are_well());

    // On purpose: this is what must never happen, and it shows that the provider looks.
    let spent = refreshing(server, auth(), &first, &Disk::default())?.token().await;
    report.claim(
        about,
        format!("a spent token on purpose: {}", refusal(&spent)),
        permanent(&spent) && refusal(&spent).contains("invalid_grant"),
    );
    let newest = disk.newest(&first);
    let family = refreshing(server, auth(), &newest, &Disk::default())?.token().await;
    report.claim(
        about,
        format!("and it took the newest with it, so reuse is detected: {}", refusal(&family)),
        permanent(&family) && refusal(&family).contains("invalid_grant"),
    );
    Ok(())
}

/// A client without a secret (RFC 8252), whose tokens are lost while they are in use: first the access token alone, then the user's whole consent.
pub(crate) async fn public_client(server: &Server, report: &Report) -> Result<(), BoxError> {
    let about = "public client";
    let disk = Disk::default();
    let first = server.login(NATIVE, OPAQUE).await?;
    let provider = refreshing(server, ClientAuth::public(NATIVE), &first, &disk)?;
    let callers = Callers::new(server.http(), &provider, server.api(OPAQUE));
    let current = || provider.current().ok_or("a request was sent without a token");

    let before = callers.call_once().await?;
    server.forget(&current()?).await?;
    let after = callers.call_once().await?;
    let refreshes = server.seen().await?.grants(NATIVE, "refresh_token");
    report.claim(
        about,
        format!("{CALLERS} callers before their token was lost: {before}; after: {after}; {refreshes} refreshes"),
        before.are_well() && after.are_well() && refreshes == 2 && disk.all().len() == 2,
    );

    server.revoke(&current()?, NATIVE, None).await?;
    let after = callers.call_once().await?;
    let end = provider.refresh().await;
    report.claim(
        about,
        format!("revoked with its refresh token: {after}, which is the API's own answer; {}", refusal(&end)),
        after.are_only("401") && permanent(&end) && refusal(&end).contains("invalid_grant"),
    );
    provider.shutdown().await;
    Ok(())
}

pub(crate) fn permanent<T>(end: &Result<T, TokenError>) -> bool {
    matches!(end, Err(TokenError::NeedsCredential { .. }))
}
