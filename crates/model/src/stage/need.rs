//! How many bytes a pass holds, counted from the buffers that the passes take.

use super::block::BlockGraph;
use crate::config::{ParameterKind, StageSpec};
use crate::cut;
use crate::kernels::attention::Layer;
use crate::kernels::rope::Rope;
use crate::kernels::{ROW_TILE, feed_forward, loss};

/// Bytes of a number, and of a token.
const NUMBER: usize = 4;
/// What `gemm` holds per thread: a slab as large as the second-level cache; the largest in use.
const GEMM_SLAB_BYTES: usize = 2 << 20;
/// Its longest inner dimension: operands are packed in parts of this length.
const GEMM_INNER: usize = 512;

/// Bytes that a kept graph of `batch` sequences holds.
pub(crate) fn graph_bytes(spec: &StageSpec, batch: usize) -> usize {
    let model = &spec.model;
    let rows = batch * model.sequence;
    let (sender, receiver) = cut::boundary(spec.cut).kept_per_row(model);
    let mut per_row = spec.blocks.len() * BlockGraph::numbers_per_row(model) + 2;
    if !spec.is_head() {
        per_row += receiver;
    }
    if spec.is_tail() {
        // Last residual, its norm's factor, log sums, and the logits of a small vocabulary.
        per_row += model.d_model + 2 + if model.vocab <= loss::BAND { model.vocab } else { 0 };
    } else {
        per_row += sender;
    }
    NUMBER * rows * per_row
}

/// Bytes of buffers that forward, backward and step hold besides graphs, weights, gradient and moments.
pub(crate) fn scratch_bytes(spec: &StageSpec, batch: usize, threads: usize) -> usize {
    let model = &spec.model;
    let (rows, d, ffn) = (batch * model.sequence, model.d_model, model.ffn);
    let heads = Layer {
        batch,
        time: model.sequence,
        heads: model.heads,
        kv_heads: model.kv_heads,
        width: model.head_width(),
    };
    let cut = cut::boundary(spec.cut);
    let narrow = if spec.count > 1 { cut.narrow().unwrap_or(0) + cut.kept_per_row(model).0 } else { 0 };
    // Backward of a block: normed rows and their gradient, the residual's and the attention's; gradients of queries,
    // keys and values. Forward: the activated hidden units. A cut: its numbers and their gradient.
    let mut per_row = 4 * d + heads.row() + ffn + 2 * narrow + 4;
    if spec.is_tail() && model.vocab > loss::BAND {
        per_row += loss::BAND;
    }
    let parts = rows.div_ceil(ROW_TILE) * d;
    let per_thread = rows * feed_forward::BAND.min(ffn) + 2 * heads.tile() + GEMM_INNER * (rows + ffn.max(d));
    let numbers = rows * per_row + parts + threads * per_thread;
    NUMBER * (numbers + muon_numbers(spec)) + threads * GEMM_SLAB_BYTES + Rope::bytes(model)
}

/// Muon's update, its transposed, the next iterate and two Gram matrices of the largest matrix.
fn muon_numbers(spec: &StageSpec) -> usize {
    let largest = spec.layout().into_iter().filter(|p| p.kind == ParameterKind::Matrix).map(|p| {
        let short = p.shape[0].min(p.shape[1]);
        3 * p.len() + 2 * short * short
    });
    largest.max().unwrap_or(0)
}
