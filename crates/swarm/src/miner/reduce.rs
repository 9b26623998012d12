//! Arithmetic of the merge over plain slices: encodings with error feedback, reductions, outer step, hashes.
//!
//! Every sum has a declared order, multiplication and addition are separate (no fused operation), so every CPU gives
//! the same bits. All functions work on runs of whole leaves, so a driver may split a shard among threads.

use std::ops::Range;

use wire::{Epoch, Hash, merkle};

use crate::spec::{MergeWire, Outer};

/// Elements that the loops below take at a time; a divisor of every leaf.
pub const BLOCK: usize = 4096;

/// Numbers that are not finite where only finite ones can be merged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a number of the upload is not finite")]
pub struct NotFinite;

/// Encodes the pseudo-gradient with error feedback: u = Q(θ_e − θ + r), r' = θ_e − θ + r − u.
///
/// All slices cover the same elements; `encoded` has [`MergeWire::width`] bytes per element.
pub fn encode_upload(
    wire: MergeWire,
    opened: &[f32],
    trained: &[f32],
    residual: &[f32],
    encoded: &mut [u8],
    next_residual: &mut [f32],
) -> Result<(), NotFinite> {
    let mut finite = true;
    let inputs = opened.iter().zip(trained).zip(residual).zip(next_residual);
    match wire {
        MergeWire::F32 => {
            for ((((opened, trained), residual), next), bytes) in inputs.zip(encoded.as_chunks_mut().0) {
                let exact = opened - trained + residual;
                finite &= exact.is_finite();
                *bytes = exact.to_le_bytes();
                *next = 0.0;
            }
        }
        MergeWire::Bf16 => {
            for ((((opened, trained), residual), next), bytes) in inputs.zip(encoded.as_chunks_mut().0) {
                let exact = opened - trained + residual;
                finite &= exact.is_finite();
                let bits = nearest_bf16(exact);
                *bytes = bits.to_le_bytes();
                *next = exact - from_bf16(bits);
            }
        }
    }
    if finite { Ok(()) } else { Err(NotFinite) }
}

/// Decodes an upload or a result.
pub fn decode(wire: MergeWire, encoded: &[u8], values: &mut [f32]) {
    match wire {
        MergeWire::F32 => {
            for (value, bytes) in values.iter_mut().zip(encoded.as_chunks().0) {
                *value = f32::from_le_bytes(*bytes);
            }
        }
        MergeWire::Bf16 => {
            for (value, bytes) in values.iter_mut().zip(encoded.as_chunks().0) {
                *value = from_bf16(u16::from_le_bytes(*bytes));
            }
        }
    }
}

/// Sum of squares of an encoded upload's range; refuses what is not finite.
///
/// Declared tree: blocks of 4096 elements from the start of the range; within a block f64 lane i mod 8 adds in order
/// and the lanes add as ((0+4)+(2+6))+((1+5)+(3+7)); blocks add in order.
pub fn square_sum(wire: MergeWire, encoded: &[u8]) -> Result<f64, NotFinite> {
    let mut values = [0.0f32; BLOCK];
    let mut sum = 0.0;
    let mut finite = true;
    for bytes in encoded.chunks(BLOCK * wire.width()) {
        let values = &mut values[..bytes.len() / wire.width()];
        decode(wire, bytes, values);
        let mut lanes = [0.0f64; 8];
        for eight in values.chunks(8) {
            for (lane, value) in lanes.iter_mut().zip(eight) {
                finite &= value.is_finite();
                let value = f64::from(*value);
                *lane += value * value;
            }
        }
        let [a, b, c, d, e, f, g, h] = lanes;
        sum += ((a + e) + (c + g)) + ((b + f) + (d + h));
    }
    if finite { Ok(sum) } else { Err(NotFinite) }
}

/// What the log knows of one uploader, for its weight in the mean.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Share {
    /// Micro-batches that its steps contain (B_m).
    pub batches: u64,
    /// Inner steps taken (a_m).
    pub steps: u32,
    /// Clip factor c_m, in (0, 1].
    pub clip: f64,
}

/// Factors of d̄ = Σ w_m u_m over the uploaders whose bit is set: w_m = τ̄ p_m c_m / a_m (protocol §1.2 step 5), with
/// p_m = B_m / ΣB over the bitmap and τ̄ = Σ p_m a_m over the whole set. Shares are capped at 4/N' and renormalised once
/// N' ≥ 4. In f64, in set order; 0 where the bit is not set.
pub fn weights(set: &[Share], bitmap: u64) -> Vec<f32> {
    let all = portions(set, u64::MAX);
    let mean_steps = set.iter().zip(&all).fold(0.0, |sum, (share, p)| sum + p * f64::from(share.steps));
    portions(set, bitmap)
        .iter()
        .zip(set)
        .map(|(p, share)| match share.steps {
            0 => 0.0,
            steps => (mean_steps * p * share.clip / f64::from(steps)) as f32,
        })
        .collect()
}

