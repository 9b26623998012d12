//! Sums of products with AVX2 and AVX-512: one multiply-add of pairs for 8 or 16 rows.
#![expect(unsafe_code, reason = "x86 intrinsics and unaligned vector loads and stores")]
#![cfg_attr(not(test), expect(clippy::wildcard_imports, reason = "intrinsics by the dozen"))]

use super::{Block, QUERIES, ROWS};
use std::arch::x86_64::*;

type Pair = [[i16; 2]; ROWS];

pub(super) fn predict_avx512(pairs: &[Pair], weights: &[[i16; 2]]) -> [i32; ROWS] {
    // SAFETY: this level is only chosen where the instructions were detected.
    unsafe { avx512(pairs, weights) }
}

pub(super) fn predict_avx2(pairs: &[Pair], weights: &[[i16; 2]]) -> [i32; ROWS] {
    // SAFETY: this level is only chosen where the instructions were detected.
    unsafe { avx2(pairs, weights) }
}

pub(super) fn predict_four_avx512(
    pairs: &[Pair],
    weights: &[&[[i16; 2]]; QUERIES],
) -> [[i32; ROWS]; QUERIES] {
    // SAFETY: this level is only chosen where the instructions were detected.
    unsafe { four_avx512(pairs, weights) }
}

pub(super) fn nearest_avx512(blocks: &[Block], queries: &[&[[i16; 2]]; QUERIES]) -> [Option<usize>; QUERIES] {
    // SAFETY: this level is only chosen where the instructions were detected.
    unsafe { nearest(blocks, queries) }
}

/// Two weights as one word.
#[inline]
fn word([a, b]: [i16; 2]) -> i32 {
    i32::from(b) << 16 | i32::from(a as u16)
}

#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn avx512(pairs: &[Pair], weights: &[[i16; 2]]) -> [i32; ROWS] {
    let mut sums = [[_mm512_setzero_si512(); 4]; 4];
    let (fours, last) = pairs.as_chunks::<4>();
    let (weight_fours, weight_last) = weights.as_chunks::<4>();
    // SAFETY: each pair is 256 readable bytes.
    let load = |p: &Pair, i: usize| unsafe { _mm512_loadu_si512(p[16 * i..16 * i + 16].as_ptr().cast()) };
    for (four, w) in fours.iter().zip(weight_fours) {
        for h in 0..4 {
            let w = _mm512_set1_epi32(word(w[h]));
            for (i, sum) in sums[h].iter_mut().enumerate() {
                *sum = _mm512_dpwssd_epi32(*sum, load(&four[h], i), w);
            }
        }
    }
    for (pair, &w) in last.iter().zip(weight_last) {
        let w = _mm512_set1_epi32(word(w));
        for (i, sum) in sums[0].iter_mut().enumerate() {
            *sum = _mm512_dpwssd_epi32(*sum, load(pair, i), w);
        }
    }
    let mut out = [0; ROWS];
    for i in 0..4 {
        let part = &mut out[16 * i..16 * i + 16];
        let first = _mm512_add_epi32(sums[0][i], sums[1][i]);
        let sum = _mm512_add_epi32(first, _mm512_add_epi32(sums[2][i], sums[3][i]));
        // SAFETY: `part` is 64 writable bytes.
        unsafe { _mm512_storeu_si512(part.as_mut_ptr().cast(), sum) };
    }
    out
}

#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
#[inline]
fn four_sums(pairs: &[Pair], weights: &[&[[i16; 2]]; QUERIES]) -> [[__m512i; 4]; QUERIES] {
    let mut sums = [[_mm512_setzero_si512(); 4]; QUERIES];
    let [q0, q1, q2, q3] = weights;
    for ((((pair, &w0), &w1), &w2), &w3) in pairs.iter().zip(*q0).zip(*q1).zip(*q2).zip(*q3) {
        let weights = [w0, w1, w2, w3].map(|w| _mm512_set1_epi32(word(w)));
        for i in 0..4 {
            // SAFETY: each pair is 256 readable bytes, of which these are 64.
            let v = unsafe { _mm512_loadu_si512(pair[16 * i..16 * i + 16].as_ptr().cast()) };
            for (sums, &w) in sums.iter_mut().zip(&weights) {
                sums[i] = _mm512_dpwssd_epi32(sums[i], v, w);
            }
        }
    }
    sums
}

