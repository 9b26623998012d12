//! Float elements to f32 and back.

use crate::scratch::Scratch;
use crate::simd::Level;
use crate::tensor::{DType, TensorRef};

/// All elements as f32; `None` for integers and for tensors with an element that is not finite.
pub(crate) fn finite_values(tensor: TensorRef<'_>) -> Option<Scratch<f32>> {
    let values = values(tensor)?;
    let infinite = Level::detect().run(
        #[inline(always)]
        || values.iter().fold(false, |any, v| any | !v.is_finite()),
    );
    (!infinite).then_some(values)
}

/// All elements as f32; `None` for integers.
pub(crate) fn values(tensor: TensorRef<'_>) -> Option<Scratch<f32>> {
    match tensor.dtype() {
        DType::Bf16 => {
            let words = tensor.bytes().as_chunks::<2>().0;
            let mut out = Scratch::any(words.len());
            Level::detect().run(
                #[inline(always)]
                || {
                    for (o, w) in out.iter_mut().zip(words) {
                        *o = f32::from_bits(u32::from(u16::from_le_bytes(*w)) << 16);
                    }
                },
            );
            Some(out)
        }
        DType::F16 => {
            let halves = tensor.bytes().as_chunks::<2>().0;
            Some(collect(halves.len(), halves.iter().map(|w| from_f16(u16::from_le_bytes(*w)))))
        }
        DType::F32 => {
            let words = tensor.bytes().as_chunks::<4>().0;
            Some(collect(words.len(), words.iter().map(|w| f32::from_le_bytes(*w))))
        }
        DType::U16 | DType::U8 => None,
    }
}

fn collect(length: usize, values: impl Iterator<Item = f32>) -> Scratch<f32> {
    let mut out = Scratch::any(length);
    for (o, v) in out.iter_mut().zip(values) {
        *o = v;
    }
    out
}

/// Makes each value the nearest that `dtype`, a float, can hold.
#[inline(always)]
pub(crate) fn round_all(dtype: DType, values: &mut [f32]) {
    match dtype {
        DType::Bf16 => values.iter_mut().for_each(|v| *v = nearest_bf16(*v)),
        DType::F16 => values.iter_mut().for_each(|v| *v = nearest_f16(*v)),
        _ => {}
    }
}

/// Writes `values` as `dtype`, a float, to `out`.
#[inline(always)]
pub(crate) fn write(dtype: DType, values: &[f32], out: &mut [u8]) {
    match dtype {
        DType::F32 => {
            for (o, v) in out.as_chunks_mut::<4>().0.iter_mut().zip(values) {
                *o = v.to_le_bytes();
            }
        }
        DType::F16 => {
            for (o, &v) in out.as_chunks_mut::<2>().0.iter_mut().zip(values) {
                *o = to_f16(v).to_le_bytes();
            }
        }
        _ => {
            for (o, &v) in out.as_chunks_mut::<2>().0.iter_mut().zip(values) {
                *o = to_bf16(v).to_le_bytes();
            }
        }
    }
}

/// The nearest bf16 of a finite value.
#[inline(always)]
pub(crate) fn nearest_bf16(v: f32) -> f32 {
    f32::from_bits(u32::from(to_bf16(v)) << 16)
}

/// The nearest f16 of a finite value.
#[inline(always)]
pub(crate) fn nearest_f16(v: f32) -> f32 {
    from_f16(to_f16(v))
}

/// Round to nearest, ties to even; for finite values.
#[inline(always)]
fn to_bf16(v: f32) -> u16 {
    let bits = v.to_bits();
    ((bits + 0x7fff + (bits >> 16 & 1)) >> 16) as u16
}

fn from_f16(h: u16) -> f32 {
    let sign = u32::from(h & 0x8000) << 16;
    let (exponent, mantissa) = (u32::from(h >> 10 & 0x1f), u32::from(h & 0x3ff));
    let magnitude = match exponent {
        0 => (mantissa as f32 / (1 << 24) as f32).to_bits(),
        31 => 0x7f80_0000 | mantissa << 13,
        _ => (exponent + 112) << 23 | mantissa << 13,
    };
    f32::from_bits(sign | magnitude)
}

/// Round to nearest, ties to even, saturating at the largest finite value; for finite values.
fn to_f16(v: f32) -> u16 {
    let sign = (v.to_bits() >> 16 & 0x8000) as u16;
    let bits = v.to_bits() & 0x7fff_ffff;
    let magnitude = if bits >= 0x4780_0000 {
        0x7bff
    } else if bits < 0x3880_0000 {
        // Subnormal: whole steps of 2^-24. Adding 2^23 leaves the rounded integer in the mantissa.
        let scaled = f32::from_bits(bits) * (1 << 24) as f32;
        ((scaled + 8_388_608.0).to_bits() & 0x7f_ffff) as u16
    } else {
        ((bits - 0x3800_0000 + 0xfff + (bits >> 13 & 1)) >> 13).min(0x7bff) as u16
    };
    sign | magnitude
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn f16_round_trips() {
        for h in 0..=u16::MAX {
            let v = from_f16(h);
            if v.is_finite() {
                assert_eq!(to_f16(v), h, "{h:#06x}");
            }
        }
        assert_eq!(to_f16(1.0 + 1.0 / 2048.0), 0x3c00, "ties go to even");
        assert_eq!(to_f16(1e9), 0x7bff);
    }
}
