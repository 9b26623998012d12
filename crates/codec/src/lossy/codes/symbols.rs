//! From what is left of a code to a symbol and bits, and back.
//!
//! | symbol | value |
//! |---|---|
//! | 0 to 126 | symbol − 63 |
//! | 127 to 254 | magnitude 64 to 1023: 127 + 2 × class + sign, the class being the exponent and four bits below the first; the bits under those follow |
//! | 255 | any other; 24 bits follow, sign lowest |

use crate::bits::{BitReader, BitWriter};

/// Magnitudes below this have symbols of their own.
const DIRECT: i32 = 64;
const CENTRE: i32 = DIRECT - 1;
/// First symbol of a class.
const CLASSES: i32 = 127;
/// Exponent and four bits of an f32 that holds [`DIRECT`].
const FIRST_CLASS: i32 = (127 + 6) << 4;
/// First magnitude without a class.
const FAR: i32 = 1024;
const ESCAPE: i32 = 255;

/// Takes the low bits off `values`, writes the symbols, adds magnitudes to the columns' `sums`; whether a symbol has
/// further bits.
#[inline(always)]
pub(crate) fn split(values: &[i32], shift: u32, symbols: &mut [u8], sums: &mut [u32]) -> bool {
    let mut most = 0;
    for ((&value, s), sum) in values.iter().zip(symbols.iter_mut()).zip(sums) {
        let v = value >> shift;
        let magnitude = v.abs();
        let class = ((magnitude as f32).to_bits() >> 19) as i32 - FIRST_CLASS;
        let long = CLASSES + 2 * class + i32::from(v < 0);
        let long = if magnitude < FAR { long } else { ESCAPE };
        let symbol = if magnitude < DIRECT { v + CENTRE } else { long };
        *s = symbol as u8;
        *sum = sum.wrapping_add(magnitude as u32);
        most = most.max(magnitude);
    }
    most >= DIRECT
}

/// Writes the bits that follow symbol `s` of `v`, if any.
#[inline]
pub(crate) fn put_long(v: i32, s: u8, long: &mut BitWriter) {
    if i32::from(s) == ESCAPE {
        long.put(v.unsigned_abs() << 1 | u32::from(v < 0), 24);
    } else if i32::from(s) >= CLASSES {
        let low = (u32::from(s) - CLASSES as u32) / 32 + 2;
        long.put(v.unsigned_abs() & ((1 << low) - 1), low);
    }
}

/// Values of symbols that have no further bits; whether others have.
#[inline(always)]
pub(crate) fn join(symbols: &[u8], values: &mut [i32]) -> bool {
    let mut most = 0;
    for (v, &s) in values.iter_mut().zip(symbols) {
        *v = i32::from(s) - CENTRE;
        most = most.max(s);
    }
    i32::from(most) >= CLASSES
}

/// The value of symbol `s` where it has further bits.
#[inline]
pub(crate) fn get_long(v: &mut i32, s: u8, long: &mut BitReader<'_>) {
    let symbol = i32::from(s);
    if symbol < CLASSES {
        return;
    }
    let (magnitude, negative) = if symbol == ESCAPE {
        let bits = long.get(24);
        ((bits >> 1) as i32, bits & 1 == 1)
    } else {
        let class = (symbol - CLASSES) / 2;
        let low = (class / 16 + 2) as u32;
        ((16 + class % 16) << low | long.get(low) as i32, (symbol - CLASSES) % 2 == 1)
    };
    *v = if negative { -magnitude } else { magnitude };
}

/// Bytes of the low bits of a row.
pub(crate) const fn packed_bytes(elements: usize, shift: u32) -> usize {
    elements.div_ceil(8) * shift as usize
}

/// Appends the low `shift` bits of `values`: for each eight bits of depth, eight elements at a time.
#[inline(always)]
pub(crate) fn pack(values: &[i32], shift: u32, out: &mut Vec<u8>) {
    for from in (0..shift).step_by(8) {
        let bits = (shift - from).min(8);
        let width = bits as usize;
        let mask = (1_u32 << bits) - 1;
        let (eights, last) = values.as_chunks::<8>();
        let byte = |v: i32| ((v >> from) as u32 & mask) as u8;
        let start = out.len();
        // Every store is eight bytes; the next one overwrites what is too much.
        out.resize(start + values.len().div_ceil(8) * width + 8, 0);
        let mut at = start;
        for eight in eights {
            out[at..at + 8].copy_from_slice(&squeeze(eight.map(byte), bits).to_le_bytes());
            at += width;
        }
        if !last.is_empty() {
            let mut eight = [0; 8];
            for (b, &v) in eight.iter_mut().zip(last) {
                *b = byte(v);
            }
            out[at..at + 8].copy_from_slice(&squeeze(eight, bits).to_le_bytes());
            at += width;
        }
        out.truncate(at);
    }
}

/// Puts eight bytes of `bits` bits side by side.
#[inline(always)]
fn squeeze(bytes: [u8; 8], bits: u32) -> u64 {
    let x = u64::from_le_bytes(bytes);
    let x = x & 0x00ff_00ff_00ff_00ff | (x >> 8 & 0x00ff_00ff_00ff_00ff) << bits;
    let x = x & 0x0000_ffff_0000_ffff | (x >> 16 & 0x0000_ffff_0000_ffff) << (2 * bits);
    x & 0xffff_ffff | (x >> 32) << (4 * bits)
}

/// Undoes [`squeeze`].
#[inline(always)]
fn spread(x: u64, bits: u32) -> [u8; 8] {
    let part = |n: u32| if n < 64 { (1_u64 << n) - 1 } else { u64::MAX };
    let x = x & part(4 * bits) | (x >> (4 * bits) & part(4 * bits)) << 32;
    let two = part(2 * bits) | part(2 * bits) << 32;
    let x = x & two | (x >> (2 * bits) & two) << 16;
    let one = part(bits) * 0x0001_0001_0001_0001;
    (x & one | (x >> bits & one) << 8).to_le_bytes()
}

/// Puts the low bits back under `values`; `packed` holds just theirs.
#[inline(always)]
pub(crate) fn unpack(packed: &[u8], shift: u32, values: &mut [i32]) {
    if shift == 0 {
        return;
    }
    for v in values.iter_mut() {
        *v = v.wrapping_shl(shift);
    }
    let each = values.len().div_ceil(8);
    let mut rest = packed;
    for from in (0..shift).step_by(8) {
        let bits = (shift - from).min(8);
        let width = bits as usize;
        let (own, later) = rest.split_at(each * width);
        rest = later;
        for (i, eight) in values.chunks_mut(8).enumerate() {
            let at = i * width;
            let word = match own.get(at..at + 8) {
                Some(word) => u64::from_le_bytes(word.try_into().expect("eight bytes")),
                None => own[at..].iter().rev().fold(0, |w, &b| w << 8 | u64::from(b)),
            };
            for (v, b) in eight.iter_mut().zip(spread(word, bits)) {
                *v |= i32::from(b) << from;
            }
        }
    }
}
