//! Rebuilds the codec components under `components/` and compares them with the committed files.
//!
//! Needs the target `wasm32-unknown-unknown` (`rustup target add wasm32-unknown-unknown`) and, for zstd, clang that knows
//! WebAssembly (`apt install clang lld`). Bytes are the same with the toolchain of `rust-toolchain.toml` and the clang
//! that `components/wasm/HASHES` names; paths of this machine are mapped away.

use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};
use wit_component::ComponentEncoder;

const TARGET: &str = "wasm32-unknown-unknown";
const NAMES: [&str; 6] = ["context", "fast", "huffman", "sleeper", "uniform-99", "zstd-3"];

/// Builds all; writes them if `write`, else fails on the first that differs.
pub(crate) fn run(root: &Path, write: bool) -> Result<()> {
    let folder = root.join("components");
    let clang = clang()?;
    build(root, &folder)?;
    let mut hashes = format!("# {}\n# {clang}\n", rustc()?);
    let mut differ = Vec::new();
    let list = folder.join("wasm/HASHES");
    let listed = fs::read_to_string(&list).unwrap_or_default();
    for name in NAMES {
        let component = encode(&folder, name)?;
        let hash = blake3::hash(&component);
        _ = writeln!(hashes, "{hash}  {name}.wasm");
        let committed = folder.join("wasm").join(format!("{name}.wasm"));
        let row = format!("{hash}  {name}.wasm");
        let same =
            fs::read(&committed).is_ok_and(|old| old == component) && listed.lines().any(|line| line == row);
        println!("{name}: {} bytes, {hash}{}", component.len(), if same { "" } else { ", differs" });
        if write {
            fs::write(&committed, &component).with_context(|| committed.display().to_string())?;
        } else if !same {
            differ.push(name);
        }
    }
    if write {
        fs::write(&list, hashes).with_context(|| list.display().to_string())?;
    } else if !differ.is_empty() {
        bail!(
            "{} differ from the committed files, which were built with\n{listed}`cargo xtask components write` replaces them",
            differ.join(", ")
        );
    }
    Ok(())
}

/// What the list of hashes says of the committed files, where it is wrong. Builds nothing.
pub(crate) fn unlisted(root: &Path) -> Result<Vec<String>> {
    let folder = root.join("components/wasm");
    let list = fs::read_to_string(folder.join("HASHES")).context("components/wasm/HASHES")?;
    let mut faults = Vec::new();
    for name in NAMES {
        let bytes = fs::read(folder.join(format!("{name}.wasm"))).with_context(|| name.to_owned())?;
        let row = format!("{}  {name}.wasm", blake3::hash(&bytes));
        if !list.lines().any(|line| line == row) {
            faults.push(format!("components/wasm/HASHES has no row `{row}`"));
        }
    }
    let rows = list.lines().filter(|line| !line.starts_with('#')).count();
    if rows != NAMES.len() {
        faults.push(format!("components/wasm/HASHES lists {rows} components, there are {}", NAMES.len()));
    }
    Ok(faults)
}

fn build(root: &Path, folder: &Path) -> Result<()> {
    let home = std::env::var("CARGO_HOME")
        .or_else(|_| std::env::var("HOME").map(|home| format!("{home}/.cargo")))
        .context("neither CARGO_HOME nor HOME is set")?;
    let flags = format!(
        "-C target-feature=+simd128 --remap-path-prefix={home}/registry/src=/registry --remap-path-prefix={}=/shoal",
        root.display()
    );
    let c_flags = format!("-ffile-prefix-map={home}/registry/src=/registry");
    let status = Command::new("cargo")
        .args(["build", "--release", "--locked", "--target", TARGET])
        .current_dir(folder)
        .env("RUSTFLAGS", flags)
        .env("CFLAGS_wasm32_unknown_unknown", c_flags)
        .env("CARGO_TARGET_DIR", folder.join("target"))
        .status()
        .context("cargo")?;
    if !status.success() {
        bail!("the components do not build: is the target there (rustup target add {TARGET}), and clang?");
    }
    Ok(())
}

/// Wraps the module in a component. What the module imports would stay an import: there is none.
fn encode(folder: &Path, name: &str) -> Result<Vec<u8>> {
    let module = folder.join(format!("target/{TARGET}/release/{}.wasm", name.replace('-', "_")));
    let bytes = fs::read(&module).with_context(|| module.display().to_string())?;
    let encode = || ComponentEncoder::default().validate(true).module(&bytes)?.encode();
    encode().map_err(|error| anyhow::anyhow!("{name}: {error:#}"))
}

fn clang() -> Result<String> {
    first_line("clang", "--version").context("clang is needed for zstd (apt install clang lld)")
}

fn rustc() -> Result<String> {
    first_line("rustc", "--version")
}

fn first_line(program: &str, argument: &str) -> Result<String> {
    let output = Command::new(program).arg(argument).output().with_context(|| program.to_owned())?;
    Ok(String::from_utf8_lossy(&output.stdout).lines().next().unwrap_or_default().to_owned())
}
