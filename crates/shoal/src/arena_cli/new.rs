//! `shoal arena new`: an entry to start from, which builds and scores at once; `shoal arena pack`: a module to a component.

use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::{Args, ValueEnum};
use serde_json::json;
use wire::Hash;

use super::eval::read;
use crate::failure::bad_input;

/// Arguments of `shoal arena new`.
#[derive(Debug, Args)]
pub(crate) struct NewArgs {
    /// What to make.
    #[arg(value_enum)]
    what: What,
    /// Language of the entry.
    #[arg(long, value_enum, default_value_t = Language::Rust)]
    lang: Language,
    /// New folder. Default: ./my-codec.
    #[arg(value_name = "FOLDER", default_value = "my-codec")]
    folder: PathBuf,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum What {
    /// An entry for a codec competition.
    Codec,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Language {
    /// A component; needs `rustup target add wasm32-unknown-unknown`.
    Rust,
    /// A program of the standard library; judged in a process jail.
    Python,
    /// A component; needs clang and lld.
    C,
}

/// Arguments of `shoal arena pack`.
#[derive(Debug, Args)]
pub(crate) struct PackArgs {
    /// A core WebAssembly module.
    module: PathBuf,
    /// The component.
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
}

/// Files of a template: name and content.
type Files = &'static [(&'static str, &'static str)];

const RUST: Files = &[
    ("Cargo.toml", include_str!("templates/rust/Cargo.toml.txt")),
    ("src/lib.rs", include_str!("templates/rust/lib.rs.txt")),
    ("src/abi.rs", include_str!("templates/rust/abi.rs.txt")),
];
const PYTHON: Files = &[("solution.py", include_str!("templates/python/solution.py"))];
const C: Files = &[
    ("codec.c", include_str!("templates/c/codec.c")),
    ("abi.h", include_str!("templates/c/abi.h")),
    ("build", include_str!("templates/c/build")),
];

impl Language {
    fn files(self) -> Files {
        match self {
            Self::Rust => RUST,
            Self::Python => PYTHON,
            Self::C => C,
        }
    }

    /// Commands to build (in the folder), and the file to enter.
    fn steps(self) -> (Option<&'static str>, &'static str) {
        match self {
            Self::Rust => (
                Some("cargo build --release --target wasm32-unknown-unknown"),
                "target/wasm32-unknown-unknown/release/my_codec.wasm",
            ),
            Self::Python => (None, "solution.py"),
            Self::C => (Some("sh build"), "codec.wasm"),
        }
    }
}

pub(super) fn run(args: &NewArgs, json: bool) -> Result<String> {
    let What::Codec = args.what;
    if args.folder.exists() {
        return Err(bad_input(format!("{} is there already: name a new folder", args.folder.display())));
    }
    for (name, content) in args.lang.files() {
        write(&args.folder.join(name), content.as_bytes())?;
    }
    let (build, entry) = args.lang.steps();
    let folder = args.folder.display().to_string();
    if json {
        return Ok(json!({ "folder": folder, "build": build, "entry": entry }).to_string());
    }
    let build = build.map_or_else(String::new, |build| format!("  {build}\n"));
    Ok(format!("made {folder}\n\n  cd {folder}\n{build}  shoal arena eval {entry}"))
}

pub(super) fn pack(args: &PackArgs, json: bool) -> Result<String> {
    let module = read(&args.module)?;
    let component = judge::pack::pack(&module)
        .map_err(|error| bad_input(format!("{}: {error}", args.module.display())))?;
    write(&args.output, &component)?;
    let (hash, bytes) = (Hash::of(&component).to_string(), component.len());
    if json {
        return Ok(json!({ "component": hash, "bytes": bytes }).to_string());
    }
    Ok(format!("component {hash}, {bytes} bytes"))
}

fn write(path: &Path, content: &[u8]) -> Result<()> {
    let fail = |error: std::io::Error| bad_input(format!("{}: {error}", path.display()));
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(fail)?;
    }
    std::fs::write(path, content).map_err(fail)
}
