//! `shoal bench log`: how long each phase and each step of each merge took, and who did what, from a run's log.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;
use std::process::ExitCode;

use anyhow::Result;
use ledger::fold::Signatures;
use ledger::verify::Replay;
use serde::Serialize;
use swarm::State;
use swarm::record::{Derived, Record, Statement, Traffic};
use swarm::state::Agreement;
use wire::{Millis, NodeId, StageIndex};

use crate::cli::BenchLogArgs;
use crate::verify::{header_of, read_run};
use crate::watch::print;

/// Times of one epoch, seconds from the block that opened it, and its training work.
#[derive(Debug, Serialize)]
struct EpochTimes {
    epoch: u32,
    micro_batches: usize,
    tokens: u64,
    /// When it opened, seconds since the first epoch did.
    opened_s: f64,
    /// Length of training.
    training_s: Option<f64>,
    stages: Vec<MergeTimes>,
    members: Vec<MemberTimes>,
}

/// Ends of the steps of one stage's merge, seconds since the end of training.
#[derive(Clone, Debug, Default, Serialize)]
struct MergeTimes {
    stage: usize,
    uploaders: usize,
    commits_closed_s: Option<f64>,
    set_fixed_s: Option<f64>,
    inputs_fixed_s: Option<f64>,
    claims_due_s: Option<f64>,
    manifest_s: Option<f64>,
    /// From closed commitments to the manifest.
    merge_s: Option<f64>,
    /// The agreement matrix, by shard.
    agreement: Vec<Cell>,
}

/// How the owners of a shard stand to each other, by short ids.
#[derive(Clone, Debug, Serialize)]
struct Cell {
    shard: u16,
    owners: Vec<String>,
    /// Owners who claimed nothing.
    missing: Vec<String>,
    /// Owners whose claim is not what settled, or both if they differ and nothing did.
    unequal: Vec<String>,
    /// Others who were asked and claimed.
    witnesses: Vec<String>,
}

impl From<Agreement> for Cell {
    fn from(agreement: Agreement) -> Self {
        let Agreement { shard, owners, missing, unequal, witnesses } = agreement;
        let [owners, missing, unequal, witnesses] = [owners, missing, unequal, witnesses]
            .map(|nodes| nodes.iter().map(NodeId::short).collect::<Vec<_>>());
        Self { shard, owners, missing, unequal, witnesses }
    }
}

impl Cell {
    /// What stands in the row of `node`, in the column of the other owner.
    fn sign(&self, node: &String) -> char {
        match () {
            () if self.missing.contains(node) => '?',
            () if self.unequal.contains(node) => '≠',
            () => '=',
        }
    }
}

/// The agreement matrix in lines: in the row of a node, how its claims of the shards that it shares with the column's stand.
fn matrix(cells: &[Cell]) -> String {
    let nodes: BTreeSet<&String> = cells.iter().flat_map(|cell| &cell.owners).collect();
    let mut text = String::new();
    for row in &nodes {
        let _ = write!(text, "\n    {row} ");
        for column in &nodes {
            let shared = cells.iter().find(|cell| match &cell.owners[..] {
                [alone] => row == column && alone == *row,
                owners => row != column && owners.contains(row) && owners.contains(column),
            });
            let _ = write!(text, " {}", shared.map_or('·', |cell| cell.sign(row)));
        }
    }
    text
}

/// What one miner reported in one epoch.
#[derive(Clone, Debug, Serialize)]
struct MemberTimes {
    node: String,
    stage: u16,
    /// Micro-batches per 1000 s that routes were drawn by.
    capacity: u64,
    accumulate: u32,
    /// Forwards and backwards.
    items: usize,
    steps: usize,
    busy_s: f64,
}

/// What one miner reported in all.
#[derive(Debug, Default, Serialize)]
struct Totals {
    event: &'static str,
    node: String,
    stage: u16,
    activation_bytes: u64,
    activation_full_bytes: u64,
    merge_bytes: u64,
    sent_bytes: u64,
    received_bytes: u64,
}

