//! Commit-reveal: nobody knows the seed before everyone is bound, and nobody alone can choose it.
//!
//! Whoever does not reveal is left out by the protocol that uses this; the last to reveal can therefore choose between
//! two seeds, at the price of its place.

use wire::Hash;

/// Binds a nonce without showing it.
pub fn commitment(nonce: &Hash) -> Hash {
    Hash::of_parts("shoal 2026-11 nonce", &[&nonce.0])
}

/// Whether `nonce` is what `commitment` binds.
pub fn opens(bound: &Hash, nonce: &Hash) -> bool {
    commitment(nonce) == *bound
}

/// Seed of a purpose from its context and the nonces, in the order that the protocol declares.
pub fn seed<'a>(context: &[&[u8]], nonces: impl IntoIterator<Item = &'a Hash>) -> Hash {
    let mut parts: Vec<&[u8]> = context.to_vec();
    parts.extend(nonces.into_iter().map(|nonce| &nonce.0[..]));
    let count = (context.len() as u64).to_le_bytes();
    parts.push(&count);
    Hash::of_parts("shoal 2026-11 beacon", &parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commitment_binds_one_nonce() {
        let (a, b) = (Hash::of(b"a"), Hash::of(b"b"));
        assert!(opens(&commitment(&a), &a));
        assert!(!opens(&commitment(&a), &b));
        assert_ne!(commitment(&a), a);
    }

    #[test]
    fn every_part_moves_the_seed() {
        let (a, b) = (Hash::of(b"a"), Hash::of(b"b"));
        let base = seed(&[b"x", b"y"], [&a, &b]);
        assert_eq!(base, seed(&[b"x", b"y"], [&a, &b]));
        for other in [
            seed(&[b"x"], [&a, &b]),
            seed(&[b"x", b"z"], [&a, &b]),
            seed(&[b"x", b"y"], [&b, &a]),
            seed(&[b"x", b"y"], [&a]),
            seed(&[b"x", b"y", &a.0], [&b]),
        ] {
            assert_ne!(base, other);
        }
    }
}
