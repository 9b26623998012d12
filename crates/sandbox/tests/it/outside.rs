//! How hostile programs are run, and what is looked at from outside when they are done.

use std::io::Write as _;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use shoal_sandbox::{End, Fault, JailLimits, Machine, Mount, Program, Report};

use super::{component, listeners};

/// Where a jail sees the hostile program.
const THERE: &str = "/entry/hostile";

/// A machine for programs, the compiled hostile program, and a folder like a judge's.
pub(super) struct Outside {
    pub(super) machine: Machine,
    pub(super) folder: tempfile::TempDir,
}

/// One run at a time: what is left of it can then be told from others.
static TURN: Mutex<()> = Mutex::new(());

pub(super) struct Turn {
    outside: &'static Outside,
    _turn: MutexGuard<'static, ()>,
}

impl std::ops::Deref for Turn {
    type Target = Outside;

    fn deref(&self) -> &Outside {
        self.outside
    }
}

/// `None`, with the reason printed, where programs cannot be jailed: no test of the jail runs there.
pub(super) fn outside() -> Option<Turn> {
    static OUTSIDE: OnceLock<Option<Outside>> = OnceLock::new();
    let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let outside = OUTSIDE.get_or_init(|| match Machine::probe(component::child()) {
        Ok(machine) => Some(Outside { machine, folder: build() }),
        Err(error) => {
            assert!(!should_work(), "programs must be jailed on this machine, and yet: {error}");
            _ = writeln!(std::io::stderr(), "skipped: {error}");
            None
        }
    });
    outside.as_ref().map(|outside| Turn { outside, _turn: turn })
}

/// Whether a failing probe is a fault: bubblewrap runs here and cgroups can be made, or `SHOAL_TEST_JAIL` says so.
fn should_work() -> bool {
    if std::env::var_os("SHOAL_TEST_JAIL").is_some() {
        return true;
    }
    let bubblewrap = Command::new("bwrap").args(["--unshare-all", "--ro-bind", "/", "/", "true"]).output();
    let root = std::fs::read_to_string("/proc/self/status").is_ok_and(|text| text.contains("\nUid:\t0\t0\t"));
    bubblewrap.is_ok_and(|out| out.status.success()) && root && Path::new("/sys/fs/cgroup").is_dir()
}

fn build() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let entry = folder.path().join("entry");
    std::fs::create_dir(&entry).unwrap();
    let source = folder.path().join("hostile.c");
    std::fs::write(&source, include_str!("hostile/hostile.c")).unwrap();
    let out = Command::new("cc")
        .args(["-O1", "-pthread", "-w", "-o"])
        .arg(entry.join("hostile"))
        .arg(&source)
        .output()
        .expect("a C compiler (cc) is installed");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let secret = folder.path().join("secret");
    std::fs::write(&secret, "what the judge knows").unwrap();
    std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(0o644)).unwrap();
    folder
}

/// Small limits, so that each attack meets its limit soon.
pub(super) fn limits() -> JailLimits {
    JailLimits {
        memory_bytes: 64 << 20,
        processes: 16,
        cpu: Duration::from_secs(10),
        wall: Duration::from_secs(20),
        cpus: None,
        disk_bytes: 8 << 20,
        open_files: 64,
        log_bytes: 1000,
        output_bytes: 4 << 20,
    }
}

