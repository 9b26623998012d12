//! The process inside a jail that prepares and starts the program, reports its end, and makes connections to its servers.
//!
//! It restricts itself before it starts the program, so that both live under the same rules; it cannot be traced, and
//! its socket is not inherited. What it says is believed only where a lie would not help the program.

use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
use rustix::process::{DumpableBehavior, set_dumpable_behavior};

use super::control::{FromSupervisor, Job, SIGSYS_CODE, ToSupervisor, receive, send};
use crate::{limits, restrict};

/// Folders that a program may write to.
pub(super) const WRITABLE: [&str; 2] = ["/tmp", "/dev/shm"];
/// Devices that it may read, and write without effect.
const DEVICES: [&str; 5] = ["/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom"];

/// Runs as supervisor; the control socket is standard input. Returns the exit code.
///
/// All of it happens in a second thread: landlock lets a program signal whatever lives in its own domain, and the first
/// thread, at which signals to a process are judged, stays outside of that.
pub(crate) fn run() -> i32 {
    std::thread::spawn(work).join().unwrap_or(1)
}

fn work() -> i32 {
    let Ok(control) = std::io::stdin().as_fd().try_clone_to_owned() else { return 1 };
    let control = Arc::new(control);
    let Some((ToSupervisor::Start(job), streams)) = receive(&*control) else { return 1 };
    let Ok(streams) = <[OwnedFd; 3]>::try_from(streams) else { return 1 };
    if let Err(error) = lock_down(&job) {
        let _ = send(&*control, &FromSupervisor::Broken(error), &[]);
        return 1;
    }
    let (reporter, prepared) = (Arc::clone(&control), Arc::new(AtomicBool::new(false)));
    let ready = Arc::clone(&prepared);
    let runner = std::thread::Builder::new().name("run".to_owned()).spawn(move || {
        let end = run_all(&job, &streams, &reporter, &ready);
        let _ = send(&*reporter, &FromSupervisor::Wrote { bytes: written() }, &[]);
        if disk_full() {
            let _ = send(&*reporter, &FromSupervisor::DiskFull, &[]);
        }
        let _ = send(&*reporter, &end, &[]);
    });
    if runner.is_err() {
        return 1; // the machine has no thread left
    }
    serve(&control, &prepared);
    0
}

/// Runs the commands one after the other, and says how the last one ended, or why it was not reached. `prepared` becomes
/// true when the last one runs.
fn run_all(job: &Job, streams: &[OwnedFd; 3], control: &OwnedFd, prepared: &AtomicBool) -> FromSupervisor {
    let mut end = FromSupervisor::NotStarted("there is nothing to run".to_owned());
    for (at, argv) in job.commands.iter().enumerate() {
        let (name, last) = (argv.first().map_or("", String::as_str), at + 1 == job.commands.len());
        let mut child = match spawn(job, argv, streams, last) {
            Ok(child) => child,
            // A program by its name alone is this machine's to have; the entry brings the last one.
            Err(error) if !last && error.kind() == ErrorKind::NotFound && !name.contains('/') => {
                return FromSupervisor::Missing(name.to_owned());
            }
            Err(error) => return FromSupervisor::NotStarted(format!("`{name}` does not start: {error}")),
        };
        if at == 0 {
            let _ = send(control, &FromSupervisor::Started, &[]);
        }
        prepared.store(last, Ordering::Release);
        let status = match child.wait() {
            Ok(status) => status,
            Err(error) => return FromSupervisor::Broken(format!("`{name}` is lost: {error}")),
        };
        if !last && !status.success() && !is_a_fault(status) {
            let reason = format!("`{name}` was to prepare the program and failed: {status}");
            return FromSupervisor::NotStarted(reason);
        }
        end = FromSupervisor::Exited { code: status.code(), signal: status.signal() };
        if !status.success() {
            return end;
        }
    }
    end
}

/// Ends that are faults of their own, whatever the command was for.
fn is_a_fault(status: ExitStatus) -> bool {
    matches!(status.signal(), Some(libc::SIGSYS | libc::SIGXCPU | libc::SIGXFSZ))
        || status.code() == Some(SIGSYS_CODE)
}

