//! Compiling in a child process under limits, and the cache of what came out.
#![expect(unsafe_code, reason = "compiled code is loaded without a check that could be complete")]

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use wasmtime::Engine;
use wasmtime::component::Component;
use wire::Hash;

use super::{settings, settings_hash};
use crate::fault::{Error, Fault, HostError};
use crate::{Child, child, limits};

/// Files in the folder that a compiling child works in.
const INPUT: &str = "component.wasm";
const OUTPUT: &str = "compiled";
const REASON: &str = "reason";
/// The folder, named to the child.
const FOLDER: &str = "SHOAL_SANDBOX_FOLDER";
/// Exit codes of a child that came to an end.
const REFUSED: i32 = 10;
const BROKEN: i32 = 11;
/// Signals that end a child, by their numbers on Linux and macOS; elsewhere there are none.
const SIGKILL: i32 = 9;
const SIGXCPU: i32 = 24;
const SIGXFSZ: i32 = 25;
/// What is not possible where [`private_folder`] fails.
const NO_CACHE: &str = "the cache of compiled code cannot be used";

/// Whether this system holds the child that compiles to its limits. Judges and runs compile what others chose only where it
/// does; elsewhere it is the user's word that a component, or the competition that names it, is to be trusted.
///
/// # Errors
/// It does not: without Linux a component that is made for it can take all memory, and minutes.
pub fn contained() -> Result<(), HostError> {
    if cfg!(target_os = "linux") {
        return Ok(());
    }
    Err(HostError::new(
        "components of others are not compiled on this machine",
        "the limits of the compiler need Linux",
        "use Linux, or on Windows WSL 2",
    ))
}

/// Makes a folder that only this user may enter, or checks that it is one.
#[cfg(unix)]
pub(super) fn private_folder(folder: &Path) -> Result<(), HostError> {
    use std::os::unix::fs::{DirBuilderExt, MetadataExt};
    let fault = |reason: String| HostError::new(NO_CACHE, reason, "name a folder of your own, mode 0700");
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .map_err(|error| fault(format!("{}: {error}", folder.display())))?;
    let found = fs::metadata(folder).map_err(|error| fault(format!("{}: {error}", folder.display())))?;
    if found.uid() != rustix::process::geteuid().as_raw() || found.mode() & 0o022 != 0 {
        return Err(fault(format!("{}: others may write to it", folder.display())));
    }
    Ok(())
}

/// Makes a folder below the one that Windows keeps for this user's programs, which other users cannot write to.
#[cfg(not(unix))]
pub(super) fn private_folder(folder: &Path) -> Result<(), HostError> {
    let fault = |reason: String| HostError::new(NO_CACHE, reason, "name a folder below %LOCALAPPDATA%");
    let shown = folder.display();
    let own = std::env::var_os("LOCALAPPDATA").filter(|own| !own.is_empty());
    let whole = std::path::absolute(folder).map_err(|error| fault(format!("{shown}: {error}")))?;
    if !own.is_some_and(|own| whole.starts_with(own)) {
        return Err(fault(format!("{shown}: others may be able to write to it")));
    }
    fs::create_dir_all(folder).map_err(|error| fault(format!("{shown}: {error}")))
}

/// The compiled component, from the cache or by compiling now.
pub(super) fn compiled(
    engine: &Engine,
    child: &Child,
    cache: Option<&Path>,
    component: &[u8],
    hash: Hash,
) -> Result<Component, Error> {
    let file = cache.map(|folder| cache_file(engine, folder, hash));
    if let Some(code) = file.as_deref().and_then(read_cached)
        && let Ok(component) = load(engine, &code)
    {
        return Ok(component);
    }
    let code = in_child(child, component)?;
    let component = load(engine, &code).map_err(|error| {
        HostError::new(
            "compiled code does not load",
            format!("{error:#}"),
            "check that the child is the same binary as this one",
        )
    })?;
    if let Some(file) = &file {
        // A cache that cannot be written costs time, not correctness.
        drop(write_cached(file, &code));
    }
    Ok(component)
}

/// One file per component, settings and machine (the engine's compatibility hash has the processor's features).
fn cache_file(engine: &Engine, folder: &Path, hash: Hash) -> PathBuf {
    use std::hash::{Hash as _, Hasher};
    struct Collect(Vec<u8>);
    impl Hasher for Collect {
        fn write(&mut self, bytes: &[u8]) {
            self.0.extend_from_slice(bytes);
        }
        fn finish(&self) -> u64 {
            0
        }
    }
    let mut machine = Collect(Vec::new());
    engine.precompile_compatibility_hash().hash(&mut machine);
    let key = Hash::of_parts("shoal 2026-11 compiled", &[&hash.0, &settings_hash().0, &machine.0]);
    folder.join(key.to_string())
}

/// A cached file is the hash of the code, then the code: what a crash cut short is not loaded.
fn read_cached(file: &Path) -> Option<Vec<u8>> {
    let bytes = fs::read(file).ok()?;
    let (hash, code) = bytes.split_first_chunk::<32>()?;
    (Hash::of(code).0 == *hash).then(|| code.to_vec())
}

fn write_cached(file: &Path, code: &[u8]) -> std::io::Result<()> {
    let folder = file.parent().unwrap_or(Path::new("."));
    let mut temporary = tempfile::NamedTempFile::new_in(folder)?;
    temporary.write_all(&Hash::of(code).0)?;
    temporary.write_all(code)?;
    temporary.persist(file)?;
    Ok(())
}