fn portions(set: &[Share], bitmap: u64) -> Vec<f64> {
    let batches: Vec<f64> = set
        .iter()
        .enumerate()
        .map(|(i, share)| {
            let counts = i < 64 && bitmap >> i & 1 == 1 && share.steps > 0;
            if counts { share.batches as f64 } else { 0.0 }
        })
        .collect();
    let sum = |values: &[f64]| values.iter().fold(0.0, |sum, value| sum + value);
    let total = sum(&batches);
    if total == 0.0 {
        return batches;
    }
    let portions: Vec<f64> = batches.iter().map(|b| b / total).collect();
    let count = batches.iter().filter(|b| **b > 0.0).count();
    if count < 4 {
        return portions;
    }
    let cap = 4.0 / count as f64;
    let capped: Vec<f64> = portions.iter().map(|p| p.min(cap)).collect();
    let total = sum(&capped);
    capped.iter().map(|p| p / total).collect()
}

/// Seeded rounding of a lossy result: unbiased, and the same for everybody who reduces the shard.
#[derive(Clone, Copy, Debug)]
pub struct Dither(u64);

impl Dither {
    /// For shard `shard` of the merge with this seed.
    pub fn new(seed: &Hash, shard: u16) -> Self {
        let hash = Hash::of_parts("shoal 2026-11 merge dither", &[&seed.0, &shard.to_le_bytes()]);
        let (first, _) = hash.0.split_first_chunk().expect("a hash is longer than 8 bytes");
        Self(u64::from_le_bytes(*first))
    }

