//! The interleaved coders with AVX2: four vectors of eight states.
#![expect(unsafe_code, reason = "AVX2 gathers and unaligned vector loads and stores")]
#![cfg_attr(not(test), expect(clippy::wildcard_imports, reason = "intrinsics by the dozen"))]

use super::lanes::{EXPAND, TO_THE_END};
use super::{LANES, LOWER, SCALE, SCALE_BITS};
use crate::simd::Level;
use std::arch::x86_64::*;

/// States of a vector.
const WIDTH: usize = 8;

/// Decodes whole groups as long as 64 bytes of words are left; returns symbols done and bytes taken.
///
/// The caller has checked that every context has its slots in `slots`.
pub(super) fn decode(
    slots: &[u32],
    words: &[u8],
    contexts: &[u8],
    states: &mut [u32; LANES],
    out: &mut [u8],
) -> (usize, usize) {
    // SAFETY: this level is only chosen where the instructions were detected.
    unsafe { decode_groups(slots, words, contexts, states, out) }
}

/// The vectors of all states.
#[target_feature(enable = "avx2")]
fn load(states: &[u32; LANES]) -> [__m256i; LANES / WIDTH] {
    let mut x = [_mm256_setzero_si256(); LANES / WIDTH];
    for (x, part) in x.iter_mut().zip(states.as_chunks::<WIDTH>().0) {
        // SAFETY: `part` is 32 readable bytes.
        *x = unsafe { _mm256_loadu_si256(part.as_ptr().cast()) };
    }
    x
}

#[target_feature(enable = "avx2")]
fn store(x: [__m256i; LANES / WIDTH], states: &mut [u32; LANES]) {
    for (x, part) in x.into_iter().zip(states.as_chunks_mut::<WIDTH>().0) {
        // SAFETY: `part` is 32 writable bytes.
        unsafe { _mm256_storeu_si256(part.as_mut_ptr().cast(), x) };
    }
}

/// Eight bytes as eight numbers.
#[target_feature(enable = "avx2")]
fn widen(bytes: &[u8; WIDTH]) -> __m256i {
    // SAFETY: eight readable bytes.
    _mm256_cvtepu8_epi32(unsafe { _mm_loadl_epi64(bytes.as_ptr().cast()) })
}

#[target_feature(enable = "avx2,popcnt")]
fn decode_groups(
    slots: &[u32],
    words: &[u8],
    contexts: &[u8],
    states: &mut [u32; LANES],
    out: &mut [u8],
) -> (usize, usize) {
    let mask = _mm256_set1_epi32(SCALE as i32 - 1);
    let lower = _mm256_set1_epi32(LOWER as i32);
    let low11 = _mm256_set1_epi32(0x7ff);
    let one = _mm256_set1_epi32(1);
    // The low byte of each number, to the lowest four bytes of each half.
    let low_bytes = _mm256_set1_epi64x(0x8080_8080_0c08_0400_u64.cast_signed());
    let mut x = load(states);
    let (mut done, mut at) = (0, 0);
    let groups = contexts.as_chunks::<LANES>().0.iter().zip(out.as_chunks_mut::<LANES>().0);
    for (contexts, out) in groups {
        if words.len() - at < 2 * LANES {
            break;
        }
        let parts = contexts.as_chunks::<WIDTH>().0.iter().zip(out.as_chunks_mut::<WIDTH>().0);
        for (x, (c, o)) in x.iter_mut().zip(parts) {
            let index = _mm256_or_si256(
                _mm256_slli_epi32::<{ SCALE_BITS as i32 }>(widen(c)),
                _mm256_and_si256(*x, mask),
            );
            // SAFETY: every context is below `slots.len() >> SCALE_BITS`, and the rest of the index is below SCALE.
            let slot = unsafe { _mm256_i32gather_epi32::<4>(slots.as_ptr().cast(), index) };
            let bytes = _mm256_shuffle_epi8(slot, low_bytes);
            o[..4].copy_from_slice(&_mm256_extract_epi32::<0>(bytes).to_le_bytes());
            o[4..].copy_from_slice(&_mm256_extract_epi32::<4>(bytes).to_le_bytes());
            let frequency = _mm256_add_epi32(_mm256_and_si256(_mm256_srli_epi32::<8>(slot), low11), one);
            let product = _mm256_mullo_epi32(frequency, _mm256_srli_epi32::<{ SCALE_BITS as i32 }>(*x));
            // Below 2^31: a state is, and its frequency is at most a share of it.
            let next = _mm256_add_epi32(product, _mm256_srli_epi32::<19>(slot));
            let need = _mm256_cmpgt_epi32(lower, next);
            let lanes = _mm256_movemask_ps(_mm256_castsi256_ps(need)) as usize;
            let part = &words[at..at + 2 * WIDTH];
            // SAFETY: `part` is 16 readable bytes.
            let fresh = _mm256_cvtepu16_epi32(unsafe { _mm_loadu_si128(part.as_ptr().cast()) });
            let fresh = _mm256_permutevar8x32_epi32(fresh, widen(&EXPAND[lanes]));
            let renewed = _mm256_or_si256(_mm256_slli_epi32::<16>(next), fresh);
            *x = _mm256_blendv_epi8(next, renewed, need);
            at += 2 * lanes.count_ones() as usize;
        }
        done += LANES;
    }
    store(x, states);
    (done, at)
}

