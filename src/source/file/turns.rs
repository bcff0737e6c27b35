//! One blocking read at a time, away from the runtime's workers.

use std::sync::Arc;
use tokio::{
    sync::Semaphore,
    task::{JoinError, spawn_blocking},
};

/// Clones share the turn.
#[derive(Clone)]
pub(super) struct Turns(Arc<Semaphore>);

impl Default for Turns {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(1)))
    }
}

impl Turns {
    /// Runs it in a thread that may block, when all before it are through. If the caller leaves, what has begun goes on and keeps its turn: a mount that hangs
    /// costs one thread, however often it is asked.
    pub(super) async fn take<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, JoinError> {
        let turn = Arc::clone(&self.0).acquire_owned().await.expect("nobody closes it");
        spawn_blocking(move || {
            let _turn = turn;
            work()
        })
        .await
    }

    #[cfg(test)]
    pub(super) async fn hold(&self) {
        let _turn = self.0.acquire().await;
        std::future::pending().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;
    use std::{pin::pin, sync::mpsc, thread};

    // Scenario 104.
    #[tokio::test]
    async fn a_read_that_hangs_blocks_no_worker_and_no_second_is_begun_beside_it() {
        let turns = Turns::default();
        let (begun, begins) = mpsc::channel();
        let (free, freed) = mpsc::channel::<()>();
        {
            let begun = begun.clone();
            let mut hung = pin!(turns.take(move || {
                begun.send(thread::current().id()).unwrap();
                freed.recv().unwrap();
            }));
            assert!(hung.as_mut().now_or_never().is_none());
            // The only worker is here; so this would wait for ever if the read ran on it.
            assert_ne!(begins.recv().unwrap(), thread::current().id());
        }
        let clone = turns.clone();
        let mut next = pin!(clone.take(move || begun.send(thread::current().id()).unwrap()));
        for _ in 0..64 {
            assert!(next.as_mut().now_or_never().is_none(), "the first still hangs, though its caller is gone");
            tokio::task::yield_now().await;
        }
        assert!(begins.try_recv().is_err());
        free.send(()).unwrap();
        next.await.unwrap();
        assert!(begins.recv().is_ok());
    }

    #[tokio::test]
    async fn a_read_that_panics_gives_its_turn_back() {
        let turns = Turns::default();
        assert!(turns.take::<()>(|| panic!("a bug")).await.is_err());
        assert_eq!(turns.take(|| 1).await.unwrap(), 1);
    }
}