/// Follows the records of a log.
#[derive(Debug, Default)]
struct Times {
    began: Option<Millis>,
    opened: Millis,
    closed: Millis,
    epochs: Vec<EpochTimes>,
    index: BTreeMap<NodeId, usize>,
    totals: BTreeMap<NodeId, Totals>,
}

/// `shoal bench log`.
pub(super) fn run(args: &BenchLogArgs, json: bool) -> Result<ExitCode> {
    let times = of_run(&args.run)?;
    for epoch in &times.epochs {
        print(&if json { serde_json::to_string(epoch)? } else { epoch.words() })?;
    }
    for totals in times.totals.values() {
        print(&if json { serde_json::to_string(totals)? } else { totals.words() })?;
    }
    Ok(ExitCode::SUCCESS)
}

fn of_run(folder: &Path) -> Result<Times> {
    let header = header_of(folder)?;
    let mut replay = Replay::<State>::new(header.run, header.orchestrator);
    let mut times = Times::default();
    read_run(folder, |block| {
        let records = replay.push(block, Signatures::Trust)?;
        if let Some(state) = replay.state() {
            let spec = state.spec();
            for record in &records {
                times.record(state.now(), spec.stages.len(), spec.tokens_per_micro_batch, record);
                if let Record::Derived(Derived::Manifest { stage, .. }) = record {
                    times.agree(*stage, state);
                }
            }
        }
        Ok(true)
    })?;
    Ok(times)
}

fn seconds(from: Millis, to: Millis) -> f64 {
    to.since(from).0 as f64 / 1000.0
}

impl Times {
    fn record(&mut self, now: Millis, stages: usize, tokens: u64, record: &Record) {
        match record {
            Record::Stated(envelope) => match wire::from_bytes(&envelope.body) {
                Ok(Statement::Work(work)) => {
                    let reported = (work.items.len(), work.steps.len(), work.busy);
                    self.work(envelope.sender, reported, &work.traffic);
                }
                Ok(Statement::Ready { traffic, .. }) => self.traffic(envelope.sender, &traffic),
                _ => {}
            },
            Record::Derived(Derived::Opened { epoch, members, micro_batches, .. }) => {
                self.opened = now;
                let began = *self.began.get_or_insert(now);
                self.index = members.iter().enumerate().map(|(at, member)| (member.node, at)).collect();
                for member in members {
                    let totals = self.totals.entry(member.node).or_default();
                    totals.event = "totals";
                    totals.node = member.node.short();
                    totals.stage = member.stage.0;
                }
                let members = members.iter().map(|member| MemberTimes {
                    node: member.node.short(),
                    stage: member.stage.0,
                    capacity: member.capacity,
                    accumulate: member.accumulate,
                    items: 0,
                    steps: 0,
                    busy_s: 0.0,
                });
                self.epochs.push(EpochTimes {
                    epoch: epoch.0,
                    micro_batches: micro_batches.len(),
                    tokens: micro_batches.len() as u64 * tokens,
                    opened_s: seconds(began, now),
                    training_s: None,
                    stages: (0..stages).map(|stage| MergeTimes { stage, ..MergeTimes::default() }).collect(),
                    members: members.collect(),
                });
            }
            Record::Derived(Derived::Closed { .. }) => {
                self.closed = now;
                if let Some(epoch) = self.epochs.last_mut() {
                    epoch.training_s = Some(seconds(self.opened, now));
                }
            }
            Record::Derived(derived) => self.merge(now, derived),
            Record::Control(_) => {}
        }
    }

    fn agree(&mut self, stage: StageIndex, state: &State) {
        let times = self.epochs.last_mut().and_then(|epoch| epoch.stages.get_mut(usize::from(stage.0)));
        if let (Some(times), Some(merge)) = (times, state.merge(stage)) {
            times.agreement = merge.agreement().into_iter().map(Cell::from).collect();
        }
    }

