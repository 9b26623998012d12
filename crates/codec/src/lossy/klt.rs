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
//! An element is the integer sum of its row's codes times its column of the basis, times step / 4096.

use super::basis::{Basis, FRACTION_BITS};
use super::measure::{Sums, Target};
use super::values::{finite_values, round_to, write};
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
const ROW_BITS: i32 = 13;
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
    let length =
        payload_or_lossless(level, CodecId::Klt, tensor, out, |out| encode(level, basis, target, tensor, out))?;
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
    let square = |v: &[f32]| v.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>();
    let power = square(&values);
    let outside = (power - square(&components)).max(0.0);
    let aim = target.error_to_aim_at();
    // Where the step fills the whole error it is found by bisection on the components alone.
    let budget = aim * aim * power - outside;
    if budget <= 0.0 {
        return false;
    }
    let (mut low, mut high) = (0.0, (power / values.len() as f64).sqrt() * 64.0);
    let sample: Vec<f32> = components.chunks(parts).step_by(4).flatten().copied().collect();
    let share = sample.len() as f64 / components.len() as f64;
    for _ in 0..24 {
        let step: f64 = 0.5 * (low + high);
        if noise(level, &sample, step as f32) < budget * share { low = step } else { high = step }
    }
    let mut step = low;
    let mut codes = vec![0; components.len()];
    for _ in 0..TRIES {
        let fits = f64::from(step as f32) > 0.0 && (step as f32).is_normal();
        if !fits || !quantize(level, &components, step as f32, &mut codes) {
            return false;
        }
        let used = used_components(&codes, parts);
        let sums = measure(level, basis, tensor.dtype(), &values, &codes, used, step as f32);
        if target.is_met(&sums) {
            let kept: Vec<i32> = codes.chunks_exact(parts).flat_map(|row| &row[..used]).copied().collect();
            out.extend_from_slice(&basis.id().to_le_bytes());
            out.extend_from_slice(&(step as f32).to_le_bytes());
            out.extend_from_slice(&(used as u32).to_le_bytes());
            codes::encode(level, &kept, used, out);
            return true;
        }
        step *= (aim / sums.relative_error()).clamp(0.3, 1.0) * 0.998;
    }
    false
}

/// Components of all rows, row-major; `None` where a row is too small or large for integers.
fn transform(level: Level, basis: &Basis, values: &[f32]) -> Option<Vec<f32>> {
    let (cols, parts) = (basis.columns(), basis.components());
    let mut components = vec![0.0; values.len() / cols * parts];
    let mut block = Block::new(cols);
    for (rows, out) in values.chunks(cols * ROWS).zip(components.chunks_mut((parts * ROWS).max(1))) {
        let mut scales = [0.0_f32; ROWS];
        let mut inverse = [0.0_f32; ROWS];
        for ((s, i), row) in scales.iter_mut().zip(&mut inverse).zip(rows.chunks_exact(cols)) {
            let most = row.iter().fold(0.0_f32, |m, v| m.max(v.abs()));
            if most > 0.0 {
                let exponent = (most.to_bits() >> 23) as i32 - 127;
                let shift = ROW_BITS - 1 - exponent;
                // Both powers and the factor below must be normal.
                if !(-100..=100).contains(&shift) {
                    return None;
                }
                *s = f32::from_bits(((127 + shift) as u32) << 23);
                *i = f32::from_bits(((127 - shift - FRACTION_BITS as i32) as u32) << 23);
            }
        }
        block.clear();
        let mut column = [0_i16; ROWS];
        for j in 0..cols {
            for ((c, row), s) in column.iter_mut().zip(rows.chunks_exact(cols)).zip(&scales) {
                *c = (row[j] * s).round_ties_even() as i16;
            }
            block.set(j, &column);
        }
        for c in 0..parts {
            let sums = predict(level, &block, basis.component(c), cols);
            for ((row, &sum), i) in out.chunks_exact_mut(parts).zip(&sums).zip(&inverse) {
                row[c] = sum as f32 * i;
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

/// Components up to the last that has a code.
fn used_components(codes: &[i32], parts: usize) -> usize {
    let last = |row: &[i32]| row.iter().rposition(|&c| c != 0).map_or(0, |i| i + 1);
    codes.chunks_exact(parts).map(last).max().unwrap_or(0).max(1)
}

/// Calls `each` with the rows of a block, in f32, from first to last.
///
/// `codes` has rows of `parts`, of which `used` count.
fn rebuild(
    level: Level,
    basis: &Basis,
    codes: &[i32],
    parts: usize,
    used: usize,
    step: f32,
    mut each: impl FnMut(usize, &[f32]),
) {
    let cols = basis.columns();
    let factor = step * (1.0 / (1 << FRACTION_BITS) as f32);
    let mut block = Block::new(used);
    let mut rows = vec![0.0; cols * ROWS];
    for (b, codes) in codes.chunks(parts * ROWS).enumerate() {
        block.clear();
        let count = codes.len() / parts;
        let mut column = [0_i16; ROWS];
        for c in 0..used {
            for (v, row) in column.iter_mut().zip(codes.chunks_exact(parts)) {
                *v = row[c].clamp(-MAX_COMPONENT, MAX_COMPONENT) as i16;
            }
            block.set(c, &column);
        }
        for j in 0..cols {
            let sums = predict(level, &block, basis.column(j), used);
            for (row, &sum) in rows.chunks_exact_mut(cols).zip(&sums[..count]) {
                row[j] = (sum as f32 * factor).clamp(-f32::MAX, f32::MAX);
            }
        }
        each(b, &rows[..count * cols]);
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
    let block = basis.columns() * ROWS;
    let mut sums = Sums::default();
    rebuild(level, basis, codes, basis.components(), used, step, |b, rows| {
        let rounded: Vec<f32> = rows.iter().map(|&v| round_to(dtype, v)).collect();
        level.run(
            #[inline(always)]
            || sums.add(&values[b * block..][..rounded.len()], &rounded),
        );
    });
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
    let rows = header.len() / cols;
    let codes = codes::decode(level, &mut reader, rows * used, used)?;
    reader.end()?;
    let size = header.dtype.size();
    let block = cols * ROWS * size;
    rebuild(level, basis, &codes, used, used, step, |b, rows| {
        write(header.dtype, rows, &mut out[b * block..][..rows.len() * size]);
    });
    Ok(())
}
