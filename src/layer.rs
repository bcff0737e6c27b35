//! How requests get their token: the configuration.

use crate::{
    JwtRefresh, Origin, Placement, ReplayRequest, RetryPolicy, ScopeError, TokenProvider,
    body::{ByType, CopyWith, Never},
    scope::Scope,
};
use http::header::AUTHORIZATION;
use std::{fmt, sync::Arc};
use tower::Layer;

/// Puts a fresh token on every request, and answers a refused one by refresh and resend.
///
/// It goes around any client service: hyper-util's client, a tonic `Channel`, any stack of tower layers over one.
///
/// ```
/// use tower::ServiceBuilder;
/// use tower_jwt_refresh::{BoxError, JwtRefreshLayer, Token, TokenProvider, TokenRequest};
/// # use http_body_util::Full;
/// # use bytes::Bytes;
///
/// let provider = TokenProvider::new(tower::service_fn(|_: TokenRequest| async { Ok::<_, BoxError>(Token::opaque("secret")?) }));
/// # let client = tower::service_fn(|_: http::Request<Full<Bytes>>| async { Ok::<_, BoxError>(http::Response::new(())) });
/// let client = ServiceBuilder::new().layer(JwtRefreshLayer::new(provider)).service(client);
/// ```
///
/// # Type parameters
/// `P` is the [policy](Self::retry), `K` what becomes of [bodies](Self::replay_with); both are inferred.
#[derive(Clone)]
#[must_use = "a layer does nothing until it is put around a service"]
pub struct JwtRefreshLayer<P = RetryPolicy, K = ByType> {
    policy: P,
    keep: K,
    way: Way,
}

/// What all services of a layer share.
#[derive(Clone, Debug)]
pub(crate) struct Way {
    pub(crate) provider: TokenProvider,
    pub(crate) placement: Placement,
    pub(crate) scope: Scope,
    pub(crate) on_unavailable: OnUnavailable,
    pub(crate) redirects_handled: bool,
}

/// Whose token a request carries, and how.
#[derive(Debug)]
pub(crate) struct Route {
    pub(crate) way: Arc<Way>,
    /// In place of the layer's own provider.
    pub(crate) tenant: Option<TokenProvider>,
}

impl Route {
    pub(crate) fn provider(&self) -> &TokenProvider {
        self.tenant.as_ref().unwrap_or(&self.way.provider)
    }
}

impl Way {
    /// May this request carry the token? False: it goes without.
    pub(crate) fn admits<R: ReplayRequest>(&self, request: &R) -> Result<bool, ScopeError> {
        let admitted = self.scope.admits(&request.target())?;
        let header = self.placement.name();
        // Whoever follows redirects by itself strips `Authorization` alone on the way to another host.
        if admitted && request.follows_redirects() && !self.redirects_handled && *header != AUTHORIZATION {
            return Err(ScopeError::Redirects { header: header.clone() });
        }
        Ok(admitted)
    }
}

/// What becomes of a request when no token can be had for it. Never asked after a refusal: then the server's answer is the caller's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnUnavailable {
    /// It fails with a [`TokenError`](crate::TokenError), unsent: the error says more than the server's 401 would. The default.
    #[default]
    Fail,
    /// It is sent with the last token, dead as it is: right where the server's clock is the one to trust. Fails if there never
    /// was one.
    SendLast,
    /// It is sent without a token: right where the server serves some things to everybody.
    SendWithout,
}

/// A request extension: this request takes the token of another provider, and is judged for that one. For a client that serves several
/// tenants; [`TokenProviders`](crate::TokenProviders) keeps theirs.
///
/// ```
/// # use tower_jwt_refresh::{BoxError, Token, TokenProvider, TokenRequest, UseToken};
/// # fn tenant() -> TokenProvider { TokenProvider::new(tower::service_fn(|_: TokenRequest| async { Ok::<_, BoxError>(Token::opaque("t")?) })) }
/// let request = http::Request::builder().uri("https://api.example.com").extension(UseToken(tenant())).body(());
/// ```
#[derive(Clone, Debug)]
pub struct UseToken(pub TokenProvider);

/// A request extension: this request goes out as it is, and its answer refuses no token. For a login, or what is public.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoToken;

impl JwtRefreshLayer {
    /// The provider's token as `Authorization: Bearer` on every request over TLS or to this machine; one resend after a refusal.
    pub fn new(provider: TokenProvider) -> Self {
        Self {
            policy: RetryPolicy::default(),
            keep: ByType,
            way: Way {
                provider,
                placement: Placement::bearer(),
                scope: Scope::default(),
                on_unavailable: OnUnavailable::Fail,
                redirects_handled: false,
            },
        }
    }
}

