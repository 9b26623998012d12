//! Buffers used again from one micro-batch to the next, so that steady state allocates nothing.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Free buffers by length. What a taken buffer holds is undefined: whoever takes it writes all of it.
#[derive(Debug, Default)]
pub(crate) struct Arena {
    free: Mutex<HashMap<usize, Vec<Vec<f32>>>>,
}

impl Arena {
    fn lock(&self) -> MutexGuard<'_, HashMap<usize, Vec<Vec<f32>>>> {
        // Nothing can panic while the lock is held and leave the map half-changed.
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A buffer of exactly `length` numbers.
    pub(crate) fn take(&self, length: usize) -> Vec<f32> {
        let free = self.lock().get_mut(&length).and_then(Vec::pop);
        free.unwrap_or_else(|| vec![0.0; length])
    }

    /// Gives a buffer back.
    pub(crate) fn give(&self, buffer: Vec<f32>) {
        self.lock().entry(buffer.len()).or_default().push(buffer);
    }

    /// Frees everything that is not in use.
    pub(crate) fn clear(&self) {
        self.lock().clear();
    }
}
