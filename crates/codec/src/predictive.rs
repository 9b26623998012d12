//! The predictive codec: every column predicted from the columns before it, by integers that both ends share.
//!
//! A [`Predictor`] is learned from earlier tensors of the same wire, sent once and named by the hash of its bytes.
//! Rows are scaled by their mean exponent and turned into 16-bit integers; a column's prediction is an exact integer
//! sum. The difference of the bf16 bit patterns (as ordered integers) is coded in the context of the expected error in
//! units of the predicted value's last bit; the expected error follows the errors of the same row so far. Where the
//! error is expected to be larger than the prediction, the value itself is coded in the context of its expected size.
//! A tensor that this does not serve falls back to the context codec.
//!
//! Body (integers little-endian):
//!
//! | bytes | field |
//! |---|---|
//! | 8 | id of the predictor |
//! | 4 + … | range-coded row exponents and tables |
//! | 4, 4 | for each segment: bytes of its stream, bytes of its low bits |
//! | … | for each segment: the stream of its symbols ([`crate::entropy`]), 64 rows at a time, column by column; then their low bits in the same order, lowest bit first |
//!
//! A segment has ⌈2^18 ÷ (64 × columns)⌉ × 64 rows; the last one may have fewer.

mod element;
mod learn;
mod predictor;
mod rival;

pub use learn::Learner;
pub use predictor::Predictor;

use crate::bits::{BitReader, BitWriter};
use crate::bytes::Reader;
use crate::entropy::range;
use crate::entropy::rans;
use crate::entropy::tables::Tables;
use crate::error::CodecError;
use crate::header::{CodecId, Header, finish};
use crate::kernel::{self, Block, ROWS};
use crate::parallel::{self, PART};
use crate::simd::Level;
use crate::tensor::{DType, TensorRef};
use element::{CONTEXTS, Lanes};
use rival::Rival;

/// Payloads this much smaller than bf16 are not compared with the context codec's: 1 / 1.7.
const SURE_FRACTION: f64 = 0.59;
/// Fewer rows are not predicted: all lanes of a vector take as long as these.
const LEAST_ROWS: usize = ROWS / 4;
/// Columns whose sums over the columns before them are worked out together.
const GROUP: usize = 16;
/// Columns that are turned to or from rows together: a cache line of words.
const TILE: usize = 32;

/// Appends `tensor` as one payload, predicted by `predictor`, or by the context codec where that is smaller; of large
/// tensors a few rows tell whether both need be tried.
///
/// Returns the payload's length in bytes. Anything but 16 rows or more of bf16 as long as the
/// predictor's columns goes to the context codec.
pub fn encode_predictive(
    level: Level,
    predictor: &Predictor,
    tensor: TensorRef<'_>,
    out: &mut Vec<u8>,
) -> Result<usize, CodecError> {
    let level = level.checked();
    let start = out.len();
    let (rows, cols) = tensor.rows_cols();
    let fits = tensor.dtype() == DType::Bf16 && cols == predictor.columns() && rows >= LEAST_ROWS;
    if !fits {
        return crate::payload::encode_at(level, CodecId::Context, tensor, out);
    }
    let rival = Rival::of(level, predictor, tensor)?;
    if rival.is_some_and(Rival::wins) {
        return crate::payload::encode_at(level, CodecId::Context, tensor, out);
    }
    Header::begin(CodecId::Predictive, tensor.dtype(), tensor.shape(), out);
    encode_body(level, predictor, tensor.bytes(), out);
    finish(start, tensor.shape().len(), out);
    let length = out.len() - start;
    let fraction = length as f64 / tensor.bytes().len() as f64;
    if fraction < SURE_FRACTION || rival.is_some_and(|rival| rival.loses_to(fraction)) {
        return Ok(length);
    }
    let mut other = Vec::new();
    let other_length = crate::payload::encode_at(level, CodecId::Context, tensor, &mut other)?;
    if other_length < length {
        out.truncate(start);
        out.extend_from_slice(&other);
    }
    Ok(out.len() - start)
}

/// Mean exponent of a row, over what is not zero.
fn row_exponent(row: &[u8]) -> u8 {
    let (mut sum, mut count) = (0_u32, 0_u32);
    for w in row.as_chunks::<2>().0 {
        let exponent = u32::from(u16::from_le_bytes(*w) >> 7 & 0xff);
        sum += exponent;
        count += u32::from(exponent > 0);
    }
    (sum / count.max(1)) as u8
}

/// Rows of a segment: whole sixty-fours, so many that a segment is worth a thread.
fn segment_rows(cols: usize) -> usize {
    PART.div_ceil(cols * ROWS).max(1) * ROWS
}

/// What a segment's elements became, in the order of coding.
struct Coded {
    rows: usize,
    symbols: Vec<u8>,
    contexts: Vec<u8>,
    low: Vec<u8>,
}

/// Sums of all columns of a group, from the columns before it; what the group's own columns add comes later.
struct Group {
    start: usize,
    sums: [[i32; ROWS]; GROUP],
}

