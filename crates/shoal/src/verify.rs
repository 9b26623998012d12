//! `shoal verify`: recomputes a log from its inputs and names the first entry that does not follow.

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result};
use ledger::file::{LogHeader, LogReader, block_bytes};
use ledger::fold::Signatures;
use ledger::verify::{Fault, Replay};
use node::folder::RunFolder;
use node::follow::run_spec;
use node::spec::RunSpec;
use store::{LogError, LogStore, SqliteLog};
use swarm::State;
use swarm::record::Record;
use tokio::runtime::Runtime;
use wire::Seq;

use crate::cli::VerifyArgs;
use crate::failure::{DOES_NOT_FOLLOW, bad_input};
use crate::up::read_spec;
use crate::watch::print;

/// Blocks read from a store at a time.
const BLOCKS_AT_ONCE: u32 = 256;

/// Why a log is not what it claims to be.
#[derive(Debug, thiserror::Error)]
enum Wrong {
    #[error(transparent)]
    Fold(#[from] Box<Fault<State>>),
    #[error(transparent)]
    File(#[from] ledger::file::LogError),
    #[error("block 0: its run spec is not that of the run: {0}")]
    Spec(String),
}

/// What was found so far.
struct Check {
    header: LogHeader,
    replay: Replay<State>,
    blocks: u64,
    records: u64,
}

impl Check {
    fn new(header: LogHeader) -> Self {
        Self { header, replay: Replay::new(header.run, header.orchestrator), blocks: 0, records: 0 }
    }

    fn push(&mut self, block: &[u8]) -> Result<(), Wrong> {
        let records = self.replay.push(block, Signatures::Check).map_err(Box::new)?;
        if self.blocks == 0 {
            self.check_spec(&records)?;
        }
        self.blocks += 1;
        self.records += records.len() as u64;
        Ok(())
    }

    /// The protocol's view of the run must follow from the whole spec, and that must hash to the run's id.
    fn check_spec(&self, first: &[Record]) -> Result<(), Wrong> {
        let (Some(state), Some(spec)) = (self.replay.state(), run_spec(first)) else { return Ok(()) };
        let spec = RunSpec::from_canonical(spec, self.header.run).map_err(|e| Wrong::Spec(e.to_string()))?;
        if spec.swarm_spec() != *state.spec() {
            return Err(Wrong::Spec("the protocol's numbers do not follow from it".to_owned()));
        }
        Ok(())
    }
}

/// `shoal verify`.
pub(crate) fn run(args: &VerifyArgs, json: bool) -> Result<ExitCode> {
    // Whoever names the store within a run folder means that run.
    let store = args.path.parent().filter(|folder| RunFolder::new(*folder).log() == args.path);
    let checked = match store {
        Some(folder) => of_run(folder)?,
        None if args.path.is_dir() => of_run(&args.path)?,
        None => of_file(&args.path)?,
    };
    let (check, wrong) = checked;
    let state = check.replay.state();
    let epochs = state.map_or(0, |state| state.epoch().0);
    let digest = state.map(|state| state.digest().to_string());
    let (run, blocks, records) = (check.header.run.to_string(), check.blocks, check.records);
    if json {
        let wrong = wrong.as_ref().map(ToString::to_string);
        print(
            &serde_json::json!({
                "follows": wrong.is_none(), "wrong": wrong, "run": run, "blocks": blocks, "records": records,
                "epochs": epochs, "state": digest,
            })
            .to_string(),
        )?;
    } else if let Some(wrong) = &wrong {
        print(&format!("does not follow: {wrong}\n{blocks} blocks with {records} records before it follow"))?;
    } else {
        print(&format!("follows: {blocks} blocks with {records} records, {epochs} epochs of run {run}"))?;
        if let Some(digest) = digest {
            print(&format!("state:   {digest}"))?;
        }
    }
    Ok(if wrong.is_some() { ExitCode::from(DOES_NOT_FOLLOW) } else { ExitCode::SUCCESS })
}

fn of_file(path: &Path) -> Result<(Check, Option<Wrong>)> {
    let bytes =
        std::fs::read(path).map_err(|error| bad_input(format!("cannot read {}: {error}", path.display())))?;
    let reader = LogReader::new(&bytes).map_err(|error| bad_input(format!("{}: {error}", path.display())))?;
    let mut check = Check::new(reader.header());
    for block in reader {
        let pushed = block.map_err(Wrong::from).and_then(|block| check.push(&wire::to_bytes(&block)));
        if let Err(wrong) = pushed {
            return Ok((check, Some(wrong)));
        }
    }
    Ok((check, None))
}

fn of_run(folder: &Path) -> Result<(Check, Option<Wrong>)> {
    let mut check = Check::new(header_of(folder)?);
    let mut wrong = None;
    read_run(folder, |block| match check.push(block) {
        Ok(()) => Ok(true),
        Err(found) => {
            wrong = Some(found);
            Ok(false)
        }
    })?;
    Ok((check, wrong))
}

/// Run and orchestrator of a run folder.
pub(crate) fn header_of(folder: &Path) -> Result<LogHeader> {
    let folder = RunFolder::new(folder);
    let spec = read_spec(&folder)?;
    Ok(LogHeader { run: spec.run_id(), orchestrator: node::key::load(&folder.key())?.node_id() })
}

/// Writes the log of a run folder as one file; returns the number of blocks.
pub(crate) fn write_log(folder: &Path, to: &Path) -> Result<u64> {
    let mut bytes = header_of(folder)?.to_bytes();
    let mut blocks = 0;
    read_run(folder, |block| {
        let block: ledger::Block =
            wire::from_bytes(block).context("the store holds something that is no block")?;
        bytes.extend(block_bytes(&block));
        blocks += 1;
        Ok(true)
    })?;
    if to.exists() {
        return Err(bad_input(format!("{} exists already: name another file", to.display())));
    }
    model::checkpoint::write_file(to, &bytes)?;
    Ok(blocks)
}

/// Hands over the blocks of a run folder until `take` has enough; also while its orchestrator writes it, up to where it is.
pub(crate) fn read_run(folder: &Path, mut take: impl FnMut(&[u8]) -> Result<bool>) -> Result<()> {
    let path = RunFolder::new(folder).log();
    if !path.exists() {
        return Err(bad_input(format!(
            "{} has no log yet: start it with `shoal orchestrator`",
            folder.display()
        )));
    }
    let runtime = Runtime::new().context("cannot start threads")?;
    let log = runtime.block_on(async {
        // The lock is its writer's: it is taken only where what a crash left has to be put in order first.
        match SqliteLog::read_only(&path).await {
            Err(unreadable) => match SqliteLog::open(&path).await {
                Err(LogError::InUse { .. }) => Err(unreadable),
                opened => opened.map(Some),
            },
            opened => opened,
        }
    })?;
    let Some(log) = log else { return Ok(()) };
    let mut next = Seq(0);
    let mut read = || -> Result<()> {
        loop {
            let blocks = runtime.block_on(log.read(next, BLOCKS_AT_ONCE))?;
            if blocks.is_empty() {
                return Ok(());
            }
            for block in blocks {
                if !take(&block)? {
                    return Ok(());
                }
                next = next.next();
            }
        }
    };
    let outcome = read();
    runtime.block_on(log.close());
    outcome
}
