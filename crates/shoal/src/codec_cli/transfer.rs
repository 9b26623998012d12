//! `compress` and `decompress`.

use super::container::{self, Part};
use super::files::{TensorFile, read_all, write_all};
use super::{CompressArgs, TransferArgs};
use anyhow::{Context, bail};
use codec::{
    Auto, Basis, CodecId, DType, Level, Link, LowRank, Predictor, Target, TensorRef, encode_at, encode_klt,
    encode_lossy, encode_low_rank, encode_predictive,
};
use indicatif::{ProgressBar, ProgressStyle};
use std::time::Duration;

/// Rank of `--codec low-rank`; where it misses the similarity the uniform codec serves.
const RANK: usize = 32;
/// Link that `--codec auto` compresses for: 100 Mbit/s.
const LINK_BYTES_PER_S: f64 = 12.5e6;

/// Bytes of a tensor that become one payload where its rows need not stay together: so much is done at a time.
const PART_BYTES: usize = 16 << 20;

/// How often the bar is drawn anew.
const TICK: Duration = Duration::from_millis(200);

/// What to do with each tensor.
enum Plan {
    Auto,
    Lossless(CodecId),
    Lossy(CodecId, Target),
}

impl Plan {
    fn of(args: &CompressArgs) -> anyhow::Result<Self> {
        let target = args.similarity.map(Target::similarity).transpose()?;
        let codec = match args.codec.as_deref() {
            Some("auto") => {
                if target.is_some() {
                    bail!("auto chooses among lossless codecs; leave --similarity out or name a lossy codec");
                }
                return Ok(Self::Auto);
            }
            Some(name) => name.parse()?,
            None if target.is_some() => CodecId::Uniform,
            None => CodecId::Context,
        };
        match (codec.is_lossless(), target) {
            (true, None) => Ok(Self::Lossless(codec)),
            (false, Some(target)) => Ok(Self::Lossy(codec, target)),
            (true, Some(_)) => bail!("{codec} loses nothing; leave --similarity out or name a lossy codec"),
            (false, None) => bail!("{codec} is lossy; say how much with --similarity, such as 0.99"),
        }
    }

    /// The runs of rows, with their shape, that become a payload each. What is learned from a tensor, and a target on
    /// the whole of it, need all of its rows at once.
    fn parts<'a>(&self, tensor: TensorRef<'a>) -> Vec<(Vec<usize>, &'a [u8])> {
        let (_, cols) = tensor.rows_cols();
        let width = cols * tensor.dtype().size();
        let splits = matches!(self, Self::Auto | Self::Lossless(_))
            && !matches!(self, Self::Lossless(CodecId::Predictive));
        if !splits || width == 0 || tensor.bytes().len() <= PART_BYTES {
            return vec![(tensor.shape().to_vec(), tensor.bytes())];
        }
        let run = (PART_BYTES / width).max(1) * width;
        tensor.bytes().chunks(run).map(|bytes| (vec![bytes.len() / width, cols], bytes)).collect()
    }
}

pub(super) fn compress(args: &CompressArgs) -> anyhow::Result<()> {
    let plan = Plan::of(args)?;
    let file = TensorFile::read(&args.transfer.file, &args.raw)?;
    let bar = progress_bar(file.bytes.len() as u64);
    let level = Level::detect();
    let mut out = container::begin(&file.bytes[..file.prefix_bytes]);
    for entry in &file.tensors {
        let tensor = file.tensor(entry)?;
        bar.set_message(entry.name.clone());
        for (shape, bytes) in plan.parts(tensor) {
            let part = TensorRef::new(tensor.dtype(), &shape, bytes)?;
            add(level, &plan, part, &mut out).with_context(|| format!("tensor {}", entry.name))?;
            bar.inc(bytes.len() as u64);
        }
    }
    bar.finish_and_clear();
    write_all(&args.transfer.output, &out)
}

/// Appends one tensor, and before it what it must share if that is worth sending.
fn add(level: Level, plan: &Plan, tensor: TensorRef<'_>, out: &mut Vec<u8>) -> anyhow::Result<()> {
    let mut payload = Vec::new();
    match *plan {
        Plan::Auto => {
            Auto::new(level).encode(tensor, Link::idle(LINK_BYTES_PER_S), None, &mut payload)?;
        }
        Plan::Lossless(CodecId::Predictive) => {
            encode_at(level, CodecId::Context, tensor, &mut payload)?;
            if tensor.dtype() == DType::Bf16 && !tensor.is_empty() {
                // One file has no earlier tensors, so the predictor is learned from this one and sent with it.
                if let Ok(predictor) = Predictor::learn(&[tensor]) {
                    let mut predicted = Vec::new();
                    encode_predictive(level, &predictor, tensor, &mut predicted)?;
                    if predicted.len() + predictor.to_bytes().len() < payload.len() {
                        container::push(out, Part::Predictor, predictor.to_bytes());
                        payload = predicted;
                    }
                }
            }
        }
        Plan::Lossless(codec) => {
            encode_at(level, codec, tensor, &mut payload)?;
        }
        Plan::Lossy(CodecId::Klt, target) => {
            encode_lossy(level, CodecId::Uniform, target, tensor, &mut payload)?;
            if let Ok(basis) = Basis::learn(&[tensor]) {
                let mut in_basis = Vec::new();
                encode_klt(level, &basis, target, tensor, &mut in_basis)?;
                if in_basis.len() + basis.to_bytes().len() < payload.len() {
                    container::push(out, Part::Basis, basis.to_bytes());
                    payload = in_basis;
                }
            }
        }
        Plan::Lossy(CodecId::LowRank, target) => {
            encode_low_rank(level, &mut LowRank::with_target(RANK, target)?, tensor, &mut payload)?;
        }
        Plan::Lossy(codec, target) => {
            encode_lossy(level, codec, target, tensor, &mut payload)?;
        }
    }
    container::push(out, Part::Payload, &payload);
    Ok(())
}

pub(super) fn decompress(args: &TransferArgs) -> anyhow::Result<()> {
    let packed = read_all(&args.file)?;
    let bar = progress_bar(packed.len() as u64);
    let file = container::unpack(&packed, |read| bar.set_position(read as u64))
        .with_context(|| format!("{} cannot be decompressed", args.file.display()))?;
    bar.finish_and_clear();
    write_all(&args.output, &file)
}

/// A bar on standard error, shown only on a terminal.
pub(super) fn progress_bar(length: u64) -> ProgressBar {
    let style =
        ProgressStyle::with_template("{bar:30} {bytes}/{total_bytes} {bytes_per_sec} {elapsed} {eta} {msg}");
    let bar = ProgressBar::new(length).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    // The time moves on even while one tensor takes long.
    bar.enable_steady_tick(TICK);
    bar
}
