//! The refresh token: one at a time may be shown, and its successor is kept before anything else is done.
//!
//! Whoever fetches holds the lock from before the token is read until its successor is kept. So no two fetches show the same token, which a server
//! that rotates them takes for theft, and the callback sees successors in their order. The callback runs in a task of its own that takes the lock along:
//! a fetch that is dropped meanwhile does not stop it.

use crate::BoxError;
use std::{future::Future, pin::Pin, sync::Arc, time::Duration};
use tokio::sync::{Mutex, OwnedMutexGuard};
use tracing::{Instrument, warn};
use zeroize::Zeroizing;

/// With the 20 s that a fetch may take, below the 30 s of a provider's `fetch_timeout`: a hanging callback costs no token.
const LIMIT: Duration = Duration::from_secs(5);

pub(super) type Persist = dyn Fn(&str) -> Pin<Box<dyn Future<Output = Result<(), BoxError>> + Send>> + Send + Sync;

pub(super) struct Rotation {
    held: Arc<Mutex<Held>>,
    pub(super) persist: Option<Arc<Persist>>,
}

struct Held {
    token: Zeroizing<String>,
    /// The callback has not kept it yet.
    unsaved: bool,
    /// That was said.
    warned: bool,
}

/// The right to show the refresh token.
pub(super) struct Turn {
    held: OwnedMutexGuard<Held>,
    persist: Option<Arc<Persist>>,
}

impl Rotation {
    pub(super) fn new(token: Zeroizing<String>) -> Self {
        Self { held: Arc::new(Mutex::new(Held { token, unsaved: false, warned: false })), persist: None }
    }

    pub(super) async fn turn(&self) -> Turn {
        Turn { held: Arc::clone(&self.held).lock_owned().await, persist: self.persist.clone() }
    }
}

impl Turn {
    pub(super) fn token(&self) -> &str {
        &self.held.token
    }

    /// One from outside, kept there already.
    pub(super) fn replace(mut self, token: Zeroizing<String>) {
        *self.held = Held { token, unsaved: false, warned: false };
    }

    /// Keeps the successor, if there is one: in memory at once, then by the callback. One that the callback could not keep is given to it again.
    pub(super) async fn keep(mut self, successor: Option<Zeroizing<String>>) {
        if let Some(successor) = successor.filter(|successor| *successor != self.held.token) {
            self.held.token = successor;
            self.held.unsaved = true;
        }
        let Some(persist) = self.persist.filter(|_| self.held.unsaved) else { return };
        let mut held = self.held;
        let kept = tokio::spawn(
            async move {
                let kept = tokio::time::timeout(LIMIT, async { persist(&held.token).await }).await;
                let problem = match kept {
                    Ok(Ok(())) => {
                        (held.unsaved, held.warned) = (false, false);
                        return;
                    }
                    Ok(Err(error)) => error.to_string(),
                    Err(_) => format!("it did not end within {LIMIT:?}"),
                };
                held.warn(&problem);
            }
            .in_current_span(),
        );
        if kept.await.is_err_and(|error| error.is_panic()) {
            warn_of("it panicked");
        }
    }
}

impl Held {
    /// Once until it works again.
    fn warn(&mut self, problem: &str) {
        if !std::mem::replace(&mut self.warned, true) {
            warn_of(problem);
        }
    }
}

fn warn_of(problem: &str) {
    warn!(
        problem,
        "the callback of `on_rotation` did not keep the new refresh token: it is in this process's memory alone, and a restart would show an old one; tried again with the next fetch"
    );
}
