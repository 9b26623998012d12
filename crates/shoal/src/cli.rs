//! The command line: every subcommand with its options, nothing else.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::unit::{parse_bytes, parse_count, parse_rate};

/// Exit codes, shown at the end of `shoal --help`.
const EXIT_CODES: &str = "Exit codes:
  0    done (after one Ctrl-C: stopped in good order)
  1    failed while running
  2    wrong usage
  3    input that cannot be used: spec, data, tokenizer, checkpoint, key, folder
  4    verify: an entry of the log does not follow from those before
  130  stopped at once by a second Ctrl-C, or by the first before a run began

Results go to stdout, logs and the live view to stderr.";

/// Trains one model on many machines.
#[derive(Debug, Parser)]
#[command(name = "shoal", version, about = "Trains one model on many machines that need not trust each other.", after_help = EXIT_CODES, max_term_width = 100)]
pub(crate) struct Cli {
    /// Print results as JSON, one object a line.
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// What to log to stderr: error, warn, info, debug, trace, or per module (`shoal_node=debug,shoal_net=info`). Default: `SHOAL_LOG`, else warn.
    #[arg(long, global = true, value_name = "FILTER")]
    pub(crate) log: Option<String>,
    /// End when standard input ends: the parent keeps it open as long as it lives.
    #[arg(long, global = true, hide = true)]
    pub(crate) child: bool,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Train a model on this machine: a whole swarm as local processes. Needs no options.
    Up(UpArgs),
    /// Run the orchestrator of a run folder, and print the ticket that others join with.
    Orchestrator(OrchestratorArgs),
    /// Lend this machine to a run: train one stage of its model.
    Miner(MinerArgs),
    /// Check a run: replay sampled work, measure held-out loss.
    Validator(ValidatorArgs),
    /// Make or show a node's key.
    Key(KeyArgs),
    /// Make, show or export a run.
    Run(RunArgs),
    /// Write text with a checkpoint.
    Sample(SampleArgs),
    /// Recompute a log from its inputs and name the first entry that does not follow.
    Verify(VerifyArgs),
    /// Train a tokenizer.
    Tokenizer(TokenizerArgs),
    /// Measure.
    Bench(BenchArgs),
    /// Competitions: scoring rules, scores, specs.
    Arena(crate::arena_cli::ArenaArgs),
    /// Compress, decompress, measure and inspect tensors.
    Codec(crate::codec_cli::CodecArgs),
    /// Show the JSON lines of an orchestrator as `up` does.
    Watch(WatchArgs),
}

/// What is trained on.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct DataArgs {
    /// Files, folders or globs of text, .jsonl or .parquet. Default: text files below this folder, at most 64 MiB.
    #[arg(long, value_name = "PATH", num_args = 1..)]
    pub(crate) data: Vec<String>,
    /// Name of the text in .jsonl and .parquet files.
    #[arg(long, value_name = "NAME", default_value = "text")]
    pub(crate) text_field: String,
    /// A tokenizer.json. Default: one token per byte.
    #[arg(long, value_name = "FILE")]
    pub(crate) tokenizer: Option<PathBuf>,
}

/// What is run: a spec, and what replaces parts of it.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct ShapeArgs {
    /// A run spec in TOML; its [data] is filled in from --data.
    #[arg(long, value_name = "FILE")]
    pub(crate) spec: Option<PathBuf>,
    /// A model size by name (see `shoal run show --presets`).
    #[arg(long, value_name = "NAME", conflicts_with_all = ["spec", "init"])]
    pub(crate) preset: Option<String>,
    /// Start from the weights of a checkpoint or Hugging Face Llama folder. Model and tokenizer are its own, and so are cuts
    /// that it has weights for; else the default is the plain bf16 cut, which keeps all that the model knows.
    #[arg(long, value_name = "FOLDER")]
    pub(crate) init: Option<PathBuf>,
    /// Merges until the run ends.
    #[arg(long, value_name = "N")]
    pub(crate) epochs: Option<u32>,
    /// Tokens to train on, rounded up to whole epochs (`500k`, `2M`).
    #[arg(long, value_name = "N", value_parser = parse_count, conflicts_with = "epochs")]
    pub(crate) tokens: Option<u64>,
    /// Stages that the model is cut into.
    #[arg(long, value_name = "N")]
    pub(crate) stages: Option<usize>,
    /// Seed of data order, weights and routes.
    #[arg(long, value_name = "N")]
    pub(crate) seed: Option<u64>,
    #[command(flatten)]
    pub(crate) champion: crate::champion::ChampionArgs,
}

