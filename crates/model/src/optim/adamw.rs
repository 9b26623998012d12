//! AdamW (Loshchilov and Hutter 2019).

use crate::kernels::simd::{self, AdamStep};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

/// Numbers per task.
const PART: usize = 1 << 15;

/// AdamW's constants.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AdamW {
    /// Learning rate before the schedule's factor.
    pub rate: f32,
    /// Decay of the first moment.
    pub beta1: f32,
    /// Decay of the second moment.
    pub beta2: f32,
    /// Added to the root of the second moment.
    pub epsilon: f32,
    /// Decoupled weight decay; gains of norms don't decay.
    pub weight_decay: f32,
}

impl Default for AdamW {
    fn default() -> Self {
        AdamW { rate: 3e-3, beta1: 0.9, beta2: 0.95, epsilon: 1e-8, weight_decay: 0.1 }
    }
}

impl AdamW {
    #[expect(
        clippy::too_many_arguments,
        reason = "four slices, three numbers and a flag; private to the optimiser"
    )]
    pub(super) fn step(
        &self,
        step: u64,
        weights: &mut [f32],
        gradient: &[f32],
        first: &mut [f32],
        second: &mut [f32],
        scale: f32,
        rate: f32,
        decay: bool,
    ) {
        let (bias_1, bias_2) = (1.0 - power(self.beta1, step), 1.0 - power(self.beta2, step));
        let rate = f64::from(self.rate) * f64::from(rate);
        let decay = if decay { f64::from(self.weight_decay) } else { 0.0 };
        let constants = AdamStep {
            scale,
            beta1: self.beta1,
            beta2: self.beta2,
            rate: (rate / bias_1) as f32,
            keep: (1.0 - rate * decay) as f32,
            correction: (1.0 / bias_2.sqrt()) as f32,
            epsilon: self.epsilon,
        };
        weights
            .par_chunks_mut(PART)
            .zip(gradient.par_chunks(PART))
            .zip(first.par_chunks_mut(PART))
            .zip(second.par_chunks_mut(PART))
            .for_each(|(((w, g), m), v)| simd::adamw(w, g, m, v, &constants));
    }
}

/// x to the n-th by squaring: the same bits everywhere.
fn power(x: f32, mut n: u64) -> f64 {
    let (mut base, mut result) = (f64::from(x), 1.0);
    while n > 0 {
        if n & 1 == 1 {
            result *= base;
        }
        base *= base;
        n >>= 1;
    }
    result
}
