//! Planes of signed integers, losslessly: a row less what similar rows before it predict, coded in the context of its
//! row's and column's size.
//!
//! Tokens recur, so rows of activations and their gradients resemble earlier rows of the same tensor, often to a
//! percent. Each row names up to [`references::MAX_REFERENCES`] of them with a gain ([`references`]); a column's mean is
//! taken off first. What is left loses its low bits, as many as the row's size allows (they carry no structure and are
//! stored as they are), and the rest is a symbol ([`symbols`]) for rANS.
//!
//! Layout: 4 + … bytes of range-coded means, references, levels and tables; the streams of the symbols; the low bits,
//! row by row, eight elements to as many bytes as each has low bits; 4 + … bytes of further bits of large values.

mod levels;
mod references;
mod symbols;

use crate::bits::{BitReader, BitWriter};
use crate::bytes::Reader;
use crate::context::fresh_tree;
use crate::entropy::plane;
use crate::entropy::range::{Decoder, Encoder};
use crate::entropy::tables::Tables;
use crate::error::CodecError;
use crate::scratch::Scratch;
use crate::simd::Level;
use levels::{Levels, RowLevel};
use references::References;
use symbols::{pack, packed_bytes, unpack};

/// Largest magnitude of a code.
pub(crate) const MAX_CODE: i32 = (1 << 18) - 1;
/// Fewer rows than this pay more for means than they gain.
const MIN_MEAN_ROWS: usize = 32;

/// Appends `codes`, none above [`MAX_CODE`] in magnitude, in rows of `period`.
pub(crate) fn encode(level: Level, codes: &[i32], period: usize, out: &mut Vec<u8>) {
    let means = Means::of(level, codes, period);
    let centred;
    let codes = if means.0.is_empty() {
        codes
    } else {
        centred = means.subtract(level, codes, period);
        &centred[..]
    };
    let references = References::find(level, codes, period);
    let mut symbols = Scratch::any(codes.len());
    let mut low = Vec::with_capacity(codes.len() / 4 + 64);
    let mut long = BitWriter::new();
    let mut row_levels = Vec::with_capacity(codes.len().div_ceil(period));
    let mut sums = vec![0_u32; period];
    let mut rest = vec![0_i32; period];
    for (i, (row, symbols)) in codes.chunks(period).zip(symbols.chunks_mut(period)).enumerate() {
        let rest = &mut rest[..row.len()];
        let (row_level, has_long) = level.run(
            #[inline(always)]
            || {
                references.predict(i, codes, rest);
                let (mut total, mut logarithms) = (0_u64, 0_u64);
                for (r, z) in rest.chunks_mut(256).zip(row.chunks(256)) {
                    let (mut part, mut part_logarithms) = (0_u32, 0_u32);
                    for (r, &z) in r.iter_mut().zip(z) {
                        *r = z - *r;
                        part += r.unsigned_abs();
                        // An f32's bits are its logarithm, nearly; all are at least 1.
                        let bits = ((2 * r.abs() + 1) as f32).to_bits();
                        part_logarithms += (bits - 1.0_f32.to_bits()) >> 7;
                    }
                    total += u64::from(part);
                    logarithms += u64::from(part_logarithms);
                }
                let row_level = RowLevel::of(total, logarithms, row.len());
                let has_long = symbols::split(rest, row_level.shift, symbols, &mut sums);
                pack(rest, row_level.shift, &mut low);
                (row_level, has_long)
            },
        );
        row_levels.push(row_level);
        if has_long {
            for (&r, &s) in rest.iter().zip(symbols.iter()) {
                symbols::put_long(r >> row_level.shift, s, &mut long);
            }
        }
    }
    let levels = Levels::new(row_levels, &sums, codes.len());
    let contexts = levels.offsets(period);
    let tables = Tables::normalize(&plane::count(&symbols, &contexts, levels.contexts()));
    let mut side = Encoder::new();
    means.write(&mut side);
    references.write(&mut side);
    levels.write(&mut side);
    tables.write(&mut side);
    side.finish(out);
    plane::encode(level, &tables, &symbols, &contexts, out);
    out.extend_from_slice(&low);
    let at = out.len();
    out.extend_from_slice(&[0; 4]);
    long.finish(out);
    let length = (out.len() - at - 4) as u32;
    out[at..at + 4].copy_from_slice(&length.to_le_bytes());
}

