//! `bench`: codecs side by side on real tensors.

use super::BenchArgs;
use super::files::{Entry, TensorFile};
use super::peers::Peer;
use super::transfer::progress_bar;
use anyhow::{Context, bail, ensure};
use codec::bench::{Measurement, Prepared, Subject, median};
use codec::{CodecId, DType, Level, Target, TensorRef};
use serde::Serialize;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Timed rounds of each codec on each tensor, after one warm-up.
const ROUNDS: usize = 7;
/// Target of lossy codecs where none is given.
const DEFAULT_SIMILARITY: f64 = 0.99;
/// Link that `auto` chooses for: 100 Mbit/s.
const LINK_BYTES_PER_S: f64 = 12.5e6;
/// Most threads.
const MAX_THREADS: usize = 1024;

/// One line of the result.
#[derive(Debug, Serialize)]
struct Row {
    file: String,
    kind: String,
    codec: String,
    bytes: usize,
    compressed_bytes: usize,
    ratio: f64,
    encode_gb_per_s: f64,
    decode_gb_per_s: f64,
    checksum_gb_per_s: f64,
    allocation_gb_per_s: f64,
    threads: usize,
    encode_scaling: f64,
    decode_scaling: f64,
    similarity: f64,
    lossless: bool,
    side_bytes: usize,
    ratio_with_side_bytes: f64,
}

/// What is compared.
#[derive(Clone, Debug)]
enum Contender {
    Ours(String, Subject),
    Peer(Peer),
}

impl Contender {
    fn name(&self) -> &str {
        match self {
            Self::Ours(name, _) => name,
            Self::Peer(peer) => peer.name(),
        }
    }
}

/// One contender on one tensor: on one thread, and on as many as were asked for.
struct Found {
    alone: Measurement,
    together: Measurement,
}

pub(super) fn run(args: &BenchArgs) -> anyhow::Result<()> {
    ensure!((1..=MAX_THREADS).contains(&args.threads), "--threads takes 1 to {MAX_THREADS}");
    let target = Target::similarity(args.similarity.unwrap_or(DEFAULT_SIMILARITY))?;
    let contenders = contenders(args)?;
    let mut files = Vec::new();
    for path in &args.paths {
        find(path, &mut files)?;
    }
    ensure!(!files.is_empty(), "no .npy or .safetensors file in the given paths");
    let bar = progress_bar(files.iter().filter_map(|f| f.metadata().ok()).map(|m| m.len()).sum());
    let mut rows = Vec::new();
    for path in &files {
        let file = TensorFile::read(path, &args.raw)?;
        for entry in &file.tensors {
            let tensor = file.tensor(entry)?;
            if tensor.is_empty() {
                continue;
            }
            for contender in &contenders {
                bar.set_message(format!("{} {}", display_name(path, entry), contender.name()));
                let Some(found) = measure(contender, target, tensor, args.threads)
                    .with_context(|| format!("{} on {}", contender.name(), display_name(path, entry)))?
                else {
                    continue;
                };
                rows.push(row(path, entry, contender, &found, args.threads));
            }
            bar.inc(tensor.bytes().len() as u64);
        }
    }
    bar.finish_and_clear();
    let mut out = std::io::stdout().lock();
    if args.json {
        serde_json::to_writer_pretty(&mut out, &rows)?;
        writeln!(out)?;
    } else {
        write_table(&rows, args.threads, &mut out)?;
    }
    Ok(())
}

fn contenders(args: &BenchArgs) -> anyhow::Result<Vec<Contender>> {
    let names: Vec<&str> = if args.codec.is_empty() {
        let lossless = ["fast", "huffman", "context", "predictive", "auto"];
        let lossy = ["uniform", "int8", "klt"];
        lossless.into_iter().chain(lossy.into_iter().filter(|_| args.similarity.is_some())).collect()
    } else {
        args.codec.iter().map(String::as_str).collect()
    };
    let mut contenders = Vec::new();
    for name in names {
        let subject = if name == "auto" {
            Subject::Auto(LINK_BYTES_PER_S)
        } else {
            Subject::Codec(name.parse::<CodecId>()?)
        };
        contenders.push(Contender::Ours(name.to_owned(), subject));
    }
    for name in &args.against {
        contenders.push(Contender::Peer(Peer::from_name(name)?));
    }
    Ok(contenders)
}

