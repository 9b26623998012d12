//! Rows in a shared orthogonal basis, their components quantised with one step.
//!
//! Body (integers little-endian):
//!
//! | bytes | field |
//! |---|---|
//! | 8 | id of the basis |
//! | 4 | step, f32 |
//! | 4 | components used |
//! | … | codes, a row of components for each row of the tensor ([`super::codes`]) |
//!
//! An element is the integer sum of its row's codes times its column of the basis, times step / 8192.

use super::basis::{Basis, FRACTION_BITS};
use super::measure::{Sums, Target};
use super::uniform::square_sum;
use super::values::{finite_values, round_all, write};
use super::{codes, payload_or_lossless};
use crate::bytes::Reader;
use crate::error::CodecError;
use crate::header::{CodecId, Header};
use crate::kernel::{Block, ROWS, predict};
use crate::simd::Level;
use crate::tensor::{DType, TensorRef};

/// Largest magnitude of a component's code: what the integer sums take.
const MAX_COMPONENT: i32 = i16::MAX as i32;
/// Bits of a row's largest value as an integer.
const ROW_BITS: i32 = 12;
/// Blocks of 64 rows on which the step is searched.
const SAMPLE_BLOCKS: usize = 2;
/// Steps tried before the basis is given up.
const TRIES: usize = 10;
/// Payloads this much smaller than the tensor are not compared with the uniform codec's.
const SURE_RATIO: usize = 5;

/// Appends `tensor` as one payload that meets `target`, in `basis`, or without it where that is smaller.
///
/// Returns the payload's length in bytes. A tensor whose rows are not as long as the basis's columns, or of which too
/// much lies outside the basis, goes to the uniform codec.
pub fn encode_klt(
    level: Level,
    basis: &Basis,
    target: Target,
    tensor: TensorRef<'_>,
    out: &mut Vec<u8>,
) -> Result<usize, CodecError> {
    let level = level.checked();
    let uniform = |out: &mut Vec<u8>| super::encode_lossy(level, CodecId::Uniform, target, tensor, out);
    if tensor.rows_cols().1 != basis.columns() {
        return uniform(out);
    }
    let start = out.len();
    let length = payload_or_lossless(level, CodecId::Klt, tensor, out, |out| {
        encode(level, basis, target, tensor, out)
    })?;
    let in_basis = out[start + crate::header::CODEC_AT] == CodecId::Klt as u8;
    if in_basis && length * SURE_RATIO < tensor.bytes().len() {
        return Ok(length);
    }
    let mut other = Vec::new();
    let other_length = uniform(&mut other)?;
    if other_length < length {
        out.truncate(start);
        out.extend_from_slice(&other);
    }
    Ok(out.len() - start)
}

fn encode(level: Level, basis: &Basis, target: Target, tensor: TensorRef<'_>, out: &mut Vec<u8>) -> bool {
    let Some(values) = finite_values(tensor).filter(|v| !v.is_empty()) else {
        return false;
    };
    let parts = basis.components();
    let Some(components) = transform(level, basis, &values).filter(|_| parts > 0) else {
        return false;
    };
    let power = level.run(
        #[inline(always)]
        || square_sum(&values),
    );
    let budget = target.error_to_aim_at().powi(2) * power;
    if budget <= 0.0 || !budget.is_finite() {
        return false;
    }
    let width = basis.columns() * ROWS;
    // A few blocks, spread over the rows, stand for all while the step is searched.
    let blocks = components.len() / (parts * ROWS);
    let stride = blocks.div_ceil(SAMPLE_BLOCKS);
    let mut sample = (Vec::new(), Vec::new());
    for (x, y) in values.chunks(width).zip(components.chunks(parts * ROWS)).step_by(stride) {
        sample.0.extend_from_slice(x);
        sample.1.extend_from_slice(y);
    }
    let attempt = |x: &[f32], y: &[f32], step: f32, codes: &mut Vec<i32>| {
        codes.resize(y.len(), 0);
        let fits = step.is_normal() && quantize(level, y, step, codes);
        let used = used_components(codes, parts);
        fits.then(|| (measure(level, basis, tensor.dtype(), x, codes, used, step), used))
    };
    // What the step does not explain — energy outside the basis, roundings — is measured and kept aside.
    let share = sample.0.len() as f64 / values.len() as f64;
    let mut codes = Vec::new();
    let mut aside = 0.0;
    for _ in 0..2 {
        let step = step_for_noise(level, &sample.1, (budget - aside) * share);
        let Some((sums, _)) = attempt(&sample.0, &sample.1, step, &mut codes) else {
            return false;
        };
        aside = (sums.error - noise(level, &sample.1, step)).max(0.0) / share;
        if aside >= budget {
            return false;
        }
    }
    let mut step = step_for_noise(level, &sample.1, (budget - aside) * share);
    for _ in 0..TRIES {
        let Some((sums, used)) = attempt(&values, &components, step, &mut codes) else {
            return false;
        };
        if target.is_met(&sums) {
            let rows = tensor.len() / basis.columns();
            out.extend_from_slice(&basis.id().to_le_bytes());
            out.extend_from_slice(&step.to_le_bytes());
            out.extend_from_slice(&(used as u32).to_le_bytes());
            codes::encode(level, &row_major(&codes, parts, used, rows), used, out);
            return true;
        }
        let left = (budget - aside).max(1e-3 * budget);
        let over = (sums.error - budget) / left;
        step *= ((1.0 - over).max(0.25).sqrt() * 0.999) as f32;
    }
    false
}

