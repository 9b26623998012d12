//! Forward and backward through all units of a stage.

use super::arena::Arena;
use super::block::{self, BlockGraph, BlockOutput, Context, Places};
use super::{Output, StageError};
use crate::config::{Message, StageSpec, Unit};
use crate::cut::{self, Boundary, Kept, Received, Sent, Site};
use crate::kernels::matrix::{Matrix, MatrixMut};
use crate::kernels::norm::{self, Gradient};
use crate::kernels::rope::Rope;
use crate::kernels::{embedding, linear, loss};
use crate::random;
use std::ops::Range;
use std::sync::Arc;

/// Everything about a stage that does not change while it trains.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) spec: StageSpec,
    pub(crate) arena: Arena,
    pub(crate) units: Vec<(Unit, Range<usize>)>,
    rope: Rope,
    places: Places,
    /// The cut before this stage, and the key of its random numbers.
    receiver: Option<(Box<dyn Boundary>, u64)>,
    /// The cut behind it.
    sender: Option<Box<dyn Boundary>>,
}

/// Input tokens, and targets where there is something to learn.
#[derive(Debug)]
pub(crate) struct Tokens {
    pub(crate) inputs: Vec<u32>,
    pub(crate) targets: Vec<u32>,
    pub(crate) batch: usize,
}

/// What backward needs of one micro-batch, with the weights that its forward used.
#[derive(Debug)]
pub(crate) struct Graph {
    pub(crate) weights: Arc<Vec<f32>>,
    tokens: Tokens,
    micro_batch: u64,
    received: Kept,
    blocks: Vec<BlockGraph>,
    sent: Kept,
    tail: Option<TailGraph>,
}

#[derive(Debug)]
struct TailGraph {
    x: Vec<f32>,
    inverse: Vec<f32>,
    loss: loss::Kept,
}

/// How a pass ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Keeps the graph.
    Train,
    /// Keeps nothing.
    Evaluate,
    /// Keeps nothing; the tail gives logits of the last position of every sequence, or of all positions.
    Logits {
        /// All positions.
        all: bool,
    },
}

/// What a pass gives.
#[derive(Debug)]
pub(crate) enum Passed {
    Output(Output),
    Logits(Vec<f32>),
}

impl Plan {
    pub(crate) fn new(spec: StageSpec) -> Plan {
        let receiver = (!spec.is_head())
            .then(|| (cut::boundary(spec.cut), random::key(&spec.seed, &format!("cut.{}", spec.index - 1))));
        let sender = (!spec.is_tail()).then(|| cut::boundary(spec.cut));
        Plan {
            arena: Arena::default(),
            units: spec.units(),
            rope: Rope::new(&spec.model),
            places: Places::new(&spec.model),
            receiver,
            sender,
            spec,
        }
    }

    /// Parameters of a unit; a unit without any has an empty range.
    fn unit(&self, unit: Unit) -> Range<usize> {
        self.units.iter().find(|(u, _)| *u == unit).map_or(0..0, |(_, range)| range.clone())
    }

