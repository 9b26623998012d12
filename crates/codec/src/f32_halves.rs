//! f32 words, turned left by one, as a plane of high halves (exponent and top mantissa) and one of low halves.

/// High and low halves of f32 words that were turned left by one.
pub(crate) fn split(bytes: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let mut high = Vec::with_capacity(bytes.len() / 2);
    let mut low = Vec::with_capacity(bytes.len() / 2);
    for w in bytes.as_chunks::<4>().0 {
        let [a, b, c, d] = u32::from_le_bytes(*w).rotate_left(1).to_le_bytes();
        low.extend_from_slice(&[a, b]);
        high.extend_from_slice(&[c, d]);
    }
    (high, low)
}

/// Spreads the high halves in the first half of `out` over all of it; `low` is empty where all of it is zero.
pub(crate) fn join(low: &[u8], out: &mut [u8]) {
    for i in (0..out.len() / 4).rev() {
        let [a, b] = low.get(2 * i..2 * i + 2).map_or([0, 0], |l| [l[0], l[1]]);
        let word = u32::from_le_bytes([a, b, out[2 * i], out[2 * i + 1]]).rotate_right(1);
        out[4 * i..4 * i + 4].copy_from_slice(&word.to_le_bytes());
    }
}
