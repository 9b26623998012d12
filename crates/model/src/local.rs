//! Training in one process: all stages chained through their cuts, without any network.
//!
//! It is what a swarm's results are compared with, and the engine of `shoal bench cuts`.

use std::sync::Arc;

use rayon::ThreadPool;
use serde::Serialize;

use crate::{
    config::{ConfigError, Message, StageSpec},
    data::{DataError, Dataset, Order},
    optim::{OptimiserConfig, Schedule},
    stage::{Clip, CpuStage, Output, Stage, StageError, StepInput, model_scale},
};

pub mod cuts;

/// Why local training stopped or could not start.
#[derive(Debug, thiserror::Error)]
pub enum LocalError {
    /// The stages are not those of one model.
    #[error("the stages given are not all stages of one model in order, with weights for each")]
    Stages,
    /// A plan that trains nothing.
    #[error("{key} = 0 is not possible; choose at least 1")]
    Zero {
        /// Which number.
        key: &'static str,
    },
    /// A codec under measurement did not carry a message.
    #[error("micro-batch {micro_batch}: {reason}")]
    Crossing {
        /// Which.
        micro_batch: u64,
        /// Why.
        reason: String,
    },
    /// A stage refused.
    #[error(transparent)]
    Stage(#[from] StageError),
    /// The data cannot give what was asked for.
    #[error(transparent)]
    Data(#[from] DataError),
    /// An impossible schedule, model or cut.
    #[error(transparent)]
    Config(#[from] ConfigError),
}

/// Clipping by the norm of the mean gradient.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum LocalClip {
    /// Not at all.
    Off,
    /// Each stage by its own norm.
    Slice(f32),
    /// All stages by the norm of the whole model.
    Model(f32),
}

/// Which way a message goes through a cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// Activations, to the next stage.
    Forward,
    /// Gradients, to the stage before.
    Backward,
}

/// What becomes of messages between two stages: a codec whose effect on training is measured.
pub trait Crossing: std::fmt::Debug + Send + Sync {
    /// The message that arrives, and the bytes that crossed for it.
    ///
    /// # Errors
    /// Words on why it cannot cross.
    fn cross(&self, way: Way, message: Message) -> Result<(Message, u64), String>;
}

/// A model in this process. Stages hold weights, gradients and optimiser.
#[derive(Debug)]
pub struct LocalModel {
    stages: Vec<CpuStage>,
    crossing: Option<Arc<dyn Crossing>>,
    wire_bytes: [u64; 2],
}

impl LocalModel {
    /// Chains stages in order; `weights` are flat, one per stage.
    pub fn new(
        specs: &[StageSpec],
        weights: Vec<Vec<f32>>,
        optimiser: OptimiserConfig,
        pool: &Arc<ThreadPool>,
    ) -> Result<Self, LocalError> {
        let in_order = specs.iter().enumerate().all(|(i, s)| s.index == i && s.count == specs.len());
        if specs.is_empty() || !in_order || weights.len() != specs.len() {
            return Err(LocalError::Stages);
        }
        let stages: Result<Vec<_>, _> = specs
            .iter()
            .zip(weights)
            .map(|(spec, weights)| CpuStage::new(spec.clone(), weights, optimiser, Arc::clone(pool)))
            .collect();
        Ok(Self { stages: stages?, crossing: None, wire_bytes: [0; 2] })
    }

    /// The same model; in training its messages go through `crossing`.
    #[must_use]
    pub fn through(mut self, crossing: Option<Arc<dyn Crossing>>) -> Self {
        self.crossing = crossing;
        self
    }

    /// The stages, head first.
    pub fn stages(&self) -> &[CpuStage] {
        &self.stages
    }

    /// Bytes that crossed all cuts in training: forward, backward.
    pub fn wire_bytes(&self) -> [u64; 2] {
        self.wire_bytes
    }

    /// Forward and backward of one micro-batch, `[batch, sequence + 1]`, added to the gradients. Returns the loss.
    pub fn accumulate(&mut self, micro_batch: u64, tokens: &[u32]) -> Result<f32, LocalError> {
        let (mut message, mut gradient) = (None, None);
        let mut loss = None;
        let Self { stages, crossing, wire_bytes } = self;
        let mut cross = |way: Way, message: Message| {
            let (message, bytes) = match crossing {
                None => {
                    let bytes = message.bytes.len() as u64;
                    (message, bytes)
                }
                Some(crossing) => crossing
                    .cross(way, message)
                    .map_err(|reason| LocalError::Crossing { micro_batch, reason })?,
            };
            wire_bytes[way as usize] += bytes;
            Ok::<_, LocalError>(message)
        };
        for stage in stages.iter_mut() {
            match stage.forward(micro_batch, tokens, message.as_ref())? {
                Output::Message(sent) => message = Some(cross(Way::Forward, sent)?),
                Output::Loss(value) => loss = Some(value),
            }
        }
        for stage in stages.iter_mut().rev() {
            let sent = stage.backward(micro_batch, gradient.as_ref(), true)?;
            gradient = sent.map(|sent| cross(Way::Backward, sent)).transpose()?;
        }
        loss.ok_or(LocalError::Stages)
    }

