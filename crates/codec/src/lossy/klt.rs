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
use super::uniform::{ROUNDER, square_sum};
use super::values::{finite_values, round_all, write};
use super::{codes, payload_or_lossless};
use crate::bytes::Reader;
use crate::error::CodecError;
use crate::header::{CodecId, Header};
use crate::kernel::{Block, ROWS, predict_all};
use crate::probe::Probe;
use crate::scratch::Scratch;
use crate::simd::Level;
use crate::tensor::{DType, TensorRef};

/// Largest magnitude of a component's code: what the integer sums take.
const MAX_COMPONENT: i32 = i16::MAX as i32;
/// Bits of a row's largest value as an integer.
const ROW_BITS: i32 = 12;
/// Fewer rows are not transformed: all lanes of a vector take as long as these.
const LEAST_ROWS: usize = ROWS / 4;
/// Blocks of 64 rows on which the step is searched.
const SAMPLE_BLOCKS: usize = 2;
/// Steps tried on them at most: one where what the step does not explain is a smaller share of the error allowed.
const SAMPLE_TRIES: usize = 2;
const SMALL_SHARE: f64 = 0.06;
/// Steps tried before the basis is given up.
const TRIES: usize = 10;
/// Steps after which one that meets the target is good enough.
const GOOD_TRIES: usize = 3;
/// Share of the error allowed that is aimed at, first and later, and from which on a step is close enough.
const FIRST_SHARE: f64 = 0.992;
const SURE_SHARE: f64 = 0.996;
const CLOSE_ENOUGH: f64 = 0.98;
/// Columns that are turned into rows together.
const TILE: usize = 16;
/// Payloads this much smaller than the tensor are not compared with the uniform codec's, nor are others of large tensors
/// unless that codec does better on rows of so many elements.
const SURE_RATIO: usize = 3;
const RIVAL_PROBE: usize = 1 << 17;

/// Appends `tensor` as one payload that meets `target`, in `basis`, or without it where that is smaller; of
/// large tensors a few rows tell whether that is tried.
///
/// Returns the payload's length in bytes. A tensor of fewer than 16 rows or of others than the basis's length, or of which too
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
    let (rows, cols) = tensor.rows_cols();
    if cols != basis.columns() || rows < LEAST_ROWS {
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
    if in_basis && tensor.len() >= 2 * RIVAL_PROBE {
        // Where they are close it matters little which one it is.
        let probe = Probe::of(tensor, RIVAL_PROBE);
        let of_probe = super::encode_lossy(level, CodecId::Uniform, target, probe.view()?, &mut other)?;
        if of_probe as f64 / probe.len() as f64 >= length as f64 / tensor.bytes().len() as f64 {
            return Ok(length);
        }
        other.clear();
    }
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
    let (cols, parts) = (basis.columns(), basis.components());
    let power = level.run(
        #[inline(always)]
        || square_sum(&values),
    );
    let budget = target.error_to_aim_at().powi(2) * power;
    if parts == 0 || budget <= 0.0 || !budget.is_finite() {
        return false;
    }
    let columns = by_columns(level, &values, cols);
    let Some(components) = transform(level, basis, &values, &columns) else {
        return false;
    };
    // A few blocks, spread over the rows, stand for all while the step is searched.
    let blocks = SAMPLE_BLOCKS * (cols / parts).clamp(1, 4);
    let stride = (components.len() / (parts * ROWS)).div_ceil(blocks);
    let mut sample = (Vec::new(), Vec::new());
    for (x, y) in columns.chunks(cols * ROWS).zip(components.chunks(parts * ROWS)).step_by(stride) {
        sample.0.extend_from_slice(x);
        sample.1.extend_from_slice(y);
    }
    let mut codes = Scratch::any(components.len());
    let mut attempt = |x: &[f32], y: &[f32], step: f32| {
        let codes = &mut codes[..y.len()];
        let fits = step.is_normal() && quantize(level, y, step, codes);
        let used = used_components(codes, parts);
        fits.then(|| (measure(level, basis, tensor.dtype(), x, codes, used, step), used))
    };
    // What the step does not explain — energy outside the basis, roundings — goes with the power and is kept aside.
    let sample_power = level.run(
        #[inline(always)]
        || square_sum(&sample.0),
    );
    let share = sample_power / power;
    if !share.is_normal() {
        return false;
    }
    let mut aside = 0.0;
    let mut step = step_for_noise(level, &sample.1, budget * share, None);
    for _ in 0..SAMPLE_TRIES {
        let Some((sums, _)) = attempt(&sample.0, &sample.1, step) else {
            return false;
        };
        aside = (sums.error - noise(level, &sample.1, step)).max(0.0) / share;
        if aside >= budget {
            return false;
        }
        if aside < SMALL_SHARE * budget {
            break;
        }
        step = step_for_noise(level, &sample.1, (budget - aside) * share, Some(step));
    }
    // Then the whole says: noise follows the step, what is aside hardly does.
    let (mut met, mut last) = (None, 0.0);
    let mut step = step_for_noise(level, &components, (budget - aside) * FIRST_SHARE, Some(step));
    for tried in 0..TRIES {
        let Some((sums, used)) = attempt(&columns, &components, step) else {
            break;
        };
        last = step;
        let is_met = target.is_met(&sums);
        if is_met && met.is_none_or(|(s, _)| s < step) {
            met = Some((step, used));
        }
        if met.is_some() && (is_met && sums.error > CLOSE_ENOUGH * budget || tried >= GOOD_TRIES) {
            break;
        }
        aside = (sums.error - noise(level, &components, step)).max(0.0);
        let left = (budget * SURE_SHARE - aside).max(1e-3 * budget);
        let next = step_for_noise(level, &components, left, Some(step));
        // A miss must lead down, whatever the model says.
        step = if is_met { next } else { next.min(step * 0.999) };
    }
    let Some((step, used)) = met else { return false };
    if step != last && !quantize(level, &components, step, &mut codes) {
        return false;
    }
    let rows = tensor.len() / cols;
    out.extend_from_slice(&basis.id().to_le_bytes());
    out.extend_from_slice(&step.to_le_bytes());
    out.extend_from_slice(&(used as u32).to_le_bytes());
    codes::encode(level, &row_major(&codes, parts, used, rows), used, out);
    true
}

