//! What the protocol must know of a run: numbers only, derived from the run spec by whoever can read models.

use serde::{Deserialize, Serialize};
use wire::Millis;

use crate::limits;

/// The protocol's view of a run. Immutable; its bytes stand in the genesis record.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SwarmSpec {
    /// Seed of the run: data order, initial weights, first routes.
    pub seed: u64,
    /// One entry per stage, head first.
    pub stages: Vec<StageFacts>,
    /// Tokens of one micro-batch (batch × sequence).
    pub tokens_per_micro_batch: u64,
    /// Merges until the run ends.
    pub epochs: u32,
    /// Micro-batches that an epoch trains on.
    pub micro_batches_per_epoch: u32,
    /// Inner optimiser steps that everybody takes per epoch (H).
    pub inner_steps: u32,
    /// How steps relate across stages.
    pub pace: Pace,
    /// Miners needed in every stage before the first epoch opens.
    pub miners_min: u16,
    /// Validators needed before the first epoch opens.
    pub validators_min: u16,
    /// Longest a training phase may last.
    pub epoch_deadline: Millis,
    /// Time that a lease gives its holder (ttl).
    pub lease_ttl: Millis,
    /// How often a node reports at least.
    pub heartbeat: Millis,
    /// Silence after which a node counts as lost.
    pub lost_after: Millis,
    /// Merge rules.
    pub merge: MergeSpec,
    /// Share of step-0 work items that each validator replays, parts per million.
    pub audit_rate_ppm: u32,
}

/// Facts of one stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StageFacts {
    /// Length of the stage's flat weight vector (W).
    pub parameters: u64,
    /// Forward FLOPs per token; backward counts twice.
    pub flops_per_token: u64,
}

/// How inner steps relate across stages.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum Pace {
    /// Every stage steps by its own count; backward uses its forward's version; clipping per slice.
    Async,
    /// One replica per stage: the head sends no micro-batch of a step before it has taken the one before, gradients
    /// are added in micro-batch order, and the clip scale comes from the norm over all stages.
    Lockstep {
        /// Clip the whole model's gradient to this norm.
        clip_norm: f64,
    },
}

/// Rules of the butterfly merge (protocol §1.2).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MergeSpec {
    /// Shortest merge deadline D.
    pub deadline_min: Millis,
    /// Longest merge deadline D; used for the first merge.
    pub deadline_max: Millis,
    /// Whether a single claim settles a shard when nobody else can witness it.
    pub unwitnessed: Unwitnessed,
    /// Bound R on an upload's norm while there is no history to take it from; 0 = none.
    pub first_norm_bound: f64,
    /// Outer optimiser.
    pub outer: Outer,
    /// Encoding of uploads and results.
    pub wire: MergeWire,
}

/// What a single, unwitnessed claim is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Unwitnessed {
    /// It settles the shard (`shoal up`).
    Accept,
    /// The shard keeps its old value.
    Keep,
}

/// Outer optimiser applied by every replica to the merged pseudo-gradient.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum Outer {
    /// θ' = θ − d̄; with one uploader θ' is its own θ, without a subtraction (protocol §1.1 item 13).
    Identity,
    /// SGD with Nesterov momentum (DiLoCo, arXiv 2311.08105): m' = μ m + d̄; θ' = θ − lr (d̄ + μ m').
    Nesterov {
        /// Outer learning rate.
        learning_rate: f32,
        /// Momentum μ.
        momentum: f32,
    },
}

/// Encoding of pseudo-gradients on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MergeWire {
    /// 4 bytes per parameter, exact.
    F32,
    /// 2 bytes per parameter, with error feedback; results are rounded with a seeded dither.
    Bf16,
}

impl MergeWire {
    /// Bytes per element.
    pub fn width(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::Bf16 => 2,
        }
    }
}

/// A value that no run can have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{key} is {value}: allowed is {allowed}")]
pub struct SpecError {
    /// Field.
    pub key: String,
    /// What it holds.
    pub value: String,
    /// What it may hold.
    pub allowed: String,
}

fn within<T: PartialOrd + std::fmt::Display + Copy>(
    key: &str,
    value: T,
    low: T,
    high: T,
) -> Result<(), SpecError> {
    if value >= low && value <= high {
        return Ok(());
    }
    Err(SpecError { key: key.into(), value: value.to_string(), allowed: format!("{low} to {high}") })
}

