//! The jail itself, put together and watched.

mod cgroup;
mod control;
mod machine;
mod monitor;
mod supervisor;

use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

pub use machine::Machine;
pub(crate) use supervisor::run as supervise;

use super::{End, Enforcement, JailLimits, Program, Report, Usage, Version};
use crate::fault::{Error, Fault, HostError};
use crate::limits;
use control::ToSupervisor;
use monitor::{Reply, Shared};

/// A program that runs in a jail. Dropping it ends it.
#[derive(Debug)]
pub struct Jail {
    shared: Arc<Shared>,
    control: Arc<OwnedFd>,
    replies: Mutex<Receiver<Reply>>,
    thread: Option<JoinHandle<Result<Report, HostError>>>,
}

impl Jail {
    /// Connects to a server that the program runs on its own loopback (127.0.0.1); waits up to `within` for it to
    /// listen. The stream is a socket of the jail: no process copies bytes between.
    ///
    /// # Errors
    /// [`Fault::Startup`] if nothing listens in time; the program's own fault if it has ended.
    pub fn connect_tcp(&self, port: u16, within: Duration) -> Result<TcpStream, Error> {
        let stream = TcpStream::from(self.connect(&ToSupervisor::ConnectTcp { port }, within)?);
        drop(stream.set_nodelay(true)); // only costs time where it fails
        Ok(stream)
    }

    /// Connects to a Unix socket at a path inside the jail; otherwise as [`Jail::connect_tcp`].
    pub fn connect_unix(&self, path: &str, within: Duration) -> Result<UnixStream, Error> {
        Ok(self.connect(&ToSupervisor::ConnectUnix { path: path.to_owned() }, within)?.into())
    }

    fn connect(&self, to: &ToSupervisor, within: Duration) -> Result<OwnedFd, Error> {
        let deadline = Instant::now() + within;
        let replies = self.replies.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(end) = self.ended() {
                return Err(Self::gone(end));
            }
            while replies.try_recv().is_ok() {} // late answers to an attempt that was given up
            if control::send(&*self.control, to, &[]).is_err() {
                return Err(Self::gone(self.shared.wait_for_end()));
            }
            let reason = match replies.recv_timeout(limits::CONNECT_ONCE * 2) {
                Ok(Reply::Connected(socket)) => return Ok(socket),
                Ok(Reply::Refused(reason)) => reason,
                Err(RecvTimeoutError::Timeout) => "no answer".to_owned(),
                Err(RecvTimeoutError::Disconnected) => return Err(Self::gone(self.shared.wait_for_end())),
            };
            if Instant::now() + limits::CONNECT_RETRY > deadline {
                let log = format!("nothing to connect to after {} ms: {reason}", within.as_millis());
                return Err(Error::entry(Fault::Startup, log));
            }
            self.shared.wait_up_to(limits::CONNECT_RETRY);
        }
    }

    fn gone(end: End) -> Error {
        match end {
            End::Exited(code) => {
                Error::entry(Fault::Trap, format!("the program has exited with code {code}"))
            }
            End::Stopped => Error::entry(Fault::Trap, "the program was stopped"),
            End::Failed(fault) => Error::entry(fault, "the program has ended"),
        }
    }

    /// What the run took until now.
    pub fn usage(&self) -> Usage {
        self.shared.usage()
    }

    /// How long the threads that live in the jail now have waited for a processor while they could have run, all together.
    /// `None` where the kernel does not tell, or the run has ended.
    pub fn waited(&self) -> Option<Duration> {
        self.shared.waited()
    }

    /// How long the jail's own quota ([`JailLimits::cpus`]) held it back until now, over all processors. Zero where the kernel
    /// does not tell, or the run has ended.
    pub fn throttled(&self) -> Duration {
        self.shared.throttled()
    }

    /// How it ended, if it has.
    pub fn ended(&self) -> Option<End> {
        self.shared.end()
    }

    /// Waits for the end.
    ///
    /// # Errors
    /// This machine failed, for example to start bubblewrap.
    pub fn wait(mut self) -> Result<Report, HostError> {
        self.join()
    }

    /// Ends the run now.
    ///
    /// # Errors
    /// As [`Jail::wait`].
    pub fn stop(mut self) -> Result<Report, HostError> {
        self.shared.stop();
        self.join()
    }

    fn join(&mut self) -> Result<Report, HostError> {
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(report)) => report,
            _ => Err(HostError::system("the jail's monitor stopped", "its thread panicked")),
        }
    }
}

impl Drop for Jail {
    fn drop(&mut self) {
        if self.thread.is_some() {
            self.shared.stop();
            drop(self.join());
        }
    }
}
