//! `shoal arena harvest`: turns a run's own tensors into inputs: frames that miners kept, and checkpoints.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Args;
use judge::input::to_bf16;
use judge::{Direction, Input};
use model::checkpoint::TensorFile;
use wire::Hash;

use super::eval::seed;
use super::samples::{list_and_write, nobodys};
use crate::failure::bad_input;

/// Arguments of `shoal arena harvest`.
#[derive(Debug, Args)]
pub(crate) struct HarvestArgs {
    /// A run's folder, a checkpoint, or any folder: kept frames (`shoal miner --keep-frames`) and .safetensors files below it.
    run: PathBuf,
    /// New folder for the inputs and manifest.csv.
    #[arg(short, long, value_name = "FOLDER")]
    output: PathBuf,
    /// Most inputs; a draw by --seed if there are more.
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=4096))]
    items: u32,
    /// Seed of the draw.
    #[arg(long, value_name = "TEXT", default_value = "harvest")]
    seed: String,
}

/// Smallest tensor that is worth compressing, bytes of bf16.
const BYTES_MIN: usize = 4 << 10;
/// Most of a large tensor that one input holds, bytes of bf16: whole rows.
const BYTES_MAX: usize = 8 << 20;
/// Deepest folder that is searched.
const DEPTH_MAX: usize = 6;

pub(super) fn run(args: &HarvestArgs, json: bool) -> Result<String> {
    let mut files = Vec::new();
    find(&args.run, 0, &mut files)?;
    files.sort();
    let seed = seed(&args.seed);
    let (mut found, mut packed) = (Vec::new(), 0_usize);
    for file in &files {
        let shown = || file.display().to_string();
        match file.extension().and_then(|name| name.to_str()) {
            Some("safetensors") => tensors(file, &mut found).with_context(shown)?,
            Some("frame") => match frame(file).with_context(shown)? {
                Some(input) => found.push(input),
                None => packed += 1,
            },
            _ => {}
        }
    }
    if found.is_empty() && packed > 0 {
        return Err(bad_input(format!(
            "{}: {packed} kept frames hold the codes that the run's cut has packed already, which are no numbers: harvest a run with plain or bottleneck cuts ([cut] in its spec), or a checkpoint",
            args.run.display()
        )));
    }
    if packed > 0 {
        tracing::warn!(packed, "kept frames hold codes that the run's cut has packed already: left out");
    }
    if found.is_empty() {
        return Err(bad_input(format!(
            "{}: no tensors: kept frames (start miners with --keep-frames) or .safetensors files are needed",
            args.run.display()
        )));
    }
    found.sort_by_key(|input| Hash::of_parts("shoal 2026-11 harvest", &[&seed.0, &input.hash.0]));
    // The same content once.
    found.dedup_by_key(|input| input.hash);
    found.truncate(args.items as usize);
    for (index, input) in found.iter_mut().enumerate() {
        input.name = format!("{index:04}-{}.bin", input.name);
    }
    list_and_write(&nobodys(found), Some(&args.output), json)
}

fn find(path: &Path, depth: usize, files: &mut Vec<PathBuf>) -> Result<()> {
    let kind = std::fs::symlink_metadata(path)
        .map_err(|error| bad_input(format!("{}: {error}", path.display())))?
        .file_type();
    if kind.is_file() {
        files.push(path.to_owned());
    } else if kind.is_dir() && depth < DEPTH_MAX {
        let listed = std::fs::read_dir(path).with_context(|| path.display().to_string())?;
        for item in listed {
            find(&item?.path(), depth + 1, files)?;
        }
    }
    Ok(())
}

/// A frame that a miner kept: a payload of the codecs, its direction in its name.
fn frame(file: &Path) -> Result<Option<Input>> {
    let tensor = codec::decode(&std::fs::read(file)?, &codec::Limits::default())?;
    let name = plain(file.file_stem().and_then(|name| name.to_str()).unwrap_or("frame"));
    let direction = if name.starts_with("backward") { Direction::Backward } else { Direction::Forward };
    let bytes = match tensor.dtype() {
        codec::DType::Bf16 => tensor.bytes().to_vec(),
        codec::DType::F32 => {
            let values: Vec<f32> =
                tensor.bytes().as_chunks::<4>().0.iter().map(|value| f32::from_le_bytes(*value)).collect();
            to_bf16(&values)
        }
        // Codes that a cut has packed already are no numbers.
        _ => return Ok(None),
    };
    let (rows, cols) = tensor.view().rows_cols();
    Ok(Some(Input::new(name, Some(vec![rows as u32, cols as u32]), direction, bytes)?))
}

/// Matrices of a checkpoint, large ones in pieces of whole rows.
fn tensors(file: &Path, found: &mut Vec<Input>) -> Result<()> {
    let open = TensorFile::open(file)?;
    for name in open.names() {
        let Some([rows, cols]) = open.shape(name) else { continue };
        let (rows, cols) = (*rows, *cols);
        if rows * cols * 2 < BYTES_MIN {
            continue;
        }
        let values = open.read(name)?;
        let rows_each = (BYTES_MAX / 2 / cols).clamp(1, rows);
        for (piece, part) in values.chunks(rows_each * cols).enumerate() {
            let shape = vec![(part.len() / cols) as u32, cols as u32];
            let label = format!("{}-{piece}", plain(name));
            found.push(Input::new(label, Some(shape), Direction::Forward, to_bf16(part))?);
        }
    }
    Ok(())
}

/// A name that any file system takes.
fn plain(name: &str) -> String {
    let good = |c: char| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '_' };
    name.chars().take(100).map(good).collect()
}
