//! One uniform step with a dead zone; rows of codes predicted from similar rows before them, the rest in the context of
//! its row's and column's size.
//!
//! Body (integers little-endian):
//!
//! | bytes | field |
//! |---|---|
//! | 4 | step, f32 |
//! | 4 | row length in elements |
//! | … | codes ([`super::codes`]) |

use super::codes::{self, MAX_CODE};
use super::measure::{Sums, Target};
use super::values::{finite_values, nearest_bf16, nearest_f16, write};
use crate::bytes::Reader;
use crate::error::CodecError;
use crate::header::Header;
use crate::scratch::Scratch;
use crate::simd::Level;
use crate::tensor::{DType, TensorRef};

/// Rows as long as these are treated as they are; others are cut to the second number.
const ROW_LENGTHS: std::ops::RangeInclusive<usize> = 8..=16384;
const CUT_ROW: usize = 1024;
/// Tensors of fewer elements than this have rows no longer than the second number.
const SMALL: usize = 1 << 13;
const SMALL_ROW: usize = 64;
/// Elements looked at while the step is searched.
const SAMPLE: usize = 1 << 17;
const SAMPLE_RUN: usize = 256;
/// What the step found on the sample is lowered by, so that it mostly serves at the first try.
const SAMPLE_MARGIN: f64 = 0.997;
/// Elements worked on at a time.
const RUN: usize = 1024;
/// Steps tried on the whole tensor before it is given up as lossy.
const TRIES: usize = 12;
/// From this step on, in units of the root mean square, values round down more readily: a dead zone.
const COARSE_STEP: f64 = 0.25;
const FINE_ROUNDING: f32 = 0.5;
const COARSE_ROUNDING: f32 = 0.42;
/// 1.5 × 2^23: adding it to a number below 2^22 in magnitude leaves an integer in the low bits.
pub(crate) const ROUNDER: f32 = 12_582_912.0;

/// How magnitudes become codes and codes values.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Quantizer {
    pub(crate) step: f32,
    rounding: f32,
}

impl Quantizer {
    /// A quantiser of this step for values of this root mean square.
    pub(crate) fn new(step: f64, rms: f64) -> Self {
        let coarse = step > COARSE_STEP * rms;
        let rounding = if coarse { COARSE_ROUNDING } else { FINE_ROUNDING };
        Self { step: step as f32, rounding }
    }

    #[inline(always)]
    pub(crate) fn code(self, inverse: f32, v: f32) -> i32 {
        let most = MAX_CODE as f32;
        let moved = v * inverse - (0.5 - self.rounding).copysign(v);
        // The sum's mantissa holds the integer, rounded to even.
        let sum = moved.clamp(-most, most) + ROUNDER;
        sum.to_bits().wrapping_sub(ROUNDER.to_bits()) as i32
    }

    /// The value of a code: one product.
    #[inline(always)]
    fn value(self, code: i32) -> f32 {
        code as f32 * self.step
    }
}

/// Encodes so that `target` is met; false where that cannot be.
pub(crate) fn encode(level: Level, target: Target, tensor: TensorRef<'_>, out: &mut Vec<u8>) -> bool {
    let Some(values) = finite_values(tensor).filter(|v| !v.is_empty()) else {
        return false;
    };
    let Some((quantizer, codes)) = search(level, target, tensor.dtype(), &values) else {
        return false;
    };
    let cols = tensor.rows_cols().1;
    let period = match cols {
        // What so few elements could tell of their columns is not worth sending.
        _ if values.len() < SMALL => cols.min(SMALL_ROW),
        _ if ROW_LENGTHS.contains(&cols) => cols,
        _ => CUT_ROW,
    };
    out.extend_from_slice(&quantizer.step.to_le_bytes());
    out.extend_from_slice(&(period as u32).to_le_bytes());
    codes::encode(level, &codes, period, out);
    true
}

/// The largest step found that meets the target, and the codes under it.
fn search(level: Level, target: Target, dtype: DType, values: &[f32]) -> Option<(Quantizer, Scratch<i32>)> {
    let power = level.run(
        #[inline(always)]
        || square_sum(values),
    );
    let rms = (power / values.len() as f64).sqrt();
    if rms == 0.0 || !rms.is_finite() {
        return None;
    }
    let aim = target.error_to_aim_at();
    let mut step = aim * rms * 12.0_f64.sqrt();
    let stride = (values.len() / SAMPLE).max(1);
    let mut sample = Scratch::any(values.len().min(2 * SAMPLE));
    let mut sampled = 0;
    for run in values.chunks(SAMPLE_RUN).step_by(stride) {
        sample[sampled..sampled + run.len()].copy_from_slice(run);
        sampled += run.len();
    }
    let sample = &sample[..sampled];
    for _ in 0..2 {
        let quantizer = Quantizer::new(step, rms);
        let error = run(level, quantizer, dtype, sample, None).error;
        // The sample's error per element stands for the whole's; the root mean square is the whole's.
        let relative = (error / sample.len() as f64).sqrt() * f64::from(quantizer.step) / rms;
        if !relative.is_normal() {
            break;
        }
        // Rounding to the element type is part of the error and does not shrink with the step.
        step *= (aim / relative).clamp(0.25, 4.0);
    }
    step *= SAMPLE_MARGIN;
    let mut codes = Scratch::any(values.len());
    for _ in 0..TRIES {
        let quantizer = Quantizer::new(step, rms);
        if !(quantizer.step.is_normal() && (f64::from(quantizer.step) * f64::from(MAX_CODE)).is_finite()) {
            return None;
        }
        let sums = run(level, quantizer, dtype, values, Some(&mut codes));
        if target.is_met(&sums) {
            return Some((quantizer, codes));
        }
        step *= (aim / sums.relative_error()).clamp(0.5, 1.0) * 0.9995;
    }
    None
}