impl SwarmSpec {
    /// Checks every bound; a state is made from a checked spec only.
    pub fn check(&self) -> Result<(), SpecError> {
        within("stages", self.stages.len(), 1, limits::STAGES_MAX)?;
        for facts in &self.stages {
            within("stages.parameters", facts.parameters, 1, 1 << 40)?;
            within("stages.flops_per_token", facts.flops_per_token, 1, 1 << 50)?;
        }
        within("tokens_per_micro_batch", self.tokens_per_micro_batch, 1, 1 << 32)?;
        within("epochs", self.epochs, 1, u32::MAX - 1)?;
        within("micro_batches_per_epoch", self.micro_batches_per_epoch, 1, limits::EPOCH_MICRO_BATCHES_MAX)?;
        within("inner_steps", self.inner_steps, 1, 1 << 20)?;
        within("miners_min", usize::from(self.miners_min), 1, limits::UPLOADERS_MAX)?;
        within("validators_min", usize::from(self.validators_min), 0, limits::NODES_MAX)?;
        let day = 86_400_000;
        within("heartbeat", self.heartbeat.0, 1, day)?;
        within("lost_after", self.lost_after.0, self.heartbeat.0.saturating_mul(2), 30 * day)?;
        within("epoch_deadline", self.epoch_deadline.0, 1, 365 * day)?;
        within("lease_ttl", self.lease_ttl.0, 1, 30 * day)?;
        within("merge.deadline_min", self.merge.deadline_min.0, 1, 30 * day)?;
        within("merge.deadline_max", self.merge.deadline_max.0, self.merge.deadline_min.0, 30 * day)?;
        within("merge.first_norm_bound", self.merge.first_norm_bound, 0.0, f64::MAX)?;
        if let Outer::Nesterov { learning_rate, momentum } = self.merge.outer {
            within("merge.outer.learning_rate", learning_rate, 0.0, f32::MAX)?;
            within("merge.outer.momentum", momentum, 0.0, 1.0)?;
        }
        if let Pace::Lockstep { clip_norm } = self.pace {
            within("pace.clip_norm", clip_norm, f64::MIN_POSITIVE, f64::MAX)?;
        }
        within("audit_rate_ppm", self.audit_rate_ppm, 0, 1_000_000)
    }

    /// Last stage: it has the loss.
    pub fn tail(&self) -> wire::StageIndex {
        wire::StageIndex((self.stages.len() - 1) as u16)
    }

    /// All stages, head first.
    pub fn stage_indices(&self) -> impl DoubleEndedIterator<Item = wire::StageIndex> + use<> {
        (0..self.stages.len() as u16).map(wire::StageIndex)
    }

    /// Mask with the bit of every stage.
    pub fn all_stages(&self) -> u64 {
        u64::MAX >> (64 - self.stages.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> SwarmSpec {
        SwarmSpec {
            seed: 1,
            stages: vec![StageFacts { parameters: 10, flops_per_token: 10 }; 64],
            tokens_per_micro_batch: 1,
            epochs: 1,
            micro_batches_per_epoch: 1,
            inner_steps: 1,
            pace: Pace::Lockstep { clip_norm: 1.0 },
            miners_min: 1,
            validators_min: 0,
            epoch_deadline: Millis(1),
            lease_ttl: Millis(1),
            heartbeat: Millis(1),
            lost_after: Millis(2),
            merge: MergeSpec {
                deadline_min: Millis(1),
                deadline_max: Millis(1),
                unwitnessed: Unwitnessed::Keep,
                first_norm_bound: 0.0,
                outer: Outer::Nesterov { learning_rate: 0.7, momentum: 0.9 },
                wire: MergeWire::Bf16,
            },
            audit_rate_ppm: 0,
        }
    }

    #[test]
    fn an_impossible_value_is_named_with_what_is_allowed() {
        good().check().unwrap();
        assert_eq!(good().all_stages(), u64::MAX);
        type Case = (fn(&mut SwarmSpec), &'static str);
        let cases: [Case; 16] = [
            (|s| s.stages.clear(), "stages"),
            (|s| s.stages.push(s.stages[0]), "stages"),
            (|s| s.stages[3].parameters = 0, "stages.parameters"),
            (|s| s.stages[3].flops_per_token = 0, "stages.flops_per_token"),
            (|s| s.epochs = 0, "epochs"),
            (|s| s.micro_batches_per_epoch = 1 << 20, "micro_batches_per_epoch"),
            (|s| s.inner_steps = 0, "inner_steps"),
            (|s| s.miners_min = 65, "miners_min"),
            (|s| s.heartbeat = Millis(0), "heartbeat"),
            (|s| s.lost_after = Millis(1), "lost_after"),
            (|s| s.lease_ttl = Millis(0), "lease_ttl"),
            (|s| s.merge.deadline_max = Millis(0), "merge.deadline_max"),
            (|s| s.merge.first_norm_bound = f64::NAN, "merge.first_norm_bound"),
            (
                |s| s.merge.outer = Outer::Nesterov { learning_rate: f32::INFINITY, momentum: 0.9 },
                "merge.outer.learning_rate",
            ),
            (|s| s.pace = Pace::Lockstep { clip_norm: 0.0 }, "pace.clip_norm"),
            (|s| s.audit_rate_ppm = 1_000_001, "audit_rate_ppm"),
        ];
        for (change, key) in cases {
            let mut bad = good();
            change(&mut bad);
            assert_eq!(bad.check().unwrap_err().key, key);
        }
    }
}