fn spawn(
    job: &Job,
    argv: &[String],
    [stdin, stdout, stderr]: &[OwnedFd; 3],
    last: bool,
) -> io::Result<Child> {
    let name = argv.first().map_or("", String::as_str);
    let stdin = if last { Stdio::from(stdin.try_clone()?) } else { Stdio::null() };
    Command::new(name)
        .args(argv.iter().skip(1))
        .env_clear()
        .envs(job.env.iter().map(|(name, value)| (name, value)))
        .current_dir(&job.folder)
        .stdin(stdin)
        .stdout(Stdio::from(stdout.try_clone()?))
        .stderr(Stdio::from(stderr.try_clone()?))
        .spawn()
}

/// Makes this process hard to reach, then takes away what the program must not have.
fn lock_down(job: &Job) -> Result<(), String> {
    set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(|error| error.to_string())?;
    // The kernel should choose the program, not a judge, if the whole machine runs out of memory.
    drop(std::fs::write("/proc/self/oom_score_adj", "1000"));
    restrict::resources(restrict::Resources {
        cpu_seconds: job.cpu_seconds,
        file_bytes: job.file_bytes,
        open_files: job.open_files,
        address_space_bytes: None,
    })
    .map_err(|error| error.to_string())?;
    let devices = DEVICES.map(PathBuf::from);
    let writable = WRITABLE.map(PathBuf::from);
    restrict::landlock(&job.read, &writable, &devices).map_err(|error| error.to_string())?;
    restrict::seccomp().map_err(|error| error.to_string())
}

fn disk_full() -> bool {
    WRITABLE
        .iter()
        .any(|folder| rustix::fs::statvfs(*folder).is_ok_and(|stat| stat.f_blocks > 0 && stat.f_bavail == 0))
}

/// Bytes that lie in the folders that a program may write to.
fn written() -> u64 {
    let used = |folder: &str| {
        let stat = rustix::fs::statvfs(folder);
        stat.map_or(0, |stat| stat.f_blocks.saturating_sub(stat.f_bfree).saturating_mul(stat.f_frsize))
    };
    WRITABLE.into_iter().map(used).sum()
}

/// Answers until the other side is gone. What listens before the program runs is not the program.
fn serve(control: &OwnedFd, prepared: &AtomicBool) {
    let every = Timespec { tv_sec: 0, tv_nsec: i64::from(limits::POLL.subsec_nanos()) * 2 };
    let (mut full, mut most) = (false, 0);
    loop {
        let mut fds = [PollFd::new(control, PollFlags::IN)];
        match poll(&mut fds, Some(&every)) {
            Ok(0) => {
                let bytes = written();
                if bytes > most {
                    most = bytes;
                    let _ = send(control, &FromSupervisor::Wrote { bytes }, &[]);
                }
                if !full && disk_full() {
                    full = true;
                    let _ = send(control, &FromSupervisor::DiskFull, &[]);
                }
                continue;
            }
            Err(rustix::io::Errno::INTR) => continue,
            Err(_) => return,
            Ok(_) => {}
        }
        let Some((message, _)) = receive::<ToSupervisor>(control) else { return };
        let connected = match message {
            ToSupervisor::Start(_) => continue,
            _ if !prepared.load(Ordering::Acquire) => Err(io::Error::other("it is being prepared")),
            ToSupervisor::ConnectTcp { port } => {
                let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
                TcpStream::connect_timeout(&address, limits::CONNECT_ONCE).map(OwnedFd::from)
            }
            ToSupervisor::ConnectUnix { path } => connect_unix(Path::new(&path)).map_err(Into::into),
        };
        let sent = match connected {
            Ok(socket) => send(control, &FromSupervisor::Connected, &[socket.as_fd()]),
            Err(error) => send(control, &FromSupervisor::Refused(error.to_string()), &[]),
        };
        if sent.is_err() {
            return;
        }
    }
}

/// Never waits for a server that does not accept: a full queue is a refusal.
fn connect_unix(path: &Path) -> Result<OwnedFd, rustix::io::Errno> {
    let address = SocketAddrUnix::new(path)?;
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    connect(&socket, &address)?;
    rustix::io::ioctl_fionbio(&socket, false)?;
    Ok(socket)
}
