//! What the tests stand on: a token endpoint that does what it is told, an API that judges tokens, and the log.
//!
//! Time is tokio's paused clock ([`provider`] takes a clock that follows it), so nothing sleeps for real and durations are exact.

#![allow(dead_code, unreachable_pub, unused_imports, reason = "each test file uses its part")]

mod api;
mod endpoint;
mod logs;
pub mod whole_run;

pub use api::{Api, Seen, answer, get, post};
pub use endpoint::{Asked, Endpoint, Reply};
pub use logs::Logs;

use std::time::Duration;
use tower_jwt_refresh::{TokenProvider, TokenProviderBuilder, clock::ManualClock};

pub const SECOND: Duration = Duration::from_secs(1);
pub const MINUTE: Duration = Duration::from_secs(60);
pub const HOUR: Duration = Duration::from_secs(3600);

/// A builder whose clocks follow tokio's paused one, and the hands of those clocks.
pub fn builder() -> (TokenProviderBuilder, ManualClock) {
    whole_run::listen();
    let clock = ManualClock::following_tokio();
    (TokenProvider::builder().clock(clock.clone()), clock)
}

/// A provider with the default settings.
pub fn provider(endpoint: &Endpoint) -> (TokenProvider, ManualClock) {
    let (builder, clock) = builder();
    (builder.build(endpoint.source()).expect("the defaults are valid"), clock)
}

/// A provider without a loop that holds `t1`, which the API refuses; it is a minute old.
pub async fn refused(endpoint: &Endpoint, api: &Api) -> TokenProvider {
    let (provider, _) = provider(endpoint);
    provider.token().await.expect("the endpoint works");
    pass(MINUTE).await;
    api.revoke("t1");
    provider
}

/// [`refused`], with the API that does so.
pub async fn revoked(endpoint: &Endpoint) -> (TokenProvider, Api) {
    let api = Api::new();
    (refused(endpoint, &api).await, api)
}

/// Lets time pass, and everything happen that happens meanwhile.
pub async fn pass(span: Duration) {
    tokio::time::sleep(span).await;
    settle().await;
}

/// Lets everything happen that can happen now.
pub async fn settle() {
    for _ in 0..64 {
        tokio::task::yield_now().await;
    }
}
