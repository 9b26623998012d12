//! Tensors from a seed: what a codec competition runs on when its spec names neither pool nor generator.
//!
//! They look like what crosses a cut: columns of different scale, a few of them far larger (outlier channels), low-rank
//! structure along the rows, rounded to bf16. Only integers and exact or singly rounded basic operations are used, so
//! that every judge gets the same bits.

use wire::Hash;

use crate::input::{Direction, Input, to_bf16};
use crate::plan::Random;

/// Rows and columns; the seed chooses.
const SHAPES: [(u32, u32); 4] = [(512, 256), (256, 512), (1024, 128), (1024, 256)];
/// Directions along the rows that all rows share.
const RANK: usize = 4;
/// One column in so many is an outlier.
const OUTLIER_EVERY: usize = 64;

/// Nearly normal: the mean of four uniform numbers, each within ±1, with 16 bits each.
fn noise(random: &mut Random) -> f32 {
    let bits = random.next();
    let sum: i32 = (0..4).map(|part| i32::from((bits >> (16 * part)) as u16 as i16)).sum();
    sum as f32 / 131_072.0
}

/// Input `index` of the round with this seed.
pub fn tensor(seed: &Hash, index: u32) -> Input {
    let seed = Hash::of_parts("shoal 2026-11 arena synthetic tensor", &[&seed.0, &index.to_le_bytes()]);
    let mut random = Random::new(&seed);
    let (rows, cols) = SHAPES[random.below(SHAPES.len())];
    let direction = if random.below(2) == 0 { Direction::Forward } else { Direction::Backward };
    let scales: Vec<f32> = (0..cols)
        .map(|_| {
            // Powers of two and one factor between: 2^-4 … 2^2.
            let octave = (1_u32 << random.below(7)) as f32 / 16.0;
            let outlier = if random.below(OUTLIER_EVERY) == 0 { 32.0 } else { 1.0 };
            octave * outlier
        })
        .collect();
    let shared: Vec<f32> = (0..RANK * cols as usize).map(|_| noise(&mut random)).collect();
    let mut values = Vec::with_capacity((rows * cols) as usize);
    for _ in 0..rows {
        let weights: [f32; RANK] = std::array::from_fn(|_| noise(&mut random));
        for (column, scale) in scales.iter().enumerate() {
            let mut value = noise(&mut random) * 0.5;
            for (part, weight) in weights.iter().enumerate() {
                value += weight * shared[part * cols as usize + column];
            }
            values.push(value * scale);
        }
    }
    Input::new(format!("synthetic-{index:04}"), Some(vec![rows, cols]), direction, to_bf16(&values))
        .expect("finite values of the shape's length")
}

/// The inputs of a round.
pub fn tensors(seed: &Hash, items: u32) -> Vec<Input> {
    (0..items).map(|index| tensor(seed, index)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_bits_everywhere() {
        let made = tensors(&Hash::of(b"round"), 3);
        assert_eq!(made, tensors(&Hash::of(b"round"), 3));
        assert_ne!(made[0].hash, tensor(&Hash::of(b"other"), 0).hash);
        assert_ne!(made[0].hash, made[1].hash);
        let all: Vec<&[u8]> = made.iter().map(|input| &input.hash.0[..]).collect();
        // Golden: a change here splits judges of different versions.
        assert_eq!(Hash::of_parts("golden", &all).short(), GOLDEN);
    }

    const GOLDEN: &str = "6ef1e9d097";
}