/// The step whose quantisation noise on `components` is `budget`: secants on the logarithms.
fn step_for_noise(level: Level, components: &[f32], budget: f64) -> f32 {
    // Noise is at most step² / 12 an element, so this is a lower bound.
    let mut step = (12.0 * budget / components.len() as f64).sqrt();
    let mut before: Option<(f64, f64)> = None;
    for _ in 0..7 {
        let found = noise(level, components, step as f32);
        if !found.is_normal() {
            break;
        }
        let point = (step.ln(), (found / budget).ln());
        let slope = before.map_or(2.0, |b| (point.1 - b.1) / (point.0 - b.0));
        let slope = if slope.is_finite() { slope.clamp(0.1, 2.0) } else { 2.0 };
        if point.1.abs() < 1e-3 {
            break;
        }
        step *= (-point.1 / slope).clamp(-3.0, 3.0).exp();
        before = Some(point);
    }
    step as f32
}

/// The first `used` components of all rows, row by row.
fn row_major(codes: &[i32], parts: usize, used: usize, rows: usize) -> Vec<i32> {
    let mut out = vec![0; rows * used];
    for (block, out) in codes.chunks(parts * ROWS).zip(out.chunks_mut(used * ROWS)) {
        for (c, column) in block.as_chunks::<ROWS>().0.iter().take(used).enumerate() {
            for (row, &code) in out.chunks_exact_mut(used).zip(column) {
                row[c] = code;
            }
        }
    }
    out
}

/// Components of all rows, in blocks of 64 rows: component by component, 64 rows each. `None` where a row is too small or
/// large for integers.
fn transform(level: Level, basis: &Basis, values: &[f32]) -> Option<Vec<f32>> {
    let (cols, parts) = (basis.columns(), basis.components());
    let mut components = vec![0.0; values.len().div_ceil(cols * ROWS) * ROWS * parts];
    let mut block = Block::new(cols);
    let mut integers = vec![0_i16; cols];
    for (rows, out) in values.chunks(cols * ROWS).zip(components.chunks_mut((parts * ROWS).max(1))) {
        let mut inverse = [0.0_f32; ROWS];
        block.clear();
        for (r, row) in rows.chunks_exact(cols).enumerate() {
            let mut fits = true;
            level.run(
                #[inline(always)]
                || {
                    let most = row.iter().fold(0.0_f32, |m, v| m.max(v.abs()));
                    let exponent = (most.to_bits() >> 23) as i32 - 127;
                    let shift = ROW_BITS - 1 - exponent;
                    // Both powers must be normal.
                    fits = most == 0.0 || (-100..=100).contains(&shift);
                    if !fits || most == 0.0 {
                        return;
                    }
                    let scale = f32::from_bits(((127 + shift) as u32) << 23);
                    inverse[r] = f32::from_bits(((127 - shift - FRACTION_BITS as i32) as u32) << 23);
                    for (i, &v) in integers.iter_mut().zip(row) {
                        *i = (v * scale).round_ties_even() as i16;
                    }
                    block.set_row(r, &integers);
                },
            );
            if !fits {
                return None;
            }
        }
        for (c, out) in out.as_chunks_mut::<ROWS>().0.iter_mut().enumerate() {
            let sums = predict(level, &block, basis.component(c), cols);
            for ((y, &sum), i) in out.iter_mut().zip(&sums).zip(&inverse) {
                *y = sum as f32 * i;
            }
        }
    }
    Some(components)
}

/// Squared error of quantising with `step`.
fn noise(level: Level, components: &[f32], step: f32) -> f64 {
    let inverse = 1.0 / step;
    let mut total = 0.0;
    for run in components.chunks(256) {
        total += level.run(
            #[inline(always)]
            || {
                let mut lanes = [0.0_f32; 16];
                for part in run.chunks(16) {
                    for (l, &v) in lanes.iter_mut().zip(part) {
                        let code = (v.abs() * inverse + 0.5).min(1e6) as i32;
                        let error = v.abs() - code as f32 * step;
                        *l += error * error;
                    }
                }
                f64::from(lanes.iter().sum::<f32>())
            },
        );
    }
    total
}