#[derive(Args, Debug)]
pub(crate) struct UpArgs {
    #[command(flatten)]
    pub(crate) data: DataArgs,
    #[command(flatten)]
    pub(crate) shape: ShapeArgs,
    /// Miners per stage. Default: 2, or what --spec asks for.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=64))]
    pub(crate) replicas: Option<u16>,
    /// Validators. Default: 1, or what --spec asks for.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(0..=16))]
    pub(crate) validators: Option<u16>,
    /// Folder of the run. Default: a new one below ./shoal-runs.
    #[arg(long, value_name = "FOLDER")]
    pub(crate) dir: Option<PathBuf>,
    /// Continue the run in --dir, or the newest one below ./shoal-runs.
    #[arg(long, conflicts_with_all = ["data", "text_field", "tokenizer", "spec", "preset", "init", "epochs", "tokens", "stages", "seed", "champion", "champion_hash", "arena", "once"])]
    pub(crate) resume: bool,
    /// Threads of each miner. Default: the machine's cores divided by the miners, at least 1.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) threads: Option<u16>,
    /// Keep one in 16 frames of each miner in a folder, at most 256 each, drawn over the run, for `shoal arena harvest`.
    #[arg(long, value_name = "FOLDER")]
    pub(crate) keep_frames: Option<PathBuf>,
    /// What miners keep of a micro-batch between forward and backward.
    #[arg(long, value_enum, default_value_t = KeepArg::Graphs)]
    pub(crate) keep: KeepArg,
    /// Epochs between checkpoints; 0: only at the end.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) checkpoint_every: u32,
}

/// What stays of a micro-batch between forward and backward; the numbers are the same either way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum KeepArg {
    /// All that backward needs.
    #[default]
    Graphs,
    /// The forward input, encoded as it came: less memory, but forward runs twice.
    Inputs,
}

impl KeepArg {
    /// As it is written.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Graphs => "graphs",
            Self::Inputs => "inputs",
        }
    }
}

impl From<KeepArg> for node::miner::Keep {
    fn from(keep: KeepArg) -> Self {
        match keep {
            KeepArg::Graphs => Self::Graphs,
            KeepArg::Inputs => Self::Inputs,
        }
    }
}

/// How sending adapts to the path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum CongestionArg {
    /// Backs off at every loss: for fast networks that lose nothing.
    Cubic,
    /// Follows the measured rate: for the internet.
    Bbr3,
}

impl From<CongestionArg> for net::Congestion {
    fn from(congestion: CongestionArg) -> Self {
        match congestion {
            CongestionArg::Cubic => Self::Cubic,
            CongestionArg::Bbr3 => Self::Bbr3,
        }
    }
}

#[derive(Args, Debug)]
pub(crate) struct OrchestratorArgs {
    /// Folder of the run, as `shoal run new` makes it.
    pub(crate) folder: PathBuf,
    /// Address and port to listen on. Default: all addresses, and the port of last time or any free one.
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub(crate) bind: Option<SocketAddr>,
    /// Address that others reach this machine at, when it is not the one it binds.
    #[arg(long, value_name = "ADDRESS:PORT", num_args = 1..)]
    pub(crate) public: Vec<SocketAddr>,
    /// Congestion control of what this machine sends. Default: bbr3, but cubic if it binds loopback alone.
    #[arg(long, value_enum)]
    pub(crate) congestion: Option<CongestionArg>,
    /// Port of the embedded relay, for miners that nobody can reach directly; 0: any free port.
    #[arg(long, value_name = "PORT", default_value_t = 0)]
    pub(crate) relay_port: u16,
    /// Most that the relay takes from each node, this one too, per second (`2MB/s`, `16Mbit/s`). Default: 100Mbit/s.
    #[arg(long, value_name = "RATE", value_parser = parse_relay_rate, conflicts_with = "no_relay")]
    pub(crate) relay_rate: Option<NonZeroU32>,
    /// Epochs between checkpoints; 0: only at the end.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) checkpoint_every: u32,
    /// Run without the embedded relay.
    #[arg(long)]
    pub(crate) no_relay: bool,
}

