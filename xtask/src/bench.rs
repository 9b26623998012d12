//! Runs the benchmarks under `bench/` and gathers their tables in `docs/benchmarks.md`.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

/// Every `bench/NAME/run` is a script that prints a Markdown section on stdout and logs on stderr.
pub(crate) fn run(root: &Path, names: &[String]) -> Result<()> {
    let mut all: Vec<String> = fs::read_dir(root.join("bench"))
        .context("bench/")?
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| root.join("bench").join(name).join("run").is_file())
        .collect();
    all.sort();
    if let Some(unknown) = names.iter().find(|name| !all.contains(name)) {
        bail!("no benchmark {unknown}; there are {}", all.join(", "));
    }
    for name in all.iter().filter(|name| names.is_empty() || names.contains(name)) {
        println!("bench: {name}");
        let output = Command::new(root.join("bench").join(name).join("run"))
            .current_dir(root)
            .stderr(std::process::Stdio::inherit())
            .output()
            .with_context(|| format!("bench/{name}/run"))?;
        if !output.status.success() {
            bail!("bench/{name}/run ended with {}", output.status);
        }
        let text = String::from_utf8(output.stdout).context("a benchmark prints UTF-8")?;
        fs::create_dir_all(root.join("docs/bench"))?;
        fs::write(root.join("docs/bench").join(format!("{name}.md")), &text)?;
        println!("{text}");
    }
    gather(root)
}

/// One page from the newest section of each benchmark.
fn gather(root: &Path) -> Result<()> {
    let mut page =
        "# Benchmarks\n\nWritten by `cargo xtask bench`. Each section names its command and machine.\n"
            .to_owned();
    let mut sections: Vec<_> =
        fs::read_dir(root.join("docs/bench"))?.filter_map(|entry| Some(entry.ok()?.path())).collect();
    sections.sort();
    for section in sections {
        write!(page, "\n{}", fs::read_to_string(section)?.trim_end()).context("a string takes all")?;
        page.push('\n');
    }
    fs::write(root.join("docs/benchmarks.md"), page)?;
    println!("bench: wrote docs/benchmarks.md");
    Ok(())
}
