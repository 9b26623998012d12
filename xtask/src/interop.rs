//! Checks against software of others, which PyPI has: PyTorch and `transformers`, in a virtual environment of their own, and
//! a solution for Apex (fastapi, uvicorn, python-multipart, zstd), in the locked environment that a judge builds.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// Pinned in the repository; the environment is made anew when this file changes.
const REQUIREMENTS: &str = "crates/model/tests/interop/requirements.txt";

/// Makes the fixtures of the kernels' tests.
const FIXTURES: &str = "crates/model/tests/fixtures/make.py";

/// Makes the environment if it is not in the cache, then holds the committed fixtures against PyTorch and our saved models
/// against `transformers`, both ways; then judges a solution for Apex.
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
    execute(Command::new(&python).arg(root.join(FIXTURES)).arg("--check"))?;
    let cargo = ["build", "--release", "--package", "shoal-model", "--example", "interop"];
    execute(crate::cargo().args(cargo).current_dir(root))?;
    // The binary of the tests: it is there where they ran before.
    let cargo = ["test", "--release", "--workspace", "--locked", "--no-run"];
    execute(crate::cargo().args(cargo).current_dir(root))?;
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    let script = root.join("crates/model/tests/interop/check_hf.py");
    let built = ["examples/interop", "shoal"].map(|name| target.join("release").join(name));
    execute(Command::new(&python).arg(script).args(built).current_dir(root))?;
    apex(root)
}

/// Name of the test that judges a solution for Apex.
const APEX: &str = "it::programs::a_solution_for_apex_runs_unchanged_in_a_locked_environment";

/// Runs that test where PyPI can be reached. It says so if the machine cannot hold programs.
fn apex(root: &Path) -> Result<()> {
    let cargo = [
        "test",
        "--release",
        "--package",
        "shoal-judge",
        "--test",
        "it",
        "--",
        "--exact",
        "--nocapture",
        APEX,
    ];
    println!("interop: a solution for Apex");
    let mut command = crate::cargo();
    let output =
        command.args(cargo).env("SHOAL_TEST_PYPI", "1").current_dir(root).stderr(Stdio::inherit()).output();
    let output = output.context("cannot start cargo")?;
    let text = String::from_utf8_lossy(&output.stdout);
    print!("{text}");
    if !output.status.success() {
        bail!("the test {APEX} ended with {}", output.status);
    }
    // A name that is no test any more would pass.
    if !text.contains("1 passed") {
        bail!("there is no test {APEX}");
    }
    Ok(())
}

fn execute(command: &mut Command) -> Result<()> {
    let status =
        command.status().with_context(|| format!("cannot start {}", command.get_program().display()))?;
    if !status.success() {
        bail!("{command:?} ended with {status}");
    }
    Ok(())
}
