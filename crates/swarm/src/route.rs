//! Seeded routes: which miner of a stage takes a micro-batch, in proportion to capacity, the same on every CPU.
//!
//! Rank 1: a stage's capacities lie end to end on a line, and micro-batch i falls on it at the fraction of s + i·√p, with
//! s drawn for the epoch and the stage, p the stage's prime. Such a sequence (Kronecker's) is far more even than draws:
//! of any n micro-batches in a row a miner gets its share within O(log n), where draws are off by √n and leave miners
//! idle. Roots of different primes are independent, so the stages' routes are jointly even: every pair of neighbours
//! meets as often as their shares say (Weyl 1916; Niederreiter 1992, §3.1).
//!
//! Further ranks: weighted rendezvous hashing. Each candidate draws u from a keyed hash and gets the score
//! −log2(u) / capacity; the smallest wins, so P(win) = capacity / Σ capacity. A candidate that goes away changes no
//! other's routes. All in integers.

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

/// A miner of a stage, as routes see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Who.
    pub node: NodeId,
    /// Capacity in any unit, the same for all; 0 counts as 1.
    pub capacity: u64,
    /// Whether it is still there.
    pub live: bool,
}

/// The first [`limits::ROUTE_CANDIDATES`] live miners for a micro-batch, best first. `candidates`: all that the epoch
/// began with, ascending by node.
pub fn rank(
    seed: &Hash,
    micro_batch: MicroBatch,
    stage: StageIndex,
    candidates: impl IntoIterator<Item = Candidate>,
) -> Vec<NodeId> {
    let candidates: Vec<Candidate> = candidates.into_iter().collect();
    let owner = owner(point(seed, micro_batch, stage), &candidates);
    let mut best: Vec<(u128, NodeId)> = Vec::with_capacity(limits::ROUTE_CANDIDATES + 1);
    for Candidate { node, capacity, .. } in candidates.into_iter().filter(|candidate| candidate.live) {
        let log = u128::from(neg_log2(draw(seed, micro_batch, stage, &node)));
        // log < 2^47, so 2^80 · log fits, and capacities up to 2^64 still differ.
        let score = if Some(node) == owner { 0 } else { (log << 80) / u128::from(capacity.max(1)) };
        let entry = (score, node);
        let at = best.partition_point(|other| *other < entry);
        if at < limits::ROUTE_CANDIDATES {
            best.insert(at, entry);
            best.truncate(limits::ROUTE_CANDIDATES);
        }
    }
    best.into_iter().map(|(_, node)| node).collect()
}

/// Where a micro-batch falls on a stage's line, in units of 2^−64 of its length.
fn point(seed: &Hash, micro_batch: MicroBatch, stage: StageIndex) -> u64 {
    let start = draw(seed, MicroBatch(u64::MAX), stage, &NodeId([0; 32]));
    start.wrapping_add(micro_batch.0.wrapping_mul(turn(stage)))
}

/// Fraction of the square root of the stage's prime, in units of 2^−64; exact to 2^−54.
fn turn(stage: StageIndex) -> u64 {
    let prime = |n: &u128| (2..*n).take_while(|d| d * d <= *n).all(|d| n % d != 0);
    let prime = (2_u128..).filter(prime).nth(usize::from(stage.0)).unwrap_or(2);
    // Any stage's prime is below 2^20.
    ((prime << 108).isqrt() as u64) << 10
}

