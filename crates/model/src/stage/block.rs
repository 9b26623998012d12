//! One block, forward and backward: norm, attention, residual, norm, SwiGLU, residual.

use super::arena::Arena;
use crate::config::ModelConfig;
use crate::kernels::attention::{self, Layer};
use crate::kernels::matrix::{Matrix, MatrixMut};
use crate::kernels::norm::{self, Gradient};
use crate::kernels::rope::Rope;
use crate::kernels::{feed_forward, linear};
use std::ops::Range;

/// What all blocks of a pass share.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Context<'a> {
    pub(crate) model: &'a ModelConfig,
    pub(crate) rope: &'a Rope,
    pub(crate) arena: &'a Arena,
    pub(crate) batch: usize,
    /// Tokens per sequence of this pass.
    pub(crate) time: usize,
}

impl Context<'_> {
    pub(crate) fn rows(self) -> usize {
        self.batch * self.time
    }

    fn heads(self) -> Layer {
        let ModelConfig { heads, kv_heads, .. } = *self.model;
        Layer { batch: self.batch, time: self.time, heads, kv_heads, width: self.model.head_width() }
    }
}

/// Where a block's parameters lie, relative to the block's first number.
#[derive(Debug, Clone)]
pub(crate) struct Places {
    norm_1: Range<usize>,
    qkv: Range<usize>,
    output: Range<usize>,
    norm_2: Range<usize>,
    gate_up: Range<usize>,
    down: Range<usize>,
}

impl Places {
    /// The order is that of the spec's layout.
    pub(crate) fn new(model: &ModelConfig) -> Places {
        let (d, kv, ffn) = (model.d_model, model.kv_width(), model.ffn);
        let mut end = 0;
        let mut next = |n: usize| {
            end += n;
            end - n..end
        };
        Places {
            norm_1: next(d),
            qkv: next((d + 2 * kv) * d),
            output: next(d * d),
            norm_2: next(d),
            gate_up: next(2 * ffn * d),
            down: next(d * ffn),
        }
    }
}

/// What backward needs of one block.
#[derive(Debug)]
pub(crate) struct BlockGraph {
    /// Input, `[rows, d]`.
    x: Vec<f32>,
    inverse_1: Vec<f32>,
    /// Rotated queries and keys, and values.
    qkv: Vec<f32>,
    /// Attention before its output projection.
    attended: Vec<f32>,
    log_sums: Vec<f32>,
    /// Residual between attention and feed-forward.
    h: Vec<f32>,
    inverse_2: Vec<f32>,
    /// Gate and up before the activation.
    hidden: Vec<f32>,
}

impl BlockGraph {
    /// Numbers kept per row.
    pub(crate) fn numbers_per_row(model: &ModelConfig) -> usize {
        let (d, kv) = (model.d_model, model.kv_width());
        3 * d + (d + 2 * kv) + 2 * model.ffn + model.heads + 2
    }

    pub(crate) fn recycle(self, arena: &Arena) {
        let BlockGraph { x, inverse_1, qkv, attended, log_sums, h, inverse_2, hidden } = self;
        for buffer in [x, inverse_1, qkv, attended, log_sums, h, inverse_2, hidden] {
            arena.give(buffer);
        }
    }
}

/// What a block gives: the residual stream, or its last two terms apart.
#[derive(Debug)]
pub(crate) struct BlockOutput {
    /// `[rows, d]`: the residual, with the feed-forward's output added unless it comes apart.
    pub(crate) residual: Vec<f32>,
    /// The feed-forward's output, if asked for apart.
    pub(crate) update: Option<Vec<f32>>,
}

