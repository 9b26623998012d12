//! Planes of signed integers: magnitudes by rANS in the context of their row's and column's size, signs and low bits
//! as they are. A column's mean, as an integer, is taken off first.
//!
//! Layout: 4 + … bytes of range-coded means, levels and tables, the streams of the symbols, 4 + … bytes of bits.

use crate::bits::{BitReader, BitWriter};
use crate::bytes::Reader;
use crate::context::{fresh_tree, offsets_of};
use crate::entropy::plane;
use crate::entropy::range::{Decoder, Encoder};
use crate::entropy::tables::Tables;
use crate::error::CodecError;
use crate::fixed::log2_q16;
use crate::layered::Offsets;
use crate::simd::Level;

/// Largest magnitude of a code.
pub(crate) const MAX_CODE: i32 = (1 << 18) - 1;
/// Magnitudes below this have symbols of their own; above, a symbol keeps four bits below the first.
const DIRECT: u32 = 32;
/// Fewer rows than this pay more for means than they gain.
const MIN_MEAN_ROWS: usize = 32;
/// Most contexts.
const MAX_CONTEXTS: usize = 48;
/// Bits of a level in the side information.
const LEVEL_BITS: u32 = 6;

/// Symbol of a magnitude.
#[inline(always)]
fn symbol_of(magnitude: u32) -> u8 {
    // An f32 holds the magnitude exactly; its exponent and first four mantissa bits are the symbol.
    let bits = (magnitude as i32 as f32).to_bits() >> 19;
    let long = bits.wrapping_sub((127 + 5) << 4).wrapping_add(DIRECT);
    (if magnitude < DIRECT { magnitude } else { long }) as u8
}

/// Smallest magnitude of a symbol and its number of low bits; no magnitude above [`MAX_CODE`].
#[inline(always)]
const fn magnitude_of(symbol: u8) -> (u32, u32) {
    let s = symbol as u32;
    if s < DIRECT {
        return (s, 0);
    }
    let low = (s - DIRECT) / 16 + 1;
    ((16 + (s - DIRECT) % 16) << low, low)
}

/// Appends `codes`, none above [`MAX_CODE`] in magnitude, in rows of `period`.
pub(crate) fn encode(level: Level, codes: &[i32], period: usize, out: &mut Vec<u8>) {
    let means = Means::of(codes, period);
    let centred;
    let codes = if means.0.is_empty() {
        codes
    } else {
        centred = means.subtract(codes, period);
        &centred[..]
    };
    let levels = level.run(
        #[inline(always)]
        || Levels::of(codes, period),
    );
    let contexts = levels.offsets(period);
    let mut symbols = vec![0; codes.len()];
    let mut bits = BitWriter::new();
    level.run(
        #[inline(always)]
        || {
            for (s, &code) in symbols.iter_mut().zip(codes) {
                *s = symbol_of(code.unsigned_abs());
            }
        },
    );
    // Low bits, lowest but one, and the sign, lowest; a zero has neither.
    let field = |code: i32, symbol: u8| {
        let (base, low) = magnitude_of(symbol);
        let magnitude = code.unsigned_abs();
        ((magnitude - base) << 1 | u32::from(code < 0), low + u32::from(magnitude > 0))
    };
    let (pairs, last) = codes.as_chunks::<2>();
    for (&[a, b], &[s, t]) in pairs.iter().zip(symbols.as_chunks::<2>().0) {
        // Two fields of at most 15 bits.
        let ((a, a_bits), (b, b_bits)) = (field(a, s), field(b, t));
        bits.put(b << a_bits | a, a_bits + b_bits);
    }
    for (&code, &s) in last.iter().zip(symbols.last()) {
        let (value, count) = field(code, s);
        bits.put(value, count);
    }
    let tables = Tables::normalize(&plane::count(&symbols, &contexts, levels.contexts));
    let mut side = Encoder::new();
    means.write(&mut side);
    levels.write(&mut side);
    tables.write(&mut side);
    side.finish(out);
    plane::encode(level, &tables, &symbols, &contexts, out);
    let at = out.len();
    out.extend_from_slice(&[0; 4]);
    bits.finish(out);
    let length = (out.len() - at - 4) as u32;
    out[at..at + 4].copy_from_slice(&length.to_le_bytes());
}

