//! Time beside the baseline: both on the same input, one right after the other, so that a loaded machine slows both.

use std::collections::BTreeMap;

/// Times of an entry and of the baseline on the same inputs, nanoseconds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Pairs {
    pairs: Vec<(usize, u64, u64)>,
}

impl Pairs {
    /// Adds a pair on an input; a time of zero is below the clock's grain and counts as one nanosecond.
    pub(crate) fn push(&mut self, input: usize, entry_ns: u64, baseline_ns: u64) {
        self.pairs.push((input, entry_ns.max(1), baseline_ns.max(1)));
    }

    /// Number of pairs.
    pub(crate) fn len(&self) -> usize {
        self.pairs.len()
    }

    /// How often an input was tried.
    pub(crate) fn tries(&self, input: usize) -> usize {
        self.pairs.iter().filter(|(of, _, _)| *of == input).count()
    }

    /// Lower 95 % bound of the median of entry ÷ baseline, from the order of the ratios alone (the sign test's
    /// confidence interval; W. J. Conover, Practical Nonparametric Statistics, §3.2): a few calls that the machine
    /// delayed move it by nothing. With fewer than 5 pairs there is no such bound, and the least ratio is taken.
    pub(crate) fn lower_bound(&self) -> Option<f64> {
        let mut ratios: Vec<f64> =
            self.pairs.iter().map(|(_, entry, baseline)| *entry as f64 / *baseline as f64).collect();
        ratios.sort_by(f64::total_cmp);
        ratios.get(rank(ratios.len())).copied()
    }

    /// Entry ÷ baseline, each by its least time on an input, added up over the inputs. What disturbs a machine (other
    /// work, its caches, its clock) only ever adds time, so the least of several tries is the steadiest (J. Chen and
    /// J. Revels, Robust benchmarking in noisy environments, 2016). Inputs that were tried less than half as often as the
    /// others do not count: their least is none.
    pub(crate) fn least_ratio(&self) -> Option<f64> {
        let mut least: BTreeMap<usize, (u64, u64, usize)> = BTreeMap::new();
        for (input, entry, baseline) in &self.pairs {
            let found = least.entry(*input).or_insert((u64::MAX, u64::MAX, 0));
            *found = (found.0.min(*entry), found.1.min(*baseline), found.2 + 1);
        }
        let most = least.values().map(|(_, _, tries)| *tries).max()?;
        let counted = || least.values().filter(|(_, _, tries)| tries * 2 >= most);
        let total =
            |of: fn(&(u64, u64, usize)) -> u64| counted().map(|found| u128::from(of(found))).sum::<u128>();
        Some(total(|found| found.0) as f64 / total(|found| found.1) as f64)
    }
}

/// Largest r with P(Binomial(n, ½) < r + 1) ≤ 5 %: the r-th smallest (from 0) is below the median with
/// at least 95 %. 0 if there is none.
fn rank(n: usize) -> usize {
    let mut term = 0.5_f64.powi(n as i32);
    let (mut sum, mut rank) = (0.0, 0);
    for k in 0..n {
        sum += term;
        if sum > 0.05 {
            break;
        }
        rank = k;
        term *= (n - k) as f64 / (k + 1) as f64;
    }
    rank
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ranks_of_the_sign_test() {
        // Tails of the binomial distribution: n = 8 → second smallest, n = 20 → sixth, n = 64 → twenty-fifth (from 1).
        assert_eq!([1, 4, 5, 8, 20, 64].map(rank), [0, 0, 0, 1, 5, 24]);
    }

    #[test]
    fn delays_do_not_move_the_bound() {
        let mut calm = Pairs::default();
        let mut loaded = Pairs::default();
        for i in 0..32 {
            calm.push(i as usize, 2000 + i, 1000);
            loaded.push(i as usize, 2000 + i + if i % 5 == 0 { 90_000 } else { 0 }, 1000);
        }
        let (a, b) = (calm.lower_bound().unwrap(), loaded.lower_bound().unwrap());
        assert!((a - b).abs() / a < 0.005, "{a} {b}");
        assert_eq!((Pairs::default().lower_bound(), Pairs::default().least_ratio()), (None, None));
    }

    #[test]
    fn the_least_of_several_tries_is_steady_where_noise_only_adds() {
        let mut pairs = Pairs::default();
        for (input, entry, baseline) in [
            (0, 4000, 1100),
            (1, 9000, 2000),
            (0, 3000, 1000),
            (1, 6000, 9000),
            (0, 8000, 5000),
            (1, 7000, 2500),
        ] {
            pairs.push(input, entry, baseline);
        }
        assert_eq!(pairs.least_ratio(), Some(9000.0 / 3000.0));
        // One try on a third input says little, and counts for nothing.
        pairs.push(2, 1_000_000, 1);
        assert_eq!(pairs.least_ratio(), Some(3.0));
        assert_eq!((pairs.tries(0), pairs.tries(2), pairs.tries(9)), (3, 1, 0));
    }

    proptest! {
        #[test]
        fn the_bound_lies_between_the_least_ratio_and_the_median(pairs in proptest::collection::vec((0_u64..1 << 40, 0_u64..1 << 40), 1..80)) {
            let mut all = Pairs::default();
            for (a, b) in &pairs { all.push(0, *a, *b); }
            let mut ratios: Vec<f64> = pairs.iter().map(|(a, b)| (*a).max(1) as f64 / (*b).max(1) as f64).collect();
            ratios.sort_by(f64::total_cmp);
            let bound = all.lower_bound().unwrap();
            prop_assert!(bound >= ratios[0] && bound <= ratios[ratios.len() / 2]);
        }
    }
}
