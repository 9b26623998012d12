//! A stage on the CPU.

use super::pass::{Graph, Mode, Passed, Plan, Tokens};
use super::{Clip, Moments, Output, Stage, StageError, StepInput, StepReport};
use crate::config::{Message, StageSpec};
use crate::kernels::simd;
use crate::optim::{Optimiser, OptimiserConfig};
use rayon::ThreadPool;
use rayon::prelude::*;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Most sequences in a micro-batch.
pub const BATCH_MAX: usize = 4096;
/// Numbers per task when squares are summed.
const PART: usize = 1 << 15;

/// What must agree for two CPUs to compute the same bits: kernels, `gemm` and the instructions they use.
pub fn device_class() -> String {
    let instructions = match simd::instruction_set() {
        #[cfg(target_arch = "x86_64")]
        simd::InstructionSet::Avx512 => "avx512",
        #[cfg(target_arch = "x86_64")]
        simd::InstructionSet::Avx2 => "avx2",
        simd::InstructionSet::Baseline => std::env::consts::ARCH,
    };
    format!("cpu-{KERNELS} gemm-0.19.0 {instructions}")
}

/// Version of the kernels' order of operations; raised with every change that moves a bit.
const KERNELS: u32 = 1;

/// A stage on the CPU: f32, own kernels, the same bits for any number of threads in the pool.
#[derive(Debug)]
pub struct CpuStage {
    plan: Plan,
    pool: Arc<ThreadPool>,
    /// Kept graphs share the version they were made with; a step copies only while one is open.
    weights: Arc<Vec<f32>>,
    /// Sum over micro-batches; meaningless while `accumulated` is 0.
    gradient: Vec<f32>,
    accumulated: usize,
    optimiser: Optimiser,
    graphs: BTreeMap<u64, Graph>,
    /// Weights that the forward of micro-batches without a graph used.
    aside: BTreeMap<u64, Arc<Vec<f32>>>,
}

/// What [`CpuStage::infer`] gives.
#[derive(Debug, Clone, PartialEq)]
pub enum Inferred {
    /// What the next stage needs.
    Message(Message),
    /// The tail's logits, `[sequences, vocab]`, or `[sequences, time, vocab]` if all were asked for.
    Logits(Vec<f32>),
}

impl CpuStage {
    /// Builds a stage with these flat weights, in layout order. All its work runs in `pool`.
    pub fn new(
        spec: StageSpec,
        weights: Vec<f32>,
        optimiser: OptimiserConfig,
        pool: Arc<ThreadPool>,
    ) -> Result<CpuStage, StageError> {
        spec.model.check()?;
        spec.cut.check(&spec.model)?;
        optimiser.check()?;
        let parameters = spec.parameters();
        check_numbers(&weights, parameters)?;
        let optimiser = Optimiser::new(optimiser, &spec);
        Ok(CpuStage {
            plan: Plan::new(spec),
            pool,
            weights: Arc::new(weights),
            gradient: vec![0.0; parameters],
            accumulated: 0,
            optimiser,
            graphs: BTreeMap::new(),
            aside: BTreeMap::new(),
        })
    }

    /// Forward over sequences of any one length up to the model's, without targets or a graph.
    ///
    /// `tokens`: `[sequences, time]`. The tail gives logits of the last position of each, or of `all` positions.
    pub fn infer(
        &self,
        tokens: &[u32],
        sequences: usize,
        input: Option<&Message>,
        all: bool,
    ) -> Result<Inferred, StageError> {
        let time = tokens.len() / sequences.max(1);
        let longest = self.plan.spec.model.sequence;
        if sequences == 0 || time == 0 || time > longest || time * sequences != tokens.len() {
            let allowed = format!("equal sequences of 1 to {longest} tokens");
            return Err(StageError::Tokens { problem: "number of tokens", value: tokens.len(), allowed });
        }
        self.check_vocab(tokens)?;
        let tokens = Tokens { inputs: tokens.to_vec(), targets: Vec::new(), batch: sequences };
        let mode = Mode::Logits { all };
        let passed = self.pool.install(|| self.plan.forward(&self.weights, 0, tokens, input, mode))?.0;
        Ok(match passed {
            Passed::Logits(logits) => Inferred::Logits(logits),
            Passed::Output(Output::Message(message)) => Inferred::Message(message),
            Passed::Output(Output::Loss(_)) => {
                return Err(StageError::Wiring("the tail gave a loss for logits"));
            }
        })
    }

    /// Kept graphs.
    pub fn open_graphs(&self) -> usize {
        self.graphs.len()
    }