/// Reads `n` codes in rows of `period`.
pub(crate) fn decode(
    level: Level,
    reader: &mut Reader<'_>,
    n: usize,
    period: usize,
) -> Result<Vec<i32>, CodecError> {
    let mut side = Decoder::new(reader)?;
    let means = Means::read(&mut side, period);
    let levels = Levels::read(&mut side, n.div_ceil(period), period);
    let tables = Tables::read(&mut side, levels.contexts).map_err(|r| reader.malformed(r))?;
    let mut symbols = vec![0; n];
    plane::decode(level, &tables, reader, &levels.offsets(period), &mut symbols)?;
    let length = reader.u32()? as usize;
    let mut bits = BitReader::new(reader.take(length)?);
    let table: [(u32, u32); 256] = std::array::from_fn(|s| magnitude_of(s as u8));
    let mut codes = Vec::with_capacity(n);
    for s in symbols {
        let (base, low) = table[usize::from(s)];
        if low > 14 {
            return Err(reader.malformed("a code is too large"));
        }
        let raw = bits.get(low + u32::from(base > 0));
        let magnitude = (base | raw >> 1) as i32;
        codes.push(if raw & 1 == 1 { -magnitude } else { magnitude });
    }
    bits.finish().map_err(|r| reader.malformed(r))?;
    if !means.0.is_empty() {
        for row in codes.chunks_mut(period) {
            for (c, m) in row.iter_mut().zip(&means.0) {
                *c += m;
            }
        }
    }
    Ok(codes)
}

/// Mean code of each column, subtracted before coding; empty where all are zero or the rows are too few.
struct Means(Vec<i32>);

impl Means {
    fn of(codes: &[i32], period: usize) -> Self {
        let rows = codes.len() / period;
        if rows < MIN_MEAN_ROWS {
            return Self(Vec::new());
        }
        let mut sums = vec![0_i64; period];
        for row in codes.chunks(period) {
            for (s, &c) in sums.iter_mut().zip(row) {
                *s += i64::from(c);
            }
        }
        let rounded = |s: i64| (s.abs() + rows as i64 / 2) / rows as i64 * s.signum();
        let means: Vec<i32> = sums.into_iter().map(|s| rounded(s) as i32).collect();
        // The last row may be partial, but no mean leaves the range of codes by more than its share.
        let means = means.into_iter().map(|m| m.clamp(-MAX_CODE, MAX_CODE)).collect::<Vec<_>>();
        if means.iter().all(|&m| m == 0) { Self(Vec::new()) } else { Self(means) }
    }

    fn subtract(&self, codes: &[i32], period: usize) -> Vec<i32> {
        codes.chunks(period).flat_map(|row| row.iter().zip(&self.0).map(|(c, m)| c - m)).collect()
    }

    fn write(&self, side: &mut Encoder) {
        side.direct(u32::from(!self.0.is_empty()), 1);
        let mut tree = fresh_tree(5);
        for &m in &self.0 {
            let magnitude = m.unsigned_abs();
            let length = 32 - magnitude.leading_zeros();
            side.tree(&mut tree, 5, length);
            side.direct(magnitude, length.saturating_sub(1));
            side.direct(u32::from(m < 0), u32::from(length > 0));
        }
    }

