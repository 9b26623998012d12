//! Numbers of few bits: a uniform quantiser forward, an unbiased stochastic code backward.
//!
//! Codes are packed without gaps, lowest bits first, row after row. Backward, one fp16 scale per channel follows.

use crate::config::{Dtype, Message, MessageError};
use crate::random;
use half::f16;

/// Step of the uniform quantiser that is best for a normal number of deviation 1.
fn step(bits: u8) -> f32 {
    match bits {
        1 => 1.596,
        2 => 0.996,
        3 => 0.586,
        4 => 0.335,
        _ => 0.031,
    }
}

fn packed_bytes(bits: u8, count: usize) -> usize {
    (count * usize::from(bits)).div_ceil(8)
}

/// Appends codes of `bits` ≤ 8 bits.
fn pack(bits: u8, codes: impl Iterator<Item = u8>, bytes: &mut Vec<u8>) {
    let (mut word, mut filled) = (0u32, 0);
    for code in codes {
        word |= u32::from(code) << filled;
        filled += u32::from(bits);
        while filled >= 8 {
            bytes.push(word as u8);
            word >>= 8;
            filled -= 8;
        }
    }
    if filled > 0 {
        bytes.push(word as u8);
    }
}

/// The codes back, one per number of `out`.
fn unpack(bits: u8, bytes: &[u8], count: usize) -> impl Iterator<Item = u8> + '_ {
    let mask = (1u32 << bits) - 1;
    (0..count).map(move |i| {
        let at = i * usize::from(bits);
        let low = u32::from(bytes[at / 8]);
        let high = bytes.get(at / 8 + 1).map_or(0, |&b| u32::from(b));
        (((low | high << 8) >> (at % 8)) & mask) as u8
    })
}

/// Packs unit rows `[rows, width]`: `floor(z / step)`, clamped to `bits` bits; 16 bits are bf16.
pub(super) fn pack_forward(bits: u8, rows: usize, width: usize, z: &[f32]) -> Message {
    if bits == 16 {
        return Message::from_f32(Dtype::Bf16, vec![rows, width], z);
    }
    let (step, half) = (step(bits), f32::from(1u16 << (bits - 1)));
    let mut bytes = Vec::with_capacity(packed_bytes(bits, z.len()));
    let codes = z.iter().map(|&z| ((z / step).floor().clamp(-half, half - 1.0) + half) as u8);
    pack(bits, codes, &mut bytes);
    Message { dtype: Dtype::U8, shape: vec![bytes.len()], bytes }
}

/// The middle of each code's interval.
pub(super) fn unpack_forward(
    bits: u8,
    rows: usize,
    width: usize,
    message: &Message,
    out: &mut [f32],
) -> Result<(), MessageError> {
    if bits == 16 {
        message.check(Dtype::Bf16, &[rows, width])?;
        return message.read_f32(out);
    }
    message.check(Dtype::U8, &[packed_bytes(bits, rows * width)])?;
    let (step, half) = (step(bits), f32::from(1u16 << (bits - 1)));
    for (out, code) in out.iter_mut().zip(unpack(bits, &message.bytes, rows * width)) {
        *out = step * (f32::from(code) - half + 0.5);
    }
    Ok(())
}

/// Levels of one sign besides zero: `scale · 2⁻ᵏ`, k = 0 … levels − 1 (up to 4 bits), or 127 even ones (8 bits).
fn levels(bits: u8) -> u8 {
    (1 << (bits - 1)) - 1
}

/// Value of a code, in units of its channel's scale; none for a code that is never sent.
fn level(bits: u8, code: u8) -> Option<f32> {
    let n = levels(bits);
    match (bits, code) {
        (1, code) => Some(if code == 0 { -1.0 } else { 1.0 }),
        (_, 0) => Some(0.0),
        (8, code) if code <= n => Some(f32::from(code) / 127.0),
        (8, code) if code <= 2 * n => Some(-f32::from(code - n) / 127.0),
        (_, code) if code <= n => Some(power(code - 1)),
        (_, code) if code <= 2 * n => Some(-power(code - n - 1)),
        _ => None,
    }
}

/// 2⁻ᵏ.
fn power(k: u8) -> f32 {
    f32::from_bits((127 - u32::from(k)) << 23)
}

