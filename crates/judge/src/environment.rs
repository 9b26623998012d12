//! Environments of Python programs: a lock file with hashes, built once into a virtual environment, mounted read-only.
//!
//! `pip install --require-hashes --only-binary :all:` runs none of the packages' code while it builds, and what comes is
//! what the lock file names. The folder's name is the lock file's hash; it appears when its build is complete.

use std::fs;
use std::io::{Read as _, Seek as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use wire::Hash;

use crate::error::JudgeError;
use crate::limits;
use crate::mode::set_mode;

/// An interpreter, with or without packages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Environment {
    interpreter: PathBuf,
    version: String,
    mounts: Vec<(PathBuf, PathBuf)>,
}

/// Where a built environment stands inside a jail.
const INSIDE: &str = "/env";

/// An interpreter of this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Python {
    program: PathBuf,
    /// Where its library is, if not below `/usr`.
    prefix: PathBuf,
    version: String,
}

/// Asked of an interpreter: whether it can make environments, and where it lives.
const PROBE: &str =
    "import ensurepip, venv, sys; print(sys.executable); print(sys.base_prefix); print(sys.hexversion)";

impl Python {
    fn find() -> Result<Self, String> {
        for candidate in ["/usr/bin/python3", "python3"] {
            let output = Command::new(candidate).args(["-I", "-c", PROBE]).stdin(Stdio::null()).output();
            let Ok(output) = output else { continue };
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            let mut lines = text.lines();
            if let (true, Some(program), Some(prefix), Some(version)) =
                (output.status.success(), lines.next(), lines.next(), lines.next())
            {
                let version = version.to_owned();
                return Ok(Self { program: program.into(), prefix: prefix.into(), version });
            }
        }
        Err("no python3 with venv and pip: install one (Debian: python3-venv)".to_owned())
    }

    fn mounts(&self) -> Vec<(PathBuf, PathBuf)> {
        // `/usr` is in every jail.
        let there = self.prefix.starts_with("/usr");
        if there { Vec::new() } else { vec![(self.prefix.clone(), self.prefix.clone())] }
    }
}

impl Environment {
    /// The interpreter alone.
    pub fn bare() -> Result<Self, JudgeError> {
        let python = Python::find().map_err(JudgeError::NoJail)?;
        Ok(Self { mounts: python.mounts(), interpreter: python.program, version: python.version })
    }

    /// What a lock file asks for, built below `cache` unless it is there.
    pub fn build(lock: &[u8], cache: &Path) -> Result<Self, JudgeError> {
        let hash = Hash::of(lock);
        let fault = |reason: String| JudgeError::Environment { hash, reason };
        check_lock(lock).map_err(fault)?;
        let python = Python::find().map_err(fault)?;
        let folder = std::path::absolute(cache.join("environments").join(hash.to_string()))
            .map_err(|error| fault(error.to_string()))?;
        if !folder.join("complete").is_file() {
            make(&python, lock, &folder).map_err(fault)?;
        }
        let mut mounts = python.mounts();
        mounts.push((folder, INSIDE.into()));
        Ok(Self { interpreter: Path::new(INSIDE).join("bin/python"), version: python.version, mounts })
    }

    /// Path of the interpreter inside a jail.
    pub fn interpreter(&self) -> &Path {
        &self.interpreter
    }

    /// Version of the interpreter, as it tells it to programs.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Folders that the interpreter needs: here, and inside a jail.
    pub fn mounts(&self) -> &[(PathBuf, PathBuf)] {
        &self.mounts
    }
}

/// Only requirements with hashes: no options, which could name other sources or run code.
fn check_lock(lock: &[u8]) -> Result<(), String> {
    if lock.len() > limits::LOCK_FILE_BYTES {
        return Err(format!("{} bytes, at most {} are allowed", lock.len(), limits::LOCK_FILE_BYTES));
    }
    let text = std::str::from_utf8(lock).map_err(|_| "not UTF-8 text".to_owned())?;
    let joined = text.replace("\\\n", " ");
    for line in joined.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let pinned = words[0].split_once("==").is_some_and(|(name, version)| {
            let plain = |text: &str| {
                !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || "._-+![]".contains(c))
            };
            plain(name) && plain(version)
        });
        let hashes = words[1..].iter().all(|word| word.starts_with("--hash=sha256:"));
        if !pinned || !hashes || words.len() < 2 {
            return Err(format!("{line:.80}: expected NAME==VERSION --hash=sha256:…"));
        }
    }
    Ok(())
}

