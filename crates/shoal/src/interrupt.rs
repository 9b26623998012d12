//! Ctrl-C and termination: the first asks to end in good order, the second ends at once.

use anyhow::Result;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

/// Cancels `drain` at the first signal and `stop` at the second; `what` is finished in between.
#[expect(clippy::print_stderr, reason = "whoever pressed Ctrl-C must see that it was heard")]
pub(crate) fn on_signals(
    drain: CancellationToken,
    stop: CancellationToken,
    what: &'static str,
) -> Result<AbortOnDropHandle<()>> {
    let mut interrupts = signal(SignalKind::interrupt())?;
    let mut terminations = signal(SignalKind::terminate())?;
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
