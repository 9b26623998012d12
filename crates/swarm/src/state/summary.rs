//! What stays of an epoch when the next one opens.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use wire::{Epoch, Hash, Millis, NodeId};

use super::work::Coverage;
use crate::record::{CodecCounts, Traffic};

/// An epoch in figures.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EpochSummary {
    /// Epoch.
    pub epoch: Epoch,
    /// Cells by final state.
    pub coverage: Coverage,
    /// Micro-batches with a loss.
    pub loss_count: u64,
    /// Mean training loss, nats per token; `None` without any.
    pub loss: Option<f64>,
    /// Length of the training phase.
    pub training: Millis,
    /// Length of the merge, from closing to the last manifest.
    pub merging: Millis,
    /// Per stage.
    pub stages: Vec<StageSummary>,
    /// Bytes.
    pub traffic: Traffic,
    /// Members that were there until the end.
    pub survivors: u32,
    /// Members at the opening.
    pub members: u32,
    /// What the champion in force at its opening did.
    pub codec: Option<CodecSummary>,
}

/// A champion's work in one epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CodecSummary {
    /// Component.
    pub component: Hash,
    /// Sums over the members.
    pub counts: CodecCounts,
    /// Only micro-batches drawn by seed were to cross by it.
    pub shadow: bool,
}

/// A stage's merge in figures.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StageSummary {
    /// Uploaders.
    pub uploads: u32,
    /// B_m of each, in node order.
    pub micro_batches: BTreeMap<NodeId, u32>,
    /// Shards settled by two nodes.
    pub witnessed: u32,
    /// Shards settled by one.
    pub unwitnessed: u32,
    /// Shards kept.
    pub kept: u32,
    /// Uploads that two owners measured differently, per shard.
    pub disputes: u32,
    /// Whether the merge was withdrawn.
    pub amended: bool,
}

/// A validator's measurement.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct HeldOutLoss {
    /// Nats per token.
    pub loss: f32,
    /// Tokens it was measured on.
    pub tokens: u64,
}

/// Sums over the whole run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// Tokens of micro-batches with a loss.
    pub tokens: u64,
    /// Cells merged.
    pub merged: u64,
    /// Cells forfeited.
    pub forfeited: u64,
    /// Bytes.
    pub traffic: Traffic,
}

impl Traffic {
    /// Adds what another report says.
    pub fn add(&mut self, other: &Self) {
        self.activations = self.activations.saturating_add(other.activations);
        self.activations_full = self.activations_full.saturating_add(other.activations_full);
        self.merge = self.merge.saturating_add(other.merge);
        self.merge_full = self.merge_full.saturating_add(other.merge_full);
        self.codec = Millis(self.codec.0.saturating_add(other.codec.0));
        self.spared = self.spared.max(other.spared);
        self.sent = self.sent.saturating_add(other.sent);
        self.received = self.received.saturating_add(other.received);
    }
}
