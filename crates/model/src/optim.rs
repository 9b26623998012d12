//! Optimisers over a stage's flat weights: AdamW, Muon, learning-rate schedules.

mod adamw;
mod muon;
mod schedule;

pub use adamw::AdamW;
pub use muon::Muon;
pub use schedule::{Schedule, ScheduleError};

use crate::config::{ParameterKind, StageSpec};
use crate::stage::Arena;
use serde::{Deserialize, Serialize};
use std::ops::Range;

/// Which optimiser, with its constants.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum OptimiserConfig {
    /// AdamW for everything.
    Adamw(AdamW),
    /// Muon for the matrices of blocks and cuts, AdamW for embeddings, tables, output layer and gains.
    Muon(Muon),
}

impl Default for OptimiserConfig {
    fn default() -> Self {
        OptimiserConfig::Muon(Muon::default())
    }
}

/// A run of parameters that AdamW treats alike.
#[derive(Debug, Clone)]
struct Segment {
    range: Range<usize>,
    /// Where its second moments start.
    second: usize,
    decay: bool,
}

/// A matrix that Muon steps.
#[derive(Debug, Clone)]
struct MatrixPlace {
    range: Range<usize>,
    rows: usize,
    columns: usize,
}

/// Moments and step count of a stage.
#[derive(Debug)]
pub(crate) struct Optimiser {
    config: OptimiserConfig,
    segments: Vec<Segment>,
    matrices: Vec<MatrixPlace>,
    pub(crate) step: u64,
    /// First moment (or Muon's momentum), one per parameter.
    pub(crate) first: Vec<f32>,
    /// Second moment, one per parameter of AdamW.
    pub(crate) second: Vec<f32>,
}

impl Optimiser {
    pub(crate) fn new(config: OptimiserConfig, spec: &StageSpec) -> Optimiser {
        let mut segments: Vec<Segment> = Vec::new();
        let mut matrices = Vec::new();
        let mut second = 0;
        for parameter in spec.layout() {
            let range = parameter.range();
            if parameter.kind == ParameterKind::Matrix && matches!(config, OptimiserConfig::Muon(_)) {
                matrices.push(MatrixPlace { range, rows: parameter.shape[0], columns: parameter.shape[1] });
                continue;
            }
            let decay = parameter.kind != ParameterKind::Vector;
            second += range.len();
            match segments.last_mut() {
                Some(last) if last.range.end == range.start && last.decay == decay => last.range.end = range.end,
                _ => segments.push(Segment { second: second - range.len(), range, decay }),
            }
        }
        let first = vec![0.0; spec.parameters()];
        Optimiser { config, segments, matrices, step: 0, first, second: vec![0.0; second] }
    }

    /// Steps the weights by the gradient sum times `scale`; `rate` is the schedule's factor.
    pub(crate) fn step(&mut self, weights: &mut [f32], gradient: &[f32], scale: f32, rate: f32, arena: &Arena) {
        self.step += 1;
        let adam = match self.config {
            OptimiserConfig::Adamw(adam) => adam,
            OptimiserConfig::Muon(muon) => {
                for place in &self.matrices {
                    let range = place.range.clone();
                    let (weights, momentum) = (&mut weights[range.clone()], &mut self.first[range.clone()]);
                    muon.step(weights, &gradient[range], momentum, (place.rows, place.columns), scale, rate, arena);
                }
                muon.adamw
            }
        };
        for Segment { range, second, decay } in &self.segments {
            let second = &mut self.second[*second..][..range.len()];
            let (weights, first) = (&mut weights[range.clone()], &mut self.first[range.clone()]);
            adam.step(self.step, weights, &gradient[range.clone()], first, second, scale, rate, *decay);
        }
    }
}
