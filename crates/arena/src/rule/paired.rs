//! Takeover: by how much, and how surely, a challenger must be better.

use serde::{Deserialize, Serialize};
use wire::Hash;

use super::{Direction, from_ppm};
use crate::limits;
use crate::number::PPB;

/// What a challenger must do to lead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Takeover {
    /// How much better its raw score must be than the bar, 10⁻⁶.
    pub margin_ppm: u32,
    /// Level of the paired test on the inputs of the round, 10⁻⁶; 0 = no test.
    pub alpha_ppm: u32,
}

/// A challenger against the bar, input by input.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Comparison {
    /// Inputs on which the challenger was better.
    pub wins: u32,
    /// Inputs on which it was worse.
    pub losses: u32,
    /// Share of sign flips that do at least as well as the challenger, 10⁻⁹.
    pub p_ppb: u32,
}

impl Takeover {
    /// Raw score that leads from `bar`: 1 % better at a margin of 10 000 ppm. A bar below zero is moved the same way.
    pub fn threshold(&self, bar: f64, direction: Direction) -> f64 {
        let margin = from_ppm(u64::from(self.margin_ppm));
        let up = (direction == Direction::Higher) == (bar >= 0.0);
        if up { bar * (1.0 + margin) } else { bar * (1.0 - margin) }
    }

    /// Whether `raw` leads from `bar`. Equality with the bar itself never does. Without a bar a codec must score at all.
    pub fn clears(&self, raw: f64, bar: Option<f64>, direction: Direction) -> bool {
        let Some(bar) = bar else { return direction == Direction::Lower || raw > 0.0 };
        let threshold = self.threshold(bar, direction);
        direction.better(raw, bar) && !direction.better(threshold, raw)
    }

    /// Whether a comparison is sure enough when `challengers` tried in the round: the level is shared among them
    /// (Bonferroni), down to the finest step of the test.
    pub fn is_sure(&self, comparison: &Comparison, challengers: u32) -> bool {
        if self.alpha_ppm == 0 {
            return true;
        }
        let level = u64::from(self.alpha_ppm) * 1000 / u64::from(challengers.max(1));
        let finest = PPB.div_ceil(u64::from(limits::SIGN_FLIPS) + 1);
        u64::from(comparison.p_ppb) <= level.max(finest)
    }
}

/// One-sided paired randomisation test (R. A. Fisher, The Design of Experiments, §21): were both equally good, the sign
/// of each input's difference would be a coin. The coins come from `seed`, so everybody gets the same p-value.
pub fn sign_flip_test(seed: &Hash, bar: &[i128], challenger: &[i128]) -> Comparison {
    let gains: Vec<i128> = bar.iter().zip(challenger).map(|(bar, challenger)| bar - challenger).collect();
    let total: i128 = gains.iter().sum();
    let mut coins = Coins::new(seed);
    let mut as_good: u64 = 1;
    for _ in 0..limits::SIGN_FLIPS {
        let mut sum = 0;
        for chunk in gains.chunks(64) {
            let mut bits = coins.next();
            for gain in chunk {
                sum += if bits & 1 == 0 { *gain } else { -gain };
                bits >>= 1;
            }
        }
        as_good += u64::from(sum >= total);
    }
    Comparison {
        wins: gains.iter().filter(|gain| **gain > 0).count() as u32,
        losses: gains.iter().filter(|gain| **gain < 0).count() as u32,
        p_ppb: (as_good * PPB).div_ceil(u64::from(limits::SIGN_FLIPS) + 1) as u32,
    }
}

/// splitmix64 (S. Vigna), seeded by the first 8 bytes of a hash.
struct Coins(u64);

impl Coins {
    fn new(seed: &Hash) -> Self {
        let mut first = [0; 8];
        first.copy_from_slice(&seed.0[..8]);
        Self(u64::from_le_bytes(first))
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const APEX: Takeover = Takeover { margin_ppm: 10_000, alpha_ppm: 0 };
    const SURE: Takeover = Takeover { margin_ppm: 2_000, alpha_ppm: 10_000 };

    #[test]
    fn one_percent_both_ways() {
        let higher = |raw, bar| APEX.clears(raw, Some(bar), Direction::Higher);
        assert!(higher(101.0, 100.0) && !higher(100.999, 100.0));
        assert!(higher(2_020_000.0, 2_000_000.0) && !higher(2_019_999.0, 2_000_000.0));
        assert!(higher(-0.99, -1.0) && !higher(-0.995, -1.0) && !higher(-1.01, -1.0));
        let lower = |raw, bar| APEX.clears(raw, Some(bar), Direction::Lower);
        assert!(lower(99.0, 100.0) && !lower(99.5, 100.0));
        assert!(lower(-101.0, -100.0) && !lower(-100.5, -100.0));
        assert!(!higher(0.0, 0.0) && !lower(0.0, 0.0));
        assert!(APEX.clears(0.1, None, Direction::Higher) && !APEX.clears(0.0, None, Direction::Higher));
    }

    #[test]
    fn a_tie_never_displaces_even_without_a_margin() {
        let none = Takeover { margin_ppm: 0, alpha_ppm: 0 };
        assert!(!none.clears(5.0, Some(5.0), Direction::Higher));
        assert!(none.clears(5.000_001, Some(5.0), Direction::Higher));
    }

    #[test]
    fn noise_does_not_pass_and_a_steady_gain_does() {
        let bar: Vec<i128> = (0..100).map(|i| 1000 + i * 10).collect();
        let steady: Vec<i128> = bar.iter().map(|x| x - 3).collect();
        let seed = Hash::of(b"seed");
        let sure = sign_flip_test(&seed, &bar, &steady);
        assert_eq!((sure.wins, sure.losses), (100, 0));
        assert_eq!(sure.p_ppb, 50_000);
        assert!(SURE.is_sure(&sure, 100) && SURE.is_sure(&sure, 60_000));
        // Better on one input by much, worse on the others: a larger sum, and no proof.
        let lucky: Vec<i128> =
            bar.iter().enumerate().map(|(i, x)| if i == 0 { x - 900 } else { x + 5 }).collect();
        assert!(!SURE.is_sure(&sign_flip_test(&seed, &bar, &lucky), 1));
        let same = sign_flip_test(&seed, &bar, &bar);
        assert_eq!(same.p_ppb, 1_000_000_000);
    }

    #[test]
    fn the_level_is_shared_among_challengers() {
        let comparison = Comparison { wins: 60, losses: 40, p_ppb: 4_000_000 };
        assert!(
            SURE.is_sure(&comparison, 1) && SURE.is_sure(&comparison, 2) && !SURE.is_sure(&comparison, 3)
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn equal_codecs_seldom_pass(seed: [u8; 32], noise in proptest::collection::vec(-1000_i128..1000, 20..60)) {
            // The same differences with swapped roles: at most one of the two can be sure.
            let zero = vec![0; noise.len()];
            let seed = Hash(seed);
            let (one, other) = (sign_flip_test(&seed, &noise, &zero), sign_flip_test(&seed, &zero, &noise));
            prop_assert!(!(SURE.is_sure(&one, 1) && SURE.is_sure(&other, 1)));
            prop_assert_eq!((one.wins, one.losses), (other.losses, other.wins));
        }
    }
}
