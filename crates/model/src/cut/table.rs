//! The receiving stage's token table, full or factorised: what the wire need not carry.

use super::{Shape, Site};
use crate::config::{ConfigError, ModelConfig, ParameterKind, Table, range, rule};
use crate::kernels::matrix::{Matrix, MatrixMut};
use crate::kernels::norm::Gradient;
use crate::kernels::{embedding, linear};

/// Refuses a table that does not fit the model.
pub(super) fn check(table: Table, model: &ModelConfig) -> Result<(), ConfigError> {
    match table {
        Table::Factorised { rank } => range("cut.table.factorised.rank", rank, 1..=model.d_model),
        Table::None | Table::Full => Ok(()),
    }
}

/// The same, and there must be one.
pub(super) fn check_given(table: Table, model: &ModelConfig) -> Result<(), ConfigError> {
    rule("cut.table", "none", table != Table::None, "must be full or factorised")?;
    check(table, model)
}

pub(super) fn parameters(model: &ModelConfig, table: Table, i: usize) -> Vec<Shape> {
    let (d, vocab) = (model.d_model, model.vocab);
    let shape = |name: &str, rows: usize, columns: usize| {
        (format!("cut.{i}.{name}.weight"), vec![rows, columns], ParameterKind::Table)
    };
    match table {
        Table::None => Vec::new(),
        Table::Full => vec![shape("table", vocab, d)],
        Table::Factorised { rank } => vec![shape("table.rows", vocab, rank), shape("table.basis", d, rank)],
    }
}

/// Adds each row's token to `out`, `[rows, d]`.
pub(super) fn add(site: Site<'_>, table: Table, weights: &[f32], out: &mut [f32]) {
    let (d, rows) = (site.model.d_model, site.rows());
    match table {
        Table::None => {}
        Table::Full => embedding::forward(weights, d, site.tokens, out, true),
        Table::Factorised { rank } => {
            let (table, basis) = weights.split_at(site.model.vocab * rank);
            let mut narrow = site.arena.take(rows * rank);
            embedding::forward(table, rank, site.tokens, &mut narrow, false);
            let narrow_rows = Matrix::new(&narrow, rows, rank);
            linear::forward(narrow_rows, Matrix::new(basis, d, rank), MatrixMut::new(out, rows, d), true);
            site.arena.give(narrow);
        }
    }
}

/// The table's gradient from that of the rows it was added to.
pub(super) fn backward(site: Site<'_>, table: Table, weights: &[f32], d_out: &[f32], gradient: Gradient<'_>) {
    let (d, rows) = (site.model.d_model, site.rows());
    let Gradient { to, accumulate } = gradient;
    match table {
        Table::None => {}
        Table::Full => embedding::backward(d_out, d, site.tokens, to, accumulate),
        Table::Factorised { rank } => {
            let (table, basis) = weights.split_at(site.model.vocab * rank);
            let (d_table, d_basis) = to.split_at_mut(table.len());
            let mut narrow = site.arena.take(rows * rank);
            embedding::forward(table, rank, site.tokens, &mut narrow, false);
            let d_out = Matrix::new(d_out, rows, d);
            let d_basis = MatrixMut::new(d_basis, d, rank);
            linear::backward_weight(d_out, Matrix::new(&narrow, rows, rank), d_basis, accumulate);
            let d_narrow = MatrixMut::new(&mut narrow, rows, rank);
            linear::backward_input(d_out, Matrix::new(basis, d, rank), d_narrow, false);
            embedding::backward(&narrow, rank, site.tokens, d_table, accumulate);
            site.arena.give(narrow);
        }
    }
}