    /// Sixteen bits for each of the elements 4i … 4i + 3 of the stage's flat vector (splitmix64's finaliser over a
    /// counter).
    fn four(self, i: u64) -> u64 {
        let mut z = self.0.wrapping_add(i.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

/// d̄ = w_0 u_0 + w_1 u_1 + …, in the order given, encoded. Without summands: zeros.
///
/// `first`: index of the first element in the stage's flat vector, a multiple of 4. `encoded` gives the length.
pub fn reduce(wire: MergeWire, summands: &[(f32, &[u8])], dither: Dither, first: usize, encoded: &mut [u8]) {
    let mut sum = [0.0f32; BLOCK];
    let mut values = [0.0f32; BLOCK];
    let width = wire.width();
    for (block, out) in encoded.chunks_mut(BLOCK * width).enumerate() {
        let bytes = block * BLOCK * width..block * BLOCK * width + out.len();
        let count = out.len() / width;
        let (sum, values) = (&mut sum[..count], &mut values[..count]);
        sum.fill(0.0);
        for (position, (weight, upload)) in summands.iter().enumerate() {
            decode(wire, &upload[bytes.clone()], values);
            if position == 0 {
                for (sum, value) in sum.iter_mut().zip(&*values) {
                    *sum = weight * value;
                }
            } else {
                for (sum, value) in sum.iter_mut().zip(&*values) {
                    let product = weight * value;
                    *sum += product;
                }
            }
        }
        encode_result(wire, dither, first + block * BLOCK, sum, out);
    }
}

fn encode_result(wire: MergeWire, dither: Dither, first: usize, sum: &[f32], out: &mut [u8]) {
    match wire {
        MergeWire::F32 => {
            for (value, bytes) in sum.iter().zip(out.as_chunks_mut().0) {
                *bytes = value.to_le_bytes();
            }
        }
        MergeWire::Bf16 => {
            for (group, (values, out)) in sum.chunks(4).zip(out.chunks_mut(8)).enumerate() {
                let mut random = dither.four((first / 4 + group) as u64);
                for (value, bytes) in values.iter().zip(out.as_chunks_mut().0) {
                    *bytes = dithered_bf16(*value, random as u16).to_le_bytes();
                    random >>= 16;
                }
            }
        }
    }
}

/// Decodes a result of the merge that ends `epoch` and takes the outer step on a range of weights and momentum, in place.
///
/// `momentum` is empty for [`Outer::Identity`], which has none.
pub fn outer_step(
    wire: MergeWire,
    outer: Outer,
    epoch: Epoch,
    result: &[u8],
    weights: &mut [f32],
    momentum: &mut [f32],
) {
    let mu = outer.momentum(epoch);
    let mut mean = [0.0f32; BLOCK];
    for (block, weights) in weights.chunks_mut(BLOCK).enumerate() {
        let start = block * BLOCK;
        let mean = &mut mean[..weights.len()];
        decode(wire, &result[start * wire.width()..(start + weights.len()) * wire.width()], mean);
        match outer {
            Outer::Identity => {
                for (weight, mean) in weights.iter_mut().zip(&*mean) {
                    *weight -= mean;
                }
            }
            Outer::Nesterov { learning_rate, .. } => {
                let momentum = &mut momentum[start..start + weights.len()];
                for ((weight, momentum), mean) in weights.iter_mut().zip(momentum).zip(&*mean) {
                    let carried = mu * *momentum;
                    *momentum = carried + mean;
                    let ahead = mu * *momentum;
                    let step = learning_rate * (mean + ahead);
                    *weight -= step;
                }
            }
        }
    }
}

/// Whether an outer optimiser keeps a momentum vector.
pub fn has_momentum(outer: Outer) -> bool {
    match outer {
        Outer::Identity => false,
        Outer::Nesterov { .. } => true,
    }
}

/// Hashes of the leaves that `bytes` covers: a run of whole leaves of a vector of `elements`, beginning with element
/// `first`, `width` bytes each.
pub fn leaf_hashes(elements: usize, first: usize, width: usize, bytes: &[u8]) -> Vec<Hash> {
    let size = merkle::leaf_elements(elements);
    let first = first / size;
    let leaves = bytes.chunks(size * width).enumerate();
    let hashes: Vec<Hash> = leaves.map(|(i, leaf)| merkle::leaf_hash(first + i, leaf)).collect();
    if hashes.is_empty() { vec![merkle::leaf_hash(first, &[])] } else { hashes }
}

/// State hash of a shard: roots over its leaves of weights and of momentum. Without momentum the second is the root of
/// no leaves.
pub fn state_hash(weight_leaves: &[Hash], momentum_leaves: &[Hash]) -> Hash {
    let (weights, momentum) = (merkle::root(weight_leaves), merkle::root(momentum_leaves));
    Hash::of_parts("shoal 2026-11 shard state", &[&weights.0, &momentum.0])
}

/// State hash of a range computed from its numbers; `momentum` empty if there is none.
pub fn state_of(elements: usize, range: Range<usize>, weights: &[f32], momentum: &[f32]) -> Hash {
    let leaves = |values: &[f32]| leaf_hashes(elements, range.start, 4, bytes_of(values));
    let momentum = if momentum.is_empty() { Vec::new() } else { leaves(momentum) };
    state_hash(&leaves(weights), &momentum)
}

/// Little-endian bytes of numbers.
pub fn bytes_of(values: &[f32]) -> &[u8] {
    const { assert!(cfg!(target_endian = "little"), "vectors are hashed and sent as they lie in memory") };
    bytemuck::cast_slice(values)
}

/// Adds an upload to a residual, once, for a shard that kept its old value.
pub fn carry(wire: MergeWire, encoded: &[u8], residual: &mut [f32]) {
    let mut values = [0.0f32; BLOCK];
    for (residual, bytes) in residual.chunks_mut(BLOCK).zip(encoded.chunks(BLOCK * wire.width())) {
        let values = &mut values[..residual.len()];
        decode(wire, bytes, values);
        for (residual, value) in residual.iter_mut().zip(&*values) {
            *residual += value;
        }
    }
}

fn from_bf16(bits: u16) -> f32 {
    f32::from_bits(u32::from(bits) << 16)
}

/// Largest finite bf16.
const BF16_MAX: u32 = 0x7f7f;

/// To the nearest, ties to even; finite numbers stay finite.
fn nearest_bf16(value: f32) -> u16 {
    let bits = value.to_bits();
    clamp_bf16(bits, bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16)
}

/// Up or down with a probability proportional to nearness; finite numbers stay finite.
fn dithered_bf16(value: f32, random: u16) -> u16 {
    let bits = value.to_bits();
    clamp_bf16(bits, bits.wrapping_add(u32::from(random)) >> 16)
}

/// `rounded` of `bits`; a finite number that rounding made infinite becomes the largest, others keep their upper half.
fn clamp_bf16(bits: u32, rounded: u32) -> u16 {
    let finite = bits & 0x7f80_0000 != 0x7f80_0000;
    let magnitude = if finite {
        (rounded & 0x7fff).min(BF16_MAX)
    } else {
        // Not a number stays so, even if only lower bits said it.
        (bits >> 16 & 0x7fff) | (0x40 * u32::from(bits & 0x7f_ffff != 0))
    };
    ((bits >> 16 & 0x8000) | magnitude) as u16
}

#[cfg(test)]
mod tests;
