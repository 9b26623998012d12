//! Records of the log: what nodes state (signed) and what follows from it (derived).
//!
//! A block holds inputs (statements and controls) in the order of arrival; behind each input stand the derived
//! records that it made due. Derived records are a pure function of the state, so a verifier recomputes each one.

mod codec;

pub use codec::{CodecCounts, CodecEffect, CodecFault, CodecPin, Effect, LossyBounds, OffCause};

use ledger::Fact;
use serde::{Deserialize, Serialize};
use wire::{Direction, Epoch, Hash, LeaseId, MicroBatch, Millis, NodeId, RunId, StageIndex, Step};

use crate::spec::SwarmSpec;

/// One record of the log.
pub type Record = ledger::fold::Record<Control, Derived>;
/// A record that comes from outside: everything else follows.
pub type Input = ledger::fold::Input<Control>;

/// Kind of an envelope whose body is a [`Statement`].
pub const STATEMENT_KIND: u16 = 1;

/// Id of the run whose canonical spec these bytes are.
pub fn run_id(run_spec: &[u8]) -> RunId {
    RunId(Hash::of(run_spec).0)
}

/// Input of the orchestrator itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Control {
    /// First record of a log: the protocol's view of the run and the full canonical run spec, whose hash is the run id.
    Genesis {
        /// Protocol view.
        spec: SwarmSpec,
        /// Canonical bytes of the whole run spec.
        run_spec: Vec<u8>,
        /// Who signs the blocks.
        orchestrator: NodeId,
    },
    /// The orchestrator was down; open deadlines move by this much.
    Resumed {
        /// Time not served.
        down: Millis,
    },
    /// The owner asks to end: no new leases, finish the epoch's merge, then stop.
    Drain,
    /// The orchestrator's keeper holds a whole stage as it opens `epoch`: counts like a miner's [`Statement::Ready`]
    /// when a stage's miners are gone. For epoch 0 it says what the initial weights are, where otherwise the plurality
    /// of the first miners decides.
    Keeps {
        /// Epoch that the weights open.
        epoch: Epoch,
        /// Stage.
        stage: StageIndex,
        /// State hash per shard, as in [`Statement::Ready`].
        states: Vec<Hash>,
    },
    /// A champion is to carry tensors from an epoch on: at least one whole epoch lies between.
    CodecPinned(CodecPin),
    /// The owner takes the champion away, the one in force and the one to come.
    CodecUnpinned,
}

/// What a node may state.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Statement {
    /// Wants to take part. Also sent again after a restart: it replaces the node's earlier presence.
    Join(Join),
    /// Leaves in good order: leases are returned.
    Leave,
    /// Nothing to say, still here. Any accepted statement counts as a sign of life; this is for when there is no other.
    Heartbeat,
    /// A head asks for micro-batches.
    LeaseRequest {
        /// Epoch.
        epoch: Epoch,
        /// How many it could start now.
        want: u16,
    },
    /// Heartbeat with the work since the last one.
    Work(Work),
    /// Sum of squares of the mean gradient about to be applied, one per unit of the stage (lock-step clipping only).
    Squares {
        /// Epoch.
        epoch: Epoch,
        /// Inner step about to be taken.
        step: Step,
        /// f64 sums, in unit order.
        sums: Vec<f64>,
    },
    /// Commits to an upload (merge step 1).
    Upload(UploadCommit),
    /// Opens the nonce of the commit (merge step 2).
    Reveal {
        /// Epoch.
        epoch: Epoch,
        /// Preimage of [`UploadCommit::nonce_commit`].
        nonce: Hash,
    },
    /// What an owner holds of the uploads (merge step 3).
    Have {
        /// Epoch.
        epoch: Epoch,
        /// One entry per shard that the sender witnesses.
        shards: Vec<HaveShard>,
    },
    /// Hash over the claims, before anyone shows them (merge step 5).
    Blind {
        /// Epoch.
        epoch: Epoch,
        /// [`blind_hash`] of the claims to come.
        hash: Hash,
    },
    /// Claims on reduced shards (merge step 5), or of a fallback witness (step 6).
    Claims {
        /// Epoch.
        epoch: Epoch,
        /// Preimage part of the blind hash; zero for fallback witnesses.
        nonce: Hash,
        /// One per shard, ascending.
        shards: Vec<ShardClaim>,
    },
    /// Holds the bytes of these results and can serve them (merge step 7).
    Holds {
        /// Epoch.
        epoch: Epoch,
        /// Shards.
        shards: Vec<u16>,
    },
    /// Has weights and momentum of `epoch` (the one about to be trained), shard by shard of the merge before.
    Ready {
        /// Epoch whose weights it holds.
        epoch: Epoch,
        /// State hash per shard of the partition of merge `epoch − 1`; for epoch 0 one hash of the initial state.
        states: Vec<Hash>,
        /// What moved since its last report: the merge, above all.
        traffic: Traffic,
    },
    /// A validator's replay of one item.
    Verdict(Verdict),
    /// A validator's held-out loss on merged weights.
    HeldOut {
        /// Epoch whose opening weights were measured.
        epoch: Epoch,
        /// Mean loss, nats per token.
        loss: f32,
        /// Tokens it was measured on.
        tokens: u64,
    },
    /// Has compiled a pinned component, and it did with the golden tensors what the pin says.
    CodecReady {
        /// Component.
        component: Hash,
    },
    /// Cannot run a pinned component.
    CodecUnfit {
        /// Component.
        component: Hash,
        /// Why, at most [`crate::limits::NAME_BYTES`].
        reason: String,
    },
    /// What the champion did since the last such report.
    CodecWork {
        /// Epoch.
        epoch: Epoch,
        /// Component.
        component: Hash,
        /// Counts.
        counts: CodecCounts,
    },
    /// The champion gave another tensor back.
    CodecFault(CodecFault),
    /// A validator's word on what a lossy champion does to the loss, once in its shadow.
    CodecEffect(CodecEffect),
}

