//! Integer splits that add up: what is handed out is exactly what there was.

/// Splits `total` in proportion to `weights` by largest remainders (ties: the smaller index). All zero if the weights are.
pub fn split(total: u64, weights: &[u64]) -> Vec<u64> {
    let sum: u128 = weights.iter().map(|weight| u128::from(*weight)).sum();
    if sum == 0 {
        return vec![0; weights.len()];
    }
    // total < 2^64 and weight < 2^64: the product fits; each share is at most `total`.
    let product = |weight: u64| u128::from(total) * u128::from(weight);
    let mut shares: Vec<u64> = weights.iter().map(|weight| (product(*weight) / sum) as u64).collect();
    let mut left = total - shares.iter().sum::<u64>();
    let mut order: Vec<usize> = (0..weights.len()).collect();
    order.sort_by_key(|index| (std::cmp::Reverse(product(weights[*index]) % sum), *index));
    for index in order {
        if left == 0 {
            break;
        }
        shares[index] += 1;
        left -= 1;
    }
    shares
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn known_splits() {
        assert_eq!(split(10, &[1, 1, 1]), [4, 3, 3]);
        assert_eq!(split(7, &[5, 3, 2]), [4, 2, 1]);
        assert_eq!(split(5, &[0, 0]), [0, 0]);
        assert_eq!(split(5, &[]), [0_u64; 0]);
        assert_eq!(split(u64::MAX, &[u64::MAX, u64::MAX, 0]), [1 << 63, (1 << 63) - 1, 0]);
    }

    proptest! {
        #[test]
        fn shares_add_up_and_are_within_one_of_exact(total: u64, weights in proptest::collection::vec(any::<u64>(), 1..40)) {
            let shares = split(total, &weights);
            let sum: u128 = weights.iter().map(|w| u128::from(*w)).sum();
            prop_assert_eq!(shares.iter().map(|s| u128::from(*s)).sum::<u128>(), if sum == 0 { 0 } else { u128::from(total) });
            for (share, weight) in shares.iter().zip(&weights) {
                let exact = u128::from(total) * u128::from(*weight) / sum.max(1);
                prop_assert!(u128::from(*share) == exact || u128::from(*share) == exact + 1);
                prop_assert!(*weight > 0 || *share == 0);
            }
        }
    }
}
