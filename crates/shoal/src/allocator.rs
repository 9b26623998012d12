//! The system's allocator, told to back large vectors with large pages.
#![expect(
    unsafe_code,
    reason = "a global allocator is an unsafe trait, and advice to the kernel a call of the C library"
)]

use std::alloc::{GlobalAlloc, Layout, System};

/// Vectors of this size and more, bytes: the C library gives them pages of their own.
const LARGE_BYTES: usize = 4 << 20;
const HUGE_PAGE_BYTES: usize = 2 << 20;

/// Fresh memory comes in pages of 4 KiB, each with a fault of its own: of a merge, which makes and drops vectors of many
/// MiB, they took a quarter of the processor time. Large pages take one fault in 512.
pub(crate) struct LargePages;

// SAFETY: memory comes from the system's allocator and goes back to it; advice changes no byte of it.
unsafe impl GlobalAlloc for LargePages {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promises are those that `System` asks for.
        advised(unsafe { System.alloc(layout) }, layout.size())
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as above.
        advised(unsafe { System.alloc_zeroed(layout) }, layout.size())
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: as above.
        advised(unsafe { System.realloc(pointer, layout, size) }, size)
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[inline]
fn advised(pointer: *mut u8, size: usize) -> *mut u8 {
    if size >= LARGE_BYTES && !pointer.is_null() {
        advise(pointer, size);
    }
    pointer
}

#[cfg(target_os = "linux")]
#[cold]
fn advise(pointer: *mut u8, size: usize) {
    let skip = pointer.align_offset(HUGE_PAGE_BYTES);
    let length = size.saturating_sub(skip) / HUGE_PAGE_BYTES * HUGE_PAGE_BYTES;
    // SAFETY: the range lies within the allocation. A kernel without large pages refuses, which changes nothing.
    unsafe { libc::madvise(pointer.wrapping_add(skip).cast(), length, libc::MADV_HUGEPAGE) };
}

#[cfg(not(target_os = "linux"))]
fn advise(_pointer: *mut u8, _size: usize) {}
