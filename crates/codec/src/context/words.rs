//! Words to symbols and low mantissa bits, and back.
//!
//! A symbol is six bits of exponent relative to its row, the first mantissa bit and the sign.

use crate::layered::Offsets;
use crate::parallel::{self, PART};
use crate::simd::Level;

/// Exponents worked on at a time.
const BLOCK: usize = 4096;
/// The code of an exponent equal to its row's.
const CENTRE: u8 = 44;
/// The code of exponent zero: zeros and subnormals.
const ZERO: u8 = 62;
/// The code of an exponent outside the window.
const ESCAPE: u8 = 63;

/// Bytes of the packed tails of `n` elements.
pub(crate) const fn tail_bytes(n: usize) -> usize {
    n.div_ceil(8) * 6
}

/// Symbols of all words, their packed tails, and the exponents outside the window.
pub(crate) fn split(
    level: Level,
    words: &[u8],
    rotate: bool,
    offsets: &Offsets,
    symbols: &mut [u8],
    tails: &mut Vec<u8>,
    escapes: &mut Vec<u8>,
) {
    tails.resize(tail_bytes(symbols.len()), 0);
    if !parallel::shared(symbols.len()) {
        return split_part(level, words, rotate, offsets, 0, symbols, tails, escapes);
    }
    let parts = words.chunks(2 * PART).zip(symbols.chunks_mut(PART)).zip(tails.chunks_mut(PART / 8 * 6));
    let all = parallel::map(parts.enumerate(), |(i, ((words, symbols), tails))| {
        let mut escapes = Vec::new();
        split_part(level, words, rotate, offsets, i * PART, symbols, tails, &mut escapes);
        escapes
    });
    for part in all {
        escapes.extend(part);
    }
}

/// Like [`split`], of the elements from `start` on.
#[expect(clippy::too_many_arguments, reason = "what goes in, where, and three things that come out")]
fn split_part(
    level: Level,
    words: &[u8],
    rotate: bool,
    offsets: &Offsets,
    start: usize,
    symbols: &mut [u8],
    tails: &mut [u8],
    escapes: &mut Vec<u8>,
) {
    let mut block_offsets = [0; BLOCK];
    let mut low = [0; BLOCK];
    let blocks = words.chunks(2 * BLOCK).zip(symbols.chunks_mut(BLOCK)).zip(tails.chunks_mut(BLOCK / 8 * 6));
    for (i, ((words, symbols), tails)) in blocks.enumerate() {
        offsets.fill(start + i * BLOCK, symbols.len(), &mut block_offsets);
        let escaped = level.run(
            #[inline(always)]
            || {
                let words = words.as_chunks::<2>().0;
                let escaped = if rotate {
                    split_block::<1>(words, &block_offsets, symbols, &mut low)
                } else {
                    split_block::<0>(words, &block_offsets, symbols, &mut low)
                };
                low[symbols.len()..].fill(0);
                for (six, eight) in tails.as_chunks_mut::<6>().0.iter_mut().zip(low.as_chunks::<8>().0) {
                    *six = pack(*eight);
                }
                escaped
            },
        );
        if escaped {
            let turn = u32::from(rotate);
            for (s, w) in symbols.iter().zip(words.as_chunks::<2>().0) {
                if s >> 2 == ESCAPE {
                    escapes.push((u16::from_le_bytes(*w).rotate_left(turn) >> 8) as u8);
                }
            }
        }
    }
}

#[inline(always)]
fn split_block<const TURN: u32>(
    words: &[[u8; 2]],
    offsets: &[u8; BLOCK],
    symbols: &mut [u8],
    low: &mut [u8; BLOCK],
) -> bool {
    let mut most = 0;
    for (((w, &o), s), t) in words.iter().zip(offsets).zip(symbols.iter_mut()).zip(low.iter_mut()) {
        let word = u16::from_le_bytes(*w).rotate_left(TURN);
        let (exponent, rest) = ((word >> 8) as u8, word as u8);
        let near = exponent.wrapping_sub(o).wrapping_add(CENTRE);
        let code = if near < ZERO { near } else { ESCAPE };
        let code = if exponent == 0 { ZERO } else { code };
        most = most.max(code);
        *s = code << 2 | (rest >> 6 & 2) | (rest & 1);
        *t = rest >> 1 & 0x3f;
    }
    most == ESCAPE
}

