//! A gRPC server on loopback with a generated client, in each of gRPC's four shapes. `generate` makes `generated.rs` of `echo.proto`.

#![allow(dead_code, unreachable_pub, unused_imports, reason = "each test file uses its part")]

#[rustfmt::skip]
#[allow(clippy::all, clippy::pedantic, missing_debug_implementations, rust_2018_idioms, reason = "generated")]
mod generated;
mod server;

pub use generated::{Word, echo_client::EchoClient};
pub use server::{Seen, Server, refusal};

use super::support::{Endpoint, HOUR};
use std::{future::Future, time::Duration};
use tower_jwt_refresh::{Token, TokenProvider, TokenProviderBuilder, clock::ManualClock};

pub fn word(text: impl Into<String>) -> Word {
    Word { text: text.into() }
}

/// Holds `old`, which is good for an hour. The endpoint gives `t1`, `t2` and so on. Its clocks stand still until told.
pub fn provider(endpoint: &Endpoint) -> (TokenProvider, ManualClock) {
    let clock = ManualClock::new();
    let old = Token::opaque("old").expect("a legal token").with_expires_in(HOUR);
    let provider = TokenProvider::builder().clock(clock.clone()).seed(old).build(endpoint.source());
    (provider.expect("the defaults are valid"), clock)
}

/// A test that waits for what never comes fails, instead of holding up all others.
pub async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(10), what).await.expect("it never happened")
}
