//! `shoal codec`: compress and decompress tensor files, compare codecs, look into tensors.

mod bench;
mod container;
mod files;
mod inspect;
mod peers;
mod transfer;

use clap::{Args, Subcommand};
use std::path::PathBuf;

/// Arguments of `shoal codec`.
#[derive(Debug, Args)]
pub(crate) struct CodecArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Compress the tensors of a file: .npy (u16 holds bf16 bits), .safetensors, or raw with --dtype and --shape
    Compress(CompressArgs),
    /// Give back the file that `compress` was given; bit for bit unless it was told to lose something
    Decompress(TransferArgs),
    /// Compare codecs on the tensors of files, or of all such files in folders
    Bench(BenchArgs),
    /// Show entropies and structure of the tensors of a file, and the best ratio within reach
    Inspect(InspectArgs),
}

#[derive(Debug, Args)]
struct TransferArgs {
    /// File to read; - for standard input
    file: PathBuf,
    /// File to write; - for standard output
    #[arg(short, long)]
    output: PathBuf,
}

#[derive(Debug, Args)]
struct CompressArgs {
    #[command(flatten)]
    transfer: TransferArgs,
    /// raw, fast, huffman, context, predictive, auto; with --similarity also uniform, int8, klt, low-rank
    #[arg(long)]
    codec: Option<String>,
    /// Least cosine × (1 − relative error) of the decoded tensors; without it nothing is lost
    #[arg(long)]
    similarity: Option<f64>,
    #[command(flatten)]
    raw: RawArgs,
}

/// How to read a file of bare elements.
#[derive(Debug, Args)]
struct RawArgs {
    /// Element type of a raw file: bf16, f16, f32, u16, u8
    #[arg(long, requires = "shape")]
    dtype: Option<String>,
    /// Shape of a raw file, such as 2048x512 or 2048,512
    #[arg(long, requires = "dtype")]
    shape: Option<String>,
}

#[derive(Debug, Args)]
struct BenchArgs {
    /// Files, or folders that are searched for .npy and .safetensors
    #[arg(required = true)]
    paths: Vec<PathBuf>,
    /// Codecs, separated by commas; by default all that fit
    #[arg(long, value_delimiter = ',')]
    codec: Vec<String>,
    /// Other compressors to compare with: zstd, lz4, pco
    #[arg(long, value_delimiter = ',')]
    against: Vec<String>,
    /// Threads that work at the same time, each on its share of the rows
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// Target of the lossy codecs
    #[arg(long)]
    similarity: Option<f64>,
    /// Print a JSON array instead of a table
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    raw: RawArgs,
}

#[derive(Debug, Args)]
struct InspectArgs {
    /// File to look into; - for standard input
    file: PathBuf,
    /// Print JSON instead of text
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    raw: RawArgs,
}

/// Runs `shoal codec`.
pub(crate) fn run(args: CodecArgs) -> anyhow::Result<()> {
    match args.command {
        Command::Compress(args) => transfer::compress(&args),
        Command::Decompress(args) => transfer::decompress(&args),
        Command::Bench(args) => bench::run(&args),
        Command::Inspect(args) => inspect::run(&args),
    }
}
