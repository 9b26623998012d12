//! Environments of Python programs: a lock file with hashes, built once into a virtual environment, mounted read-only.
//!
//! `pip install --require-hashes --only-binary :all:` runs none of the packages' code while it builds, and what comes is
//! what the lock file names. The folder's name is the lock file's hash; a build that was cut off is not there.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use wire::Hash;

use crate::error::JudgeError;
use crate::limits;

/// An interpreter, with or without packages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Environment {
    interpreter: PathBuf,
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
}

/// Asked of an interpreter: whether it can make environments, and where it lives.
const PROBE: &str = "import ensurepip, venv, sys; print(sys.executable); print(sys.base_prefix)";

impl Python {
    fn find() -> Result<Self, String> {
        for candidate in ["/usr/bin/python3", "python3"] {
            let output = Command::new(candidate).args(["-I", "-c", PROBE]).stdin(Stdio::null()).output();
            let Ok(output) = output else { continue };
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            let mut lines = text.lines();
            if let (true, Some(program), Some(prefix)) = (output.status.success(), lines.next(), lines.next())
            {
                return Ok(Self { program: program.into(), prefix: prefix.into() });
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
        Ok(Self { mounts: python.mounts(), interpreter: python.program })
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
        Ok(Self { interpreter: Path::new(INSIDE).join("bin/python"), mounts })
    }

    /// Path of the interpreter inside a jail.
    pub fn interpreter(&self) -> &Path {
        &self.interpreter
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

fn make(python: &Python, lock: &[u8], folder: &Path) -> Result<(), String> {
    let show = |path: &Path, error: std::io::Error| format!("{}: {error}", path.display());
    if folder.exists() {
        // Cut off before.
        fs::remove_dir_all(folder).map_err(|error| show(folder, error))?;
    }
    fs::create_dir_all(folder).map_err(|error| show(folder, error))?;
    let list = folder.join("lock.txt");
    fs::write(&list, lock).map_err(|error| show(&list, error))?;
    run(Command::new(&python.program).args(["-I", "-m", "venv"]).arg(folder))?;
    let mut pip = Command::new(folder.join("bin/python"));
    pip.args(["-I", "-m", "pip", "install", "--quiet", "--no-input", "--disable-pip-version-check"]);
    pip.args(["--no-deps", "--require-hashes", "--only-binary", ":all:", "--requirement"]).arg(&list);
    run(&mut pip)?;
    let mark = folder.join("complete");
    fs::write(&mark, []).map_err(|error| show(&mark, error))
}

fn run(command: &mut Command) -> Result<(), String> {
    let program = command.get_program().to_owned();
    let output = command.stdin(Stdio::null()).output();
    let output = output.map_err(|error| format!("{}: {error}", program.display()))?;
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr);
    let last: Vec<&str> = text.lines().rev().take(5).collect();
    Err(format!("{} failed: {}", program.display(), last.into_iter().rev().collect::<Vec<_>>().join("; ")))
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
}
