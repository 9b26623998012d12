//! Muon (Jordan et al. 2024): momentum, orthogonalised by a Newton–Schulz iteration.

use super::AdamW;
use crate::kernels::matrix::{Matrix, MatrixMut};
use crate::kernels::{linear, simd};
use crate::stage::Arena;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

/// Coefficients of the quintic iteration, as published with Muon.
const QUINTIC: (f32, f32, f32) = (3.4445, -4.775, 2.0315);
const ITERATIONS: usize = 5;
/// Numbers per task of element-wise passes.
const PART: usize = 1 << 15;

/// Muon's constants.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Muon {
    /// Learning rate of matrices before the schedule's factor; a matrix with more rows than columns gets
    /// √(rows / columns) times as much.
    pub rate: f32,
    /// Momentum, with Nesterov's look-ahead.
    pub momentum: f32,
    /// Decoupled weight decay of matrices.
    pub weight_decay: f32,
    /// For everything that is no matrix.
    pub adamw: AdamW,
}

impl Default for Muon {
    fn default() -> Self {
        Muon { rate: 0.02, momentum: 0.95, weight_decay: 0.1, adamw: AdamW::default() }
    }
}

impl Muon {
    #[expect(
        clippy::too_many_arguments,
        reason = "three slices, a shape and two factors; private to the optimiser"
    )]
    pub(super) fn step(
        &self,
        weights: &mut [f32],
        gradient: &[f32],
        momentum: &mut [f32],
        (rows, columns): (usize, usize),
        scale: f32,
        rate: f32,
        arena: &Arena,
    ) {
        let mut update = arena.take(rows * columns);
        gradient
            .par_chunks(PART)
            .zip(momentum.par_chunks_mut(PART))
            .zip(update.par_chunks_mut(PART))
            .for_each(|((g, m), u)| simd::nesterov(g, scale, self.momentum, m, u));
        let update = orthogonalise(update, rows, columns, arena);
        let rate = self.rate * rate;
        let keep = 1.0 - rate * self.weight_decay;
        let tall = (rows as f32 / columns as f32).max(1.0).sqrt();
        weights
            .par_chunks_mut(PART)
            .zip(update.par_chunks(PART))
            .for_each(|(w, u)| simd::blend(w, keep, -rate * tall, u));
        arena.give(update);
    }
}

/// Moves all singular values of a matrix close to 1. Works on the wide side up, as `x` or its transposed.
fn orthogonalise(update: Vec<f32>, rows: usize, columns: usize, arena: &Arena) -> Vec<f32> {
    let (short, long) = (rows.min(columns), rows.max(columns));
    let tall = rows > columns;
    let mut x = update;
    if tall {
        let wide = transposed(&x, rows, columns, arena);
        arena.give(std::mem::replace(&mut x, wide));
    }
    // Sums of fixed parts, added in order.
    let sums: Vec<f64> = x.par_chunks(PART).map(simd::square_sum).collect();
    let norm = sums.iter().sum::<f64>().sqrt();
    let inverse = (1.0 / (norm + 1e-7)) as f32;
    x.par_chunks_mut(PART).for_each(|part| simd::scale(part, inverse));
    let (mut gram, mut square, mut next) =
        (arena.take(short * short), arena.take(short * short), arena.take(short * long));
    let (a, b, c) = QUINTIC;
    for _ in 0..ITERATIONS {
        let rows = Matrix::new(&x, short, long);
        linear::forward(rows, rows, MatrixMut::new(&mut gram, short, short), false);
        let g = Matrix::new(&gram, short, short);
        linear::multiply(MatrixMut::new(&mut square, short, short), g, g, false);
        gram.par_chunks_mut(PART).zip(square.par_chunks(PART)).for_each(|(g, s)| simd::blend(g, b, c, s));
        let polynomial = Matrix::new(&gram, short, short);
        linear::multiply(MatrixMut::new(&mut next, short, long), polynomial, rows, false);
        x.par_chunks_mut(PART).zip(next.par_chunks(PART)).for_each(|(x, n)| simd::blend(x, a, 1.0, n));
    }
    for buffer in [gram, square, next] {
        arena.give(buffer);
    }
    if !tall {
        return x;
    }
    let result = transposed(&x, columns, rows, arena);
    arena.give(x);
    result
}

/// `[rows, columns]` as `[columns, rows]`.
fn transposed(x: &[f32], rows: usize, columns: usize, arena: &Arena) -> Vec<f32> {
    let mut out = arena.take(rows * columns);
    out.par_chunks_mut(rows).enumerate().for_each(|(c, out)| {
        for (r, out) in out.iter_mut().enumerate() {
            *out = x[r * columns + c];
        }
    });
    out
}
