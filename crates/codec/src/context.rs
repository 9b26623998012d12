//! The context codec: sign, exponent and first mantissa bit in the context of their column and row.
//!
//! Rows that repeat an earlier row are coded as its index. Every other row has a mean exponent, in quarters of an
//! octave; its whole part is subtracted from the row's exponents, its fraction and the column's class choose the
//! frequency table. Columns are sorted into classes by clustering the histograms of their signs and exponents.
//! The six low mantissa bits, which carry no structure, are stored as they are.
//!
//! Body (integers little-endian):
//!
//! | bytes | field |
//! |---|---|
//! | 1 | flags: 1 rows repeat, 4 low halves of f32 follow, 8 those are all zero and left out |
//! | 4 | row length in elements |
//! | 1, 1 | column classes (1 to 64), steps of an octave for the rows' scale (1, 2 or 4) |
//! | 4 + … | range-coded side information: repeated rows, row scales, column classes, tables |
//! | … | streams of the symbols ([`crate::entropy`]) |
//! | ⌈6 n / 8⌉ | low mantissa bits, 8 elements in 6 bytes |
//! | 4 + … | number of exponents outside the window, and those exponents |
//! | 2 n | low halves of f32 (flag 4), of all rows |
//!
//! n counts elements of rows that do not repeat.

mod classes;
mod rows;
mod words;

use crate::bytes::Reader;
use crate::entropy::plane;
use crate::entropy::range::{Decoder, EVEN, Encoder};
use crate::entropy::tables::Tables;
use crate::error::CodecError;
use crate::f32_halves;
use crate::header::Header;
use crate::layered::Offsets;
use crate::scratch::Scratch;
use crate::simd::Level;
use crate::tensor::{DType, TensorRef};
use classes::Classes;
pub(crate) use rows::Repeats;

const FLAG_REPEATS: u8 = 1;
const FLAG_LOW: u8 = 4;
const FLAG_LOW_ZERO: u8 = 8;
/// Rows as long as these are treated as they are; others are cut to the second number.
const ROW_LENGTHS: std::ops::RangeInclusive<usize> = 8..=16384;
const CUT_ROW: usize = 1024;

/// Encodes a tensor of 16-bit or f32 elements; false when that would not shrink it, with `out` as it was.
pub(crate) fn encode(level: Level, tensor: TensorRef<'_>, out: &mut Vec<u8>) -> bool {
    let start = out.len();
    if tensor.is_empty() || tensor.dtype() == DType::U8 {
        return false;
    }
    let turned;
    let (words, low) = if tensor.dtype() == DType::F32 {
        turned = f32_halves::split(tensor.bytes());
        (&turned.0[..], Some(&turned.1[..]))
    } else {
        (tensor.bytes(), None)
    };
    let rotate = matches!(tensor.dtype(), DType::Bf16 | DType::F16);
    let cols = tensor.rows_cols().1;
    let period = if ROW_LENGTHS.contains(&cols) { cols } else { CUT_ROW };

    let repeats = Repeats::find(words, period);
    let unique;
    let words = if repeats.is_empty() {
        words
    } else {
        unique = repeats.keep_first(words, period);
        &unique[..]
    };
    let n = words.len() / 2;
    let classes = Classes::choose(level, words, rotate, period);
    let (exponent_offsets, contexts) = classes.offsets(period);
    let mut symbols = Scratch::any(n);
    let mut tails = Vec::with_capacity(n / 8 * 6 + 16);
    let mut escapes = Vec::new();
    words::split(level, words, rotate, &exponent_offsets, &mut symbols, &mut tails, &mut escapes);

    let low_zero = low.is_some_and(|low| low.iter().all(|&b| b == 0));
    let mut flags = if repeats.is_empty() { 0 } else { FLAG_REPEATS };
    flags |= if low.is_some() && !low_zero { FLAG_LOW } else { 0 };
    flags |= if low_zero { FLAG_LOW_ZERO } else { 0 };
    out.push(flags);
    out.extend_from_slice(&(period as u32).to_le_bytes());
    out.extend_from_slice(&[classes.count, classes.steps]);
    let tables = Tables::normalize(&plane::count(&symbols, &contexts, classes.contexts()));
    let mut side = Encoder::new();
    if !repeats.is_empty() {
        repeats.write(&mut side);
    }
    classes.write(&mut side);
    tables.write(&mut side);
    side.finish(out);
    plane::encode(level, &tables, &symbols, &contexts, out);
    out.extend_from_slice(&tails);
    out.extend_from_slice(&(escapes.len() as u32).to_le_bytes());
    out.extend_from_slice(&escapes);
    if let Some(low) = low.filter(|_| !low_zero) {
        out.extend_from_slice(low);
    }
    if out.len() - start >= tensor.bytes().len() {
        out.truncate(start);
        return false;
    }
    true
}

