//! Low-rank approximation with error feedback, for pseudo-gradients.
//!
//! PowerSGD (Vogels, Karimireddy, Jaggi, arXiv 1905.13727): one step of subspace iteration from the factor of the last
//! call, and what was not sent is added to the next tensor. The left factor is orthonormal, so one uniform step on the
//! right one spreads its error evenly.
//!
//! Body (integers little-endian):
//!
//! | bytes | field |
//! |---|---|
//! | 4 | rank |
//! | 4 | step of the right factor, f32 |
//! | … | left factor times 4096: codes, one row a rank ([`super::codes`]) |
//! | … | right factor in steps: codes, one row a rank |
//!
//! An element is the integer sum over ranks of left times right, times step / 4096.

use super::measure::{Sums, Target};
use super::values::{round_all, values, write};
use super::{codes, payload_or_lossless};
use crate::bytes::Reader;
use crate::error::CodecError;
use crate::header::{CodecId, Header};
use crate::limits::{Limits, MAX_RANK};
use crate::linalg::orthonormalize;
use crate::simd::Level;
use crate::tensor::{DType, Tensor, TensorRef};

/// Fraction bits of the left factor.
const FRACTION_BITS: u32 = 12;
/// Largest magnitude of a right factor's code.
const MAX_RIGHT: i32 = i16::MAX as i32;
/// Share of the error left by the rank that quantising the right factor may add, in power.
const RIGHT_NOISE: f64 = 0.02;

/// One end's memory of a tensor that is sent again and again: the last right factor and the error not yet sent.
#[derive(Clone, Debug)]
pub struct LowRank {
    rank: usize,
    target: Option<Target>,
    rows_cols: (usize, usize),
    right: Vec<f32>,
    error: Vec<f32>,
}

impl LowRank {
    /// Sends `rank` (1 to [`MAX_RANK`]) directions a call, whatever error that leaves for later calls.
    pub fn new(rank: usize) -> Result<Self, CodecError> {
        if !(1..=MAX_RANK).contains(&rank) {
            return Err(CodecError::OutOfRange { what: "rank", range: "1 to 512" });
        }
        Ok(Self { rank, target: None, rows_cols: (0, 0), right: Vec::new(), error: Vec::new() })
    }

    /// Like [`LowRank::new`], but where the rank misses `target` (against tensor plus carried error) the uniform codec
    /// sends it instead.
    pub fn with_target(rank: usize, target: Target) -> Result<Self, CodecError> {
        Ok(Self { target: Some(target), ..Self::new(rank)? })
    }

    /// What has not been sent yet, row-major; empty before the first call.
    pub fn carried_error(&self) -> &[f32] {
        &self.error
    }
}

/// Appends `tensor` plus the error carried in `state` as one payload, carries the new error, and returns the payload's
/// length in bytes.
///
/// A change of shape drops what was carried. Integers and values that are not finite go lossless, and carry nothing.
pub fn encode_low_rank(
    level: Level,
    state: &mut LowRank,
    tensor: TensorRef<'_>,
    out: &mut Vec<u8>,
) -> Result<usize, CodecError> {
    let level = level.checked();
    let start = out.len();
    if state.rows_cols != tensor.rows_cols() || state.error.len() != tensor.len() {
        state.rows_cols = tensor.rows_cols();
        state.right.clear();
        state.error = vec![0.0; tensor.len()];
    }
    let sum =
        values(tensor).map(|v| -> Vec<f32> { v.iter().zip(&state.error).map(|(a, b)| a + b).collect() });
    let Some(sum) = sum.filter(|s| !s.is_empty() && s.iter().all(|v| v.is_finite())) else {
        state.error.clear();
        return crate::payload::encode_at(level, CodecId::Context, tensor, out);
    };
    let mut bytes = vec![0; tensor.bytes().len()];
    write(tensor.dtype(), &sum, &mut bytes);
    let whole = TensorRef::new(tensor.dtype(), tensor.shape(), &bytes)?;
    let mut sent = None;
    let length = payload_or_lossless(level, CodecId::LowRank, whole, out, |out| {
        sent = encode(level, state, tensor.dtype(), &sum, out);
        sent.is_some()
    })?;
    if sent.is_some() && out[start + crate::header::CODEC_AT] == CodecId::LowRank as u8 {
        carry(state, &sum, sent.as_deref().unwrap_or_default());
        return Ok(length);
    }
    if let Some(target) = state.target {
        out.truncate(start);
        super::encode_lossy(level, CodecId::Uniform, target, whole, out)?;
    }
    let decoded: Tensor = crate::payload::decode(&out[start..], &Limits::with_max_decoded_bytes(usize::MAX))?;
    match values(decoded.view()) {
        Some(sent) => carry(state, &sum, &sent),
        None => state.error.clear(),
    }
    Ok(out.len() - start)
}

fn carry(state: &mut LowRank, sum: &[f32], sent: &[f32]) {
    state.error = sum.iter().zip(sent).map(|(a, b)| a - b).collect();
}

