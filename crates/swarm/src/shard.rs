//! Shards of a merge: runs of whole leaves of a stage's flat vector, who owns each and who witnesses it next.

use std::ops::Range;

use serde::{Deserialize, Serialize};
use wire::{Hash, NodeId, merkle};

use crate::limits;

/// A stage's flat vector cut in shards of whole leaves; sizes differ by at most one leaf.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Partition {
    elements: usize,
    shards: u16,
}

impl Partition {
    /// Cuts `elements` in `shards` parts (at most one per leaf; 0 only for a merge without uploads).
    pub fn new(elements: u64, shards: u16) -> Self {
        let elements = usize::try_from(elements).unwrap_or(usize::MAX);
        let shards = usize::from(shards).min(merkle::leaf_count(elements)) as u16;
        Self { elements, shards }
    }

    /// Number of shards.
    pub fn shards(&self) -> u16 {
        self.shards
    }

    /// Leaves of shard `shard`; empty if there is no such shard.
    pub fn leaves(&self, shard: u16) -> Range<usize> {
        if shard >= self.shards {
            return 0..0;
        }
        let leaves = merkle::leaf_count(self.elements) as u64;
        let cut = |at: u64| (leaves * at / u64::from(self.shards)) as usize;
        cut(u64::from(shard))..cut(u64::from(shard) + 1)
    }

    /// Elements of shard `shard`; empty if there is no such shard.
    pub fn elements(&self, shard: u16) -> Range<usize> {
        let leaves = self.leaves(shard);
        if leaves.is_empty() {
            return 0..0;
        }
        merkle::leaf_range(self.elements, leaves.start).start
            ..merkle::leaf_range(self.elements, leaves.end - 1).end
    }
}

/// K of a merge: one shard per pair of uploaders, as far as leaves go; one for a single uploader, none for nobody.
pub fn count(uploaders: usize, elements: u64) -> u16 {
    let elements = usize::try_from(elements).unwrap_or(usize::MAX);
    let pairs =
        uploaders.min(limits::UPLOADERS_MAX) * uploaders.min(limits::UPLOADERS_MAX).saturating_sub(1) / 2;
    match uploaders {
        0 => 0,
        _ => pairs.clamp(1, merkle::leaf_count(elements)) as u16,
    }
}

/// State hash of a range: Merkle roots over the range's leaves (numbered as in the whole vector) of weights and momentum.
pub fn state_hash(weights: &Hash, momentum: &Hash) -> Hash {
    Hash::of_parts("shoal 2026-11 shard state", &[&weights.0, &momentum.0])
}

/// Witness order of every shard, as indices into the ascending set: first the pair that owns it, then the fallbacks.
///
/// The pair of shard k is the k-th of all pairs, permuted by the seed; the fallbacks are permuted by seed and shard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Witnesses {
    orders: Vec<Vec<u8>>,
}

impl Witnesses {
    /// For the set `nodes` (ascending, at most [`limits::UPLOADERS_MAX`]) and `shards` shards.
    pub fn new(seed: &Hash, nodes: &[NodeId], shards: u16) -> Self {
        let n = nodes.len().min(limits::UPLOADERS_MAX) as u8;
        let mut pairs: Vec<(u8, u8)> = (0..n).flat_map(|i| (i + 1..n).map(move |j| (i, j))).collect();
        pairs.sort_by_cached_key(|(i, j)| {
            Hash::of_parts(
                "shoal 2026-11 pair",
                &[&seed.0, &nodes[usize::from(*i)].0, &nodes[usize::from(*j)].0],
            )
        });
        let orders = (0..shards)
            .map(|shard| {
                let pair = pairs.get(usize::from(shard)).copied();
                let mut order: Vec<u8> = (0..n).collect();
                order.sort_by_cached_key(|index| {
                    let owner = pair.is_some_and(|(i, j)| *index == i || *index == j);
                    let node = &nodes[usize::from(*index)].0;
                    (!owner, Hash::of_parts("shoal 2026-11 witness", &[&seed.0, &shard.to_le_bytes(), node]))
                });
                order
            })
            .collect();
        Self { orders }
    }

    /// Order of one shard: indices into the set.
    pub fn order(&self, shard: u16) -> &[u8] {
        self.orders.get(usize::from(shard)).map_or(&[], Vec::as_slice)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn nodes(n: usize) -> Vec<NodeId> {
        (0..n).map(|i| NodeId([i as u8; 32])).collect()
    }

    #[test]
    fn shards_cover_the_vector_once_and_differ_by_one_leaf() {
        for elements in [1_u64, 4096, 4097, 50_000, 1_000_000] {
            for uploaders in 0..=64 {
                let shards = count(uploaders, elements);
                let partition = Partition::new(elements, shards);
                assert_eq!(partition.shards(), shards);
                let mut next = 0;
                let mut sizes = BTreeSet::new();
                for shard in 0..shards {
                    assert_eq!(partition.elements(shard).start, next);
                    next = partition.elements(shard).end;
                    sizes.insert(partition.leaves(shard).len());
                }
                assert!(shards == 0 || next as u64 == elements);
                assert!(sizes.len() <= 2 && !sizes.contains(&0));
                assert!(sizes.last().unwrap_or(&0) - sizes.first().unwrap_or(&0) <= 1);
                assert!(partition.elements(shards).is_empty());
            }
        }
    }

    #[test]
    fn every_pair_owns_exactly_one_shard() {
        for n in 2..=16 {
            let nodes = nodes(n);
            let shards = count(n, 1 << 30);
            assert_eq!(usize::from(shards), n * (n - 1) / 2);
            let witnesses = Witnesses::new(&Hash::of(b"seed"), &nodes, shards);
            let owners: BTreeSet<BTreeSet<u8>> =
                (0..shards).map(|shard| witnesses.order(shard)[..2].iter().copied().collect()).collect();
            assert_eq!(owners.len(), usize::from(shards));
            for shard in 0..shards {
                let all: BTreeSet<u8> = witnesses.order(shard).iter().copied().collect();
                assert_eq!(all.len(), n);
            }
        }
    }

    #[test]
    fn the_map_follows_the_seed() {
        let nodes = nodes(8);
        let a = Witnesses::new(&Hash::of(b"a"), &nodes, 28);
        assert_eq!(a, Witnesses::new(&Hash::of(b"a"), &nodes, 28));
        assert_ne!(a, Witnesses::new(&Hash::of(b"b"), &nodes, 28));
        assert_eq!(Witnesses::new(&Hash::of(b"a"), &nodes[..1], 1).order(0), [0]);
        assert!(Witnesses::new(&Hash::of(b"a"), &[], 0).order(0).is_empty());
    }
}
