//! The token-anchored quantised cut.

use super::Shape;
use crate::config::{ModelConfig, ParameterKind, Table};

pub(super) fn sender_parameters(model: &ModelConfig, width: usize, i: usize) -> Vec<Shape> {
    vec![
        (format!("cut.{i}.norm.weight"), vec![model.d_model], ParameterKind::Vector),
        (format!("cut.{i}.down.weight"), vec![width, model.d_model], ParameterKind::Matrix),
    ]
}

pub(super) fn receiver_parameters(model: &ModelConfig, width: usize, table: Table, i: usize) -> Vec<Shape> {
    let mut shapes = vec![(format!("cut.{i}.up.weight"), vec![model.d_model, width], ParameterKind::Matrix)];
    shapes.extend(super::table_parameters(model, table, i));
    shapes
}
