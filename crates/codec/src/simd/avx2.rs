//! The kernels with AVX2 and BMI2: pext and pdep on eight bytes stand in for compress and expand.
#![expect(unsafe_code, reason = "AVX2 and BMI2 intrinsics and unaligned vector loads and stores")]
#![cfg_attr(not(test), expect(clippy::wildcard_imports, reason = "intrinsics by the dozen"))]

use super::{GROUP, Kernels, Layer};
use std::arch::x86_64::*;

/// AVX2 kernels; only to be called where `Level::Avx2` is available.
#[derive(Debug)]
pub(crate) struct Avx2;

/// Runs `f` compiled for this level.
#[inline]
pub(crate) fn run<R>(f: impl FnOnce() -> R) -> R {
    #[target_feature(enable = "avx2,bmi1,bmi2,popcnt,lzcnt")]
    fn inner<R>(f: impl FnOnce() -> R) -> R {
        f()
    }
    // SAFETY: this level is only chosen where the instructions were detected.
    unsafe { inner(f) }
}

/// Loads 32 bytes at `at`.
#[inline]
#[target_feature(enable = "avx2")]
fn load(bytes: &[u8], at: usize) -> __m256i {
    let part = &bytes[at..at + 32];
    // SAFETY: `part` is 32 readable bytes; the load needs no alignment.
    unsafe { _mm256_loadu_si256(part.as_ptr().cast()) }
}

/// Stores 32 bytes at `at`.
#[inline]
#[target_feature(enable = "avx2")]
fn store(bytes: &mut [u8], at: usize, v: __m256i) {
    let part = &mut bytes[at..at + 32];
    // SAFETY: `part` is 32 writable bytes; the store needs no alignment.
    unsafe { _mm256_storeu_si256(part.as_mut_ptr().cast(), v) }
}

#[inline]
fn load_u64(bytes: &[u8], at: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(word)
}

#[inline]
fn store_u64(bytes: &mut [u8], at: usize, v: u64) {
    bytes[at..at + 8].copy_from_slice(&v.to_le_bytes());
}

#[inline]
#[target_feature(enable = "avx2")]
fn mask(low: __m256i, high: __m256i) -> u64 {
    u64::from(_mm256_movemask_epi8(low) as u32) | u64::from(_mm256_movemask_epi8(high) as u32) << 32
}

/// Planes and escape mask of 64 symbols in two vectors.
#[inline]
#[target_feature(enable = "avx2")]
fn code<const BITS: u8>(s: [__m256i; 2], symbols: [__m256i; 3]) -> ([u64; 3], u64) {
    let [a, b, c] = symbols;
    let equal = |x| mask(_mm256_cmpeq_epi8(s[0], x), _mm256_cmpeq_epi8(s[1], x));
    match BITS {
        1 => {
            let escape = !equal(a);
            ([escape, 0, 0], escape)
        }
        2 => {
            let ma = equal(a);
            let mb = equal(b) & !ma;
            let mc = equal(c) & !ma & !mb;
            let escape = !(ma | mb | mc);
            ([mb | escape, mc | escape, 0], escape)
        }
        _ => {
            let code = s.map(|s| _mm256_min_epu8(_mm256_sub_epi8(s, a), _mm256_set1_epi8(7)));
            let p0 = mask(_mm256_slli_epi16::<7>(code[0]), _mm256_slli_epi16::<7>(code[1]));
            let p1 = mask(_mm256_slli_epi16::<6>(code[0]), _mm256_slli_epi16::<6>(code[1]));
            let p2 = mask(_mm256_slli_epi16::<5>(code[0]), _mm256_slli_epi16::<5>(code[1]));
            ([p0, p1, p2], p0 & p1 & p2)
        }
    }
}

