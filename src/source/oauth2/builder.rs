//! Settings of an OAuth source, checked when it is built.

use super::{
    Inner, OAuth2,
    auth::{self, ClientAuth},
    discovery::TokenEndpoint,
    grant::{Grant, Presented, Typed},
};
use crate::{
    BoxError, ConfigError, Token, TokenRequest,
    source::endpoint::{EndpointClient, Settings},
};
use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use http_body_util::Full;
use std::{fmt, future::Future, sync::Arc, time::Duration};
use tower::{Layer, Service};
use zeroize::Zeroizing;

/// Parameters that are the grant's, the client's, or have a setting of their own.
const RESERVED: [&str; 13] = [
    "actor_token",
    "actor_token_type",
    "assertion",
    "client_assertion",
    "client_assertion_type",
    "client_id",
    "client_secret",
    "grant_type",
    "refresh_token",
    "requested_token_type",
    "scope",
    "subject_token",
    "subject_token_type",
];

/// Settings of an [`OAuth2`] source. Credentials are kept in memory that is wiped when the last of them is gone, and never printed.
///
/// What was set wrong is told by [`build`](Self::build), the first mistake first.
#[must_use = "a builder does nothing until it builds"]
pub struct OAuth2Builder {
    place: TokenEndpoint,
    endpoint: Settings,
    auth: ClientAuth,
    grant: Grant,
    params: Vec<(String, Zeroizing<String>)>,
    answers_challenges: bool,
}

impl OAuth2Builder {
    pub(super) fn new(place: TokenEndpoint, auth: ClientAuth, grant: Grant) -> Self {
        let mut endpoint = place.settings();
        if let Some(mistake) = auth.mistake() {
            endpoint.wrong(mistake);
        }
        Self { endpoint, place, auth, grant, params: Vec::new(), answers_challenges: false }
    }

    /// What the token shall be good for: names between spaces (RFC 6749 section 3.3). Set again, it replaces. Without it the server decides; with a
    /// refresh token, it stays what was granted, and no more can be had (section 6).
    pub fn scope(self, scope: impl Into<String>) -> Self {
        let scope = scope.into();
        let legal = |c: char| c.is_ascii_graphic() && !matches!(c, '"' | '\\');
        if scope.is_empty() || !scope.split(' ').all(|name| !name.is_empty() && name.chars().all(legal)) {
            return self.illegal("scope", "is no list of names with one space between them (RFC 6749 section 3.3)");
        }
        self.put("scope", scope)
    }

    /// Whom the token shall be for, by a name that the server knows (RFC 8693 section 2.1; many take it with other grants too). Set again, it adds
    /// one.
    pub fn audience(mut self, audience: impl Into<String>) -> Self {
        self.params.push(("audience".to_owned(), Zeroizing::new(audience.into())));
        self
    }

    /// Whom the token shall be for, by the absolute URI of an API (RFC 8707 section 2). Set again, it adds one.
    pub fn resource(mut self, uri: impl Into<String>) -> Self {
        let uri = uri.into();
        let scheme = uri.split_once(':').map(|(scheme, _)| scheme).unwrap_or_default();
        if scheme.is_empty()
            || !scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
            || uri.contains('#')
        {
            return self.illegal(
                "resource",
                "is no absolute URI without a fragment (RFC 8707 section 2), such as `https://api.example.com`",
            );
        }
        self.params.push(("resource".to_owned(), Zeroizing::new(uri)));
        self
    }

    /// Any other parameter, kept secret. Set again, it replaces.
    ///
    /// A `claims` that is a JSON object is merged with the claims of an [answered challenge](Self::answer_challenges): Microsoft's
    /// `{"access_token":{"xms_cc":{"values":["cp1"]}}}`, without which its APIs send none.
    pub fn param(self, name: impl Into<String>, value: impl Into<String>) -> Self {
        let name = name.into();
        if RESERVED.contains(&name.as_str()) {
            return self.illegal(&name, "is set by the source itself, or by a setting of its own: leave it out");
        }
        if name.is_empty() {
            return self.illegal("", "has no name");
        }
        self.put(&name, value.into())
    }

    /// What the subject token of a token exchange is called (RFC 8693 section 3). Default `urn:ietf:params:oauth:token-type:jwt`, since what proves
    /// an identity to somebody else's server mostly is one: a projected service account's token, a cloud's identity token, what
    /// [`SignedJwt`](crate::source::SignedJwt) signs.
    pub fn subject_token_type(mut self, uri: impl Into<String>) -> Self {
        match &mut self.grant {
            Grant::TokenExchange { subject, .. } => {
                subject.kind = uri.into();
                self
            }
            _ => self.not_of_this_grant("subject_token_type"),
        }
    }