/// What a node can do and where it is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Join {
    /// Role.
    pub role: Role,
    /// Address of the node, as its transport encodes it.
    pub address: Vec<u8>,
    /// Program and version.
    pub agent: String,
    /// Device class: what audits compare within by equality.
    pub device: String,
    /// Speed: forward+backward MFLOP/s it measured on itself (a start value; later rates are measured).
    pub mflops: u64,
    /// Memory it may use, bytes.
    pub memory: u64,
    /// Stage it asks for, if any.
    pub stage: Option<StageIndex>,
}

/// Roles of the swarm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Role {
    /// Trains a stage.
    Miner,
    /// Replays and evaluates.
    Validator,
}

/// Work since the last heartbeat. Resent with the same bytes until acknowledged.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Work {
    /// Epoch.
    pub epoch: Epoch,
    /// Counts a node's reports in an epoch from 0.
    pub seq: u32,
    /// Items finished: both directions, in order.
    pub items: Vec<WorkItem>,
    /// Inner steps taken.
    pub steps: Vec<StepCommit>,
    /// Merkle root over the items' frame headers and receipts.
    pub evidence: Hash,
    /// Time spent computing since the last report.
    pub busy: Millis,
    /// Hops that were refused or failed.
    pub hops: Vec<HopReport>,
    /// Bytes since the last report.
    pub traffic: Traffic,
    /// Micro-batches it could take now (for the display only).
    pub free: u16,
}

/// One forward or backward of one micro-batch.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct WorkItem {
    /// Micro-batch.
    pub micro_batch: MicroBatch,
    /// Lease.
    pub lease: LeaseId,
    /// Direction.
    pub direction: Direction,
    /// Weight version (inner steps taken in this epoch) that it used.
    pub version: u32,
    /// Loss in nats per token; tail only.
    pub loss: Option<f32>,
}

/// One inner step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepCommit {
    /// Index within the epoch, from 0.
    pub step: Step,
    /// What was accumulated, in order.
    pub items: Vec<(MicroBatch, LeaseId)>,
    /// Scale that clipping applied.
    pub clip: f32,
    /// Root of the weights after the step ([`wire::merkle::root_of`]), where it was computed: after a step that the closing brought.
    pub weights_root: Option<Hash>,
}

/// A hop that did not take a micro-batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HopReport {
    /// Who was asked.
    pub node: NodeId,
    /// Signed "busy" answers.
    pub busy: u16,
    /// Connections that failed or timed out, and refusals without a signed `Busy`.
    pub failed: u16,
}

/// Bytes on the wire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traffic {
    /// Activations and their gradients, encoded, sent.
    pub activations: u64,
    /// The same tensors at bf16 and full width d.
    pub activations_full: u64,
    /// Merge traffic sent plus received, encoded.
    pub merge: u64,
    /// The same vectors as the merge made them, before their encoding.
    pub merge_full: u64,
    /// Time that encoding and decoding took.
    pub codec: Millis,
    /// Most memory at a time that keeping forward inputs encoded, instead of what backward needs of them, spared one
    /// miner, bytes. Sums of traffic hold the most of any.
    pub spared: u64,
    /// Everything sent.
    pub sent: u64,
    /// Everything received.
    pub received: u64,
}