/// Copies the bytes of 64 whose bit is set to `rest`, which has room for 64, and returns their number.
#[inline]
#[target_feature(enable = "avx2,bmi2,popcnt")]
fn compress(s: [__m256i; 2], escape: u64, rest: &mut [u8]) -> usize {
    let mut bytes = [0_u8; GROUP];
    store(&mut bytes, 0, s[0]);
    store(&mut bytes, 32, s[1]);
    let mut taken = 0;
    for i in 0..8 {
        let bits = escape >> (8 * i) & 0xff;
        let lanes = _pdep_u64(bits, 0x0101_0101_0101_0101) * 0xff;
        store_u64(rest, taken, _pext_u64(load_u64(&bytes, 8 * i), lanes));
        taken += bits.count_ones() as usize;
    }
    taken
}

/// Eight bytes with 0xff where the bit is set, four times over.
#[inline]
#[target_feature(enable = "avx2")]
fn spread(bits: u32) -> __m256i {
    let each = _mm256_setr_epi64x(0, 0x0101_0101_0101_0101, 0x0202_0202_0202_0202, 0x0303_0303_0303_0303);
    let select = _mm256_set1_epi64x(0x8040_2010_0804_0201_u64 as i64);
    let bytes = _mm256_shuffle_epi8(_mm256_set1_epi32(bits as i32), each);
    _mm256_cmpeq_epi8(_mm256_and_si256(bytes, select), select)
}

/// Symbols of one group, its escapes taken from the front of `deeper`, and how many those were.
#[inline]
#[target_feature(enable = "avx2,bmi2,popcnt")]
fn join<const BITS: u8>(planes: [u64; 3], symbols: [__m256i; 3], deeper: &[u8]) -> ([__m256i; 2], usize) {
    let [a, b, c] = symbols;
    let escape = match BITS {
        1 => planes[0],
        2 => planes[0] & planes[1],
        _ => planes[0] & planes[1] & planes[2],
    };
    let mut bytes = [0_u8; GROUP];
    let mut taken = 0;
    for i in 0..8 {
        let bits = escape >> (8 * i) & 0xff;
        let lanes = _pdep_u64(bits, 0x0101_0101_0101_0101) * 0xff;
        store_u64(&mut bytes, 8 * i, _pdep_u64(load_u64(deeper, taken), lanes));
        taken += bits.count_ones() as usize;
    }
    let half = |i: usize| {
        let [m0, m1, m2] = planes.map(|p| spread((p >> (32 * i)) as u32));
        let v = match BITS {
            1 => a,
            2 => _mm256_blendv_epi8(_mm256_blendv_epi8(a, b, m0), c, m1),
            _ => {
                let v = _mm256_sub_epi8(a, m0);
                let v = _mm256_add_epi8(v, _mm256_and_si256(m1, _mm256_set1_epi8(2)));
                _mm256_add_epi8(v, _mm256_and_si256(m2, _mm256_set1_epi8(4)))
            }
        };
        _mm256_blendv_epi8(v, load(&bytes, 32 * i), spread((escape >> (32 * i)) as u32))
    };
    ([half(0), half(1)], taken)
}

#[inline]
#[target_feature(enable = "avx2")]
fn broadcast(layer: Layer) -> [__m256i; 3] {
    layer.symbols.map(|s| _mm256_set1_epi8(s as i8))
}

#[inline]
fn put_planes<const BITS: u8>(planes: &mut [u8], group: usize, p: [u64; 3]) {
    for (i, &p) in p.iter().enumerate().take(usize::from(BITS)) {
        store_u64(planes, (group * usize::from(BITS) + i) * 8, p);
    }
}

#[inline]
fn get_planes<const BITS: u8>(planes: &[u8], group: usize) -> [u64; 3] {
    let mut p = [0; 3];
    for (i, p) in p.iter_mut().enumerate().take(usize::from(BITS)) {
        *p = load_u64(planes, (group * usize::from(BITS) + i) * 8);
    }
    p
}

