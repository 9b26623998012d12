//! Working memory that a thread keeps from one tensor to the next: fresh pages cost more than much of the coding.

use crate::limits::MAX_KEPT_SCRATCH_BYTES;
use std::cell::RefCell;
use std::ops::{Deref, DerefMut};

/// Buffers of one thread that nobody uses just now.
#[derive(Debug, Default)]
struct Pool {
    bytes: Vec<Vec<u8>>,
    integers: Vec<Vec<i32>>,
    floats: Vec<Vec<f32>>,
    words: Vec<Vec<u32>>,
    /// Bytes in all of them.
    kept: usize,
}

thread_local! {
    static POOL: RefCell<Pool> = RefCell::default();
}

/// Elements that buffers are kept of.
pub(crate) trait Element: Copy + Default + 'static {
    #[doc(hidden)]
    fn shelf<'a>(pool: &'a mut Shelves<'_>) -> &'a mut Vec<Vec<Self>>;
}

/// The pool, as [`Element`] sees it.
#[derive(Debug)]
pub(crate) struct Shelves<'a>(&'a mut Pool);

macro_rules! element {
    ($type:ty, $field:ident) => {
        impl Element for $type {
            fn shelf<'a>(pool: &'a mut Shelves<'_>) -> &'a mut Vec<Vec<Self>> {
                &mut pool.0.$field
            }
        }
    };
}
element!(u8, bytes);
element!(i32, integers);
element!(f32, floats);
element!(u32, words);

/// A buffer that goes back to its thread when dropped.
#[derive(Debug)]
pub(crate) struct Scratch<T: Element> {
    all: Vec<T>,
    length: usize,
}

impl<T: Element> Scratch<T> {
    /// `length` elements of any value: what was left in them.
    pub(crate) fn any(length: usize) -> Self {
        let kept = POOL.with_borrow_mut(|pool| {
            let mut shelves = Shelves(pool);
            let shelf = T::shelf(&mut shelves);
            // The smallest that is long enough, else the longest.
            let fits = |v: &Vec<T>| if v.len() >= length { (0, v.len()) } else { (1, usize::MAX - v.len()) };
            let at = (0..shelf.len()).min_by_key(|&i| fits(&shelf[i]))?;
            let found = shelf.swap_remove(at);
            pool.kept -= size_of_val(&found[..]);
            Some(found)
        });
        let mut all = kept.unwrap_or_default();
        if all.len() < length {
            all.resize(length, T::default());
        }
        Self { all, length }
    }
}

impl<T: Element> Drop for Scratch<T> {
    fn drop(&mut self) {
        let all = std::mem::take(&mut self.all);
        let size = size_of_val(&all[..]);
        // A thread that is ending has no pool any more; then the memory is just freed.
        let _ = POOL.try_with(|pool| {
            let Ok(mut pool) = pool.try_borrow_mut() else { return };
            if size > 0 && pool.kept + size <= MAX_KEPT_SCRATCH_BYTES {
                pool.kept += size;
                T::shelf(&mut Shelves(&mut pool)).push(all);
            }
        });
    }
}

impl<T: Element> Deref for Scratch<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.all[..self.length]
    }
}

impl<T: Element> DerefMut for Scratch<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        &mut self.all[..self.length]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_reused_and_bounded() {
        let first = Scratch::<i32>::any(1000);
        let at = first.as_ptr();
        drop(first);
        let again = Scratch::<i32>::any(500);
        assert_eq!((again.as_ptr(), again.len()), (at, 500));
        drop(again);
        drop(Scratch::<u8>::any(MAX_KEPT_SCRATCH_BYTES + 1));
        POOL.with_borrow(|pool| assert!(pool.bytes.is_empty() && pool.kept >= 4000));
    }
}