/// What the relay may be limited to.
fn parse_relay_rate(text: &str) -> Result<NonZeroU32, String> {
    let rate = u32::try_from(parse_rate(text)?).ok().and_then(NonZeroU32::new);
    let least = net::limits::RELAY_RATE_MIN;
    rate.filter(|rate| *rate >= least).ok_or_else(|| {
        format!("{text:?} is out of range; from {} kB/s to 4 GB/s", least.get().div_ceil(1000))
    })
}

/// How a node joins.
#[derive(Args, Debug)]
pub(crate) struct JoinArgs {
    /// The ticket that the orchestrator prints.
    pub(crate) ticket: String,
    /// Folder for key, weights and cache. Default: ./shoal-nodes/RUN-ROLE. Its key is `node.key`, made if it is not there.
    #[arg(long, value_name = "FOLDER")]
    pub(crate) dir: Option<PathBuf>,
    /// Address and port to listen on. Default: any.
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub(crate) bind: Option<SocketAddr>,
    /// Threads to compute with. Default: all cores.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) threads: Option<u16>,
    /// Most to send, per second (`2MB/s`, `16Mbit/s`). Default: no limit.
    #[arg(long, value_name = "RATE", value_parser = parse_rate)]
    pub(crate) upload: Option<u64>,
    /// Congestion control of what this machine sends. Default: bbr3, but cubic if it binds loopback alone.
    #[arg(long, value_enum)]
    pub(crate) congestion: Option<CongestionArg>,
}

#[derive(Args, Debug)]
pub(crate) struct MinerArgs {
    #[command(flatten)]
    pub(crate) join: JoinArgs,
    /// Most memory to use (`8GiB`). A stage that needs more is refused. Default: no limit.
    #[arg(long, value_name = "SIZE", value_parser = parse_bytes)]
    pub(crate) memory: Option<u64>,
    /// Stage to ask for. Default: the run assigns one.
    #[arg(long, value_name = "N")]
    pub(crate) stage: Option<u16>,
    /// Compute only while nobody else needs the processor.
    #[arg(long)]
    pub(crate) when_idle: bool,
    /// Keep one in 16 frames that this miner sends in a folder, at most 256 drawn over the run, for `shoal arena harvest`.
    #[arg(long, value_name = "FOLDER")]
    pub(crate) keep_frames: Option<PathBuf>,
    /// What to keep of a micro-batch between forward and backward.
    #[arg(long, value_enum, default_value_t = KeepArg::Graphs)]
    pub(crate) keep: KeepArg,
}

#[derive(Args, Debug)]
pub(crate) struct ValidatorArgs {
    #[command(flatten)]
    pub(crate) join: JoinArgs,
}

