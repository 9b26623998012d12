//! Project tasks: `cargo xtask tidy | interop | bench | components`.
//!
//! Must never know the protocol: it holds documents against code and runs other programs.
#![expect(clippy::print_stdout, reason = "a command-line tool prints its result")]

mod bench;
mod components;
mod interop;
mod tidy;

use std::path::PathBuf;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};

const USAGE: &str = "\
usage: cargo xtask TASK

  tidy              hold the dependency rule and the documents against the code
  interop           check exports against transformers, and an entry against Apex's contract (makes its own virtual environment)
  bench [NAME…]     run the benchmarks and write docs/benchmarks.md
  components        rebuild the codec components and compare them with the committed ones; `components write` replaces them";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[String]) -> Result<()> {
    let root = root()?;
    match arguments.split_first() {
        Some((task, [])) if task == "tidy" => tidy::run(&root),
        Some((task, [])) if task == "interop" => interop::run(&root),
        Some((task, [])) if task == "components" => components::run(&root, false),
        Some((task, [word])) if task == "components" && word == "write" => components::run(&root, true),
        Some((task, names)) if task == "bench" => bench::run(&root, names),
        _ => bail!("{USAGE}"),
    }
}

/// The workspace root: the folder above this crate.
fn root() -> Result<PathBuf> {
    let here = std::env::var_os("CARGO_MANIFEST_DIR").context("start this with `cargo xtask`")?;
    let here = PathBuf::from(here);
    Ok(here.parent().context("xtask has no parent folder")?.to_owned())
}

/// Cargo, without what the one around this program says of it: build scripts that ask for the package (ring's does) would run
/// again, and all that hangs on them be built anew.
fn cargo() -> Command {
    let mut command = Command::new("cargo");
    for (name, _) in std::env::vars_os() {
        if name
            .to_str()
            .is_some_and(|name| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_"))
        {
            command.env_remove(name);
        }
    }
    command
}

/// Where tools and virtual environments that outlive a clone are kept.
fn cache() -> PathBuf {
    if let Some(folder) = std::env::var_os("SHOAL_CACHE") {
        return folder.into();
    }
    let home = std::env::var_os("HOME").map_or_else(|| PathBuf::from("/tmp"), PathBuf::from);
    home.join(".cache/shoal")
}
