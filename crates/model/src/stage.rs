//! The narrow trait between whoever schedules work and whoever computes it.

mod arena;
mod block;
mod cpu;
pub(crate) mod need;
mod pass;

pub(crate) use arena::Arena;
pub use cpu::{BATCH_MAX, CpuStage, Inferred, device_class};

use crate::config::{ConfigError, Message, MessageError, StageSpec};

/// What a forward pass gives.
#[derive(Debug, Clone, PartialEq)]
pub enum Output {
    /// What the next stage needs.
    Message(Message),
    /// Mean cross-entropy over all tokens of the micro-batch, in nats.
    Loss(f32),
}

/// How long a gradient may be before a step scales it down.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Clip {
    /// Not at all.
    Off,
    /// By this stage's own norm: `limit · √(parameters of the stage / parameters of the model)`, see [`Stage::step`].
    Slice {
        /// Longest gradient of the whole model.
        limit: f32,
    },
    /// By a factor computed elsewhere from all stages' `square_sums` (see [`model_scale`]).
    Scale(f32),
}

/// Scale of the mean gradient so that the whole model's norm is at most `limit`: the sums of squares of all units,
/// added one after the other in model order.
pub fn model_scale(square_sums: impl IntoIterator<Item = f64>, limit: f32) -> f32 {
    let norm = square_sums.into_iter().fold(0.0, |sum, unit| sum + unit).sqrt();
    if norm > f64::from(limit) { (f64::from(limit) / norm) as f32 } else { 1.0 }
}

/// What a step needs from outside.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StepInput {
    /// The schedule's factor on the optimiser's learning rates, usually from 0 to 1.
    pub rate: f32,
    /// Clipping.
    pub clip: Clip,
}

/// What a step did.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StepReport {
    /// Number of this step, from 1.
    pub step: u64,
    /// Micro-batches in its gradient.
    pub accumulated: usize,
    /// Norm of this stage's mean gradient before clipping.
    pub gradient_norm: f64,
    /// Factor that clipping applied.
    pub scale: f32,
}

/// Why a stage refused.
#[derive(Debug, thiserror::Error)]
pub enum StageError {
    /// The stage is impossible.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A peer's message does not fit.
    #[error(transparent)]
    Message(#[from] MessageError),
    /// A head got a message, another stage none; or a tail got a gradient, another stage none.
    #[error("{0}")]
    Wiring(&'static str),
    /// Tokens that don't fill sequences, or are no tokens of the vocabulary.
    #[error("{problem}: {value} ({allowed})")]
    Tokens {
        /// What is wrong.
        problem: &'static str,
        /// The value found.
        value: usize,
        /// What is allowed.
        allowed: String,
    },
    /// The number of weights or moments is not the stage's.
    #[error("{found} numbers given where the stage has {expected}")]
    Length {
        /// Numbers given.
        found: usize,
        /// Numbers of the stage.
        expected: usize,
    },
    /// A weight that is infinite or not a number.
    #[error("number {index} is not finite")]
    NotFinite {
        /// Where it stands.
        index: usize,
    },
    /// No graph is kept for this micro-batch.
    #[error("micro-batch {0} has no kept forward pass")]
    NoGraph(u64),
    /// The graph was set aside and not restored.
    #[error("micro-batch {0} was set aside: its forward pass must run again first")]
    SetAside(u64),
    /// A graph is already kept for this micro-batch.
    #[error("micro-batch {0} already has a kept forward pass")]
    GraphOpen(u64),
    /// A step without any gradient.
    #[error("no gradient to step with")]
    NoGradient,
    /// The gradient is infinite or not a number: the step was refused and the gradient dropped.
    #[error("the gradient is not finite; it was dropped")]
    Diverged,
}

/// One stage of the model on some device. A micro-batch's index is its key.
pub trait Stage: Send {
    /// What this stage is.
    fn spec(&self) -> &StageSpec;
    /// Numbers in the flat weights.
    fn parameters(&self) -> usize;
    /// Flat weights, in layout order.
    fn weights(&self) -> &[f32];
    /// Replaces the weights; kept graphs go on with theirs. Moments stay.
    fn set_weights(&mut self, flat: &[f32]) -> Result<(), StageError>;
    /// Runs forward and keeps what backward needs under `micro_batch`.
    ///
    /// `tokens`: `[batch, sequence + 1]`, the last one of each row is only a target; may be empty where the spec does
    /// not need them. `input`: none on the head.
    fn forward(
        &mut self,
        micro_batch: u64,
        tokens: &[u32],
        input: Option<&Message>,
    ) -> Result<Output, StageError>;
    /// Runs backward with the weights of the kept forward, and drops it. `gradient`: none on the tail.
    /// With `accumulate` false only the input's gradient is computed. The head returns none.
    fn backward(
        &mut self,
        micro_batch: u64,
        gradient: Option<&Message>,
        accumulate: bool,
    ) -> Result<Option<Message>, StageError>;
    /// Drops what is kept of a micro-batch but the weights that its forward used: [`Stage::restore`] makes it again.
    /// Does nothing if nothing is kept.
    fn set_aside(&mut self, micro_batch: u64);
    /// Runs the forward of a micro-batch that was set aside again, from the tokens and the input that it had then:
    /// what is kept afterwards is the same to the bit.
    fn restore(
        &mut self,
        micro_batch: u64,
        tokens: &[u32],
        input: Option<&Message>,
    ) -> Result<(), StageError>;
    /// Drops what is kept of a micro-batch, if anything.
    fn discard(&mut self, micro_batch: u64);
    /// Drops the gradient.
    fn clear(&mut self);
    /// Forward without a graph. The output is the same as `forward`'s, to the bit.
    fn evaluate(&self, tokens: &[u32], input: Option<&Message>) -> Result<Output, StageError>;
    /// Micro-batches in the gradient.
    fn accumulated(&self) -> usize;
    /// The sum (not mean) of gradients since the last step, in layout order.
    fn gradient(&self) -> &[f32];
    /// Sum of squares of the mean gradient, one per unit of the spec, in declared order.
    fn square_sums(&self) -> Vec<f64>;
    /// Takes the mean gradient, clips it, steps the optimiser, clears the gradient.
    fn step(&mut self, step: StepInput) -> Result<StepReport, StageError>;
    /// Steps taken, and both moments flat (the second one without what the optimiser does not keep).
    fn moments(&self) -> Moments<'_>;
    /// Replaces steps and moments, as they were given by `moments`.
    fn set_moments(&mut self, moments: Moments<'_>) -> Result<(), StageError>;
}

/// The optimiser's state.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Moments<'a> {
    /// Steps taken.
    pub step: u64,
    /// First moment, one per parameter.
    pub first: &'a [f32],
    /// Second moment, one per parameter that AdamW steps.
    pub second: &'a [f32],
}
