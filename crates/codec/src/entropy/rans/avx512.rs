//! The interleaved coders with AVX-512: two vectors of sixteen states.
#![expect(unsafe_code, reason = "AVX-512 gathers and unaligned vector loads and stores")]
#![cfg_attr(not(test), expect(clippy::wildcard_imports, reason = "intrinsics by the dozen"))]

use super::{LANES, LOWER, SCALE, SCALE_BITS};
use crate::simd::Level;
use std::arch::x86_64::*;

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

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,avx512vbmi2,popcnt")]
fn decode_groups(
    slots: &[u32],
    words: &[u8],
    contexts: &[u8],
    states: &mut [u32; LANES],
    out: &mut [u8],
) -> (usize, usize) {
    let mask = _mm512_set1_epi32(SCALE as i32 - 1);
    let lower = _mm512_set1_epi32(LOWER as i32);
    let low11 = _mm512_set1_epi32(0x7ff);
    let one = _mm512_set1_epi32(1);
    // SAFETY: `states` is 128 readable bytes.
    let mut x = unsafe {
        [_mm512_loadu_si512(states.as_ptr().cast()), _mm512_loadu_si512(states[16..].as_ptr().cast())]
    };
    let (mut done, mut at) = (0, 0);
    let groups = contexts.as_chunks::<16>().0.iter().zip(out.as_chunks_mut::<16>().0);
    let pairs = out_pairs(groups);
    for pair in pairs {
        if words.len() - at < 2 * LANES {
            break;
        }
        for (x, (c, o)) in x.iter_mut().zip(pair) {
            // SAFETY: `c` is 16 readable bytes.
            let c = _mm512_cvtepu8_epi32(unsafe { _mm_loadu_si128(c.as_ptr().cast()) });
            let index = _mm512_or_si512(_mm512_slli_epi32::<SCALE_BITS>(c), _mm512_and_si512(*x, mask));
            // SAFETY: every context is below `slots.len() >> SCALE_BITS`, and the rest of the index is below SCALE.
            let slot = unsafe { _mm512_i32gather_epi32::<4>(index, slots.as_ptr().cast()) };
            // SAFETY: `o` is 16 writable bytes.
            unsafe { _mm_storeu_si128(o.as_mut_ptr().cast(), _mm512_cvtepi32_epi8(slot)) };
            let frequency = _mm512_add_epi32(_mm512_and_si512(_mm512_srli_epi32::<8>(slot), low11), one);
            let product = _mm512_mullo_epi32(frequency, _mm512_srli_epi32::<SCALE_BITS>(*x));
            let next = _mm512_add_epi32(product, _mm512_srli_epi32::<19>(slot));
            let need = _mm512_cmplt_epu32_mask(next, lower);
            let part = &words[at..at + 32];
            // SAFETY: `part` is 32 readable bytes; two of them are taken per group of 64 that were checked above.
            let fresh = _mm512_cvtepu16_epi32(unsafe { _mm256_loadu_si256(part.as_ptr().cast()) });
            let fresh = _mm512_maskz_expand_epi32(need, fresh);
            *x = _mm512_mask_or_epi32(next, need, _mm512_slli_epi32::<16>(next), fresh);
            at += 2 * need.count_ones() as usize;
        }
        done += LANES;
    }
    // SAFETY: `states` is 128 writable bytes.
    unsafe {
        _mm512_storeu_si512(states.as_mut_ptr().cast(), x[0]);
        _mm512_storeu_si512(states[16..].as_mut_ptr().cast(), x[1]);
    }
    (done, at)
}

