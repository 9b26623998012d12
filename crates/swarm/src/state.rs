//! The fold: everything the log says, as one value. Inputs are accepted or refused; what follows is due.
//!
//! `advance` sets the time, `accept` takes an input, `due` names the next record that follows and `apply` applies it.
//! The orchestrator drives these four through [`ledger::commit`], every other node replays them through
//! [`ledger::verify`]; equal logs give equal states.

mod accept;
mod accept_merge;
mod accept_work;
mod codec;
mod fold;
mod gather;
mod merge;
mod merge_fold;
mod node;
mod shadow;
mod summary;
mod train;
mod work;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

pub use ledger::fold::Signatures;
use ledger::fold::Tip;
use serde::{Deserialize, Serialize};
use wire::{Epoch, Hash, LeaseId, MicroBatch, Millis, NodeId, RunId, StageIndex, Step};

pub use self::codec::{ActiveCodec, CodecEvent, CodecNews, Codecs};
pub use self::merge::{Agreement, MergeClock, MergeStep, SetUpload, ShardView, StageMerge, Standing};
pub use self::node::{Node, Presence, Ready, Verdicts};
pub use self::summary::{CodecSummary, EpochSummary, HeldOutLoss, StageSummary, Totals};
pub use self::work::{Cause, Cell, Coverage, EpochWork, Lease, MemberWork, Path};
use crate::limits;
use crate::record::{Member, Role};
use crate::route::Candidate;
use crate::shard::{self, Partition};
use crate::spec::{SpecError, SwarmSpec};

/// Everything that the log says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct State {
    tip: Tip,
    spec: SwarmSpec,
    /// Before this time no deadline fires.
    quiet_until: Millis,
    phase: Phase,
    draining: bool,
    nodes: BTreeMap<NodeId, Node>,
    /// First micro-batch that no epoch had yet.
    next_micro_batch: u64,
    /// Micro-batches that an epoch had and merged in no stage.
    pool: BTreeSet<MicroBatch>,
    next_lease: u64,
    work: EpochWork,
    /// One per stage from the first closing on.
    merges: Vec<StageMerge>,
    /// One per stage.
    stages: Vec<StageState>,
    /// Lengths of the last merges.
    merge_times: VecDeque<Millis>,
    summaries: VecDeque<EpochSummary>,
    held_out: BTreeMap<Epoch, BTreeMap<NodeId, HeldOutLoss>>,
    totals: Totals,
    codecs: Codecs,
}

/// What a run does now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    /// Miners fetch or apply the weights that open `epoch` and say so; it opens when every stage has enough of them.
    Gathering {
        /// Epoch that opens next (after the last one: the run finishes).
        epoch: Epoch,
        /// Until when replicas of the epoch before are waited for.
        until: Millis,
    },
    /// Heads lease micro-batches.
    Training {
        /// Epoch.
        epoch: Epoch,
    },
    /// Stages merge.
    Merging {
        /// Epoch whose work is merged.
        epoch: Epoch,
    },
    /// The run is over.
    Finished {
        /// Epochs merged.
        epochs: u32,
    },
}

/// What the run agreed on for one stage.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StageState {
    /// State hash per shard of the weights (and momentum) that opened the current epoch; `None` before the first, and
    /// after the run's end those of its last weights.
    pub agreed: Option<Vec<Hash>>,
    /// The same for the epoch to come; `None` for a kept shard, whose hash its holders' plurality will tell.
    pub wanted: Vec<Option<Hash>>,
    /// What the keeper holds of `wanted`.
    pub keeper: Option<Vec<Hash>>,
    /// `wanted` is `agreed` again: the merge settled nothing, or was withdrawn.
    pub unchanged: bool,
    /// Norms of merged inputs, newest last.
    norms: VecDeque<f64>,
}

/// Why a log cannot begin like this.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GenesisError {
    /// Not a genesis record.
    #[error("the first record is not a genesis")]
    NotGenesis,
    /// The run spec is another run's.
    #[error("the run spec is of run {}, the log of run {}", theirs.short(), ours.short())]
    WrongRun {
        /// Hash of the spec.
        theirs: RunId,
        /// Run of the log.
        ours: RunId,
    },
    /// A value that no run can have.
    #[error("impossible spec: {0}")]
    Spec(#[from] SpecError),
}

impl State {
    fn phase_deadlines(&self) -> Vec<Millis> {
        match self.phase {
            Phase::Gathering { epoch, until } => self.gather_deadlines(epoch, until),
            Phase::Training { .. } => self.train_deadlines(),
            Phase::Merging { .. } => self.merge_deadlines(),
            Phase::Finished { .. } => Vec::new(),
        }
    }

