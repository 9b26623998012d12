//! A seeded order of a pass over the data, without storing it.

use crate::random::mix;

/// Rounds of the Feistel network; 4 suffice for statistical quality, the rest is margin.
const ROUNDS: usize = 6;

/// A bijection of `0..size`, a pure function of (key, size).
///
/// A balanced Feistel network on the smallest even number of bits that holds `size`; a value that falls outside
/// `0..size` is permuted again until it is inside (cycle walking, fewer than 4 turns on average).
#[derive(Debug, Clone)]
pub struct Permutation {
    size: u64,
    half_bits: u32,
    keys: [u64; ROUNDS],
}

impl Permutation {
    /// The permutation of `0..size` under `key`. `size` is at least 1 and at most 2^62.
    pub fn new(key: &[u8; 32], size: u64) -> Self {
        assert!((1..=1 << 62).contains(&size), "sizes come from checked manifests");
        let bits = u64::BITS - (size - 1).leading_zeros();
        let mut bytes = [0; 8 * ROUNDS];
        blake3::Hasher::new_keyed(key).update(b"shoal permutation 1").finalize_xof().fill(&mut bytes);
        let keys = std::array::from_fn(|round| {
            u64::from_le_bytes(bytes[8 * round..][..8].try_into().expect("eight bytes"))
        });
        Self { size, half_bits: bits.div_ceil(2).max(1), keys }
    }

    /// Where `index` (below `size`) goes.
    pub fn apply(&self, index: u64) -> u64 {
        debug_assert!(index < self.size);
        let mut value = index;
        loop {
            value = self.network(value);
            if value < self.size {
                return value;
            }
        }
    }

    fn network(&self, value: u64) -> u64 {
        let mask = (1 << self.half_bits) - 1;
        let (mut left, mut right) = (value >> self.half_bits, value & mask);
        for key in self.keys {
            (left, right) = (right, left ^ (mix(right ^ key) & mask));
        }
        left << self.half_bits | right
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn golden_order() {
        let permutation = Permutation::new(&[7; 32], 10);
        let order: Vec<_> = (0..10).map(|i| permutation.apply(i)).collect();
        assert_eq!(order, [6, 8, 0, 5, 3, 1, 2, 9, 7, 4]);
    }

    #[test]
    fn first_places_are_even_over_keys() {
        let mut counts = [0; 10];
        for seed in 0..2000_u16 {
            let mut key = [0; 32];
            key[..2].copy_from_slice(&seed.to_le_bytes());
            counts[Permutation::new(&key, 10).apply(0) as usize] += 1;
        }
        assert!(counts.iter().all(|&count| (140..=260).contains(&count)), "{counts:?}");
    }

    proptest! {
        #[test]
        fn it_is_a_bijection(key: [u8; 32], size in 1_u64..3000) {
            let permutation = Permutation::new(&key, size);
            let mut seen = vec![false; size as usize];
            for index in 0..size {
                let value = permutation.apply(index);
                prop_assert!(value < size && !std::mem::replace(&mut seen[value as usize], true));
            }
        }

        #[test]
        fn large_sizes_stay_inside(key: [u8; 32], size in 1_u64..=1 << 62, index: u64) {
            prop_assert!(Permutation::new(&key, size).apply(index % size) < size);
        }
    }
}