/// Tensor files at `path`, or below it, sorted.
fn find(path: &Path, files: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    if !path.is_dir() {
        files.push(path.to_owned());
        return Ok(());
    }
    let entries = std::fs::read_dir(path).with_context(|| format!("{} cannot be read", path.display()))?;
    let mut found: Vec<PathBuf> = entries.map(|e| e.map(|e| e.path())).collect::<Result<_, _>>()?;
    found.sort();
    for path in found {
        let is_tensors = path.extension().is_some_and(|e| e == "npy" || e == "safetensors");
        if path.is_dir() && !path.is_symlink() {
            find(&path, files)?;
        } else if is_tensors {
            files.push(path);
        }
    }
    Ok(())
}

fn display_name(path: &Path, entry: &Entry) -> String {
    let file =
        path.file_name().map_or_else(|| path.display().to_string(), |n| n.to_string_lossy().into_owned());
    if entry.name.is_empty() { file } else { format!("{file}:{}", entry.name) }
}

/// The part of a name before its first underscore: `act_L2_late.npy` is an `act`.
fn kind_of(path: &Path) -> String {
    let stem = path.file_stem().map_or_else(String::new, |n| n.to_string_lossy().into_owned());
    let known = ["minilm_act", "minilm_grad"].into_iter().find(|k| stem.starts_with(k));
    known.map_or_else(|| stem.split('_').next().unwrap_or_default().to_owned(), str::to_owned)
}

fn row(path: &Path, entry: &Entry, contender: &Contender, found: &Found, threads: usize) -> Row {
    let Found { alone, together: m } = found;
    let faster = |alone: f64, together: f64| if together > 0.0 { alone / together } else { 1.0 };
    let gb_per_s = |seconds: f64| if seconds > 0.0 { m.bytes as f64 / seconds / 1e9 } else { 0.0 };
    Row {
        file: display_name(path, entry),
        kind: kind_of(path),
        codec: contender.name().to_owned(),
        bytes: m.bytes,
        compressed_bytes: m.compressed_bytes,
        ratio: m.bytes as f64 / m.compressed_bytes as f64,
        encode_gb_per_s: gb_per_s(m.encode_s),
        decode_gb_per_s: gb_per_s(m.decode_s),
        checksum_gb_per_s: gb_per_s(alone.checksum_s),
        allocation_gb_per_s: gb_per_s(alone.allocation_s),
        threads,
        encode_scaling: faster(alone.encode_s + alone.checksum_s, m.encode_s + m.checksum_s),
        decode_scaling: faster(alone.decode_s, m.decode_s),
        similarity: m.similarity,
        lossless: m.lossless,
        side_bytes: m.side_bytes,
        ratio_with_side_bytes: m.bytes as f64 / (m.compressed_bytes + m.side_bytes) as f64,
    }
}

/// Measures one contender; `None` where it does not apply to the tensor.
fn measure(
    contender: &Contender,
    target: Target,
    tensor: TensorRef<'_>,
    threads: usize,
) -> anyhow::Result<Option<Found>> {
    let start = Instant::now();
    let clock = || start.elapsed().as_secs_f64();
    let alone = match contender {
        Contender::Peer(peer) => peer_measurement(*peer, tensor, &clock)?,
        Contender::Ours(_, subject) => {
            if !applies(*subject, tensor) {
                return Ok(None);
            }
            let prepared = Prepared::new(Level::detect(), *subject, target, tensor)?;
            let alone = prepared.measure(ROUNDS, &clock)?;
            if threads > 1 {
                let together = prepared.measure_threads(threads, ROUNDS, &clock)?;
                return Ok(Some(Found { alone, together }));
            }
            alone
        }
    };
    Ok(Some(Found { alone, together: alone }))
}

