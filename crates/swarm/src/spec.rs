//! What the protocol must know of a run: numbers only, derived from the run spec by whoever can read models.

use serde::{Deserialize, Serialize};
use wire::{Epoch, Millis};

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
        /// Momentum μ, once any ramp is over.
        momentum: f32,
        /// What μ is before.
        ramp: Option<Ramp>,
    },
}

/// A momentum that changes linearly over the first merges of a run (IOTA, since 2026: 0.5 to 0.9 over 20 epochs).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ramp {
    /// Momentum of epoch 0's merge, 0 to 1.
    pub from: f32,
    /// The first epoch whose merge has the full momentum, at least 1.
    pub epochs: u32,
}

impl Outer {
    /// Momentum μ of the merge that ends `epoch`: a function of the epoch alone, so a node that restarts or joins late
    /// has the same bits. 0 where there is none.
    pub fn momentum(self, epoch: Epoch) -> f32 {
        match self {
            Self::Identity => 0.0,
            Self::Nesterov { momentum, ramp: Some(Ramp { from, epochs }), .. } if epoch.0 < epochs => {
                from + (momentum - from) * (epoch.0 as f32 / epochs as f32)
            }
            Self::Nesterov { momentum, .. } => momentum,
        }
    }
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
        if let Outer::Nesterov { learning_rate, momentum, ramp } = self.merge.outer {
            within("merge.outer.learning_rate", learning_rate, 0.0, f32::MAX)?;
            within("merge.outer.momentum", momentum, 0.0, 1.0)?;
            if let Some(Ramp { from, epochs }) = ramp {
                within("merge.outer.ramp.from", from, 0.0, 1.0)?;
                within("merge.outer.ramp.epochs", epochs, 1, u32::MAX)?;
            }
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

    fn nesterov(learning_rate: f32, ramp: Option<Ramp>) -> Outer {
        Outer::Nesterov { learning_rate, momentum: 0.9, ramp }
    }

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
                outer: nesterov(0.7, None),
                wire: MergeWire::Bf16,
            },
            audit_rate_ppm: 0,
        }
    }

    #[test]
    fn momentum_rises_in_a_line_and_then_stays() {
        let outer = nesterov(0.7, Some(Ramp { from: 0.5, epochs: 20 }));
        let bits = |epoch| outer.momentum(Epoch(epoch)).to_bits();
        // To the bit: every replica of a stage must have the same.
        let epochs = [0, 1, 10, 19, 20, 21, u32::MAX];
        assert_eq!(epochs.map(bits), [0.5, 0.52, 0.7, 0.88, 0.9, 0.9, 0.9].map(f32::to_bits));
        assert!((1..=20).all(|epoch| bits(epoch - 1) < bits(epoch)));
        assert_eq!(nesterov(0.7, None).momentum(Epoch(0)), 0.9);
        let falls = nesterov(0.7, Some(Ramp { from: 0.95, epochs: 2 }));
        assert!((falls.momentum(Epoch(1)) - 0.925).abs() < 1e-6);
    }

    #[test]
    fn an_impossible_value_is_named_with_what_is_allowed() {
        good().check().unwrap();
        assert_eq!(good().all_stages(), u64::MAX);
        type Case = (fn(&mut SwarmSpec), &'static str);
        let cases: [Case; 18] = [
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
            (|s| s.merge.outer = nesterov(f32::INFINITY, None), "merge.outer.learning_rate"),
            (
                |s| s.merge.outer = nesterov(0.7, Some(Ramp { from: 1.5, epochs: 20 })),
                "merge.outer.ramp.from",
            ),
            (
                |s| s.merge.outer = nesterov(0.7, Some(Ramp { from: 0.5, epochs: 0 })),
                "merge.outer.ramp.epochs",
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