/// Runs a block. `narrow`, `(z, width)`: the residual consists of these first coordinates instead of `x`.
pub(crate) fn forward(
    context: Context<'_>,
    places: &Places,
    weights: &[f32],
    x: Vec<f32>,
    narrow: Option<(&[f32], usize)>,
    apart: bool,
) -> (BlockOutput, BlockGraph) {
    let (model, arena, rows, heads) = (context.model, context.arena, context.rows(), context.heads());
    let (d, row, ffn) = (model.d_model, heads.row(), model.ffn);
    let mut normed = arena.take(rows * d);
    let mut inverse_1 = arena.take(rows);
    norm::forward(&x, &weights[places.norm_1.clone()], model.norm_eps, &mut normed, &mut inverse_1);
    let mut qkv = arena.take(rows * row);
    let w_qkv = Matrix::new(&weights[places.qkv.clone()], row, d);
    linear::forward(Matrix::new(&normed, rows, d), w_qkv, MatrixMut::new(&mut qkv, rows, row), false);
    context.rope.apply(&mut qkv, row, model.heads + model.kv_heads, context.time, false);
    let mut attended = arena.take(rows * d);
    let mut log_sums = arena.take(rows * model.heads);
    attention::forward(&qkv, heads, &mut attended, &mut log_sums, arena);
    let mut h = arena.take(rows * d);
    match narrow {
        None => h.copy_from_slice(&x),
        Some((z, width)) => {
            for (h, z) in h.chunks_exact_mut(d).zip(z.chunks_exact(width)) {
                h[..width].copy_from_slice(z);
                h[width..].fill(0.0);
            }
        }
    }
    let w_output = Matrix::new(&weights[places.output.clone()], d, d);
    linear::forward(Matrix::new(&attended, rows, d), w_output, MatrixMut::new(&mut h, rows, d), true);
    let mut inverse_2 = arena.take(rows);
    norm::forward(&h, &weights[places.norm_2.clone()], model.norm_eps, &mut normed, &mut inverse_2);
    let (mut hidden, mut active) = (arena.take(rows * 2 * ffn), arena.take(rows * ffn));
    let w_gate_up = Matrix::new(&weights[places.gate_up.clone()], 2 * ffn, d);
    feed_forward::forward(Matrix::new(&normed, rows, d), w_gate_up, &mut hidden, &mut active);
    // The normed rows are not needed any more: their buffer takes the output.
    let mut y = normed;
    if !apart {
        y.copy_from_slice(&h);
    }
    let w_down = Matrix::new(&weights[places.down.clone()], d, ffn);
    linear::forward(Matrix::new(&active, rows, ffn), w_down, MatrixMut::new(&mut y, rows, d), !apart);
    arena.give(active);
    let output = if apart {
        let mut residual = arena.take(rows * d);
        residual.copy_from_slice(&h);
        BlockOutput { residual, update: Some(y) }
    } else {
        BlockOutput { residual: y, update: None }
    };
    (output, BlockGraph { x, inverse_1, qkv, attended, log_sums, h, inverse_2, hidden })
}

/// Gradients with respect to a block's inputs.
#[derive(Debug)]
pub(crate) struct InputGradient {
    pub(crate) x: Vec<f32>,
    /// Of the narrow residual, if the block had one.
    pub(crate) narrow: Option<Vec<f32>>,
}

