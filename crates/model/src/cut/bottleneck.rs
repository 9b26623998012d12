//! IOTA's bottleneck block with uninterrupted residual.

use super::Shape;
use crate::config::{ModelConfig, ParameterKind};

pub(super) fn sender_parameters(model: &ModelConfig, width: usize, i: usize) -> Vec<Shape> {
    vec![(format!("cut.{i}.encoder.weight"), vec![width, model.d_model], ParameterKind::Matrix)]
}

pub(super) fn receiver_parameters(model: &ModelConfig, width: usize, i: usize) -> Vec<Shape> {
    vec![(format!("cut.{i}.decoder.weight"), vec![model.d_model, width], ParameterKind::Matrix)]
}
