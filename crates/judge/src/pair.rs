//! Time beside the baseline: both on the same input, one right after the other, so that a loaded machine slows both.

/// Times of an entry and of the baseline on the same inputs, nanoseconds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Pairs {
    pairs: Vec<(u64, u64)>,
}

impl Pairs {
    /// Adds a pair; a time of zero is below the clock's grain and counts as one nanosecond.
    pub(crate) fn push(&mut self, entry_ns: u64, baseline_ns: u64) {
        self.pairs.push((entry_ns.max(1), baseline_ns.max(1)));
    }

    /// Number of pairs.
    pub(crate) fn len(&self) -> usize {
        self.pairs.len()
    }

    /// Lower 95 % bound of the median of entry ÷ baseline, from the order of the ratios alone (the sign test's
    /// confidence interval; W. J. Conover, Practical Nonparametric Statistics, §3.2): a few calls that the machine
    /// delayed move it by nothing. With fewer than 5 pairs there is no such bound, and the least ratio is taken.
    pub(crate) fn lower_bound(&self) -> Option<f64> {
        let mut ratios: Vec<f64> =
            self.pairs.iter().map(|(entry, baseline)| *entry as f64 / *baseline as f64).collect();
        ratios.sort_by(f64::total_cmp);
        ratios.get(rank(ratios.len())).copied()
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
            calm.push(2000 + i, 1000);
            loaded.push(2000 + i + if i % 5 == 0 { 90_000 } else { 0 }, 1000);
        }
        let (a, b) = (calm.lower_bound().unwrap(), loaded.lower_bound().unwrap());
        assert!((a - b).abs() / a < 0.005, "{a} {b}");
        assert_eq!(Pairs::default().lower_bound(), None);
    }

    proptest! {
        #[test]
        fn the_bound_lies_between_the_least_ratio_and_the_median(pairs in proptest::collection::vec((0_u64..1 << 40, 0_u64..1 << 40), 1..80)) {
            let mut all = Pairs::default();
            for (a, b) in &pairs { all.push(*a, *b); }
            let mut ratios: Vec<f64> = pairs.iter().map(|(a, b)| (*a).max(1) as f64 / (*b).max(1) as f64).collect();
            ratios.sort_by(f64::total_cmp);
            let bound = all.lower_bound().unwrap();
            prop_assert!(bound >= ratios[0] && bound <= ratios[ratios.len() / 2]);
        }
    }
}
