//! Layered codes: the body shared by the fast and huffman codecs.
//!
//! Each 16-bit word, turned left by one for floats so that the exponent fills the high byte, is a *symbol* (high byte)
//! and a *tail* (low byte, stored as it is). An expected exponent per row and column may be subtracted from the symbols
//! first. They are then coded in layers: a layer gives every symbol a code of 1 to 3 bits, whose all-ones value means
//! "escaped"; only the escaped symbols go on to the next layer, and what no layer knows is stored as bytes. The lengths
//! of a sequence of layers come within a percent of Huffman's on exponents, and every layer is a few vector
//! instructions for 64 symbols.
//!
//! Body (integers little-endian):
//!
//! | bytes | field |
//! |---|---|
//! | 1 | flags: 1 row offsets, 2 column offsets, 4 low halves of f32 follow, 8 those are all zero and left out |
//! | 1 | number of layers, 1 to 24 |
//! | each | layer: bits (1, 2, 3), then 1, 3 or 1 symbols; 3 bits stand for seven consecutive symbols |
//! | 4 | row length in elements (with flag 1 or 2) |
//! | rows, row length | row offsets, column offsets (each with its flag) |
//! | 4 × chunks | bytes of each chunk of 16384 elements |
//! | … | chunks |
//! | 2 n | low halves of f32 (flag 4) |
//!
//! A chunk of n elements that takes 2 n bytes is stored as it is. Otherwise: n tails; then for each layer its bit
//! planes, 64 elements at a time, one `u64` per bit, the last group cut to whole bytes; then the remaining symbols.

mod chunk;
mod offsets;
mod plan;

use chunk::Scratch;
pub(crate) use offsets::Offsets;
pub(crate) use plan::Effort;
use plan::Plan;

use crate::bytes::Reader;
use crate::error::CodecError;
use crate::f32_halves;
use crate::header::Header;
use crate::parallel::{self, PART};
use crate::simd::{Layer, Level};
use crate::tensor::{DType, TensorRef};

/// Elements of a chunk.
pub(crate) const CHUNK: usize = 16384;
/// Most layers of a code.
pub(crate) const MAX_LAYERS: usize = 24;

const FLAG_ROWS: u8 = 1;
const FLAG_COLS: u8 = 2;
const FLAG_LOW: u8 = 4;
const FLAG_LOW_ZERO: u8 = 8;