impl Group {
    const fn new() -> Self {
        Self { start: 0, sums: [[0; ROWS]; GROUP] }
    }

    /// The sums of column `j`, columns being asked for in order; the block holds those before it.
    fn sums(&mut self, level: Level, predictor: &Predictor, block: &Block, j: usize) -> [i32; ROWS] {
        if j.is_multiple_of(GROUP) {
            self.start = j;
            let count = GROUP.min(predictor.columns() - j);
            let weights = |i: usize| predictor.row(j + i);
            kernel::predict_all(level, block, count, j, weights, |i, sums| self.sums[i] = *sums);
        }
        let mut sums = self.sums[j - self.start];
        if j > self.start {
            let own = kernel::predict_range(level, block, predictor.row(j), self.start..j);
            for (s, o) in sums.iter_mut().zip(&own) {
                *s = s.wrapping_add(*o);
            }
        }
        sums
    }
}

fn code_segment(level: Level, predictor: &Predictor, words: &[u8], exponents: &[u8]) -> Coded {
    let cols = predictor.columns();
    let n = words.len() / 2;
    let mut symbols = Vec::with_capacity(n);
    let mut contexts = Vec::with_capacity(n);
    let mut low = BitWriter::new();
    let mut block = Block::new(cols);
    let mut group = Group::new();
    let mut columns = vec![[0_u16; ROWS]; cols.next_multiple_of(2)];
    for (rows, exponents) in words.chunks(2 * cols * ROWS).zip(exponents.chunks(ROWS)) {
        let count = exponents.len();
        let mut lanes = Lanes::new(exponents);
        to_columns(rows, &mut columns[..cols]);
        // The integers of all columns are known beforehand here, unlike where they are decoded.
        for (i, [a, b]) in columns.as_chunks::<2>().0.iter().enumerate() {
            let a = lanes.integers(level, predictor.scale(2 * i), a);
            let b = if 2 * i + 1 < cols {
                lanes.integers(level, predictor.scale(2 * i + 1), b)
            } else {
                [0; ROWS]
            };
            block.set_pair(i, &a, &b);
        }
        let (mut s, mut c) = ([0; ROWS], [0; ROWS]);
        for (j, column) in columns[..cols].iter().enumerate() {
            let sums = group.sums(level, predictor, &block, j);
            lanes.expect(level, predictor.scale(j), &sums);
            lanes.code(level, column, &mut s, &mut c);
            let (values, bits) = lanes.low(level, column, &s);
            low.put_all(&values[..count], &bits[..count]);
            symbols.extend_from_slice(&s[..count]);
            contexts.extend_from_slice(&c[..count]);
            lanes.learn(level, predictor.scale(j), &block.column(j), &sums);
        }
    }
    let mut bytes = Vec::new();
    low.finish(&mut bytes);
    Coded { rows: exponents.len(), symbols, contexts, low: bytes }
}

/// Rows of words, at most 64, to columns; lanes beyond the last row keep what they had.
fn to_columns(rows: &[u8], columns: &mut [[u16; ROWS]]) {
    let cols = columns.len();
    for (t, tile) in columns.chunks_mut(TILE).enumerate() {
        // A tile stays in the nearest cache while all rows fill it.
        for (r, row) in rows.chunks_exact(2 * cols).enumerate() {
            let words = row.as_chunks::<2>().0[t * TILE..].iter();
            for (column, w) in tile.iter_mut().zip(words) {
                column[r] = u16::from_le_bytes(*w);
            }
        }
    }
}

/// Undoes [`to_columns`] for the columns from `from` on, which `tile` holds.
fn from_columns(tile: &[[u16; ROWS]], cols: usize, from: usize, rows: &mut [u8]) {
    for (r, row) in rows.chunks_exact_mut(2 * cols).enumerate() {
        for (w, column) in row.as_chunks_mut::<2>().0[from..].iter_mut().zip(tile) {
            *w = column[r].to_le_bytes();
        }
    }
}

fn segment_stream(level: Level, table: &rans::EncodeTable, coded: &Coded, cols: usize) -> Vec<u8> {
    let Coded { rows, symbols, contexts, .. } = coded;
    let n = symbols.len();
    let mut encoder = rans::Encoder::new(n);
    let whole = n / (ROWS * cols) * (ROWS * cols);
    let last_rows = rows % ROWS;
    for at in (whole..n).step_by(last_rows.max(1)).rev() {
        encoder.push(level, table, &symbols[at..at + last_rows], &contexts[at..at + last_rows]);
    }
    encoder.push(level, table, &symbols[..whole], &contexts[..whole]);
    let mut out = Vec::new();
    encoder.finish(&mut out);
    out
}

