//! Independent parts of one tensor on several threads.
//!
//! The parts do not depend on the number of threads, so neither do the bytes.

use crate::limits::MAX_THREADS;
use std::cell::Cell;
use std::sync::{Mutex, PoisonError};
use std::thread;

thread_local! {
    static THREADS: Cell<usize> = const { Cell::new(1) };
}

/// Elements of a part: a tensor that has fewer stays on one thread.
pub(crate) const PART: usize = 1 << 18;

/// Runs `f`; large tensors that it encodes or decodes on this thread are worked on by up to `threads` threads, this one
/// among them. The bytes are the same for any number.
///
/// Threads live as long as one stage of one tensor: tensors of a few MiB and the slower codecs gain. Where many tensors
/// are under way, a thread for each is better.
///
/// # Examples
/// ```
/// use shoal_codec::{CodecId, DType, TensorRef, encode, with_threads};
///
/// let bytes = vec![0x3f_u8; 4 << 20];
/// let tensor = TensorRef::new(DType::Bf16, &[2048, 1024], &bytes)?;
/// let (mut alone, mut together) = (Vec::new(), Vec::new());
/// encode(CodecId::Context, tensor, &mut alone)?;
/// with_threads(4, || encode(CodecId::Context, tensor, &mut together))?;
/// assert!(alone == together);
/// # Ok::<(), shoal_codec::CodecError>(())
/// ```
pub fn with_threads<R>(threads: usize, f: impl FnOnce() -> R) -> R {
    struct Back(usize);
    impl Drop for Back {
        fn drop(&mut self) {
            THREADS.set(self.0);
        }
    }
    let _back = Back(THREADS.replace(threads.clamp(1, MAX_THREADS)));
    f()
}

/// Whether work on `elements` may be shared.
pub(crate) fn shared(elements: usize) -> bool {
    THREADS.get() > 1 && elements > PART
}

/// What `work` makes of every item, in the items' order.
pub(crate) fn map<I: Send, R: Send>(
    items: impl ExactSizeIterator<Item = I> + Send,
    work: impl Fn(I) -> R + Sync,
) -> Vec<R> {
    let threads = THREADS.get().min(items.len());
    if threads < 2 {
        return items.map(work).collect();
    }
    let mut done: Vec<Option<R>> = Vec::new();
    done.resize_with(items.len(), || None);
    let queue = Mutex::new(items.zip(&mut done));
    let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).next();
    let run = || {
        while let Some((item, done)) = next() {
            *done = Some(work(item));
        }
    };
    thread::scope(|scope| {
        for _ in 1..threads {
            // Where no more threads can be had, those that there are do the work.
            if thread::Builder::new().spawn_scoped(scope, run).is_err() {
                break;
            }
        }
        run();
    });
    drop(queue);
    done.into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn results_keep_the_order_and_the_number_of_threads_goes_back() {
        for threads in [1, 2, 5, 100] {
            let squares = with_threads(threads, || map(0..1000_u32, |i| i * i));
            assert!(squares.into_iter().eq((0..1000).map(|i| i * i)));
        }
        assert!(!shared(usize::MAX));
        with_threads(3, || {
            assert!(shared(PART + 1) && !shared(PART));
            // Threads that help have no helpers themselves.
            let inner: BTreeSet<bool> = map(0..64, |_| THREADS.get() > 1).into_iter().collect();
            assert!(!inner.is_empty());
            assert_eq!(map(std::iter::empty::<u8>(), |i| i), []);
        });
        assert_eq!(THREADS.get(), 1);
    }
}
