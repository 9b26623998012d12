//! What this machine can enforce, and how a jail is put together on it.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::cgroup::Hierarchy;
use super::control::Job;
use super::{End, Enforcement, Jail, JailLimits, Program, Report, monitor};
use crate::fault::HostError;
use crate::{Child, child, limits, restrict};

/// Where a jail sees this binary, until the supervisor has closed its eyes to it.
const CHILD: &str = "/.shoal/child";
/// The system's programs and libraries.
const SYSTEM: [&str; 6] = ["/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64"];
/// Settings that programs read and that say nothing about this machine's users.
const SETTINGS: [&str; 4] = ["ld.so.cache", "ld.so.conf", "ld.so.conf.d", "alternatives"];
/// Files made up for every jail.
const MADE: [(&str, &str); 4] = [
    ("passwd", "root:x:0:0:root:/:/bin/sh\nentry:x:1000:1000:entry:/tmp:/bin/sh\n"),
    ("group", "root:x:0:\nentry:x:1000:\n"),
    ("hosts", "127.0.0.1 localhost\n::1 localhost\n"),
    ("nsswitch.conf", "passwd: files\ngroup: files\nhosts: files\n"),
];
const PATH: &str = "/usr/local/bin:/usr/bin:/bin";

/// A machine on which programs can be jailed; found out by jailing one.
#[derive(Clone, Debug)]
pub struct Machine {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    bubblewrap: PathBuf,
    child: Child,
    hierarchy: Hierarchy,
    settings: tempfile::TempDir,
    enforcement: Enforcement,
}

impl Machine {
    /// Finds bubblewrap and a cgroup hierarchy, and runs a program in a jail to see that all of it works.
    ///
    /// # Errors
    /// Something is missing. A judge then refuses programs, and says so with this error's text; components run anyway.
    pub fn probe(child: Child) -> Result<Self, HostError> {
        let what = "programs cannot be jailed on this machine";
        let bubblewrap = on_path("bwrap").ok_or_else(|| {
            HostError::new(
                what,
                "bubblewrap (bwrap) is not installed",
                "install it, for example `apt install bubblewrap`",
            )
        })?;
        let hierarchy = Hierarchy::find().map_err(|reason| {
            HostError::new(
                what,
                format!("memory and processes of a whole tree cannot be limited: {reason}"),
                "run as root, or under `systemd-run --user --scope -p Delegate=yes`",
            )
        })?;
        let enforcement = Enforcement {
            cgroup: hierarchy.version,
            cpu_quota: hierarchy.has_quota(),
            landlock: restrict::has_landlock(),
            root: rustix::process::geteuid().is_root(),
        };
        let settings = made_up().map_err(|error| HostError::system(what, error))?;
        let machine = Self { inner: Arc::new(Inner { bubblewrap, child, hierarchy, settings, enforcement }) };
        let mut trial = Program::new(["/bin/sh", "-c", "exit 7"]);
        trial.limits = JailLimits { wall: Duration::from_secs(20), ..JailLimits::default() };
        let report = machine.run(&trial)?;
        if report.end == End::Exited(7) {
            return Ok(machine);
        }
        let reason = format!("a trial ended with {:?}: {}", report.end, report.note);
        Err(HostError::new(what, reason, "check that user namespaces and seccomp are allowed"))
    }

    /// What holds programs here.
    pub fn enforcement(&self) -> Enforcement {
        self.inner.enforcement
    }

    /// Starts a program. Errors of the entry show in the report; this returns before the program runs.
    ///
    /// # Errors
    /// The program is described wrongly (no arguments, a mount at a place of the jail's own), or the machine fails.
    pub fn start(&self, program: &Program) -> Result<Jail, HostError> {
        let arguments = self.arguments(program)?;
        let group = self
            .inner
            .hierarchy
            .create(&program.limits)
            .map_err(|error| HostError::system("no cgroup for a jail", error))?;
        monitor::start(&self.inner.bubblewrap, arguments, Self::job(program), program, group)
    }

    /// Runs a program to its end.
    ///
    /// # Errors
    /// As [`Machine::start`] and [`Jail::wait`].
    pub fn run(&self, program: &Program) -> Result<Report, HostError> {
        self.start(program)?.wait()
    }

    fn job(program: &Program) -> Job {
        let base = [("PATH", PATH), ("HOME", "/tmp"), ("LANG", "C.UTF-8")];
        let mut env: Vec<(String, String)> =
            base.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        env.extend(program.env.iter().cloned());
        let mut read: Vec<PathBuf> = SYSTEM.iter().map(PathBuf::from).collect();
        read.extend(["/etc", "/proc", "/dev/pts", "/dev/fd"].map(PathBuf::from));
        read.extend(program.mounts.iter().map(|mount| mount.to.clone()));
        let mut commands = vec![program.prepare.clone(), program.argv.clone()];
        commands.retain(|argv| !argv.is_empty());
        Job {
            commands,
            env,
            folder: program.folder.clone(),
            read,
            cpu_seconds: program.limits.cpu.as_secs() + 2,
            file_bytes: program.limits.disk_bytes,
            open_files: program.limits.open_files,
        }
    }

