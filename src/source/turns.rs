//! One at a time of what may block for ever, away from the runtime's workers: what hangs costs one thread, however often it is asked.

use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
#[cfg(any(feature = "file", feature = "store"))]
use tokio::task::{JoinError, spawn_blocking};

/// Clones share the turn.
#[derive(Clone)]
pub(crate) struct Turns(Arc<Semaphore>);

impl Default for Turns {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(1)))
    }
}

/// Belongs to what has begun, not to who waits for it: given back when it is dropped.
pub(crate) type Turn = OwnedSemaphorePermit;

impl Turns {
    /// Comes when all before it are through.
    pub(crate) async fn next(&self) -> Turn {
        Arc::clone(&self.0).acquire_owned().await.expect("nobody closes it")
    }

    /// Runs it in one of tokio's blocking threads, when all before it are through. If the caller leaves, what has begun goes on and keeps its turn.
    #[cfg(any(feature = "file", feature = "store"))]
    pub(crate) async fn take<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, JoinError> {
        let turn = self.next().await;
        spawn_blocking(move || {
            let _turn = turn;
            work()
        })
        .await
    }

    #[cfg(test)]
    pub(crate) async fn hold(&self) {
        let _turn = self.0.acquire().await;
        std::future::pending::<()>().await;
    }
}

#[cfg(all(test, feature = "file"))]
mod tests {
    use super::*;
    use futures_util::FutureExt;
    use std::{pin::pin, sync::mpsc, thread};
    use tokio::runtime;

    // Scenario 104.
    #[test]
    fn a_read_that_hangs_blocks_no_worker_and_no_second_is_begun_beside_it() {
        // One thread for the read that hangs, and one that does all else in turn.
        let runtime = runtime::Builder::new_current_thread().max_blocking_threads(2).build().unwrap();
        let (turns, worker) = (Turns::default(), thread::current().id());
        let (begun, begins) = mpsc::channel();
        let (free, freed) = mpsc::channel::<()>();
        let read = |turns: &Turns, freed: Option<mpsc::Receiver<()>>| {
            let (turns, begun) = (turns.clone(), begun.clone());
            async move {
                let read = turns.take(move || {
                    let thread = thread::current().id();
                    begun.send(thread).unwrap();
                    freed.filter(|_| thread != worker).map(|freed| freed.recv())
                });
                read.await.unwrap();
            }
        };
        runtime.block_on(async {
            assert!(pin!(read(&turns, Some(freed))).now_or_never().is_none(), "its caller is gone, and it hangs on");
            assert_ne!(begins.recv().unwrap(), worker);
            let mut next = pin!(read(&turns.clone(), None));
            assert!(next.as_mut().now_or_never().is_none());
            // What was begun before this is over after it.
            spawn_blocking(|| ()).await.unwrap();
            assert!(begins.try_recv().is_err(), "it waits for its turn");
            free.send(()).unwrap();
            next.await;
            assert!(begins.try_recv().is_ok());
        });
    }

    #[tokio::test]
    async fn a_read_that_panics_gives_its_turn_back() {
        let turns = Turns::default();
        assert!(turns.take::<()>(|| panic!("a bug")).await.is_err());
        assert_eq!(turns.take(|| 1).await.unwrap(), 1);
    }
}