/// Codes of all components; false where one is too large.
fn quantize(level: Level, components: &[f32], step: f32, codes: &mut [i32]) -> bool {
    let inverse = 1.0 / step;
    level.run(
        #[inline(always)]
        || {
            let mut most = 0;
            for (c, &v) in codes.iter_mut().zip(components) {
                let magnitude = (v.abs() * inverse + 0.5).min(1e6) as i32;
                most = most.max(magnitude);
                *c = if v < 0.0 { -magnitude } else { magnitude };
            }
            most <= MAX_COMPONENT
        },
    )
}

/// Components up to the last that has a code; at least 1.
fn used_components(codes: &[i32], parts: usize) -> usize {
    let last = |block: &[i32]| {
        block.as_chunks::<ROWS>().0.iter().rposition(|c| *c != [0; ROWS]).map_or(0, |i| i + 1)
    };
    codes.chunks(parts * ROWS).map(last).max().unwrap_or(0).max(1)
}

/// Rebuilds the rows of one block from the integers in it.
fn rebuild(level: Level, basis: &Basis, block: &Block, used: usize, step: f32, rows: &mut [f32]) {
    /// Columns that are turned into rows together.
    const TILE: usize = 16;
    let cols = basis.columns();
    let factor = step * (1.0 / (1 << FRACTION_BITS) as f32);
    let mut tile = [[0_i32; ROWS]; TILE];
    for j in (0..cols).step_by(TILE) {
        let width = TILE.min(cols - j);
        for (i, sums) in tile[..width].iter_mut().enumerate() {
            *sums = predict(level, block, basis.column(j + i), used);
        }
        level.run(
            #[inline(always)]
            || {
                for (r, row) in rows.chunks_exact_mut(cols).enumerate() {
                    for (v, sums) in row[j..j + width].iter_mut().zip(&tile) {
                        *v = (sums[r] as f32 * factor).clamp(-f32::MAX, f32::MAX);
                    }
                }
            },
        );
    }
}

fn measure(
    level: Level,
    basis: &Basis,
    dtype: DType,
    values: &[f32],
    codes: &[i32],
    used: usize,
    step: f32,
) -> Sums {
    let (cols, parts) = (basis.columns(), basis.components());
    let mut sums = Sums::default();
    let mut block = Block::new(used);
    let mut rows = vec![0.0; cols * ROWS];
    for (x, codes) in values.chunks(cols * ROWS).zip(codes.chunks(parts * ROWS)) {
        for (c, column) in codes.as_chunks::<ROWS>().0.iter().take(used).enumerate() {
            block.set(c, &column.map(|v| v as i16));
        }
        let rows = &mut rows[..x.len()];
        rebuild(level, basis, &block, used, step, rows);
        level.run(
            #[inline(always)]
            || {
                round_all(dtype, rows);
                sums.add(x, rows);
            },
        );
    }
    sums
}

/// The basis that a body names.
pub(crate) fn basis_id(header: &Header, body: &[u8]) -> Result<u64, CodecError> {
    Reader::new(header.codec, body).u64()
}

/// Decodes a body into `out`, whose length is the decoded size, in the basis that it names.
pub(crate) fn decode(
    level: Level,
    basis: &Basis,
    header: &Header,
    body: &[u8],
    out: &mut [u8],
) -> Result<(), CodecError> {
    let mut reader = Reader::new(header.codec, body);
    let id = reader.u64()?;
    let step = reader.f32()?;
    let used = reader.u32()? as usize;
    let cols = basis.columns();
    let is_float = matches!(header.dtype, DType::Bf16 | DType::F16 | DType::F32);
    let row_length = header.shape().last().copied().unwrap_or(1);
    if id != basis.id() || !is_float || row_length != cols || header.is_empty() {
        return Err(reader.malformed("tensor does not fit the basis"));
    }
    if !step.is_normal() || step < 0.0 || !(1..=basis.components()).contains(&used) {
        return Err(reader.malformed("step or number of components is out of range"));
    }
    let codes = codes::decode(level, &mut reader, header.len() / cols * used, used)?;
    reader.end()?;
    let size = header.dtype.size();
    let mut block = Block::new(used);
    let mut integers = vec![0_i16; used];
    let mut rows = vec![0.0; cols * ROWS];
    for (codes, out) in codes.chunks(used * ROWS).zip(out.chunks_mut(cols * ROWS * size)) {
        block.clear();
        for (r, row) in codes.chunks_exact(used).enumerate() {
            for (i, &c) in integers.iter_mut().zip(row) {
                *i = c.clamp(-MAX_COMPONENT, MAX_COMPONENT) as i16;
            }
            block.set_row(r, &integers);
        }
        let rows = &mut rows[..out.len() / size];
        rebuild(level, basis, &block, used, step, rows);
        write(header.dtype, rows, out);
    }
    Ok(())
}
