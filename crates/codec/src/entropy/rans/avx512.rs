//! The interleaved coders with AVX-512: two vectors of sixteen states.
#![expect(unsafe_code, reason = "AVX-512 gathers and unaligned vector loads and stores")]
#![cfg_attr(not(test), expect(clippy::wildcard_imports, reason = "intrinsics by the dozen"))]

use super::groups::coders;
use super::{LANES, LOWER, SCALE, SCALE_BITS};
use crate::simd::Level;
use std::arch::x86_64::*;

type Vector = __m512i;
/// States of a vector.
const WIDTH: usize = 16;

coders!("avx512f,avx512bw,avx512vl,avx512vbmi,avx512vbmi2,popcnt");

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,avx512vbmi2,popcnt")]
fn load(states: &[u32; WIDTH]) -> Vector {
    // SAFETY: 64 readable bytes.
    unsafe { _mm512_loadu_si512(states.as_ptr().cast()) }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,avx512vbmi2,popcnt")]
fn store(x: Vector, states: &mut [u32; WIDTH]) {
    // SAFETY: 64 writable bytes.
    unsafe { _mm512_storeu_si512(states.as_mut_ptr().cast(), x) }
}

/// Sixteen bytes as sixteen numbers.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,avx512vbmi2,popcnt")]
fn widen(bytes: &[u8; WIDTH]) -> Vector {
    // SAFETY: sixteen readable bytes.
    _mm512_cvtepu8_epi32(unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) })
}

/// Every context is below `slots.len() >> SCALE_BITS`.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,avx512vbmi2,popcnt")]
unsafe fn slots_of(slots: &[u32], contexts: &[u8; WIDTH], x: Vector) -> Vector {
    let low = _mm512_and_si512(x, _mm512_set1_epi32(SCALE as i32 - 1));
    let index = _mm512_or_si512(_mm512_slli_epi32::<SCALE_BITS>(widen(contexts)), low);
    // SAFETY: the contexts are as the caller says, and the rest of the index is below SCALE.
    unsafe { _mm512_i32gather_epi32::<4>(index, slots.as_ptr().cast()) }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,avx512vbmi2,popcnt")]
fn low_bytes(x: Vector, out: &mut [u8; WIDTH]) {
    // SAFETY: `out` is 16 writable bytes.
    unsafe { _mm_storeu_si128(out.as_mut_ptr().cast(), _mm512_cvtepi32_epi8(x)) };
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,avx512vbmi2,popcnt")]
fn step(slot: Vector, x: Vector) -> Vector {
    let frequency = _mm512_and_si512(_mm512_srli_epi32::<8>(slot), _mm512_set1_epi32(0x7ff));
    let frequency = _mm512_add_epi32(frequency, _mm512_set1_epi32(1));
    let product = _mm512_mullo_epi32(frequency, _mm512_srli_epi32::<SCALE_BITS>(x));
    _mm512_add_epi32(product, _mm512_srli_epi32::<19>(slot))
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,avx512vbmi2,popcnt")]
fn renew(x: Vector, words: &[u8]) -> (Vector, usize) {
    let need = _mm512_cmplt_epu32_mask(x, _mm512_set1_epi32(LOWER as i32));
    let words = &words[..2 * WIDTH];
    // SAFETY: 32 readable bytes.
    let fresh = _mm512_cvtepu16_epi32(unsafe { _mm256_loadu_si256(words.as_ptr().cast()) });
    let fresh = _mm512_maskz_expand_epi32(need, fresh);
    (_mm512_mask_or_epi32(x, need, _mm512_slli_epi32::<16>(x), fresh), need.count_ones() as usize)
}

/// Every context is below `entries.len()`.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,avx512vbmi2,popcnt")]
unsafe fn entries_of(entries: &[[u32; 256]], symbols: &[u8; WIDTH], contexts: &[u8; WIDTH]) -> Vector {
    let index = _mm512_or_si512(_mm512_slli_epi32::<8>(widen(contexts)), widen(symbols));
    // SAFETY: the contexts are as the caller says, and symbols are bytes.
    unsafe { _mm512_i32gather_epi32::<4>(index, entries.as_ptr().cast()) }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,avx512vbmi2,popcnt")]
fn emit(x: Vector, entry: Vector, words: &mut [u8], at: usize) -> (Vector, usize) {
    let frequency = _mm512_srli_epi32::<16>(entry);
    let emit = _mm512_cmpge_epu32_mask(_mm512_srli_epi32::<{ 31 - SCALE_BITS }>(x), frequency);
    let emitted = _mm512_cvtepi32_epi16(_mm512_maskz_compress_epi32(emit, x));
    let went = emit.count_ones() as usize;
    let at = at - 2 * went;
    let part = &mut words[at..at + 2 * WIDTH];
    // Words that were written before lie after these; a masked store leaves them alone.
    let lanes = ((1_u32 << went) - 1) as u16;
    // SAFETY: `part` is 32 writable bytes.
    unsafe { _mm256_mask_storeu_epi16(part.as_mut_ptr().cast(), lanes, emitted) };
    (_mm512_mask_srli_epi32::<16>(x, emit, x), went)
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,avx512vbmi2,popcnt")]
fn put(x: Vector, entry: Vector) -> Vector {
    let f = _mm512_max_epu32(_mm512_srli_epi32::<16>(entry), _mm512_set1_epi32(1));
    let start = _mm512_and_si512(entry, _mm512_set1_epi32(0xffff));
    let q = quotients(x, f);
    let r = _mm512_sub_epi32(x, _mm512_mullo_epi32(q, f));
    _mm512_add_epi32(_mm512_add_epi32(_mm512_slli_epi32::<SCALE_BITS>(q), r), start)
}

/// ⌊v ÷ f⌋ of numbers below 2^31.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,avx512vbmi2,popcnt")]
fn quotients(v: Vector, f: Vector) -> Vector {
    // Exact: quotients of numbers below 2^31 by numbers up to 2^11 are at least 2^-11 from the next integer.
    let divide = |v: __m256i, f: __m256i| {
        _mm512_cvttpd_epu32(_mm512_div_pd(_mm512_cvtepu32_pd(v), _mm512_cvtepu32_pd(f)))
    };
    let low = divide(_mm512_castsi512_si256(v), _mm512_castsi512_si256(f));
    let high = divide(_mm512_extracti64x4_epi64::<1>(v), _mm512_extracti64x4_epi64::<1>(f));
    _mm512_inserti64x4::<1>(_mm512_castsi256_si512(low), high)
}