/// Tails and symbols of 32 words.
#[inline]
#[target_feature(enable = "avx2")]
fn split_words<const ROTATE: bool>(words: &[u8], at: usize) -> (__m256i, __m256i) {
    let low = _mm256_set1_epi16(0xff);
    let mut x = [load(words, at), load(words, at + 32)];
    if ROTATE {
        x = x.map(|x| _mm256_or_si256(_mm256_add_epi16(x, x), _mm256_srli_epi16::<15>(x)));
    }
    let t = _mm256_packus_epi16(_mm256_and_si256(x[0], low), _mm256_and_si256(x[1], low));
    let s = _mm256_packus_epi16(_mm256_srli_epi16::<8>(x[0]), _mm256_srli_epi16::<8>(x[1]));
    (_mm256_permute4x64_epi64::<0b11_01_10_00>(t), _mm256_permute4x64_epi64::<0b11_01_10_00>(s))
}

#[target_feature(enable = "avx2,bmi2,popcnt")]
fn split_first<const BITS: u8, const ROTATE: bool>(
    words: &[u8],
    offsets: &[u8],
    layer: Layer,
    tails: &mut [u8],
    planes: &mut [u8],
    rest: &mut [u8],
) -> usize {
    let symbols = broadcast(layer);
    let mut taken = 0;
    for g in 0..tails.len() / GROUP {
        let at = GROUP * g;
        let (t0, s0) = split_words::<ROTATE>(words, 2 * at);
        let (t1, s1) = split_words::<ROTATE>(words, 2 * at + 64);
        store(tails, at, t0);
        store(tails, at + 32, t1);
        let s = [_mm256_sub_epi8(s0, load(offsets, at)), _mm256_sub_epi8(s1, load(offsets, at + 32))];
        let (p, escape) = code::<BITS>(s, symbols);
        put_planes::<BITS>(planes, g, p);
        taken += compress(s, escape, &mut rest[taken..]);
    }
    taken
}

#[target_feature(enable = "avx2,bmi2,popcnt")]
fn split_layer<const BITS: u8>(data: &[u8], layer: Layer, planes: &mut [u8], rest: &mut [u8]) -> usize {
    let symbols = broadcast(layer);
    let mut taken = 0;
    for g in 0..data.len() / GROUP {
        let s = [load(data, GROUP * g), load(data, GROUP * g + 32)];
        let (p, escape) = code::<BITS>(s, symbols);
        put_planes::<BITS>(planes, g, p);
        taken += compress(s, escape, &mut rest[taken..]);
    }
    taken
}

#[target_feature(enable = "avx2,bmi2,popcnt")]
fn join_layer<const BITS: u8>(planes: &[u8], layer: Layer, deeper: &[u8], out: &mut [u8]) -> usize {
    let symbols = broadcast(layer);
    let mut taken = 0;
    for g in 0..out.len() / GROUP {
        let (v, count) = join::<BITS>(get_planes::<BITS>(planes, g), symbols, &deeper[taken..]);
        store(out, GROUP * g, v[0]);
        store(out, GROUP * g + 32, v[1]);
        taken += count;
    }
    taken
}

#[target_feature(enable = "avx2,bmi2,popcnt")]
fn join_first<const BITS: u8, const ROTATE: bool>(
    tails: &[u8],
    planes: &[u8],
    layer: Layer,
    deeper: &[u8],
    offsets: &[u8],
    words: &mut [u8],
) -> usize {
    let symbols = broadcast(layer);
    let mut taken = 0;
    for g in 0..tails.len() / GROUP {
        let (v, count) = join::<BITS>(get_planes::<BITS>(planes, g), symbols, &deeper[taken..]);
        taken += count;
        for (i, v) in v.into_iter().enumerate() {
            let at = GROUP * g + 32 * i;
            let s = _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_add_epi8(v, load(offsets, at)));
            let t = _mm256_permute4x64_epi64::<0b11_01_10_00>(load(tails, at));
            let mut x = [_mm256_unpacklo_epi8(t, s), _mm256_unpackhi_epi8(t, s)];
            if ROTATE {
                x = x.map(|x| _mm256_or_si256(_mm256_srli_epi16::<1>(x), _mm256_slli_epi16::<15>(x)));
            }
            store(words, 2 * at, x[0]);
            store(words, 2 * at + 32, x[1]);
        }
    }
    taken
}

impl Kernels for Avx2 {
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
