//! Client-side [`tower`] middleware that keeps a short-lived bearer token fresh and on every outgoing request.
//!
//! A program holds a durable credential (an API key, a client secret), exchanges it for a token that lives for minutes, and dies
//! hours later of `401 Invalid JWT`. Put a [`JwtRefreshLayer`] around its client, and as long as the credential is good it never sees that
//! 401: the token is renewed before it expires, by one fetch however many requests need it, and a 401 that comes all the same is answered by a
//! refresh and a resend.
//!
//! ```
//! use bytes::Bytes;
//! use http_body_util::Full;
//! use tower::{Service, ServiceBuilder, ServiceExt};
//! use tower_jwt_refresh::{BoxError, JwtRefreshLayer, Token, TokenProvider, TokenRequest};
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), BoxError> {
//! # async fn exchange_my_api_key() -> Result<String, BoxError> { Ok("e30.e30.c2ln".into()) }
//! // Where tokens come from: any async function, or a source of this crate.
//! let source = tower::service_fn(|_: TokenRequest| async {
//!     let jwt = exchange_my_api_key().await?;
//!     Ok::<_, BoxError>(Token::from_jwt(jwt)?)
//! });
//! // Holds the token. Clone it for every client that uses the same credential.
//! let provider = TokenProvider::new(source);
//! provider.init().await?;
//!
//! // Any client that is a tower service: hyper-util's, a tonic `Channel`, ...
//! # let client = tower::service_fn(|request: http::Request<Full<Bytes>>| async move {
//! #     assert_eq!(request.headers()["authorization"], "Bearer e30.e30.c2ln");
//! #     Ok::<_, BoxError>(http::Response::new(()))
//! # });
//! let mut client = ServiceBuilder::new().layer(JwtRefreshLayer::new(provider)).service(client);
//!
//! let request = http::Request::get("https://api.example.com/jobs/1").body(Full::<Bytes>::default())?;
//! let response = client.ready().await?.call(request).await?;
//! # assert!(response.status().is_success());
//! # Ok(()) }
//! ```
//!
//! # What a request gets
//! | the token held | what happens |
//! | --- | --- |
//! | is good for a while, or has no known expiry | sent at once: no lock, no wait |
//! | expires within [`refresh_before`](TokenProviderBuilder::refresh_before) (300 s, at most half of its life) | sent at once, and a refresh starts beside it |
//! | expires within [`min_runway`](TokenProviderBuilder::min_runway) (60 s, at most 5 % of its life) | the request waits for the refresh, at most 1 s or half of what is left; then the living token is sent |
//! | was rejected | the request waits for its successor |
//! | is dead, or there is none | the request waits for the fetch; if that fails, see [`OnUnavailable`] |
//!
//! A 401 (or gRPC status 16, or what [`RetryPolicy::reject_when`] names) marks the token that *this request carried*. If a newer one is there
//! already, the request is sent again with it; else all requests that were refused wait for one fetch. A second 401 is the caller's, with its
//! body.
//!
//! # What you can rely on
//! - One fetch at a time, whoever asks, in success and in failure: a hundred callers on a failing source cost one fetch, not a hundred.
//! - A fetch belongs to nobody: a caller that is cancelled neither stops nor restarts it, and a source that panics or hangs is an
//!   error for those who wait, no more.
//! - A token that lives and was not rejected is never withheld because a refresh is slow or down, and one that is known to be dead is never
//!   sent while a refresh could replace it. Dead is what *either* clock says is dead: the wall clock, for a machine that was suspended, or the
//!   monotonic clock, for a wall clock that was set back.
//! - Fetches are bounded under every failure: endpoint down, every token refused, one resource forbidden for ever, clocks wrong by hours, tokens
//!   that are born dead. A server that answers 401 to everything gets its 401s through, not a storm of fetches.
//! - The token goes over TLS or to this machine, to the origins you list if you list any, is marked sensitive, never printed, and wiped
//!   from memory when its last user is gone.
//!
//! # Sources
//! A source is any [`tower::Service`] of [`TokenRequest`] that answers with a [`Token`]. Timeouts, limits and retries around it are tower
//! layers. Say [`SourceError::permanent`] where asking again cannot help. Ready-made ones are in [`source`], and a [page](docs::sources) says which to take.
//!
//! # Many tenants
//! [`TokenProviders`] keeps a provider per key, made on first use and dropped when idle; [`UseToken`] puts the right one's token on a request:
//! ```
//! # use tower_jwt_refresh::{BoxError, TokenProvider, TokenProviders, UseToken};
//! # fn provider_of(_: &str) -> Result<TokenProvider, BoxError> { Ok(TokenProvider::new(tower::service_fn(|_| async { Err::<tower_jwt_refresh::Token, _>("-") }))) }
//! # fn main() -> Result<(), BoxError> {
//! let providers: TokenProviders<String> = TokenProviders::new(|tenant: &String| provider_of(tenant));
//! # let tenant = "acme";
//! let request = http::Request::get("https://api.example.com/jobs/1").extension(UseToken(providers.get(tenant)?));
//! # drop(request); Ok(()) }
//! ```
//! One tenant's trouble is never another's, and no second provider is ever made beside one that is in use.
//!
//! # Cancel safety
//! All futures of this crate may be dropped at any point. What they started goes on by itself; what they held (a request, a permit of the inner
//! service) is dropped with them.
//!
//! # Limits
//! - The background loop needs [`TokenProvider::init`], and like every timer it stands still while the machine sleeps: after a suspend it is the
//!   first request that finds the token dead, and waits for a new one.
//! - A request body is sent again if it is in memory, or boxed and not above 128 KiB: it is recorded while it is sent ([`ReplayBody`]). For types of
//!   third crates there is a [closure](JwtRefreshLayer::replay_with). Where it cannot be sent again, the caller gets the 401, and the next request
//!   a new token.
//! - Redirects that a client follows *below* the layer are out of its hands. reqwest and tower-http strip `Authorization` when they
//!   lead to another host, but not a custom header.
//! - A large HTTP/1.1 upload that is refused early mostly ends in a broken pipe instead of the 401, so there is no refusal to see; the next request
//!   heals.
//! - A client whose body names a boxed error, such as `BoxBody<Bytes, BoxError>`, is called in a spawned task only from within a
//!   [box](docs::order#boxes): a limit of the compiler that tower's own stacks meet as well.
//! - Signatures are not verified: that is the server's to do.
//!
//! # Features
//! None is on by default.
//!
//! | feature | what it adds |
//! | --- | --- |
//! | `axum` | `axum::body::Body` can be sent again |
//! | `command` | `source::TokenCommand`: runs a program, such as a cloud's command-line tool, that prints a token |
//! | `exchange` | `source::Exchange`: a durable credential in, a token out, over hyper with TLS, by way of the environment's proxies |
//! | `file` | `source::TokenFile`: a token that somebody else writes into a file and replaces there |
//! | `follow-redirect` | a redirect's target, followed by tower-http below the layer, cannot reject a token it never got |
//! | `oauth2` | `source::oauth2`: client credentials, refresh token with rotation, JWT bearer, token exchange; discovery, challenges |
//! | `redis` | `store::RedisStore`: one token for the processes of many hosts, in a Redis or Valkey; `redis-cluster` and `redis-sentinel` for those |
//! | `reqwest` | `reqwest::Client` under the layer, and `reqwest::Body` can be sent again |
//! | `reqwest-middleware` | the layer is a `reqwest_middleware::Middleware` |
//! | `seal` | `store::Sealed`: what a store keeps is encrypted |
//! | `signed-jwt` | `source::SignedJwt`: tokens signed here, with a key of one's own |
//! | `store` | `store::StoreLayer`: processes share one token, by a file (`store::FileStore`) or a store of your own |
//! | `tonic` | `tonic::body::Body` can be sent again, a stream's late refusal is seen, `clients::TokenInterceptor`, errors as a `Status` |
//! | `test-util` | `clock::ManualClock`, to move time in your tests, and `TokenProviderBuilder::jitter_seed`, to repeat them |
//! | `full` | all of them |
//!
//! # Where to look
//! [`TokenProvider`] holds the token, [`TokenProviders`] one for each tenant, [`JwtRefreshLayer`] puts it on requests, [`RetryPolicy`] judges answers, [`Placement`] and [`Origin`] say where it
//! goes, [`TokenError`] says why there is none. [`docs`] has pages: where the layer stands among others, where tokens come from, how processes share one, and what
//! serves clients that take no layer.
#![forbid(unsafe_code)]
#![deny(missing_docs)]
#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod body;
mod builder_ext;
pub mod clients;
pub mod clock;
pub mod docs;
mod error;
mod future;
mod layer;
mod placement;
mod policy;
mod provider;
mod providers;
pub mod request;
mod scope;
mod service;
pub mod source;
#[cfg(feature = "store")]
pub mod store;
mod token;

pub use body::ReplayBody;
pub use builder_ext::ServiceBuilderExt;
pub use error::{ConfigError, FetchError, TokenError};
pub use future::ResponseFuture;
pub use layer::{JwtRefreshLayer, NoToken, OnUnavailable, UseToken};
pub use placement::Placement;
pub use policy::{Answer, Attempt, RetryPolicy};
pub use provider::{TokenProvider, TokenProviderBuilder, TokenStatus};
pub use providers::{TokenProviders, TokenProvidersBuilder};
pub use request::{RejectableResponse, ReplayRequest};
pub use scope::{Origin, ScopeError};
pub use service::JwtRefresh;
pub use source::{SourceError, TokenRequest};
pub use token::{Generation, InvalidToken, Token};

/// The error type of tower's own middleware: boxed, and given back by `downcast_ref`.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;
