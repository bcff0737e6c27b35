//! The refresh token: one at a time may be shown, and its successor is kept before anything else is done.
//!
//! Whoever fetches holds the lock from before the token is read until its successor is kept. So no two fetches show the same token, which a server
//! that rotates them takes for theft, and the callback sees successors in their order. The callback runs in a task of its own that takes the lock
//! along: a fetch that is dropped meanwhile does not stop it.

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
        let kept = Attempt { held: self.held, ended: None }.make(persist);
        // A panic was reported when it happened.
        let _ = tokio::spawn(kept.in_current_span()).await;
    }
}

/// One call of the callback. Its end is noted however it comes: by a panic, or with the runtime.
struct Attempt {
    held: OwnedMutexGuard<Held>,
    ended: Option<Result<(), String>>,
}

impl Attempt {
    async fn make(mut self, persist: Arc<Persist>) {
        let kept = tokio::time::timeout(LIMIT, async { persist(&self.held.token).await }).await;
        self.ended = Some(match kept {
            Ok(result) => result.map_err(|error| error.to_string()),
            Err(_) => Err(format!("it did not end within {LIMIT:?}")),
        });
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        let problem = match self.ended.take() {
            Some(Ok(())) => {
                (self.held.unsaved, self.held.warned) = (false, false);
                return;
            }
            Some(Err(problem)) => problem,
            None if std::thread::panicking() => "it panicked".to_owned(),
            None => "its runtime was shut down".to_owned(),
        };
        // Once until it works again.
        if !std::mem::replace(&mut self.held.warned, true) {
            warn!(
                problem,
                "the callback of `on_rotation` did not keep the new refresh token: it is in this process's memory alone, and a restart would show an old one; tried again with the next fetch"
            );
        }
    }
}
