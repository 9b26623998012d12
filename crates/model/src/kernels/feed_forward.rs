//! SwiGLU's three matrices, fused per band of hidden units (Shazeer 2020): `y = (silu(x gᵀ) · (x uᵀ)) dᵀ`.

use super::matrix::{Matrix, MatrixMut, product};
use super::simd;
use crate::stage::Arena;
use rayon::prelude::*;

/// Hidden units per band.
pub(crate) const BAND: usize = 256;

/// Gate and up side by side into `hidden` `[rows, 2 · ffn]`, and their SwiGLU into `active` `[rows, ffn]`.
/// `weights` holds gate, then up, `[2 · ffn, d]`.
pub(crate) fn forward(x: Matrix<'_>, weights: Matrix<'_>, hidden: &mut [f32], active: &mut [f32]) {
    let (rows, ffn) = (x.rows, weights.rows / 2);
    let (gates, ups) = MatrixMut::new(hidden, rows, 2 * ffn).split_columns(ffn);
    let actives = MatrixMut::new(active, rows, ffn).column_tiles(BAND);
    let bands: Vec<_> =
        gates.column_tiles(BAND).into_iter().zip(ups.column_tiles(BAND)).zip(actives).collect();
    bands.into_par_iter().enumerate().for_each(|(i, ((mut gate, mut up), mut active))| {
        let (start, n) = (i * BAND, gate.columns);
        product(&mut gate, x, weights.rows(start, n).transposed(), false);
        product(&mut up, x, weights.rows(ffn + start, n).transposed(), false);
        for r in 0..rows {
            simd::silu_product(gate.row(r), up.row(r), active.row(r));
        }
    });
}

/// Where the weights' gradients go.
#[derive(Debug)]
pub(crate) struct Gradients<'a> {
    /// Gate and up, `[2 · ffn, d]`.
    pub(crate) gate_up: MatrixMut<'a>,
    /// Down, `[d, ffn]`.
    pub(crate) down: MatrixMut<'a>,
    /// Added to what is there, or written over it.
    pub(crate) accumulate: bool,
}

/// Turns `hidden` into its own gradient and gives the weights theirs, one task per band: the band's hidden units and
/// their gradients never leave the cache.
pub(crate) fn backward(
    d_y: Matrix<'_>,
    x: Matrix<'_>,
    down: Matrix<'_>,
    hidden: &mut [f32],
    gradients: Option<Gradients<'_>>,
    arena: &Arena,
) {
    let (rows, ffn) = (d_y.rows, down.columns);
    let (gates, ups) = MatrixMut::new(hidden, rows, 2 * ffn).split_columns(ffn);
    let count = ffn.div_ceil(BAND);
    let accumulate = gradients.as_ref().is_some_and(|g| g.accumulate);
    let targets: Vec<_> = match gradients {
        None => (0..count).map(|_| None).collect(),
        Some(Gradients { gate_up, down, .. }) => {
            let (gate, up) = gate_up.split_rows(ffn);
            let rows = gate.row_tiles(BAND).into_iter().zip(up.row_tiles(BAND));
            rows.zip(down.column_tiles(BAND)).map(Some).collect()
        }
    };
    let bands: Vec<_> =
        gates.column_tiles(BAND).into_iter().zip(ups.column_tiles(BAND)).zip(targets).collect();
    bands.into_par_iter().enumerate().for_each(|(i, ((mut gate, mut up), target))| {
        let n = gate.columns;
        let mut scratch = arena.take(rows * n);
        let mut active = MatrixMut::new(&mut scratch, rows, n);
        product(&mut active, d_y, down.columns(i * BAND, n), false);
        for r in 0..rows {
            simd::silu_product_backward(gate.row(r), up.row(r), active.row(r));
        }
        if let Some(((mut d_gate, mut d_up), mut d_down)) = target {
            product(&mut d_gate, gate.as_matrix().transposed(), x, accumulate);
            product(&mut d_up, up.as_matrix().transposed(), x, accumulate);
            product(&mut d_down, d_y.transposed(), active.as_matrix(), accumulate);
        }
        arena.give(scratch);
    });
}