/// Rounds `t` in [−1, 1] to one of the two codes beside it, so that the mean over `uniform` in [0, 1) is t.
fn round(bits: u8, t: f32, uniform: f32) -> u8 {
    let n = levels(bits);
    if bits == 1 {
        return u8::from(uniform < f32::midpoint(t, 1.0));
    }
    let size = t.abs().min(1.0);
    let sign = if t < 0.0 { n } else { 0 };
    if bits == 8 {
        let low = (size * 127.0).floor();
        let code = low as u8 + u8::from(uniform < size * 127.0 - low);
        return if code == 0 { 0 } else { code + sign };
    }
    // The level below 2⁻ᵏ is half of it, below the last one zero.
    let k = (0..n - 1).find(|&k| size > power(k + 1)).unwrap_or(n - 1);
    let (high, low) = (power(k), if k == n - 1 { 0.0 } else { power(k + 1) });
    let up = uniform * (high - low) < size - low;
    match (up, k == n - 1) {
        (true, _) => k + 1 + sign,
        (false, true) => 0,
        (false, false) => k + 2 + sign,
    }
}

/// Smallest fp16 not below a non-negative number; the largest finite one if there is none.
fn scale_above(x: f32) -> f16 {
    let near = f16::from_f32(x.min(f16::MAX.to_f32()));
    if near.to_f32() < x && near < f16::MAX { f16::from_bits(near.to_bits() + 1) } else { near }
}

/// Packs gradients `[rows, width]` with stochastic rounding; number i of the message rounds by `(key, i)`.
///
/// Scales are those of the gradient times `rows`, because the loss is a mean over rows and fp16 has few exponents.
pub(super) fn pack_backward(bits: u8, rows: usize, width: usize, d: &[f32], key: u64) -> Message {
    if bits == 16 {
        return Message::from_f32(Dtype::Bf16, vec![rows, width], d);
    }
    let mut greatest = vec![0.0f32; width];
    for row in d.chunks_exact(width) {
        for (s, x) in greatest.iter_mut().zip(row) {
            *s = s.max(x.abs());
        }
    }
    let scales: Vec<f16> = greatest.iter().map(|s| scale_above(s * rows as f32)).collect();
    let inverse: Vec<f32> =
        scales.iter().map(|s| if s.to_f32() > 0.0 { rows as f32 / s.to_f32() } else { 0.0 }).collect();
    let mut bytes = Vec::with_capacity(packed_bytes(bits, d.len()) + 2 * width);
    let codes = d.chunks_exact(width).enumerate().flat_map(|(r, row)| {
        let inverse = &inverse;
        row.iter().enumerate().map(move |(j, x)| {
            round(bits, (x * inverse[j]).clamp(-1.0, 1.0), random::uniform(key, (r * width + j) as u64))
        })
    });
    pack(bits, codes, &mut bytes);
    bytes.extend(scales.iter().flat_map(|s| s.to_le_bytes()));
    Message { dtype: Dtype::U8, shape: vec![bytes.len()], bytes }
}

