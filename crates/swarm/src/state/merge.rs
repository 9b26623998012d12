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

/// How the two owners of a shard stand to each other: a cell of the agreement matrix (protocol §1.2), which is shown and decides
/// nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Agreement {
    /// Shard.
    pub shard: u16,
    /// Its owners, ascending by id; one alone if the set has no other.
    pub owners: Vec<NodeId>,
    /// Owners whose claim never came.
    pub missing: Vec<NodeId>,
    /// Owners who claimed something else than what settled; all who claimed, if they differ and nothing settled.
    pub unequal: Vec<NodeId>,
    /// Others who were asked and claimed.
    pub witnesses: Vec<NodeId>,
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

    /// The agreement matrix, shard by shard; empty before the manifest.
    pub fn agreement(&self) -> Vec<Agreement> {
        let outcomes = self.manifest.iter().flatten();
        let cell = |((shard, view), outcome): ((u16, &ShardView), &ShardOutcome)| {
            let mut owners: Vec<NodeId> = self.witness_order(shard).take(2).collect();
            owners.sort_unstable();
            let claim =
                |node: &NodeId| view.claims.iter().find(|(other, _)| other == node).map(|(_, claim)| claim);
            let claims: Vec<(NodeId, &ShardClaim)> =
                owners.iter().filter_map(|owner| Some((*owner, claim(owner)?))).collect();
            let unlike = |result: Hash, state: Hash| {
                let others =
                    claims.iter().filter(|(_, claim)| (claim.result, claim.state) != (result, state));
                others.map(|(node, _)| *node).collect()
            };
            let unequal = match (outcome, &claims[..]) {
                (ShardOutcome::Settled { result, state, .. }, _) => unlike(*result, *state),
                (ShardOutcome::Kept, [(one, first), (other, _)]) => {
                    let differ: Vec<NodeId> = unlike(first.result, first.state);
                    if differ.is_empty() { differ } else { vec![*one, *other] }
                }
                (ShardOutcome::Kept, _) => Vec::new(),
            };
            Agreement {
                shard,
                missing: owners.iter().filter(|owner| claim(owner).is_none()).copied().collect(),
                unequal,
                witnesses: view
                    .claims
                    .iter()
                    .map(|(node, _)| *node)
                    .filter(|node| !owners.contains(node))
                    .collect(),
                owners,
            }
        };
        (0..).zip(&self.shards).zip(outcomes).map(cell).collect()
    }

    /// Number of shards K.
    pub fn shard_count(&self) -> u16 {
        self.partition.shards()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_agreement_matrix_says_who_differs_and_who_is_missing() {
        let node = |id: u8| NodeId([id; 32]);
        let nodes = [node(1), node(2), node(3)];
        let claim = |result: u8| ShardClaim { shard: 0, result: Hash([result; 32]), state: Hash([0; 32]) };
        let settled =
            ShardOutcome::Settled { result: claim(7).result, state: claim(7).state, witnessed: true };
        let mut merge =
            StageMerge::new(Epoch(0), StageIndex(0), MergeClock { closed: Millis(0), deadline: Millis(1) });
        let upload = |node| SetUpload { node, micro_batches: 1, steps: 1, upload: Hash([0; 32]) };
        merge.set = nodes.map(upload).to_vec();
        merge.witnesses = Witnesses::new(&Hash([5; 32]), &nodes, 3);
        merge.shards = vec![ShardView::default(); 3];
        assert_eq!(merge.agreement(), [], "nothing counts before the manifest");

        let order = |shard: u16| merge.witness_order(shard).collect::<Vec<_>>();
        let orders = [order(0), order(1), order(2)];
        let pair = |shard: usize| {
            let mut pair = orders[shard][..2].to_vec();
            pair.sort_unstable();
            pair
        };
        // The first agrees, of the second one owner lies and a witness was asked, of the third one claim alone came.
        merge.shards[0].claims = vec![(orders[0][1], claim(7)), (orders[0][0], claim(7))];
        merge.shards[1].claims =
            vec![(orders[1][0], claim(6)), (orders[1][1], claim(7)), (orders[1][2], claim(7))];
        merge.shards[2].claims = vec![(orders[2][1], claim(7))];
        merge.manifest = Some(vec![settled, settled, ShardOutcome::Kept]);
        let cell = |shard: usize, missing: &[NodeId], unequal: &[NodeId], witnesses: &[NodeId]| Agreement {
            shard: shard as u16,
            owners: pair(shard),
            missing: missing.to_vec(),
            unequal: unequal.to_vec(),
            witnesses: witnesses.to_vec(),
        };
        let third = cell(2, &orders[2][..1], &[], &[]);
        let lied = cell(1, &[], &orders[1][..1], &orders[1][2..]);
        assert_eq!(merge.agreement(), [cell(0, &[], &[], &[]), lied, third.clone()]);
        // Two that differ, and nobody to tell who is right.
        merge.shards[1].claims.pop();
        merge.manifest = Some(vec![settled, ShardOutcome::Kept, ShardOutcome::Kept]);
        assert_eq!(merge.agreement()[1..], [cell(1, &[], &pair(1), &[]), third]);
    }
}
