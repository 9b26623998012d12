//! `--when-idle`: compute only in processor time that nobody else wants.
#![cfg_attr(
    target_os = "linux",
    expect(unsafe_code, reason = "the scheduling class of a thread is set by a system call")
)]

/// Puts the calling thread behind every other one of the machine.
#[cfg(target_os = "linux")]
pub(super) fn yield_to_others() {
    // SAFETY: an all-zero sched_param is a valid one, and the only one that SCHED_IDLE takes.
    let param: libc::sched_param = unsafe { std::mem::zeroed() };
    // SAFETY: 0 names the calling thread, and `param` outlives the call.
    let outcome = unsafe { libc::sched_setscheduler(0, libc::SCHED_IDLE, &raw const param) };
    if outcome != 0 {
        let error = std::io::Error::last_os_error();
        tracing::warn!(%error, "cannot compute in idle time only: the scheduler refuses");
    }
}

/// Puts the calling thread behind every other one of the machine.
#[cfg(not(target_os = "linux"))]
pub(super) fn yield_to_others() {
    tracing::warn!("--when-idle is only known on Linux; computing at normal priority");
}
