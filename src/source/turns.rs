//! One at a time of what may block for ever, away from the runtime's workers: what hangs costs one thread, however often it is asked.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};
use tokio::sync::Notify;
#[cfg(any(feature = "file", feature = "store"))]
use tokio::task::{JoinError, spawn_blocking};

/// Clones share the turn.
#[derive(Clone, Default)]
pub(crate) struct Turns(Arc<Shared>);

#[derive(Default)]
struct Shared {
    taken: AtomicBool,
    /// Wakes all who wait: one alone may be on a runtime that nobody drives, and would keep the turn that was handed to it.
    freed: Notify,
}

/// Belongs to what has begun, not to who waits for it: given back when it is dropped.
pub(crate) struct Turn(Arc<Shared>);

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.taken.store(false, Ordering::Release);
        self.0.freed.notify_waiters();
    }
}

impl Turns {
    /// Comes when what has it is through.
    pub(crate) async fn next(&self) -> Turn {
        loop {
            // Before the look, so that a turn that ends right after it is not missed.
            let freed = self.0.freed.notified();
            if !self.0.taken.swap(true, Ordering::Acquire) {
                return Turn(Arc::clone(&self.0));
            }
            freed.await;
        }
    }

    /// Runs it in one of tokio's blocking threads, when what is before it is through. If the caller leaves, what has begun goes on and keeps its turn.
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
        let _turn = self.next().await;
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

    // Scenario 133.
    #[test]
    fn a_waiter_on_a_runtime_that_stands_still_keeps_the_turn_from_nobody() {
        let turns = Turns::default();
        let mut has = pin!(turns.next());
        let turn = has.as_mut().now_or_never().unwrap();
        let mut stands_still = pin!(turns.next());
        assert!(stands_still.as_mut().now_or_never().is_none());
        let mut waits = pin!(turns.next());
        assert!(waits.as_mut().now_or_never().is_none());
        drop(turn);
        let turn = waits.now_or_never().expect("it was handed to who stands still");
        assert!(stands_still.as_mut().now_or_never().is_none());
        drop(turn);
        assert!(stands_still.now_or_never().is_some(), "it goes on");
    }

    #[tokio::test]
    async fn a_read_that_panics_gives_its_turn_back() {
        let turns = Turns::default();
        assert!(turns.take::<()>(|| panic!("a bug")).await.is_err());
        assert_eq!(turns.take(|| 1).await.unwrap(), 1);
    }
}
