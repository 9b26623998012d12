//! No jail: without Linux there is nothing to hold a program, so no [`Machine`] is ever made.

use std::convert::Infallible;
use std::net::TcpStream;
use std::time::Duration;

use super::{End, Enforcement, Program, Report, Usage};
use crate::Child;
use crate::fault::{Error, HostError};

/// A machine on which programs can be jailed.
#[derive(Clone, Debug)]
pub struct Machine {
    never: Infallible,
}

impl Machine {
    /// # Errors
    /// Always: this system holds no programs.
    pub fn probe(_child: Child) -> Result<Self, HostError> {
        Err(HostError::new(
            "programs cannot be jailed on this machine",
            "the jail needs Linux",
            "judge them on Linux, or on Windows in WSL 2",
        ))
    }

    /// What holds programs here.
    pub fn enforcement(&self) -> Enforcement {
        match self.never {}
    }

    /// Starts a program.
    pub fn start(&self, _program: &Program) -> Result<Jail, HostError> {
        match self.never {}
    }

    /// Runs a program to its end.
    pub fn run(&self, _program: &Program) -> Result<Report, HostError> {
        match self.never {}
    }
}

/// A program that runs in a jail.
#[derive(Debug)]
pub struct Jail {
    never: Infallible,
}

impl Jail {
    /// Connects to a server that the program runs.
    pub fn connect_tcp(&self, _port: u16, _within: Duration) -> Result<TcpStream, Error> {
        match self.never {}
    }

    /// What the run took until now.
    pub fn usage(&self) -> Usage {
        match self.never {}
    }

    /// How long its threads have waited for a processor.
    pub fn waited(&self) -> Option<Duration> {
        match self.never {}
    }

    /// How long its own quota held it back.
    pub fn throttled(&self) -> Duration {
        match self.never {}
    }

    /// How it ended, if it has.
    pub fn ended(&self) -> Option<End> {
        match self.never {}
    }

    /// Waits for the end.
    pub fn wait(self) -> Result<Report, HostError> {
        match self.never {}
    }

    /// Ends the run now.
    pub fn stop(self) -> Result<Report, HostError> {
        match self.never {}
    }
}

/// No child is ever asked to supervise.
pub(crate) fn supervise() -> i32 {
    2
}
