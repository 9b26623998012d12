//! What goes into the merge machine and what comes out.

use std::ops::Range;

use wire::{Epoch, Hash, NodeId, StageIndex};

use crate::miner::Token;
use crate::record::{ShardClaim, Statement};

/// A part of the stage's flat vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Shard {
    /// Index.
    pub index: u16,
    /// First element; where a leaf begins.
    pub start: usize,
    /// One past the last element; where a leaf ends.
    pub end: usize,
}

impl Shard {
    /// Elements covered.
    pub fn range(&self) -> Range<usize> {
        self.start..self.end
    }
}

/// Something to be fetched from a peer, or for an own upload from this node's own store.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Want {
    /// The encoded upload of one shard, verified leaf by leaf against `root`, finite.
    Upload {
        /// Epoch.
        epoch: Epoch,
        /// Shard.
        shard: Shard,
        /// Whose upload.
        of: NodeId,
        /// What that node committed to.
        root: Hash,
    },
    /// The encoded result of one shard, verified against `hash`.
    Result {
        /// Epoch.
        epoch: Epoch,
        /// Shard.
        shard: Shard,
        /// Hash of the bytes.
        hash: Hash,
    },
    /// Weights and momentum with which an epoch opens, of one shard of the merge before it (the whole stage at epoch
    /// 0), verified against `state` by [`super::super::reduce::state_hash`]. Where a merge changed nothing they are
    /// those of the epoch before: whoever has only these serves them.
    Part {
        /// Epoch that opens with it.
        epoch: Epoch,
        /// Shard.
        shard: Shard,
        /// State hash.
        state: Hash,
    },
}

/// What became of a fetch.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fetched {
    /// Verified and kept.
    Held {
        /// Sum of squares of the decoded numbers ([`super::super::reduce::square_sum`]); of uploads only.
        square_sum: f64,
    },
    /// The peer does not have it yet, or does not serve it yet: worth asking again.
    NotYet,
    /// No answer, a wrong one, or never: ask somebody else.
    Failed,
}

/// One summand of a reduction: d̄ = Σ `weight` · u, in this order.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Summand {
    /// Uploader.
    pub node: NodeId,
    /// Factor.
    pub weight: f32,
}

/// What a replica does with one shard when a merge ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Apply {
    /// Decode the result and take the outer step.
    Result {
        /// Hash of the encoded result.
        hash: Hash,
        /// Whether this node's upload, which was left out of the shard, goes into its residual.
        carry: bool,
    },
    /// The one uploader's weights, which the result holds as f32, become the merged ones without a subtraction (outer
    /// identity, N = 1); the residual stays.
    Own(Hash),
    /// Weights and momentum stay; an uploader adds its upload to its residual if `carry`.
    Keep {
        /// Whether this node's upload of the range goes into its residual.
        carry: bool,
    },
}

/// What becomes of a node's residual when a merge ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Residual {
    /// Nothing was uploaded (or a single uploader's weights were taken as they are): it stays.
    Stays,
    /// What the upload left counts from here on.
    Uploaded,
    /// The upload entered, and what it left was lost with a restart: zero.
    Lost,
}

/// What happened.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// The pipeline is done: the epoch's weights are final.
    Trained {
        /// Epoch.
        epoch: Epoch,
        /// Inner steps taken.
        steps: u32,
    },
    /// [`Action::MakeUpload`] is done.
    UploadMade {
        /// Epoch.
        epoch: Epoch,
        /// Root of the weights that the epoch opened with.
        base: Hash,
        /// Root over the leaves of the encoded upload.
        upload: Hash,
        /// Root of the new residual.
        residual: Hash,
    },
    /// A fetch ended.
    Fetched {
        /// What.
        want: Want,
        /// Who was asked.
        from: NodeId,
        /// Outcome.
        outcome: Fetched,
    },
    /// [`Action::Reduce`] is done.
    Reduced {
        /// Epoch.
        epoch: Epoch,
        /// Claim.
        claim: ShardClaim,
    },
    /// [`Action::Apply`], [`Action::Initialise`] or [`Action::Adopt`] is done: the node holds the state with which
    /// `epoch` opens.
    Applied {
        /// Epoch that opens with it.
        epoch: Epoch,
        /// State hash per shard, as [`crate::record::Statement::Ready`] wants it.
        states: Vec<Hash>,
    },
    /// [`Action::Restore`] is done.
    Restored {
        /// Epoch that opens with it.
        epoch: Epoch,
        /// Shards that are not on disk, or differ from their hash.
        missing: Vec<u16>,
    },
    /// The orchestrator answered a statement.
    Answered {
        /// Statement.
        token: Token,
        /// Whether it stands in the log.
        accepted: bool,
    },
}

