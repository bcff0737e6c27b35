//! `watch`, as much of it as the shell uses.
//!
//! Nothing in the shell reads back what it sent, so where a model does not ask for it in what order the values come is no question, and
//! to send is no step of the model: there would be many times the interleavings.

use std::{
    cell::Cell,
    fmt,
    ops::Deref,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

std::thread_local! {
    static WATCHED: Cell<bool> = const { Cell::new(false) };
}

/// Before a run: is to send a step of it?
pub(crate) fn reset(watched: bool) {
    WATCHED.set(watched);
}

pub(crate) struct Sender<T> {
    turn: loom::sync::Mutex<()>,
    // Of std: nobody stops while it is locked but who has the turn.
    value: Arc<Mutex<T>>,
}

/// Sees the value as it is now.
pub struct Receiver<T>(Arc<Mutex<T>>);

/// The value, locked.
pub struct Ref<'a, T>(MutexGuard<'a, T>);

impl<T> Sender<T> {
    pub(crate) fn new(value: T) -> Self {
        Self { turn: loom::sync::Mutex::new(()), value: Arc::new(Mutex::new(value)) }
    }

    pub(crate) fn send_if_modified(&self, modify: impl FnOnce(&mut T) -> bool) -> bool {
        let _turn = WATCHED.get().then(|| self.turn.lock());
        modify(&mut self.value.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn subscribe(&self) -> Receiver<T> {
        Receiver(Arc::clone(&self.value))
    }

    pub(crate) fn borrow(&self) -> Ref<'_, T> {
        Ref(self.value.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl<T> Clone for Receiver<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> Receiver<T> {
    /// No model waits for a value.
    pub async fn wait_for(&mut self, _: impl FnMut(&T) -> bool) -> Result<(), ()> {
        std::future::pending().await
    }

    /// The value, locked.
    pub fn borrow(&self) -> Ref<'_, T> {
        Ref(self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl<T> Deref for Ref<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T> fmt::Debug for Receiver<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receiver").finish_non_exhaustive()
    }
}

impl<T> fmt::Debug for Ref<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ref").finish_non_exhaustive()
    }
}