    /// Who acts for the subject in a token exchange: a source, asked anew for each fetch, and what its tokens are called (RFC 8693 section 2.1).
    pub fn actor_token<S>(mut self, source: S, uri: impl Into<String>) -> Self
    where
        S: Service<TokenRequest, Response = Token> + Send + 'static,
        S::Error: Into<BoxError>,
        S::Future: Send + 'static,
    {
        match &mut self.grant {
            Grant::TokenExchange { actor, .. } => {
                *actor = Some(Typed { token: Presented::new("actor token", source), kind: uri.into() });
                self
            }
            _ => self.not_of_this_grant("actor_token"),
        }
    }

    /// What a token exchange shall give (RFC 8693 section 2.1). Without it the server decides: mostly an access token.
    pub fn requested_token_type(mut self, uri: impl Into<String>) -> Self {
        match &mut self.grant {
            Grant::TokenExchange { requested, .. } => {
                *requested = Some(uri.into());
                self
            }
            _ => self.not_of_this_grant("requested_token_type"),
        }
    }

    /// Keeps a new refresh token where a restart finds it. Called with it, and awaited, before the access token that came with it is used; later
    /// fetches wait as well, so two calls never overlap.
    ///
    /// ```no_run
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use tower_jwt_refresh::source::oauth2::{ClientAuth, OAuth2};
    ///
    /// use std::{fs, io::Write, os::unix::fs::OpenOptionsExt};
    ///
    /// /// For its owner alone, and by rename, so that no crash leaves half of it.
    /// fn keep(token: &str) -> std::io::Result<()> {
    ///     let mut new = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open("refresh-token.new")?;
    ///     new.write_all(token.as_bytes())?;
    ///     new.sync_all()?;
    ///     fs::rename("refresh-token.new", "refresh-token")
    /// }
    ///
    /// let kept = fs::read_to_string("refresh-token")?;
    /// let source = OAuth2::refresh_token("https://login.example.com/token", ClientAuth::public("my-cli"), kept.trim())
    ///     .on_rotation(|new| {
    ///         let new = new.to_owned();
    ///         async move {
    ///             Ok(tokio::task::spawn_blocking(move || keep(&new)).await??)
    ///         }
    ///     })
    ///     .build()?;
    /// # Ok(()) }
    /// ```
    ///
    /// If it fails, panics, or does not end within 5 s (then it is dropped), the fetch succeeds all the same: the access token is good, and this
    /// process holds the new refresh token. Its error is logged once, so put no token into it. The next fetch calls it again before it
    /// shows that refresh token, for at most 5 s or a quarter of [`timeout`](Self::timeout), and goes on if it fails. Until one succeeds, *a restart would show a spent refresh token*, which many servers answer by withdrawing all that came from it. A
    /// provider that drops its fetch does not stop the callback. The 5 s cannot end code that blocks: write files in
    /// [`spawn_blocking`](tokio::task::spawn_blocking).
    pub fn on_rotation<F, A>(mut self, keep: F) -> Self
    where
        F: Fn(&str) -> A + Send + Sync + 'static,
        A: Future<Output = Result<(), BoxError>> + Send + 'static,
    {
        match &mut self.grant {
            Grant::RefreshToken(rotation) => {
                rotation.persist = Some(Arc::new(move |new| Box::pin(keep(new))));
                self
            }
            _ => self.not_of_this_grant("on_rotation"),
        }
    }

    /// Asks for what an API's 401 names: `error="insufficient_claims"` with `claims` (Microsoft's continuous access evaluation) as `claims`,
    /// `error="insufficient_user_authentication"` (RFC 9470 section 3) as `acr_values` and `max_age`. Off by default: it lets an API word a part of
    /// the token request.
    ///
    /// Only of a `Bearer` challenge, of up to 4 KiB, and only well-formed: `claims` must be base64 of a JSON object, `max_age` digits. Anything
    /// else is ignored, and the fetch goes on without. What was asked for is sent with this one fetch, and not with later ones: the server keeps
    /// what the login was good for, and an API that misses it again says so again. A refusal of such a fetch is never taken as permanent, since it
    /// may be the wish that is refused.
    ///
    /// Your own `acr_values` stay, and of two `max_age` the smaller is sent: no API weakens the login that you ask for. RFC 9470 section 4 sends both to the
    /// *authorization* endpoint, with the user; at a token endpoint they are an extension that servers may ignore.
    ///
    /// ```
    /// # fn main() -> Result<(), tower_jwt_refresh::ConfigError> {
    /// # let auth = tower_jwt_refresh::source::oauth2::ClientAuth::none();
    /// use tower_jwt_refresh::source::oauth2::OAuth2;
    ///
    /// let source = OAuth2::client_credentials("http://localhost/token", auth)
    ///     .param("claims", r#"{"access_token":{"xms_cc":{"values":["cp1"]}}}"#)
    ///     .answer_challenges()
    ///     .build()?;
    /// # Ok(()) }
    /// ```
    pub fn answer_challenges(mut self) -> Self {
        self.answers_challenges = true;
        self
    }