impl Event {
    /// Epoch that is merged, of events of a merge.
    pub(super) fn epoch(&self) -> Option<Epoch> {
        match self {
            Self::Trained { epoch, .. }
            | Self::UploadMade { epoch, .. }
            | Self::Reduced { epoch, .. }
            | Self::Fetched { want: Want::Upload { epoch, .. } | Want::Result { epoch, .. }, .. } => {
                Some(*epoch)
            }
            _ => None,
        }
    }
}

/// What the driver must do.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// u = Q(θ_e − θ + r), and the new residual; [`Event::UploadMade`] follows.
    MakeUpload {
        /// Epoch.
        epoch: Epoch,
    },
    /// The set is fixed: own uploads (and those fetched for own shards) may be served from here on.
    Serve {
        /// Epoch.
        epoch: Epoch,
    },
    /// Fetch, verify, keep; [`Event::Fetched`] follows. `from` is this node itself for its own upload.
    Fetch {
        /// What.
        want: Want,
        /// From whom.
        from: NodeId,
    },
    /// Reduce one shard from held uploads, keep the result for others, and compute the state after the outer step;
    /// [`Event::Reduced`] follows.
    Reduce {
        /// Epoch.
        epoch: Epoch,
        /// Shard.
        shard: Shard,
        /// Summands in order.
        summands: Vec<Summand>,
        /// Seed of the merge (for the dither).
        seed: Hash,
        /// The result is this node's own weights as f32 (outer identity, N = 1).
        own: bool,
    },
    /// Make θ_{e+1}, m_{e+1} and r_{e+1} from those of `epoch`, keep them on disk; [`Event::Applied`] follows. It may
    /// come twice for one epoch (when the merge was withdrawn): the opening state of `epoch` is kept until
    /// [`Action::Forget`].
    Apply {
        /// Epoch merged.
        epoch: Epoch,
        /// Every shard, in order; none if nobody uploaded.
        shards: Vec<(Shard, Apply)>,
        /// What becomes of the residual, before shards carry uploads into it.
        residual: Residual,
        /// Shards whose state hashes are wanted.
        report: Vec<Shard>,
    },
    /// Make the initial weights of the stage; [`Event::Applied`] for epoch 0 follows.
    Initialise {
        /// Stage.
        stage: StageIndex,
    },
    /// Look for a state on this node's disk, under this epoch or (where a merge changed nothing) the one before;
    /// [`Event::Restored`] follows.
    Restore {
        /// Epoch that opens with it.
        epoch: Epoch,
        /// Shards with their state hashes.
        parts: Vec<(Shard, Hash)>,
    },
    /// All parts of the state with which `epoch` opens were fetched: put them together with a zero residual;
    /// [`Event::Applied`] follows.
    Adopt {
        /// Epoch that opens with it.
        epoch: Epoch,
        /// Shards, in order.
        parts: Vec<(Shard, Hash)>,
    },
    /// Sign and send a statement; [`Event::Answered`] follows.
    State {
        /// Names the answer.
        token: Token,
        /// Statement.
        statement: Statement,
    },
    /// Nothing before this epoch is needed any more.
    Forget {
        /// First epoch whose opening state, uploads and results are still needed.
        before: Epoch,
    },
}
