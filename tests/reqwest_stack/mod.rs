//! What the three ways to put the layer around reqwest have in common: a server on a real socket, and the table of behaviours.

#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]

mod server;
pub mod table;

pub use server::Server;

use crate::support::Endpoint;
use http::StatusCode;
use reqwest::{Client, Request};
use std::future::Future;
use tower_jwt_refresh::{BoxError, JwtRefreshLayer, Token, TokenProvider, clock::ManualClock};

/// One way to put the layer around reqwest. Its errors are the layer's own or reqwest's, out of whatever the way wraps them in.
pub trait Stack: Clone + Send + Sync + 'static {
    fn new(layer: JwtRefreshLayer, client: Client) -> Self;
    fn send(&self, request: Request) -> impl Future<Output = Result<(StatusCode, String), BoxError>> + Send;
}

pub fn http1() -> Client {
    Client::builder().no_proxy().build().unwrap()
}

pub fn http2() -> Client {
    Client::builder().no_proxy().http2_prior_knowledge().build().unwrap()
}

/// A provider that holds the token `old`, which lives for an hour by a clock that stands still; the source's first is `t1`.
pub fn seeded(endpoint: &Endpoint) -> (TokenProvider, ManualClock) {
    let clock = ManualClock::new();
    let old = Token::opaque("old").unwrap().with_expires_in(crate::support::HOUR);
    (TokenProvider::builder().clock(clock.clone()).seed(old).build(endpoint.source()).unwrap(), clock)
}
