//! The output layer and its cross-entropy in one, in bands of the vocabulary: logits of a large vocabulary never exist
//! all at once.

use super::matrix::{Matrix, MatrixMut};
use super::{ROW_TILE, linear, math, simd};
use crate::stage::Arena;
use rayon::prelude::*;

/// Tokens per band. A vocabulary of one band keeps its logits for the backward pass, a larger one computes them again.
pub(crate) const BAND: usize = 4096;

/// What backward needs.
#[derive(Debug)]
pub(crate) struct Kept {
    /// Log of the sum of exponentials, per row.
    log_sums: Vec<f32>,
    /// Logits, if the vocabulary is one band.
    logits: Option<Vec<f32>>,
}

impl Kept {
    /// Gives its buffers back.
    pub(crate) fn recycle(self, arena: &Arena) {
        arena.give(self.log_sums);
        if let Some(logits) = self.logits {
            arena.give(logits);
        }
    }
}

/// Mean of −log softmax(x wᵀ)[target] over all rows, in nats. `w` is `[vocab, d]`.
pub(crate) fn forward(x: Matrix<'_>, w: Matrix<'_>, targets: &[u32], arena: &Arena) -> (f32, Kept) {
    let (rows, vocab) = (x.rows, w.rows);
    let mut log_sums = arena.take(rows);
    let mut greatest = arena.take(rows);
    let mut sums = arena.take(rows);
    let mut hits = arena.take(rows);
    greatest.fill(f32::NEG_INFINITY);
    sums.fill(0.0);
    let mut band = arena.take(rows * vocab.min(BAND));
    for first in (0..vocab).step_by(BAND) {
        let n = BAND.min(vocab - first);
        let logits = &mut band[..rows * n];
        linear::forward(x, w.rows(first, n), MatrixMut::new(logits, rows, n), false);
        logits
            .par_chunks(ROW_TILE * n)
            .zip(greatest.par_chunks_mut(ROW_TILE))
            .zip(sums.par_chunks_mut(ROW_TILE))
            .zip(hits.par_chunks_mut(ROW_TILE))
            .zip(targets.par_chunks(ROW_TILE))
            .for_each(|((((logits, greatest), sums), hits), targets)| {
                for (i, row) in logits.chunks_exact(n).enumerate() {
                    let before = greatest[i];
                    let now = before.max(simd::maximum(row));
                    let sum = simd::exp_sum_only(row, now);
                    let shrink = if first == 0 { 0.0 } else { math::exp(f64::from(before - now)) as f32 };
                    sums[i] = sums[i] * shrink + sum;
                    greatest[i] = now;
                    if let Some(&hit) = (targets[i] as usize).checked_sub(first).and_then(|t| row.get(t)) {
                        hits[i] = hit;
                    }
                }
            });
    }
    let mut loss = 0.0f64;
    for i in 0..rows {
        let log_sum = f64::from(greatest[i]) + math::ln(f64::from(sums[i]));
        log_sums[i] = log_sum as f32;
        loss += log_sum - f64::from(hits[i]);
    }
    for buffer in [greatest, sums, hits] {
        arena.give(buffer);
    }
    let logits = if vocab <= BAND {
        Some(band)
    } else {
        arena.give(band);
        None
    };
    ((loss / rows as f64) as f32, Kept { log_sums, logits })
}

/// `d_x` of the mean loss, and `d_w` if asked for: `(slice, accumulate)`.
pub(crate) fn backward(
    x: Matrix<'_>,
    w: Matrix<'_>,
    targets: &[u32],
    kept: Kept,
    d_x: &mut [f32],
    mut d_w: Option<(&mut [f32], bool)>,
    arena: &Arena,
) {
    let (rows, d, vocab) = (x.rows, x.columns, w.rows);
    let share = 1.0 / rows as f32;
    let kept_logits = kept.logits.is_some();
    let mut band = kept.logits.unwrap_or_else(|| arena.take(rows * vocab.min(BAND)));
    for first in (0..vocab).step_by(BAND) {
        let n = BAND.min(vocab - first);
        let w = w.rows(first, n);
        let logits = &mut band[..rows * n];
        if !kept_logits {
            linear::forward(x, w, MatrixMut::new(logits, rows, n), false);
        }
        logits
            .par_chunks_mut(ROW_TILE * n)
            .zip(kept.log_sums.par_chunks(ROW_TILE))
            .zip(targets.par_chunks(ROW_TILE))
            .for_each(|((logits, log_sums), targets)| {
                for (i, row) in logits.chunks_exact_mut(n).enumerate() {
                    simd::exp_sum(row, 1.0, log_sums[i]);
                    simd::scale(row, share);
                    if let Some(hit) = (targets[i] as usize).checked_sub(first).and_then(|t| row.get_mut(t)) {
                        *hit -= share;
                    }
                }
            });
        let d_logits = Matrix::new(logits, rows, n);
        linear::backward_input(d_logits, w, MatrixMut::new(d_x, rows, d), first > 0);
        if let Some((d_w, accumulate)) = &mut d_w {
            let part = MatrixMut::new(&mut d_w[first * d..(first + n) * d], n, d);
            linear::backward_weight(d_logits, x, part, *accumulate);
        }
    }
    arena.give(band);
    arena.give(kept.log_sums);
}