    /// Frees buffers that are only kept to be used again.
    pub fn shrink(&self) {
        self.plan.arena.clear();
    }

    fn check_vocab(&self, tokens: &[u32]) -> Result<(), StageError> {
        let vocab = self.plan.spec.model.vocab;
        match tokens.iter().find(|&&t| t as usize >= vocab) {
            None => Ok(()),
            Some(&token) => Err(StageError::Tokens {
                problem: "token",
                value: token as usize,
                allowed: format!("must be below the vocabulary of {vocab}"),
            }),
        }
    }

    /// Forward with these weights; keeps the graph.
    fn train(
        &mut self,
        weights: &Arc<Vec<f32>>,
        micro_batch: u64,
        tokens: &[u32],
        input: Option<&Message>,
    ) -> Result<Output, StageError> {
        let tokens = self.tokens(tokens, input)?;
        let plan = &self.plan;
        let (passed, graph) =
            self.pool.install(|| plan.forward(weights, micro_batch, tokens, input, Mode::Train))?;
        if let Some(graph) = graph {
            self.graphs.insert(micro_batch, graph);
        }
        output(passed)
    }

    /// Splits `[batch, sequence + 1]` tokens into inputs and targets. A stage that reads no tokens may get none: then
    /// the message says how many rows there are.
    fn tokens(&self, tokens: &[u32], input: Option<&Message>) -> Result<Tokens, StageError> {
        if let (true, false, Some(message)) = (tokens.is_empty(), self.plan.spec.needs_tokens(), input) {
            let sequence = self.plan.spec.model.sequence;
            let (forward, _) = self.plan.spec.cut.message_bytes(&self.plan.spec.model, sequence);
            // What does not fit a whole number of sequences is refused by the cut's own check of the message.
            let batch = (message.bytes.len() / forward.max(1)).clamp(1, BATCH_MAX);
            return Ok(Tokens { inputs: vec![0; batch * sequence], targets: Vec::new(), batch });
        }
        let row = self.plan.spec.model.sequence + 1;
        let batch = tokens.len() / row;
        if batch == 0 || batch > BATCH_MAX || batch * row != tokens.len() {
            let allowed = format!("1 to {BATCH_MAX} rows of {row} tokens");
            return Err(StageError::Tokens { problem: "number of tokens", value: tokens.len(), allowed });
        }
        self.check_vocab(tokens)?;
        let rows = || tokens.chunks_exact(row);
        Ok(Tokens {
            inputs: rows().flat_map(|r| &r[..row - 1]).copied().collect(),
            targets: rows().flat_map(|r| &r[1..]).copied().collect(),
            batch,
        })
    }
}

impl Stage for CpuStage {
    fn spec(&self) -> &StageSpec {
        &self.plan.spec
    }

    fn parameters(&self) -> usize {
        self.gradient.len()
    }

    fn weights(&self) -> &[f32] {
        &self.weights
    }

    fn set_weights(&mut self, flat: &[f32]) -> Result<(), StageError> {
        check_numbers(flat, self.parameters())?;
        match Arc::get_mut(&mut self.weights) {
            Some(weights) => weights.copy_from_slice(flat),
            None => self.weights = Arc::new(flat.to_vec()),
        }
        Ok(())
    }

    fn forward(
        &mut self,
        micro_batch: u64,
        tokens: &[u32],
        input: Option<&Message>,
    ) -> Result<Output, StageError> {
        if self.graphs.contains_key(&micro_batch) || self.aside.contains_key(&micro_batch) {
            return Err(StageError::GraphOpen(micro_batch));
        }
        let weights = Arc::clone(&self.weights);
        self.train(&weights, micro_batch, tokens, input)
    }

    fn backward(
        &mut self,
        micro_batch: u64,
        gradient: Option<&Message>,
        accumulate: bool,
    ) -> Result<Option<Message>, StageError> {
        if self.aside.contains_key(&micro_batch) {
            return Err(StageError::SetAside(micro_batch));
        }
        let graph = self.graphs.get(&micro_batch).ok_or(StageError::NoGraph(micro_batch))?;
        let d_z = self.plan.read_gradient(graph, gradient)?;
        let graph = self.graphs.remove(&micro_batch).ok_or(StageError::NoGraph(micro_batch))?;
        let to = accumulate.then_some((self.gradient.as_mut_slice(), self.accumulated > 0));
        let plan = &self.plan;
        let message = self.pool.install(|| plan.backward(graph, d_z, to));
        self.accumulated += usize::from(accumulate);
        Ok(message)
    }

