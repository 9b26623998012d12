//! Sums of products with NEON: two widening multiply-adds for four rows.
#![expect(unsafe_code, reason = "NEON intrinsics and vector loads and stores")]
#![cfg_attr(not(test), expect(clippy::wildcard_imports, reason = "intrinsics by the dozen"))]

use super::ROWS;
use std::arch::aarch64::*;

pub(super) fn predict(pairs: &[[[i16; 2]; ROWS]], weights: &[[i16; 2]]) -> [i32; ROWS] {
    // SAFETY: this level is only chosen where the instructions were detected.
    unsafe { neon(pairs, weights) }
}

#[target_feature(enable = "neon")]
fn neon(pairs: &[[[i16; 2]; ROWS]], weights: &[[i16; 2]]) -> [i32; ROWS] {
    let mut sums = [vdupq_n_s32(0); ROWS / 4];
    for (pair, &[a, b]) in pairs.iter().zip(weights) {
        for (i, sum) in sums.chunks_exact_mut(2).enumerate() {
            let part = &pair[8 * i..8 * i + 8];
            // SAFETY: `part` is 32 readable bytes.
            let int16x8x2_t(x, y) = unsafe { vld2q_s16(part.as_ptr().cast()) };
            sum[0] = vmlal_n_s16(vmlal_n_s16(sum[0], vget_low_s16(x), a), vget_low_s16(y), b);
            sum[1] = vmlal_n_s16(vmlal_n_s16(sum[1], vget_high_s16(x), a), vget_high_s16(y), b);
        }
    }
    let mut out = [0; ROWS];
    for (i, sum) in sums.into_iter().enumerate() {
        let part = &mut out[4 * i..4 * i + 4];
        // SAFETY: `part` is 16 writable bytes.
        unsafe { vst1q_s32(part.as_mut_ptr(), sum) };
    }
    out
}
