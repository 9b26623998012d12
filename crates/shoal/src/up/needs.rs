//! What a run needs of this machine, told and held against what the machine has before anything starts.

use std::path::Path;

use anyhow::Result;
use node::machine::Memory;
use node::miner::{self, Keep, MinerMemory};
use node::progress::{Needs, Progress};
use node::spec::RunSpec;
use node::validator;

use crate::cli::KeepArg;
use crate::failure::bad_input;
use crate::lend;
use crate::unit;
use crate::watch::Show;

/// The processes of a run beside its orchestrator.
#[derive(Clone, Copy, Debug)]
pub(super) struct Nodes {
    /// Miners of each stage.
    pub(super) replicas: u16,
    pub(super) validators: u16,
    /// Threads of each.
    pub(super) threads: usize,
    pub(super) keep: KeepArg,
}

/// What a miner takes for sure: weights, one graph, merges. More graphs, messages and the room of its process are bounds that a
/// small run does not come near.
fn taken(need: &MinerMemory) -> u64 {
    need.peak().saturating_sub(need.messages + need.process)
}

impl Nodes {
    fn sum(self, stages: &[MinerMemory], of: fn(&MinerMemory) -> u64) -> u64 {
        let all = |need| of(need).saturating_mul(u64::from(self.replicas));
        stages.iter().map(all).fold(0, u64::saturating_add)
    }

    fn needs(self, spec: &RunSpec, stages: &[MinerMemory], at: &Path) -> Needs {
        let validating = validator::memory(spec, self.threads).saturating_mul(self.validators.into());
        Needs {
            miners: stages.len() * usize::from(self.replicas),
            validators: self.validators.into(),
            memory_bytes: self.sum(stages, MinerMemory::peak).saturating_add(validating),
            miner_bytes: stages.iter().map(MinerMemory::peak).max().unwrap_or(0),
            disk_bytes: self.sum(stages, |need| need.disk),
            memory_free_bytes: Memory::now().available(),
            disk_free_bytes: free_disk(at),
        }
    }

    /// Says what the run needs, and refuses one that clearly does not fit. `begun`: some of the disk it needs is its own already.
    pub(super) fn check(self, spec: &RunSpec, at: &Path, begun: bool, show: &mut Show) -> Result<()> {
        let stages = miner::memory(spec, self.threads, self.keep.into());
        let needs = self.needs(spec, &stages, at);
        show.event(&Progress::Needs(needs.clone()))?;
        let Needs { miners, validators, memory_bytes, miner_bytes, disk_bytes, .. } = needs;
        let inputs = if self.keep == KeepArg::Graphs { "keep less (--keep inputs), " } else { "" };
        let next = "take fewer --replicas, a smaller --preset or --spec, or more machines (`shoal run new`, `shoal miner`)";
        if let Some(free) = needs.memory_free_bytes.filter(|free| memory_bytes > *free) {
            let words = format!(
                "{miners} miners and {validators} validators need up to {} of memory, and this machine has {}",
                unit::bytes(memory_bytes),
                unit::bytes(free),
            );
            if self.sum(&miner::memory(spec, self.threads, Keep::Inputs), taken) > free {
                return Err(bad_input(format!("{words}: {inputs}{next}")));
            }
            show.say(&format!("{words}: should nodes be killed for it, {inputs}{next}"))?;
        }
        if let Some(limit) = lend::own_limit().filter(|limit| miner_bytes > *limit) {
            return Err(bad_input(format!(
                "a miner of this run needs up to {} of memory, and a process here may have {}: raise its limit (ulimit, \
                 control group), {inputs}{next}",
                unit::bytes(miner_bytes),
                unit::bytes(limit),
            )));
        }
        if let Some(free) = needs.disk_free_bytes.filter(|free| !begun && disk_bytes > *free) {
            return Err(bad_input(format!(
                "{miners} miners keep up to {} on disk, and {} is free at {}: choose another disk with --dir, {next}",
                unit::bytes(disk_bytes),
                unit::bytes(free),
                at.display(),
            )));
        }
        Ok(())
    }
}

/// Bytes that are free where `at` is, or will be.
#[cfg(unix)]
fn free_disk(at: &Path) -> Option<u64> {
    let at = std::path::absolute(at).ok()?;
    let told = at.ancestors().find_map(|folder| rustix::fs::statvfs(folder).ok())?;
    Some(told.f_bavail.saturating_mul(told.f_frsize))
}

/// The system is not asked.
#[cfg(not(unix))]
fn free_disk(_: &Path) -> Option<u64> {
    None
}
