//! The task that drops idle providers while nobody asks for any.
//!
//! There is none while there are no providers: the first that is kept starts it, and it ends when it finds that none is left. It finds that, and says
//! so, under the lock under which providers are added; so whoever adds one sees either a task that will find it, or none and starts another.
//!
//! It holds them weakly, and is woken when the last handle is gone. If its runtime goes, the guard says so, and the next `get` inside another
//! starts it there. If its runtime is frozen, idle ones are still dropped by whoever asks for another.

use super::shared::Shared;
use std::{
    hash::Hash,
    sync::{Arc, Weak},
};
use tokio::{runtime::Handle, task::yield_now, time::timeout_at};

/// Starts it if there is none, and a runtime is at hand. Spawns outside of the lock: a runtime that shuts down drops a task as it is spawned, and the
/// guard takes the lock.
pub(super) fn start<K, E>(shared: &Arc<Shared<K, E>>)
where
    K: Hash + Eq + Clone + Send + 'static,
    E: 'static,
{
    let Ok(runtime) = Handle::try_current() else { return };
    if !std::mem::replace(&mut shared.lock().swept, true) {
        drop(runtime.spawn(run(Guard { shared: Arc::downgrade(shared) })));
    }
}

/// Says that there is no task any more, if it was dropped.
struct Guard<K, E> {
    shared: Weak<Shared<K, E>>,
}

impl<K, E> Drop for Guard<K, E> {
    fn drop(&mut self) {
        if let Some(shared) = self.shared.upgrade() {
            shared.lock().swept = false;
        }
    }
}

async fn run<K: Hash + Eq + Clone, E>(mut guard: Guard<K, E>) {
    while let Some(shared) = guard.shared.upgrade() {
        let Some(next) = shared.sweep() else {
            // It has been said, and another may have been started since.
            guard.shared = Weak::new();
            break;
        };
        let gone = Arc::clone(&shared.gone);
        drop(shared);
        let _ = timeout_at(next, gone.notified()).await;
        // Where many are due: a few at a time.
        yield_now().await;
    }
}
