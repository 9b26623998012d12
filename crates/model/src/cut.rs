//! What happens between two stages: one small trait, one file per cut.

mod anchored;
mod bottleneck;

use crate::config::{Cut, ModelConfig, ParameterKind, Table};

/// Name, shape and kind of a parameter.
pub(crate) type Shape = (String, Vec<usize>, ParameterKind);

/// Parameters of the sending half of cut `i`.
pub(crate) fn sender_parameters(cut: Cut, model: &ModelConfig, i: usize) -> Vec<Shape> {
    match cut {
        Cut::Plain { .. } | Cut::Nothing { .. } => Vec::new(),
        Cut::Bottleneck { width, .. } => bottleneck::sender_parameters(model, width, i),
        Cut::Anchored { width, .. } => anchored::sender_parameters(model, width, i),
    }
}

/// Parameters of the receiving half of cut `i`.
pub(crate) fn receiver_parameters(cut: Cut, model: &ModelConfig, i: usize) -> Vec<Shape> {
    match cut {
        Cut::Plain { .. } => Vec::new(),
        Cut::Nothing { table } => table_parameters(model, table, i),
        Cut::Bottleneck { width, .. } => bottleneck::receiver_parameters(model, width, i),
        Cut::Anchored { width, table, .. } => anchored::receiver_parameters(model, width, table, i),
    }
}

fn table_parameters(model: &ModelConfig, table: Table, i: usize) -> Vec<Shape> {
    let (d, vocab) = (model.d_model, model.vocab);
    match table {
        Table::None => Vec::new(),
        Table::Full => vec![(format!("cut.{i}.table.weight"), vec![vocab, d], ParameterKind::Table)],
        Table::Factorised { rank } => vec![
            (format!("cut.{i}.table.rows.weight"), vec![vocab, rank], ParameterKind::Table),
            (format!("cut.{i}.table.basis.weight"), vec![d, rank], ParameterKind::Table),
        ],
    }
}
