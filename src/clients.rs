//! Other people's clients, each behind a feature of its name.
//!
//! Whatever is a [`tower::Service`] of an `http::Request` goes under the [layer](crate::JwtRefreshLayer) as it is. Here is what goes
//! beyond that: body types that can be sent again, `reqwest::Client`, which has a request type of its own, and doors for clients that are no tower services.

#[cfg(feature = "axum")]
mod axum;
#[cfg(feature = "reqwest")]
mod reqwest;
#[cfg(feature = "reqwest-middleware")]
mod reqwest_middleware;
#[cfg(feature = "tonic")]
mod tonic;

#[cfg(feature = "tonic")]
#[doc(hidden)]
pub use tonic::StatusSlot;
#[cfg(feature = "tonic")]
pub use tonic::TokenInterceptor;
#[cfg(feature = "tonic")]
pub(crate) use tonic::{status_of, watch_trailers};
