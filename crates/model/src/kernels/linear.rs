//! Matrix products of a linear layer, in tiles over the pool. Weights are `[out, in]`, as in PyTorch.

use super::matrix::{Matrix, MatrixMut, product};
use rayon::prelude::*;

/// Rows and columns of a tile. Fixed, so that the split does not depend on the number of threads.
const TILE: (usize, usize) = (512, 256);

/// `out = left · right` or `out += left · right`.
pub(crate) fn multiply(out: MatrixMut<'_>, left: Matrix<'_>, right: Matrix<'_>, accumulate: bool) {
    let columns = out.columns;
    out.tiles(TILE.0, TILE.1).into_par_iter().enumerate().for_each(|(i, mut tile)| {
        let across = columns.div_ceil(TILE.1);
        let (row, column) = (i / across * TILE.0, i % across * TILE.1);
        let (left, right) = (left.rows(row, tile.rows), right.columns(column, tile.columns));
        product(&mut tile, left, right, accumulate);
    });
}

/// `y = x · wᵀ`, or added to y.
pub(crate) fn forward(x: Matrix<'_>, w: Matrix<'_>, y: MatrixMut<'_>, accumulate: bool) {
    multiply(y, x, w.transposed(), accumulate);
}

/// `d_x = d_y · w`, or added to d_x.
pub(crate) fn backward_input(d_y: Matrix<'_>, w: Matrix<'_>, d_x: MatrixMut<'_>, accumulate: bool) {
    multiply(d_x, d_y, w, accumulate);
}

/// `d_w = d_yᵀ · x`, or added to d_w.
pub(crate) fn backward_weight(d_y: Matrix<'_>, x: Matrix<'_>, d_w: MatrixMut<'_>, accumulate: bool) {
    multiply(d_w, d_y.transposed(), x, accumulate);
}
