//! Optimisers over a stage's flat weights: AdamW, Muon, learning-rate schedules.

mod adamw;
mod muon;
mod schedule;

pub use adamw::AdamW;
pub use muon::Muon;
pub use schedule::Schedule;

use crate::config::{ConfigError, ParameterKind, StageSpec, rule};
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

impl OptimiserConfig {
    /// Refuses rates, decays and betas that no run can use.
    pub fn check(&self) -> Result<(), ConfigError> {
        let rate = |key, x: f32| rule(key, &x, (0.0..=10.0).contains(&x), "must be from 0 to 10");
        let beta = |key, x: f32| rule(key, &x, (0.0..1.0).contains(&x), "must be from 0 to below 1");
        let adamw = match self {
            OptimiserConfig::Adamw(adamw) => adamw,
            OptimiserConfig::Muon(muon) => {
                rate("optimiser.rate", muon.rate)?;
                rate("optimiser.weight_decay", muon.weight_decay)?;
                beta("optimiser.momentum", muon.momentum)?;
                &muon.adamw
            }
        };
        rate("optimiser.adamw.rate", adamw.rate)?;
        rate("optimiser.adamw.weight_decay", adamw.weight_decay)?;
        beta("optimiser.adamw.beta1", adamw.beta1)?;
        beta("optimiser.adamw.beta2", adamw.beta2)?;
        let epsilon = adamw.epsilon;
        let allowed = "must be above 0 and at most 1";
        rule("optimiser.adamw.epsilon", &epsilon, epsilon > 0.0 && epsilon <= 1.0, allowed)
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
                Some(last) if last.range.end == range.start && last.decay == decay => {
                    last.range.end = range.end;
                }
                _ => segments.push(Segment { second: second - range.len(), range, decay }),
            }
        }
        let first = vec![0.0; spec.parameters()];
        Optimiser { config, segments, matrices, step: 0, first, second: vec![0.0; second] }
    }

    /// Steps the weights by the gradient sum times `scale`; `rate` is the schedule's factor.
    pub(crate) fn step(
        &mut self,
        weights: &mut [f32],
        gradient: &[f32],
        scale: f32,
        rate: f32,
        arena: &Arena,
    ) {
        self.step += 1;
        let adam = match self.config {
            OptimiserConfig::Adamw(adam) => adam,
            OptimiserConfig::Muon(muon) => {
                for place in &self.matrices {
                    let range = place.range.clone();
                    let (weights, momentum) = (&mut weights[range.clone()], &mut self.first[range.clone()]);
                    muon.step(
                        weights,
                        &gradient[range],
                        momentum,
                        (place.rows, place.columns),
                        scale,
                        rate,
                        arena,
                    );
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

/// Against PyTorch (fixtures made by `tests/fixtures/make.py`).
#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::checks::read_fixture;

    fn assert_close(got: &[f32], want: &[f32], tolerance: f32) {
        let off = got.iter().zip(want).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(got.len() == want.len() && off < tolerance, "off by {off}");
    }

    #[test]
    fn a_config_is_parsed_strictly_and_checked() {
        let parse = |text: &str| serde_json::from_str::<OptimiserConfig>(text);
        let muon = parse(r#"{"kind":"muon","rate":0.01,"adamw":{"rate":0.001}}"#).expect("known keys");
        let want = Muon { rate: 0.01, adamw: AdamW { rate: 0.001, ..AdamW::default() }, ..Muon::default() };
        assert_eq!(muon, OptimiserConfig::Muon(want));
        muon.check().expect("possible");
        assert!(parse(r#"{"kind":"adamw","raet":0.01}"#).is_err());
        let bad =
            parse(r#"{"kind":"adamw","beta2":1.0}"#).expect("known keys").check().expect_err("never decays");
        assert!(bad.to_string().starts_with("optimiser.adamw.beta2 = 1 is not possible"), "{bad}");
    }

    #[test]
    fn adamw_matches() {
        let fixture = read_fixture(include_bytes!("../tests/fixtures/optim.safetensors"));
        let mut weights = fixture["adamw.start"].clone();
        let (mut first, mut second) = (vec![0.0; 50], vec![0.0; 50]);
        for step in 0..5 {
            // The sum of four equal gradients, and their mean.
            let sum: Vec<f32> = fixture[&format!("adamw.gradient.{step}")].iter().map(|g| 4.0 * g).collect();
            AdamW::default().step(step + 1, &mut weights, &sum, &mut first, &mut second, 0.25, 1.0, true);
        }
        assert_close(&weights, &fixture["adamw.end"], 2e-6);
    }

    #[test]
    fn muon_matches_for_wide_and_tall_matrices() {
        let (fixture, arena) =
            (read_fixture(include_bytes!("../tests/fixtures/optim.safetensors")), Arena::default());
        for (name, shape) in [("wide", (6, 10)), ("tall", (12, 5))] {
            let mut weights = fixture[&format!("muon.{name}.start")].clone();
            let mut momentum = vec![0.0; weights.len()];
            for step in 0..3 {
                let gradient = &fixture[&format!("muon.{name}.gradient.{step}")];
                Muon::default().step(&mut weights, gradient, &mut momentum, shape, 1.0, 1.0, &arena);
            }
            assert_close(&weights, &fixture[&format!("muon.{name}.end")], 5e-6);
        }
    }

    #[test]
    fn muon_keeps_second_moments_only_for_what_adamw_steps() {
        let model = crate::config::ModelConfig::preset("micro").expect("known");
        let cut = crate::config::Cut::anchored(model.d_model);
        let spec = StageSpec::plan(&model, cut, 2, [0; 32]).expect("possible").remove(1);
        let adamw = Optimiser::new(OptimiserConfig::Adamw(AdamW::default()), &spec);
        assert_eq!(adamw.second.len(), spec.parameters());
        let muon = Optimiser::new(OptimiserConfig::default(), &spec);
        let matrices: usize = muon.matrices.iter().map(|m| m.range.len()).sum();
        assert_eq!(muon.second.len() + matrices, spec.parameters());
        assert!(muon.segments.iter().all(|s| s.second + s.range.len() <= muon.second.len()));
    }
}
