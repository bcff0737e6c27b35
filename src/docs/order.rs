//! Which order of layers means what.
//!
//! In a [`ServiceBuilder`](tower::ServiceBuilder) the first layer is the outermost: it sees the request first and the answer last. What is outside of
//! this crate's layer sees one request and its final answer; what is inside sees each sending, with its token.
//!
//! | layer | outside | inside |
//! | --- | --- | --- |
//! | timeout | bounds the whole: waiting for a token, the refusal, the resend | bounds each sending |
//! | retry | repeats a request whose 401 could not be healed | repeats with the same token; a 401 comes up to be healed |
//! | trace | one span a request | one a sending; the token is marked sensitive, so it is not printed |
//! | decompression | sees the final answer | the same: a refused answer's body is not read |
//! | set-header | the caller's own headers; one that is the token's makes the layer stand back | sees the token, and can overwrite it |
//! | redirect | each hop is judged by itself, and a foreign one gets no token if origins are listed | out of the layer's hands |
//! | concurrency limit | a request that waits for a token holds its permit | it gives its permit back while it waits |
//! | load shed | sheds before a token is asked for | sheds a resend too: the answer is then the server's 401 |
//! | buffer | makes the whole stack clonable | for services that are not `Clone`, or whose clones share readiness |
//!
//! # Timeout
//! Outside, the caller's patience ends the whole; the fetch goes on for the next. This is the one to have.
//! ```
//! # use std::time::Duration;
//! # use bytes::Bytes;
//! # use http_body_util::Full;
//! # use tower::{ServiceBuilder, ServiceExt};
//! # use tower_jwt_refresh::{BoxError, JwtRefreshLayer, ServiceBuilderExt, Token, TokenProvider, TokenRequest};
//! # type Request = http::Request<Full<Bytes>>;
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), BoxError> {
//! # let provider = TokenProvider::new(tower::service_fn(|_: TokenRequest| async { Ok::<_, BoxError>(Token::opaque("t")?) }));
//! # let client = tower::service_fn(|_: Request| async { Ok::<_, BoxError>(http::Response::new(Full::<Bytes>::default())) });
//! let client = ServiceBuilder::new()
//!     .timeout(Duration::from_secs(30))
//!     .jwt_refresh(provider)
//!     .service(client);
//! # client.oneshot(http::Request::get("https://api.example.com/").body(Full::default())?).await?;
//! # Ok(()) }
//! ```
//!
//! Inside, each sending has its own. Both may be there: the outer one is then the larger.
//! ```
//! # use std::time::Duration;
//! # use bytes::Bytes;
//! # use http_body_util::Full;
//! # use tower::{ServiceBuilder, ServiceExt};
//! # use tower_jwt_refresh::{BoxError, JwtRefreshLayer, ServiceBuilderExt, Token, TokenProvider, TokenRequest};
//! # type Request = http::Request<Full<Bytes>>;
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), BoxError> {
//! # let provider = TokenProvider::new(tower::service_fn(|_: TokenRequest| async { Ok::<_, BoxError>(Token::opaque("t")?) }));
//! # let client = tower::service_fn(|_: Request| async { Ok::<_, BoxError>(http::Response::new(Full::<Bytes>::default())) });
//! let client = ServiceBuilder::new()
//!     .jwt_refresh(provider)
//!     .timeout(Duration::from_secs(10))
//!     .service(client);
//! # client.oneshot(http::Request::get("https://api.example.com/").body(Full::default())?).await?;
//! # Ok(()) }
//! ```
//!
//! # Retry
//! Outside it sees what could not be healed, and each of its tries may take a refresh and a resend of its own; the fetches stay bounded, since the provider is one.
//! Let it retry 503 and broken connections, not 401.
//! ```
//! # use std::time::Duration;
//! # use bytes::Bytes;
//! # use http_body_util::Full;
//! # use tower::{ServiceBuilder, ServiceExt};
//! # use tower_jwt_refresh::{BoxError, JwtRefreshLayer, ServiceBuilderExt, Token, TokenProvider, TokenRequest};
//! # type Request = http::Request<Full<Bytes>>;
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), BoxError> {
//! # let provider = TokenProvider::new(tower::service_fn(|_: TokenRequest| async { Ok::<_, BoxError>(Token::opaque("t")?) }));
//! # let client = tower::service_fn(|_: Request| async { Ok::<_, BoxError>(http::Response::new(Full::<Bytes>::default())) });
//! # #[derive(Clone)] struct Busy(u32);
//! # impl<E> tower::retry::Policy<Request, http::Response<Full<Bytes>>, E> for Busy {
//! #     type Future = std::future::Ready<()>;
//! #     fn retry(&mut self, _: &mut Request, answer: &mut Result<http::Response<Full<Bytes>>, E>) -> Option<Self::Future> {
//! #         let busy = answer.as_ref().is_ok_and(|answer| answer.status() == 503) && self.0 > 0;
//! #         self.0 = self.0.saturating_sub(1);
//! #         busy.then(|| std::future::ready(()))
//! #     }
//! #     fn clone_request(&mut self, request: &Request) -> Option<Request> { Some(request.clone()) }
//! # }
//! let client = ServiceBuilder::new()
//!     .retry(Busy(3))
//!     .jwt_refresh(provider)
//!     .service(client);
//! # client.oneshot(http::Request::get("https://api.example.com/").body(Full::default())?).await?;
//! # Ok(()) }
//! ```
//!
//! Inside it repeats the very request it got, token and all: right for a broken connection, and cheap.
//! ```
//! # use std::time::Duration;
//! # use bytes::Bytes;
//! # use http_body_util::Full;
//! # use tower::{ServiceBuilder, ServiceExt};
//! # use tower_jwt_refresh::{BoxError, JwtRefreshLayer, ServiceBuilderExt, Token, TokenProvider, TokenRequest};
//! # type Request = http::Request<Full<Bytes>>;
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), BoxError> {
//! # let provider = TokenProvider::new(tower::service_fn(|_: TokenRequest| async { Ok::<_, BoxError>(Token::opaque("t")?) }));
//! # let client = tower::service_fn(|_: Request| async { Ok::<_, BoxError>(http::Response::new(Full::<Bytes>::default())) });
//! # #[derive(Clone)] struct Busy(u32);
//! # impl<E> tower::retry::Policy<Request, http::Response<Full<Bytes>>, E> for Busy {
//! #     type Future = std::future::Ready<()>;
//! #     fn retry(&mut self, _: &mut Request, answer: &mut Result<http::Response<Full<Bytes>>, E>) -> Option<Self::Future> {
//! #         let busy = answer.as_ref().is_ok_and(|answer| answer.status() == 503) && self.0 > 0;
//! #         self.0 = self.0.saturating_sub(1);
//! #         busy.then(|| std::future::ready(()))
//! #     }
//! #     fn clone_request(&mut self, request: &Request) -> Option<Request> { Some(request.clone()) }
//! # }
//! let client = ServiceBuilder::new()
//!     .jwt_refresh(provider)
//!     .retry(Busy(3))
//!     .service(client);
//! # client.oneshot(http::Request::get("https://api.example.com/").body(Full::default())?).await?;
//! # Ok(()) }
//! ```
//!
//! One retry for both is a [policy](crate::Attempt) of your own in [`JwtRefreshLayer::retry`](crate::JwtRefreshLayer::retry).
//!
//! # Trace
//! Inside, it shows what goes over the wire, the refused sending among it.
//! ```
//! # use std::time::Duration;
//! # use bytes::Bytes;
//! # use http_body_util::Full;
//! # use tower::{ServiceBuilder, ServiceExt};
//! # use tower_jwt_refresh::{BoxError, JwtRefreshLayer, ServiceBuilderExt, Token, TokenProvider, TokenRequest};
//! # type Request = http::Request<Full<Bytes>>;
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), BoxError> {
//! # let provider = TokenProvider::new(tower::service_fn(|_: TokenRequest| async { Ok::<_, BoxError>(Token::opaque("t")?) }));
//! # let client = tower::service_fn(|_: Request| async { Ok::<_, BoxError>(http::Response::new(Full::<Bytes>::default())) });
//! use tower_http::trace::TraceLayer;
//!
//! let client = ServiceBuilder::new()
//!     .jwt_refresh(provider)
//!     .layer(TraceLayer::new_for_http())
//!     .service(client);
//! # client.oneshot(http::Request::get("https://api.example.com/").body(Full::default())?).await?;
//! # Ok(()) }
//! ```
//!
//! # Decompression and headers
//! tower-http's `DecompressionLayer` and `SetRequestHeaderLayer` go on either side. A header that is the token's own, set outside, is the caller's: the layer
//! leaves such a request and its 401 alone.
//! ```
//! # use std::time::Duration;
//! # use bytes::Bytes;
//! # use http_body_util::Full;
//! # use tower::{ServiceBuilder, ServiceExt};
//! # use tower_jwt_refresh::{BoxError, JwtRefreshLayer, ServiceBuilderExt, Token, TokenProvider, TokenRequest};
//! # type Request = http::Request<Full<Bytes>>;
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), BoxError> {
//! # let provider = TokenProvider::new(tower::service_fn(|_: TokenRequest| async { Ok::<_, BoxError>(Token::opaque("t")?) }));
//! # let client = tower::service_fn(|_: Request| async { Ok::<_, BoxError>(http::Response::new(Full::<Bytes>::default())) });
//! use tower_http::{decompression::DecompressionLayer, set_header::SetRequestHeaderLayer};
//!
//! let client = ServiceBuilder::new()
//!     .layer(DecompressionLayer::new())
//!     .layer(SetRequestHeaderLayer::overriding(http::header::USER_AGENT, http::HeaderValue::from_static("jobs/1.0")))
//!     .jwt_refresh(provider)
//!     .service(client);
//! # client.oneshot(http::Request::get("https://api.example.com/").body(Full::default())?).await?;
//! # Ok(()) }
//! ```
//!
//! # Redirects
//! Follow them outside, and list the origins: each hop comes through the layer, and what leads elsewhere gets no token.
//! ```
//! # use std::time::Duration;
//! # use bytes::Bytes;
//! # use http_body_util::Full;
//! # use tower::{ServiceBuilder, ServiceExt};
//! # use tower_jwt_refresh::{BoxError, JwtRefreshLayer, ServiceBuilderExt, Token, TokenProvider, TokenRequest};
//! # type Request = http::Request<Full<Bytes>>;
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), BoxError> {
//! # let provider = TokenProvider::new(tower::service_fn(|_: TokenRequest| async { Ok::<_, BoxError>(Token::opaque("t")?) }));
//! # let client = tower::service_fn(|_: Request| async { Ok::<_, BoxError>(http::Response::new(Full::<Bytes>::default())) });
//! use tower_http::follow_redirect::FollowRedirectLayer;
//! use tower_jwt_refresh::Origin;
//!
//! let layer = JwtRefreshLayer::new(provider).allow_origin(Origin::parse("https://api.example.com")?);
//! let client = ServiceBuilder::new()
//!     .layer(FollowRedirectLayer::new())
//!     .layer(layer)
//!     .service(client);
//! # client.oneshot(http::Request::get("https://api.example.com/").body(Full::default())?).await?;
//! # Ok(()) }
//! ```
//!
//! Inside, or in a client that follows them by itself, `Authorization` is stripped on the way to another host and a custom header is not. With the feature
//! `follow-redirect` another host's 401 at least rejects nothing.
//!
//! # Limits
//! Inside, a request that waits for a token gives its permit back, so a source behind the same limit gets through. Outside, it keeps the permit of
//! the outer limit: give the source a client of its own then.
//! ```
//! # use std::time::Duration;
//! # use bytes::Bytes;
//! # use http_body_util::Full;
//! # use tower::{ServiceBuilder, ServiceExt};
//! # use tower_jwt_refresh::{BoxError, JwtRefreshLayer, ServiceBuilderExt, Token, TokenProvider, TokenRequest};
//! # type Request = http::Request<Full<Bytes>>;
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), BoxError> {
//! # let provider = TokenProvider::new(tower::service_fn(|_: TokenRequest| async { Ok::<_, BoxError>(Token::opaque("t")?) }));
//! # let client = tower::service_fn(|_: Request| async { Ok::<_, BoxError>(http::Response::new(Full::<Bytes>::default())) });
//! let client = ServiceBuilder::new()
//!     .jwt_refresh(provider)
//!     .concurrency_limit(100)
//!     .service(client);
//! # client.oneshot(http::Request::get("https://api.example.com/").body(Full::default())?).await?;
//! # Ok(()) }
//! ```
//!
//! A load shedder inside answers for a resend as for any request. Outside it looks at the readiness of the whole.
//! ```
//! # use std::time::Duration;
//! # use bytes::Bytes;
//! # use http_body_util::Full;
//! # use tower::{ServiceBuilder, ServiceExt};
//! # use tower_jwt_refresh::{BoxError, JwtRefreshLayer, ServiceBuilderExt, Token, TokenProvider, TokenRequest};
//! # type Request = http::Request<Full<Bytes>>;
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), BoxError> {
//! # let provider = TokenProvider::new(tower::service_fn(|_: TokenRequest| async { Ok::<_, BoxError>(Token::opaque("t")?) }));
//! # let client = tower::service_fn(|_: Request| async { Ok::<_, BoxError>(http::Response::new(Full::<Bytes>::default())) });
//! let client = ServiceBuilder::new()
//!     .load_shed()
//!     .jwt_refresh(provider)
//!     .concurrency_limit(100)
//!     .service(client);
//! # client.oneshot(http::Request::get("https://api.example.com/").body(Full::default())?).await?;
//! # Ok(()) }
//! ```
//!
//! # Services that cannot be cloned
//! The layer clones what is inside it, for the resend. `Balance` and `RateLimit` cannot be cloned, and the clones of `Steer` take one another's
//! readiness for their own: a `Buffer` goes between.
//! ```
//! # use std::time::Duration;
//! # use bytes::Bytes;
//! # use http_body_util::Full;
//! # use tower::{ServiceBuilder, ServiceExt};
//! # use tower_jwt_refresh::{BoxError, JwtRefreshLayer, ServiceBuilderExt, Token, TokenProvider, TokenRequest};
//! # type Request = http::Request<Full<Bytes>>;
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), BoxError> {
//! # let provider = TokenProvider::new(tower::service_fn(|_: TokenRequest| async { Ok::<_, BoxError>(Token::opaque("t")?) }));
//! # let client = tower::service_fn(|_: Request| async { Ok::<_, BoxError>(http::Response::new(Full::<Bytes>::default())) });
//! let client = ServiceBuilder::new()
//!     .jwt_refresh(provider)
//!     .buffer(64)
//!     .rate_limit(100, Duration::from_secs(1))
//!     .service(client);
//! # client.oneshot(http::Request::get("https://api.example.com/").body(Full::default())?).await?;
//! # Ok(()) }
//! ```
//!
//! # Boxes
//! `BoxCloneSyncService` is fine outside and inside; `BoxService` cannot be cloned, and goes outside only, or behind a `Buffer`.
//! ```
//! # use std::time::Duration;
//! # use bytes::Bytes;
//! # use http_body_util::Full;
//! # use tower::{ServiceBuilder, ServiceExt};
//! # use tower_jwt_refresh::{BoxError, JwtRefreshLayer, ServiceBuilderExt, Token, TokenProvider, TokenRequest};
//! # type Request = http::Request<Full<Bytes>>;
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), BoxError> {
//! # let provider = TokenProvider::new(tower::service_fn(|_: TokenRequest| async { Ok::<_, BoxError>(Token::opaque("t")?) }));
//! # let client = tower::service_fn(|_: Request| async { Ok::<_, BoxError>(http::Response::new(Full::<Bytes>::default())) });
//! use tower::util::BoxCloneSyncService;
//!
//! let client = BoxCloneSyncService::new(client);
//! let client = BoxCloneSyncService::new(ServiceBuilder::new().jwt_refresh(provider).service(client));
//! # client.oneshot(http::Request::get("https://api.example.com/").body(Full::default())?).await?;
//! # Ok(()) }
//! ```
