//! The system's allocator, told to give large vectors back.
#![cfg_attr(
    all(target_os = "linux", target_env = "gnu"),
    expect(unsafe_code, reason = "the allocator is set up by a call of the C library")
)]

/// glibc comes to keep freed vectors of up to 32 MiB for itself: a merge, which makes many, would leave a miner with far
/// more memory than it announced.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
pub(super) fn give_back_large_vectors() {
    use crate::limits::GIVEN_BACK_BYTES;
    for (key, value) in
        [(libc::M_MMAP_THRESHOLD, GIVEN_BACK_BYTES), (libc::M_TRIM_THRESHOLD, 2 * GIVEN_BACK_BYTES)]
    {
        // SAFETY: two plain numbers, of which the library checks the range.
        if unsafe { libc::mallopt(key, value) } != 1 {
            tracing::debug!(key, value, "the allocator keeps its own thresholds");
        }
    }
}

/// Other allocators are left as they are.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub(super) fn give_back_large_vectors() {}
