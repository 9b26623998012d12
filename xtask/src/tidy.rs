//! Holds the dependency rule and the documents against the code.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// Longest source file, lines. Style: seldom above 400.
const LINES_MAX: usize = 600;
/// Crates that may do no I/O, and the words that would betray it.
const PURE: [&str; 3] = ["ledger", "swarm", "arena"];
const IMPURE: [&str; 8] =
    ["std::fs", "std::net", "std::thread", "SystemTime", "Instant::now", "tokio", "HashMap", "HashSet"];
const DOCUMENTS: [&str; 5] = ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md", "deny.toml"];

/// Runs every check; prints each fault and fails if there is one.
pub(crate) fn run(root: &Path) -> Result<()> {
    let mut faults = Vec::new();
    let crates = crates(root)?;
    let architecture = fs::read_to_string(root.join("ARCHITECTURE.md")).context("ARCHITECTURE.md")?;
    dependencies(&crates, &architecture, &mut faults)?;
    sources(root, &crates, &mut faults)?;
    documents(root, &mut faults)?;
    faults.extend(crate::components::unlisted(root)?);
    for fault in &faults {
        println!("tidy: {fault}");
    }
    if !faults.is_empty() {
        bail!("{} faults", faults.len());
    }
    println!("tidy: {} crates, dependency rule, sources, documents and components agree", crates.len());
    Ok(())
}

/// Our crates: short name → folder.
fn crates(root: &Path) -> Result<BTreeMap<String, PathBuf>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(root.join("crates")).context("crates/")? {
        let path = entry?.path();
        if path.join("Cargo.toml").is_file() {
            let name = path.file_name().and_then(|name| name.to_str()).context("crate folder name")?;
            found.insert(name.to_owned(), path.clone());
        }
    }
    Ok(found)
}

/// ARCHITECTURE.md lists each crate as "| `name` | `a`, `b` | … |": what it may use of ours.
fn allowed(architecture: &str) -> BTreeMap<String, BTreeSet<String>> {
    let mut rules = BTreeMap::new();
    for line in architecture.lines() {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let [_, name, uses, _, ..] = cells[..] else { continue };
        let Some(name) = name.strip_prefix('`').and_then(|name| name.strip_suffix('`')) else { continue };
        let uses = uses.split(',').map(|part| part.trim().trim_matches('`').to_owned());
        rules.insert(name.to_owned(), uses.filter(|part| !part.is_empty() && part != "–").collect());
    }
    rules
}

fn dependencies(
    crates: &BTreeMap<String, PathBuf>,
    architecture: &str,
    faults: &mut Vec<String>,
) -> Result<()> {
    let rules = allowed(architecture);
    for (name, folder) in crates {
        let Some(rule) = rules.get(name) else {
            faults.push(format!("ARCHITECTURE.md has no row `| `{name}` | uses | owns |`"));
            continue;
        };
        let manifest: toml::Table = fs::read_to_string(folder.join("Cargo.toml"))?.parse()?;
        for (section, table) in tables(&manifest) {
            for (dependency, value) in table {
                if value.get("workspace").and_then(toml::Value::as_bool) != Some(true) {
                    faults.push(format!(
                        "{name}: {section}.{dependency} must take its version from the workspace"
                    ));
                }
                if section == "dependencies" && crates.contains_key(dependency) && !rule.contains(dependency)
                {
                    faults.push(format!("{name} uses {dependency}, which ARCHITECTURE.md does not allow"));
                }
            }
        }
    }
    for name in rules.keys().filter(|name| !crates.contains_key(*name)) {
        faults.push(format!("ARCHITECTURE.md names crate {name}, which does not exist"));
    }
    Ok(())
}

/// Tables of dependencies: those for every system, and those for some.
fn tables(manifest: &toml::Table) -> impl Iterator<Item = (&'static str, &toml::Table)> {
    let targets = manifest.get("target").and_then(toml::Value::as_table).into_iter();
    let targets = targets.flat_map(|targets| targets.values()).filter_map(toml::Value::as_table);
    std::iter::once(manifest).chain(targets).flat_map(|of| {
        let sections = ["dependencies", "dev-dependencies", "build-dependencies"];
        sections.into_iter().filter_map(move |section| Some((section, of.get(section)?.as_table()?)))
    })
}