/// The gradients back.
pub(super) fn unpack_backward(
    bits: u8,
    rows: usize,
    width: usize,
    message: &Message,
    out: &mut [f32],
) -> Result<(), MessageError> {
    if bits == 16 {
        message.check(Dtype::Bf16, &[rows, width])?;
        return message.read_f32(out);
    }
    let packed = packed_bytes(bits, rows * width);
    message.check(Dtype::U8, &[packed + 2 * width])?;
    let (codes, scales) = message.bytes.split_at(packed);
    let scales: Vec<f32> =
        scales.as_chunks::<2>().0.iter().map(|b| f16::from_le_bytes(*b).to_f32() / rows as f32).collect();
    if let Some(j) = scales.iter().position(|s| !s.is_finite() || *s < 0.0) {
        return Err(MessageError::Value { index: rows * width + j });
    }
    for (i, (out, code)) in out.iter_mut().zip(unpack(bits, codes, rows * width)).enumerate() {
        let level = level(bits, code).ok_or(MessageError::Value { index: i })?;
        *out = level * scales[i % width];
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const BITS: [u8; 5] = [1, 2, 3, 4, 8];

    fn numbers(n: usize) -> Vec<f32> {
        let mut x = vec![0.0; n];
        random::fill_normal(random::key(&[5; 32], "numbers"), 1.0, &mut x);
        x
    }

    #[test]
    fn messages_have_exactly_the_bits_they_claim() {
        let z = numbers(100 * 6);
        for bits in BITS {
            let forward = pack_forward(bits, 100, 6, &z);
            assert_eq!(forward.bytes.len() * 8, 100 * 6 * usize::from(bits));
            let backward = pack_backward(bits, 100, 6, &z, 1);
            assert_eq!(backward.bytes.len(), forward.bytes.len() + 2 * 6);
        }
    }

    #[test]
    fn forward_is_the_nearest_level_and_its_error_that_of_the_best_uniform_quantiser() {
        // Max's distortion of N(0, 1) for 2, 4, 8, 16 uniform levels (1960); our normal numbers have shorter tails.
        for (bits, want) in [(1, 0.3634), (2, 0.1188), (3, 0.03744), (4, 0.01154)] {
            let z = numbers(200_000);
            let mut back = vec![0.0; z.len()];
            unpack_forward(bits, 200_000, 1, &pack_forward(bits, 200_000, 1, &z), &mut back)
                .expect("own message");
            let error = z.iter().zip(&back).map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>() / 200_000.0;
            assert!((error / want - 1.0).abs() < 0.08, "{bits} bits: {error}");
        }
    }

    #[test]
    fn backward_is_unbiased() {
        let d: Vec<f32> = numbers(64).iter().map(|x| x * x * x * 1e-4).collect();
        for bits in BITS {
            let mut sum = vec![0.0f64; d.len()];
            let mut back = vec![0.0; d.len()];
            let trials = 4000;
            for key in 0..trials {
                let message = pack_backward(bits, 16, 4, &d, random::derive(9, key));
                unpack_backward(bits, 16, 4, &message, &mut back).expect("own message");
                for (s, b) in sum.iter_mut().zip(&back) {
                    *s += f64::from(*b) / trials as f64;
                }
            }
            let greatest = d.iter().fold(0.0f32, |m, x| m.max(x.abs()));
            for (mean, x) in sum.iter().zip(&d) {
                // Five deviations of the mean of the coarsest code.
                assert!((mean - f64::from(*x)).abs() < 0.08 * f64::from(greatest), "{bits} bits: {x} {mean}");
            }
        }
    }

    #[test]
    fn the_same_key_gives_the_same_bytes_and_another_key_others() {
        let d = numbers(256);
        assert_eq!(pack_backward(4, 64, 4, &d, 7), pack_backward(4, 64, 4, &d, 7));
        assert_ne!(pack_backward(4, 64, 4, &d, 7), pack_backward(4, 64, 4, &d, 8));
    }

    #[test]
    fn a_code_without_meaning_and_a_bad_scale_are_refused() {
        let mut out = vec![0.0; 8];
        let mut message = pack_backward(4, 4, 2, &numbers(8), 0);
        let good = message.clone();
        message.bytes[1] = 0xf0;
        assert_eq!(unpack_backward(4, 4, 2, &message, &mut out), Err(MessageError::Value { index: 3 }));
        let mut message = good;
        let last = message.bytes.len() - 1;
        message.bytes[last] = 0x7c; // infinite
        assert_eq!(unpack_backward(4, 4, 2, &message, &mut out), Err(MessageError::Value { index: 9 }));
        message.bytes.pop();
        assert!(matches!(unpack_backward(4, 4, 2, &message, &mut out), Err(MessageError::Length { .. })));
    }

    proptest! {
        #[test]
        fn packing_loses_nothing(bits in prop::sample::select(&BITS[..]), raw in prop::collection::vec(any::<u8>(), 0..200)) {
            let codes: Vec<u8> = raw.iter().map(|c| (u32::from(*c) & ((1u32 << bits) - 1)) as u8).collect();
            let mut bytes = Vec::new();
            pack(bits, codes.iter().copied(), &mut bytes);
            prop_assert_eq!(bytes.len(), packed_bytes(bits, codes.len()));
            prop_assert_eq!(unpack(bits, &bytes, codes.len()).collect::<Vec<_>>(), codes);
        }

        #[test]
        fn any_bytes_decode_or_are_refused(bytes in prop::collection::vec(any::<u8>(), 40), bits in prop::sample::select(&BITS[..])) {
            let n = packed_bytes(bits, 8) + 4;
            let message = Message { dtype: Dtype::U8, shape: vec![n], bytes: bytes[..n].to_vec() };
            let mut out = vec![0.0; 8];
            if unpack_backward(bits, 4, 2, &message, &mut out).is_ok() {
                prop_assert!(out.iter().all(|x| x.is_finite()));
            }
        }

        #[test]
        fn rounding_takes_a_neighbour(t in -1.0f32..=1.0, u in 0.0f32..1.0, bits in prop::sample::select(&BITS[..])) {
            let value = level(bits, round(bits, t, u)).expect("a code that is sent");
            if bits > 1 {
                prop_assert!(value * t >= 0.0);
                let gap = if bits == 8 { 1.0 / 127.0 } else { t.abs().max(power(levels(bits) - 1)) };
                prop_assert!((value - t).abs() <= gap * 1.0001);
            }
        }
    }
}
