//! The kernels with AVX-512 VBMI2: byte compress and expand do the layers' work, 64 elements a step.
#![expect(unsafe_code, reason = "AVX-512 intrinsics and unaligned vector loads and stores")]
#![cfg_attr(not(test), expect(clippy::wildcard_imports, reason = "intrinsics by the dozen"))]

use super::{GROUP, Kernels, Layer};
use std::arch::x86_64::*;

/// AVX-512 kernels; only to be called where `Level::Avx512` is available.
#[derive(Debug)]
pub(crate) struct Avx512;

/// Runs `f` compiled for this level.
#[inline]
pub(crate) fn run<R>(f: impl FnOnce() -> R) -> R {
    #[target_feature(
        enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vbmi2,bmi1,bmi2,popcnt,lzcnt"
    )]
    fn inner<R>(f: impl FnOnce() -> R) -> R {
        f()
    }
    // SAFETY: this level is only chosen where the instructions were detected.
    unsafe { inner(f) }
}

/// Loads 64 bytes at `at`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn load(bytes: &[u8], at: usize) -> __m512i {
    let part = &bytes[at..at + 64];
    // SAFETY: `part` is 64 readable bytes; the load needs no alignment.
    unsafe { _mm512_loadu_si512(part.as_ptr().cast()) }
}

/// Stores 64 bytes at `at`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn store(bytes: &mut [u8], at: usize, v: __m512i) {
    let part = &mut bytes[at..at + 64];
    // SAFETY: `part` is 64 writable bytes; the store needs no alignment.
    unsafe { _mm512_storeu_si512(part.as_mut_ptr().cast(), v) }
}

/// Planes and escape mask of 64 symbols.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi,avx512vbmi2")]
fn code<const BITS: u8>(s: __m512i, symbols: [__m512i; 3]) -> ([u64; 3], u64) {
    let [a, b, c] = symbols;
    match BITS {
        1 => {
            let escape = _mm512_cmpneq_epi8_mask(s, a);
            ([escape, 0, 0], escape)
        }
        2 => {
            let (ma, mb, mc) =
                (_mm512_cmpeq_epi8_mask(s, a), _mm512_cmpeq_epi8_mask(s, b), _mm512_cmpeq_epi8_mask(s, c));
            // A book may repeat a symbol; the first code wins, as in the scalar kernel.
            let (mb, mc) = (mb & !ma, mc & !ma & !mb);
            let escape = !(ma | mb | mc);
            ([mb | escape, mc | escape, 0], escape)
        }
        _ => {
            let code = _mm512_min_epu8(_mm512_sub_epi8(s, a), _mm512_set1_epi8(7));
            let plane = |bit| _mm512_test_epi8_mask(code, _mm512_set1_epi8(bit));
            ([plane(1), plane(2), plane(4)], _mm512_cmpeq_epi8_mask(code, _mm512_set1_epi8(7)))
        }
    }
}