    /// One optimiser step of every stage over what was accumulated.
    pub fn step(&mut self, rate: f32, clip: LocalClip) -> Result<(), LocalError> {
        let clip = match clip {
            LocalClip::Off => Clip::Off,
            LocalClip::Slice(limit) => Clip::Slice { limit },
            LocalClip::Model(limit) => {
                Clip::Scale(model_scale(self.stages.iter().flat_map(Stage::square_sums), limit))
            }
        };
        for stage in &mut self.stages {
            stage.step(StepInput { rate, clip })?;
        }
        Ok(())
    }

    /// Loss of a batch without training on it.
    pub fn evaluate(&self, tokens: &[u32]) -> Result<f32, LocalError> {
        let mut message = None;
        for stage in &self.stages {
            match stage.evaluate(tokens, message.as_ref())? {
                Output::Message(sent) => message = Some(sent),
                Output::Loss(loss) => return Ok(loss),
            }
        }
        Err(LocalError::Stages)
    }

    /// Mean loss over the first `batches` held-out batches, or over all if there are fewer.
    pub fn held_out_loss(&self, data: &Dataset, batch: usize, batches: u64) -> Result<f64, LocalError> {
        let sequence = self.stages[0].spec().model.sequence;
        let count = batches.min(data.held_out_batches(batch, sequence)).max(1);
        let mut sum = 0.0;
        for index in 0..count {
            sum += f64::from(self.evaluate(&data.held_out_batch(index, batch, sequence)?.tokens)?);
        }
        Ok(sum / count as f64)
    }
}

/// What to train, with what and how long.
#[derive(Debug, Clone, Copy)]
pub struct LocalPlan<'a> {
    /// Tokens and targets.
    pub data: &'a Dataset,
    /// Seed of the data order.
    pub seed: [u8; 32],
    /// Rows of a micro-batch.
    pub batch: usize,
    /// Micro-batches of a step: step s takes s·accumulate and those after it.
    pub accumulate: u64,
    /// Steps to take.
    pub steps: u64,
    /// Factor on the learning rates.
    pub schedule: Schedule,
    /// Clipping.
    pub clip: LocalClip,
    /// Held-out loss after every so many steps (a swarm's H), and at the end. 0: only at the end.
    pub evaluate_every: u64,
    /// Held-out batches of an evaluation.
    pub held_out_batches: u64,
}

/// One step of a run.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct StepPoint {
    /// Number of the step, from 1.
    pub step: u64,
    /// Tokens trained on so far.
    pub tokens: u64,
    /// Mean loss of its micro-batches, in nats.
    pub loss: f64,
    /// Held-out loss after the step, where it was measured.
    pub held_out: Option<f64>,
}

/// The course of a run.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Curve {
    /// Held-out loss before the first step.
    pub held_out_first: f64,
    /// Every step.
    pub points: Vec<StepPoint>,
}

impl Curve {
    /// Held-out loss at the end.
    pub fn held_out_last(&self) -> f64 {
        self.points.iter().rev().find_map(|point| point.held_out).unwrap_or(self.held_out_first)
    }
}

/// Trains `model` by `plan`. `on_step` returns whether to go on.
pub fn train(
    model: &mut LocalModel,
    plan: &LocalPlan<'_>,
    mut on_step: impl FnMut(&StepPoint) -> bool,
) -> Result<Curve, LocalError> {
    for (key, value) in [("accumulate", plan.accumulate), ("batch", plan.batch as u64), ("steps", plan.steps)]
    {
        if value == 0 {
            return Err(LocalError::Zero { key });
        }
    }
    plan.schedule.check()?;
    let sequence = model.stages[0].spec().model.sequence;
    let order = Order { seed: plan.seed, batch: plan.batch, sequence };
    let held_out = |model: &LocalModel| model.held_out_loss(plan.data, plan.batch, plan.held_out_batches);
    let mut curve = Curve { held_out_first: held_out(model)?, points: Vec::new() };
    for step in 0..plan.steps {
        let mut sum = 0.0;
        for micro_batch in step * plan.accumulate..(step + 1) * plan.accumulate {
            let tokens = plan.data.micro_batch(&order, micro_batch)?.tokens;
            sum += f64::from(model.accumulate(micro_batch, &tokens)?);
        }
        model.step(plan.schedule.factor(step), plan.clip)?;
        let done = step + 1;
        let due = done == plan.steps || (plan.evaluate_every > 0 && done % plan.evaluate_every == 0);
        let point = StepPoint {
            step: done,
            tokens: done * plan.accumulate * (plan.batch * sequence) as u64,
            loss: sum / plan.accumulate as f64,
            held_out: if due { Some(held_out(model)?) } else { None },
        };
        curve.points.push(point);
        if !on_step(&point) {
            break;
        }
    }
    Ok(curve)
}
