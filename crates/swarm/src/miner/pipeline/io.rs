//! What goes into the pipeline machine and what comes out.

use wire::{Direction, Epoch, Hash, LeaseId, MicroBatch, Millis, NodeId, Seq, StageIndex, Step};

use crate::miner::{Item, Token};
use crate::record::Statement;

/// What a verified and decoded frame of a peer says.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Offer {
    /// Epoch of the lease.
    pub epoch: Epoch,
    /// Micro-batch.
    pub micro_batch: MicroBatch,
    /// Lease.
    pub lease: LeaseId,
    /// Activations or gradients.
    pub direction: Direction,
    /// Sender's stage.
    pub stage: StageIndex,
    /// Sender.
    pub from: NodeId,
    /// Stages, by bit, that accumulate.
    pub grad_mask: u64,
    /// Time left for the lease when the frame was sent.
    pub ttl: Millis,
    /// Loss, on backward frames.
    pub loss: Option<f32>,
    /// Sender's newest block: a receiver that is behind waits for it before it answers.
    pub head: Option<Seq>,
}

/// Answer to an offered frame; the driver signs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Taken: the driver keeps the tensor under the item and signs a receipt.
    Accept,
    /// No room now; the sender tries the next rank.
    Busy,
    /// Not taken, and asking again is no use.
    Refuse(Refused),
}

/// Why a frame is refused for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Not the epoch that this node trains.
    #[error("not this epoch")]
    Epoch,
    /// This node takes no part in the epoch.
    #[error("not a member of this epoch")]
    Member,
    /// The sender is not at the neighbouring stage.
    #[error("the sender is not a neighbouring stage")]
    Neighbour,
    /// The lease is not in the log, or does not cover the micro-batch.
    #[error("no such lease")]
    Lease,
    /// The lease's time is up.
    #[error("the lease has run out")]
    Expired,
    /// Already taken under this lease.
    #[error("already taken")]
    Duplicate,
    /// No forward of this item is kept here, or it was sent to somebody else.
    #[error("nothing waits for this gradient")]
    Unknown,
}

/// What became of a frame that was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// Signed receipt.
    Accepted,
    /// Signed "busy".
    Busy,
    /// Signed refusal.
    Refused,
    /// No answer.
    Failed,
}

/// Work for the compute thread. One job is out at a time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Job {
    /// Runs forward and keeps the graph; the output is kept under the item.
    Forward(Item),
    /// Runs backward and drops the graph; the output (but on the head) is kept under the item.
    Backward {
        /// Item.
        item: Item,
        /// Whether the gradient of the weights is added.
        accumulate: bool,
    },
    /// Sums of squares of the accumulated mean gradient.
    Squares {
        /// Step that they are for.
        step: Step,
    },
    /// Takes an inner step.
    Step {
        /// Index within the epoch.
        step: Step,
        /// Scale from the log; none: the driver clips per slice as the run spec says.
        scale: Option<f32>,
        /// Whether the weights' root is wanted.
        root: bool,
    },
    /// Drops the graph of an item that will not come back.
    Discard(Item),
    /// Drops the accumulated gradient.
    Clear,
}

/// Outcome of a job.
#[derive(Clone, Debug, PartialEq)]
pub enum Computed {
    /// Forward done.
    Forward {
        /// Item.
        item: Item,
        /// Loss in nats per token; tail only.
        loss: Option<f32>,
    },
    /// Backward done.
    Backward(Item),
    /// The item's tensors do not fit the stage, or the result is not finite: it is dropped.
    Failed(Item),
    /// Sums of squares, in unit order.
    Squares {
        /// Step.
        step: Step,
        /// f64 sums.
        sums: Vec<f64>,
    },
    /// Step taken.
    Stepped {
        /// Step.
        step: Step,
        /// Scale that clipping applied.
        clip: f32,
        /// Root of the weights, if it was asked for.
        root: Option<Hash>,
    },
    /// The gradient was not finite: it was dropped and the weights stay.
    Diverged {
        /// Step.
        step: Step,
    },
}

/// What happened.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// A peer's frame waits for an answer.
    Offered {
        /// Driver's name for the waiting answer.
        offer: u64,
        /// Frame.
        frame: Offer,
    },
    /// A send ended.
    Sent {
        /// Item.
        item: Item,
        /// Direction.
        direction: Direction,
        /// Receiver.
        to: NodeId,
        /// Outcome.
        outcome: Sent,
    },
    /// A job ended.
    Computed(Computed),
    /// The orchestrator answered a statement.
    Answered {
        /// Statement.
        token: Token,
        /// Whether it stands in the log.
        accepted: bool,
    },
    /// The node's owner wants it to stop: take no new work.
    Drain,
}

/// What the driver must do.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Answer a frame.
    Answer {
        /// As offered.
        offer: u64,
        /// Answer.
        answer: Answer,
    },
    /// Compute; [`Event::Computed`] follows, but for [`Job::Discard`] and [`Job::Clear`].
    Compute(Job),
    /// Send the item's output in this direction; [`Event::Sent`] follows.
    Send {
        /// Item.
        item: Item,
        /// Direction.
        direction: Direction,
        /// Receiver.
        to: NodeId,
        /// Epoch of the lease.
        epoch: Epoch,
        /// Time left for the lease.
        ttl: Millis,
        /// Stages, by bit, that accumulate.
        grad_mask: u64,
        /// Weight version that made the tensor.
        version: u32,
        /// Loss; on backward frames, as far as it is known here.
        loss: Option<f32>,
    },
    /// Sign and send a statement; [`Event::Answered`] follows. In a [`crate::record::Work`] the driver fills
    /// `evidence`, `busy` and `traffic`.
    State {
        /// Names the answer.
        token: Token,
        /// Statement.
        statement: Statement,
    },
    /// Nothing of this item will be asked for again, but for audits.
    Release(Item),
    /// The epoch's training is over here: no job is out, the weights are final. The merger may go on.
    Done {
        /// Epoch.
        epoch: Epoch,
        /// Inner steps taken.
        steps: u32,
    },
}
