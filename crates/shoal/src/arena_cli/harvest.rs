//! `shoal arena harvest`: turns a run's own tensors into inputs: frames that miners kept, and checkpoints.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Args;
use judge::input::to_bf16;
use judge::{Direction, Input};
use ledger::fold::Signatures;
use ledger::verify::Replay;
use model::checkpoint::TensorFile;
use swarm::record::{Outcome, Record, Statement, Verdict};
use swarm::state::State;
use wire::{Hash, NodeId};

use super::eval::seed;
use super::samples::list_and_write;
use crate::failure::bad_input;

/// Arguments of `shoal arena harvest`.
#[derive(Debug, Args)]
pub(crate) struct HarvestArgs {
    /// A run's folder, a checkpoint, or any folder: kept frames (`--keep-frames` of `shoal miner` and `up`) and .safetensors
    /// files below it. Frames count for the miner that their name says, tensors of checkpoints for nobody.
    run: PathBuf,
    /// Of frames, only those that by their names are work of this run that a validator replayed with the same bits. Names are
    /// believed: take frames from folders that nobody else can write to.
    #[arg(long, value_name = "RUN")]
    audited: Option<PathBuf>,
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
    let audited = args.audited.as_deref().map(audited).transpose()?;
    let (mut found, mut packed, mut unaudited, mut torn) = (Vec::new(), 0_usize, 0_usize, 0_usize);
    for file in &files {
        let shown = || file.display().to_string();
        match file.extension().and_then(|name| name.to_str()) {
            Some("safetensors") => {
                let mut weights = Vec::new();
                tensors(file, &mut weights).with_context(shown)?;
                found.extend(weights.into_iter().map(|input| (input, None)));
            }
            Some("frame") => {
                let of = Of::parse(file);
                if audited.as_ref().is_some_and(|audited| !of.is_some_and(|of| audited.contains(&of))) {
                    unaudited += 1;
                    continue;
                }
                match frame(file) {
                    Ok(Some(input)) => found.push((input, of)),
                    Ok(None) => packed += 1,
                    Err(error) => {
                        torn += 1;
                        tracing::warn!(file = %shown(), %error, "left out");
                    }
                }
            }
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
    if found.is_empty() && unaudited > 0 {
        return Err(bad_input(format!(
            "{}: none of the {unaudited} kept frames is, by its name, work of this run that was replayed with the same bits: raise [audit] rate in the run's spec, or harvest without --audited",
            args.run.display()
        )));
    }
    if unaudited > 0 {
        tracing::warn!(unaudited, "kept frames whose work was not replayed with the same bits: left out");
    }
    if found.is_empty() && torn > 0 {
        return Err(bad_input(format!("{}: none of {torn} kept frames can be read", args.run.display())));
    }
    if found.is_empty() {
        return Err(bad_input(format!(
            "{}: no tensors: kept frames (start `shoal miner` or `up` with --keep-frames) or .safetensors files are needed",
            args.run.display()
        )));
    }
    found.sort_by_key(|(input, _)| Hash::of_parts("shoal 2026-11 harvest", &[&seed.0, &input.hash.0]));
    // The same content once.
    found.dedup_by_key(|(input, _)| input.hash);
    let mut drawn = in_turns(found);
    drawn.truncate(args.items as usize);
    for (index, (input, _)) in drawn.iter_mut().enumerate() {
        input.name = format!("{index:04}-{}.bin", input.name);
    }
    let drawn: Vec<_> = drawn.into_iter().map(|(input, of)| (input, of.map(|of| of.node))).collect();
    list_and_write(&drawn, Some(&args.output), json)
}

/// The item that a kept frame is the output of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Of {
    /// First digits of the run's id.
    run: u64,
    epoch: u32,
    backward: bool,
    micro_batch: u64,
    node: NodeId,
}

impl Of {
    /// From the name that its miner gave it.
    fn parse(file: &Path) -> Option<Self> {
        let mut parts = file.file_stem()?.to_str()?.split('-');
        let backward = parts.next()? == "backward";
        let run = u64::from_str_radix(parts.next()?, 16).ok()?;
        let epoch = parts.next()?.strip_prefix('e')?.parse().ok()?;
        let micro_batch = parts.next()?.strip_prefix('m')?.parse().ok()?;
        parts.next()?.strip_prefix('n')?;
        Some(Self { run, epoch, backward, micro_batch, node: parts.next()?.parse().ok()? })
    }
}

/// One of each epoch, direction and miner after the other, each in the order it has.
fn in_turns(found: Vec<(Input, Option<Of>)>) -> Vec<(Input, Option<Of>)> {
    let mut turns: BTreeMap<_, usize> = BTreeMap::new();
    let mut ranked: Vec<_> = found
        .into_iter()
        .map(|found| {
            let turn = turns.entry(found.1.map(|of| (of.epoch, of.backward, of.node))).or_default();
            *turn += 1;
            (*turn, found)
        })
        .collect();
    ranked.sort_by_key(|(turn, _)| *turn);
    ranked.into_iter().map(|(_, found)| found).collect()
}

/// Items that a validator replayed with the same bits, and none with others.
fn audited(run: &Path) -> Result<BTreeSet<Of>> {
    let header = crate::verify::header_of(run)?;
    let mut replay = Replay::<State>::new(header.run, header.orchestrator);
    let (mut passed, mut failed) = (BTreeSet::new(), BTreeSet::new());
    crate::verify::read_run(run, |block| {
        replay.push(block, Signatures::Check).map_err(Box::new)?;
        for verdict in verdicts(block)? {
            let of = Of {
                run: u64::from_str_radix(&header.run.short(), 16)?,
                epoch: verdict.epoch.0,
                backward: verdict.direction == wire::Direction::Backward,
                micro_batch: verdict.micro_batch.0,
                node: verdict.node,
            };
            match verdict.outcome {
                Outcome::Pass => _ = passed.insert(of),
                Outcome::Fail => _ = failed.insert(of),
                _ => {}
            }
        }
        Ok(true)
    })?;
    passed.retain(|of| !failed.contains(of));
    Ok(passed)
}

fn verdicts(block: &[u8]) -> Result<Vec<Verdict>> {
    let block: ledger::Block = wire::from_bytes(block)?;
    let mut verdicts = Vec::new();
    for record in &block.records {
        let Record::Stated(envelope) = wire::from_bytes(record)? else { continue };
        if let Statement::Verdict(verdict) = wire::from_bytes(&envelope.body)? {
            verdicts.push(verdict);
        }
    }
    Ok(verdicts)
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
    name.chars().take(160).map(good).collect()
}