    /// Whether `at` has come and deadlines may fire.
    fn passed(&self, at: Millis) -> bool {
        self.tip.now() >= at && self.tip.now() >= self.quiet_until
    }

    /// Run.
    pub fn run(&self) -> RunId {
        self.tip.run()
    }

    /// The protocol's view of the run.
    pub fn spec(&self) -> &SwarmSpec {
        &self.spec
    }

    /// Who signs the log.
    pub fn orchestrator(&self) -> NodeId {
        self.tip.owner()
    }

    /// Time of the newest block.
    pub fn now(&self) -> Millis {
        self.tip.now()
    }

    /// Hash chain over all records: equal digests mean equal logs.
    pub fn digest(&self) -> Hash {
        self.tip.digest()
    }

    /// What the run does now.
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// Whether the owner asked to end.
    pub fn draining(&self) -> bool {
        self.draining
    }

    /// Epoch that is gathered for, trained or merged; the number of epochs after the end.
    pub fn epoch(&self) -> Epoch {
        match self.phase {
            Phase::Gathering { epoch, .. } | Phase::Training { epoch } | Phase::Merging { epoch } => epoch,
            Phase::Finished { epochs } => Epoch(epochs),
        }
    }

    /// Seed of the newest epoch's routes.
    pub fn seed(&self) -> Hash {
        self.work.seed
    }

    /// When the training phase ends at the latest, or gathering stops waiting, or the merge's step under way ends: for
    /// displays.
    pub fn phase_deadline(&self) -> Option<Millis> {
        match self.phase {
            Phase::Training { .. } => Some(self.work.deadline),
            _ => self.phase_deadlines().into_iter().filter(|at| *at > self.tip.now()).min(),
        }
    }

    /// All nodes that ever joined.
    pub fn nodes(&self) -> &BTreeMap<NodeId, Node> {
        &self.nodes
    }

    /// One node.
    pub fn node(&self, node: &NodeId) -> Option<&Node> {
        self.nodes.get(node)
    }

    /// Capacity of a miner in its stage, micro-batches (forward and backward) per 1000 s: measured, or from its speed.
    pub fn capacity(&self, node: &NodeId) -> u64 {
        let Some(node) = self.nodes.get(node) else { return 0 };
        let stage = node.stage.map_or(0, |stage| usize::from(stage.0));
        let Some(facts) = self.spec.stages.get(stage) else { return 0 };
        node.measured.unwrap_or_else(|| {
            let flops = u128::from(facts.flops_per_token) * 3 * u128::from(self.spec.tokens_per_micro_batch);
            let per_1000_s = u128::from(node.join.mflops) * 1_000_000_000;
            u64::try_from(per_1000_s / flops.max(1)).unwrap_or(u64::MAX).clamp(1, 1 << 40)
        })
    }

    /// The newest epoch's work ledger.
    pub fn work(&self) -> &EpochWork {
        &self.work
    }

    /// Members of the newest epoch by stage, then node id.
    pub fn epoch_members(&self) -> &[MemberWork] {
        &self.work.members
    }

    /// A member of the newest epoch, live or not.
    pub fn member(&self, node: &NodeId) -> Option<&MemberWork> {
        self.work.get(node)
    }

    /// Whether a node is a member of the newest epoch and was there without a break.
    pub fn is_live_member(&self, node: &NodeId) -> bool {
        self.work.is_live(node)
    }

    /// Live members of a stage, ascending by id.
    pub fn members(&self, stage: StageIndex) -> impl Iterator<Item = &Member> {
        self.work.live(stage).map(|work| &work.member)
    }

    /// Who takes a micro-batch in a stage: up to three live members, best first (protocol §2.2 "Routing").
    pub fn route(&self, micro_batch: MicroBatch, stage: StageIndex) -> Vec<NodeId> {
        let all = self.work.members.iter().filter(|work| work.member.stage == stage);
        let candidates = all.map(|work| Candidate {
            node: work.member.node,
            capacity: work.member.capacity,
            live: work.live,
        });
        crate::route::rank(&self.work.seed, micro_batch, stage, candidates)
    }

    /// Leases with micro-batches under way.
    pub fn leases(&self) -> &BTreeMap<LeaseId, Lease> {
        &self.work.leases
    }

