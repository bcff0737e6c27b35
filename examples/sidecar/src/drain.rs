//! The end: no new request, and a while for those under way.

use std::time::Duration;
use tokio::{sync::watch, time::timeout};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    Open,
    Draining,
    Over,
}

/// Knows what is under way: whatever holds a [`Work`].
pub(crate) struct Drain(watch::Sender<Phase>);

/// Held by each connection and each tunnel.
pub(crate) struct Work(watch::Receiver<Phase>);

impl Drain {
    pub(crate) fn new() -> Self {
        Self(watch::Sender::new(Phase::Open))
    }

    pub(crate) fn begin(&self) -> Work {
        Work(self.0.subscribe())
    }

    /// Asks everything to end, and after `patience` ends it.
    pub(crate) async fn finish(&self, patience: Duration) {
        self.0.send_replace(Phase::Draining);
        let _ = timeout(patience, self.0.closed()).await;
        self.0.send_replace(Phase::Over);
        self.0.closed().await;
    }
}

impl Work {
    /// No new request from now on.
    pub(crate) async fn draining(&mut self) {
        // An error means that the sender is gone, and with it all reason to go on.
        let _ = self.0.wait_for(|phase| *phase >= Phase::Draining).await;
    }

    /// Patience has ended.
    pub(crate) async fn over(&mut self) {
        let _ = self.0.wait_for(|phase| *phase == Phase::Over).await;
    }
}