    fn set_aside(&mut self, micro_batch: u64) {
        if let Some(graph) = self.graphs.remove(&micro_batch) {
            self.aside.insert(micro_batch, Arc::clone(&graph.weights));
            graph.recycle(&self.plan.arena);
        }
    }

    fn restore(
        &mut self,
        micro_batch: u64,
        tokens: &[u32],
        input: Option<&Message>,
    ) -> Result<(), StageError> {
        let weights = self.aside.get(&micro_batch).ok_or(StageError::NoGraph(micro_batch))?;
        let weights = Arc::clone(weights);
        self.train(&weights, micro_batch, tokens, input)?;
        self.aside.remove(&micro_batch);
        Ok(())
    }

    fn discard(&mut self, micro_batch: u64) {
        self.aside.remove(&micro_batch);
        if let Some(graph) = self.graphs.remove(&micro_batch) {
            graph.recycle(&self.plan.arena);
        }
    }

    fn clear(&mut self) {
        self.accumulated = 0;
    }

    fn evaluate(&self, tokens: &[u32], input: Option<&Message>) -> Result<Output, StageError> {
        let tokens = self.tokens(tokens, input)?;
        let mode = Mode::Evaluate;
        output(self.pool.install(|| self.plan.forward(&self.weights, 0, tokens, input, mode))?.0)
    }

    fn accumulated(&self) -> usize {
        self.accumulated
    }

    fn gradient(&self) -> &[f32] {
        if self.accumulated == 0 { &[] } else { &self.gradient }
    }

    fn square_sums(&self) -> Vec<f64> {
        if self.accumulated == 0 {
            return vec![0.0; self.plan.units.len()];
        }
        let share = 1.0 / (self.accumulated as f64 * self.accumulated as f64);
        self.pool.install(|| {
            let unit = |(_, range): &(_, std::ops::Range<usize>)| {
                let parts: Vec<f64> =
                    self.gradient[range.clone()].par_chunks(PART).map(simd::square_sum).collect();
                parts.iter().sum::<f64>() * share
            };
            self.plan.units.iter().map(unit).collect()
        })
    }

    fn step(&mut self, step: StepInput) -> Result<StepReport, StageError> {
        if self.accumulated == 0 {
            return Err(StageError::NoGradient);
        }
        let squares: f64 = self.square_sums().iter().sum();
        let accumulated = std::mem::take(&mut self.accumulated);
        let scale = match step.clip {
            Clip::Off => 1.0,
            Clip::Scale(scale) => scale,
            Clip::Slice { limit } => {
                let share = self.parameters() as f64 / self.plan.spec.model.parameters() as f64;
                super::model_scale([squares], (f64::from(limit) * share.sqrt()) as f32)
            }
        };
        if !squares.is_finite() || !scale.is_finite() || !step.rate.is_finite() {
            return Err(StageError::Diverged);
        }
        let factor = (f64::from(scale) / accumulated as f64) as f32;
        let weights = Arc::make_mut(&mut self.weights);
        let (optimiser, gradient, arena) = (&mut self.optimiser, &self.gradient, &self.plan.arena);
        self.pool.install(|| optimiser.step(weights, gradient, factor, step.rate, arena));
        Ok(StepReport { step: self.optimiser.step, accumulated, gradient_norm: squares.sqrt(), scale })
    }

    fn moments(&self) -> Moments<'_> {
        let Optimiser { step, first, second, .. } = &self.optimiser;
        Moments { step: *step, first, second }
    }

    fn set_moments(&mut self, moments: Moments<'_>) -> Result<(), StageError> {
        check_numbers(moments.first, self.optimiser.first.len())?;
        check_numbers(moments.second, self.optimiser.second.len())?;
        self.optimiser.step = moments.step;
        self.optimiser.first.copy_from_slice(moments.first);
        self.optimiser.second.copy_from_slice(moments.second);
        Ok(())
    }
}

fn output(passed: Passed) -> Result<Output, StageError> {
    match passed {
        Passed::Output(output) => Ok(output),
        Passed::Logits(_) => Err(StageError::Wiring("the tail gave logits for a loss")),
    }
}

fn check_numbers(numbers: &[f32], expected: usize) -> Result<(), StageError> {
    if numbers.len() != expected {
        return Err(StageError::Length { found: numbers.len(), expected });
    }
    match numbers.iter().position(|x| !x.is_finite()) {
        Some(index) => Err(StageError::NotFinite { index }),
        None => Ok(()),
    }
}