    fn read(side: &mut Decoder<'_>, period: usize) -> Self {
        if side.direct(1) == 0 {
            return Self(Vec::new());
        }
        let mut tree = fresh_tree(5);
        let mean = |_| {
            let length = side.tree(&mut tree, 5).min(18);
            if length == 0 {
                return 0;
            }
            let magnitude = (1 << (length - 1) | side.direct(length - 1)) as i32;
            if side.direct(1) == 1 { -magnitude } else { magnitude }
        };
        Self((0..period).map(mean).collect())
    }
}

/// Sizes of rows and columns in steps of an octave; their sum is an element's context.
struct Levels {
    rows: Vec<u8>,
    cols: Vec<u8>,
    contexts: usize,
}

impl Levels {
    #[inline(always)]
    fn of(codes: &[i32], period: usize) -> Self {
        let mut col_sums = vec![0_u64; period];
        let mut row_sums = Vec::with_capacity(codes.len() / period + 1);
        for row in codes.chunks(period) {
            let mut sum = 0_u64;
            for (c, &code) in col_sums.iter_mut().zip(row) {
                let magnitude = u64::from(code.unsigned_abs());
                *c += magnitude;
                sum += magnitude;
            }
            row_sums.push(sum * 64 / row.len() as u64);
        }
        let rows_count = row_sums.len() as u64;
        // Mean magnitudes in 1/64, and their logarithms in 1/65536 octaves.
        let row_logs: Vec<u32> = row_sums.iter().map(|&s| log2_q16(s + 1)).collect();
        let col_logs: Vec<u32> = col_sums.iter().map(|&s| log2_q16(s * 64 / rows_count + 1)).collect();
        let range = |logs: &[u32]| {
            let low = logs.iter().copied().min().unwrap_or(0);
            (low, logs.iter().copied().max().unwrap_or(0) - low)
        };
        let ((row_low, row_range), (col_low, col_range)) = (range(&row_logs), range(&col_logs));
        // Quarter octaves, or coarser where that makes too many contexts.
        let mut shift = 14;
        while (row_range >> shift) + (col_range >> shift) + 1 > MAX_CONTEXTS as u32 {
            shift += 1;
        }
        let rows = row_logs.iter().map(|l| ((l - row_low) >> shift) as u8).collect();
        let cols = col_logs.iter().map(|l| ((l - col_low) >> shift) as u8).collect();
        Self::with(rows, cols)
    }

    fn with(rows: Vec<u8>, cols: Vec<u8>) -> Self {
        let most = |v: &[u8]| usize::from(v.iter().copied().max().unwrap_or(0));
        let contexts = most(&rows) + most(&cols) + 1;
        Self { rows, cols, contexts }
    }

    fn offsets(&self, period: usize) -> Offsets {
        offsets_of(period, self.rows.clone(), self.cols.clone())
    }

    fn write(&self, side: &mut Encoder) {
        for levels in [&self.rows, &self.cols] {
            let mut tree = fresh_tree(LEVEL_BITS);
            for &l in levels {
                side.tree(&mut tree, LEVEL_BITS, u32::from(l));
            }
        }
    }

    fn read(side: &mut Decoder<'_>, rows: usize, cols: usize) -> Self {
        let mut levels = |n: usize| -> Vec<u8> {
            let mut tree = fresh_tree(LEVEL_BITS);
            (0..n).map(|_| side.tree(&mut tree, LEVEL_BITS) as u8).collect()
        };
        let rows = levels(rows);
        let cols = levels(cols);
        Self::with(rows, cols)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::header::CodecId;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn round_trips(codes in prop::collection::vec((0_u32..19, any::<i32>()), 1..400), period in 1_usize..50) {
            let codes: Vec<i32> = codes.iter().map(|&(bits, c)| c % (1 << bits).min(MAX_CODE)).collect();
            let mut out = Vec::new();
            encode(Level::detect(), &codes, period, &mut out);
            let mut reader = Reader::new(CodecId::Uniform, &out);
            prop_assert_eq!(decode(Level::Scalar, &mut reader, codes.len(), period).unwrap(), codes);
            reader.end().unwrap();
        }
    }
}
