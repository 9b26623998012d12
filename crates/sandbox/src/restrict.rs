//! What a process takes away from itself before it touches untrusted input: resource limits, landlock, seccomp.

mod syscalls;

use std::path::Path;

use landlock::{
    ABI, Access, AccessFs, Ruleset, RulesetAttr, RulesetCreated, RulesetCreatedAttr, RulesetStatus, Scope,
    path_beneath_rules,
};
use rustix::process::{Resource, Rlimit, setrlimit};

use crate::limits;

/// The newest landlock that this code knows; an older kernel enforces what it can.
const LANDLOCK: ABI = ABI::V6;

/// Why restricting failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RestrictError {
    #[error("resource limit {0}: {1}")]
    Limit(&'static str, rustix::io::Errno),
    #[error("landlock: {0}")]
    Landlock(#[from] landlock::RulesetError),
    #[error("seccomp: {0}")]
    Seccomp(String),
}

/// Limits of the program in a jail; children inherit them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Resources {
    pub(crate) cpu_seconds: u64,
    pub(crate) file_bytes: u64,
    pub(crate) open_files: u64,
    pub(crate) address_space_bytes: Option<u64>,
}

fn limit(name: &'static str, resource: Resource, value: u64) -> Result<(), RestrictError> {
    setrlimit(resource, Rlimit { current: Some(value), maximum: Some(value) })
        .map_err(|error| RestrictError::Limit(name, error))
}

pub(crate) fn resources(of: Resources) -> Result<(), RestrictError> {
    limit("core", Resource::Core, 0)?;
    limit("cpu", Resource::Cpu, of.cpu_seconds)?;
    limit("file size", Resource::Fsize, of.file_bytes)?;
    limit("open files", Resource::Nofile, of.open_files)?;
    limit("message queues", Resource::Msgqueue, 0)?;
    if let Some(bytes) = of.address_space_bytes {
        limit("address space", Resource::As, bytes)?;
    }
    Ok(())
}

/// Whether this kernel enforces landlock at all. Harmless: the ruleset is made, not applied.
pub(crate) fn has_landlock() -> bool {
    use landlock::CompatLevel;
    use landlock::Compatible as _;
    Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(AccessFs::from_all(ABI::V1))
        .and_then(Ruleset::create)
        .is_ok()
}

fn ruleset() -> Result<RulesetCreated, RestrictError> {
    Ok(Ruleset::default()
        .handle_access(AccessFs::from_all(LANDLOCK))?
        .scope(Scope::AbstractUnixSocket)?
        .scope(Scope::Signal)?
        .create()?)
}

/// Restricts this thread and what it starts: reads and runs what lies beneath `read`, writes beneath `write` and into
/// `devices`. Returns whether the kernel enforces anything. Paths that do not exist are left out.
pub(crate) fn landlock<P: AsRef<Path>>(
    read: &[P],
    write: &[P],
    devices: &[P],
) -> Result<bool, RestrictError> {
    let device = AccessFs::ReadFile | AccessFs::WriteFile | AccessFs::IoctlDev;
    let status = ruleset()?
        .add_rules(path_beneath_rules(read, AccessFs::from_read(LANDLOCK)))?
        .add_rules(path_beneath_rules(write, AccessFs::from_all(LANDLOCK)))?
        .add_rules(path_beneath_rules(devices, device))?
        .restrict_self()?;
    Ok(status.ruleset != RulesetStatus::NotEnforced)
}

/// Allows what programs need, refuses what they do not (`ENOSYS`), and kills for what only serves to get out.
/// For this thread and what it starts.
pub(crate) fn seccomp() -> Result<(), RestrictError> {
    for program in syscalls::programs().map_err(RestrictError::Seccomp)? {
        seccompiler::apply_filter(&program).map_err(|error| RestrictError::Seccomp(error.to_string()))?;
    }
    Ok(())
}

/// For the child that compiles: nothing but its folder, bounded memory and time.
pub(crate) fn compiler(folder: &Path) -> Result<(), RestrictError> {
    resources(Resources {
        cpu_seconds: limits::COMPILE_CPU.as_secs(),
        file_bytes: limits::COMPILED_BYTES_MAX,
        open_files: 64,
        address_space_bytes: Some(limits::COMPILE_MEMORY_BYTES),
    })?;
    landlock(&[], &[folder], &[])?;
    seccomp()
}