/// Undoes [`split`]; an error is a reason.
pub(crate) fn join(
    level: Level,
    symbols: &[u8],
    tails: &[u8],
    escapes: &[u8],
    rotate: bool,
    offsets: &Offsets,
    words: &mut [u8],
) -> Result<(), &'static str> {
    if !parallel::shared(symbols.len()) {
        let left = join_part(level, symbols, tails, escapes, rotate, offsets, 0, words)?;
        return if left.is_empty() { Ok(()) } else { Err("exponents are left over") };
    }
    // Which exponents outside the window belong to which part.
    let mut rest = escapes;
    let mut own = Vec::with_capacity(symbols.len().div_ceil(PART));
    for part in symbols.chunks(PART) {
        let count = if escapes.is_empty() { 0 } else { part.iter().filter(|s| **s >> 2 == ESCAPE).count() };
        let (taken, after) = rest.split_at_checked(count).ok_or("an exponent is missing")?;
        own.push(taken);
        rest = after;
    }
    if !rest.is_empty() {
        return Err("exponents are left over");
    }
    let parts = words.chunks_mut(2 * PART).zip(symbols.chunks(PART)).zip(tails.chunks(PART / 8 * 6)).zip(own);
    let joined = parallel::map(parts.enumerate(), |(i, (((words, symbols), tails), escapes))| {
        join_part(level, symbols, tails, escapes, rotate, offsets, i * PART, words).map(|_| ())
    });
    joined.into_iter().collect()
}

/// Like [`join`], of the elements from `start` on; returns the exponents that are left.
#[expect(clippy::too_many_arguments, reason = "what goes in, where, and what comes out")]
fn join_part<'e>(
    level: Level,
    symbols: &[u8],
    tails: &[u8],
    escapes: &'e [u8],
    rotate: bool,
    offsets: &Offsets,
    start: usize,
    words: &mut [u8],
) -> Result<&'e [u8], &'static str> {
    let mut block_offsets = [0; BLOCK];
    let mut low = [0; BLOCK];
    let mut escapes = escapes.iter();
    let blocks = words.chunks_mut(2 * BLOCK).zip(symbols.chunks(BLOCK)).zip(tails.chunks(BLOCK / 8 * 6));
    for (i, ((words, symbols), tails)) in blocks.enumerate() {
        offsets.fill(start + i * BLOCK, symbols.len(), &mut block_offsets);
        let words = words.as_chunks_mut::<2>().0;
        let escaped = level.run(
            #[inline(always)]
            || {
                for (six, eight) in tails.as_chunks::<6>().0.iter().zip(low.as_chunks_mut::<8>().0) {
                    *eight = unpack(*six);
                }
                if rotate {
                    join_block::<1>(symbols, &block_offsets, &low, words)
                } else {
                    join_block::<0>(symbols, &block_offsets, &low, words)
                }
            },
        );
        if escaped {
            let turn = u32::from(rotate);
            for (s, w) in symbols.iter().zip(words) {
                if s >> 2 == ESCAPE {
                    let exponent = *escapes.next().ok_or("an exponent is missing")?;
                    let word = u16::from_le_bytes(*w).rotate_left(turn) & 0xff | u16::from(exponent) << 8;
                    *w = word.rotate_right(turn).to_le_bytes();
                }
            }
        }
    }
    Ok(escapes.as_slice())
}

#[inline(always)]
fn join_block<const TURN: u32>(
    symbols: &[u8],
    offsets: &[u8; BLOCK],
    low: &[u8; BLOCK],
    words: &mut [[u8; 2]],
) -> bool {
    let mut most = 0;
    for (((w, &o), &s), &t) in words.iter_mut().zip(offsets).zip(symbols).zip(low) {
        let code = s >> 2;
        most = most.max(code);
        let near = code.wrapping_add(o).wrapping_sub(CENTRE);
        let exponent = if code == ZERO { 0 } else { near };
        let rest = (s & 2) << 6 | t << 1 | s & 1;
        *w = (u16::from(exponent) << 8 | u16::from(rest)).rotate_right(TURN).to_le_bytes();
    }
    most == ESCAPE
}

/// Eight values of six bits in six bytes, the first in the lowest bits.
#[inline(always)]
fn pack(eight: [u8; 8]) -> [u8; 6] {
    let x = u64::from_le_bytes(eight);
    let x = x & 0x003f_003f_003f_003f | (x & 0x3f00_3f00_3f00_3f00) >> 2;
    let x = x & 0x0000_0fff_0000_0fff | (x & 0x0fff_0000_0fff_0000) >> 4;
    let x = x & 0x00ff_ffff | x >> 8 & 0xffff_ff00_0000;
    let [a, b, c, d, e, f, ..] = x.to_le_bytes();
    [a, b, c, d, e, f]
}

#[inline(always)]
fn unpack(six: [u8; 6]) -> [u8; 8] {
    let [a, b, c, d, e, f] = six;
    let x = u64::from_le_bytes([a, b, c, d, e, f, 0, 0]);
    let x = x & 0x00ff_ffff | (x & 0xffff_ff00_0000) << 8;
    let x = x & 0x0000_0fff_0000_0fff | (x & 0x00ff_f000_00ff_f000) << 4;
    let x = x & 0x003f_003f_003f_003f | (x & 0x0fc0_0fc0_0fc0_0fc0) << 2;
    x.to_le_bytes()
}