/// Commitment to an upload (protocol §1.2 step 1).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UploadCommit {
    /// Epoch.
    pub epoch: Epoch,
    /// Root of θ_e, the weights the epoch opened with.
    pub base: Hash,
    /// Merkle root over the leaves of the *encoded* upload.
    pub upload: Hash,
    /// Root of the residual that error feedback keeps.
    pub residual: Hash,
    /// Hash of the nonce to be revealed.
    pub nonce_commit: Hash,
    /// Inner steps taken.
    pub steps: u32,
}

/// What an owner holds of one shard.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HaveShard {
    /// Shard.
    pub shard: u16,
    /// Bit i: the verified bytes of the i-th uploader of the set.
    pub bitmap: u64,
    /// Sum of squares of each held upload's range, in set order, 0 where not held.
    pub square_sums: Vec<f64>,
}

/// Claim on one reduced shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShardClaim {
    /// Shard.
    pub shard: u16,
    /// Hash of the encoded result.
    pub result: Hash,
    /// State hash of the range after the outer step (weights and momentum).
    pub state: Hash,
}

/// Verdict on a replayed item.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// Epoch.
    pub epoch: Epoch,
    /// Whose work.
    pub node: NodeId,
    /// Which item.
    pub micro_batch: MicroBatch,
    /// Direction.
    pub direction: Direction,
    /// Device class in which it was compared.
    pub device: String,
    /// Outcome.
    pub outcome: Outcome,
}

/// Outcome of a replay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// Equal to the last bit.
    Pass,
    /// Not equal.
    Fail,
    /// Of another device class: equality cannot be asked.
    OtherClass,
    /// The node did not open what it must.
    NotOpened,
}

/// What follows from the state.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Derived {
    /// A miner gets its stage.
    Assigned {
        /// Node.
        node: NodeId,
        /// Stage.
        stage: StageIndex,
    },
    /// A node went silent, or failed a phase that needs it.
    Lost {
        /// Node.
        node: NodeId,
    },
    /// A training phase begins.
    Opened {
        /// Epoch.
        epoch: Epoch,
        /// Seed of routes.
        seed: Hash,
        /// Who takes part, by stage then node id.
        members: Vec<Member>,
        /// Micro-batches of the epoch, ascending.
        micro_batches: Vec<MicroBatch>,
    },
    /// A head gets micro-batches.
    Leased {
        /// Lease.
        lease: LeaseId,
        /// Head.
        node: NodeId,
        /// Micro-batches, ascending.
        micro_batches: Vec<MicroBatch>,
        /// Bit s: stage s accumulates.
        grad_mask: u64,
    },
    /// A lease ran out (at 120 % of its time) or its holder left; open cells may be leased again.
    Expired {
        /// Lease.
        lease: LeaseId,
    },
    /// The clip scale of a lock-step inner step.
    Clipped {
        /// Epoch.
        epoch: Epoch,
        /// Step.
        step: Step,
        /// Factor on the mean gradient, in (0, 1].
        scale: f32,
    },
    /// The training phase ends: no gradient may be added, leases are void, final steps and commits are due.
    Closed {
        /// Epoch.
        epoch: Epoch,
    },
    /// No further upload of this stage counts; nonces are due.
    CommitsClosed {
        /// Epoch.
        epoch: Epoch,
        /// Stage.
        stage: StageIndex,
        /// Who committed, ascending.
        nodes: Vec<NodeId>,
    },
    /// The uploaders and the seed of the merge; uploads may be served from here on.
    SetFixed {
        /// Epoch.
        epoch: Epoch,
        /// Stage.
        stage: StageIndex,
        /// Uploaders, ascending by id.
        nodes: Vec<NodeId>,
        /// Seed of the pair map.
        seed: Hash,
    },
    /// Which uploads enter each shard, and with what factor.
    InputsFixed {
        /// Epoch.
        epoch: Epoch,
        /// Stage.
        stage: StageIndex,
        /// One bitmap over the set per shard.
        shards: Vec<u64>,
        /// Clip factor c_m of each uploader, in (0, 1].
        clip: Vec<f64>,
    },
    /// All blind claims are in (or their time is up): claims are due.
    ClaimsDue {
        /// Epoch.
        epoch: Epoch,
        /// Stage.
        stage: StageIndex,
    },
    /// The next witness is asked about a shard whose claims are missing or differ.
    Referred {
        /// Epoch.
        epoch: Epoch,
        /// Stage.
        stage: StageIndex,
        /// Shard.
        shard: u16,
        /// Witness.
        node: NodeId,
    },
    /// The outcome of a stage's merge. Only this decides (protocol §1.2 step 8).
    Manifest {
        /// Epoch.
        epoch: Epoch,
        /// Stage.
        stage: StageIndex,
        /// Per shard.
        shards: Vec<ShardOutcome>,
    },
    /// Before the next epoch: nobody can serve these settled shards, they keep their old value.
    Amended {
        /// Epoch.
        epoch: Epoch,
        /// Stage.
        stage: StageIndex,
        /// Shards.
        shards: Vec<u16>,
    },
    /// The run is over.
    Finished {
        /// Epochs merged.
        epochs: u32,
    },
    /// Behind this the epoch opens, and the pinned codec is in force: all stages keep their quorum among those who are
    /// ready for it.
    CodecSwitched {
        /// Epoch about to open.
        epoch: Epoch,
        /// Component.
        component: Hash,
    },
    /// Too few were ready for the pinned codec when its epoch was to open: the codec stays what it was, and the next
    /// openings try again, [`crate::limits::CODEC_TRIES`] in all.
    CodecDeclined {
        /// Epoch about to open.
        epoch: Epoch,
        /// Component.
        component: Hash,
    },
    /// The codec in force carries nothing any more.
    CodecOff {
        /// Epoch under way, or about to open.
        epoch: Epoch,
        /// Component.
        component: Hash,
        /// Why.
        cause: OffCause,
    },
    /// The lossy codec in force did no harm in its shadow: from this epoch on every micro-batch crosses by it.
    CodecPassed {
        /// Epoch about to open.
        epoch: Epoch,
        /// Component.
        component: Hash,
    },
}