fn sources(root: &Path, crates: &BTreeMap<String, PathBuf>, faults: &mut Vec<String>) -> Result<()> {
    let mut files = Vec::new();
    for folder in ["crates", "xtask", "bench", "fuzz"] {
        rust_files(&root.join(folder), &mut files)?;
    }
    for file in &files {
        let text = fs::read_to_string(file).with_context(|| file.display().to_string())?;
        let shown = file.strip_prefix(root).unwrap_or(file).display();
        if file.file_name().is_some_and(|name| name == "mod.rs") {
            faults.push(format!("{shown}: use foo.rs beside foo/, not mod.rs"));
        }
        let lines = text.lines().count();
        if lines > LINES_MAX {
            faults.push(format!("{shown}: {lines} lines, at most {LINES_MAX}"));
        }
        for (word, reason) in [
            (concat!("#[", "allow("), "use #[expect(…, reason = …)]"),
            (concat!("#[", "ignore"), "no ignored tests"),
            (concat!("to", "do!("), "no unfinished code"),
            (concat!("unimplement", "ed!("), "no unfinished code"),
        ] {
            if text.contains(word) {
                faults.push(format!("{shown}: {word}: {reason}"));
            }
        }
    }
    for (name, folder) in crates {
        let main =
            ["src/lib.rs", "src/main.rs"].iter().map(|file| folder.join(file)).find(|file| file.is_file());
        let text =
            fs::read_to_string(main.with_context(|| format!("{name} has neither lib.rs nor main.rs"))?)?;
        let header: String = text.lines().take_while(|line| line.starts_with("//!")).collect();
        if !header.to_lowercase().contains("must never") {
            faults.push(format!(
                "{name}: the crate's first lines must say what it owns and what it must never know"
            ));
        }
    }
    for name in PURE.iter().filter(|name| crates.contains_key(**name)) {
        let mut files = Vec::new();
        rust_files(&crates[*name].join("src"), &mut files)?;
        for file in files {
            let text = fs::read_to_string(&file)?;
            let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
            for (number, line) in code.enumerate() {
                for word in IMPURE.iter().filter(|word| line.contains(**word)) {
                    let shown = file.strip_prefix(root).unwrap_or(&file).display();
                    faults.push(format!("{shown}: code line {number}: a pure crate may not use {word}"));
                }
            }
        }
    }
    Ok(())
}

fn rust_files(folder: &Path, found: &mut Vec<PathBuf>) -> Result<()> {
    if !folder.is_dir() {
        return Ok(());
    }
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default();
        if path.is_dir() && name != "target" && name != ".venv" {
            rust_files(&path, found)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found.sort();
    Ok(())
}

/// Documents exist, their relative links lead somewhere, and README names the commands that CI runs.
fn documents(root: &Path, faults: &mut Vec<String>) -> Result<()> {
    for name in DOCUMENTS.iter().filter(|name| !root.join(name).is_file()) {
        faults.push(format!("{name} is missing"));
    }
    for name in DOCUMENTS.iter().filter(|name| name.to_ascii_lowercase().ends_with(".md")) {
        let text = fs::read_to_string(root.join(name)).unwrap_or_default();
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let target = link.split('#').next().unwrap_or_default();
            if !target.is_empty() && !target.contains("://") && !root.join(target).exists() {
                faults.push(format!("{name}: link to {target}, which does not exist"));
            }
        }
    }
    let readme = fs::read_to_string(root.join("README.md")).unwrap_or_default();
    let ci = fs::read_to_string(root.join(".ci/run")).context(".ci/run")?;
    for command in ["cargo run --release -- up", "cargo test --release --workspace"] {
        if !readme.contains(command) {
            faults.push(format!("README.md does not name `{command}`"));
        }
    }
    if !ci.contains("cargo test --release --workspace") {
        faults.push(".ci/run does not run the README's test command".into());
    }
    Ok(())
}
