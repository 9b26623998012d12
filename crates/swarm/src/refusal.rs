//! Why an input is refused: a refused input is not logged and changes nothing.

use ledger::fold::Unfit;
use serde::{Deserialize, Serialize};
use wire::{Epoch, Hash, MicroBatch, NodeId, StageIndex, Step};

/// Why an input is refused. Travels to its sender, who decides what to do next.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Refusal {
    /// No envelope that may enter the log now, whatever it states.
    #[error(transparent)]
    Unfit(#[from] Unfit),
    /// Not joined, or lost or left since.
    #[error("not present in the run: join (again)")]
    NotPresent,
    /// The statement is not for this role.
    #[error("not for this role")]
    WrongRole,
    /// The run has as many nodes as it can have.
    #[error("the run is full")]
    Full,
    /// Less memory than any stage (or the one asked for) needs.
    #[error("{memory} bytes of memory: the smallest possible stage needs {needed}")]
    Memory {
        /// Offered, bytes.
        memory: u64,
        /// Needed at least, bytes.
        needed: u64,
    },
    /// No such stage.
    #[error("no stage {stage}")]
    UnknownStage {
        /// Stage named.
        stage: StageIndex,
    },
    /// Another epoch is on.
    #[error("for epoch {theirs}, the run is at epoch {ours}")]
    WrongEpoch {
        /// Epoch named.
        theirs: Epoch,
        /// Current epoch.
        ours: Epoch,
    },
    /// Too early or too late for this.
    #[error("not now: {what}")]
    NotNow {
        /// What the run waits for, or what is over.
        what: String,
    },
    /// Not a (live) member of the epoch.
    #[error("not a member of this epoch")]
    NotMember,
    /// Only heads ask for leases.
    #[error("not a head")]
    NotHead,
    /// A report out of turn; the next one has this number.
    #[error("report {theirs} out of turn: expected {expected}")]
    OutOfTurn {
        /// Number found.
        theirs: u32,
        /// Number expected.
        expected: u32,
    },
    /// An inner step out of turn.
    #[error("step {theirs} out of turn: expected {expected}")]
    StepOutOfTurn {
        /// Step found.
        theirs: Step,
        /// Step expected.
        expected: Step,
    },
    /// An inner step with too few or too many micro-batches.
    #[error("step with {found} micro-batches: expected {expected}")]
    StepSize {
        /// Found.
        found: u32,
        /// Accumulate of the member.
        expected: u32,
    },
    /// Not a micro-batch of this epoch.
    #[error("micro-batch {micro_batch} is not part of this epoch")]
    UnknownMicroBatch {
        /// Micro-batch named.
        micro_batch: MicroBatch,
    },
    /// Over a limit.
    #[error("{what}: {found} is over the limit of {limit}")]
    OverLimit {
        /// What is counted.
        what: String,
        /// Found.
        found: u64,
        /// Limit.
        limit: u64,
    },
    /// NaN, infinite or out of range.
    #[error("{what} is not a possible number")]
    Number {
        /// Which number.
        what: String,
    },
    /// Said before, in other words.
    #[error("said before: {what}")]
    Repeated {
        /// What.
        what: String,
    },
    /// Another upload of the stage has the same root.
    #[error("an upload with this root was committed before")]
    CopiedUpload,
    /// Not what was committed to.
    #[error("does not open the commitment: {what}")]
    WrongOpening {
        /// What was opened.
        what: String,
    },
    /// No such shard, or not in ascending order.
    #[error("shard {shard} does not exist here, or stands out of order")]
    UnknownShard {
        /// Shard named.
        shard: u16,
    },
    /// A shard that the sender has no part in.
    #[error("shard {shard} is not the sender's")]
    NotOwner {
        /// Shard named.
        shard: u16,
    },
    /// Weights or momentum differ from what the run agreed on: catch up by hash.
    #[error("state of shard {shard} differs from the agreed {}", agreed.short())]
    UnequalState {
        /// First shard that differs.
        shard: u16,
        /// Agreed state hash.
        agreed: Hash,
    },
    /// A list of the wrong length.
    #[error("{what}: {found} given, {expected} expected")]
    Length {
        /// What is listed.
        what: String,
        /// Found.
        found: u64,
        /// Expected.
        expected: u64,
    },
    /// Names a node that the run does not know.
    #[error("unknown node {}", node.short())]
    UnknownNode {
        /// Node named.
        node: NodeId,
    },
    /// A genesis in the middle of a log.
    #[error("the run has begun already")]
    Begun,
    /// `Resumed` may only be the first record of a block, and not claim more time than passed.
    #[error("not a resumption: {what}")]
    NotResumed {
        /// Why.
        what: String,
    },
}
