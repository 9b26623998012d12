//! Programs in a process jail: bubblewrap's namespaces, seccomp, landlock, and limits that a cgroup enforces.
//!
//! Inside there is no network but an own loopback, no file but the system's programs (read-only), what the caller
//! mounts (read-only) and a sized `/tmp`; no other process, no other user. Whatever a program does, the run ends in a
//! [`Report`] or, if this machine is at fault, in a [`HostError`](crate::HostError); the whole tree is dead and its cgroup removed then.

#[cfg(not(target_os = "linux"))]
mod elsewhere;
#[cfg(target_os = "linux")]
mod linux;

use std::path::PathBuf;
use std::time::Duration;

#[cfg(not(target_os = "linux"))]
use elsewhere as here;
#[cfg(target_os = "linux")]
use linux as here;

pub(crate) use here::supervise;
pub use here::{Jail, Machine};

use crate::fault::{Failed, Fault};
use crate::limits;

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
    /// A command that runs in the jail before the program does, with the same environment, folder and limits, and an empty
    /// standard input; empty: none. Nothing connects meanwhile. If it does not exit with 0, the program is not started
    /// ([`Fault::Startup`]; where it hit a limit or tried to leave, that fault). A name without `/` that is not there is this machine's fault.
    pub prepare: Vec<String>,
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
            prepare: Vec::new(),
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

/// Which of the kernel's two interfaces to cgroups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// The unified hierarchy.
    V2,
    /// A hierarchy per controller.
    V1,
}

/// What holds programs on this machine. Seccomp and namespaces are always there, or there is no [`Machine`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Enforcement {
    /// What limits memory, processes and processor time of the whole tree.
    pub cgroup: Version,
    /// Whether the number of busy processors can be limited.
    pub cpu_quota: bool,
    /// Whether the kernel has landlock, a second wall around files.
    pub landlock: bool,
    /// Whether the judge runs as root. Better not: bubblewrap does not need it where cgroups are delegated.
    pub root: bool,
}