/// A member of an epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Node.
    pub node: NodeId,
    /// Stage.
    pub stage: StageIndex,
    /// Capacity in its stage: micro-batches per 1000 s.
    pub capacity: u64,
    /// Micro-batches per inner step (accumulate_m).
    pub accumulate: u32,
}

/// What became of a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ShardOutcome {
    /// Reduced and agreed.
    Settled {
        /// Hash of the encoded result.
        result: Hash,
        /// State hash of the range after the outer step.
        state: Hash,
        /// Whether two nodes claimed it.
        witnessed: bool,
    },
    /// Weights and momentum of the range stay; uploaders add their upload to their residual once.
    Kept,
}

/// Hash that binds claims before they are shown.
pub fn blind_hash(node: &NodeId, nonce: &Hash, shards: &[ShardClaim]) -> Hash {
    Hash::of_parts("shoal 2026-11 blind claim", &[&node.0, &nonce.0, &wire::to_bytes(&shards.to_vec())])
}

/// Hash of a nonce, as [`UploadCommit::nonce_commit`] holds it.
pub fn nonce_hash(nonce: &Hash) -> Hash {
    ledger::beacon::commitment(nonce)
}

impl Fact for Derived {
    fn name(&self) -> &'static str {
        match self {
            Self::Assigned { .. } => "Assigned",
            Self::Lost { .. } => "Lost",
            Self::Opened { .. } => "Opened",
            Self::Leased { .. } => "Leased",
            Self::Expired { .. } => "Expired",
            Self::Clipped { .. } => "Clipped",
            Self::Closed { .. } => "Closed",
            Self::CommitsClosed { .. } => "CommitsClosed",
            Self::SetFixed { .. } => "SetFixed",
            Self::InputsFixed { .. } => "InputsFixed",
            Self::ClaimsDue { .. } => "ClaimsDue",
            Self::Referred { .. } => "Referred",
            Self::Manifest { .. } => "Manifest",
            Self::Amended { .. } => "Amended",
            Self::Finished { .. } => "Finished",
            Self::CodecSwitched { .. } => "CodecSwitched",
            Self::CodecDeclined { .. } => "CodecDeclined",
            Self::CodecOff { .. } => "CodecOff",
            Self::CodecPassed { .. } => "CodecPassed",
        }
    }
}

impl Fact for Control {
    fn name(&self) -> &'static str {
        match self {
            Self::Genesis { .. } => "Genesis",
            Self::Resumed { .. } => "Resumed",
            Self::Drain => "Drain",
            Self::Keeps { .. } => "Keeps",
            Self::CodecPinned(_) => "CodecPinned",
            Self::CodecUnpinned => "CodecUnpinned",
        }
    }
}
