//! A refresh token that processes share, on its way to the source and back.

use std::{
    fmt,
    sync::{
        Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};
use zeroize::Zeroizing;

/// What a store around a source lends it for one fetch.
pub(crate) struct SharedRefreshToken {
    pub(crate) kept: Option<Zeroizing<String>>,
    /// The lock is held, or the user does without.
    may_spend: AtomicBool,
    /// Somebody has signed out, for all processes: what came from before is not shown any more.
    pub(crate) signed_out: bool,
    /// This process has seen the login that was ended so.
    pub(crate) saw_login: bool,
    /// A place of its own rather than a part of the answer: the source may fail, or be dropped, after the server has spent the old one.
    answered: Mutex<Option<Zeroizing<String>>>,
    /// All that were, for who asks again with the same request.
    later: Later,
}

#[derive(Default)]
struct Later(OnceLock<Box<(Zeroizing<String>, Later)>>);

impl SharedRefreshToken {
    #[cfg(feature = "store")]
    pub(crate) fn lend(kept: Option<Zeroizing<String>>, may_spend: bool, signed_out: bool, saw_login: bool) -> Self {
        Self {
            kept,
            may_spend: AtomicBool::new(may_spend),
            signed_out,
            saw_login,
            answered: Mutex::default(),
            later: Later::default(),
        }
    }

    pub(crate) fn may_spend(&self) -> bool {
        self.may_spend.load(Ordering::Relaxed)
    }

    /// The lock is lost.
    #[cfg(feature = "store")]
    pub(crate) fn forbid(&self) {
        self.may_spend.store(false, Ordering::Relaxed);
    }

    /// The newest.
    pub(crate) fn kept(&self) -> Option<&str> {
        self.newest().0
    }

    /// The newest, and the place for the one after it.
    fn newest(&self) -> (Option<&str>, &Later) {
        let (mut kept, mut later) = (self.kept.as_ref(), &self.later);
        while let Some(next) = later.0.get() {
            (kept, later) = (Some(&next.0), &next.1);
        }
        (kept.map(|kept| kept.as_str()), later)
    }

    pub(super) fn keep(&self, refresh_token: String) {
        let refresh_token = Zeroizing::new(refresh_token);
        let mut answered = self.answered.lock().unwrap_or_else(PoisonError::into_inner);
        let (newest, later) = self.newest();
        if !refresh_token.is_empty() && newest != Some(refresh_token.as_str()) {
            // One at a time, as `answered` is locked.
            let _ = later.0.set(Box::new((refresh_token.clone(), Later::default())));
        }
        *answered = Some(refresh_token);
    }

    /// What the source has got, if that is another one.
    #[cfg(feature = "store")]
    pub(crate) fn take_new(&self) -> Option<Zeroizing<String>> {
        let answered = self.answered.lock().unwrap_or_else(PoisonError::into_inner).take();
        answered.filter(|answered| self.kept.as_ref() != Some(answered) && !answered.is_empty())
    }
}

impl fmt::Debug for SharedRefreshToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedRefreshToken")
            .field("may_spend", &self.may_spend())
            .field("signed_out", &self.signed_out)
            .field("saw_login", &self.saw_login)
            .finish_non_exhaustive()
    }
}