/// Decodes a body into `out`, whose length is the decoded size.
pub(crate) fn decode(level: Level, header: &Header, body: &[u8], out: &mut [u8]) -> Result<(), CodecError> {
    let mut reader = Reader::new(header.codec, body);
    let flags = reader.u8()?;
    let is_f32 = header.dtype == DType::F32;
    let low_flags = flags & (FLAG_LOW | FLAG_LOW_ZERO);
    if flags & !(FLAG_REPEATS | low_flags) != 0 || low_flags.count_ones() != u32::from(is_f32) {
        return Err(reader.malformed("flags contradict the element type"));
    }
    if header.dtype == DType::U8 || header.is_empty() {
        return Err(reader.malformed("nothing here to be coded in context"));
    }
    let period = reader.u32()? as usize;
    if period == 0 || period > *ROW_LENGTHS.end() {
        return Err(reader.malformed("row length is out of range"));
    }
    let (class_count, steps) = (reader.u8()?, reader.u8()?);
    if !(1..=64).contains(&class_count) || ![1, 2, 4].contains(&steps) {
        return Err(reader.malformed("number of classes is out of range"));
    }
    let n_all = header.len();
    let all_rows = n_all.div_ceil(period);
    let mut side = Decoder::new(&mut reader)?;
    let repeats = if flags & FLAG_REPEATS == 0 {
        Repeats::default()
    } else {
        if !n_all.is_multiple_of(period) {
            return Err(reader.malformed("a partial row cannot repeat"));
        }
        Repeats::read(&mut side, all_rows)
    };
    let n = n_all - repeats.count() * period;
    let classes = Classes::read(&mut side, class_count, steps, n.div_ceil(period), period);
    let tables = Tables::read(&mut side, classes.contexts()).map_err(|r| reader.malformed(r))?;
    let (exponent_offsets, contexts) = classes.offsets(period);
    let mut symbols = Scratch::any(n);
    plane::decode(level, &tables, &mut reader, &contexts, &mut symbols)?;
    let tails = reader.take(words::tail_bytes(n))?;
    let escape_count = reader.u32()? as usize;
    let escapes = reader.take(escape_count)?;
    let low = reader.take(if flags & FLAG_LOW == 0 { 0 } else { 2 * n_all })?;
    reader.end()?;
    let rotate = matches!(header.dtype, DType::Bf16 | DType::F16);
    words::join(level, &symbols, tails, escapes, rotate, &exponent_offsets, &mut out[..2 * n])
        .map_err(|r| reader.malformed(r))?;
    repeats.spread(&mut out[..2 * n_all], period);
    if is_f32 {
        f32_halves::join(low, out);
    }
    Ok(())
}

/// A fresh tree of even odds for values of `bits` bits.
pub(crate) fn fresh_tree(bits: u32) -> Vec<u16> {
    vec![EVEN; 1 << bits]
}

/// Offsets by row and column; no table at all where all are zero.
pub(crate) fn offsets_of(period: usize, rows: Vec<u8>, cols: Vec<u8>) -> Offsets {
    let empty_if_zero = |v: Vec<u8>| if v.iter().all(|&x| x == 0) { Vec::new() } else { v };
    Offsets { period, rows: empty_if_zero(rows), cols: empty_if_zero(cols) }
}
