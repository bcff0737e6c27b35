//! Tokens of an OAuth 2.0 authorization server, by four grants: client credentials, refresh token, JWT bearer assertion and token exchange.
//!
//! [`OAuth2`] is the source. [`TokenEndpoint`] says where the server is, [`ClientAuth`] who the client is.

// Not built on the crate `oauth2` (5.0), which is made for logins: of these grants it has client credentials and refresh token, with no way to name
// another `grant_type`; clients authenticate by secret alone; its standard answer wants `expires_in` as an integer; an answer that it cannot read
// is kept whole in the error; secrets are Strings that nobody wipes; the answer's headers, `Date` among them, end in the HTTP client that one
// brings. What is left to share is a form of some ten lines.

mod auth;
mod builder;
mod challenge;
mod discovery;
mod error;
mod grant;
mod rotation;

pub use auth::ClientAuth;
pub use builder::OAuth2Builder;
pub use discovery::TokenEndpoint;
pub use error::OAuth2Error;

use super::{
    answer,
    endpoint::{AGENT, EndpointError, Failed, form},
};
use crate::{BoxError, ConfigError, SourceError, Token, TokenRequest};
use auth::Client;
use bytes::Bytes;
use discovery::{Found, Location};
use error::Deadline;
use grant::{Grant, Presented, Typed};
use http::{HeaderValue, Method, Request, header};
use http_body_util::Full;
use rotation::Rotation;
use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};
use tower::Service;
use zeroize::Zeroizing;