#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn four_avx512(pairs: &[Pair], weights: &[&[[i16; 2]]; QUERIES]) -> [[i32; ROWS]; QUERIES] {
    let sums = four_sums(pairs, weights);
    let mut out = [[0; ROWS]; QUERIES];
    for (out, sums) in out.iter_mut().zip(sums) {
        for (part, sum) in out.as_chunks_mut::<16>().0.iter_mut().zip(sums) {
            // SAFETY: `part` is 64 writable bytes.
            unsafe { _mm512_storeu_si512(part.as_mut_ptr().cast(), sum) };
        }
    }
    out
}

#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn nearest(blocks: &[Block], queries: &[&[[i16; 2]]; QUERIES]) -> [Option<usize>; QUERIES] {
    let mut most = [_mm512_setzero_si512(); QUERIES];
    let mut at = [_mm512_setzero_si512(); QUERIES];
    let high = _mm512_set1_epi32(!3);
    for (b, block) in blocks.iter().enumerate() {
        let sums = four_sums(&block.pairs, queries);
        let number = _mm512_set1_epi32(b as i32);
        for (q, sums) in sums.iter().enumerate() {
            let mut key = _mm512_setzero_si512();
            for (i, &sum) in sums.iter().enumerate() {
                let size = _mm512_and_si512(_mm512_abs_epi32(sum), high);
                key = _mm512_max_epi32(key, _mm512_or_si512(size, _mm512_set1_epi32(3 - i as i32)));
            }
            let larger = _mm512_cmpgt_epi32_mask(key, most[q]);
            most[q] = _mm512_mask_mov_epi32(most[q], larger, key);
            at[q] = _mm512_mask_mov_epi32(at[q], larger, number);
        }
    }
    let mut best = [None; QUERIES];
    for ((best, most), at) in best.iter_mut().zip(most).zip(at) {
        let (mut keys, mut numbers) = ([0_i32; 16], [0_i32; 16]);
        // SAFETY: both are 64 writable bytes.
        unsafe {
            _mm512_storeu_si512(keys.as_mut_ptr().cast(), most);
            _mm512_storeu_si512(numbers.as_mut_ptr().cast(), at);
        }
        let key = _mm512_reduce_max_epi32(most);
        if key > 3 {
            let first = (3 - key as usize % 4) * 16;
            let equals = keys.iter().zip(&numbers).enumerate().filter(|(_, (k, _))| **k == key);
            *best = equals.map(|(lane, (_, &b))| b as usize * ROWS + first + lane).min();
        }
    }
    best
}

#[target_feature(enable = "avx2")]
fn avx2(pairs: &[Pair], weights: &[[i16; 2]]) -> [i32; ROWS] {
    let mut sums = [_mm256_setzero_si256(); 8];
    for (pair, &w) in pairs.iter().zip(weights) {
        let w = _mm256_set1_epi32(word(w));
        for (i, sum) in sums.iter_mut().enumerate() {
            // SAFETY: each pair is 256 readable bytes, of which these are 32.
            let v = unsafe { _mm256_loadu_si256(pair[8 * i..8 * i + 8].as_ptr().cast()) };
            *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(v, w));
        }
    }
    let mut out = [0; ROWS];
    for (i, sum) in sums.into_iter().enumerate() {
        let part = &mut out[8 * i..8 * i + 8];
        // SAFETY: `part` is 32 writable bytes.
        unsafe { _mm256_storeu_si256(part.as_mut_ptr().cast(), sum) };
    }
    out
}