/// Reads `n` codes in rows of `period`. Codes of damaged input may have any value.
pub(crate) fn decode(
    level: Level,
    reader: &mut Reader<'_>,
    n: usize,
    period: usize,
) -> Result<Scratch<i32>, CodecError> {
    let rows = n.div_ceil(period);
    let mut side = Decoder::new(reader)?;
    let means = Means::read(&mut side, period);
    let mut references = References::read(&mut side, rows);
    if !n.is_multiple_of(period) {
        references.clear_last();
    }
    let levels = Levels::read(&mut side, rows, period);
    let tables = Tables::read(&mut side, levels.contexts()).map_err(|r| reader.malformed(r))?;
    let mut symbols = Scratch::any(n);
    plane::decode(level, &tables, reader, &levels.offsets(period), &mut symbols)?;
    let low_bytes = |i: usize| packed_bytes(period.min(n - i * period), levels.shift_of(i));
    let mut low = reader.take((0..rows).map(low_bytes).sum())?;
    let length = reader.u32()? as usize;
    let mut long = BitReader::new(reader.take(length)?);
    let mut codes = Scratch::any(n);
    let mut expected = vec![0_i32; period];
    for (i, symbols) in symbols.chunks(period).enumerate() {
        let (before, row) = codes.split_at_mut(i * period);
        let row = &mut row[..symbols.len()];
        let shift = levels.shift_of(i);
        let (own_low, later) = low.split_at(packed_bytes(row.len(), shift));
        low = later;
        let has_long = level.run(
            #[inline(always)]
            || symbols::join(symbols, row),
        );
        if has_long {
            for (v, &s) in row.iter_mut().zip(symbols) {
                symbols::get_long(v, s, &mut long);
            }
        }
        let expected = &mut expected[..row.len()];
        level.run(
            #[inline(always)]
            || {
                unpack(own_low, shift, row);
                references.predict(i, before, expected);
                for (v, &e) in row.iter_mut().zip(expected.iter()) {
                    *v = v.wrapping_add(e);
                }
            },
        );
    }
    long.finish().map_err(|r| reader.malformed(r))?;
    if !means.0.is_empty() {
        level.run(
            #[inline(always)]
            || {
                for row in codes.chunks_mut(period) {
                    for (c, &m) in row.iter_mut().zip(&means.0) {
                        *c = c.wrapping_add(m);
                    }
                }
            },
        );
    }
    Ok(codes)
}

/// Mean code of each column, subtracted before coding; empty where all are zero or the rows are too few.
struct Means(Vec<i32>);

impl Means {
    fn of(level: Level, codes: &[i32], period: usize) -> Self {
        let rows = codes.len() / period;
        if rows < MIN_MEAN_ROWS {
            return Self(Vec::new());
        }
        let mut sums = vec![0_i64; period];
        level.run(
            #[inline(always)]
            || {
                let mut part = vec![0_i32; period];
                // Sums of 4096 codes below 2^18 fit an i32.
                for rows in codes.chunks(4096 * period) {
                    part.fill(0);
                    for row in rows.chunks(period) {
                        for (s, &c) in part.iter_mut().zip(row) {
                            *s += c;
                        }
                    }
                    for (s, &p) in sums.iter_mut().zip(&part) {
                        *s += i64::from(p);
                    }
                }
            },
        );
        let rounded = |s: i64| (s.abs() + rows as i64 / 2) / rows as i64 * s.signum();
        let means: Vec<i32> = sums.into_iter().map(|s| rounded(s) as i32).collect();
        // The last row may be partial, but no mean leaves the range of codes by more than its share.
        let means = means.into_iter().map(|m| m.clamp(-MAX_CODE, MAX_CODE)).collect::<Vec<_>>();
        if means.iter().all(|&m| m == 0) { Self(Vec::new()) } else { Self(means) }
    }

    fn subtract(&self, level: Level, codes: &[i32], period: usize) -> Scratch<i32> {
        let mut out = Scratch::any(codes.len());
        level.run(
            #[inline(always)]
            || {
                for (out, row) in out.chunks_mut(period).zip(codes.chunks(period)) {
                    for ((o, c), m) in out.iter_mut().zip(row).zip(&self.0) {
                        *o = c - m;
                    }
                }
            },
        );
        out
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::header::CodecId;
    use proptest::prelude::*;

    fn there_and_back(codes: &[i32], period: usize) -> usize {
        let mut payloads = Vec::new();
        for level in Level::available() {
            let mut out = Vec::new();
            encode(level, codes, period, &mut out);
            for other in Level::available() {
                let mut reader = Reader::new(CodecId::Uniform, &out);
                assert_eq!(decode(other, &mut reader, codes.len(), period).unwrap()[..], *codes);
                reader.end().unwrap();
            }
            payloads.push(out);
        }
        assert!(payloads.windows(2).all(|w| w[0] == w[1]), "levels write other bytes");
        payloads[0].len()
    }

    proptest! {
        #[test]
        fn round_trips(codes in prop::collection::vec((0_u32..19, any::<i32>()), 1..400), period in 1_usize..50) {
            let codes: Vec<i32> = codes.iter().map(|&(bits, c)| c % (1 << bits).min(MAX_CODE)).collect();
            there_and_back(&codes, period);
        }

        #[test]
        fn rows_that_resemble_earlier_ones_cost_little(seed: u64, period in 40_usize..200) {
            let mut x = seed | 1;
            let mut next = || {
                x = x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (x >> 40) as i32
            };
            let fresh: Vec<i32> = (0..100 * period).map(|_| next() % 200).collect();
            let mut codes = fresh.clone();
            for _ in 0..100 {
                let of = next() as usize % 100 * period;
                codes.extend(fresh[of..of + period].iter().map(|&c| c + next() % 3));
            }
            let (alone, with) = (there_and_back(&fresh, period), there_and_back(&codes, period));
            prop_assert!(with < alone * 7 / 4, "{alone} and {with} bytes");
        }
    }

    #[test]
    fn extremes_round_trip() {
        let far: Vec<i32> = (0..70 * 40).map(|i| if i % 3 == 0 { MAX_CODE } else { -MAX_CODE }).collect();
        there_and_back(&far, 40);
        let turning: Vec<i32> =
            (0..70 * 40).map(|i| if i / 40 % 2 == 0 { MAX_CODE } else { -MAX_CODE }).collect();
        there_and_back(&turning, 40);
    }
}
