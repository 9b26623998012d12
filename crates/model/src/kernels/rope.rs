//! Rotary position embedding (Su et al. 2021), pairs (i, i + width/2) as in Hugging Face's Llama.

use super::{ROW_TILE, math, simd};
use crate::config::ModelConfig;
use rayon::prelude::*;

/// Cosines and sines `[sequence, head width / 2]`.
#[derive(Debug)]
pub(crate) struct Rope {
    cosine: Vec<f32>,
    sine: Vec<f32>,
    half: usize,
}

impl Rope {
    /// Tables for all positions of the model's sequence.
    pub(crate) fn new(model: &ModelConfig) -> Rope {
        let half = model.head_width() / 2;
        let frequencies: Vec<f64> = (0..half).map(|i| frequency(model, i)).collect();
        let mut rope = Rope {
            cosine: Vec::with_capacity(half * model.sequence),
            sine: Vec::with_capacity(half * model.sequence),
            half,
        };
        for position in 0..model.sequence {
            for f in &frequencies {
                let (sine, cosine) = math::sin_cos(position as f64 * f);
                rope.sine.push(sine as f32);
                rope.cosine.push(cosine as f32);
            }
        }
        rope
    }

    /// Bytes of the tables.
    pub(crate) fn bytes(model: &ModelConfig) -> usize {
        4 * model.sequence * model.head_width()
    }

    /// Rotates the first `heads` heads of every row of `x` in place; rows are `row` numbers wide, the position of a
    /// row is its index modulo `time`. `back` rotates by the opposite angle, which is the backward pass.
    pub(crate) fn apply(&self, x: &mut [f32], row: usize, heads: usize, time: usize, back: bool) {
        x.par_chunks_mut(ROW_TILE * row).enumerate().for_each(|(tile, rows)| {
            for (i, numbers) in rows.chunks_exact_mut(row).enumerate() {
                let position = (tile * ROW_TILE + i) % time;
                let angles = position * self.half..(position + 1) * self.half;
                let (cosine, sine) = (&self.cosine[angles.clone()], &self.sine[angles]);
                for head in numbers[..heads * 2 * self.half].chunks_exact_mut(2 * self.half) {
                    if back {
                        simd::rotate_back(head, cosine, sine);
                    } else {
                        simd::rotate(head, cosine, sine);
                    }
                }
            }
        });
    }
}

/// Angle per position of pair `i`, with Llama-3's scaling if the model has it.
fn frequency(model: &ModelConfig, i: usize) -> f64 {
    let width = model.head_width() as f64;
    let plain = math::exp(-math::ln(f64::from(model.rope_theta)) * (2 * i) as f64 / width);
    let Some(scaling) = model.rope_scaling else { return plain };
    let original = scaling.original_sequence as f64;
    let (low, high) = (f64::from(scaling.low_frequency_factor), f64::from(scaling.high_frequency_factor));
    let scaled = plain / f64::from(scaling.factor);
    let wave_length = 2.0 * std::f64::consts::PI / plain;
    if wave_length > original / low {
        scaled
    } else if wave_length < original / high {
        plain
    } else {
        let smooth = (original / wave_length - low) / (high - low);
        (1.0 - smooth) * scaled + smooth * plain
    }
}
