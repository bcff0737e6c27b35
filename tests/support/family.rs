//! An authorization server whose refresh tokens are good for one use, and that withdraws all that came from a login when one is used twice.
//!
//! Stands beside `support/exchange.rs`, which the test file names `server`, and `support/oauth2.rs`, named `oauth2`.

#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]

use crate::{
    oauth2,
    server::{Server, Step, answer, ok},
    support::whole_run,
};
use std::sync::{Arc, Mutex, MutexGuard};

/// The refresh tokens `r1`, `r2`, … of one login. Clones are the same.
#[derive(Clone)]
pub struct Family(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    /// The refresh token that it takes.
    current: usize,
    /// And the one before it, until this one is used.
    before: Option<usize>,
    has_grace: bool,
    granted: usize,
    by_grace: usize,
    refused: usize,
    revoked: bool,
}

impl Family {
    /// Without a grace window.
    pub async fn strict() -> (Server, Self) {
        Self::serve(false).await
    }

    /// It takes the refresh token before the current one as well, as long as the current one was not used: its owner may never have got it.
    pub async fn with_grace() -> (Server, Self) {
        Self::serve(true).await
    }

    async fn serve(has_grace: bool) -> (Server, Self) {
        let family = Self(Arc::new(Mutex::new(State { current: 1, has_grace, ..State::default() })));
        let serving = family.clone();
        let server = oauth2::judging(move |asked| serving.judge(&asked.param("refresh_token").unwrap())).await;
        (server, family)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    fn judge(&self, shown: &str) -> Vec<Step> {
        whole_run::secret(shown);
        let mut state = self.state();
        let shown: usize = shown[1..].parse().unwrap();
        let by_grace = state.has_grace && state.before == Some(shown);
        if state.revoked || (shown != state.current && !by_grace) {
            (state.revoked, state.refused) = (true, state.refused + 1);
            return answer("400 Bad Request", "", r#"{"error":"invalid_grant"}"#);
        }
        state.before = Some(shown);
        // Never one that was given before.
        state.current = state.granted + 2;
        state.granted += 1;
        state.by_grace += usize::from(by_grace);
        let (number, next) = (state.granted, state.current);
        ok(&format!(
            r#"{{"access_token":"t{number}","token_type":"Bearer","expires_in":3600,"refresh_token":"r{next}"}}"#
        ))
    }

    pub fn granted(&self) -> usize {
        self.state().granted
    }

    /// How often it needed its grace.
    pub fn by_grace(&self) -> usize {
        self.state().by_grace
    }

    /// How often it answered `invalid_grant`.
    pub fn refused(&self) -> usize {
        self.state().refused
    }
}
