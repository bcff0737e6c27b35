//! Client-side tower middleware that keeps a bearer token fresh. (Front page: to come.)
#![forbid(unsafe_code)]
#![deny(missing_docs)]
#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod body;
pub mod clock;
mod error;
mod future;
mod layer;
mod placement;
mod policy;
mod provider;
pub mod request;
mod scope;
mod service;
pub mod source;
mod token;

pub use body::ReplayBody;
pub use error::{ConfigError, FetchError, TokenError};
pub use future::ResponseFuture;
pub use layer::{JwtRefreshLayer, NoToken, OnUnavailable, UseToken};
pub use placement::Placement;
pub use policy::{Answer, Attempt, RetryPolicy};
pub use provider::{TokenProvider, TokenProviderBuilder, TokenStatus};
pub use request::{RejectableResponse, ReplayRequest};
pub use scope::{Origin, ScopeError};
pub use service::JwtRefresh;
pub use source::{SourceError, TokenRequest};
pub use token::{Generation, InvalidToken, Token};

/// The error type of tower's own middleware: boxed, and given back by `downcast_ref`.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;