/// Pairs up consecutive sixteens.
fn out_pairs<T>(mut halves: impl Iterator<Item = T>) -> impl Iterator<Item = [T; 2]> {
    std::iter::from_fn(move || Some([halves.next()?, halves.next()?]))
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
    let most = Level::Avx512.run(|| contexts.iter().fold(0, |m, &c| m.max(c)));
    assert!(usize::from(most) < entries.len(), "contexts have tables");
    assert!(contexts.len() >= symbols.len() && at >= 2 * symbols.len() + 32, "room for a word a symbol");
    // SAFETY: this level is only chosen where the instructions were detected.
    unsafe { encode_groups(entries, symbols, contexts, states, words, at) }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,avx512vbmi2,popcnt")]
fn encode_groups(
    entries: &[[u32; 256]],
    symbols: &[u8],
    contexts: &[u8],
    states: &mut [u32; LANES],
    words: &mut [u8],
    mut at: usize,
) -> usize {
    // SAFETY: `states` is 128 readable bytes.
    let mut x = unsafe {
        [_mm512_loadu_si512(states.as_ptr().cast()), _mm512_loadu_si512(states[16..].as_ptr().cast())]
    };
    let one = _mm512_set1_epi32(1);
    let groups = symbols.as_chunks::<LANES>().0.iter().zip(contexts.as_chunks::<LANES>().0);
    for (s, c) in groups.rev() {
        for half in [1, 0] {
            // SAFETY: both halves of both arrays are 16 readable bytes.
            let (s, c) = unsafe {
                (
                    _mm_loadu_si128(s[16 * half..].as_ptr().cast()),
                    _mm_loadu_si128(c[16 * half..].as_ptr().cast()),
                )
            };
            let index =
                _mm512_or_si512(_mm512_slli_epi32::<8>(_mm512_cvtepu8_epi32(c)), _mm512_cvtepu8_epi32(s));
            // SAFETY: every context is below `entries.len()`, as the caller asserted.
            let entry = unsafe { _mm512_i32gather_epi32::<4>(index, entries.as_ptr().cast()) };
            let frequency = _mm512_srli_epi32::<16>(entry);
            let start = _mm512_and_si512(entry, _mm512_set1_epi32(0xffff));
            let v = x[half];
            let emit = _mm512_cmpge_epu32_mask(_mm512_srli_epi32::<{ 31 - SCALE_BITS }>(v), frequency);
            let out = _mm512_cvtepi32_epi16(_mm512_maskz_compress_epi32(emit, v));
            at -= 2 * emit.count_ones() as usize;
            let part = &mut words[at..at + 32];
            // Words that were written before lie after these; a masked store leaves them alone.
            let lanes = ((1_u32 << emit.count_ones()) - 1) as u16;
            // SAFETY: `part` is 32 writable bytes.
            unsafe { _mm256_mask_storeu_epi16(part.as_mut_ptr().cast(), lanes, out) };
            let v = _mm512_mask_srli_epi32::<16>(v, emit, v);
            // Exact: quotients of numbers below 2^31 by numbers up to 2^11 are at least 2^-11 from the next integer.
            let f = _mm512_max_epu32(frequency, one);
            let low = _mm512_div_pd(
                _mm512_cvtepu32_pd(_mm512_castsi512_si256(v)),
                _mm512_cvtepu32_pd(_mm512_castsi512_si256(f)),
            );
            let high = _mm512_div_pd(
                _mm512_cvtepu32_pd(_mm512_extracti64x4_epi64::<1>(v)),
                _mm512_cvtepu32_pd(_mm512_extracti64x4_epi64::<1>(f)),
            );
            let low = _mm512_castsi256_si512(_mm512_cvttpd_epu32(low));
            let q = _mm512_inserti64x4::<1>(low, _mm512_cvttpd_epu32(high));
            let r = _mm512_sub_epi32(v, _mm512_mullo_epi32(q, f));
            x[half] = _mm512_add_epi32(_mm512_add_epi32(_mm512_slli_epi32::<SCALE_BITS>(q), r), start);
        }
    }
    // SAFETY: `states` is 128 writable bytes.
    unsafe {
        _mm512_storeu_si512(states.as_mut_ptr().cast(), x[0]);
        _mm512_storeu_si512(states[16..].as_mut_ptr().cast(), x[1]);
    }
    at
}