impl<P, K> JwtRefreshLayer<P, K> {
    /// Where the token goes in a request. Default [`Placement::bearer`]. A request that has this header already is passed on
    /// untouched, and its answer is its caller's.
    pub fn place(self, placement: Placement) -> Self {
        Self { way: Way { placement, ..self.way }, ..self }
    }

    /// Which answers refuse the token, and whether requests are resent. Default [`RetryPolicy::default`]; any
    /// [`tower::retry::Policy`] over [`Attempt`](crate::Attempt) will do, and is cloned for each request.
    pub fn retry<Q>(self, policy: Q) -> JwtRefreshLayer<Q, K> {
        JwtRefreshLayer { policy, keep: self.keep, way: self.way }
    }

    /// The token goes to this origin, and to the others named so, and nowhere else: requests to all others are passed on untouched. Without
    /// one it goes wherever requests go, and where a redirect leads that is followed above this layer.
    pub fn allow_origin(mut self, origin: Origin) -> Self {
        self.way.scope.origins.push(origin);
        self
    }

    /// Where requests go whose URI has no host: everything inside a tonic `Channel`, or a router in process. Without it they fail with
    /// [`ScopeError::NoOrigin`](crate::ScopeError::NoOrigin).
    pub fn assume_origin(mut self, origin: Origin) -> Self {
        self.way.scope.assumed = Some(origin);
        self
    }

    /// Lets the token travel in plaintext to other machines, where everybody on the way can read it: for a network that encrypts by
    /// itself. Without it such requests fail with [`ScopeError::Plaintext`](crate::ScopeError::Plaintext); loopback needs no leave.
    pub fn allow_plaintext(mut self) -> Self {
        self.way.scope.plaintext = true;
        self
    }

    /// The client below follows no redirects, or none that leads to another host. Without it a request that goes to reqwest with the token in any header but
    /// `Authorization` fails with [`ScopeError::Redirects`](crate::ScopeError::Redirects): on the way to another host reqwest strips that one alone.
    ///
    /// Through tower-reqwest an answer does not tell where it came from, so that another host's 401 would count as the API's: build such a client without redirects in any case.
    pub fn redirects_handled(mut self) -> Self {
        self.way.redirects_handled = true;
        self
    }

    /// What becomes of a request when no token can be had. Default [`OnUnavailable::Fail`].
    pub fn on_unavailable(mut self, choice: OnUnavailable) -> Self {
        self.way.on_unavailable = choice;
        self
    }

    /// For body types that do not implement [`ReplayBody`](crate::ReplayBody): a closure that copies a body, or says that it cannot. It vouches that
    /// the copy is the same bytes and reads none of the original's: a `Clone` that shares one stream is no copy.
    ///
    /// ```
    /// # use tower_jwt_refresh::{BoxError, JwtRefreshLayer, Token, TokenProvider, TokenRequest};
    /// # let provider = TokenProvider::new(tower::service_fn(|_: TokenRequest| async { Ok::<_, BoxError>(Token::opaque("t")?) }));
    /// struct Theirs { bytes: Option<Vec<u8>> }
    ///
    /// let layer = JwtRefreshLayer::new(provider)
    ///     .replay_with(|body: &Theirs| Some(Theirs { bytes: Some(body.bytes.clone()?) }));
    /// ```
    pub fn replay_with<B, F: Fn(&B) -> Option<B>>(self, copy: F) -> JwtRefreshLayer<P, CopyWith<F>> {
        JwtRefreshLayer { policy: self.policy, keep: CopyWith::new(copy), way: self.way }
    }

    /// For body types that do not implement [`ReplayBody`](crate::ReplayBody): none is copied. A refused request is not resent, and the token is replaced
    /// for the next one.
    pub fn replay_none(self) -> JwtRefreshLayer<P, Never> {
        JwtRefreshLayer { policy: self.policy, keep: Never, way: self.way }
    }
}

#[cfg(feature = "reqwest-middleware")]
impl<P, K> JwtRefreshLayer<P, K> {
    pub(crate) fn with_provider(mut self, provider: TokenProvider) -> Self {
        self.way.provider = provider;
        self
    }
}

impl<S, P: Clone, K: Clone> Layer<S> for JwtRefreshLayer<P, K> {
    type Service = JwtRefresh<S, P, K>;

    fn layer(&self, inner: S) -> Self::Service {
        JwtRefresh::new(inner, self.policy.clone(), self.keep.clone(), Arc::new(self.way.clone()))
    }
}

impl<P, K> fmt::Debug for JwtRefreshLayer<P, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JwtRefreshLayer").field("way", &self.way).finish_non_exhaustive()
    }
}
