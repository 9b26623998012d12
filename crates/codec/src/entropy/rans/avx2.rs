//! The interleaved coders with AVX2: four vectors of eight states.
#![expect(unsafe_code, reason = "AVX2 gathers and unaligned vector loads and stores")]
#![cfg_attr(not(test), expect(clippy::wildcard_imports, reason = "intrinsics by the dozen"))]

use super::groups::coders;
use super::lanes::{EXPAND, TO_THE_END};
use super::{LANES, LOWER, SCALE, SCALE_BITS};
use crate::simd::Level;
use std::arch::x86_64::*;

type Vector = __m256i;
/// States of a vector.
const WIDTH: usize = 8;
const SHIFT: i32 = SCALE_BITS as i32;

coders!("avx2,popcnt");

#[target_feature(enable = "avx2")]
fn load(states: &[u32; WIDTH]) -> Vector {
    // SAFETY: 32 readable bytes.
    unsafe { _mm256_loadu_si256(states.as_ptr().cast()) }
}

#[target_feature(enable = "avx2")]
fn store(x: Vector, states: &mut [u32; WIDTH]) {
    // SAFETY: 32 writable bytes.
    unsafe { _mm256_storeu_si256(states.as_mut_ptr().cast(), x) }
}

/// Eight bytes as eight numbers.
#[target_feature(enable = "avx2")]
fn widen(bytes: &[u8; WIDTH]) -> Vector {
    // SAFETY: eight readable bytes.
    _mm256_cvtepu8_epi32(unsafe { _mm_loadl_epi64(bytes.as_ptr().cast()) })
}

/// Every context is below `slots.len() >> SCALE_BITS`.
#[target_feature(enable = "avx2")]
unsafe fn slots_of(slots: &[u32], contexts: &[u8; WIDTH], x: Vector) -> Vector {
    let low = _mm256_and_si256(x, _mm256_set1_epi32(SCALE as i32 - 1));
    let index = _mm256_or_si256(_mm256_slli_epi32::<SHIFT>(widen(contexts)), low);
    // SAFETY: the contexts are as the caller says, and the rest of the index is below SCALE.
    unsafe { _mm256_i32gather_epi32::<4>(slots.as_ptr().cast(), index) }
}

#[target_feature(enable = "avx2")]
fn low_bytes(x: Vector, out: &mut [u8; WIDTH]) {
    // The low byte of each number, to the lowest four bytes of each half.
    let bytes = _mm256_shuffle_epi8(x, _mm256_set1_epi64x(0x8080_8080_0c08_0400_u64.cast_signed()));
    out[..4].copy_from_slice(&_mm256_extract_epi32::<0>(bytes).to_le_bytes());
    out[4..].copy_from_slice(&_mm256_extract_epi32::<4>(bytes).to_le_bytes());
}

#[target_feature(enable = "avx2")]
fn step(slot: Vector, x: Vector) -> Vector {
    let frequency = _mm256_and_si256(_mm256_srli_epi32::<8>(slot), _mm256_set1_epi32(0x7ff));
    let frequency = _mm256_add_epi32(frequency, _mm256_set1_epi32(1));
    let product = _mm256_mullo_epi32(frequency, _mm256_srli_epi32::<SHIFT>(x));
    // Below 2^31: a state is, and its frequency is at most a share of it.
    _mm256_add_epi32(product, _mm256_srli_epi32::<19>(slot))
}

#[target_feature(enable = "avx2,popcnt")]
fn renew(x: Vector, words: &[u8]) -> (Vector, usize) {
    let need = _mm256_cmpgt_epi32(_mm256_set1_epi32(LOWER as i32), x);
    let lanes = _mm256_movemask_ps(_mm256_castsi256_ps(need)) as usize;
    let words = &words[..2 * WIDTH];
    // SAFETY: 16 readable bytes.
    let fresh = _mm256_cvtepu16_epi32(unsafe { _mm_loadu_si128(words.as_ptr().cast()) });
    let fresh = _mm256_permutevar8x32_epi32(fresh, widen(&EXPAND[lanes]));
    let renewed = _mm256_or_si256(_mm256_slli_epi32::<16>(x), fresh);
    (_mm256_blendv_epi8(x, renewed, need), lanes.count_ones() as usize)
}

/// Every context is below `entries.len()`.
#[target_feature(enable = "avx2")]
unsafe fn entries_of(entries: &[[u32; 256]], symbols: &[u8; WIDTH], contexts: &[u8; WIDTH]) -> Vector {
    let index = _mm256_or_si256(_mm256_slli_epi32::<8>(widen(contexts)), widen(symbols));
    // SAFETY: the contexts are as the caller says, and symbols are bytes.
    unsafe { _mm256_i32gather_epi32::<4>(entries.as_ptr().cast(), index) }
}

#[target_feature(enable = "avx2,popcnt")]
fn emit(x: Vector, entry: Vector, words: &mut [u8], at: usize) -> (Vector, usize) {
    let frequency = _mm256_srli_epi32::<16>(entry);
    let stays = _mm256_cmpgt_epi32(frequency, _mm256_srli_epi32::<{ 31 - SHIFT }>(x));
    let lanes = !_mm256_movemask_ps(_mm256_castsi256_ps(stays)) as usize & 0xff;
    // What is emitted goes to the end of the vector, so that a whole store ends where the words begin.
    let low16 = _mm256_and_si256(x, _mm256_set1_epi32(0xffff));
    let emitted = _mm256_permutevar8x32_epi32(low16, widen(&TO_THE_END[lanes]));
    let emitted = _mm_packus_epi32(_mm256_castsi256_si128(emitted), _mm256_extracti128_si256::<1>(emitted));
    let part = &mut words[at - 2 * WIDTH..at];
    // SAFETY: `part` is 16 writable bytes.
    unsafe { _mm_storeu_si128(part.as_mut_ptr().cast(), emitted) };
    (_mm256_blendv_epi8(_mm256_srli_epi32::<16>(x), x, stays), lanes.count_ones() as usize)
}

#[target_feature(enable = "avx2")]
fn put(x: Vector, entry: Vector) -> Vector {
    let f = _mm256_max_epi32(_mm256_srli_epi32::<16>(entry), _mm256_set1_epi32(1));
    let start = _mm256_and_si256(entry, _mm256_set1_epi32(0xffff));
    let q = quotients(x, f);
    let r = _mm256_sub_epi32(x, _mm256_mullo_epi32(q, f));
    _mm256_add_epi32(_mm256_add_epi32(_mm256_slli_epi32::<SHIFT>(q), r), start)
}

/// ⌊v ÷ f⌋ of numbers below 2^31.
#[target_feature(enable = "avx2")]
fn quotients(v: Vector, f: Vector) -> Vector {
    // Exact: quotients of numbers below 2^31 by numbers up to 2^11 are at least 2^-11 from the next integer.
    let divide = |v: __m128i, f: __m128i| {
        _mm256_cvttpd_epi32(_mm256_div_pd(_mm256_cvtepi32_pd(v), _mm256_cvtepi32_pd(f)))
    };
    let low = divide(_mm256_castsi256_si128(v), _mm256_castsi256_si128(f));
    let high = divide(_mm256_extracti128_si256::<1>(v), _mm256_extracti128_si256::<1>(f));
    _mm256_set_m128i(high, low)
}
