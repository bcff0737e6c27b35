//! `OnceLock`.

use loom::sync::{
    Mutex,
    atomic::{AtomicBool, Ordering},
};

#[derive(Debug)]
pub(crate) struct OnceLock<T> {
    written: AtomicBool,
    // No step of the model: read only by who has seen the flag.
    value: std::sync::OnceLock<T>,
    setter: Mutex<()>,
}

impl<T> OnceLock<T> {
    pub(crate) fn new() -> Self {
        Self { written: AtomicBool::new(false), value: std::sync::OnceLock::new(), setter: Mutex::new(()) }
    }

    pub(crate) fn get(&self) -> Option<&T> {
        self.written.load(Ordering::Acquire).then(|| self.value.get()).flatten()
    }

    pub(crate) fn set(&self, value: T) -> Result<(), T> {
        let _setter = self.setter.lock();
        self.value.set(value)?;
        self.written.store(true, Ordering::Release);
        Ok(())
    }
}

impl<T> Default for OnceLock<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: Clone> Clone for OnceLock<T> {
    fn clone(&self) -> Self {
        let clone = Self::new();
        if let Some(value) = self.get() {
            let _ = clone.set(value.clone());
        }
        clone
    }
}
