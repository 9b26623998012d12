//! What a lossy champion does to the loss: micro-batches computed with it and without it, from the weights that the epoch
//! opened with (protocol §7 "Production").

use std::collections::BTreeSet;

use model::config::Message;
use model::stage::{Output, Stage, StageError};
use sandbox::Fault;
use swarm::record::{CodecEffect, CodecPin, Effect};
use swarm::state::{ActiveCodec, State};
use wire::{Direction, Epoch, Hash, MicroBatch};

use super::replay::Bench;
use crate::champion::{Champion, Fell, floats};
use crate::limits;

/// What was found so far of a codec in its shadow. Epochs are added up: short ones end before enough is known.
#[derive(Debug, Default)]
pub(super) struct Measured {
    /// Which shadow: the component, and the epoch since which.
    of: Option<(Hash, Epoch)>,
    done: BTreeSet<MicroBatch>,
    pairs: Vec<Pair>,
}

/// What is to be done next about it.
#[derive(Debug)]
pub(super) enum Step {
    /// A micro-batch with it and without.
    Compute(MicroBatch),
    /// Enough is known.
    State(CodecEffect),
}

/// One micro-batch with the codec and without.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Pair {
    /// (L with − L without) / L without.
    loss: f64,
    /// ⟨y − x, x⟩ / ⟨x, x⟩ of each tensor, in one order for all micro-batches.
    biases: Vec<f64>,
    /// Σ ⟨y − x, ∂L/∂x⟩ / L over the cuts.
    slope: f64,
}

/// Why a micro-batch gave no pair.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unmeasured {
    #[error(transparent)]
    Stage(#[from] StageError),
    /// This machine could not run the component.
    #[error("{0}")]
    Here(String),
}

impl Measured {
    /// The next step for the codec that waits for this validator's word: drawn micro-batches of the epoch first.
    pub(super) fn next(&mut self, state: &State, active: &ActiveCodec) -> Option<Step> {
        let of = Some((active.pin.component, active.since));
        if self.of != of {
            *self = Self { of, ..Self::default() };
        }
        if self.pairs.len() >= limits::SHADOW_MICRO_BATCHES {
            return Some(Step::State(self.effect(active.pin.component)));
        }
        let seed = state.seed();
        let rank = |id: &&MicroBatch| {
            let ways = [Direction::Forward, Direction::Backward];
            (!ways.iter().any(|way| active.carries(&seed, **id, *way)), **id)
        };
        state.paths().keys().filter(|id| !self.done.contains(id)).min_by_key(rank).copied().map(Step::Compute)
    }

    /// Takes what came of a micro-batch.
    pub(super) fn take(&mut self, micro_batch: MicroBatch, pair: Option<Pair>) {
        self.done.insert(micro_batch);
        self.pairs.extend(pair);
    }

    fn effect(&self, component: Hash) -> CodecEffect {
        let effect = |of: &dyn Fn(&Pair) -> f64| Effect::of(&self.pairs.iter().map(of).collect::<Vec<_>>());
        let tensors = self.pairs.iter().map(|pair| pair.biases.len()).min().unwrap_or(0);
        // Each by itself: what one cut makes longer and another shorter would cancel.
        let biases = (0..tensors).map(|at| effect(&|pair| pair.biases[at]));
        CodecEffect {
            component,
            micro_batches: self.pairs.len() as u32,
            loss: effect(&|pair| pair.loss),
            bias: biases.max_by_key(Effect::most_ppb).unwrap_or(Effect::of(&[])),
            slope: effect(&|pair| pair.slope),
        }
    }
}

impl Bench {
    /// A micro-batch through all stages with a lossy codec and without.
    pub(super) fn pair(
        &self,
        micro_batch: MicroBatch,
        tokens: &[u32],
        champion: &Champion,
        pin: &CodecPin,
    ) -> Result<Pair, Unmeasured> {
        let mut stages = self.stages();
        let (mut plain, mut crossed) = (Vec::new(), Vec::new());
        let without = through(&stages, tokens, |message| {
            plain.push(message.clone());
            Ok(message)
        })?;
        let with = through(&stages, tokens, |message| {
            let back = carried(champion, pin, Direction::Forward, &message)?;
            crossed.push((message, back.clone()));
            Ok(back)
        })?;
        let (mut biases, mut slope) = (Vec::new(), 0.0);
        if pin.activations {
            biases.extend(crossed.iter().map(|(there, back)| bias(there, back)));
        }
        // From the tail to the head, one graph at a time.
        let mut gradient: Option<Message> = None;
        for cut in (0..plain.len()).rev() {
            let stage =
                stages.get_mut(cut + 1).ok_or(StageError::Wiring("a cut without a stage behind it"))?;
            stage.forward(micro_batch.0, tokens, plain.get(cut))?;
            let given = stage.backward(micro_batch.0, gradient.as_ref(), false);
            stage.discard(micro_batch.0);
            let given = given?.ok_or(StageError::Wiring("a stage gave no gradient"))?;
            if let Some((there, back)) = crossed.get(cut) {
                slope += along(there, back, &given);
            }
            if pin.gradients {
                biases.push(bias(&given, &carried(champion, pin, Direction::Backward, &given)?));
            }
            gradient = Some(given);
        }
        let loss = f64::from(without);
        Ok(Pair { loss: (f64::from(with) - loss) / loss, biases, slope: slope / loss })
    }
}

/// The loss of a micro-batch whose messages pass through `cross`.
fn through(
    stages: &[impl Stage],
    tokens: &[u32],
    mut cross: impl FnMut(Message) -> Result<Message, Unmeasured>,
) -> Result<f32, Unmeasured> {
    let mut input: Option<Message> = None;
    for stage in stages {
        match stage.evaluate(tokens, input.as_ref())? {
            Output::Message(message) => input = Some(cross(message)?),
            Output::Loss(loss) => return Ok(loss),
        }
    }
    Err(StageError::Wiring("the last stage gave no loss").into())
}

/// What a receiver would have: senders take the built-in codec where the component fails.
fn carried(
    champion: &Champion,
    pin: &CodecPin,
    direction: Direction,
    message: &Message,
) -> Result<Message, Unmeasured> {
    if !pin.carries(direction) {
        return Ok(message.clone());
    }
    match champion.encode(direction, message, true) {
        Ok(carried) => Ok(carried.lossy.unwrap_or_else(|| message.clone())),
        Err(Fell::Host(reason)) => Err(Unmeasured::Here(reason)),
        Err(Fell::Failed(failed)) if failed.fault == Fault::Time => Err(Unmeasured::Here(failed.to_string())),
        Err(_) => Ok(message.clone()),
    }
}

/// ⟨y − x, x⟩ / ⟨x, x⟩; not a number where the tensors are none of finite numbers, which passes no test.
fn bias(x: &Message, y: &Message) -> f64 {
    if x.bytes == y.bytes {
        return 0.0;
    }
    let square: f64 = floats(x).unwrap_or_default().iter().map(|x| f64::from(*x) * f64::from(*x)).sum();
    along(x, y, x) / square
}

/// ⟨y − x, g⟩.
fn along(x: &Message, y: &Message, gradient: &Message) -> f64 {
    if x.bytes == y.bytes {
        return 0.0;
    }
    let (Ok(x), Ok(y), Ok(g)) = (floats(x), floats(y), floats(gradient)) else { return f64::NAN };
    if x.len() != g.len() {
        return f64::NAN;
    }
    let terms = x.iter().zip(&y).zip(&g).map(|((x, y), g)| (f64::from(*y) - f64::from(*x)) * f64::from(*g));
    terms.sum()
}
