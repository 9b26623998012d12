//! `shoal miner` and `shoal validator`: this machine as a node of somebody's run.

use std::fs::File;
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use net::Ticket;
use node::folder::RunFolder;
use node::machine::Memory;
use node::miner::{self, End};
use node::network::Network;
use node::orchestrator::Shutdown;
use node::validator;
use serde_json::json;
use wire::StageIndex;

use crate::cli::{JoinArgs, MinerArgs, ValidatorArgs};
use crate::failure::{INTERRUPTED, bad_input};
use crate::interrupt;
use crate::watch::print;

/// Where nodes keep their files without `--dir`.
const NODES: &str = "shoal-nodes";

/// What both roles need.
struct Joined {
    ticket: Ticket,
    folder: PathBuf,
    threads: usize,
    network: Network,
    /// One process per folder: two with one key would contradict each other.
    _lock: File,
}

fn join(args: &JoinArgs, role: &str) -> Result<Joined> {
    let ticket: Ticket = args
        .ticket
        .parse()
        .map_err(|error| bad_input(format!("{error}; copy the whole line that the orchestrator printed")))?;
    let default = || Path::new(NODES).join(format!("{}-{role}", ticket.run.short()));
    let folder = args.dir.clone().unwrap_or_else(default);
    std::fs::create_dir_all(&folder).map_err(|error| {
        bad_input(format!(
            "cannot make the folder {}: {error}; choose another one with --dir",
            folder.display()
        ))
    })?;
    let lock = lock(&folder)?;
    let cores = || std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let threads = args.threads.map_or_else(cores, usize::from);
    let network = Network {
        bind: args.bind.into_iter().collect(),
        upload: args.upload.and_then(NonZeroU64::new),
        congestion: args.congestion.map(Into::into),
    };
    Ok(Joined { ticket, folder, threads, network, _lock: lock })
}

fn lock(folder: &Path) -> Result<File> {
    let path = folder.join("node.lock");
    let file = File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => Err(bad_input(format!(
            "{} is in use by another process: give this one a folder of its own with --dir",
            folder.display()
        ))),
        Err(std::fs::TryLockError::Error(error)) => {
            Err(error).with_context(|| format!("cannot lock {}", path.display()))
        }
    }
}

/// Memory that the system lets a miner have at most, bytes; none: no limit. Of a control group all of its limit: a miner that
/// is started again must not be refused because of those beside it.
pub(crate) fn own_limit() -> Option<u64> {
    process_limit().into_iter().chain(Memory::now().limit).min()
}

/// Limits of the process. Of one on addresses (`ulimit -v`) only what is not mapped yet counts: program, libraries and
/// stacks have their share of it already.
#[cfg(unix)]
fn process_limit() -> Option<u64> {
    use rustix::process::{Resource, getrlimit};
    let addresses = getrlimit(Resource::As).current.map(|limit| limit.saturating_sub(mapped()));
    getrlimit(Resource::Data).current.into_iter().chain(addresses).min()
}

/// None that is known.
#[cfg(not(unix))]
fn process_limit() -> Option<u64> {
    None
}

/// Addresses that this process has mapped, bytes; 0 where the system does not tell.
#[cfg(unix)]
fn mapped() -> u64 {
    let told = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = told.lines().find_map(|line| line.strip_prefix("VmSize:")).unwrap_or_default();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap_or(0).saturating_mul(1024)
}

/// `shoal miner`.
pub(crate) fn miner(args: &MinerArgs, json: bool) -> Result<ExitCode> {
    let joined = join(&args.join, "miner")?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let shutdown = Shutdown::default();
    let options = miner::Options {
        ticket: joined.ticket.clone(),
        folder: joined.folder.clone(),
        network: joined.network.clone(),
        threads: joined.threads,
        memory: args.memory.into_iter().chain(own_limit()).min(),
        when_idle: args.when_idle,
        stage: args.stage.map(StageIndex),
        keep_frames: args.keep_frames.clone(),
        keep: args.keep.into(),
    };
    let need = |needs: &[miner::MinerMemory]| {
        for need in needs.iter().filter(|need| args.stage.is_none_or(|stage| stage == need.stage)) {
            let line = if json {
                json!({ "stage": need.stage, "memory_bytes": need.peak(), "disk_bytes": need.disk })
                    .to_string()
            } else {
                need.to_string()
            };
            // A closed pipe is no reason not to train.
            drop(print(&line));
        }
    };
    let end = runtime.block_on(async {
        let _asked = interrupt::on_signals(
            shutdown.drain.clone(),
            shutdown.stop.clone(),
            "returning leases and this epoch's merge",
        )?;
        anyhow::Ok(miner::run(options, need, &shutdown).await?)
    })?;
    let words = match end {
        End::Over => "over",
        End::Drained => "drained",
        End::Stopped => "stopped",
    };
    if json {
        print(&json!({ "end": words }).to_string())?;
    } else {
        print(match end {
            End::Over => "the run is over",
            End::Drained => "left the run in good order",
            End::Stopped => "stopped at once",
        })?;
    }
    Ok(if end == End::Stopped { ExitCode::from(INTERRUPTED) } else { ExitCode::SUCCESS })
}

/// `shoal validator`.
pub(crate) fn validator(args: &ValidatorArgs, json: bool) -> Result<ExitCode> {
    let joined = join(&args.join, "validator")?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let shutdown = Shutdown::default();
    let options = validator::Options {
        ticket: joined.ticket.clone(),
        key: node::key::load_or_create(&joined.folder.join("node.key"))?,
        folder: RunFolder::new(&joined.folder),
        network: joined.network.clone(),
        threads: joined.threads,
    };
    // Nobody waits for a validator: the first Ctrl-C stops it.
    let stop = shutdown.drain.clone();
    runtime.block_on(async {
        let _asked = interrupt::on_signals(
            shutdown.drain.clone(),
            shutdown.stop.clone(),
            "what cannot be left half-done",
        )?;
        anyhow::Ok(validator::run(options, stop.clone()).await?)
    })?;
    let words = if stop.is_cancelled() { "stopped" } else { "over" };
    if json {
        print(&json!({ "end": words }).to_string())?;
    } else {
        print(if stop.is_cancelled() { "stopped" } else { "the run is over" })?;
    }
    Ok(ExitCode::SUCCESS)
}
