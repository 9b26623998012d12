//! `shoal arena new`: an entry, or a competition of programs, to start from, which builds and scores at once; `shoal arena
//! pack`: a module to a component.

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
    /// Language of a codec. Default: rust.
    #[arg(long, value_enum)]
    lang: Option<Language>,
    /// New folder. Default: ./my-codec, ./my-program.
    #[arg(value_name = "FOLDER")]
    folder: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum What {
    /// An entry for a codec competition.
    Codec,
    /// A competition of programs, in Python: its spec, its evaluator, and an entry.
    Program,
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

const EVALUATOR: &str = include_str!("templates/program/evaluator.py");
const PROGRAM: Files = &[
    ("sort.toml", include_str!("templates/program/sort.toml")),
    ("evaluator.py", EVALUATOR),
    ("entry.py", include_str!("templates/program/entry.py")),
];
/// Stands in the spec where the evaluator's hash belongs.
const HASH: &str = "HASH OF evaluator.py";

/// What is made.
struct Template {
    folder: &'static str,
    files: Files,
    /// Commands to build, in the folder.
    build: Option<&'static str>,
    /// The file to enter.
    entry: &'static str,
    /// What `eval` needs besides.
    with: &'static str,
}

fn template(what: What, lang: Option<Language>) -> Result<Template> {
    let codec = Template { folder: "my-codec", files: RUST, build: None, entry: "", with: "" };
    Ok(match (what, lang) {
        (What::Codec, None | Some(Language::Rust)) => Template {
            build: Some("cargo build --release --target wasm32-unknown-unknown"),
            entry: "target/wasm32-unknown-unknown/release/my_codec.wasm",
            ..codec
        },
        (What::Codec, Some(Language::Python)) => Template { files: PYTHON, entry: "solution.py", ..codec },
        (What::Codec, Some(Language::C)) => {
            Template { files: C, build: Some("sh build"), entry: "codec.wasm", ..codec }
        }
        (What::Program, None | Some(Language::Python)) => Template {
            folder: "my-program",
            files: PROGRAM,
            build: None,
            entry: "entry.py",
            with: " --spec sort.toml --reference evaluator.py",
        },
        (What::Program, Some(_)) => {
            return Err(bad_input("a competition of programs is made in python only: leave --lang out"));
        }
    })
}

pub(super) fn run(args: &NewArgs, json: bool) -> Result<String> {
    let Template { folder, files, build, entry, with } = template(args.what, args.lang)?;
    let folder = args.folder.clone().unwrap_or_else(|| folder.into());
    if folder.exists() {
        return Err(bad_input(format!("{} is there already: name a new folder", folder.display())));
    }
    let evaluator = Hash::of(EVALUATOR.as_bytes()).to_string();
    for (name, content) in files {
        write(&folder.join(name), content.replace(HASH, &evaluator).as_bytes())?;
    }
    let folder = folder.display().to_string();
    let eval = format!("shoal arena eval {entry}{with}");
    if json {
        return Ok(json!({ "folder": folder, "build": build, "entry": entry, "eval": eval }).to_string());
    }
    let build = build.map_or_else(String::new, |build| format!("  {build}\n"));
    Ok(format!("made {folder}\n\n  cd {folder}\n{build}  {eval}"))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_openers_guide_shows_what_is_made() {
        for (name, content) in PROGRAM {
            assert!(crate::arena_cli::online::OPENERS_GUIDE.contains(content), "{name}");
        }
    }
}