    fn work(&mut self, node: NodeId, (items, steps, busy): (usize, usize, Millis), traffic: &Traffic) {
        if let (Some(epoch), Some(at)) = (self.epochs.last_mut(), self.index.get(&node))
            && let Some(member) = epoch.members.get_mut(*at)
        {
            member.items += items;
            member.steps += steps;
            member.busy_s += busy.0 as f64 / 1000.0;
        }
        self.traffic(node, traffic);
    }

    fn traffic(&mut self, node: NodeId, traffic: &Traffic) {
        let Some(totals) = self.totals.get_mut(&node) else { return };
        totals.activation_bytes += traffic.activations;
        totals.activation_full_bytes += traffic.activations_full;
        totals.merge_bytes += traffic.merge;
        totals.sent_bytes += traffic.sent;
        totals.received_bytes += traffic.received;
    }

    fn merge(&mut self, now: Millis, derived: &Derived) {
        let (Derived::CommitsClosed { stage, .. }
        | Derived::SetFixed { stage, .. }
        | Derived::InputsFixed { stage, .. }
        | Derived::ClaimsDue { stage, .. }
        | Derived::Manifest { stage, .. }) = derived
        else {
            return;
        };
        let at = seconds(self.closed, now);
        let stages = self.epochs.last_mut().map(|epoch| &mut epoch.stages);
        let Some(times) = stages.and_then(|stages| stages.get_mut(usize::from(stage.0))) else { return };
        match derived {
            Derived::CommitsClosed { .. } => times.commits_closed_s = Some(at),
            Derived::SetFixed { nodes, .. } => {
                times.uploaders = nodes.len();
                times.set_fixed_s = Some(at);
            }
            Derived::InputsFixed { .. } => times.inputs_fixed_s = Some(at),
            Derived::ClaimsDue { .. } => times.claims_due_s = Some(at),
            _ => {
                times.manifest_s = Some(at);
                times.merge_s = times.commits_closed_s.map(|from| at - from);
            }
        }
    }
}

impl EpochTimes {
    fn words(&self) -> String {
        let some = |time: Option<f64>| time.map_or_else(|| "-".to_owned(), |time| format!("{time:.3}"));
        let mut text = format!(
            "epoch {} opened at {:.3} s, trained {} s, {} tokens",
            self.epoch,
            self.opened_s,
            some(self.training_s),
            self.tokens
        );
        for member in &self.members {
            let _ = write!(
                text,
                "\n  stage {} {}: {} items, {} steps of {}, busy {:.3} s, capacity {}",
                member.stage,
                member.node,
                member.items,
                member.steps,
                member.accumulate,
                member.busy_s,
                member.capacity
            );
        }
        for times in &self.stages {
            let _ = write!(
                text,
                "\n  stage {} of {} uploads: commits {}, set {}, inputs {}, claims {}, manifest {}; merge {} s",
                times.stage,
                times.uploaders,
                some(times.commits_closed_s),
                some(times.set_fixed_s),
                some(times.inputs_fixed_s),
                some(times.claims_due_s),
                some(times.manifest_s),
                some(times.merge_s)
            );
            if !times.agreement.is_empty() {
                let asked = times.agreement.iter().filter(|cell| !cell.witnesses.is_empty()).count();
                let _ = write!(
                    text,
                    "\n    agreement of owners (= same bits, ≠ other bits, ? no claim; {asked} shards refereed)"
                );
                text.push_str(&matrix(&times.agreement));
            }
        }
        text
    }
}

impl Totals {
    fn words(&self) -> String {
        format!(
            "stage {} {}: activations {} (full width {}), merges {}, sent {}, received {} bytes",
            self.stage,
            self.node,
            self.activation_bytes,
            self.activation_full_bytes,
            self.merge_bytes,
            self.sent_bytes,
            self.received_bytes
        )
    }
}