fn applies(subject: Subject, tensor: TensorRef<'_>) -> bool {
    let (rows, cols) = tensor.rows_cols();
    let is_float = matches!(tensor.dtype(), DType::Bf16 | DType::F16 | DType::F32);
    let learnable = rows >= 4 && cols <= 2048;
    match subject {
        Subject::Codec(CodecId::Predictive) => tensor.dtype() == DType::Bf16 && learnable,
        Subject::Codec(CodecId::Klt) => is_float && learnable,
        Subject::Codec(codec) => codec.is_lossless() || is_float,
        Subject::Auto(_) => true,
    }
}

fn peer_measurement(
    peer: Peer,
    tensor: TensorRef<'_>,
    clock: &dyn Fn() -> f64,
) -> anyhow::Result<Measurement> {
    let (mut encode_s, mut decode_s) = (Vec::new(), Vec::new());
    let mut compressed_bytes = 0;
    for round in 0..=ROUNDS {
        let start = clock();
        let packed = peer.encode(tensor)?;
        let middle = clock();
        let decoded = peer.decode(&packed, tensor)?;
        let end = clock();
        if decoded != tensor.bytes() {
            bail!("{} did not give back the tensor", peer.name());
        }
        compressed_bytes = packed.len();
        if round > 0 {
            encode_s.push(middle - start);
            decode_s.push(end - middle);
        }
    }
    Ok(Measurement {
        bytes: tensor.bytes().len(),
        compressed_bytes,
        encode_s: median(&mut encode_s),
        decode_s: median(&mut decode_s),
        checksum_s: 0.0,
        allocation_s: 0.0,
        similarity: 1.0,
        lossless: true,
        side_bytes: 0,
    })
}

fn write_table(rows: &[Row], threads: usize, out: &mut impl Write) -> std::io::Result<()> {
    let width = rows.iter().map(|r| r.file.len()).max().unwrap_or(4).max(4);
    writeln!(
        out,
        "{:width$}  {:10}  {:>9}  {:>7}  {:>11}  {:>11}  {:>13}  {:>15}  {:>10}  {:>9}  {:>9}{}",
        "file",
        "codec",
        "KiB",
        "ratio",
        "encode GB/s",
        "decode GB/s",
        "checksum GB/s",
        "allocation GB/s",
        "similarity",
        "side KiB",
        "with side",
        if threads > 1 { format!("  {:>14}", format!("on {threads} threads")) } else { String::new() },
    )?;
    let speed = |gb_per_s: f64| if gb_per_s > 0.0 { format!("{gb_per_s:.1}") } else { "–".to_owned() };
    for r in rows {
        let similarity = if r.lossless { "exact".to_owned() } else { format!("{:.5}", r.similarity) };
        writeln!(
            out,
            "{:width$}  {:10}  {:>9.1}  {:>7.3}  {:>11.3}  {:>11.3}  {:>13}  {:>15}  {:>10}  {:>9.1}  {:>9.3}{}",
            r.file,
            r.codec,
            r.bytes as f64 / 1024.0,
            r.ratio,
            r.encode_gb_per_s,
            r.decode_gb_per_s,
            speed(r.checksum_gb_per_s),
            speed(r.allocation_gb_per_s),
            similarity,
            r.side_bytes as f64 / 1024.0,
            r.ratio_with_side_bytes,
            if threads > 1 {
                format!("  {:>14}", format!("×{:.2} / ×{:.2}", r.encode_scaling, r.decode_scaling))
            } else {
                String::new()
            },
        )?;
    }
    writeln!(
        out,
        "GB/s of the tensor by wall clock, medians of {ROUNDS} rounds, into reused buffers; of other compressors into new ones"
    )?;
    if threads > 1 {
        writeln!(
            out,
            "{threads} threads, each on its share of the rows; ×: encoding / decoding against one thread; encoding with its checksum"
        )?;
    }
    Ok(())
}
