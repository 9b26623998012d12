//! Checks against `transformers`, in a virtual environment of their own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

/// Pinned in the repository; the environment is made anew when this file changes.
const REQUIREMENTS: &str = "crates/model/tests/interop/requirements.txt";

/// Makes the environment if it is not in the cache, then holds our saved models against `transformers`, both ways.
pub(crate) fn run(root: &Path) -> Result<()> {
    let requirements = root.join(REQUIREMENTS);
    let text = fs::read(&requirements).with_context(|| requirements.display().to_string())?;
    let environment = crate::cache().join(format!("interop-{}", &blake3::hash(&text).to_hex()[..12]));
    let python = environment.join("bin/python");
    let complete = environment.join("complete");
    if !complete.is_file() {
        println!("interop: making {} (several GB from PyPI, once)", environment.display());
        execute(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&environment))?;
        execute(
            Command::new(&python)
                .args(["-m", "pip", "install", "--quiet", "--requirement"])
                .arg(&requirements),
        )?;
        fs::write(&complete, b"")?;
    }
    let cargo = ["build", "--release", "--package", "shoal-model", "--example", "interop"];
    execute(Command::new("cargo").args(cargo).current_dir(root))?;
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    let script = root.join("crates/model/tests/interop/check_hf.py");
    execute(Command::new(&python).arg(script).arg(target.join("release/examples/interop")).current_dir(root))
}

fn execute(command: &mut Command) -> Result<()> {
    let status =
        command.status().with_context(|| format!("cannot start {}", command.get_program().display()))?;
    if !status.success() {
        bail!("{command:?} ended with {status}");
    }
    Ok(())
}