/// A source that asks an OAuth 2.0 authorization server.
///
/// ```no_run
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use tower_jwt_refresh::{TokenProvider, source::oauth2::{ClientAuth, OAuth2, TokenEndpoint}};
///
/// let server = TokenEndpoint::discover("https://login.example.com/tenant");
/// let client = ClientAuth::basic("my-service", std::env::var("EXAMPLE_CLIENT_SECRET")?);
/// let source = OAuth2::client_credentials(server, client).scope("jobs.read jobs.write").build()?;
/// let provider = TokenProvider::new(source);
/// # Ok(()) }
/// ```
///
/// Clones are one source: providers that share a refresh token must share its source, by clones. Processes that do need a [store](crate::docs::sharing), which then
/// says what is shown.
///
/// # The request
/// A form, POSTed (RFC 6749 section 3.2) to the token endpoint, which is known or [discovered](TokenEndpoint::discover). HTTP/1.1 over TLS, a
/// connection for each fetch, no redirects, as with [`Exchange`](super::Exchange).
///
/// # The answer
/// The token is `access_token`. Its end is found as with [`Exchange`](super::Exchange): `expires_in`, `expires_at`, a JWT's `exp`, by the server's
/// clock where its answer has a `Date`. A `token_type` other than Bearer (DPoP) is an error: such a token is no good by itself (RFC 6749 section
/// 7.1). Of a token exchange `N_A` is taken too, for what is no access token (RFC 8693 section 2.2.1). Refresh tokens that come with other grants
/// are not used: the grant itself gets the next token.
///
/// # Refresh tokens
/// A new one replaces the old in memory, and is given to [`on_rotation`](OAuth2Builder::on_rotation), before the access token that came with it is
/// used. Without a new one the old stays (RFC 6749 section 6). No error ever drops it. It is shown by one fetch at a time, whoever asks, and each
/// reads it anew. A fetch on a runtime that nobody drives any more keeps it from the others for [`timeout`](OAuth2Builder::timeout) and 5 s.
///
/// If the process dies between the answer and the callback's end, the old one is what is kept: good where the server takes it until the new one is
/// used, as it is not used before it was given to the callback. One that the callback could not keep is given to it again before it is shown, and then
/// shown whether it was kept or not. The same holds when no whole answer comes: the same refresh token is shown again. A server that takes
/// reuse for theft at once, without a grace window (RFC 9700 section 4.14.2), answers both by `invalid_grant`, and somebody has to log in: give
/// such a server's client a window of some seconds, most have a setting for it. After a login [`set_refresh_token`](Self::set_refresh_token) goes
/// on with its token.
///
/// # Failures
/// An [`EndpointError`] where the token endpoint is to blame, as told there, or an [`OAuth2Error`]. Neither holds a credential, a token, or an
/// `error_description`, which may echo them.
///
/// Who needs a token gets it as the cause of [`TokenError::Unavailable`](crate::TokenError::Unavailable), or of
/// [`TokenError::NeedsCredential`](crate::TokenError::NeedsCredential) where the table says "seldom": each minute while requests fail for it, else each 15.
///
/// | what happened | error | asked again |
/// | --- | --- | --- |
/// | all grants: no connection, TLS, a broken, late, too large or redirecting answer, 429, 5xx, other statuses | as with [`Exchange`](super::Exchange#failures) | backoff, `Retry-After` |
/// | `invalid_client`: id, secret or key is wrong; 401, 403 | [`Refused`](EndpointError::Refused), around it [`MethodNotListed`](OAuth2Error::MethodNotListed) if metadata lists other ways | seldom |
/// | `invalid_scope`, `invalid_target` (RFC 8707), `invalid_request`, `unauthorized_client`, `unsupported_grant_type` | [`Refused`](EndpointError::Refused) | seldom |
/// | any of these while a challenge is answered | [`Challenged`](OAuth2Error::Challenged) | backoff, then without the challenge |
/// | `temporarily_unavailable`, codes of nobody's list | [`Status`](EndpointError::Status) | backoff |
/// | no `access_token`, one that no header can hold | [`Answer`](EndpointError::Answer) | backoff |
/// | `token_type` is not Bearer | [`Answer`](EndpointError::Answer) | seldom |
/// | refresh token: `invalid_grant`: expired, withdrawn, or shown twice | [`Refused`](EndpointError::Refused) | seldom; at once after `set_refresh_token` and [`refresh`](crate::TokenProvider::refresh) |
/// | refresh token: half of `timeout` is over before it is shown: by discovery, another fetch with it, the callback | [`Late`](OAuth2Error::Late) | backoff |
/// | refresh token, with a store: no lock, so it was not shown | [`NotShown`](OAuth2Error::NotShown) | backoff |
/// | refresh token, with a store: another process has signed out | [`SignedOut`](OAuth2Error::SignedOut) | seldom; at once after `set_refresh_token` and `refresh` |
/// | JWT bearer, token exchange: the source of what is shown fails | [`Presented`](OAuth2Error::Presented) | as its own error says |
/// | JWT bearer, token exchange: `invalid_grant`: wrong key, audience or clock, or it is spent | [`Refused`](EndpointError::Refused) | seldom, with a new one |
/// | discovery: no metadata, or something else | [`NoMetadata`](OAuth2Error::NoMetadata), [`UnreadableMetadata`](OAuth2Error::UnreadableMetadata) | backoff; an endpoint that is known serves on |
/// | discovery: metadata of another issuer, or without a usable token endpoint | [`OtherIssuer`](OAuth2Error::OtherIssuer), [`NoTokenEndpoint`](OAuth2Error::NoTokenEndpoint) | seldom; an endpoint that is known serves on, with a warning |
///
/// # Cancel safety
/// Dropping the future ends the request. The server may have minted a token that nobody gets, and spent a refresh token: see above. A callback that
/// has begun goes on, at most for its 5 s.
#[derive(Clone)]
pub struct OAuth2(Arc<Inner>);

struct Inner {
    client: Client,
    place: Location,
    grant: Grant,
    params: Vec<(String, Zeroizing<String>)>,
    answers_challenges: bool,
}

impl OAuth2 {
    /// Begins with the client's own rights (RFC 6749 section 4.4).
    pub fn client_credentials(endpoint: impl Into<TokenEndpoint>, auth: ClientAuth) -> OAuth2Builder {
        OAuth2Builder::new(endpoint.into(), auth, Grant::ClientCredentials)
    }

