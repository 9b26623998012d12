//! Entries that can be called: two functions from bytes to bytes, each call in a sandbox of its own side.

mod component;
mod program;

use std::time::{Duration, Instant};

use arena::account::Usage;
use arena::measure::Failure;

pub(crate) use self::component::{Clock, ComponentCoder};
pub(crate) use self::program::{Contract, InJail, ProgramCoder, unpack};
use crate::error::JudgeError;
use crate::input::Direction;
use crate::judge::failure;

/// Which function.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Side {
    Compress,
    Decompress,
}

impl Side {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Compress => "compress",
            Self::Decompress => "decompress",
        }
    }
}

/// What both sides are told beside the bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Meta {
    pub(crate) tensor: bool,
    pub(crate) shape: Vec<u32>,
    pub(crate) direction: Direction,
}

impl Meta {
    /// Of plain bytes.
    pub(crate) fn bytes(length: usize) -> Self {
        Self { tensor: false, shape: vec![length as u32], direction: Direction::Forward }
    }

    pub(crate) fn of(input: &crate::input::Input) -> Self {
        Self { tensor: true, shape: input.shape.clone(), direction: input.direction }
    }
}

/// What a call gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) bytes: Vec<u8>,
    /// 0 where there is no fuel.
    pub(crate) fuel: u64,
    /// Processor time of the entry.
    pub(crate) time_ns: u64,
}

/// Why there is no answer.
#[derive(Debug)]
pub(crate) enum Stop {
    /// The entry's fault, and what is known about it.
    Entry(Failure, String),
    /// The judge's.
    Judge(JudgeError),
}

impl From<JudgeError> for Stop {
    fn from(error: JudgeError) -> Self {
        Self::Judge(error)
    }
}

impl Stop {
    pub(crate) fn from_sandbox(error: sandbox::Error) -> Self {
        match error {
            sandbox::Error::Entry(failed) => Self::failed(failed),
            sandbox::Error::Host(error) => Self::Judge(JudgeError::Sandbox(error.to_string())),
        }
    }

    pub(crate) fn failed(failed: sandbox::Failed) -> Self {
        Self::Entry(failure(failed.fault), failed.log)
    }

    pub(crate) fn host(error: &sandbox::HostError) -> Self {
        Self::Judge(JudgeError::Sandbox(error.to_string()))
    }

    /// The same for a baseline or an evaluator beside an entry. If the evaluation's time is over, it was the entry that left it
    /// too little.
    pub(crate) fn beside(self, what: &'static str, deadline: Instant) -> Self {
        match self {
            Self::Entry(Failure::Time | Failure::Startup, _) if Instant::now() >= deadline => {
                Self::out_of_time()
            }
            other => Self::Judge(other.into_reference(what)),
        }
    }

    /// All calls together were too much.
    pub(crate) fn out_of_time() -> Self {
        let reason = "all calls together took longer than a judge's lease allows (judges.lease_s)";
        Self::Entry(Failure::Time, reason.to_owned())
    }

    /// The same for code that is not an entry.
    pub(crate) fn into_reference(self, what: &'static str) -> JudgeError {
        match self {
            Self::Entry(failure, reason) => {
                JudgeError::Reference { what, reason: format!("{failure}: {reason}") }
            }
            Self::Judge(error) => error,
        }
    }
}

/// Nanoseconds, as verdicts have them.
pub(crate) fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// Gives up once a deadline has passed. `coders` are those whose calls took the time, the entry first: where one of them was
/// kept waiting it is nobody's fault but the machine's.
pub(crate) fn in_time(deadline: Instant, coders: &[&dyn Coder]) -> Result<(), Stop> {
    if Instant::now() < deadline {
        return Ok(());
    }
    if coders.iter().any(|coder| coder.starved()) {
        return Err(JudgeError::Busy { what: "all calls of an entry" }.into());
    }
    Err(Stop::out_of_time())
}

/// An entry, ready to be called.
pub(crate) trait Coder {
    /// Calls one function on `data`; more than `most` bytes back are a failure.
    fn call(&mut self, side: Side, data: &[u8], meta: &Meta, most: usize) -> Result<Answer, Stop>;

    /// Whether its time is counted in fuel.
    fn has_fuel(&self) -> bool;

    /// Whether it had to wait for other work on this machine for a good part of its calls until now.
    fn starved(&self) -> bool;

    /// What it wrote, for the log. Ends it.
    fn written(&mut self) -> String {
        String::new()
    }

    /// What it took; of a program, once it has ended.
    fn usage(&self) -> Usage;
}