    fn context(&self, tokens: &Tokens) -> Context<'_> {
        let (batch, time) = (tokens.batch, tokens.inputs.len() / tokens.batch);
        Context { model: &self.spec.model, rope: &self.rope, arena: &self.arena, batch, time }
    }

    fn site<'a>(&'a self, tokens: &'a Tokens, micro_batch: u64) -> Site<'a> {
        let key = self.receiver.as_ref().map_or(0, |(_, key)| random::derive(*key, micro_batch));
        Site { model: &self.spec.model, arena: &self.arena, tokens: &tokens.inputs, key }
    }

    /// Runs on the calling thread's pool.
    pub(crate) fn forward(
        &self,
        weights: &Arc<Vec<f32>>,
        micro_batch: u64,
        tokens: Tokens,
        input: Option<&Message>,
        mode: Mode,
    ) -> Result<(Passed, Option<Graph>), StageError> {
        let (context, site) = (self.context(&tokens), self.site(&tokens, micro_batch));
        self.arena.start(context.rows());
        let (arena, d, rows) = (&self.arena, self.spec.model.d_model, context.rows());
        let (received, kept_received) = self.receive(weights, site, input)?;
        let Received { input: mut x, narrow } = received;
        let mut blocks = Vec::new();
        let mut update = None;
        for i in self.spec.blocks.clone() {
            let narrow = if i == self.spec.blocks.start { narrow.as_deref() } else { None };
            let narrow = narrow.map(|z| (z, z.len() / rows));
            let last = i + 1 == self.spec.blocks.end;
            let apart = last && self.sender.as_ref().is_some_and(|cut| cut.apart());
            let w = &weights[self.unit(Unit::Block(i))];
            let (output, graph) = block::forward(context, &self.places, w, x, narrow, apart);
            BlockOutput { residual: x, update } = output;
            if mode == Mode::Train {
                blocks.push(graph);
            } else {
                graph.recycle(arena);
            }
        }
        if let Some(z) = narrow {
            arena.give(z);
        }
        let mut kept_sent = Kept::new();
        let mut tail = None;
        let passed = if let Some(cut) = &self.sender {
            let w = &weights[self.unit(Unit::Send(self.spec.index))];
            let (message, kept) = cut.encode(site, w, Sent { residual: x, update });
            kept_sent = kept;
            Passed::Output(Output::Message(message))
        } else {
            let (gain, head) = weights[self.unit(Unit::Output)].split_at(d);
            let head = Matrix::new(head, self.spec.model.vocab, d);
            let (mut normed, mut inverse) = (arena.take(rows * d), arena.take(rows));
            norm::forward(&x, gain, self.spec.model.norm_eps, &mut normed, &mut inverse);
            let normed_rows = Matrix::new(&normed, rows, d);
            let passed = if let Mode::Logits { all } = mode {
                arena.give(x);
                arena.give(inverse);
                Passed::Logits(logits(context, normed_rows, head, all))
            } else {
                let (value, loss) = loss::forward(normed_rows, head, &tokens.targets, arena);
                tail = Some(TailGraph { x, inverse, loss });
                Passed::Output(Output::Loss(value))
            };
            arena.give(normed);
            passed
        };
        let graph = Graph {
            weights: Arc::clone(weights),
            micro_batch,
            received: kept_received,
            blocks,
            sent: kept_sent,
            tail,
            tokens,
        };
        if mode == Mode::Train {
            return Ok((passed, Some(graph)));
        }
        graph.recycle(arena);
        Ok((passed, None))
    }

    fn receive(
        &self,
        weights: &[f32],
        site: Site<'_>,
        input: Option<&Message>,
    ) -> Result<(Received, Kept), StageError> {
        match (&self.receiver, input) {
            (None, None) => {
                let d = self.spec.model.d_model;
                let mut x = self.arena.take(site.rows() * d);
                embedding::forward(&weights[self.unit(Unit::Embedding)], d, site.tokens, &mut x, false);
                Ok((Received { input: x, narrow: None }, Kept::new()))
            }
            (Some((cut, _)), Some(message)) => {
                let unit = self.unit(Unit::Receive(self.spec.index - 1));
                Ok(cut.decode(site, &weights[unit], message)?)
            }
            (None, Some(_)) => Err(StageError::Wiring("the head stage takes tokens, not a message")),
            (Some(_), None) => Err(StageError::Wiring("a stage behind the head needs a message")),
        }
    }

    /// Parses the gradient that came for a graph, before anything of the graph is used up.
    pub(crate) fn read_gradient(
        &self,
        graph: &Graph,
        message: Option<&Message>,
    ) -> Result<Option<Vec<f32>>, StageError> {
        match (&self.sender, message) {
            (None, None) => Ok(None),
            (Some(cut), Some(message)) => {
                let site = self.site(&graph.tokens, graph.micro_batch);
                Ok(Some(cut.read_gradient(site, message)?))
            }
            (None, Some(_)) => Err(StageError::Wiring("the tail stage makes its own gradient")),
            (Some(_), None) => Err(StageError::Wiring("a stage before the tail needs a gradient")),
        }
    }

    /// Runs on the calling thread's pool. `gradient`: where the stage's own goes, and whether to add to it.
    pub(crate) fn backward(
        &self,
        graph: Graph,
        d_z: Option<Vec<f32>>,
        mut gradient: Option<(&mut [f32], bool)>,
    ) -> Option<Message> {
        let Graph { weights, tokens, micro_batch, received, blocks, sent, tail } = graph;
        let (context, site) = (self.context(&tokens), self.site(&tokens, micro_batch));
        let arena = &self.arena;
        let mut d_output = if let Some(tail) = tail {
            let d_residual = self.tail_backward(context, &weights, &tokens, tail, &mut gradient);
            BlockOutput { residual: d_residual, update: None }
        } else {
            let cut = self.sender.as_ref().expect("a stage without a tail has a sender");
            let d_z = d_z.expect("read_gradient gave the gradient of a sender");
            let unit = self.unit(Unit::Send(self.spec.index));
            let to = part(&mut gradient, &unit);
            let Sent { residual, update } = cut.encode_backward(site, &weights[unit], sent, d_z, to);
            BlockOutput { residual, update }
        };
        let mut d_narrow = None;
        for (i, graph) in self.spec.blocks.clone().zip(blocks).rev() {
            let first = i == self.spec.blocks.start;
            let narrow = self.receiver.as_ref().filter(|_| first).and_then(|(cut, _)| cut.narrow());
            let unit = self.unit(Unit::Block(i));
            let to = gradient.as_mut().map(|(g, accumulate)| (&mut g[unit.clone()], *accumulate));
            let d = block::backward(context, &self.places, &weights[unit], graph, d_output, narrow, to);
            d_output = BlockOutput { residual: d.x, update: None };
            d_narrow = d.narrow;
        }
        let d_input = d_output.residual;
        if let Some((cut, _)) = &self.receiver {
            let unit = self.unit(Unit::Receive(self.spec.index - 1));
            let to = part(&mut gradient, &unit);
            let d = Received { input: d_input, narrow: d_narrow };
            return Some(cut.decode_backward(site, &weights[unit], received, d, to));
        }
        let unit = self.unit(Unit::Embedding);
        if let Some(Gradient { to, accumulate }) = part(&mut gradient, &unit) {
            embedding::backward(&d_input, self.spec.model.d_model, &tokens.inputs, to, accumulate);
        }
        arena.give(d_input);
        None
    }

    fn tail_backward(
        &self,
        context: Context<'_>,
        weights: &[f32],
        tokens: &Tokens,
        tail: TailGraph,
        gradient: &mut Option<(&mut [f32], bool)>,
    ) -> Vec<f32> {
        let (arena, rows, d) = (&self.arena, context.rows(), self.spec.model.d_model);
        let TailGraph { x, inverse, loss } = tail;
        let unit = self.unit(Unit::Output);
        let (gain, head) = weights[unit.clone()].split_at(d);
        let head = Matrix::new(head, self.spec.model.vocab, d);
        let mut normed = arena.take(rows * d);
        norm::again(&x, gain, &inverse, &mut normed);
        let mut d_normed = arena.take(rows * d);
        let (mut d_gain, mut d_head) = (None, None);
        if let Some(Gradient { to, accumulate }) = part(gradient, &unit) {
            let (to_gain, to_head) = to.split_at_mut(d);
            d_gain = Some(Gradient { to: to_gain, accumulate });
            d_head = Some((to_head, accumulate));
        }
        let normed_rows = Matrix::new(&normed, rows, d);
        loss::backward(normed_rows, head, &tokens.targets, loss, &mut d_normed, d_head, arena);
        let mut d_x = normed;
        d_x.fill(0.0);
        norm::backward(&x, gain, &inverse, &d_normed, &mut d_x, d_gain, arena);
        for buffer in [x, inverse, d_normed] {
            arena.give(buffer);
        }
        d_x
    }
}

