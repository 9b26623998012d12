//! Why an entry stopped, and why this machine could not run it: the two are never mixed up.

use crate::limits;

/// What an entry did that ends its run. Every limit has its own name, so that an entrant knows what to change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, thiserror::Error)]
pub enum Fault {
    /// Does not parse, or lacks what its form asks for.
    #[error("not a valid entry of its form")]
    Invalid,
    /// Asks for what an entry may not have: an import, a link out of its folder.
    #[error("asks for something that is forbidden")]
    Forbidden,
    /// Did not start, or did not listen in time.
    #[error("did not start, or not in time")]
    Startup,
    /// Stopped by itself: a trap, an error it reported, a signal.
    #[error("stopped with an error")]
    Trap,
    /// Used up its fuel.
    #[error("ran out of fuel")]
    Fuel,
    /// Used up its time by the wall clock or its processor time.
    #[error("ran out of time")]
    Time,
    /// Used up its memory.
    #[error("ran out of memory")]
    Memory,
    /// Wrote too much to its disk.
    #[error("wrote more than it may")]
    Disk,
    /// Started too many processes or threads.
    #[error("started more processes than it may")]
    Processes,
    /// Gave back, or printed, too much.
    #[error("gave back more than it may")]
    OutputTooLarge,
    /// Gave back something that is no answer: a list outside its memory, text that is not UTF-8.
    #[error("gave back no valid answer")]
    Output,
    /// Made a call that only serves to leave the sandbox.
    #[error("tried to leave its sandbox")]
    Escape,
}

/// A fault of the entry, with what it or the sandbox said about it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{fault}: {log}")]
pub struct Failed {
    /// What happened.
    pub fault: Fault,
    /// Text for the entrant, at most [`limits::LOG_BYTES_MAX`].
    pub log: String,
}

impl Failed {
    pub(crate) fn new(fault: Fault, log: impl Into<String>) -> Self {
        let mut log = log.into();
        if log.len() > limits::LOG_BYTES_MAX {
            let end = (0..=limits::LOG_BYTES_MAX).rev().find(|&at| log.is_char_boundary(at)).unwrap_or(0);
            log.truncate(end);
        }
        Self { fault, log }
    }
}

/// This machine, not the entry: what was not possible, why, and what to do about it.
#[derive(Debug, thiserror::Error)]
#[error("{what}: {reason}; {next}")]
pub struct HostError {
    /// What was not possible.
    pub what: &'static str,
    /// Why.
    pub reason: String,
    /// The next step for whoever runs this machine.
    pub next: &'static str,
}

impl HostError {
    pub(crate) fn new(what: &'static str, reason: impl std::fmt::Display, next: &'static str) -> Self {
        Self { what, reason: reason.to_string(), next }
    }

    /// For failures of the system that have no better advice.
    pub(crate) fn system(what: &'static str, reason: impl std::fmt::Display) -> Self {
        Self::new(what, reason, "look at the machine's memory, disk space and open files")
    }
}

/// Either kind of failure.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The entry's.
    #[error(transparent)]
    Entry(#[from] Failed),
    /// This machine's.
    #[error(transparent)]
    Host(#[from] HostError),
}

impl Error {
    pub(crate) fn entry(fault: Fault, log: impl Into<String>) -> Self {
        Self::Entry(Failed::new(fault, log))
    }

    /// The entry's fault, if it is one.
    pub fn fault(&self) -> Option<Fault> {
        match self {
            Self::Entry(failed) => Some(failed.fault),
            Self::Host(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_log_is_cut_between_characters() {
        let failed = Failed::new(Fault::Trap, "é".repeat(limits::LOG_BYTES_MAX));
        assert!(failed.log.len() <= limits::LOG_BYTES_MAX && failed.log.len() > limits::LOG_BYTES_MAX - 2);
    }
}
