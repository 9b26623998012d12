//! The thread that starts a jail, reads what it prints, watches its counters, and ends it.
#![expect(unsafe_code, reason = "a child enters its cgroup between fork and exec")]

use std::ffi::OsString;
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::pipe::{PipeFlags, pipe_with};

use super::cgroup::{Counters, Group};
use super::control::{FromSupervisor, Job, SIGSYS_CODE, ToSupervisor, receive, send};
use super::{End, Jail, JailLimits, Program, Report, Usage};
use crate::fault::{Fault, HostError};
use crate::limits;

/// The supervisor's answer to a request for a connection.
#[derive(Debug)]
pub(super) enum Reply {
    Connected(OwnedFd),
    Refused(String),
}

/// What the owner of a jail and its thread both see.
#[derive(Debug, Default)]
pub(super) struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    stop: bool,
    end: Option<End>,
    usage: Usage,
    group: Option<Arc<Group>>,
    started: Option<Instant>,
}

impl Shared {
    fn with<T>(&self, apply: impl FnOnce(&mut State) -> T) -> T {
        apply(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn stop(&self) {
        self.with(|state| state.stop = true);
    }

    pub(super) fn end(&self) -> Option<End> {
        self.with(|state| state.end)
    }

    /// Fresh while it runs: processor time between two requests is a difference of two calls.
    pub(super) fn usage(&self) -> Usage {
        self.with(|state| {
            if let (Some(group), None) = (&state.group, state.end)
                && let Ok(counters) = group.counters()
            {
                state.usage.cpu = counters.cpu;
                state.usage.memory_peak_bytes = counters.memory_peak_bytes;
                state.usage.wall = state.started.map_or(Duration::ZERO, |at| at.elapsed());
            }
            state.usage
        })
    }

    pub(super) fn waited(&self) -> Option<Duration> {
        let group = self.with(|state| state.group.clone().filter(|_| state.end.is_none()));
        group?.waited()
    }

    pub(super) fn throttled(&self) -> Duration {
        let group = self.with(|state| state.group.clone().filter(|_| state.end.is_none()));
        group.map_or(Duration::ZERO, |group| group.throttled())
    }

    /// Waits until the run has ended or `time` has passed.
    pub(super) fn wait_up_to(&self, time: Duration) {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        drop(self.changed.wait_timeout_while(state, time, |state| state.end.is_none()));
    }

    /// For callers that know that it ends now.
    pub(super) fn wait_for_end(&self) -> End {
        self.wait_up_to(limits::KILL);
        self.end().unwrap_or(End::Stopped)
    }

    fn finish(&self, end: End, usage: Usage) {
        self.with(|state| {
            state.end = Some(end);
            state.usage = usage;
            state.group = None;
        });
        self.changed.notify_all();
    }
}

/// The near ends of a jail's descriptors.
struct Ends {
    control: Arc<OwnedFd>,
    stdout: OwnedFd,
    stderr: OwnedFd,
    complaints: OwnedFd,
}

pub(super) fn start(
    bubblewrap: &Path,
    arguments: Vec<OsString>,
    job: Job,
    program: &Program,
    group: Group,
) -> Result<Jail, HostError> {
    let group = Arc::new(group);
    let started = prepare(bubblewrap, arguments, job, program, &group);
    if started.is_err() {
        group.remove();
    }
    started
}

fn prepare(
    bubblewrap: &Path,
    arguments: Vec<OsString>,
    job: Job,
    program: &Program,
    group: &Arc<Group>,
) -> Result<Jail, HostError> {
    let system = |error: rustix::io::Errno| HostError::system("a jail cannot be prepared", error);
    let (control, theirs) =
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).map_err(system)?;
    let (stdout, stdout_in) = pipe_with(PipeFlags::CLOEXEC).map_err(system)?;
    let (stderr, stderr_in) = pipe_with(PipeFlags::CLOEXEC).map_err(system)?;
    let (complaints, complaints_in) = pipe_with(PipeFlags::CLOEXEC).map_err(system)?;
    for end in [&stdout, &stderr, &complaints] {
        rustix::io::ioctl_fionbio(end, true).map_err(system)?;
    }
    let stdin =
        sealed(&program.stdin).map_err(|error| HostError::system("a jail cannot be prepared", error))?;
    send(&control, &ToSupervisor::Start(job), &[stdin.as_fd(), stdout_in.as_fd(), stderr_in.as_fd()])
        .map_err(system)?;
    drop((stdin, stdout_in, stderr_in));
    let doors = group.doors().map_err(|error| HostError::system("a cgroup cannot be entered", error))?;
    let mut command = Command::new(bubblewrap);
    command.args(arguments).env_clear();
    command.stdin(Stdio::from(theirs)).stdout(Stdio::null()).stderr(Stdio::from(complaints_in));
    // SAFETY: between fork and exec only `write` is called, on files opened before; it neither allocates nor locks.
    unsafe {
        command.pre_exec(move || {
            doors.iter().try_for_each(|door| rustix::io::write(door, b"0").map(drop).map_err(Into::into))
        });
    }
    let control = Arc::new(control);
    let shared = Arc::new(Shared::default());
    shared.with(|state| state.group = Some(Arc::clone(group)));
    let (sender, replies) = channel();
    let mut monitor = Monitor {
        ends: Ends { control: Arc::clone(&control), stdout, stderr, complaints },
        shared: Arc::clone(&shared),
        replies: Some(sender),
        group: Arc::clone(group),
        of: program.limits,
        out: Log::new(program.limits.log_bytes),
        err: Log::new(program.limits.log_bytes),
        complaint: Log::new(limits::LOG_BYTES_MAX),
        began: Instant::now(),
        started: None,
        found: Found::default(),
    };
    // bubblewrap dies with the thread that started it, so this thread starts it and stays.
    let thread = std::thread::Builder::new()
        .name("sandbox-jail".to_owned())
        .spawn(move || monitor.run(command))
        .map_err(|error| HostError::system("a jail's thread does not start", error))?;
    Ok(Jail { shared, control, replies: Mutex::new(replies), thread: Some(thread) })
}

/// A file in memory that nobody can change.
fn sealed(bytes: &[u8]) -> std::io::Result<OwnedFd> {
    let file = memfd_create("stdin", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    let mut file = File::from(file);
    file.write_all(bytes)?;
    std::io::Seek::rewind(&mut file)?;
    fcntl_add_seals(&file, SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL)?;
    Ok(file.into())
}

/// The first bytes of a stream.
struct Log {
    kept: Vec<u8>,
    most: usize,
    total: u64,
    open: bool,
}

impl Log {
    fn new(most: usize) -> Self {
        Self { kept: Vec::new(), most, total: 0, open: true }
    }

    /// Reads what is there, at most a few buffers, so that a flood does not hide the clock.
    fn read(&mut self, from: &OwnedFd) {
        let mut buffer = [0_u8; 16 << 10];
        for _ in 0..64 {
            match rustix::io::read(from, &mut buffer) {
                Ok(0) => {
                    self.open = false;
                    return;
                }
                Ok(read) => {
                    self.total += read as u64;
                    let room = self.most.saturating_sub(self.kept.len());
                    self.kept.extend_from_slice(&buffer[..read.min(room)]);
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::AGAIN) => return,
                Err(_) => {
                    self.open = false;
                    return;
                }
            }
        }
    }
}

/// What was noticed until now.
#[derive(Default)]
struct Found {
    exited: Option<(Option<i32>, Option<i32>)>,
    not_started: Option<String>,
    missing: Option<String>,
    broken: Option<String>,
    disk_full: bool,
    disk_peak_bytes: u64,
    processes_peak: u64,
    limit: Option<(Fault, String)>,
    gone: bool,
    stopped: bool,
}

struct Monitor {
    ends: Ends,
    shared: Arc<Shared>,
    replies: Option<Sender<Reply>>,
    group: Arc<Group>,
    of: JailLimits,
    out: Log,
    err: Log,
    complaint: Log,
    began: Instant,
    started: Option<Instant>,
    found: Found,
}

impl Monitor {
    fn run(&mut self, mut command: Command) -> Result<Report, HostError> {
        let spawned = command.spawn();
        drop(command); // closes the far end of the control socket
        let mut process = match spawned {
            Ok(process) => process,
            Err(error) => {
                self.group.remove();
                self.shared.finish(End::Stopped, Usage::default());
                return Err(HostError::system("bubblewrap does not start", error));
            }
        };
        while !self.over() {
            self.look();
        }
        let died = self.end(&mut process);
        let counters = self.group.counters().unwrap_or_default();
        self.group.remove();
        let report = self.report(counters);
        let end = report.as_ref().map_or(End::Stopped, |report| report.end);
        self.shared.finish(end, report.as_ref().map(|report| report.usage).unwrap_or_default());
        self.replies = None;
        if died {
            report
        } else {
            Err(HostError::system("a jail's processes do not die", "they ignore SIGKILL"))
        }
    }

    fn over(&self) -> bool {
        let found = &self.found;
        found.gone
            || found.stopped
            || found.exited.is_some()
            || found.limit.is_some()
            || found.not_started.is_some()
            || found.missing.is_some()
            || found.broken.is_some()
    }

    /// Waits for news for one period at most.
    fn look(&mut self) {
        let period = Timespec { tv_sec: 0, tv_nsec: i64::from(limits::POLL.subsec_nanos()) };
        let ends = &self.ends;
        let mut fds = vec![PollFd::new(&*ends.control, PollFlags::IN)];
        for (log, end) in
            [(&self.out, &ends.stdout), (&self.err, &ends.stderr), (&self.complaint, &ends.complaints)]
        {
            if log.open {
                fds.push(PollFd::new(end, PollFlags::IN));
            }
        }
        let _ = poll(&mut fds, Some(&period)); // an interruption is a period that ended early
        let news = !fds[0].revents().is_empty();
        drop(fds);
        if news {
            self.hear();
        }
        self.read();
        self.check();
    }

    fn read(&mut self) {
        for (log, end) in [
            (&mut self.out, &self.ends.stdout),
            (&mut self.err, &self.ends.stderr),
            (&mut self.complaint, &self.ends.complaints),
        ] {
            if log.open {
                log.read(end);
            }
        }
    }

    fn hear(&mut self) {
        let Some((message, mut fds)) = receive::<FromSupervisor>(&*self.ends.control) else {
            self.found.gone = true;
            return;
        };
        match message {
            FromSupervisor::Started => {
                let now = Instant::now();
                self.started = Some(now);
                self.shared.with(|state| state.started = Some(now));
            }
            FromSupervisor::NotStarted(reason) => self.found.not_started = Some(reason),
            FromSupervisor::Missing(name) => self.found.missing = Some(name),
            FromSupervisor::Broken(reason) => self.found.broken = Some(reason),
            FromSupervisor::Exited { code, signal } => self.found.exited = Some((code, signal)),
            FromSupervisor::DiskFull => self.found.disk_full = true,
            FromSupervisor::Wrote { bytes } => {
                self.found.disk_peak_bytes = self.found.disk_peak_bytes.max(bytes);
            }
            FromSupervisor::Connected => self.reply(fds.pop().map_or_else(
                || Reply::Refused("the supervisor sent no socket".to_owned()),
                Reply::Connected,
            )),
            FromSupervisor::Refused(reason) => self.reply(Reply::Refused(reason)),
        }
    }

    fn reply(&self, reply: Reply) {
        if let Some(replies) = &self.replies {
            drop(replies.send(reply));
        }
    }

    /// Holds the clock and the counters against the limits.
    fn check(&mut self) {
        if self.shared.with(|state| state.stop) {
            self.found.stopped = true;
        }
        let counters = match self.group.counters() {
            Ok(counters) => counters,
            Err(error) => {
                self.found.broken = Some(format!("its cgroup cannot be read: {error}"));
                return;
            }
        };
        self.found.processes_peak = self.found.processes_peak.max(counters.processes_peak);
        let Some(started) = self.started else {
            if self.began.elapsed() > limits::SUPERVISOR_START {
                self.found.gone = true;
            }
            return;
        };
        let printed = self.out.total + self.err.total;
        let limit = if counters.out_of_memory > 0 {
            Some((Fault::Memory, format!("used more than {} bytes of memory", self.of.memory_bytes)))
        } else if counters.forks_refused > 0 {
            Some((Fault::Processes, format!("started more than {} processes or threads", self.of.processes)))
        } else if self.found.disk_full {
            Some((Fault::Disk, format!("wrote more than {} bytes", self.of.disk_bytes)))
        } else if printed > self.of.output_bytes {
            Some((Fault::OutputTooLarge, format!("printed more than {} bytes", self.of.output_bytes)))
        } else if counters.cpu > self.of.cpu {
            Some((Fault::Time, format!("used more than {:?} of processor time", self.of.cpu)))
        } else if started.elapsed() > self.of.wall {
            Some((Fault::Time, format!("ran longer than {:?}", self.of.wall)))
        } else {
            None
        };
        self.found.limit = limit;
    }

    /// Kills the tree and reads what is left in the pipes. `false` if something does not die.
    fn end(&mut self, process: &mut Child) -> bool {
        drop(process.kill());
        let died = self.group.kill();
        drop(process.wait());
        // All writers are dead, so what is in the pipes is all there will be.
        self.read();
        // Limits that were hit in the last moment still name the fault.
        if self.found.limit.is_none() && !self.found.stopped {
            self.check();
        }
        died
    }

    fn report(&mut self, counters: Counters) -> Result<Report, HostError> {
        let found = std::mem::take(&mut self.found);
        let complaint = String::from_utf8_lossy(&self.complaint.kept).trim().to_owned();
        if let Some(reason) = found.broken {
            return Err(HostError::new(
                "a jail does not hold its program",
                reason,
                "use a kernel with seccomp, and leave its cgroups alone",
            ));
        }
        if let Some(name) = found.missing {
            return Err(HostError::new(
                "a program cannot be prepared",
                format!("`{name}` is not installed"),
                "install it, or leave this competition to other judges",
            ));
        }
        if self.started.is_none() && found.not_started.is_none() && !found.stopped {
            return Err(HostError::new(
                "a jail does not come up",
                if complaint.is_empty() { "bubblewrap ended without a word".to_owned() } else { complaint },
                "check that user namespaces are allowed and that `main` calls sandbox::child::run_if_asked",
            ));
        }
        let (processes_peak, disk_peak_bytes) = (found.processes_peak, found.disk_peak_bytes);
        let (end, note) = verdict(found);
        Ok(Report {
            end,
            note,
            truncated: self.out.total > self.out.kept.len() as u64
                || self.err.total > self.err.kept.len() as u64,
            usage: Usage {
                cpu: counters.cpu,
                wall: self.started.map_or(Duration::ZERO, |at| at.elapsed()),
                memory_peak_bytes: counters.memory_peak_bytes,
                output_bytes: self.out.total + self.err.total,
                processes_peak: processes_peak.max(counters.processes_peak),
                disk_peak_bytes,
            },
            stdout: std::mem::take(&mut self.out.kept),
            stderr: std::mem::take(&mut self.err.kept),
        })
    }
}

/// One end out of all that was noticed: limits first, since a program that hits one dies in many ways.
fn verdict(found: Found) -> (End, String) {
    let failed = |fault, note: &str| (End::Failed(fault), note.to_owned());
    if let Some((fault, note)) = found.limit {
        return (End::Failed(fault), note);
    }
    if let Some(reason) = found.not_started {
        return (End::Failed(Fault::Startup), reason);
    }
    match found.exited {
        Some((_, Some(libc::SIGSYS)) | (Some(SIGSYS_CODE), _)) => {
            failed(Fault::Escape, "made a system call that only serves to leave the sandbox")
        }
        Some((_, Some(libc::SIGXCPU))) => failed(Fault::Time, "used up its processor time"),
        Some((_, Some(libc::SIGXFSZ))) => failed(Fault::Disk, "wrote a file larger than its disk"),
        Some((_, Some(signal))) => failed(Fault::Trap, &format!("ended by signal {signal}")),
        Some((Some(code), _)) => (End::Exited(code), String::new()),
        Some((None, None)) => failed(Fault::Trap, "ended without a code"),
        None if found.stopped => (End::Stopped, String::new()),
        None => failed(Fault::Escape, "ended its supervisor"),
    }
}
