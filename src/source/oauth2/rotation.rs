//! The refresh token: one at a time may be shown, and its successor is kept before anything else is done.
//!
//! Whoever fetches takes a *turn* before the token is read, and has it until the successor is kept. So no two fetches show the same token, which a
//! server that rotates them takes for theft, and the callback sees successors in their order. The callback runs in a task of its own that takes the
//! turn along: a fetch that is dropped meanwhile does not stop it.
//!
//! A turn has a number and an end: `timeout`, which no request outlasts, and the 5 s of the callback. The end is for a runtime that nobody drives any
//! more: its fetch neither goes on nor is dropped. Whoever finds a turn past its end, after a wait or at once, takes the next number, and with it the
//! turn. The lock is held for moments, never across an await, and all who wait are woken when a turn ends: no frozen one can sit on either.
//!
//! What an owner may do that has lost its turn so, and runs again:
//! - show the token: no. It looks at the number right before it asks. A request that had begun cannot be taken back: if it froze while it connected, the
//!   token may be shown twice.
//! - keep a successor: in memory, and only if the token is still the one that it showed. It may be the only good one. Else what is held is newer: by
//!   the next fetch, or a login.
//! - call the callback, or go on with a call: no, it could put an old token over a new one. The next turn saves what is not saved.
//! - end the turn: no, that is another's.
//!
//! With a store around the source, its lock keeps processes apart, and it is the store that says which token to show: what is in memory here may have been
//! spent by another process. A login's goes before that, until the server has answered it. One that the source was made with and never showed comes after: it
//! is tried where the store's is refused, as somebody may have logged in again and restarted. Either way the other one of the two is tried once.

use super::error::OAuth2Error;
use crate::{BoxError, SourceError, source::SharedRefreshToken};
use std::{
    future::{Future, poll_fn},
    pin::{Pin, pin},
    sync::{Arc, Mutex, MutexGuard},
    task::Poll,
    time::Duration,
};
use tokio::{
    runtime::Handle,
    sync::Notify,
    time::{Instant, timeout, timeout_at},
};
use tracing::{Instrument, warn};
use zeroize::Zeroizing;

/// With the 20 s that a fetch may take, below the 30 s of a provider's `fetch_timeout`: a hanging callback costs no token.
const LIMIT: Duration = Duration::from_secs(5);

pub(super) type Persist = dyn Fn(&str) -> Pin<Box<dyn Future<Output = Result<(), BoxError>> + Send>> + Send + Sync;

pub(super) struct Rotation {
    shared: Arc<Shared>,
    pub(super) persist: Option<Arc<Persist>>,
}

struct Shared {
    held: Mutex<Held>,
    /// Wakes all who wait: one alone may be frozen, and the word lost with it.
    freed: Notify,
}

struct Held {
    token: Zeroizing<String>,
    /// What was shown for it.
    spent: Option<Zeroizing<String>>,
    /// It is a login's, and no answer to it has come yet.
    login: bool,
    /// What the source was made with, until an answer to it has come.
    untried: Option<Zeroizing<String>>,
    /// The callback has not kept it yet.
    unsaved: bool,
    /// That was said.
    warned: bool,
    /// Of the turn that was taken last.
    number: u64,
    /// When that turn is overdue, unless it is over.
    ends: Option<Instant>,
}

impl Shared {
    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().expect("nothing panics while it holds the refresh token")
    }
}

impl Rotation {
    pub(super) fn new(token: Zeroizing<String>) -> Self {
        let untried = Some(token.clone());
        let held =
            Held { token, spent: None, login: false, untried, unsaved: false, warned: false, number: 0, ends: None };
        Self { shared: Arc::new(Shared { held: Mutex::new(held), freed: Notify::new() }), persist: None }
    }

    /// Waits for it. `limit` is what a fetch may take.
    pub(super) async fn turn(&self, limit: Duration) -> Arc<Turn> {
        loop {
            // Before the look, so that a turn that ends right after it is not missed.
            let freed = self.shared.freed.notified();
            let ends = match self.shared.held() {
                held if held.ends.is_none_or(|ends| ends <= Instant::now()) => return self.take(held, limit),
                held => held.ends.unwrap_or_else(Instant::now),
            };
            let _ = timeout_at(ends, freed).await;
        }
    }

    /// Another one from outside, kept there already.
    pub(super) async fn replace(&self, token: Zeroizing<String>, limit: Duration) {
        let turn = match Handle::try_current() {
            Ok(_) => timeout(limit + LIMIT, self.turn(limit)).await.ok(),
            // No timer, so no end to a wait.
            Err(_) => None,
        };
        // Not its turn, and still the newest: whoever had the turn has lost it, and puts nothing over this.
        let turn = turn.unwrap_or_else(|| self.take(self.shared.held(), limit));
        let mut held = turn.held();
        (held.token, held.unsaved, held.warned) = (token, false, false);
        (held.spent, held.login, held.untried) = (None, true, None);
    }

    fn take(&self, mut held: MutexGuard<'_, Held>, limit: Duration) -> Arc<Turn> {
        held.number += 1;
        held.ends = Some(Instant::now() + limit + LIMIT);
        Arc::new(Turn {
            token: held.token.clone(),
            second: None,
            right: Arc::new(Right { number: held.number, shared: Arc::clone(&self.shared) }),
            persist: self.persist.clone(),
        })
    }
}

/// The right to show the refresh token, and the token.
pub(super) struct Turn {
    token: Zeroizing<String>,
    /// To be shown if that one is refused.
    second: Option<Zeroizing<String>>,
    right: Arc<Right>,
    persist: Option<Arc<Persist>>,
}

