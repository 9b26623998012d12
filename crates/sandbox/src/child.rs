//! Children that are the same binary: one compiles components, one supervises a jail from inside.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::fault::HostError;
use crate::{jail, wasm};

/// Names what a child is for; its presence makes a process one.
pub(crate) const ROLE: &str = "SHOAL_SANDBOX_CHILD";
/// Compiles one component.
pub(crate) const COMPILE: &str = "compile";
/// Supervises the program of a jail.
pub(crate) const SUPERVISE: &str = "supervise";

/// Where Windows lies: without it some of its libraries do not start.
const SYSTEM: &str = "SystemRoot";

/// How to start this binary as a child.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Child {
    program: PathBuf,
    args: Vec<OsString>,
}

impl Child {
    /// The running executable, which must call [`run_if_asked`] first in `main`.
    pub fn this_binary() -> Result<Self, HostError> {
        let program = std::env::current_exe().map_err(|error| {
            HostError::new("the path of this program is unknown", error, "mount /proc and start it again")
        })?;
        Ok(Self { program, args: Vec::new() })
    }

    /// Another executable, or this one with arguments that lead it to [`run_if_asked`]: in tests, a test function that
    /// calls it, named by `--exact`.
    pub fn new(program: impl Into<PathBuf>, args: impl IntoIterator<Item = impl Into<OsString>>) -> Self {
        Self { program: program.into(), args: args.into_iter().map(Into::into).collect() }
    }

    /// The executable.
    #[cfg(target_os = "linux")]
    pub(crate) fn program(&self) -> &Path {
        &self.program
    }

    /// What leads it to [`run_if_asked`].
    #[cfg(target_os = "linux")]
    pub(crate) fn args(&self) -> &[OsString] {
        &self.args
    }

    /// A command with an empty environment but for the role, and on Windows for the folder of its own libraries.
    pub(crate) fn command(&self, role: &str) -> Command {
        let mut command = Command::new(&self.program);
        command.args(&self.args).env_clear().env(ROLE, role);
        if cfg!(windows) {
            command.envs(std::env::var_os(SYSTEM).map(|folder| (SYSTEM, folder)));
        }
        command
    }
}

/// If this process was started as a child of the sandbox, does that work and exits; otherwise returns at once.
///
/// Call it first in `main`, before threads exist.
pub fn run_if_asked() {
    let Some(role) = std::env::var_os(ROLE) else { return };
    let code = match role.to_str() {
        Some(COMPILE) => wasm::compile_child(),
        Some(SUPERVISE) => jail::supervise(),
        _ => 2,
    };
    std::process::exit(code);
}
