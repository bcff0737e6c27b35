//! `ArcSwap`.

use loom::sync::atomic::{AtomicUsize, Ordering};
use std::{
    ops::Deref,
    sync::{Arc, Mutex, PoisonError},
};

/// Every value there ever was, and the number of the latest.
pub(crate) struct ArcSwap<T> {
    latest: AtomicUsize,
    // No step of the model: whoever knows a number finds its value there.
    values: Mutex<Vec<Arc<T>>>,
}

pub(crate) struct Guard<T>(T);

impl<T> ArcSwap<T> {
    pub(crate) fn from_pointee(value: T) -> Self {
        Self { latest: AtomicUsize::new(0), values: Mutex::new(vec![Arc::new(value)]) }
    }

    pub(crate) fn load(&self) -> Guard<Arc<T>> {
        let number = self.latest.load(Ordering::Acquire);
        Guard(Arc::clone(&self.values.lock().unwrap_or_else(PoisonError::into_inner)[number]))
    }

    pub(crate) fn store(&self, value: Arc<T>) {
        let number = {
            let mut values = self.values.lock().unwrap_or_else(PoisonError::into_inner);
            values.push(value);
            values.len() - 1
        };
        self.latest.store(number, Ordering::Release);
    }
}

impl<T> Deref for Guard<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}
