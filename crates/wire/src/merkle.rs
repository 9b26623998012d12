//! Merkle roots over f32 vectors cut in leaves (protocol §1.2 "Leaves"): what commits a node to weights or uploads.

use std::ops::Range;

use crate::{Hash, limits};

/// Elements per leaf of a vector of `elements`: max(4096, next power of two ≥ elements / 65536).
pub fn leaf_elements(elements: usize) -> usize {
    elements.div_ceil(limits::LEAVES_MAX).next_power_of_two().max(limits::LEAF_ELEMENTS_MIN)
}

/// Number of leaves of a vector of `elements`; at least one.
pub fn leaf_count(elements: usize) -> usize {
    elements.div_ceil(leaf_elements(elements)).max(1)
}

/// Range of elements that leaf `index` covers.
pub fn leaf_range(elements: usize, index: usize) -> Range<usize> {
    let size = leaf_elements(elements);
    (index * size).min(elements)..((index + 1) * size).min(elements)
}

/// Hash of one leaf: the hash of its bytes behind its index, so that leaves cannot trade places. The bytes are hashed
/// alone, because BLAKE3 takes several of their kilobytes at once only where they are aligned to its chunks.
pub fn leaf_hash(index: usize, bytes: &[u8]) -> Hash {
    Hash::of_parts("shoal 2026-11 merkle leaf", &[&(index as u64).to_le_bytes(), &Hash::of(bytes).0])
}

/// Root over leaf hashes: a binary tree, an odd last node moves up unchanged, the count bound at the top.
pub fn root(leaves: &[Hash]) -> Hash {
    let mut level: Vec<Hash> = leaves.to_vec();
    while level.len() > 1 {
        level = level
            .chunks(2)
            .map(|pair| match pair {
                [left, right] => Hash::of_parts("shoal 2026-11 merkle node", &[&left.0, &right.0]),
                _ => pair[0],
            })
            .collect();
    }
    let top = level.first().map_or(&[][..], |hash| &hash.0[..]);
    Hash::of_parts("shoal 2026-11 merkle root", &[&(leaves.len() as u64).to_le_bytes(), top])
}

/// Leaf hashes of little-endian f32 bytes (`bytes.len() = 4 × elements`).
pub fn leaf_hashes(bytes: &[u8]) -> Vec<Hash> {
    let elements = bytes.len() / 4;
    (0..leaf_count(elements))
        .map(|index| {
            let range = leaf_range(elements, index);
            leaf_hash(index, &bytes[range.start * 4..range.end * 4])
        })
        .collect()
}

/// Root of little-endian f32 bytes.
pub fn root_of(bytes: &[u8]) -> Hash {
    root(&leaf_hashes(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leaves_cover_the_vector_once() {
        for elements in [0, 1, 4095, 4096, 4097, 100_000] {
            let mut next = 0;
            for index in 0..leaf_count(elements) {
                let range = leaf_range(elements, index);
                assert_eq!(range.start, next);
                next = range.end;
            }
            assert_eq!(next, elements);
        }
        assert!(leaf_count(25_000_000_000) <= limits::LEAVES_MAX);
    }

    #[test]
    fn a_root_binds_content_order_and_count() {
        let base = root_of(&vec![0; 4 * 10_000]);
        let mut other = vec![0; 4 * 10_000];
        other[39_999] = 1;
        assert_ne!(base, root_of(&other));
        let mut hashes = leaf_hashes(&vec![0; 4 * 10_000]);
        assert_eq!(root(&hashes), base);
        hashes.swap(0, 1);
        assert_ne!(root(&hashes), base);
        hashes.pop();
        assert_ne!(root(&hashes), base);
    }
}
