//! Causal grouped-query attention in tiles: memory grows with the sequence, not with its square (Dao et al. 2022).

use super::matrix::{Matrix, MatrixMut, product};
use super::{math, simd};
use crate::stage::Arena;
use rayon::prelude::*;

/// Queries per tile.
const QUERIES: usize = 64;
/// Keys per tile.
const KEYS: usize = 512;

/// Shape of one attention layer. Rows of `qkv` hold all query heads, then all key heads, then all value heads.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Layer {
    pub(crate) batch: usize,
    pub(crate) time: usize,
    pub(crate) heads: usize,
    pub(crate) kv_heads: usize,
    pub(crate) width: usize,
}

impl Layer {
    fn rows(self) -> usize {
        self.batch * self.time
    }

    fn group(self) -> usize {
        self.heads / self.kv_heads
    }

    /// Numbers per row of `qkv`.
    pub(crate) fn row(self) -> usize {
        (self.heads + 2 * self.kv_heads) * self.width
    }

    /// Numbers of the largest tile of scores.
    pub(crate) fn tile(self) -> usize {
        QUERIES.min(self.time) * KEYS.min(self.time)
    }

    fn scale(self) -> f32 {
        1.0 / (self.width as f32).sqrt()
    }

    fn queries(self, qkv: Matrix<'_>, head: usize) -> Matrix<'_> {
        qkv.columns(head * self.width, self.width)
    }

    fn keys(self, qkv: Matrix<'_>, kv_head: usize) -> Matrix<'_> {
        qkv.columns((self.heads + kv_head) * self.width, self.width)
    }

    fn values(self, qkv: Matrix<'_>, kv_head: usize) -> Matrix<'_> {
        qkv.columns((self.heads + self.kv_heads + kv_head) * self.width, self.width)
    }
}

/// Tiles of keys that queries `start..start + n` see: (first key, keys).
fn key_tiles(start: usize, n: usize) -> impl Iterator<Item = (usize, usize)> {
    let end = start + n;
    (0..end.div_ceil(KEYS)).map(move |i| (i * KEYS, KEYS.min(end - i * KEYS)))
}

/// `out = softmax(q kᵀ / √width) v` per head; `log_sums` `[rows, heads]` keeps each row's log of the sum of exponentials.
pub(crate) fn forward(qkv: &[f32], shape: Layer, out: &mut [f32], log_sums: &mut [f32], arena: &Arena) {
    let qkv = Matrix::new(qkv, shape.rows(), shape.row());
    let sequences = MatrixMut::new(out, shape.rows(), shape.heads * shape.width).row_tiles(shape.time);
    let sums = MatrixMut::new(log_sums, shape.rows(), shape.heads).row_tiles(shape.time);
    let tasks: Vec<_> = sequences
        .into_iter()
        .zip(sums)
        .enumerate()
        .flat_map(|(b, (out, sums))| {
            let tiles = out.tiles(QUERIES, shape.width).into_iter().zip(sums.tiles(QUERIES, 1));
            tiles.enumerate().map(move |(i, tile)| (b, i, tile))
        })
        .collect();
    tasks.into_par_iter().for_each(|(b, i, (mut out, mut sums))| {
        let (start, head) = (i / shape.heads * QUERIES, i % shape.heads);
        let qkv = qkv.rows(b * shape.time, shape.time);
        let mut scores = arena.take(shape.tile());
        forward_tile(qkv, shape, head, start, &mut out, &mut sums, &mut scores);
        arena.give(scores);
    });
}

fn forward_tile(
    qkv: Matrix<'_>,
    shape: Layer,
    head: usize,
    start: usize,
    out: &mut MatrixMut<'_>,
    log_sums: &mut MatrixMut<'_>,
    scores: &mut [f32],
) {
    let (n, scale) = (out.rows, shape.scale());
    let queries = shape.queries(qkv, head).rows(start, n);
    let kv_head = head / shape.group();
    let mut greatest = [f32::NEG_INFINITY; QUERIES];
    let mut sums = [0.0f32; QUERIES];
    for (first, keys) in key_tiles(start, n) {
        let tile = &mut scores[..n * keys];
        let k = shape.keys(qkv, kv_head).rows(first, keys);
        product(&mut MatrixMut::new(tile, n, keys), queries, k.transposed(), false);
        for (r, row) in tile.chunks_exact_mut(keys).enumerate() {
            // A query sees the keys up to its own position.
            let (seen, hidden) = row.split_at_mut((start + r + 1).saturating_sub(first).min(keys));
            hidden.fill(0.0);
            let before = greatest[r];
            let now = before.max(simd::maximum(seen) * scale);
            let sum = simd::exp_sum(seen, scale, now);
            if first == 0 {
                sums[r] = sum;
            } else if seen.is_empty() {
                continue;
            } else {
                let [shrink] = exp_one(before - now);
                sums[r] = sums[r] * shrink + sum;
                simd::scale(out.row(r), shrink);
            }
            greatest[r] = now;
        }
        let v = shape.values(qkv, kv_head).rows(first, keys);
        product(out, Matrix::new(tile, n, keys), v, first > 0);
    }
    for r in 0..n {
        simd::scale(out.row(r), 1.0 / sums[r]);
        log_sums.row(r)[0] = greatest[r] + math::ln(f64::from(sums[r])) as f32;
    }
}

fn exp_one(x: f32) -> [f32; 1] {
    let mut one = [x];
    simd::exp_sum(&mut one, 1.0, 0.0);
    one
}

/// `d_qkv` from `d_out`, with the scores computed once more, tile by tile. Each task is one key head of one sequence.
pub(crate) fn backward(
    qkv: &[f32],
    shape: Layer,
    out: &[f32],
    log_sums: &[f32],
    d_out: &[f32],
    d_qkv: &mut [f32],
    arena: &Arena,
) {
    let (rows, d, width) = (shape.rows(), shape.heads * shape.width, shape.width);
    let qkv = Matrix::new(qkv, rows, shape.row());
    let (out, d_out) = (Matrix::new(out, rows, d), Matrix::new(d_out, rows, d));
    let log_sums = Matrix::new(log_sums, rows, shape.heads);
    let tasks: Vec<_> = MatrixMut::new(d_qkv, rows, shape.row())
        .row_tiles(shape.time)
        .into_iter()
        .enumerate()
        .flat_map(|(b, sequence)| {
            let (queries, keys_values) = sequence.split_columns(d);
            let (keys, values) = keys_values.split_columns(shape.kv_heads * width);
            let queries = queries.column_tiles(shape.group() * width);
            let tiles = queries.into_iter().zip(keys.column_tiles(width)).zip(values.column_tiles(width));
            tiles.enumerate().map(move |(kv_head, ((q, k), v))| (b, kv_head, q, k, v))
        })
        .collect();
    tasks.into_par_iter().for_each(|(b, kv_head, d_queries, mut d_keys, mut d_values)| {
        let start = b * shape.time;
        let sequence = Sequence {
            qkv: qkv.rows(start, shape.time),
            out: out.rows(start, shape.time),
            d_out: d_out.rows(start, shape.time),
            log_sums: log_sums.rows(start, shape.time),
        };
        for r in 0..shape.time {
            d_keys.row(r).fill(0.0);
            d_values.row(r).fill(0.0);
        }
        let (mut p, mut d_p) = (arena.take(shape.tile()), arena.take(shape.tile()));
        for (i, d_queries) in d_queries.column_tiles(width).into_iter().enumerate() {
            let head = kv_head * shape.group() + i;
            backward_head(&sequence, shape, head, d_queries, &mut d_keys, &mut d_values, (&mut p, &mut d_p));
        }
        arena.give(p);
        arena.give(d_p);
    });
}

/// What a task of the backward pass reads.
struct Sequence<'a> {
    qkv: Matrix<'a>,
    out: Matrix<'a>,
    d_out: Matrix<'a>,
    log_sums: Matrix<'a>,
}

fn backward_head(
    sequence: &Sequence<'_>,
    shape: Layer,
    head: usize,
    d_queries: MatrixMut<'_>,
    d_keys: &mut MatrixMut<'_>,
    d_values: &mut MatrixMut<'_>,
    (p, d_p): (&mut [f32], &mut [f32]),
) {
    let (width, scale, kv_head) = (shape.width, shape.scale(), head / shape.group());
    let out = sequence.out.columns(head * width, width);
    let d_out = sequence.d_out.columns(head * width, width);
    for (i, mut d_q) in d_queries.row_tiles(QUERIES).into_iter().enumerate() {
        let (start, n) = (i * QUERIES, d_q.rows);
        let q = shape.queries(sequence.qkv, head).rows(start, n);
        let d_o = d_out.rows(start, n);
        let mut means = [0.0; QUERIES];
        for (r, mean) in means[..n].iter_mut().enumerate() {
            *mean = simd::dot(d_o.row(r), out.row(start + r));
        }
        for (first, keys) in key_tiles(start, n) {
            let k = shape.keys(sequence.qkv, kv_head).rows(first, keys);
            let v = shape.values(sequence.qkv, kv_head).rows(first, keys);
            let (p, d_p) = (&mut p[..n * keys], &mut d_p[..n * keys]);
            product(&mut MatrixMut::new(p, n, keys), q, k.transposed(), false);
            for (r, row) in p.chunks_exact_mut(keys).enumerate() {
                let (seen, hidden) = row.split_at_mut((start + r + 1).saturating_sub(first).min(keys));
                simd::exp_sum(seen, scale, sequence.log_sums.row(start + r)[head]);
                hidden.fill(0.0);
            }
            product(&mut MatrixMut::new(d_p, n, keys), d_o, v.transposed(), false);
            product(&mut rows_of(d_values, first, keys), Matrix::new(p, n, keys).transposed(), d_o, true);
            for (r, (row, d_row)) in p.chunks_exact_mut(keys).zip(d_p.chunks_exact(keys)).enumerate() {
                simd::softmax_backward(row, d_row, means[r], scale);
            }
            product(&mut d_q, Matrix::new(p, n, keys), k, first > 0);
            product(&mut rows_of(d_keys, first, keys), Matrix::new(p, n, keys).transposed(), q, true);
        }
    }
}

fn rows_of<'a>(matrix: &'a mut MatrixMut<'_>, first: usize, rows: usize) -> MatrixMut<'a> {
    matrix.reborrow().split_rows(first).1.split_rows(rows).0
}