/// It is over with its last handle.
struct Right {
    number: u64,
    shared: Arc<Shared>,
}

impl Turn {
    pub(super) fn token(&self) -> &str {
        &self.token
    }

    /// The turn with what a store around the source has to say.
    pub(super) fn sharing(&self, kept: &SharedRefreshToken) -> Result<Arc<Self>, SourceError> {
        if !kept.may_spend() {
            return Err(SourceError::transient(OAuth2Error::NotShown));
        }
        let held = self.held();
        let (login, untried) = (held.login.then(|| held.token.clone()), held.untried.clone());
        // Lent before it was shown here, by another fetch or by this one's first attempt.
        let spent = held.spent.as_ref().filter(|spent| kept.kept.as_ref() == Some(*spent));
        let newer = spent.map(|_| held.token.clone());
        drop(held);
        let kept = match (&kept.kept, kept.signed_out) {
            // What it was made with is of the login that was ended, if it has seen that one.
            (None, true) if login.is_none() && (untried.is_none() || kept.saw_login) => {
                return Err(SourceError::permanent(OAuth2Error::SignedOut));
            }
            (None, true) => None,
            (None, false) => Some(self.token.clone()),
            (Some(kept), _) => Some(newer.unwrap_or_else(|| kept.clone())),
        };
        let mut tokens = login.into_iter().chain(kept).chain(untried);
        let token = tokens.next().expect("one of them is there");
        let second = tokens.find(|other| *other != token);
        Ok(self.showing(token, second))
    }

    fn showing(&self, token: Zeroizing<String>, second: Option<Zeroizing<String>>) -> Arc<Self> {
        Arc::new(Self { token, second, right: Arc::clone(&self.right), persist: self.persist.clone() })
    }

    /// Notes that the server has answered, for better or for worse.
    fn answered(&self) {
        let mut held = self.held();
        if held.token == self.token {
            held.login = false;
        }
        if held.untried.as_ref() == Some(&self.token) {
            held.untried = None;
        }
    }

    /// The turn with the other token, once this one is refused.
    pub(super) fn refused(self: &Arc<Self>) -> Option<Arc<Self>> {
        self.answered();
        self.second.clone().map(|second| self.showing(second, None))
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.right.shared.held()
    }

    /// Nobody has taken it over.
    pub(super) fn is_mine(&self) -> bool {
        self.held().number == self.right.number
    }

    /// Gives the callback once more what it could not keep, before it is shown: what is spent then is at least not what a restart shows. If it fails
    /// again the token is shown all the same, as this process holds what comes. A quarter of a fetch at most, so that the request has its time.
    pub(super) async fn save_first(self: &Arc<Self>, limit: Duration) {
        self.save(LIMIT.min(limit / 4)).await;
    }

    /// Keeps the successor, if there is one: in memory at once, then by the callback.
    pub(super) async fn keep(self: Arc<Self>, successor: Option<Zeroizing<String>>) {
        self.answered();
        let Some(successor) = successor.filter(|successor| *successor != self.token) else { return };
        match self.held() {
            mut held if held.number == self.right.number || held.token == self.token => {
                held.spent = Some(self.token.clone());
                (held.token, held.unsaved) = (successor, true);
            }
            _ => return,
        }
        self.save(LIMIT).await;
    }

    async fn save(self: &Arc<Self>, within: Duration) {
        let Some(persist) = self.persist.clone() else { return };
        let token = match self.held() {
            held if held.unsaved && held.number == self.right.number => held.token.clone(),
            _ => return,
        };
        let attempt = Attempt { turn: Arc::clone(self), token, ended: None };
        // A panic was reported when it happened.
        let _ = tokio::spawn(attempt.make(persist, within).in_current_span()).await;
    }
}

impl Drop for Right {
    fn drop(&mut self) {
        let mut held = self.shared.held();
        if held.number == self.number {
            held.ends = None;
            drop(held);
            self.shared.freed.notify_waiters();
        }
    }
}

/// One call of the callback. Its end is noted however it comes: by a panic, or with the runtime.
struct Attempt {
    turn: Arc<Turn>,
    token: Zeroizing<String>,
    ended: Option<Result<(), String>>,
}

impl Attempt {
    async fn make(mut self, persist: Arc<Persist>, within: Duration) {
        let mut keeping = pin!(timeout(within, async { persist(&self.token).await }));
        let kept =
            poll_fn(|cx| if self.turn.is_mine() { keeping.as_mut().poll(cx).map(Some) } else { Poll::Ready(None) });
        let ended = match kept.await {
            Some(Ok(result)) => result.map_err(|error| error.to_string()),
            Some(Err(_)) => Err(format!("it did not end within {within:?}")),
            None => Err("its runtime stood still until another fetch had the turn".to_owned()),
        };
        self.ended = Some(ended);
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        let mut held = self.turn.held();
        if held.token != self.token {
            // It was about another one, of before.
            return;
        }
        let problem = match self.ended.take() {
            Some(Ok(())) => {
                (held.unsaved, held.warned) = (false, false);
                return;
            }
            Some(Err(problem)) => problem,
            None if std::thread::panicking() => "it panicked".to_owned(),
            None => "its runtime was shut down".to_owned(),
        };
        // Once until it works again.
        let said = std::mem::replace(&mut held.warned, true);
        // A subscriber is somebody else's code.
        drop(held);
        if !said {
            warn!(
                problem,
                "the callback of `on_rotation` did not keep the new refresh token: it is in this process's memory alone, and a restart would show an old one; tried again with the next fetch"
            );
        }
    }
}
