//! What gives a provider the tokens that other holders of its credential have got.

use super::{Handle, TokenProvider, TokenStatus, primitives::watch, state::Offered};
use crate::{Generation, Token};
use std::sync::{Arc, Weak};

/// It does not keep the provider alive.
pub(crate) struct Follower {
    handle: Weak<Handle>,
    status: watch::Receiver<TokenStatus>,
}

impl TokenProvider {
    pub(crate) fn follower(&self) -> Follower {
        Follower { handle: Arc::downgrade(&self.handle), status: self.subscribe() }
    }
}

impl Follower {
    /// Resolves when there is nobody to give anything to: the provider was shut down, or its last handle and its last flight are gone.
    pub(crate) fn over(&self) -> impl Future<Output = ()> + use<> {
        let mut status = self.status.clone();
        async move {
            let _ = status.wait_for(|status| *status == TokenStatus::ShutDown).await;
        }
    }

    /// What is held now, if anything; nothing at all once the provider is gone.
    pub(crate) fn held(&self) -> Option<Option<Token>> {
        self.handle.upgrade().map(|handle| handle.core.snapshot().token.clone())
    }

    /// Takes it in place of `seen`, or says that a flight was under way, once that is over.
    pub(crate) async fn offer(&self, seen: Option<Generation>, token: Token) -> Offered {
        let Some(handle) = self.handle.upgrade() else { return Offered::Declined };
        let (offered, landing) =
            handle.core.event_with(|machine, now, jitter| machine.offered(now, seen, token, jitter.roll()), |_| None);
        let longest = handle.core.settings.longest_wait();
        drop(handle);
        if let Some(landing) = landing.filter(|_| offered == Offered::UnderWay) {
            landing.ended(longest).await;
        }
        offered
    }
}
