//! A value that many read and few replace.

use std::sync::{Arc, PoisonError, RwLock};

/// A value that many read and few replace. Readers keep the one they took.
#[derive(Debug, Default)]
pub(crate) struct Shared<T>(RwLock<Arc<T>>);

impl<T> Shared<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(RwLock::new(Arc::new(value)))
    }

    // A lock is poisoned by a panic while it is held; nothing but a pointer moves under ours.
    pub(crate) fn get(&self) -> Arc<T> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn set(&self, value: T) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(value);
    }
}
