//! Client-side tower middleware that keeps a bearer token fresh. (Front page: to come.)
#![forbid(unsafe_code)]
#![deny(missing_docs)]
#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod clock;
mod error;
pub mod source;
mod token;

pub use error::{ConfigError, FetchError, TokenError};
pub use source::TokenRequest;
pub use token::{Generation, InvalidToken, Token};

/// The error type of tower's own middleware: boxed, and given back by `downcast_ref`.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;