fn owner(point: u64, candidates: &[Candidate]) -> Option<NodeId> {
    let length = |candidate: &Candidate| u128::from(candidate.capacity.max(1));
    let whole: u128 = candidates.iter().map(length).sum();
    // Lengths up to 2^64 each: shortened so that the product fits.
    let shift = whole.checked_ilog2().unwrap_or(0).saturating_sub(62);
    let mut at = (u128::from(point) * (whole >> shift)) >> 64 << shift;
    for candidate in candidates {
        match at.checked_sub(length(candidate)) {
            Some(rest) => at = rest,
            None => return Some(candidate.node),
        }
    }
    candidates.last().map(|candidate| candidate.node)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(i: u8) -> NodeId {
        NodeId([i; 32])
    }

    fn of(capacities: &[u64]) -> Vec<Candidate> {
        let all = capacities.iter().enumerate();
        all.map(|(n, capacity)| Candidate { node: node(n as u8), capacity: *capacity, live: true }).collect()
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
    fn turns_are_roots_of_primes() {
        for (stage, prime) in [2.0_f64, 3.0, 5.0, 7.0, 11.0, 13.0].into_iter().enumerate() {
            let got = turn(StageIndex(stage as u16)) as f64 / 2.0_f64.powi(64);
            assert!((got - prime.sqrt().fract()).abs() < 1e-12, "{prime}: {got}");
        }
    }

    #[test]
    fn any_run_of_micro_batches_is_shared_by_capacity() {
        let capacities = [1_u64, 2, 3, 10];
        let all = of(&capacities);
        for (stage, from) in [(0, 0), (1, 7), (2, 1000), (5, 1 << 40)] {
            let mut wins = [0_u64; 4];
            for i in 0..4000_u64 {
                let ranked =
                    rank(&Hash::of(b"seed"), MicroBatch(from + i), StageIndex(stage), all.iter().copied());
                assert_eq!(ranked.len(), 3);
                wins[usize::from(ranked[0].0[0])] += 1;
                for (count, capacity) in wins.iter().zip(capacities) {
                    let share = (i + 1) as f64 * capacity as f64 / 16.0;
                    assert!((*count as f64 - share).abs() < 4.0, "{wins:?} of {}", i + 1);
                }
            }
        }
    }

    #[test]
    fn neighbours_meet_as_often_as_their_shares_say() {
        let (first, second) = (of(&[1, 1]), of(&[1, 3]));
        for (a, b) in [(0, 1), (1, 2), (0, 2), (7, 8)] {
            let mut meet = [[0_u32; 2]; 2];
            for i in 0..4000 {
                let at = |stage, all: &[Candidate]| {
                    rank(&Hash::of(b"x"), MicroBatch(i), StageIndex(stage), all.iter().copied())[0].0[0]
                };
                meet[usize::from(at(a, &first))][usize::from(at(b, &second))] += 1;
            }
            for (counts, share) in meet.iter().flat_map(|row| row.iter().zip([0.125, 0.375])) {
                assert!((f64::from(*counts) / 4000.0 - share).abs() < 0.02, "{a} {b}: {meet:?}");
            }
        }
    }

    #[test]
    fn second_rank_follows_capacity_among_the_rest() {
        let (mut both, mut second) = (0_u32, 0_u32);
        for i in 0..40_000 {
            let ranked = rank(&Hash::of(b"x"), MicroBatch(i), StageIndex(0), of(&[5, 1, 4]));
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
        let all = of(&[1, 2, 3, 4, 5, 6]);
        let mut left = all.clone();
        left[5].live = false;
        for i in 0..500 {
            let before = rank(&seed, MicroBatch(i), StageIndex(0), all.iter().copied());
            let after = rank(&seed, MicroBatch(i), StageIndex(0), left.iter().copied());
            if before[0] == node(5) {
                assert_eq!(after[0], before[1]);
            } else {
                assert_eq!(after[0], before[0]);
            }
        }
    }

    #[test]
    fn golden_routes() {
        let ranked = rank(&Hash::of(b"golden"), MicroBatch(7), StageIndex(2), of(&[100; 8]));
        let order: Vec<u8> = ranked.iter().map(|node| node.0[0]).collect();
        assert_eq!(order, [4, 3, 5]);
    }

    #[test]
    fn nobody_zero_and_the_largest_capacities_are_cases() {
        let of_all = |all: Vec<Candidate>| rank(&Hash::of(b"s"), MicroBatch(9), StageIndex(0), all);
        assert!(of_all(Vec::new()).is_empty());
        assert_eq!(of_all(of(&[0])), [node(0)]);
        let largest = rank(&Hash::of(b"s"), MicroBatch(9), StageIndex(0), of(&[u64::MAX; 40]));
        assert_eq!(largest.len(), limits::ROUTE_CANDIDATES);
        let mut gone = of(&[1, 1]);
        gone[0].live = false;
        gone[1].live = false;
        assert!(of_all(gone).is_empty());
    }
}