#[derive(Args, Debug)]
pub(crate) struct KeyArgs {
    #[command(subcommand)]
    pub(crate) command: KeyCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum KeyCommand {
    /// Make a key; an existing file is never overwritten.
    New {
        /// Key file.
        file: PathBuf,
        /// Encrypt it with a passphrase (asked for, or `SHOAL_PASSPHRASE`). For `shoal arena` only: daemons start alone.
        #[arg(long)]
        encrypt: bool,
    },
    /// Print the id that belongs to a key.
    Show {
        /// Key file.
        file: PathBuf,
    },
    /// Encrypt a key with a passphrase (asked for twice, or `SHOAL_PASSPHRASE`), in place. For `shoal arena` only: daemons start
    /// alone.
    Encrypt {
        /// Key file.
        file: PathBuf,
    },
    /// Decrypt a key, in place.
    Decrypt {
        /// Key file.
        file: PathBuf,
    },
}

#[derive(Args, Debug)]
pub(crate) struct RunArgs {
    #[command(subcommand)]
    pub(crate) command: RunCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum RunCommand {
    /// Make a run folder: spec, token shards, tokenizer, orchestrator's key.
    New {
        /// New folder.
        folder: PathBuf,
        #[command(flatten)]
        data: DataArgs,
        #[command(flatten)]
        shape: ShapeArgs,
        /// Miners needed per stage before training starts.
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=64))]
        miners_min: Option<u16>,
    },
    /// Show what a spec means: sizes, stages, memory, bytes on the wire.
    Show {
        /// A run folder or a spec in TOML. With --toml it may be left out: the defaults.
        #[arg(required_unless_present_any = ["presets", "toml"])]
        path: Option<PathBuf>,
        /// List the presets instead.
        #[arg(long)]
        presets: bool,
        /// Print the complete spec as TOML instead (docs/spec.md explains every key).
        #[arg(long, conflicts_with = "presets")]
        toml: bool,
    },
    /// Pin a champion of the arena into a run, running or not, or take it away.
    ///
    /// The component is fetched, tried on golden tensors and left in the folder; the orchestrator puts it in the log, every
    /// node compiles and tries it, and it carries activations and gradients from the epoch after next on, if all stages
    /// keep their quorum among those who are ready. One that does not give back every bit carries what `[codec.lossy]` of
    /// the spec allows, and one micro-batch in ten until a validator has found no harm.
    Codec(crate::champion::CodecArgs),
    /// Run the evidence of a champion's fault again, and print the hashes that the log's `CodecFault` names.
    Fault(crate::champion::FaultArgs),
    /// Write the log of a run as one file, for `shoal verify` anywhere.
    Log {
        /// A run folder.
        from: PathBuf,
        /// New file.
        to: PathBuf,
    },
    /// Write a checkpoint for other software: a Hugging Face folder if the model is plain, else safetensors.
    Export {
        /// A run folder or a checkpoint folder.
        from: PathBuf,
        /// New folder.
        to: PathBuf,
        /// Numbers in the file.
        #[arg(long, value_enum, default_value_t = ExportNumbers::F32)]
        numbers: ExportNumbers,
    },
}

/// Numbers of an export.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub(crate) enum ExportNumbers {
    /// 4 bytes, exact.
    F32,
    /// 2 bytes.
    Bf16,
}

#[derive(Args, Debug)]
pub(crate) struct SampleArgs {
    /// Checkpoint folder, run folder or Hugging Face folder.
    pub(crate) checkpoint: PathBuf,
    /// Text to continue; `-` reads it from standard input.
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub(crate) prompt: String,
    /// Most tokens to write.
    #[arg(long, value_name = "N", default_value_t = 256)]
    pub(crate) tokens: usize,
    /// 0 always takes the likeliest token.
    #[arg(long, value_name = "T", default_value_t = 0.8)]
    pub(crate) temperature: f32,
    /// Take only from the likeliest tokens that together have this probability.
    #[arg(long, value_name = "P", default_value_t = 0.95)]
    pub(crate) top_p: f32,
    /// Take only from this many of the likeliest tokens.
    #[arg(long, value_name = "K")]
    pub(crate) top_k: Option<usize>,
    /// Seed; the same one gives the same text.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) seed: u64,
    /// Threads. Default: all cores.
    #[arg(long, value_name = "N")]
    pub(crate) threads: Option<usize>,
}

#[derive(Args, Debug)]
pub(crate) struct VerifyArgs {
    /// A log file, or a run folder.
    #[arg(value_name = "LOG")]
    pub(crate) path: PathBuf,
}