/// The step whose quantisation noise on `components` is `budget`: secants on the logarithms.
fn step_for_noise(level: Level, components: &[f32], budget: f64, near: Option<f32>) -> f32 {
    // Noise is at most step² / 12 an element, so this is a lower bound.
    let mut step = near.map_or_else(|| (12.0 * budget / components.len() as f64).sqrt(), f64::from);
    let mut before: Option<(f64, f64)> = None;
    for _ in 0..7 {
        let found = noise(level, components, step as f32);
        if !found.is_normal() {
            break;
        }
        let point = (step.ln(), (found / budget).ln());
        let slope = before.map_or(2.0, |b| (point.1 - b.1) / (point.0 - b.0));
        let slope = if slope.is_finite() { slope.clamp(0.1, 2.0) } else { 2.0 };
        if point.1.abs() < 3e-4 {
            break;
        }
        step *= (-point.1 / slope).clamp(-3.0, 3.0).exp();
        before = Some(point);
    }
    step as f32
}

/// The first `used` components of all rows, row by row.
fn row_major(codes: &[i32], parts: usize, used: usize, rows: usize) -> Scratch<i32> {
    let mut out = Scratch::any(rows * used);
    for (block, out) in codes.chunks(parts * ROWS).zip(out.chunks_mut(used * ROWS)) {
        let columns = block.as_chunks::<ROWS>().0;
        // A tile of columns stays in the nearest cache while all rows take from it.
        for from in (0..used).step_by(TILE) {
            let to = (from + TILE).min(used);
            for (r, row) in out.chunks_exact_mut(used).enumerate() {
                for (o, column) in row[from..to].iter_mut().zip(&columns[from..to]) {
                    *o = column[r];
                }
            }
        }
    }
    out
}

/// Blocks of 64 rows, column by column; rows beyond the last are zero.
fn by_columns(level: Level, values: &[f32], cols: usize) -> Scratch<f32> {
    let mut out = Scratch::any(values.len().div_ceil(cols * ROWS) * ROWS * cols);
    for (rows, out) in values.chunks(cols * ROWS).zip(out.chunks_mut(cols * ROWS)) {
        if rows.len() < out.len() {
            out.fill(0.0);
        }
        let columns = out.as_chunks_mut::<ROWS>().0;
        level.run(
            #[inline(always)]
            || {
                for from in (0..cols).step_by(TILE) {
                    let to = (from + TILE).min(cols);
                    for (r, row) in rows.chunks_exact(cols).enumerate() {
                        for (column, &v) in columns[from..to].iter_mut().zip(&row[from..to]) {
                            column[r] = v;
                        }
                    }
                }
            },
        );
    }
    out
}

