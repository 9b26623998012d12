//! Buffers used again from one micro-batch to the next, so that steady state allocates nothing.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Free buffers by length. What a taken buffer holds is undefined: whoever takes it writes all of it.
#[derive(Debug, Default)]
pub(crate) struct Arena {
    free: Mutex<HashMap<usize, Vec<Vec<f32>>>>,
    /// Rows of the last pass.
    rows: AtomicUsize,
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

    /// Says how many rows the next pass has. Buffers of another number of rows would not be taken again: they are freed.
    pub(crate) fn start(&self, rows: usize) {
        if self.rows.swap(rows, Ordering::Relaxed) != rows {
            self.clear();
        }
    }

    /// Frees everything that is not in use.
    pub(crate) fn clear(&self) {
        self.lock().clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_come_back_until_the_rows_change() {
        let arena = Arena::default();
        arena.start(4);
        let buffer = arena.take(8);
        let at = buffer.as_ptr();
        arena.give(buffer);
        arena.start(4);
        let again = arena.take(8);
        assert_eq!(again.as_ptr(), at);
        arena.give(again);
        arena.start(5);
        assert!(arena.lock().is_empty());
    }
}