fn load(engine: &Engine, code: &[u8]) -> wasmtime::Result<Component> {
    // SAFETY: `deserialize` needs bytes that this version of the engine made. They come from a child that is this very
    // binary, or from a file in a folder that only this user can write, whose hash was checked.
    unsafe { Component::deserialize(engine, code) }
}

fn in_child(child: &Child, component: &[u8]) -> Result<Vec<u8>, Error> {
    let host = |error: std::io::Error| HostError::system("a component cannot be compiled", error);
    let folder = tempfile::Builder::new().prefix("shoal-compile-").tempdir().map_err(host)?;
    let path = |name| folder.path().join(name);
    fs::write(path(INPUT), component).map_err(host)?;
    let complaints = File::create(path(REASON)).map_err(host)?;
    let mut process = child
        .command(child::COMPILE)
        .env(FOLDER, folder.path())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(complaints)
        .spawn()
        .map_err(|error| HostError::system("the compiling child does not start", error))?;
    let Some(status) = wait(&mut process, limits::COMPILE_WALL).map_err(host)? else {
        // An entry meets the limit of processor time long before.
        return Err(HostError::system("compiling does not end", "the machine is overloaded").into());
    };
    if status.success() {
        let mut code = Vec::new();
        let file = File::open(path(OUTPUT)).map_err(host)?;
        file.take(limits::COMPILED_BYTES_MAX + 1).read_to_end(&mut code).map_err(host)?;
        return Ok(code);
    }
    let mut reason = Vec::new();
    File::open(path(REASON))
        .and_then(|file| file.take(limits::LOG_BYTES_MAX as u64).read_to_end(&mut reason))
        .map_err(host)?;
    Err(explain(status, &String::from_utf8_lossy(&reason)))
}

/// Waits until `limit`, then kills: `None`.
fn wait(process: &mut std::process::Child, limit: Duration) -> std::io::Result<Option<ExitStatus>> {
    let started = Instant::now();
    loop {
        if let Some(status) = process.try_wait()? {
            return Ok(Some(status));
        }
        if started.elapsed() > limit {
            process.kill()?;
            process.wait()?;
            return Ok(None);
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn explain(status: ExitStatus, reason: &str) -> Error {
    let limit = |what: &str, limit: String| format!("compiling took more than {limit} of {what}");
    match (status.code(), signal(status)) {
        (Some(REFUSED), _) if reason.contains("Cannot allocate memory") => {
            Error::entry(Fault::Memory, reason)
        }
        (Some(REFUSED), _) => Error::entry(Fault::Invalid, reason),
        (_, Some(SIGXCPU)) => {
            Error::entry(Fault::Time, limit("processor time", format!("{:?}", limits::COMPILE_CPU)))
        }
        (_, Some(SIGXFSZ)) => Error::entry(
            Fault::OutputTooLarge,
            limit("code", format!("{} bytes", limits::COMPILED_BYTES_MAX)),
        ),
        _ if reason.contains("memory allocation of") || reason.contains("out of memory") => {
            Error::entry(Fault::Memory, limit("memory", format!("{} bytes", limits::COMPILE_MEMORY_BYTES)))
        }
        (_, Some(SIGKILL)) => {
            HostError::system("the compiling child was killed", "by another process, or for want of memory")
                .into()
        }
        // A compiler that crashes on an entry is the entry's end: it must not stop a judge.
        (_, Some(signal)) => {
            Error::entry(Fault::Invalid, format!("the compiler stopped with signal {signal}: {reason}"))
        }
        // Windows tells a crash by a code (NTSTATUS) that no program gives by itself.
        (Some(code), _) if code < 0 => {
            Error::entry(Fault::Invalid, format!("the compiler stopped with exception {code:#x}: {reason}"))
        }
        (Some(101), _) => Error::entry(Fault::Invalid, format!("the compiler gave up: {reason}")),
        (code, _) => HostError::new(
            "the compiling child failed",
            format!("exit code {code:?}: {reason}"),
            "check that `main` calls sandbox::child::run_if_asked first",
        )
        .into(),
    }
}

/// The signal that ended a process.
#[cfg(unix)]
fn signal(status: ExitStatus) -> Option<i32> {
    std::os::unix::process::ExitStatusExt::signal(&status)
}

#[cfg(not(unix))]
fn signal(_: ExitStatus) -> Option<i32> {
    None
}

/// The child's side: reads the component, writes compiled code or a reason. Returns the exit code.
pub(crate) fn run_child() -> i32 {
    let Some(folder) = std::env::var_os(FOLDER).map(PathBuf::from) else { return BROKEN };
    match compile_here(&folder) {
        Ok(()) => 0,
        Err((code, reason)) => {
            drop(fs::write(folder.join(REASON), reason.as_bytes()));
            code
        }
    }
}

fn compile_here(folder: &Path) -> Result<(), (i32, String)> {
    let broken = |error: &dyn std::fmt::Display| (BROKEN, error.to_string());
    let component = fs::read(folder.join(INPUT)).map_err(|error| broken(&error))?;
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut output = options.open(folder.join(OUTPUT)).map_err(|error| broken(&error))?;
    #[cfg(target_os = "linux")]
    crate::restrict::compiler(folder).map_err(|error| broken(&error))?;
    let engine = settings::engine().map_err(|error| broken(&error))?;
    // `precompile_component` would also take WebAssembly text if that feature were on; refuse it by its first bytes.
    if !component.starts_with(b"\0asm") {
        return Err((
            REFUSED,
            "not a WebAssembly component (the first four bytes are not \\0asm)".to_owned(),
        ));
    }
    let code = engine.precompile_component(&component).map_err(|error| (REFUSED, format!("{error:#}")))?;
    output.write_all(&code).map_err(|error| broken(&error))
}