/// Components of all rows, in blocks of 64 rows: component by component, 64 rows each; `columns` are those of the values.
/// `None` where a row is too small or large for integers.
fn transform(level: Level, basis: &Basis, values: &[f32], columns: &[f32]) -> Option<Scratch<f32>> {
    let (cols, parts) = (basis.columns(), basis.components());
    let mut components = Scratch::any(columns.len() / cols * parts);
    let mut block = Block::new(cols);
    let blocks = values.chunks(cols * ROWS).zip(columns.chunks(cols * ROWS));
    for ((rows, columns), out) in blocks.zip(components.chunks_mut(parts * ROWS)) {
        let (mut scales, mut inverse) = ([0.0_f32; ROWS], [0.0_f32; ROWS]);
        for ((row, scale), inverse) in rows.chunks_exact(cols).zip(&mut scales).zip(&mut inverse) {
            let most = level.run(
                #[inline(always)]
                || row.iter().fold(0.0_f32, |m, v| m.max(v.abs())),
            );
            if most == 0.0 {
                continue;
            }
            let shift = ROW_BITS - 1 - ((most.to_bits() >> 23) as i32 - 127);
            // Both powers must be normal.
            if !(-100..=100).contains(&shift) {
                return None;
            }
            *scale = f32::from_bits(((127 + shift) as u32) << 23);
            *inverse = f32::from_bits(((127 - shift - FRACTION_BITS as i32) as u32) << 23);
        }
        let (pairs, last) = columns.as_chunks::<ROWS>().0.as_chunks::<2>();
        level.run(
            #[inline(always)]
            || {
                for (i, [a, b]) in pairs.iter().enumerate() {
                    block.set_pair(i, &integers(a, &scales), &integers(b, &scales));
                }
                if let [a] = last {
                    block.set_pair(pairs.len(), &integers(a, &scales), &[0; ROWS]);
                }
            },
        );
        let out = out.as_chunks_mut::<ROWS>().0;
        predict_all(
            level,
            &block,
            parts,
            cols,
            |c| basis.component(c),
            |c, sums| {
                for ((y, &sum), i) in out[c].iter_mut().zip(sums).zip(&inverse) {
                    *y = sum as f32 * i;
                }
            },
        );
    }
    Some(components)
}

/// One column as integers below 2^12 in magnitude, rounded to even.
#[inline(always)]
fn integers(column: &[f32; ROWS], scales: &[f32; ROWS]) -> [i16; ROWS] {
    let mut out = [0; ROWS];
    for ((o, v), s) in out.iter_mut().zip(column).zip(scales) {
        *o = (v * s + ROUNDER).to_bits() as i16;
    }
    out
}

/// Squared error of quantising with `step`.
fn noise(level: Level, components: &[f32], step: f32) -> f64 {
    let inverse = 1.0 / step;
    let mut total = 0.0;
    for run in components.as_chunks::<ROWS>().0.chunks(16) {
        total += level.run(
            #[inline(always)]
            || {
                let mut lanes = [0.0_f32; ROWS];
                for part in run {
                    for (l, &v) in lanes.iter_mut().zip(part) {
                        let error = (v - code_of(v, inverse) as f32 * step) * inverse;
                        *l += error * error;
                    }
                }
                lanes.iter().map(|&l| f64::from(l)).sum::<f64>()
            },
        );
    }
    total * f64::from(step) * f64::from(step)
}

/// The code of a component, rounded to even; more than [`MAX_COMPONENT`] where it does not fit.
#[inline(always)]
fn code_of(v: f32, inverse: f32) -> i32 {
    let most = (MAX_COMPONENT + 1) as f32;
    let sum = (v * inverse).clamp(-most, most) + ROUNDER;
    sum.to_bits().wrapping_sub(ROUNDER.to_bits()) as i32
}

