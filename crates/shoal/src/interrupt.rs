//! Ctrl-C and termination: the first asks to end in good order, the second ends at once.

use std::io::{self, Write as _};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::Result;
use tokio::runtime::Runtime;
#[cfg(unix)]
use tokio::signal::unix::{Signal, SignalKind, signal};
#[cfg(windows)]
use tokio::signal::windows::{CtrlBreak, CtrlC, ctrl_break, ctrl_c};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::failure::INTERRUPTED;

/// Ctrl-C and termination, to wait for.
#[cfg(unix)]
pub(crate) type Signals = (Signal, Signal);

/// Ctrl-C and Ctrl-Break, to wait for.
#[cfg(windows)]
pub(crate) type Signals = (CtrlC, CtrlBreak);

/// Begins to listen; needs a runtime around it.
#[cfg(unix)]
fn signals() -> io::Result<Signals> {
    Ok((signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?))
}

/// Begins to listen; needs a runtime around it.
#[cfg(windows)]
fn signals() -> io::Result<Signals> {
    Ok((ctrl_c()?, ctrl_break()?))
}

/// Begins to listen, for tasks of `runtime`.
pub(crate) fn signals_of(runtime: &Runtime) -> io::Result<Signals> {
    let _within = runtime.enter();
    signals()
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

/// What is being made.
#[derive(Debug)]
pub(crate) struct Made<T> {
    /// The thing, while it is not whole.
    pub(crate) thing: Option<T>,
    /// What is said if a signal comes.
    pub(crate) words: &'static str,
}

/// While a thing is being made: a signal takes away what there is of it, says so, and ends the process.
///
/// Whoever changes it holds it meanwhile, so that nothing is written to what is being taken away.
#[derive(Debug)]
pub(crate) struct Making<T> {
    made: Arc<Mutex<Made<T>>>,
    runtime: Runtime,
}

impl<T: Send + 'static> Making<T> {
    /// Nothing yet; from now on signals are heard.
    pub(crate) fn new(words: &'static str) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let (mut interrupts, mut terminations) = signals_of(&runtime)?;
        let made = Arc::new(Mutex::new(Made { thing: None, words }));
        let heard = Arc::clone(&made);
        runtime.spawn(async move {
            tokio::select! {
                _ = interrupts.recv() => {}
                _ = terminations.recv() => {}
            }
            // Whoever holds it may need the runtime to get done.
            let ending = tokio::task::spawn_blocking(move || {
                let mut made = heard.lock().unwrap_or_else(PoisonError::into_inner);
                drop(made.thing.take());
                drop(writeln!(io::stderr(), "{}", made.words));
                // Still held: the thread that makes it waits, and makes no more.
                std::process::exit(INTERRUPTED.into());
            });
            drop(ending.await);
        });
        Ok(Self { made, runtime })
    }

    /// The thing, for a change to it.
    pub(crate) fn hold(&self) -> MutexGuard<'_, Made<T>> {
        self.made.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where it listens, for other work.
    pub(crate) fn runtime(&self) -> &Runtime {
        &self.runtime
    }
}