/// Builds aside and renames into place: two judges with one cache do not meet, and what was cut off is never found.
fn make(python: &Python, lock: &[u8], folder: &Path) -> Result<(), String> {
    let show = |path: &Path, error: std::io::Error| format!("{}: {error}", path.display());
    let all = folder.parent().ok_or_else(|| format!("{}: no place for environments", folder.display()))?;
    fs::create_dir_all(all).map_err(|error| show(all, error))?;
    sweep(all);
    let aside = tempfile::Builder::new().prefix(ASIDE).tempdir_in(all).map_err(|error| show(all, error))?;
    let end = Instant::now() + Duration::from_secs(limits::ENVIRONMENT_BUILD_S);
    let list = aside.path().join("lock.txt");
    fs::write(&list, lock).map_err(|error| show(&list, error))?;
    run(Command::new(&python.program).args(["-I", "-m", "venv"]).arg(aside.path()), end)?;
    let mut pip = Command::new(aside.path().join("bin/python"));
    pip.args(["-I", "-m", "pip", "install", "--quiet", "--no-input", "--disable-pip-version-check"]);
    pip.args(["--no-deps", "--require-hashes", "--only-binary", ":all:", "--requirement"]).arg(&list);
    run(&mut pip, end)?;
    let mark = aside.path().join("complete");
    fs::write(&mark, []).map_err(|error| show(&mark, error))?;
    place(aside, folder).map_err(|error| show(folder, error))
}

/// Name of a folder in which an environment is built.
const ASIDE: &str = "building-";

/// Removes what builds left that were killed.
fn sweep(all: &Path) {
    let old = Duration::from_secs(2 * limits::ENVIRONMENT_BUILD_S);
    for entry in fs::read_dir(all).into_iter().flatten().flatten() {
        let aside = entry.file_name().to_str().is_some_and(|name| name.starts_with(ASIDE));
        let made = entry.metadata().and_then(|about| about.modified());
        if aside && made.is_ok_and(|made| made.elapsed().is_ok_and(|age| age > old)) {
            drop(fs::remove_dir_all(entry.path()));
        }
    }
}

/// Renames a whole environment into place; where another judge was faster, its own serves.
fn place(aside: tempfile::TempDir, folder: &Path) -> std::io::Result<()> {
    if folder.exists() && !folder.join("complete").is_file() {
        fs::remove_dir_all(folder)?;
    }
    // A jail's user must be able to read it.
    set_mode(aside.path(), 0o755)?;
    match fs::rename(aside.path(), folder) {
        Ok(()) => {
            _ = aside.keep();
            Ok(())
        }
        Err(_) if folder.join("complete").is_file() => Ok(()),
        Err(error) => Err(error),
    }
}

/// Runs a program and all that it starts until `end`.
fn run(command: &mut Command, end: Instant) -> Result<(), String> {
    let program = command.get_program().to_owned();
    let failed = |reason: String| format!("{} {reason}", program.display());
    let wrong = |error: std::io::Error| failed(format!("did not run: {error}"));
    // A file: a pipe that a grandchild holds open would be waited for.
    let mut said = tempfile::tempfile().map_err(wrong)?;
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(said.try_clone().map_err(wrong)?);
    #[cfg(unix)]
    std::os::unix::process::CommandExt::process_group(command, 0);
    let mut child = command.spawn().map_err(wrong)?;
    let status = loop {
        if let Some(status) = child.try_wait().map_err(wrong)? {
            break status;
        }
        if Instant::now() >= end {
            kill(&mut child);
            drop(child.wait());
            let limit = limits::ENVIRONMENT_BUILD_S;
            return Err(failed(format!(
                "was stopped: an environment is built in {limit} s, or not; does the package index answer?"
            )));
        }
        std::thread::sleep(Duration::from_millis(limits::ENVIRONMENT_LOOK_MS));
    };
    if status.success() {
        return Ok(());
    }
    let mut bytes = Vec::new();
    said.rewind().and_then(|()| said.read_to_end(&mut bytes)).map_err(wrong)?;
    let text = String::from_utf8_lossy(&bytes);
    let last: Vec<&str> = text.lines().rev().take(5).collect();
    Err(failed(format!("failed: {}", last.into_iter().rev().collect::<Vec<_>>().join("; "))))
}