/// Symbols of one group, its escapes taken from the front of `deeper`, and how many those were.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi,avx512vbmi2,popcnt")]
fn join<const BITS: u8>(planes: [u64; 3], symbols: [__m512i; 3], deeper: __m512i) -> (__m512i, usize) {
    let [a, b, c] = symbols;
    let [p0, p1, p2] = planes;
    let (v, escape) = match BITS {
        1 => (a, p0),
        2 => (_mm512_mask_mov_epi8(_mm512_mask_mov_epi8(a, p0, b), p1, c), p0 & p1),
        _ => {
            let v = _mm512_mask_add_epi8(a, p0, a, _mm512_set1_epi8(1));
            let v = _mm512_mask_add_epi8(v, p1, v, _mm512_set1_epi8(2));
            (_mm512_mask_add_epi8(v, p2, v, _mm512_set1_epi8(4)), p0 & p1 & p2)
        }
    };
    (_mm512_mask_expand_epi8(v, escape, deeper), escape.count_ones() as usize)
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn broadcast(layer: Layer) -> [__m512i; 3] {
    layer.symbols.map(|s| _mm512_set1_epi8(s as i8))
}

#[inline]
fn put_planes<const BITS: u8>(planes: &mut [u8], group: usize, p: [u64; 3]) {
    let bytes = usize::from(BITS) * 8;
    let out = &mut planes[group * bytes..(group + 1) * bytes];
    for i in 0..usize::from(BITS) {
        out[i * 8..i * 8 + 8].copy_from_slice(&p[i].to_le_bytes());
    }
}

#[inline]
fn get_planes<const BITS: u8>(planes: &[u8], group: usize) -> [u64; 3] {
    let bytes = usize::from(BITS) * 8;
    let part = &planes[group * bytes..(group + 1) * bytes];
    let mut p = [0; 3];
    for (i, b) in part.as_chunks::<8>().0.iter().enumerate() {
        p[i] = u64::from_le_bytes(*b);
    }
    p
}

#[target_feature(enable = "avx512f,avx512bw,avx512vbmi,avx512vbmi2,popcnt")]
fn split_first<const BITS: u8, const ROTATE: bool>(
    words: &[u8],
    offsets: &[u8],
    layer: Layer,
    tails: &mut [u8],
    planes: &mut [u8],
    rest: &mut [u8],
) -> usize {
    let symbols = broadcast(layer);
    let order = _mm512_setr_epi64(0, 2, 4, 6, 1, 3, 5, 7);
    let low = _mm512_set1_epi16(0xff);
    let mut taken = 0;
    for g in 0..tails.len() / GROUP {
        let mut x = [load(words, 128 * g), load(words, 128 * g + 64)];
        if ROTATE {
            x = x.map(|x| _mm512_shldi_epi16::<1>(x, x));
        }
        let t = _mm512_packus_epi16(_mm512_and_si512(x[0], low), _mm512_and_si512(x[1], low));
        let s = _mm512_packus_epi16(_mm512_srli_epi16::<8>(x[0]), _mm512_srli_epi16::<8>(x[1]));
        store(tails, GROUP * g, _mm512_permutexvar_epi64(order, t));
        let s = _mm512_sub_epi8(_mm512_permutexvar_epi64(order, s), load(offsets, GROUP * g));
        let (p, escape) = code::<BITS>(s, symbols);
        put_planes::<BITS>(planes, g, p);
        store(rest, taken, _mm512_maskz_compress_epi8(escape, s));
        taken += escape.count_ones() as usize;
    }
    taken
}

#[target_feature(enable = "avx512f,avx512bw,avx512vbmi,avx512vbmi2,popcnt")]
fn split_layer<const BITS: u8>(data: &[u8], layer: Layer, planes: &mut [u8], rest: &mut [u8]) -> usize {
    let symbols = broadcast(layer);
    let mut taken = 0;
    for g in 0..data.len() / GROUP {
        let s = load(data, GROUP * g);
        let (p, escape) = code::<BITS>(s, symbols);
        put_planes::<BITS>(planes, g, p);
        store(rest, taken, _mm512_maskz_compress_epi8(escape, s));
        taken += escape.count_ones() as usize;
    }
    taken
}

#[target_feature(enable = "avx512f,avx512bw,avx512vbmi,avx512vbmi2,popcnt")]
fn join_layer<const BITS: u8>(planes: &[u8], layer: Layer, deeper: &[u8], out: &mut [u8]) -> usize {
    let symbols = broadcast(layer);
    let mut taken = 0;
    for g in 0..out.len() / GROUP {
        let (v, count) = join::<BITS>(get_planes::<BITS>(planes, g), symbols, load(deeper, taken));
        store(out, GROUP * g, v);
        taken += count;
    }
    taken
}

#[target_feature(enable = "avx512f,avx512bw,avx512vbmi,avx512vbmi2,popcnt")]
fn join_first<const BITS: u8, const ROTATE: bool>(
    tails: &[u8],
    planes: &[u8],
    layer: Layer,
    deeper: &[u8],
    offsets: &[u8],
    words: &mut [u8],
) -> usize {
    let symbols = broadcast(layer);
    let order = _mm512_setr_epi64(0, 4, 1, 5, 2, 6, 3, 7);
    let mut taken = 0;
    for g in 0..tails.len() / GROUP {
        let (v, count) = join::<BITS>(get_planes::<BITS>(planes, g), symbols, load(deeper, taken));
        taken += count;
        let s = _mm512_permutexvar_epi64(order, _mm512_add_epi8(v, load(offsets, GROUP * g)));
        let t = _mm512_permutexvar_epi64(order, load(tails, GROUP * g));
        let mut x = [_mm512_unpacklo_epi8(t, s), _mm512_unpackhi_epi8(t, s)];
        if ROTATE {
            x = x.map(|x| _mm512_shrdi_epi16::<1>(x, x));
        }
        store(words, 128 * g, x[0]);
        store(words, 128 * g + 64, x[1]);
    }
    taken
}

impl Kernels for Avx512 {
    fn split_first(
        words: &[u8],
        rotate: bool,
        offsets: &[u8],
        layer: Layer,
        tails: &mut [u8],
        planes: &mut [u8],
        rest: &mut [u8],
    ) -> usize {
        // SAFETY: this level is only chosen where the instructions were detected.
        unsafe {
            match (layer.bits, rotate) {
                (1, false) => split_first::<1, false>(words, offsets, layer, tails, planes, rest),
                (1, true) => split_first::<1, true>(words, offsets, layer, tails, planes, rest),
                (2, false) => split_first::<2, false>(words, offsets, layer, tails, planes, rest),
                (2, true) => split_first::<2, true>(words, offsets, layer, tails, planes, rest),
                (_, false) => split_first::<3, false>(words, offsets, layer, tails, planes, rest),
                (_, true) => split_first::<3, true>(words, offsets, layer, tails, planes, rest),
            }
        }
    }

    fn split_layer(symbols: &[u8], layer: Layer, planes: &mut [u8], rest: &mut [u8]) -> usize {
        // SAFETY: as above.
        unsafe {
            match layer.bits {
                1 => split_layer::<1>(symbols, layer, planes, rest),
                2 => split_layer::<2>(symbols, layer, planes, rest),
                _ => split_layer::<3>(symbols, layer, planes, rest),
            }
        }
    }

    fn join_layer(planes: &[u8], layer: Layer, deeper: &[u8], out: &mut [u8]) -> usize {
        // SAFETY: as above.
        unsafe {
            match layer.bits {
                1 => join_layer::<1>(planes, layer, deeper, out),
                2 => join_layer::<2>(planes, layer, deeper, out),
                _ => join_layer::<3>(planes, layer, deeper, out),
            }
        }
    }

    fn join_first(
        tails: &[u8],
        planes: &[u8],
        layer: Layer,
        deeper: &[u8],
        offsets: &[u8],
        rotate: bool,
        words: &mut [u8],
    ) -> usize {
        // SAFETY: as above.
        unsafe {
            match (layer.bits, rotate) {
                (1, false) => join_first::<1, false>(tails, planes, layer, deeper, offsets, words),
                (1, true) => join_first::<1, true>(tails, planes, layer, deeper, offsets, words),
                (2, false) => join_first::<2, false>(tails, planes, layer, deeper, offsets, words),
                (2, true) => join_first::<2, true>(tails, planes, layer, deeper, offsets, words),
                (_, false) => join_first::<3, false>(tails, planes, layer, deeper, offsets, words),
                (_, true) => join_first::<3, true>(tails, planes, layer, deeper, offsets, words),
            }
        }
    }
}