/// Appends the body and returns what it decodes to; `None` where the rank or target cannot be served.
fn encode(
    level: Level,
    state: &mut LowRank,
    dtype: DType,
    sum: &[f32],
    out: &mut Vec<u8>,
) -> Option<Vec<f32>> {
    let (rows, cols) = state.rows_cols;
    let rank = state.rank.min(rows).min(cols);
    if state.right.len() != rank * cols {
        // Fixed pseudo-random directions to start from (splitmix64).
        let mut x = 0_u64;
        state.right = (0..rank * cols)
            .map(|_| {
                x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
                let z = (x ^ x >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
                ((z ^ z >> 27) as i32) as f32 / (1_u32 << 31) as f32
            })
            .collect();
    }
    // Left = orthonormal(M · rightᵀ), one row a rank; right = left · M.
    let mut left = vec![0.0_f32; rank * rows];
    for (i, row) in sum.chunks_exact(cols).enumerate() {
        for (k, direction) in state.right.chunks_exact(cols).enumerate() {
            left[k * rows + i] = level.run(
                #[inline(always)]
                || dot(row, direction),
            );
        }
    }
    orthonormalize(&mut left, rows);
    let unit = (1 << FRACTION_BITS) as f32;
    let left_codes: Vec<i32> = left.iter().map(|v| (v * unit).round_ties_even() as i32).collect();
    let mut right = vec![0.0_f32; rank * cols];
    for (k, direction) in right.chunks_exact_mut(cols).enumerate() {
        for (i, row) in sum.chunks_exact(cols).enumerate() {
            // Against the rounded factor, which is what the decoder has.
            let l = left_codes[k * rows + i] as f32 / unit;
            level.run(
                #[inline(always)]
                || {
                    for (d, &v) in direction.iter_mut().zip(row) {
                        *d += l * v;
                    }
                },
            );
        }
    }
    let square = |v: &[f32]| v.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>();
    let (power, kept) = (square(sum), square(&right));
    let residual = (power - kept).max(1e-4 * power);
    let step = (RIGHT_NOISE * residual * 12.0 / right.len() as f64).sqrt() as f32;
    if !step.is_normal() {
        return None;
    }
    let right_codes: Vec<i32> = right.iter().map(|v| (v / step).round_ties_even() as i32).collect();
    if right_codes.iter().any(|c| c.abs() > MAX_RIGHT) {
        return None;
    }
    state.right = right;
    let mut sent = Vec::with_capacity(sum.len());
    let mut sums = Sums::default();
    rebuild(&left_codes, &right_codes, rows, cols, step, |i, row| {
        sent.extend_from_slice(row);
        round_all(dtype, &mut sent[i * cols..]);
        sums.add(&sum[i * cols..(i + 1) * cols], &sent[i * cols..]);
    });
    if state.target.is_some_and(|t| !t.is_met(&sums)) {
        return None;
    }
    out.extend_from_slice(&(rank as u32).to_le_bytes());
    out.extend_from_slice(&step.to_le_bytes());
    codes::encode(level, &left_codes, rows, out);
    codes::encode(level, &right_codes, cols, out);
    Some(sent)
}

#[inline(always)]
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut lanes = [0.0_f32; 16];
    for (a, b) in a.chunks(16).zip(b.chunks(16)) {
        for ((l, x), y) in lanes.iter_mut().zip(a).zip(b) {
            *l += x * y;
        }
    }
    lanes.iter().sum()
}

/// Calls `each` with every row.
fn rebuild(
    left: &[i32],
    right: &[i32],
    rows: usize,
    cols: usize,
    step: f32,
    mut each: impl FnMut(usize, &[f32]),
) {
    let factor = step * (1.0 / (1 << FRACTION_BITS) as f32);
    let mut sums = vec![0_i32; cols];
    let mut row = vec![0.0; cols];
    for i in 0..rows {
        sums.fill(0);
        for (l, r) in left.chunks_exact(rows).zip(right.chunks_exact(cols)) {
            let l = l[i];
            for (s, &r) in sums.iter_mut().zip(r) {
                *s = s.wrapping_add(l.wrapping_mul(r));
            }
        }
        for (v, &s) in row.iter_mut().zip(&sums) {
            *v = (s as f32 * factor).clamp(-f32::MAX, f32::MAX);
        }
        each(i, &row);
    }
}

/// Decodes a body into `out`, whose length is the decoded size.
pub(crate) fn decode(level: Level, header: &Header, body: &[u8], out: &mut [u8]) -> Result<(), CodecError> {
    let mut reader = Reader::new(header.codec, body);
    let rank = reader.u32()? as usize;
    let step = reader.f32()?;
    let (rows, cols) = crate::tensor::rows_cols(header.shape());
    let is_float = matches!(header.dtype, DType::Bf16 | DType::F16 | DType::F32);
    if !is_float || header.is_empty() || !step.is_normal() || step < 0.0 {
        return Err(reader.malformed("step or element type is out of range"));
    }
    if rank == 0 || rank > MAX_RANK.min(rows).min(cols) {
        return Err(reader.malformed("rank is out of range"));
    }
    let left = codes::decode(level, &mut reader, rank * rows, rows)?;
    let right = codes::decode(level, &mut reader, rank * cols, cols)?;
    reader.end()?;
    let width = cols * header.dtype.size();
    level.run(
        #[inline(always)]
        || {
            rebuild(&left, &right, rows, cols, step, |i, row| {
                write(header.dtype, row, &mut out[i * width..][..width]);
            });
        },
    );
    Ok(())
}