/// Runs a block backward from the gradient of its output. `gradient`: the block's own, and whether to add to it.
pub(crate) fn backward(
    context: Context<'_>,
    places: &Places,
    weights: &[f32],
    graph: BlockGraph,
    d_output: BlockOutput,
    narrow: Option<usize>,
    mut gradient: Option<(&mut [f32], bool)>,
) -> InputGradient {
    let (model, arena, rows, heads) = (context.model, context.arena, context.rows(), context.heads());
    let (d, row, ffn) = (model.d_model, heads.row(), model.ffn);
    let BlockGraph { x, inverse_1, qkv, attended, log_sums, h, inverse_2, mut hidden } = graph;

    let mut normed = arena.take(rows * d);
    norm::again(&h, &weights[places.norm_2.clone()], &inverse_2, &mut normed);
    let d_y = d_output.update.as_deref().unwrap_or(&d_output.residual);
    let gradients = gradient.as_mut().map(|(gradient, accumulate)| {
        let (before, down) = gradient.split_at_mut(places.down.start);
        feed_forward::Gradients {
            gate_up: MatrixMut::new(&mut before[places.gate_up.clone()], 2 * ffn, d),
            down: MatrixMut::new(down, d, ffn),
            accumulate: *accumulate,
        }
    });
    let w_down = Matrix::new(&weights[places.down.clone()], d, ffn);
    let normed_rows = Matrix::new(&normed, rows, d);
    feed_forward::backward(Matrix::new(d_y, rows, d), normed_rows, w_down, &mut hidden, gradients, arena);
    if let Some(update) = d_output.update {
        arena.give(update);
    }
    let mut d_normed = arena.take(rows * d);
    let w_gate_up = Matrix::new(&weights[places.gate_up.clone()], 2 * ffn, d);
    let d_hidden = Matrix::new(&hidden, rows, 2 * ffn);
    linear::backward_input(d_hidden, w_gate_up, MatrixMut::new(&mut d_normed, rows, d), false);
    arena.give(hidden);
    let mut d_h = d_output.residual;
    let d_gain = part(&mut gradient, &places.norm_2);
    norm::backward(&h, &weights[places.norm_2.clone()], &inverse_2, &d_normed, &mut d_h, d_gain, arena);
    arena.give(h);
    arena.give(inverse_2);

    let mut d_attended = arena.take(rows * d);
    let w_output = Matrix::new(&weights[places.output.clone()], d, d);
    let d_h_rows = Matrix::new(&d_h, rows, d);
    linear::backward_input(d_h_rows, w_output, MatrixMut::new(&mut d_attended, rows, d), false);
    if let Some(Gradient { to, accumulate }) = part(&mut gradient, &places.output) {
        linear::backward_weight(
            d_h_rows,
            Matrix::new(&attended, rows, d),
            MatrixMut::new(to, d, d),
            accumulate,
        );
    }
    let mut d_qkv = arena.take(rows * row);
    attention::backward(&qkv, heads, &attended, &log_sums, &d_attended, &mut d_qkv, arena);
    for buffer in [qkv, attended, log_sums, d_attended] {
        arena.give(buffer);
    }
    context.rope.apply(&mut d_qkv, row, model.heads + model.kv_heads, context.time, true);
    let d_qkv_rows = Matrix::new(&d_qkv, rows, row);
    if let Some(Gradient { to, accumulate }) = part(&mut gradient, &places.qkv) {
        norm::again(&x, &weights[places.norm_1.clone()], &inverse_1, &mut normed);
        linear::backward_weight(
            d_qkv_rows,
            Matrix::new(&normed, rows, d),
            MatrixMut::new(to, row, d),
            accumulate,
        );
    }
    let w_qkv = Matrix::new(&weights[places.qkv.clone()], row, d);
    linear::backward_input(d_qkv_rows, w_qkv, MatrixMut::new(&mut d_normed, rows, d), false);
    arena.give(d_qkv);

    let d_narrow = narrow.map(|width| {
        let mut d_z = arena.take(rows * width);
        for (d_z, d_h) in d_z.chunks_exact_mut(width).zip(d_h.chunks_exact(d)) {
            d_z.copy_from_slice(&d_h[..width]);
        }
        d_h.fill(0.0);
        d_z
    });
    let mut d_x = d_h;
    let d_gain = part(&mut gradient, &places.norm_1);
    norm::backward(&x, &weights[places.norm_1.clone()], &inverse_1, &d_normed, &mut d_x, d_gain, arena);
    for buffer in [x, inverse_1, normed, d_normed] {
        arena.give(buffer);
    }
    InputGradient { x: d_x, narrow: d_narrow }
}

fn part<'a>(gradient: &'a mut Option<(&mut [f32], bool)>, place: &Range<usize>) -> Option<Gradient<'a>> {
    let (gradient, accumulate) = gradient.as_mut()?;
    Some(Gradient { to: &mut gradient[place.clone()], accumulate: *accumulate })
}