fn encode_body(level: Level, predictor: &Predictor, words: &[u8], out: &mut Vec<u8>) {
    let cols = predictor.columns();
    let exponents: Vec<u8> = words.chunks(2 * cols).map(row_exponent).collect();
    let rows = segment_rows(cols);
    let segments = words.chunks(2 * cols * rows).zip(exponents.chunks(rows));
    let coded =
        parallel::map(segments, |(words, exponents)| code_segment(level, predictor, words, exponents));
    let mut counts = vec![[0_u32; 256]; CONTEXTS];
    for (&s, &c) in coded.iter().flat_map(|coded| coded.symbols.iter().zip(&coded.contexts)) {
        counts[usize::from(c)][usize::from(s)] += 1;
    }
    let tables = Tables::normalize(&counts);
    out.extend_from_slice(&predictor.id().to_le_bytes());
    let mut side = range::Encoder::new();
    let mut tree = [range::EVEN; 256];
    for &e in &exponents {
        side.tree(&mut tree, 8, u32::from(e));
    }
    tables.write(&mut side);
    side.finish(out);
    let table = rans::EncodeTable::new(&tables);
    let streams = parallel::map(coded.iter(), |coded| segment_stream(level, &table, coded, cols));
    for (coded, stream) in coded.iter().zip(&streams) {
        out.extend_from_slice(&(stream.len() as u32).to_le_bytes());
        out.extend_from_slice(&(coded.low.len() as u32).to_le_bytes());
    }
    for (coded, stream) in coded.iter().zip(&streams) {
        out.extend_from_slice(stream);
        out.extend_from_slice(&coded.low);
    }
}

/// The predictor that a body names.
pub(crate) fn predictor_id(header: &Header, body: &[u8]) -> Result<u64, CodecError> {
    let mut reader = Reader::new(header.codec, body);
    reader.u64()
}

/// Decodes a body into `out`, whose length is the decoded size, with the predictor that it names.
pub(crate) fn decode(
    level: Level,
    predictor: &Predictor,
    header: &Header,
    body: &[u8],
    out: &mut [u8],
) -> Result<(), CodecError> {
    let mut reader = Reader::new(header.codec, body);
    if reader.u64()? != predictor.id() {
        return Err(reader.malformed("this is another predictor"));
    }
    let cols = predictor.columns();
    let row_length = header.shape().last().copied().unwrap_or(1);
    if header.dtype != DType::Bf16 || row_length != cols || header.is_empty() {
        return Err(reader.malformed("tensor does not fit the predictor"));
    }
    let mut side = range::Decoder::new(&mut reader)?;
    let mut tree = [range::EVEN; 256];
    let rows = header.len() / cols;
    let exponents: Vec<u8> = (0..rows).map(|_| side.tree(&mut tree, 8) as u8).collect();
    let tables = Tables::read(&mut side, CONTEXTS).map_err(|r| reader.malformed(r))?;
    let table = rans::DecodeTable::new(&tables);
    let segment = segment_rows(cols);
    let lengths = reader.take(8 * rows.div_ceil(segment))?.as_chunks::<4>().0;
    let mut parts = Vec::with_capacity(lengths.len() / 2);
    for [stream, low] in lengths.as_chunks::<2>().0 {
        let mut take = |length: &[u8; 4]| reader.take(u32::from_le_bytes(*length) as usize);
        parts.push((take(stream)?, take(low)?));
    }
    reader.end()?;
    let segments = out.chunks_mut(2 * cols * segment).zip(exponents.chunks(segment)).zip(parts);
    let decoded = parallel::map(segments, |((out, exponents), (stream, low))| {
        decode_segment(level, predictor, &table, exponents, stream, low, out)
    });
    decoded.into_iter().collect::<Result<(), _>>().map_err(|r| reader.malformed(r))
}

fn decode_segment(
    level: Level,
    predictor: &Predictor,
    table: &rans::DecodeTable,
    exponents: &[u8],
    stream: &[u8],
    low: &[u8],
    out: &mut [u8],
) -> Result<(), &'static str> {
    let cols = predictor.columns();
    let mut decoder = rans::Decoder::new(table, stream)?;
    let mut low = BitReader::new(low);
    let mut block = Block::new(cols);
    let mut group = Group::new();
    let mut tile = [[0_u16; ROWS]; TILE];
    for (rows, exponents) in out.chunks_mut(2 * cols * ROWS).zip(exponents.chunks(ROWS)) {
        let count = exponents.len();
        let mut lanes = Lanes::new(exponents);
        let (mut s, mut c) = ([0; ROWS], [0; ROWS]);
        let mut low_bits = [0; ROWS];
        for j in 0..cols {
            let sums = group.sums(level, predictor, &block, j);
            lanes.expect(level, predictor.scale(j), &sums);
            lanes.contexts(&mut c);
            decoder.run(level, &c[..count], &mut s[..count])?;
            let bits = lanes.low_lengths(level, &s);
            for (l, &b) in low_bits[..count].iter_mut().zip(&bits) {
                *l = low.get(b);
            }
            let column = &mut tile[j % TILE];
            *column = lanes.values(level, &s, &low_bits);
            let integers = lanes.integers(level, predictor.scale(j), column);
            lanes.learn(level, predictor.scale(j), &integers, &sums);
            block.set(j, &integers);
            if j % TILE == TILE - 1 || j == cols - 1 {
                from_columns(&tile[..=j % TILE], cols, j / TILE * TILE, rows);
            }
        }
    }
    decoder.finish()?;
    low.finish()
}