/// Σ v², in a fixed order.
#[inline(always)]
pub(crate) fn square_sum(values: &[f32]) -> f64 {
    let mut lanes = [0.0_f64; 16];
    let (parts, last) = values.as_chunks::<16>();
    for part in parts {
        for (l, &v) in lanes.iter_mut().zip(part) {
            *l += f64::from(v) * f64::from(v);
        }
    }
    for (l, &v) in lanes.iter_mut().zip(last) {
        *l += f64::from(v) * f64::from(v);
    }
    lanes.iter().sum()
}

/// Quantises and measures; keeps the codes where asked to.
fn run(level: Level, quantizer: Quantizer, dtype: DType, values: &[f32], codes: Option<&mut [i32]>) -> Sums {
    match dtype {
        DType::Bf16 => run_rounding(level, quantizer, values, codes, nearest_bf16),
        DType::F16 => run_rounding(level, quantizer, values, codes, nearest_f16),
        _ => run_rounding(level, quantizer, values, codes, |v| v),
    }
}

fn run_rounding(
    level: Level,
    quantizer: Quantizer,
    values: &[f32],
    mut codes: Option<&mut [i32]>,
    round: impl Fn(f32) -> f32 + Copy,
) -> Sums {
    let inverse = 1.0 / quantizer.step;
    let mut sums = Sums::default();
    let mut own = [0; RUN];
    for (i, x) in values.chunks(RUN).enumerate() {
        let part = match &mut codes {
            Some(codes) => &mut codes[i * RUN..i * RUN + x.len()],
            None => &mut own[..x.len()],
        };
        let [xx, yy, error] = level.run(
            #[inline(always)]
            || {
                // In units of the step the squares stay in f32's range, and sixteen sums keep them exact enough.
                let mut lanes = [[0.0_f32; 16]; 3];
                let mut sixteen = |x: &[f32; 16], codes: &mut [i32; 16]| {
                    for j in 0..16 {
                        let code = quantizer.code(inverse, x[j]);
                        codes[j] = code;
                        let (x, y) = (x[j] * inverse, round(quantizer.value(code)) * inverse);
                        lanes[0][j] += x * x;
                        lanes[1][j] += y * y;
                        lanes[2][j] += (x - y) * (x - y);
                    }
                };
                let ((x, x_last), (c, c_last)) = (x.as_chunks::<16>(), part.as_chunks_mut::<16>());
                for (x, c) in x.iter().zip(c) {
                    sixteen(x, c);
                }
                if !x_last.is_empty() {
                    // Zeros add nothing.
                    let (mut x, mut c) = ([0.0; 16], [0; 16]);
                    x[..x_last.len()].copy_from_slice(x_last);
                    sixteen(&x, &mut c);
                    c_last.copy_from_slice(&c[..c_last.len()]);
                }
                lanes.map(|l| l.iter().map(|&v| f64::from(v)).sum::<f64>())
            },
        );
        sums.add_sums(xx, yy, error);
    }
    sums
}

/// Decodes a body into `out`, whose length is the decoded size.
pub(crate) fn decode(level: Level, header: &Header, body: &[u8], out: &mut [u8]) -> Result<(), CodecError> {
    let mut reader = Reader::new(header.codec, body);
    let step = reader.f32()?;
    let period = reader.u32()? as usize;
    let is_float = matches!(header.dtype, DType::Bf16 | DType::F16 | DType::F32);
    if !is_float || header.is_empty() || !step.is_normal() || step < 0.0 {
        return Err(reader.malformed("step or element type is out of range"));
    }
    if period == 0 || period > *ROW_LENGTHS.end() {
        return Err(reader.malformed("row length is out of range"));
    }
    let codes = codes::decode(level, &mut reader, header.len(), period)?;
    reader.end()?;
    let quantizer = Quantizer { step, rounding: FINE_ROUNDING };
    let size = header.dtype.size();
    let mut y = [0.0; RUN];
    for (codes, out) in codes.chunks(RUN).zip(out.chunks_mut(RUN * size)) {
        level.run(
            #[inline(always)]
            || {
                for (y, &c) in y.iter_mut().zip(codes) {
                    *y = quantizer.value(c).clamp(-f32::MAX, f32::MAX);
                }
                write(header.dtype, &y[..codes.len()], out);
            },
        );
    }
    Ok(())
}
