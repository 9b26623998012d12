//! Matrix products of a linear layer, in tiles over the pool. Weights are `[out, in]`, as in PyTorch.

use super::matrix::{Matrix, MatrixMut, product};
use rayon::prelude::*;

/// Rows of a tile, and its columns: wide where the matrix still has [`TILES`] of them, because a wide tile packs its
/// operands less often. Functions of the shape alone, so that the split does not depend on the number of threads.
const ROWS: usize = 512;
const NARROW: usize = 256;
const WIDE: usize = 512;
const TILES: usize = 6;

/// `out = left · right` or `out += left · right`.
pub(crate) fn multiply(out: MatrixMut<'_>, left: Matrix<'_>, right: Matrix<'_>, accumulate: bool) {
    let wide = out.rows.div_ceil(ROWS) * out.columns.div_ceil(WIDE) >= TILES;
    let columns = if wide { WIDE } else { NARROW };
    let across = out.columns.div_ceil(columns);
    out.tiles(ROWS, columns).into_par_iter().enumerate().for_each(|(i, mut tile)| {
        let (row, column) = (i / across * ROWS, i % across * columns);
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
