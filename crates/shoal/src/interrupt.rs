//! Ctrl-C and termination: the first asks to end in good order, the second ends at once.

use std::io;

use anyhow::Result;
#[cfg(unix)]
use tokio::signal::unix::{Signal, SignalKind, signal};
#[cfg(windows)]
use tokio::signal::windows::{CtrlBreak, CtrlC, ctrl_break, ctrl_c};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

/// Ctrl-C and termination, to wait for.
#[cfg(unix)]
pub(crate) fn signals() -> io::Result<(Signal, Signal)> {
    Ok((signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?))
}

/// Ctrl-C and Ctrl-Break, to wait for.
#[cfg(windows)]
pub(crate) fn signals() -> io::Result<(CtrlC, CtrlBreak)> {
    Ok((ctrl_c()?, ctrl_break()?))
}

/// Cancels `drain` at the first signal and `stop` at the second; `what` is finished in between.
#[expect(clippy::print_stderr, reason = "whoever pressed Ctrl-C must see that it was heard")]
pub(crate) fn on_signals(
    drain: CancellationToken,
    stop: CancellationToken,
    what: &'static str,
) -> Result<AbortOnDropHandle<()>> {
    let (mut interrupts, mut terminations) = signals()?;
    let task = async move {
        let words = [&*format!("stopping after {what}; Ctrl-C again stops at once"), "stopping at once"];
        for (token, words) in [drain, stop].into_iter().zip(words) {
            tokio::select! {
                _ = interrupts.recv() => {}
                _ = terminations.recv() => {}
            }
            if !token.is_cancelled() {
                token.cancel();
            }
            eprintln!("{words}");
        }
    };
    Ok(AbortOnDropHandle::new(tokio::spawn(task)))
}