#[derive(Args, Debug)]
pub(crate) struct TokenizerArgs {
    #[command(subcommand)]
    pub(crate) command: TokenizerCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum TokenizerCommand {
    /// Learn byte-pair merges from text and write a tokenizer.json.
    Train {
        /// Files, folders or globs of text, .jsonl or .parquet. Default: text files below this folder.
        data: Vec<String>,
        /// Tokens in the vocabulary.
        #[arg(long, value_name = "N", default_value_t = 4096)]
        vocab: u32,
        /// Where to write; never overwritten.
        #[arg(long, value_name = "FILE", default_value = "tokenizer.json")]
        out: PathBuf,
        /// Name of the text in .jsonl and .parquet files.
        #[arg(long, value_name = "NAME", default_value = "text")]
        text_field: String,
    },
}

#[derive(Args, Debug)]
pub(crate) struct BenchArgs {
    #[command(subcommand)]
    pub(crate) command: BenchCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum BenchCommand {
    /// Loss gaps of the cuts at equal tokens, beside a control that sends nothing.
    Cuts(BenchCutsArgs),
    /// Train the model of a run in this process: what a swarm's tokens per second are compared with.
    Alone(BenchAloneArgs),
    /// Times of a run's phases and of each step of its merges, and who did what, from its log.
    Log(BenchLogArgs),
}

#[derive(Args, Debug)]
pub(crate) struct BenchAloneArgs {
    /// A run folder.
    pub(crate) run: PathBuf,
    /// Epochs to train. Default: those of the run.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) epochs: Option<u32>,
    /// Threads. Default: all cores.
    #[arg(long, value_name = "N")]
    pub(crate) threads: Option<usize>,
}

#[derive(Args, Debug)]
pub(crate) struct BenchLogArgs {
    /// A run folder.
    pub(crate) run: PathBuf,
}

#[derive(Args, Debug)]
pub(crate) struct BenchCutsArgs {
    #[command(flatten)]
    pub(crate) data: DataArgs,
    /// A model size by name.
    #[arg(long, value_name = "NAME", default_value = "tiny")]
    pub(crate) preset: String,
    /// Stages.
    #[arg(long, value_name = "N", default_value_t = 3)]
    pub(crate) stages: usize,
    /// Cut behind these blocks, instead of evenly: a last stage of one block makes the wire carry more.
    #[arg(long, value_name = "N,N", value_delimiter = ',', conflicts_with = "stages")]
    pub(crate) behind: Vec<usize>,
    /// Inner steps of each run.
    #[arg(long, value_name = "N", default_value_t = 300, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) steps: u32,
    /// Sequences a step, at most this many; in micro-batches of up to 4.
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = sequences)]
    pub(crate) sequences: usize,
    /// Seeds per cut.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=100))]
    pub(crate) seeds: u64,
    /// First of the seeds: several machines can share the work.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(..1 << 32))]
    pub(crate) first_seed: u64,
    /// Only cuts whose name has this word in it (may be given again), and the first: gaps are against that one.
    #[arg(long, value_name = "WORD")]
    pub(crate) only: Vec<String>,
    /// What a codec does to training, instead of other cuts: the plain cut with activations, gradients and both through this
    /// component (.wasm), or built-in codec by name; and the cut that sends nothing.
    #[arg(long, value_name = "ENTRY", conflicts_with = "only")]
    pub(crate) codec: Option<PathBuf>,
    /// Threads. Default: all cores.
    #[arg(long, value_name = "N")]
    pub(crate) threads: Option<usize>,
}

#[derive(Args, Debug)]
pub(crate) struct WatchArgs {
    /// File with JSON lines. Default: standard input.
    pub(crate) file: Option<PathBuf>,
    /// Print the last picture as text of this size (`80x20`) instead of following.
    #[arg(long, value_name = "WxH", hide = true)]
    pub(crate) frame: Option<String>,
}

fn sequences(text: &str) -> Result<usize, String> {
    let count: usize = text.parse().map_err(|_| format!("{text:?} is not a number"))?;
    if (1..=4096).contains(&count) { Ok(count) } else { Err("must be from 1 to 4096".to_owned()) }
}