/// Codes of all components; false where one is too large.
fn quantize(level: Level, components: &[f32], step: f32, codes: &mut [i32]) -> bool {
    let inverse = 1.0 / step;
    level.run(
        #[inline(always)]
        || {
            let mut most = 0;
            for (c, &v) in codes.iter_mut().zip(components) {
                *c = code_of(v, inverse);
                most = most.max(c.abs());
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

/// Values of column `j` of one block, from the integers in it.
#[inline(always)]
fn column_of(sums: &[i32; ROWS], factor: f32, out: &mut [f32; ROWS]) {
    for (v, &s) in out.iter_mut().zip(sums) {
        *v = (s as f32 * factor).clamp(-f32::MAX, f32::MAX);
    }
}

const fn factor_of(step: f32) -> f32 {
    step * (1.0 / (1 << FRACTION_BITS) as f32)
}

/// Decodes in the head: `columns` are those of the original values.
fn measure(
    level: Level,
    basis: &Basis,
    dtype: DType,
    columns: &[f32],
    codes: &[i32],
    used: usize,
    step: f32,
) -> Sums {
    let (cols, parts) = (basis.columns(), basis.components());
    let (factor, inverse) = (factor_of(step), 1.0 / step);
    let square = f64::from(step) * f64::from(step);
    let mut sums = Sums::default();
    let mut block = Block::new(used);
    for (x, codes) in columns.chunks(cols * ROWS).zip(codes.chunks(parts * ROWS)) {
        let codes = &codes.as_chunks::<ROWS>().0[..used];
        level.run(
            #[inline(always)]
            || {
                let (pairs, last) = codes.as_chunks::<2>();
                for (i, [a, b]) in pairs.iter().enumerate() {
                    block.set_pair(i, &a.map(|v| v as i16), &b.map(|v| v as i16));
                }
                if let [a] = last {
                    block.set_pair(pairs.len(), &a.map(|v| v as i16), &[0; ROWS]);
                }
            },
        );
        for (t, tile) in x.as_chunks::<ROWS>().0.chunks(TILE).enumerate() {
            let mut found = [[0_i32; ROWS]; TILE];
            predict_all(
                level,
                &block,
                tile.len(),
                used,
                |i| basis.column(t * TILE + i),
                |i, sums| {
                    found[i] = *sums;
                },
            );
            let [xx, yy, error] = level.run(
                #[inline(always)]
                || {
                    // In units of the step the squares stay in f32's range.
                    let mut lanes = [[0.0_f32; ROWS]; 3];
                    let mut y = [0.0; ROWS];
                    for (x, found) in tile.iter().zip(&found) {
                        column_of(found, factor, &mut y);
                        round_all(dtype, &mut y);
                        for j in 0..ROWS {
                            let (x, y) = (x[j] * inverse, y[j] * inverse);
                            lanes[0][j] += x * x;
                            lanes[1][j] += y * y;
                            lanes[2][j] += (x - y) * (x - y);
                        }
                    }
                    lanes.map(|l| l.iter().map(|&v| f64::from(v)).sum::<f64>())
                },
            );
            sums.add_sums(xx * square, yy * square, error * square);
        }
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
    let mut tile = [[0.0_f32; ROWS]; TILE];
    let mut row_part = [0.0_f32; TILE];
    for (codes, out) in codes.chunks(used * ROWS).zip(out.chunks_mut(cols * ROWS * size)) {
        block.clear();
        for (r, row) in codes.chunks_exact(used).enumerate() {
            for (i, &c) in integers.iter_mut().zip(row) {
                *i = c.clamp(-MAX_COMPONENT, MAX_COMPONENT) as i16;
            }
            block.set_row(r, &integers);
        }
        for from in (0..cols).step_by(TILE) {
            let width = TILE.min(cols - from);
            predict_all(
                level,
                &block,
                width,
                used,
                |i| basis.column(from + i),
                |i, sums| {
                    level.run(
                        #[inline(always)]
                        || column_of(sums, factor_of(step), &mut tile[i]),
                    );
                },
            );
            level.run(
                #[inline(always)]
                || {
                    for (r, out) in out.chunks_exact_mut(cols * size).enumerate() {
                        for (v, column) in row_part.iter_mut().zip(&tile) {
                            *v = column[r];
                        }
                        write(header.dtype, &row_part[..width], &mut out[from * size..(from + width) * size]);
                    }
                },
            );
        }
    }
    Ok(())
}
