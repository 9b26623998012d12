//! Counter-based random numbers in integer arithmetic: a number depends on key and position, never on order or CPU.

/// SplitMix64's finaliser (Steele, Lea, Flood 2014).
pub(crate) fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// A key from a seed and a label.
pub(crate) fn key(seed: &[u8; 32], label: &str) -> u64 {
    let words = seed.as_chunks::<8>().0.iter().map(|b| u64::from_le_bytes(*b));
    let label = label.bytes().map(u64::from);
    words.chain(label).fold(GOLDEN, |state, word| mix(state.wrapping_add(GOLDEN) ^ word))
}

/// A key derived from another and a number.
pub(crate) fn derive(key: u64, number: u64) -> u64 {
    mix(key ^ mix(number.wrapping_add(GOLDEN)))
}

/// 64 random bits at a position of a key's stream.
pub(crate) fn bits(key: u64, position: u64) -> u64 {
    mix(key.wrapping_add(position.wrapping_add(1).wrapping_mul(GOLDEN)))
}

/// Uniform in [0, 1) with 24 bits.
pub(crate) fn uniform(key: u64, position: u64) -> f32 {
    (bits(key, position) >> 40) as f32 / (1u32 << 24) as f32
}

/// Normal numbers as the sum of twelve 16-bit uniforms (variance exactly 1 up to 2⁻³², range ±6 deviations).
pub(crate) fn fill_normal(key: u64, deviation: f32, out: &mut [f32]) {
    for (i, x) in out.iter_mut().enumerate() {
        let sum: i32 = (0..3)
            .map(|j| bits(key, 3 * i as u64 + j))
            .map(|b| (0..4).map(|k| ((b >> (16 * k)) & 0xffff) as i32).sum::<i32>())
            .sum();
        *x = (sum - 6 * 0xffff) as f32 / 65_536.0 * deviation;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn normal_has_the_moments_of_a_normal() {
        let mut x = vec![0.0; 100_000];
        fill_normal(key(&[3; 32], "a"), 2.0, &mut x);
        let n = x.len() as f64;
        let mean = x.iter().map(|&v| f64::from(v)).sum::<f64>() / n;
        let variance = x.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>() / n;
        let fourth = x.iter().map(|&v| f64::from(v).powi(4)).sum::<f64>() / n / variance.powi(2);
        assert!(mean.abs() < 0.03, "{mean}");
        assert!((variance - 4.0).abs() < 0.08, "{variance}");
        assert!((fourth - 2.9).abs() < 0.1, "{fourth}"); // twelve uniforms: 3 − 0.1
    }

    #[test]
    fn streams_of_other_keys_and_labels_differ() {
        let a = key(&[0; 32], "a");
        assert_ne!(a, key(&[0; 32], "b"));
        assert_ne!(a, key(&[1; 32], "a"));
        assert_ne!(bits(derive(a, 0), 0), bits(derive(a, 1), 0));
        assert!((0..1000).all(|i| (0.0..1.0).contains(&uniform(a, i))));
    }

    /// A change here changes every run's starting point.
    #[test]
    fn the_first_numbers_are_fixed() {
        let mut x = [0.0; 3];
        fill_normal(key(&[0; 32], "model.norm.weight"), 1.0, &mut x);
        assert_eq!(x.map(f32::to_bits), GOLDEN_NORMAL);
    }

    const GOLDEN_NORMAL: [u32; 3] = [3_217_294_848, 3_198_073_344, 1_057_764_096];
}
