//! RMSNorm over rows (Zhang and Sennrich 2019).

use super::{ROW_TILE, simd};
use crate::stage::Arena;
use rayon::prelude::*;

/// `out = gain · x / √(mean(x²) + eps)` per row; `inverse` keeps the factor of each row.
pub(crate) fn forward(x: &[f32], gain: &[f32], eps: f32, out: &mut [f32], inverse: &mut [f32]) {
    let tile = ROW_TILE * gain.len();
    x.par_chunks(tile)
        .zip(out.par_chunks_mut(tile))
        .zip(inverse.par_chunks_mut(ROW_TILE))
        .for_each(|((x, out), inverse)| simd::rms_norm(x, gain, eps, out, inverse));
}

/// The output of [`forward`] once more, from its kept factors.
pub(crate) fn again(x: &[f32], gain: &[f32], inverse: &[f32], out: &mut [f32]) {
    let tile = ROW_TILE * gain.len();
    x.par_chunks(tile)
        .zip(out.par_chunks_mut(tile))
        .zip(inverse.par_chunks(ROW_TILE))
        .for_each(|((x, out), inverse)| simd::rms_norm_again(x, gain, inverse, out));
}

/// A gradient that is written or added to.
#[derive(Debug)]
pub(crate) struct Gradient<'a> {
    /// Where it goes.
    pub(crate) to: &'a mut [f32],
    /// Added to what is there, or written over it.
    pub(crate) accumulate: bool,
}

/// Adds the input's gradient to `d_x`. The gain's gradient is summed over tiles of rows, then over tiles in order.
pub(crate) fn backward(
    x: &[f32],
    gain: &[f32],
    inverse: &[f32],
    d_y: &[f32],
    d_x: &mut [f32],
    d_gain: Option<Gradient<'_>>,
    arena: &Arena,
) {
    let d = gain.len();
    let tile = ROW_TILE * d;
    let mut parts = arena.take(inverse.len().div_ceil(ROW_TILE) * d);
    parts.fill(0.0);
    x.par_chunks(tile)
        .zip(d_y.par_chunks(tile))
        .zip(d_x.par_chunks_mut(tile))
        .zip(inverse.par_chunks(ROW_TILE))
        .zip(parts.par_chunks_mut(d))
        .for_each(|((((x, d_y), d_x), inverse), part)| {
            simd::rms_norm_backward(x, gain, inverse, d_y, d_x, part);
        });
    if let Some(Gradient { to, accumulate }) = d_gain {
        if !accumulate {
            to.fill(0.0);
        }
        for part in parts.chunks_exact(d) {
            simd::add(to, part);
        }
    }
    arena.give(parts);
}