impl Graph {
    /// Gives all buffers back.
    pub(crate) fn recycle(self, arena: &Arena) {
        for buffer in self.received.into_iter().chain(self.sent) {
            arena.give(buffer);
        }
        for block in self.blocks {
            block.recycle(arena);
        }
        if let Some(TailGraph { x, inverse, loss }) = self.tail {
            arena.give(x);
            arena.give(inverse);
            loss.recycle(arena);
        }
    }
}

fn part<'a>(gradient: &'a mut Option<(&mut [f32], bool)>, unit: &Range<usize>) -> Option<Gradient<'a>> {
    let (gradient, accumulate) = gradient.as_mut()?;
    Some(Gradient { to: &mut gradient[unit.clone()], accumulate: *accumulate })
}

fn logits(context: Context<'_>, normed: Matrix<'_>, head: Matrix<'_>, all: bool) -> Vec<f32> {
    let vocab = head.rows;
    if all {
        let mut out = vec![0.0; normed.rows * vocab];
        linear::forward(normed, head, MatrixMut::new(&mut out, normed.rows, vocab), false);
        return out;
    }
    let mut out = vec![0.0; context.batch * vocab];
    for (b, out) in out.chunks_exact_mut(vocab).enumerate() {
        let last = normed.rows((b + 1) * context.time - 1, 1);
        linear::forward(last, head, MatrixMut::new(out, 1, vocab), false);
    }
    out
}
