//! The merge of one stage as the log has it (protocol §1.2): commits, set, inputs, claims, holders, manifest.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use wire::{Epoch, Hash, Millis, NodeId, StageIndex};

use crate::record::{HaveShard, ShardClaim, ShardOutcome, UploadCommit};
use crate::shard::{Partition, Witnesses};

/// One stage's merge.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StageMerge {
    /// Epoch whose work is merged.
    pub epoch: Epoch,
    /// Stage.
    pub stage: StageIndex,
    /// What is due now.
    pub step: MergeStep,
    /// Deadline D and what it counts from.
    pub clock: MergeClock,
    /// Commits by uploader.
    pub commits: BTreeMap<NodeId, UploadCommit>,
    /// Who committed in time and from the agreed weights, ascending; fixed by `CommitsClosed`.
    pub committed: Vec<NodeId>,
    /// Digest of the log at `CommitsClosed`.
    pub(super) head: Hash,
    /// Opened nonces.
    pub(super) nonces: BTreeMap<NodeId, Hash>,
    /// The set: uploaders ascending by id; fixed by `SetFixed`.
    pub set: Vec<SetUpload>,
    /// Seed of the pair map and of the dither; fixed by `SetFixed`.
    pub seed: Hash,
    /// The cut of the flat vector.
    pub partition: Partition,
    /// Who owns and witnesses which shard.
    pub witnesses: Witnesses,
    /// Newest `Have` per shard and position in the set.
    pub(super) haves: BTreeMap<(u16, u8), HaveShard>,
    /// Per shard: bit i, the i-th upload of the set enters; fixed by `InputsFixed`.
    pub inputs: Vec<u64>,
    /// Per upload of the set: clip factor c_m; fixed by `InputsFixed`.
    pub clip: Vec<f64>,
    /// Lower median of the clipped norms of this merge's uploads.
    pub(super) norm: Option<f64>,
    /// Uploads of a shard whose owners found different sums of squares: (shard, index in the set).
    pub disputes: BTreeSet<(u16, u8)>,
    /// Blind claims, and whether they were opened.
    pub(super) blinds: BTreeMap<NodeId, (Hash, bool)>,
    /// When claims became due.
    pub(super) claims_due: Millis,
    /// Per shard.
    pub shards: Vec<ShardView>,
    /// The outcome; nothing counts before it.
    pub manifest: Option<Vec<ShardOutcome>>,
    /// The merge was withdrawn afterwards, since nobody could serve it.
    pub amended: bool,
}

/// Where a stage's merge is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum MergeStep {
    /// Final work and commits are due.
    Commit,
    /// Nonces are due.
    Reveal,
    /// Owners fetch uploads and say what they have.
    Fetch,
    /// Owners reduce; blind claims are due.
    Claim,
    /// Claims are due; witnesses are asked; holders say so.
    Check,
    /// The manifest is out.
    Done,
}

/// Deadlines of a merge: shares of D from the moment training closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MergeClock {
    /// When training closed (moved on by a resumption).
    pub closed: Millis,
    /// D.
    pub deadline: Millis,
}

impl MergeClock {
    /// Point in time at `percent` of D.
    pub fn at(&self, percent: u64) -> Millis {
        self.closed.plus(self.span(percent))
    }

    /// `percent` of D.
    pub fn span(&self, percent: u64) -> Millis {
        Millis((u128::from(self.deadline.0) * u128::from(percent)).div_ceil(100) as u64)
    }
}

/// One upload of the set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetUpload {
    /// Uploader.
    pub node: NodeId,
    /// B_m: micro-batches in its steps.
    pub micro_batches: u32,
    /// Inner steps it took (a_m).
    pub steps: u32,
    /// Root of its encoded upload.
    pub upload: Hash,
}

/// What the log says of one shard.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShardView {
    /// Claims in the order of arrival.
    pub claims: Vec<(NodeId, ShardClaim)>,
    /// Who sent a blind claim for it (its owners at that time).
    pub(super) blinded: BTreeSet<NodeId>,
    /// Witnesses asked, in order, and when.
    pub referred: Vec<(NodeId, Millis)>,
    /// Who holds the result's bytes.
    pub holders: BTreeSet<NodeId>,
}

/// What is known of a shard's result before the manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Claims are missing or differ; who can still help is asked.
    Undecided,
    /// Settles with this result, if it is held.
    Settles {
        /// Result and state.
        claim: ShardClaim,
        /// By two nodes.
        witnessed: bool,
    },
    /// Keeps its old value.
    Keeps,
}

impl StageMerge {
    pub(super) fn new(epoch: Epoch, stage: StageIndex, clock: MergeClock) -> Self {
        let zero = Hash([0; 32]);
        Self {
            epoch,
            stage,
            step: MergeStep::Commit,
            clock,
            commits: BTreeMap::new(),
            committed: Vec::new(),
            head: zero,
            nonces: BTreeMap::new(),
            set: Vec::new(),
            seed: zero,
            partition: Partition::new(0, 0),
            witnesses: Witnesses::new(&zero, &[], 0),
            haves: BTreeMap::new(),
            inputs: Vec::new(),
            clip: Vec::new(),
            norm: None,
            disputes: BTreeSet::new(),
            blinds: BTreeMap::new(),
            claims_due: Millis(0),
            shards: Vec::new(),
            manifest: None,
            amended: false,
        }
    }

    /// Position of a node in the set.
    pub fn position(&self, node: &NodeId) -> Option<usize> {
        self.set.binary_search_by(|upload| upload.node.cmp(node)).ok()
    }

    /// Witnesses of a shard in order: its pair, then the fallbacks.
    pub fn witness_order(&self, shard: u16) -> impl Iterator<Item = NodeId> + '_ {
        self.witnesses
            .order(shard)
            .iter()
            .filter_map(|index| self.set.get(usize::from(*index)))
            .map(|u| u.node)
    }

    /// Positions in the set of a shard's owners: the first two of its order that are in `live`.
    pub(super) fn owners(&self, shard: u16, live: u64) -> impl Iterator<Item = u8> + '_ {
        self.witnesses.order(shard).iter().copied().filter(move |index| live >> index & 1 == 1).take(2)
    }

    /// Shards with an input.
    pub(super) fn filled(&self) -> impl Iterator<Item = u16> + '_ {
        self.inputs.iter().enumerate().filter(|(_, bitmap)| **bitmap != 0).map(|(shard, _)| shard as u16)
    }

    /// τ̄ = Σ p_m a_m over the whole set, p_m = B_m / ΣB (protocol §1.2 step 5); f64, ascending node id.
    pub fn mean_steps(&self) -> f64 {
        let total: u64 = self.set.iter().map(|upload| u64::from(upload.micro_batches)).sum();
        self.set.iter().fold(0.0, |sum, upload| {
            sum + f64::from(upload.micro_batches) / total as f64 * f64::from(upload.steps)
        })
    }

    /// Number of shards K.
    pub fn shard_count(&self) -> u16 {
        self.partition.shards()
    }
}