    /// Wraps the HTTP client that asks the authorization server, for discovery too. Called again it adds one within: the first is the outermost, as
    /// with [`ServiceBuilder`](tower::ServiceBuilder).
    ///
    /// For a proof of possession, a header that an API gateway wants, a log. Its errors are
    /// [`EndpointError::Layer`](crate::source::EndpointError::Layer); [`timeout`](Self::timeout) covers what it waits for; it sees credentials and
    /// tokens. See [`ExchangeBuilder::layer`](crate::source::ExchangeBuilder::layer).
    pub fn layer<L, B>(mut self, layer: L) -> Self
    where
        L: Layer<EndpointClient> + Send + 'static,
        L::Service: Service<Request<Full<Bytes>>, Response = Response<B>, Error: Into<BoxError>, Future: Send + 'static>
            + Clone
            + Send
            + Sync
            + 'static,
        B: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
    {
        self.endpoint.layer(layer);
        self
    }

    /// A fetch that has not ended by then has failed: discovery, what is shown, the wait for another fetch with the same refresh token, and the
    /// request itself. Discovery may take half of it. A refresh token is shown in the first half of it or not at all, so that its successor has time to arrive. Default 20 s: with the 5 s of [`on_rotation`](Self::on_rotation) below the provider's
    /// [`fetch_timeout`](crate::TokenProviderBuilder::fetch_timeout) of 30 s, so that no token is lost, and the error names the endpoint.
    ///
    /// Under a [store](crate::docs::sharing) at most 25 s: it gives a source 30 s, the 5 s of the callback with them.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.endpoint.timeout(timeout);
        self
    }

    /// A connection that is not there by then, with the name's lookup and the TLS handshake, has failed. Default 5 s, which is two lost packets and
    /// their repetition.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.endpoint.connect_timeout(timeout);
        self
    }

    /// Sends the credential to another machine without TLS. Everybody on the way can read it, and the token: only for networks where
    /// something else encrypts. Of an issuer that is [discovered](TokenEndpoint::discover), both it and the endpoint that it names may then be
    /// plaintext.
    pub fn allow_plaintext(mut self) -> Self {
        self.endpoint.allow_plaintext();
        self
    }

    /// Trusts the authorities in this PEM *instead of* the system's: for a private CA, or a container that has none. Called again it adds to
    /// them.
    pub fn root_certificates(mut self, pem: impl AsRef<[u8]>) -> Self {
        self.endpoint.root_certificates(pem.as_ref());
        self
    }

    /// Asks the authorization server itself, whatever proxy the environment names.
    pub fn no_proxy(mut self) -> Self {
        self.endpoint.no_proxy();
        self
    }

    /// Asks through this proxy, `http://`, `https://` or `socks5://`, and not through one that the environment names. A user and password in the
    /// URL are shown to it and never printed. A server on this machine is asked without it.
    pub fn proxy(mut self, url: impl Into<String>) -> Self {
        self.endpoint.proxy(url.into());
        self
    }

    /// Builds it. Needs no runtime and asks nobody; reads the system's root certificates if it needs them, and the environment's proxies.
    ///
    /// # Errors
    /// [`ConfigError`] for a URL or issuer that is none, plaintext to another machine, a credential that cannot be sent, a setting of another
    /// grant, and other settings that cannot work.
    pub fn build(self) -> Result<OAuth2, ConfigError> {
        let place = self.place.with(self.endpoint)?;
        Ok(OAuth2(Arc::new(Inner {
            client: self.auth.built()?,
            place,
            grant: self.grant,
            params: self.params,
            answers_challenges: self.answers_challenges,
        })))
    }

    pub(super) fn checked(mut self, text: &str) -> Self {
        if let Err(mistake) = auth::text("the refresh grant", text) {
            self.endpoint.wrong(mistake);
        }
        self
    }

    fn put(mut self, name: &str, value: String) -> Self {
        self.params.retain(|(other, _)| other != name);
        self.params.push((name.to_owned(), Zeroizing::new(value)));
        self
    }

    fn illegal(mut self, name: &str, problem: &'static str) -> Self {
        self.endpoint.wrong(ConfigError::IllegalParameter { name: name.to_owned(), problem });
        self
    }

    fn not_of_this_grant(mut self, setting: &'static str) -> Self {
        self.endpoint.wrong(ConfigError::NotOfThisGrant { setting, grant: self.grant.name() });
        self
    }
}

impl fmt::Debug for OAuth2Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OAuth2Builder")
            .field("grant", &self.grant.name())
            .field("auth", &self.auth)
            .field("endpoint", &self.endpoint)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
