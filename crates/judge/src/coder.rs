//! Entries that can be called: two functions from bytes to bytes, each call in a sandbox of its own side.

mod component;
mod program;

use arena::measure::Failure;

pub(crate) use self::component::{Clock, ComponentCoder, in_time};
pub(crate) use self::program::{Contract, ProgramCoder};
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

/// An entry, ready to be called.
pub(crate) trait Coder {
    /// Calls one function on `data`; more than `most` bytes back are a failure.
    fn call(&mut self, side: Side, data: &[u8], meta: &Meta, most: usize) -> Result<Answer, Stop>;

    /// Whether its time is counted in fuel.
    fn has_fuel(&self) -> bool;

    /// What it wrote, for the log.
    fn written(&mut self) -> String {
        String::new()
    }
}
