//! Seeded routes: which miner of a stage takes a micro-batch, in proportion to capacity, the same on every CPU.
//!
//! Weighted rendezvous hashing: each candidate draws u from a keyed hash and gets the score −log2(u) / capacity; the
//! smallest score wins, so P(win) = capacity / Σ capacity, and a candidate that goes away changes no other's routes.
//! The logarithm is computed in integers.

use wire::{Hash, MicroBatch, NodeId, StageIndex};

use crate::limits;

/// Fraction bits of [`neg_log2`].
const FRACTION_BITS: u32 = 40;

/// −log2((draw + 1) / 2^64) in units of 2^−40, by repeated squaring: no float, no table.
fn neg_log2(draw: u64) -> u64 {
    let Some(value) = draw.checked_add(1) else { return 0 };
    let exponent = value.ilog2();
    // Mantissa in [1, 2) with 63 fraction bits.
    let mut mantissa = value << value.leading_zeros();
    let mut fraction = 0_u64;
    for _ in 0..FRACTION_BITS {
        let square = u128::from(mantissa) * u128::from(mantissa);
        // `square` lies in [1, 4) with 126 fraction bits.
        let carry = (square >> 127) as u64;
        fraction = fraction << 1 | carry;
        mantissa = (square >> (63 + carry)) as u64;
    }
    (64_u64 << FRACTION_BITS) - ((u64::from(exponent) << FRACTION_BITS) | fraction)
}

fn draw(seed: &Hash, micro_batch: MicroBatch, stage: StageIndex, node: &NodeId) -> u64 {
    let mut bytes = [0_u8; 42];
    bytes[..8].copy_from_slice(&micro_batch.0.to_le_bytes());
    bytes[8..10].copy_from_slice(&stage.0.to_le_bytes());
    bytes[10..].copy_from_slice(&node.0);
    let hash = blake3::keyed_hash(&seed.0, &bytes);
    let (low, _) = hash.as_bytes().split_first_chunk().expect("a hash has 32 bytes");
    u64::from_le_bytes(*low)
}

/// The first [`limits::ROUTE_CANDIDATES`] miners for a micro-batch, best first. `candidates`: node and capacity (any
/// unit, the same for all; 0 counts as 1).
pub fn rank(
    seed: &Hash,
    micro_batch: MicroBatch,
    stage: StageIndex,
    candidates: impl IntoIterator<Item = (NodeId, u64)>,
) -> Vec<NodeId> {
    let mut best: Vec<(u128, NodeId)> = Vec::with_capacity(limits::ROUTE_CANDIDATES + 1);
    for (node, capacity) in candidates {
        let log = u128::from(neg_log2(draw(seed, micro_batch, stage, &node)));
        // log < 2^47, so 2^80 · log fits, and capacities up to 2^64 still differ.
        let entry = ((log << 80) / u128::from(capacity.max(1)), node);
        let at = best.partition_point(|other| *other < entry);
        if at < limits::ROUTE_CANDIDATES {
            best.insert(at, entry);
            best.truncate(limits::ROUTE_CANDIDATES);
        }
    }
    best.into_iter().map(|(_, node)| node).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(i: u8) -> NodeId {
        NodeId([i; 32])
    }

    #[test]
    fn the_logarithm_is_right_to_its_last_bits() {
        assert_eq!(neg_log2(u64::MAX), 0);
        assert_eq!(neg_log2(0), 64 << FRACTION_BITS);
        assert_eq!(neg_log2((1 << 63) - 1), 1 << FRACTION_BITS);
        for i in 1..1000_u64 {
            let value = i.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let want = 64.0 - ((value as f64) + 1.0).log2();
            let got = neg_log2(value) as f64 / (1_u64 << FRACTION_BITS) as f64;
            assert!((want - got).abs() < 1e-7, "{value}: {want} {got}");
        }
    }

    #[test]
    fn routes_follow_capacity() {
        let capacities = [1_u64, 2, 3, 10];
        let mut wins = [0_u32; 4];
        let draws = 40_000;
        for i in 0..draws {
            let seed = Hash::of(b"seed");
            let all = capacities.iter().enumerate().map(|(n, c)| (node(n as u8), *c));
            let ranked = rank(&seed, MicroBatch(i), StageIndex(1), all);
            assert_eq!(ranked.len(), 3);
            wins[ranked[0].0[0] as usize] += 1;
        }
        for (count, capacity) in wins.iter().zip(capacities) {
            let share = capacity as f64 / 16.0;
            let expected = draws as f64 * share;
            let deviation = (draws as f64 * share * (1.0 - share)).sqrt();
            assert!((f64::from(*count) - expected).abs() < 4.5 * deviation, "{wins:?}");
        }
    }

    #[test]
    fn second_rank_follows_capacity_among_the_rest() {
        let capacities = [5_u64, 1, 4];
        let (mut both, mut second) = (0_u32, 0_u32);
        for i in 0..40_000 {
            let all = capacities.iter().enumerate().map(|(n, c)| (node(n as u8), *c));
            let ranked = rank(&Hash::of(b"x"), MicroBatch(i), StageIndex(0), all);
            if ranked[0] == node(0) {
                both += 1;
                second += u32::from(ranked[1] == node(2));
            }
        }
        let share = f64::from(second) / f64::from(both);
        assert!((share - 0.8).abs() < 0.015, "{share}");
    }

    #[test]
    fn a_lost_candidate_moves_only_its_own_micro_batches() {
        let seed = Hash::of(b"seed");
        for i in 0..500 {
            let before =
                rank(&seed, MicroBatch(i), StageIndex(0), (0..6).map(|n| (node(n), u64::from(n) + 1)));
            let after = rank(
                &seed,
                MicroBatch(i),
                StageIndex(0),
                (0..6).filter(|n| *n != 5).map(|n| (node(n), u64::from(n) + 1)),
            );
            if before[0] == node(5) {
                assert_eq!(after[0], before[1]);
            } else {
                assert_eq!(after[0], before[0]);
            }
        }
    }

    #[test]
    fn golden_routes() {
        let ranked = rank(&Hash::of(b"golden"), MicroBatch(7), StageIndex(2), (0..8).map(|n| (node(n), 100)));
        let order: Vec<u8> = ranked.iter().map(|node| node.0[0]).collect();
        assert_eq!(order, [3, 5, 1]);
    }

    #[test]
    fn nobody_and_zero_capacity_are_cases() {
        assert!(rank(&Hash::of(b"s"), MicroBatch(0), StageIndex(0), []).is_empty());
        assert_eq!(rank(&Hash::of(b"s"), MicroBatch(0), StageIndex(0), [(node(1), 0)]), [node(1)]);
    }
}