    /// Leases of a head.
    pub fn leases_of(&self, node: NodeId) -> impl Iterator<Item = (LeaseId, &Lease)> {
        self.work.leases.iter().filter(move |(_, lease)| lease.node == node).map(|(id, lease)| (*id, lease))
    }

    /// Paths of the newest epoch's micro-batches.
    pub fn paths(&self) -> &BTreeMap<MicroBatch, Path> {
        &self.work.paths
    }

    /// Cells of a micro-batch of the newest epoch, one per stage.
    pub fn cells(&self, micro_batch: MicroBatch) -> Option<&[Cell]> {
        self.work.paths.get(&micro_batch).map(|path| path.cells.as_slice())
    }

    /// Counts of the newest epoch's cells.
    pub fn coverage(&self) -> Coverage {
        self.work.coverage()
    }

    /// Lock-step: clip scale of a step of the newest epoch, once known.
    pub fn clip_scale(&self, step: Step) -> Option<f32> {
        self.work.clips.get(&step).copied()
    }

    /// Mean training loss of the newest epoch so far, nats per token.
    pub fn loss(&self) -> Option<f64> {
        let count = self.work.loss_count;
        (count > 0).then(|| self.work.loss_micro_nats as f64 / 1e6 / count as f64)
    }

    /// A stage's merge: the one under way or the newest one.
    pub fn merge(&self, stage: StageIndex) -> Option<&StageMerge> {
        self.merges.get(usize::from(stage.0))
    }

    /// What the run agreed on for a stage.
    pub fn stage(&self, stage: StageIndex) -> Option<&StageState> {
        self.stages.get(usize::from(stage.0))
    }

    /// The cut that [`StageState::wanted`] (and, in Gathering, every `Ready`) refers to.
    pub fn wanted_partition(&self, stage: StageIndex) -> Partition {
        let index = usize::from(stage.0);
        let shards = self.stages.get(index).map_or(0, |state| state.wanted.len() as u16);
        let elements = self.spec.stages.get(index).map_or(0, |facts| facts.parameters);
        Partition::new(elements, shards)
    }

    /// The cut that [`StageState::agreed`] refers to.
    pub fn agreed_partition(&self, stage: StageIndex) -> Partition {
        let index = usize::from(stage.0);
        let shards = self.stages.get(index).and_then(|state| state.agreed.as_ref()).map_or(1, Vec::len);
        let elements = self.spec.stages.get(index).map_or(0, |facts| facts.parameters);
        Partition::new(elements, shards as u16)
    }

    /// Who holds the weights that open the epoch to come, ascending by id.
    pub fn ready_nodes(&self, stage: StageIndex) -> impl Iterator<Item = NodeId> + '_ {
        let epoch = match self.phase {
            Phase::Merging { epoch } => epoch.next(),
            _ => self.epoch(),
        };
        self.nodes
            .iter()
            .filter(move |(_, node)| {
                node.present_miner()
                    && node.stage == Some(stage)
                    && node.ready.as_ref().is_some_and(|ready| ready.epoch == epoch)
            })
            .map(|(id, _)| *id)
    }

    /// Figures of past epochs, oldest first; at most [`limits::SUMMARIES_MAX`].
    pub fn summaries(&self) -> &VecDeque<EpochSummary> {
        &self.summaries
    }

    /// Held-out losses by epoch whose opening weights were measured, then validator.
    pub fn held_out(&self) -> &BTreeMap<Epoch, BTreeMap<NodeId, HeldOutLoss>> {
        &self.held_out
    }

    /// Sums over the whole run, the newest epoch's traffic and losses included.
    pub fn totals(&self) -> Totals {
        self.totals
    }

    /// Champions: in force, to come, and what became of them.
    pub fn codecs(&self) -> &Codecs {
        &self.codecs
    }

    fn present(&self, role: Role) -> impl Iterator<Item = (&NodeId, &Node)> {
        self.nodes.iter().filter(move |(_, node)| node.present() && node.join.role == role)
    }

    fn stage_count(&self) -> usize {
        self.spec.stages.len()
    }

    fn shard_count(&self, stage: StageIndex, uploaders: usize) -> u16 {
        let elements = self.spec.stages.get(usize::from(stage.0)).map_or(0, |facts| facts.parameters);
        shard::count(uploaders, elements)
    }

    /// Most inner steps that a miner may report in an epoch: more than H when others of its stage are gone.
    pub fn steps_max(&self) -> u32 {
        self.spec.micro_batches_per_epoch.saturating_mul(limits::STEPS_PER_MICRO_BATCH)
    }
}