    /// Begins with a refresh token that some login left (RFC 6749 section 6).
    ///
    /// A fetch that is refused may still have spent it: some servers rotate first, and then answer `invalid_target`, say, for a `resource` that was
    /// not granted.
    pub fn refresh_token(
        endpoint: impl Into<TokenEndpoint>,
        auth: ClientAuth,
        refresh_token: impl Into<String>,
    ) -> OAuth2Builder {
        let token = Zeroizing::new(refresh_token.into());
        let grant = Grant::RefreshToken(Rotation::new(token.clone()));
        OAuth2Builder::new(endpoint.into(), auth, grant).checked(&token)
    }

    /// Begins with an assertion that the server trusts (RFC 7523 section 2.1). It comes from a source, which is asked anew for each fetch:
    /// [`SignedJwt`](super::SignedJwt), a file, a closure.
    ///
    /// ```no_run
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use tower_jwt_refresh::source::{SignedJwt, SigningKey, oauth2::{ClientAuth, OAuth2}};
    ///
    /// let key = SigningKey::from_pem(std::fs::read("private-key.pem")?)?.key_id("2026-11");
    /// let assertion = SignedJwt::new(key).issuer("me@project.example.com").audience("https://login.example.com/token");
    /// let source = OAuth2::jwt_bearer("https://login.example.com/token", ClientAuth::none(), assertion).build()?;
    /// # Ok(()) }
    /// ```
    pub fn jwt_bearer<S>(endpoint: impl Into<TokenEndpoint>, auth: ClientAuth, assertion: S) -> OAuth2Builder
    where
        S: Service<TokenRequest, Response = Token> + Send + 'static,
        S::Error: Into<BoxError>,
        S::Future: Send + 'static,
    {
        OAuth2Builder::new(endpoint.into(), auth, Grant::JwtBearer(Presented::new("assertion", assertion)))
    }

    /// Begins with a token of somebody else's server (RFC 8693). It comes from a source, which is asked anew for each fetch: a file that Kubernetes
    /// writes, a command, a closure.
    ///
    /// ```no_run
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use tower_jwt_refresh::{BoxError, Token, TokenRequest, source::oauth2::{ClientAuth, OAuth2}};
    ///
    /// let subject = tower::service_fn(|_: TokenRequest| async {
    ///     let written = std::fs::read_to_string("/var/run/secrets/tokens/sts")?;
    ///     Ok::<_, BoxError>(Token::from_jwt(written.trim())?)
    /// });
    /// let source = OAuth2::token_exchange("https://sts.example.com/token", ClientAuth::none(), subject)
    ///     .audience("https://api.example.com")
    ///     .build()?;
    /// # Ok(()) }
    /// ```
    pub fn token_exchange<S>(endpoint: impl Into<TokenEndpoint>, auth: ClientAuth, subject_token: S) -> OAuth2Builder
    where
        S: Service<TokenRequest, Response = Token> + Send + 'static,
        S::Error: Into<BoxError>,
        S::Future: Send + 'static,
    {
        let subject = Typed { token: Presented::new("subject token", subject_token), kind: grant::JWT.to_owned() };
        OAuth2Builder::new(endpoint.into(), auth, Grant::TokenExchange { subject, actor: None, requested: None })
    }

    /// Goes on with the refresh token of a new login. Waits for the fetch that is showing the old one, if there is one, at most for
    /// [`timeout`](OAuth2Builder::timeout) and 5 s: then that fetch is on a runtime that nobody drives, and what it still gets is put over nothing.
    /// Outside a tokio runtime it does not wait. The callback is not called. Under a store it goes before what is stored, until the server has answered it. Follow it by [`refresh`](crate::TokenProvider::refresh), which ends a provider's wait after `invalid_grant`.
    ///
    /// # Errors
    /// [`ConfigError`] for one that cannot be sent, and with another grant.
    ///
    /// # Cancel safety
    /// Dropped before its end, it has done nothing.
    pub async fn set_refresh_token(&self, refresh_token: impl Into<String>) -> Result<(), ConfigError> {
        let token = Zeroizing::new(refresh_token.into());
        let Grant::RefreshToken(rotation) = &self.0.grant else {
            return Err(ConfigError::NotOfThisGrant { setting: "set_refresh_token", grant: self.0.grant.name() });
        };
        auth::text("the refresh grant", &token)?;
        rotation.replace(token, self.0.place.timeout()).await;
        Ok(())
    }
}

