//! Bytes in blocks that share a scale.
//!
//! Body: block length (1 byte: its log2, 4 to 8), then for each block its scale (f32, little-endian, top 16 bits) and
//! one signed byte an element. An element is its byte times the scale.

use super::measure::{Sums, Target};
use super::values::{finite_values, round_all, write};
use crate::bytes::Reader;
use crate::error::CodecError;
use crate::header::Header;
use crate::simd::Level;
use crate::tensor::{DType, TensorRef};

/// Block lengths tried, longest first, as powers of two.
const LENGTHS: std::ops::RangeInclusive<u8> = 4..=8;
/// Elements worked on at a time.
const RUN: usize = 256;

/// Encodes with the longest blocks that meet `target`; false where none do.
pub(crate) fn encode(level: Level, target: Target, tensor: TensorRef<'_>, out: &mut Vec<u8>) -> bool {
    let Some(values) = finite_values(tensor).filter(|v| !v.is_empty()) else {
        return false;
    };
    let start = out.len();
    for log_length in LENGTHS.rev() {
        out.push(log_length);
        let sums = encode_blocks(level, tensor.dtype(), &values, 1 << log_length, out);
        if target.is_met(&sums) {
            return true;
        }
        out.truncate(start);
    }
    false
}

fn encode_blocks(level: Level, dtype: DType, values: &[f32], length: usize, out: &mut Vec<u8>) -> Sums {
    let mut sums = Sums::default();
    for block in values.chunks(length) {
        level.run(
            #[inline(always)]
            || {
                let most = block.iter().fold(0.0_f32, |m, v| m.max(v.abs()));
                // Rounded up to the 16 bits that are sent, so that no byte passes 127.
                let bits = ((most / 127.0).to_bits() + 0xffff) >> 16;
                let scale = f32::from_bits(bits << 16);
                let inverse = if scale.is_normal() { 1.0 / scale } else { 0.0 };
                let mut codes = [0_u8; RUN];
                let mut decoded = [0.0; RUN];
                for ((c, y), &v) in codes.iter_mut().zip(&mut decoded).zip(block) {
                    let scaled = v * inverse;
                    let code = (scaled.abs() + 0.5).min(127.0) as i32;
                    let code = if scaled < 0.0 { -code } else { code };
                    *c = code as i8 as u8;
                    *y = (code as f32 * scale).clamp(-f32::MAX, f32::MAX);
                }
                round_all(dtype, &mut decoded[..block.len()]);
                sums.add(block, &decoded[..block.len()]);
                out.extend_from_slice(&(bits as u16).to_le_bytes());
                out.extend_from_slice(&codes[..block.len()]);
            },
        );
    }
    sums
}

/// Decodes a body into `out`, whose length is the decoded size.
pub(crate) fn decode(level: Level, header: &Header, body: &[u8], out: &mut [u8]) -> Result<(), CodecError> {
    let mut reader = Reader::new(header.codec, body);
    let log_length = reader.u8()?;
    let is_float = matches!(header.dtype, DType::Bf16 | DType::F16 | DType::F32);
    if !LENGTHS.contains(&log_length) || !is_float {
        return Err(reader.malformed("block length or element type is out of range"));
    }
    let length = 1_usize << log_length;
    let mut decoded = [0.0; RUN];
    for out in out.chunks_mut(length * header.dtype.size()) {
        let n = out.len() / header.dtype.size();
        let scale = f32::from_bits(u32::from(reader.u16()?) << 16);
        if !scale.is_finite() {
            return Err(reader.malformed("a scale is not finite"));
        }
        let codes = reader.take(n)?;
        level.run(
            #[inline(always)]
            || {
                for (y, &c) in decoded.iter_mut().zip(codes) {
                    *y = (f32::from(c as i8) * scale).clamp(-f32::MAX, f32::MAX);
                }
                write(header.dtype, &decoded[..n], out);
            },
        );
    }
    reader.end()
}
