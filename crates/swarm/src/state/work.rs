//! The work ledger of one epoch: a cell per (micro-batch, stage), leases, inner steps (protocol §2.2).

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use wire::{Epoch, Hash, LeaseId, MicroBatch, Millis, NodeId, StageIndex, Step};

use crate::record::{Member, Traffic};

/// One epoch's work.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EpochWork {
    /// Epoch.
    pub epoch: Epoch,
    /// Seed of its routes.
    pub seed: Hash,
    /// When it opened.
    pub opened: Millis,
    /// When it closes at the latest.
    pub deadline: Millis,
    /// When it closed; `None` while training.
    pub closed: Option<Millis>,
    /// Members by stage, then node id.
    pub(super) members: Vec<MemberWork>,
    /// Position in `members`.
    pub(super) index: BTreeMap<NodeId, u16>,
    /// The epoch's micro-batches.
    pub(super) paths: BTreeMap<MicroBatch, Path>,
    /// Micro-batches that may be leased now.
    pub(super) open: BTreeSet<MicroBatch>,
    /// Leases with micro-batches under way.
    pub(super) leases: BTreeMap<LeaseId, Lease>,
    /// What heads could start.
    pub(super) wants: BTreeMap<NodeId, u16>,
    /// Lock-step: squares by step and stage.
    pub(super) squares: BTreeMap<Step, BTreeMap<StageIndex, Vec<f64>>>,
    /// Lock-step: clip scales.
    pub(super) clips: BTreeMap<Step, f32>,
    /// Σ loss of counted micro-batches, 10⁻⁶ nats per token.
    pub(super) loss_micro_nats: u64,
    /// Micro-batches in that sum.
    pub(super) loss_count: u64,
    /// Bytes of the epoch, training and merge.
    pub(super) traffic: Traffic,
}

/// A member and what it did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberWork {
    /// Who, where, how fast.
    pub member: Member,
    /// Still there, without a break, since the epoch opened.
    pub live: bool,
    /// Number of its next report.
    pub next_report: u32,
    /// Inner steps taken.
    pub steps: u32,
    /// Cells that it accumulated and has not stepped.
    pub accumulated: u32,
    /// Cells that count in its steps (B_m).
    pub stepped: u32,
    /// Cells that it reported without a right to.
    pub surplus: u32,
    /// Reported after the epoch closed.
    pub finished: bool,
    /// Forwards plus twice the backwards.
    pub(super) thirds: u64,
    /// Time spent computing.
    pub busy: Millis,
}

/// A micro-batch's way through the stages.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Path {
    /// Lease it is (or was last) under.
    pub lease: Option<LeaseId>,
    /// Head that holds that lease.
    pub head: Option<NodeId>,
    /// Stages that accumulate under that lease.
    pub grad_mask: u64,
    /// Came back to its head.
    pub returned: bool,
    /// Its loss is in the sum.
    pub(super) loss_counted: bool,
    /// Stages whose cell was ever leased.
    pub(super) ever_leased: u64,
    /// One per stage.
    pub cells: Vec<Cell>,
}

/// A cell: one micro-batch in one stage. `member` indexes [`super::State::epoch_members`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Cell {
    /// May be leased.
    Open,
    /// Under way.
    Leased,
    /// Gradient added, step not yet taken.
    Accumulated {
        /// Who.
        member: u16,
    },
    /// In a step.
    Stepped {
        /// Who.
        member: u16,
        /// Which.
        step: Step,
    },
    /// In the merged weights. Final.
    Merged {
        /// Who.
        member: u16,
    },
    /// Not in the merged weights. Final.
    Forfeited {
        /// Why.
        cause: Cause,
    },
}

/// Why a leased cell is not in the merged weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Cause {
    /// Its miner went silent or restarted before the set was fixed.
    Lost,
    /// Its miner left before the set was fixed.
    Left,
    /// Leased, and never reported.
    Unfinished,
    /// Accumulated, and left over from the last step.
    Partial,
    /// Stepped, and its miner did not commit or reveal an upload in time.
    NotUploaded,
    /// Uploaded, and in no shard that settled.
    Excluded,
    /// The merge was withdrawn, since nobody could serve it.
    Amended,
}

/// A lease.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// Its head.
    pub node: NodeId,
    /// Stages that accumulate.
    pub grad_mask: u64,
    /// When it was granted.
    pub granted: Millis,
    /// From when its micro-batches may be leased again (120 % of its time).
    pub expires: Millis,
    /// Micro-batches that did not come back yet.
    pub micro_batches: BTreeSet<MicroBatch>,
}

/// Counts of the cells of one epoch.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Coverage {
    /// Never leased.
    pub open: u64,
    /// Leased, and open again after the lease ran out.
    pub reopened: u64,
    /// Under way.
    pub leased: u64,
    /// Accumulated.
    pub accumulated: u64,
    /// Stepped.
    pub stepped: u64,
    /// Merged.
    pub merged: u64,
    /// Forfeited, by cause.
    pub forfeited: BTreeMap<Cause, u64>,
    /// Micro-batches that came back to their heads.
    pub returned: u64,
}

impl MemberWork {
    pub(super) fn new(member: Member) -> Self {
        Self {
            member,
            live: true,
            next_report: 0,
            steps: 0,
            accumulated: 0,
            stepped: 0,
            surplus: 0,
            finished: false,
            thirds: 0,
            busy: Millis(0),
        }
    }
}

impl EpochWork {
    /// No work: what a run starts with.
    pub(super) fn idle() -> Self {
        Self {
            epoch: Epoch(0),
            seed: Hash([0; 32]),
            opened: Millis(0),
            deadline: Millis(0),
            closed: None,
            members: Vec::new(),
            index: BTreeMap::new(),
            paths: BTreeMap::new(),
            open: BTreeSet::new(),
            leases: BTreeMap::new(),
            wants: BTreeMap::new(),
            squares: BTreeMap::new(),
            clips: BTreeMap::new(),
            loss_micro_nats: 0,
            loss_count: 0,
            traffic: Traffic::default(),
        }
    }

    pub(super) fn get(&self, node: &NodeId) -> Option<&MemberWork> {
        self.members.get(usize::from(*self.index.get(node)?))
    }

    /// Live members of a stage, ascending by id.
    pub(super) fn live(&self, stage: StageIndex) -> impl Iterator<Item = &MemberWork> {
        self.members.iter().filter(move |work| work.live && work.member.stage == stage)
    }

    pub(super) fn is_live(&self, node: &NodeId) -> bool {
        self.get(node).is_some_and(|work| work.live)
    }

    pub(super) fn coverage(&self) -> Coverage {
        let mut coverage = Coverage::default();
        for path in self.paths.values() {
            coverage.returned += u64::from(path.returned);
            for (stage, cell) in path.cells.iter().enumerate() {
                match cell {
                    Cell::Open if path.ever_leased >> stage & 1 == 0 => coverage.open += 1,
                    Cell::Open => coverage.reopened += 1,
                    Cell::Leased => coverage.leased += 1,
                    Cell::Accumulated { .. } => coverage.accumulated += 1,
                    Cell::Stepped { .. } => coverage.stepped += 1,
                    Cell::Merged { .. } => coverage.merged += 1,
                    Cell::Forfeited { cause } => *coverage.forfeited.entry(*cause).or_default() += 1,
                }
            }
        }
        coverage
    }
}