impl Service<TokenRequest> for OAuth2 {
    type Response = Token;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Token, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: TokenRequest) -> Self::Future {
        let inner = Arc::clone(&self.0);
        Box::pin(async move { inner.fetch(&request).await })
    }
}

impl Inner {
    async fn fetch(&self, request: &TokenRequest) -> Result<Token, BoxError> {
        let deadline = Deadline::after(self.place.timeout());
        let asked = request.challenge().filter(|_| self.answers_challenges).map(challenge::asked).unwrap_or_default();
        let found = self.place.find(deadline).await?;
        let mut shown = self.grant.show(request, deadline).await?;
        let answer = loop {
            // Signed last, as it lives for a minute.
            let assertion = self.client.assertion(&found.audience)?;
            shown.may_be_shown(deadline, request)?;
            let form = self.form(&[shown.pairs(), self.client.pairs(assertion.as_ref())].concat(), &asked);
            let answer = found.endpoint.ask_until(deadline.at, self.request(form)).await;
            let second = answer.as_ref().err().filter(|failed| is_of_grant(failed)).and_then(|_| shown.second());
            match second {
                Some(second) => shown = second,
                None => break answer,
            }
        };

        let answer = match answer {
            Ok(reply) => {
                shown.keep(&reply.body, request).await;
                let exchanged = matches!(self.grant, Grant::TokenExchange { .. });
                answer::access_token(&reply.body, reply.date, exchanged)
                    .map_err(|error| EndpointError::Answer { endpoint: found.endpoint.name(), error }.into())
            }
            Err(failed) => Err(failed),
        };
        answer.map_err(|failed| self.explained(failed, &found, !asked.is_empty()).into())
    }

    fn form(&self, pairs: &[(&str, &str)], asked: &challenge::Asked) -> Zeroizing<Vec<u8>> {
        let own = self.params.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let mut own: Vec<_> = pairs.iter().copied().chain(own).collect();
        let asked: Vec<_> = asked
            .iter()
            .map(|(name, value)| match own.iter().position(|(other, _)| other == name) {
                Some(at) => {
                    let (_, mine) = own.remove(at);
                    (*name, challenge::merged(name, mine, value))
                }
                None => (*name, value.clone()),
            })
            .collect();
        own.extend(asked.iter().map(|(name, value)| (*name, value.as_str())));
        form(&own)
    }

    fn request(&self, form: Zeroizing<Vec<u8>>) -> Request<Full<Bytes>> {
        let length = form.len();
        let mut request = Request::new(Full::new(Bytes::from_owner(form)));
        *request.method_mut() = Method::POST;
        let headers = request.headers_mut();
        headers.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
        headers.insert(header::USER_AGENT, HeaderValue::from_static(AGENT));
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
        if let Some(value) = self.client.header() {
            headers.insert(header::AUTHORIZATION, value.clone());
        }
        request
    }

    /// A failure of the token endpoint, with what we know besides.
    fn explained(&self, failed: Failed, found: &Found, challenged: bool) -> SourceError {
        found.failed(&failed.error);
        let of_client = match &failed.error {
            EndpointError::Refused { code, .. } => code.is_none_or(|code| code == "invalid_client"),
            _ => false,
        };
        let error = failed.into_source_error();
        if challenged && error.is_permanent() {
            let error = OAuth2Error::around(error, |error| OAuth2Error::Challenged { error });
            return SourceError { permanent: false, ..error };
        }
        match self.client.method().filter(|method| of_client && !found.lists(method)) {
            Some(method) => OAuth2Error::around(error, |error| OAuth2Error::MethodNotListed { method, error }),
            None => error,
        }
    }
}

/// What was shown is refused, not the client.
fn is_of_grant(failed: &Failed) -> bool {
    matches!(failed.error, EndpointError::Refused { code: Some("invalid_grant"), .. })
}

impl fmt::Debug for OAuth2 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OAuth2")
            .field("grant", &self.0.grant.name())
            .field("endpoint", &self.0.place.name())
            .finish_non_exhaustive()
    }
}