/// Kills a process with all that it started; without Unix, it alone.
fn kill(child: &mut Child) {
    #[cfg(unix)]
    {
        let group = rustix::process::Pid::from_child(child);
        if rustix::process::kill_process_group(group, rustix::process::Signal::KILL).is_ok() {
            return;
        }
    }
    drop(child.kill());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lock_files_hold_pinned_packages_with_hashes_and_nothing_else() {
        let hash = "--hash=sha256:0123";
        check_lock(
            format!("# comment\nzstd==1.5.7.1 \\\n    {hash} \\\n    {hash}\n\nuvicorn==0.38.0 {hash}\n")
                .as_bytes(),
        )
        .unwrap();
        for bad in [
            "zstd==1.5.7.1".to_owned(),
            format!("zstd {hash}"),
            format!("zstd>=1 {hash}"),
            format!("--index-url http://x/ {hash}"),
            format!("-r other.txt {hash}"),
            format!("zstd@file:///x==1 {hash}"),
            format!("zstd==1 --global-option=x {hash}"),
            "\u{fffd}==1".to_owned(),
        ] {
            assert!(check_lock(bad.as_bytes()).is_err(), "{bad}");
        }
        assert!(check_lock(&vec![b'#'; limits::LOCK_FILE_BYTES + 1]).is_err());
    }

    #[test]
    fn a_build_that_hangs_is_stopped_with_all_that_it_started() {
        let mut hanging = Command::new("sh");
        hanging.args(["-c", "sleep 600 & sleep 600"]);
        // All that is started holds the other end.
        let (mut reader, writer) = std::io::pipe().unwrap();
        rustix::io::fcntl_setfd(&writer, rustix::io::FdFlags::empty()).unwrap();
        let start = Instant::now();
        let stopped = run(&mut hanging, start + Duration::from_millis(500)).unwrap_err();
        assert!(stopped.contains("was stopped") && stopped.contains("900 s"), "{stopped}");
        drop(writer);
        let (sender, ended) = std::sync::mpsc::channel();
        std::thread::spawn(move || sender.send(reader.read(&mut [0])));
        let read = ended.recv_timeout(Duration::from_mins(1)).expect("nothing that it started is left");
        assert_eq!(read.unwrap(), 0);
        let mut wrong = Command::new("sh");
        wrong.args(["-c", "echo no such package >&2; exit 3"]);
        let failed = run(&mut wrong, Instant::now() + Duration::from_mins(1)).unwrap_err();
        assert_eq!(failed, "sh failed: no such package");
    }

    #[test]
    fn of_two_builds_in_one_cache_the_first_serves_both_and_neither_is_cut_off() {
        let cache = tempfile::tempdir().unwrap();
        let folder = cache.path().join("environment");
        let built = |by: &str| {
            let aside = tempfile::Builder::new().prefix(ASIDE).tempdir_in(cache.path()).unwrap();
            fs::write(aside.path().join("by"), by).unwrap();
            fs::write(aside.path().join("complete"), []).unwrap();
            aside
        };
        // Begun by an older version, cut off.
        fs::create_dir(&folder).unwrap();
        let (one, two) = (built("one"), built("two"));
        let theirs = two.path().to_owned();
        place(one, &folder).unwrap();
        assert!(theirs.join("complete").is_file(), "the other build goes on");
        place(two, &folder).unwrap();
        assert_eq!(fs::read_to_string(folder.join("by")).unwrap(), "one");
        assert!(!theirs.exists());
    }
}
