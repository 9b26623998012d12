//! The codec crate beside other compressors, in one run: one thread, CPU time, medians; prints Markdown.

mod peers;
mod public_scheme;
mod report;
mod scaling;
mod small;
mod wire;

use anyhow::{Context, ensure};
use clap::Parser;
use codec::bench::{Prepared, Subject, median};
use codec::{CodecId, DType, Level, Target, TensorRef};
use cpu_time::ThreadTime;
use serde::Deserialize;
use std::path::{Path, PathBuf};

/// Timed rounds of our codecs.
const ROUNDS: usize = 9;
/// What lossy codecs must reach.
const SIMILARITY: f64 = 0.99;

#[derive(Parser)]
struct Args {
    /// .npy files of bf16 bits as u16
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// Python with numpy, zipnn, openzl and blosc2
    #[arg(long)]
    python: Option<PathBuf>,
    /// Leave out the lossy comparison, whose opponent is slow
    #[arg(long)]
    lossless_only: bool,
    /// Only these parts
    #[arg(long, value_enum, value_delimiter = ',')]
    part: Vec<Part>,
}

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    /// Ratios and speeds on one thread, beside other compressors.
    Tables,
    /// A step's activations over an emulated link.
    Wire,
    /// Speed with several threads.
    Threads,
    /// What a tensor of 4 KiB costs.
    Small,
}

/// One compressor on one file.
#[derive(Clone, Debug, Deserialize)]
struct Found {
    file: String,
    codec: String,
    bytes: usize,
    compressed_bytes: usize,
    encode_s: f64,
    decode_s: f64,
    #[serde(default)]
    side_bytes: usize,
    #[serde(default)]
    similarity: Option<f64>,
}

struct File {
    name: String,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

impl File {
    fn read(path: &Path) -> anyhow::Result<Self> {
        let file = std::fs::read(path).with_context(|| format!("{} cannot be read", path.display()))?;
        ensure!(file.starts_with(b"\x93NUMPY\x01"), "{} is not a .npy of version 1", path.display());
        let start = 10 + usize::from(u16::from_le_bytes([file[8], file[9]]));
        let header = std::str::from_utf8(&file[10..start])?;
        let shape = header.split_once("'shape': (").and_then(|(_, s)| s.split_once(')')).context("no shape")?.0;
        let shape = shape.split(',').filter_map(|d| d.trim().parse().ok()).collect();
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        Ok(Self { name, shape, bytes: file[start..].to_vec() })
    }

    fn tensor(&self) -> anyhow::Result<TensorRef<'_>> {
        Ok(TensorRef::new(DType::Bf16, &self.shape, &self.bytes)?)
    }
}

fn ours(file: &File, subject: Subject, name: &str) -> anyhow::Result<Found> {
    let start = ThreadTime::now();
    let clock = || start.elapsed().as_secs_f64();
    let prepared = Prepared::new(Level::detect(), subject, Target::similarity(SIMILARITY)?, file.tensor()?)?;
    let m = prepared.measure(ROUNDS, &clock)?;
    Ok(Found {
        file: file.name.clone(),
        codec: name.to_owned(),
        bytes: m.bytes,
        compressed_bytes: m.compressed_bytes,
        encode_s: m.encode_s,
        decode_s: m.decode_s,
        side_bytes: m.side_bytes,
        similarity: Some(m.similarity),
    })
}

/// What surrounds a codec: the checksum of a payload, and memory that is not reused.
fn surroundings(file: &File) -> Vec<(&'static str, f64)> {
    let mut times = [Vec::new(), Vec::new(), Vec::new()];
    for _ in 0..ROUNDS {
        let a = ThreadTime::now();
        std::hint::black_box(codec::checksum(&file.bytes));
        times[0].push(a.elapsed().as_secs_f64());
        let a = ThreadTime::now();
        std::hint::black_box(vec![1_u8; file.bytes.len()]);
        times[1].push(a.elapsed().as_secs_f64());
        let mut copy = vec![0_u8; file.bytes.len()];
        let a = ThreadTime::now();
        copy.copy_from_slice(std::hint::black_box(&file.bytes));
        times[2].push(a.elapsed().as_secs_f64());
        std::hint::black_box(&copy);
    }
    let names = ["checksum", "fresh memory", "copy"];
    names.into_iter().zip(times).map(|(n, mut t)| (n, file.bytes.len() as f64 / median(&mut t) / 1e9)).collect()
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    println!("instruction set: {}\n", Level::detect());
    let wanted = |part| args.part.is_empty() || args.part.contains(&part);
    if wanted(Part::Tables) {
        tables(&args)?;
    }
    let files = args.files.iter().map(|path| File::read(path)).collect::<anyhow::Result<Vec<_>>>()?;
    if wanted(Part::Small) {
        small::run(&files)?;
    }
    if wanted(Part::Threads) {
        scaling::run(&files)?;
    }
    if wanted(Part::Wire) {
        let late: Vec<File> = files.into_iter().filter(|file| file.name.starts_with("act_")).collect();
        wire::run(&late)?;
    }
    Ok(())
}

/// One thread, processor time.
fn tables(args: &Args) -> anyhow::Result<()> {
    let mut lossless = Vec::new();
    let mut lossy = Vec::new();
    let mut around = Vec::new();
    for path in &args.files {
        let file = File::read(path)?;
        for name in ["fast", "huffman", "context", "predictive"] {
            lossless.push(ours(&file, Subject::Codec(name.parse::<CodecId>()?), name)?);
        }
        lossless.extend(peers::measure(&file)?);
        around.push(surroundings(&file));
        if !args.lossless_only {
            for name in ["uniform", "int8", "klt"] {
                lossy.push(ours(&file, Subject::Codec(name.parse::<CodecId>()?), name)?);
            }
            lossy.push(public_scheme::measure(&file, SIMILARITY)?);
        }
    }
    if let Some(python) = &args.python {
        lossless.extend(peers::measure_python(python, &args.files)?);
    }
    report::lossless(&lossless);
    report::surroundings(&around);
    if !args.lossless_only {
        report::lossy(&lossy);
    }
    report::links(&lossless);
    Ok(())
}