/// Encodes whole groups backwards; returns where the words begin.
pub(super) fn encode(
    entries: &[[u32; 256]],
    symbols: &[u8],
    contexts: &[u8],
    states: &mut [u32; LANES],
    words: &mut [u8],
    at: usize,
) -> usize {
    let most = Level::Avx2.run(|| contexts.iter().fold(0, |m, &c| m.max(c)));
    assert!(usize::from(most) < entries.len(), "contexts have tables");
    assert!(contexts.len() >= symbols.len() && at >= 2 * symbols.len() + 32, "room for a word a symbol");
    // SAFETY: this level is only chosen where the instructions were detected.
    unsafe { encode_groups(entries, symbols, contexts, states, words, at) }
}

/// ⌊v ÷ f⌋ of numbers below 2^31.
#[target_feature(enable = "avx2")]
fn quotients(v: __m256i, f: __m256i) -> __m256i {
    // Exact: quotients of numbers below 2^31 by numbers up to 2^11 are at least 2^-11 from the next integer.
    let divide = |v: __m128i, f: __m128i| {
        _mm256_cvttpd_epi32(_mm256_div_pd(_mm256_cvtepi32_pd(v), _mm256_cvtepi32_pd(f)))
    };
    let low = divide(_mm256_castsi256_si128(v), _mm256_castsi256_si128(f));
    let high = divide(_mm256_extracti128_si256::<1>(v), _mm256_extracti128_si256::<1>(f));
    _mm256_set_m128i(high, low)
}

#[target_feature(enable = "avx2,popcnt")]
fn encode_groups(
    entries: &[[u32; 256]],
    symbols: &[u8],
    contexts: &[u8],
    states: &mut [u32; LANES],
    words: &mut [u8],
    mut at: usize,
) -> usize {
    let mut x = load(states);
    let (one, low16) = (_mm256_set1_epi32(1), _mm256_set1_epi32(0xffff));
    let groups = symbols.as_chunks::<LANES>().0.iter().zip(contexts.as_chunks::<LANES>().0);
    for (s, c) in groups.rev() {
        let parts = s.as_chunks::<WIDTH>().0.iter().zip(c.as_chunks::<WIDTH>().0);
        for (x, (s, c)) in x.iter_mut().zip(parts).rev() {
            let index = _mm256_or_si256(_mm256_slli_epi32::<8>(widen(c)), widen(s));
            // SAFETY: every context is below `entries.len()`, as the caller asserted.
            let entry = unsafe { _mm256_i32gather_epi32::<4>(entries.as_ptr().cast(), index) };
            let frequency = _mm256_srli_epi32::<16>(entry);
            let start = _mm256_and_si256(entry, low16);
            let stays = _mm256_cmpgt_epi32(frequency, _mm256_srli_epi32::<{ 31 - SCALE_BITS as i32 }>(*x));
            let lanes = !_mm256_movemask_ps(_mm256_castsi256_ps(stays)) as usize & 0xff;
            // What is emitted goes to the end of the vector, so that a whole store ends where the words begin.
            let emitted = _mm256_permutevar8x32_epi32(_mm256_and_si256(*x, low16), widen(&TO_THE_END[lanes]));
            let emitted =
                _mm_packus_epi32(_mm256_castsi256_si128(emitted), _mm256_extracti128_si256::<1>(emitted));
            let part = &mut words[at - 2 * WIDTH..at];
            // SAFETY: `part` is 16 writable bytes.
            unsafe { _mm_storeu_si128(part.as_mut_ptr().cast(), emitted) };
            at -= 2 * lanes.count_ones() as usize;
            let v = _mm256_blendv_epi8(_mm256_srli_epi32::<16>(*x), *x, stays);
            let f = _mm256_max_epi32(frequency, one);
            let q = quotients(v, f);
            let r = _mm256_sub_epi32(v, _mm256_mullo_epi32(q, f));
            *x = _mm256_add_epi32(_mm256_add_epi32(_mm256_slli_epi32::<{ SCALE_BITS as i32 }>(q), r), start);
        }
    }
    store(x, states);
    at
}
