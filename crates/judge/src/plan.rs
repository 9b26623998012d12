//! In which order an entry is called: shuffled, and some inputs twice.
//!
//! An entry that carries something from one call to the next gives itself away: what it carries differs from judge to
//! judge, and between the two times that it sees one input (protocol §7 "Smuggling").

use wire::Hash;

use crate::limits;

/// One call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Call {
    /// Compress an input, for the first time or once more.
    Compress(usize),
    /// Decompress what the input's first compression gave.
    Decompress(usize),
}

/// splitmix64 (S. Vigna) seeded by a hash.
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: &Hash) -> Self {
        let mut state = 0;
        for part in seed.0.as_chunks::<8>().0 {
            state ^= u64::from_le_bytes(*part);
        }
        Self(state)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `n`, which must not be 0.
    pub(crate) fn below(&mut self, n: usize) -> usize {
        ((u128::from(self.next()) * n as u128) >> 64) as usize
    }

    pub(crate) fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last + 1));
        }
    }
}

/// Calls for `inputs` inputs: each compressed and decompressed, some twice, in an order that only `seed` tells.
pub(crate) fn calls(inputs: usize, seed: &Hash) -> Vec<Call> {
    let mut random = Random::new(seed);
    let mut order: Vec<usize> = (0..inputs).collect();
    random.shuffle(&mut order);
    let repeats = inputs.div_ceil(limits::REPEAT_EVERY).max(limits::REPEATS_MIN).min(inputs);
    let mut tokens: Vec<usize> = (0..inputs).flat_map(|input| [input, input]).collect();
    tokens.extend(order[..repeats].iter().flat_map(|input| [*input, *input]));
    random.shuffle(&mut tokens);
    // An input's first place in the order is its compression; then decompression, and both once more.
    let mut seen = vec![0_usize; inputs];
    let call = |input: usize| {
        seen[input] += 1;
        if seen[input] % 2 == 1 { Call::Compress(input) } else { Call::Decompress(input) }
    };
    tokens.into_iter().map(call).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_input_makes_the_round_trip_and_some_make_it_twice(inputs in 1_usize..200, seed in any::<u64>()) {
            let seed = Hash::of(&seed.to_le_bytes());
            let all = calls(inputs, &seed);
            let repeats = inputs.div_ceil(limits::REPEAT_EVERY).max(limits::REPEATS_MIN).min(inputs);
            prop_assert_eq!(all.len(), 2 * (inputs + repeats));
            let mut twice = 0;
            for input in 0..inputs {
                let places = |call| all.iter().enumerate().filter(move |(_, c)| **c == call).map(|(i, _)| i).collect::<Vec<_>>();
                let (compress, decompress) = (places(Call::Compress(input)), places(Call::Decompress(input)));
                prop_assert!(compress[0] < decompress[0]);
                prop_assert_eq!(compress.len(), decompress.len());
                twice += usize::from(compress.len() == 2);
            }
            prop_assert_eq!(twice, repeats);
            prop_assert_eq!(&all, &calls(inputs, &seed));
        }
    }

    #[test]
    fn the_seed_decides_the_order() {
        assert_ne!(calls(30, &Hash::of(b"a")), calls(30, &Hash::of(b"b")));
        assert_eq!(calls(0, &Hash::of(b"a")), []);
    }
}