    /// Arguments of bubblewrap.
    fn arguments(&self, program: &Program) -> Result<Vec<OsString>, HostError> {
        check(program)?;
        let mut list = Arguments(Vec::new());
        list.add(["--unshare-user", "--disable-userns", "--unshare-ipc", "--unshare-pid", "--unshare-net"]);
        list.add([
            "--unshare-uts",
            "--unshare-cgroup",
            "--hostname",
            "entry",
            "--uid",
            "1000",
            "--gid",
            "1000",
        ]);
        list.add(["--die-with-parent", "--new-session", "--cap-drop", "ALL", "--clearenv"]);
        for folder in SYSTEM {
            match fs::read_link(folder) {
                Ok(target) => list.add([OsStr::new("--symlink"), target.as_os_str(), OsStr::new(folder)]),
                Err(_) => list.add(["--ro-bind-try", folder, folder]),
            }
        }
        for name in SETTINGS {
            let path = format!("/etc/{name}");
            list.add(["--ro-bind-try", &path, &path]);
        }
        for (name, _) in MADE {
            let from = self.inner.settings.path().join(name);
            list.add([OsStr::new("--ro-bind"), from.as_os_str(), OsStr::new(&format!("/etc/{name}"))]);
        }
        let size = program.limits.disk_bytes.to_string();
        list.add(["--proc", "/proc", "--dev", "/dev"]);
        list.add(["--size", &size, "--perms", "1777", "--tmpfs", "/dev/shm"]);
        list.add(["--size", &size, "--perms", "1777", "--tmpfs", "/tmp"]);
        for mount in &program.mounts {
            list.add([OsStr::new("--ro-bind"), mount.from.as_os_str(), mount.to.as_os_str()]);
        }
        list.add([OsStr::new("--ro-bind"), self.inner.child.program().as_os_str(), OsStr::new(CHILD)]);
        list.add(["--remount-ro", "/dev", "--remount-ro", "/", "--chdir", "/"]);
        list.add(["--setenv", child::ROLE, child::SUPERVISE, "--", CHILD]);
        list.0.extend(self.inner.child.args().iter().cloned());
        Ok(list.0)
    }
}

struct Arguments(Vec<OsString>);

impl Arguments {
    fn add<const N: usize, T: AsRef<OsStr>>(&mut self, words: [T; N]) {
        self.0.extend(words.into_iter().map(|word| word.as_ref().to_owned()));
    }
}

fn on_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_else(|| PATH.into());
    std::env::split_paths(&path).map(|folder| folder.join(name)).find(|file| file.is_file())
}

fn made_up() -> std::io::Result<tempfile::TempDir> {
    let folder = tempfile::Builder::new().prefix("shoal-jail-").tempdir()?;
    for (name, text) in MADE {
        fs::write(folder.path().join(name), text)?;
    }
    Ok(folder)
}

/// What a caller may get wrong.
fn check(program: &Program) -> Result<(), HostError> {
    let wrong = |reason: String| {
        Err(HostError::new("this program cannot be jailed", reason, "change its description"))
    };
    let variables = program.env.iter().flat_map(|(name, value)| [name, value]);
    let words = program.argv.iter().chain(&program.prepare).chain(variables);
    let (mut bytes, mut zero) = (0, false);
    for word in words {
        bytes += word.len() + 1;
        zero |= word.contains('\0');
    }
    if program.argv.is_empty() || zero || bytes > limits::ARGUMENT_BYTES_MAX {
        let most = limits::ARGUMENT_BYTES_MAX;
        return wrong(format!(
            "its commands and environment must be 1 to {most} bytes without a zero, have {bytes}"
        ));
    }
    for mount in &program.mounts {
        let plain = mount.to.is_absolute()
            && mount.to.components().skip(1).all(|part| matches!(part, Component::Normal(_)))
            && mount.to.components().count() > 1;
        let ours = ["/proc", "/dev", "/tmp", "/.shoal"].iter().any(|folder| mount.to.starts_with(folder));
        if !plain || ours {
            return wrong(format!("nothing can be mounted at {}", mount.to.display()));
        }
        if !mount.from.exists() {
            return wrong(format!("{} does not exist", mount.from.display()));
        }
    }
    if !Path::new(&program.folder).is_absolute() {
        return wrong(format!("its folder {} is not absolute", program.folder.display()));
    }
    Ok(())
}