impl Outside {
    fn token() -> String {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        format!("token-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
    }

    /// The hostile program with these arguments, and the token that names it.
    pub(super) fn program(&self, what: &str, arguments: &[&str], limits: JailLimits) -> (Program, String) {
        let token = Self::token();
        let mut program = Program::new([THERE, what, &token].into_iter().chain(arguments.iter().copied()));
        program.mounts = vec![Mount { from: self.folder.path().join("entry"), to: PathBuf::from("/entry") }];
        program.limits = limits;
        (program, token)
    }

    pub(super) fn run(&self, what: &str, arguments: &[&str], limits: JailLimits) -> Report {
        let (program, token) = self.program(what, arguments, limits);
        let before = listeners::of("self");
        let report = self.machine.run(&program).unwrap();
        self.nothing_is_left(&token);
        listeners::none_is_left(&before);
        report
    }

    /// Runs an attack that a limit, or the filter of system calls, must end.
    pub(super) fn ends(&self, what: &str, arguments: &[&str], limits: JailLimits, fault: Fault) -> Report {
        let report = self.run(what, arguments, limits);
        assert_eq!(report.end, End::Failed(fault), "{what}: {report:?}");
        let failed = report.failed().expect("a fault has a log");
        assert_eq!(failed.fault, fault);
        assert!(!report.note.is_empty(), "{what} has no note");
        report
    }

    /// Runs an attack that finds every way shut: the program sees errors and ends by itself.
    pub(super) fn shut(&self, what: &str, arguments: &[&str]) {
        let report = self.run(what, arguments, limits());
        assert_eq!(report.end, End::Exited(0), "{what}: {report:?}");
    }

    /// No process of the run, no cgroup of this test, no change to the judge's files.
    pub(super) fn nothing_is_left(&self, token: &str) {
        let left = processes(token);
        assert!(left.is_empty(), "processes are left: {left:?}");
        let groups = groups(std::process::id());
        assert!(groups.is_empty(), "cgroups are left: {groups:?}");
        let entry = std::fs::read_dir(self.folder.path().join("entry")).unwrap().count();
        let judge = std::fs::read_dir(self.folder.path()).unwrap().count();
        assert_eq!((entry, judge), (1, 3), "files have changed");
        assert_eq!(std::fs::read(self.folder.path().join("secret")).unwrap(), b"what the judge knows");
    }
}

/// Looks at a running server from outside: it lives in a namespace of its own, with a loopback and nothing else, where these
/// and no other sockets listen; none of them is this machine's. Gives the namespace's name.
pub(super) fn listens_inside_alone(token: &str, expected: &[&str]) -> PathBuf {
    // The jail's own processes and the program name the token only in the program's arguments.
    let inside = processes(token);
    let process = inside.iter().filter_map(|path| path.file_name()?.to_str()).find(|pid| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line.starts_with(THERE.as_bytes())
    });
    let process = process.expect("the server runs");
    let namespace = listeners::namespace(process).expect("a namespace");
    assert_ne!(Some(&namespace), listeners::namespace("self").as_ref(), "it shares this machine's network");
    assert_eq!(listeners::interfaces(process), ["lo"]);
    let theirs = listeners::of(process);
    assert_eq!(theirs.values().collect::<Vec<_>>(), expected, "in the jail");
    let ours = listeners::of("self");
    assert!(theirs.keys().all(|inode| !ours.contains_key(inode)), "a socket of the jail is this machine's");
    namespace
}

/// Processes with this token in their arguments.
pub(super) fn processes(token: &str) -> Vec<PathBuf> {
    let has = |process: &PathBuf| {
        let line = std::fs::read(process.join("cmdline")).unwrap_or_default();
        line.windows(token.len()).any(|window| window == token.as_bytes())
    };
    std::fs::read_dir("/proc").unwrap().flatten().map(|process| process.path()).filter(has).collect()
}

/// Groups of a process, in any hierarchy.
pub(super) fn groups(judge: u32) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let prefix = format!("shoal-{judge}-");
    let mut folders = vec![(PathBuf::from("/sys/fs/cgroup"), 0)];
    while let Some((folder, depth)) = folders.pop() {
        for item in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
            let path = item.path();
            if item.file_name().to_string_lossy().starts_with(&prefix) {
                found.push(path);
            } else if depth < 8 && item.file_type().is_ok_and(|kind| kind.is_dir()) {
                folders.push((path, depth + 1));
            }
        }
    }
    found
}

/// Whether a process of this number lives.
pub(super) fn lives(pid: u32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}
