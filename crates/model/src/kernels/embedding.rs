//! Looking rows of a table up by token, and adding gradients back to them.

use super::matrix::MatrixMut;
use super::{ROW_TILE, simd};
use rayon::prelude::*;

/// Columns per task of the backward pass.
const COLUMNS: usize = 64;

/// Row i of `out` becomes (or gets added) row `tokens[i]` of the table; every token is below the table's rows.
pub(crate) fn forward(table: &[f32], width: usize, tokens: &[u32], out: &mut [f32], accumulate: bool) {
    out.par_chunks_mut(ROW_TILE * width).zip(tokens.par_chunks(ROW_TILE)).for_each(|(out, tokens)| {
        for (out, &token) in out.chunks_exact_mut(width).zip(tokens) {
            let row = &table[token as usize * width..][..width];
            if accumulate {
                simd::add(out, row);
            } else {
                out.copy_from_slice(row);
            }
        }
    });
}

/// Adds each row of `d_out` to its token's row of `d_table`, rows in order; tasks are bands of columns.
pub(crate) fn backward(d_out: &[f32], width: usize, tokens: &[u32], d_table: &mut [f32], accumulate: bool) {
    if !accumulate {
        d_table.par_chunks_mut(1 << 16).for_each(|part| part.fill(0.0));
    }
    let rows = d_table.len() / width;
    let bands = MatrixMut::new(d_table, rows, width).column_tiles(COLUMNS);
    bands.into_par_iter().enumerate().for_each(|(i, mut band)| {
        let columns = i * COLUMNS..i * COLUMNS + band.columns;
        for (d, &token) in d_out.chunks_exact(width).zip(tokens) {
            simd::add(band.row(token as usize), &d[columns.clone()]);
        }
    });
}
