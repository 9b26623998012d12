//! Programs in a process jail: bubblewrap's namespaces, seccomp, landlock, and limits that a cgroup enforces.
//!
//! Inside there is no network but an own loopback, no file but the system's programs (read-only), what the caller
//! mounts (read-only) and a sized `/tmp`; no other process, no other user. Whatever a program does, the run ends in a
//! [`Report`] or, if this machine is at fault, in a [`HostError`]; the whole tree is dead and its cgroup removed then.

mod cgroup;
mod control;
mod machine;
mod monitor;
mod supervisor;

use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

pub use cgroup::Version;
pub use machine::{Enforcement, Machine};
pub(crate) use supervisor::run as supervise;

use crate::fault::{Error, Failed, Fault, HostError};
use crate::limits;
use control::ToSupervisor;
use monitor::{Reply, Shared};

/// A folder or file of this machine that a jail sees, read-only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// Here.
    pub from: PathBuf,
    /// There: absolute, and not beneath `/proc`, `/dev` or `/tmp`.
    pub to: PathBuf,
}

/// What a program may use. Nothing here is optional but `cpus`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct JailLimits {
    /// Memory of the whole tree, files in `/tmp` included, bytes.
    pub memory_bytes: u64,
    /// Processes and threads of the whole tree at one time.
    pub processes: u64,
    /// Processor time of the whole tree.
    pub cpu: Duration,
    /// Wall-clock time from the program's start.
    pub wall: Duration,
    /// Processors it may keep busy at once; `None`: all. Enforced where the kernel's controller is there.
    pub cpus: Option<f32>,
    /// Size of `/tmp` and of `/dev/shm`, each, and of any file, bytes.
    pub disk_bytes: u64,
    /// Open files of one process.
    pub open_files: u64,
    /// Bytes kept of standard output and of standard error, each; what follows is dropped.
    pub log_bytes: usize,
    /// Bytes printed to both before the program is stopped.
    pub output_bytes: u64,
}

impl Default for JailLimits {
    fn default() -> Self {
        Self {
            memory_bytes: 2 << 30,
            processes: 64,
            cpu: Duration::from_mins(1),
            wall: Duration::from_mins(2),
            cpus: None,
            disk_bytes: 256 << 20,
            open_files: 256,
            log_bytes: limits::LOG_BYTES_MAX,
            output_bytes: 16 << 20,
        }
    }
}

/// A program to run in a jail.
#[derive(Clone, Debug, PartialEq)]
pub struct Program {
    /// The program (a path inside the jail, or a name on `PATH`) and its arguments.
    pub argv: Vec<String>,
    /// Its whole environment, beside `PATH`, `HOME=/tmp` and `LANG=C.UTF-8`.
    pub env: Vec<(String, String)>,
    /// What it sees of this machine, beside the system's programs and libraries.
    pub mounts: Vec<Mount>,
    /// Working folder inside the jail.
    pub folder: PathBuf,
    /// Standard input, whole.
    pub stdin: Vec<u8>,
    /// What it may use.
    pub limits: JailLimits,
}

impl Program {
    /// A program with default limits, in `/tmp`, with nothing mounted.
    pub fn new(argv: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self {
            argv: argv.into_iter().map(Into::into).collect(),
            env: Vec::new(),
            mounts: Vec::new(),
            folder: PathBuf::from("/tmp"),
            stdin: Vec::new(),
            limits: JailLimits::default(),
        }
    }
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// By itself, with this code.
    Exited(i32),
    /// [`Jail::stop`] ended it.
    Stopped,
    /// By a fault of its own.
    Failed(Fault),
}

/// What a run took. Processor time and memory are the kernel's counts for the whole tree, the jail's own few
/// milliseconds and mebibytes included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Processor time.
    pub cpu: Duration,
    /// Wall-clock time since the program started.
    pub wall: Duration,
    /// Most memory at one time, bytes.
    pub memory_peak_bytes: u64,
    /// Bytes printed.
    pub output_bytes: u64,
    /// Most processes and threads at one time, the jail's own five or so included: by the kernel's count, or where it keeps
    /// none as seen every [`limits::POLL`].
    pub processes_peak: u64,
    /// Most bytes that lay in `/tmp` and `/dev/shm` together, as seen every two [`limits::POLL`].
    pub disk_peak_bytes: u64,
}

/// What is left of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// How it ended.
    pub end: End,
    /// What the sandbox has to say about it; empty if nothing.
    pub note: String,
    /// Standard output, up to the limit.
    pub stdout: Vec<u8>,
    /// Standard error, up to the limit.
    pub stderr: Vec<u8>,
    /// Whether either is cut.
    pub truncated: bool,
    /// What it took.
    pub usage: Usage,
}

impl Report {
    /// The fault as an error with its log, if the run ended in one: the note, then the end of standard error.
    pub fn failed(&self) -> Option<Failed> {
        let End::Failed(fault) = self.end else { return None };
        let tail = self.stderr.len().saturating_sub(limits::LOG_BYTES_MAX / 2);
        Some(Failed::new(fault, format!("{}\n{}", self.note, String::from_utf8_lossy(&self.stderr[tail..]))))
    }
}

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
