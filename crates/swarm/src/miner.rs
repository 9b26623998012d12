//! What a miner does, as two pure machines: [`Pipeline`] trains an epoch, [`Merger`] merges it and catches up.
//!
//! Both are polled: `on_log` and `on_event` take what happened, `poll` gives what to do next, `next_deadline` says when
//! time alone matters. Tensors never enter: a driver keeps them under the names used here. `now` is the node's own
//! monotonic clock in milliseconds; points in time of the log are turned into spans before they meet it.

use wire::{LeaseId, MicroBatch};

pub mod limits;
pub mod merger;
pub mod pipeline;
pub mod reduce;

pub use merger::Merger;
pub use pipeline::Pipeline;

/// A micro-batch under one lease: what a node works on. The driver keeps its tensors under this name and a direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Item {
    /// Micro-batch.
    pub micro_batch: MicroBatch,
    /// Lease.
    pub lease: LeaseId,
}

/// Names one statement between a machine and its driver, so that the answer finds its way back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Token(pub u64);

#[cfg(test)]
mod tests;