/// Encodes a tensor of 16-bit or f32 elements; false when that would not shrink it, with `out` as it was.
pub(crate) fn encode(level: Level, effort: Effort, tensor: TensorRef<'_>, out: &mut Vec<u8>) -> bool {
    let start = out.len();
    let n = tensor.len();
    if n == 0 {
        return false;
    }
    let turned;
    let (words, low) = match tensor.dtype() {
        DType::Bf16 | DType::F16 | DType::U16 => (tensor.bytes(), None),
        DType::F32 => {
            turned = f32_halves::split(tensor.bytes());
            (&turned.0[..], Some(&turned.1[..]))
        }
        DType::U8 => return false,
    };
    let rotate = matches!(tensor.dtype(), DType::Bf16 | DType::F16);
    let plan = Plan::choose(effort, words, rotate, tensor.rows_cols().1);
    let low_zero = low.is_some_and(|low| low.iter().all(|&b| b == 0));
    let mut flags = 0;
    for (flag, on) in [
        (FLAG_ROWS, !plan.offsets.rows.is_empty()),
        (FLAG_COLS, !plan.offsets.cols.is_empty()),
        (FLAG_LOW, low.is_some() && !low_zero),
        (FLAG_LOW_ZERO, low_zero),
    ] {
        flags |= if on { flag } else { 0 };
    }
    out.push(flags);
    put_layers(&plan.layers, out);
    if flags & (FLAG_ROWS | FLAG_COLS) != 0 {
        out.extend_from_slice(&(plan.offsets.period as u32).to_le_bytes());
        out.extend_from_slice(&plan.offsets.rows);
        out.extend_from_slice(&plan.offsets.cols);
    }
    let table = out.len();
    out.resize(table + 4 * n.div_ceil(CHUNK), 0);
    // Appends the chunks from element `start` on and notes the length of each.
    let encode = |start: usize, words: &[u8], lengths: &mut Vec<u32>, out: &mut Vec<u8>| {
        let mut scratch = Scratch::new(words.len() / 2);
        for (i, part) in words.chunks(2 * CHUNK).enumerate() {
            let before = out.len();
            plan.offsets.fill(start + i * CHUNK, part.len() / 2, scratch.offsets_mut());
            chunk::encode(level, &plan.layers, rotate, part, &mut scratch, out);
            lengths.push((out.len() - before) as u32);
        }
    };
    let mut lengths = Vec::with_capacity(n.div_ceil(CHUNK));
    if parallel::shared(n) {
        let parts = parallel::map(words.chunks(2 * PART).enumerate(), |(i, part)| {
            let (mut lengths, mut out) = (Vec::new(), Vec::with_capacity(part.len()));
            encode(i * PART, part, &mut lengths, &mut out);
            (lengths, out)
        });
        for (part_lengths, part) in parts {
            lengths.extend(part_lengths);
            out.extend_from_slice(&part);
        }
    } else {
        encode(0, words, &mut lengths, out);
    }
    for (to, length) in out[table..].chunks_exact_mut(4).zip(lengths) {
        to.copy_from_slice(&length.to_le_bytes());
    }
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
    let bad = |reason| CodecError::Malformed { codec: header.codec, reason };
    let n = header.len();
    let mut reader = Reader::new(header.codec, body);
    let flags = reader.u8()?;
    let is_f32 = header.dtype == DType::F32;
    let low_flags = flags & (FLAG_LOW | FLAG_LOW_ZERO);
    if flags >= 16 || low_flags.count_ones() != u32::from(is_f32) {
        return Err(bad("flags contradict the element type"));
    }
    if header.dtype == DType::U8 {
        return Err(bad("bytes are not coded in layers"));
    }
    let layers = get_layers(&mut reader)?;
    let mut offsets = Offsets::none();
    if flags & (FLAG_ROWS | FLAG_COLS) != 0 {
        let period = reader.u32()? as usize;
        if period == 0 {
            return Err(bad("row length is zero"));
        }
        let rows = if flags & FLAG_ROWS == 0 { 0 } else { n.div_ceil(period) };
        let cols = if flags & FLAG_COLS == 0 { 0 } else { period };
        offsets = Offsets { period, rows: reader.take(rows)?.to_vec(), cols: reader.take(cols)?.to_vec() };
    }
    let lengths = reader.take(4 * n.div_ceil(CHUNK))?.as_chunks::<4>().0;
    let rotate = matches!(header.dtype, DType::Bf16 | DType::F16);
    // An f32's high halves are decoded into the first half of the output and spread from there.
    let words = if is_f32 { &mut out[..2 * n] } else { &mut *out };
    let decode = |start: usize, part: &mut [u8], chunk: &[u8], scratch: &mut Scratch| {
        offsets.fill(start, part.len() / 2, scratch.offsets_mut());
        chunk::decode(level, &layers, rotate, chunk, scratch, part).map_err(bad)
    };
    if parallel::shared(n) {
        let mut chunks = Vec::with_capacity(lengths.len());
        for length in lengths {
            chunks.push(reader.take(u32::from_le_bytes(*length) as usize)?);
        }
        let parts = words.chunks_mut(2 * PART).zip(chunks.chunks(PART / CHUNK)).enumerate();
        let decoded = parallel::map(parts, |(i, (words, chunks))| {
            let mut scratch = Scratch::new(words.len() / 2);
            let mut parts = words.chunks_mut(2 * CHUNK).zip(chunks).enumerate();
            parts.try_for_each(|(j, (part, chunk))| decode(i * PART + j * CHUNK, part, chunk, &mut scratch))
        });
        decoded.into_iter().collect::<Result<(), _>>()?;
    } else {
        let mut scratch = Scratch::new(n);
        for (i, (part, length)) in words.chunks_mut(2 * CHUNK).zip(lengths).enumerate() {
            let chunk = reader.take(u32::from_le_bytes(*length) as usize)?;
            decode(i * CHUNK, part, chunk, &mut scratch)?;
        }
    }
    let low = reader.take(if flags & FLAG_LOW == 0 { 0 } else { 2 * n })?;
    reader.end()?;
    if is_f32 {
        f32_halves::join(low, out);
    }
    Ok(())
}

fn put_layers(layers: &[Layer], out: &mut Vec<u8>) {
    out.push(layers.len() as u8);
    for layer in layers {
        out.push(layer.bits);
        out.extend_from_slice(&layer.symbols[..symbols_of(layer.bits)]);
    }
}

const fn symbols_of(bits: u8) -> usize {
    if bits == 2 { 3 } else { 1 }
}

fn get_layers(reader: &mut Reader<'_>) -> Result<Vec<Layer>, CodecError> {
    let count = usize::from(reader.u8()?);
    if count == 0 || count > MAX_LAYERS {
        return Err(reader.malformed("number of layers is out of range"));
    }
    let mut layers = Vec::with_capacity(count);
    for _ in 0..count {
        let bits = reader.u8()?;
        if !(1..=3).contains(&bits) {
            return Err(reader.malformed("a layer's bits are out of range"));
        }
        let given = reader.take(symbols_of(bits))?;
        let mut symbols = [given[0]; 3];
        symbols[..given.len()].copy_from_slice(given);
        layers.push(Layer { bits, symbols });
    }
    Ok(layers)
}
