//! The kernels with NEON: table look-ups of eight bytes stand in for compress and expand.
#![expect(unsafe_code, reason = "NEON intrinsics and unaligned vector loads and stores")]
#![cfg_attr(not(test), expect(clippy::wildcard_imports, reason = "intrinsics by the dozen"))]

use super::{GROUP, Kernels, Layer};
use std::arch::aarch64::*;

/// NEON kernels; only to be called where `Level::Neon` is available.
#[derive(Debug)]
pub(crate) struct Neon;

/// For each mask of eight bits, the indices of its set bits; 0xff (which reads as zero) after them.
static COMPRESS: [[u8; 8]; 256] = compress_table();
/// For each mask of eight bits, how many bits are set below each set one; 0xff elsewhere.
static EXPAND: [[u8; 8]; 256] = expand_table();

const fn compress_table() -> [[u8; 8]; 256] {
    let mut table = [[0xff; 8]; 256];
    let mut mask = 0;
    while mask < 256 {
        let (mut i, mut n) = (0, 0);
        while i < 8 {
            if mask >> i & 1 == 1 {
                table[mask][n] = i as u8;
                n += 1;
            }
            i += 1;
        }
        mask += 1;
    }
    table
}

const fn expand_table() -> [[u8; 8]; 256] {
    let mut table = [[0xff; 8]; 256];
    let mut mask = 0;
    while mask < 256 {
        let (mut i, mut n) = (0, 0);
        while i < 8 {
            if mask >> i & 1 == 1 {
                table[mask][i] = n;
                n += 1;
            }
            i += 1;
        }
        mask += 1;
    }
    table
}

/// Loads 16 bytes at `at`.
#[inline]
#[target_feature(enable = "neon")]
fn load(bytes: &[u8], at: usize) -> uint8x16_t {
    let part = &bytes[at..at + 16];
    // SAFETY: `part` is 16 readable bytes; the load needs no alignment.
    unsafe { vld1q_u8(part.as_ptr()) }
}

/// Stores 16 bytes at `at`.
#[inline]
#[target_feature(enable = "neon")]
fn store(bytes: &mut [u8], at: usize, v: uint8x16_t) {
    let part = &mut bytes[at..at + 16];
    // SAFETY: `part` is 16 writable bytes; the store needs no alignment.
    unsafe { vst1q_u8(part.as_mut_ptr(), v) }
}

/// Loads 8 bytes at `at`.
#[inline]
#[target_feature(enable = "neon")]
fn load8(bytes: &[u8], at: usize) -> uint8x8_t {
    let part = &bytes[at..at + 8];
    // SAFETY: `part` is 8 readable bytes; the load needs no alignment.
    unsafe { vld1_u8(part.as_ptr()) }
}

/// Stores 8 bytes at `at`.
#[inline]
#[target_feature(enable = "neon")]
fn store8(bytes: &mut [u8], at: usize, v: uint8x8_t) {
    let part = &mut bytes[at..at + 8];
    // SAFETY: `part` is 8 writable bytes; the store needs no alignment.
    unsafe { vst1_u8(part.as_mut_ptr(), v) }
}

/// One bit for each byte of `lanes`, which are 0 or 0xff.
#[inline]
#[target_feature(enable = "neon")]
fn mask(lanes: [uint8x16_t; 4]) -> u64 {
    let weights = vreinterpretq_u8_u64(vdupq_n_u64(0x8040_2010_0804_0201));
    let w = lanes.map(|v| vandq_u8(v, weights));
    let pairs = vpaddq_u8(vpaddq_u8(w[0], w[1]), vpaddq_u8(w[2], w[3]));
    vgetq_lane_u64::<0>(vreinterpretq_u64_u8(vpaddq_u8(pairs, pairs)))
}

/// Planes and escape mask of 64 symbols.
#[inline]
#[target_feature(enable = "neon")]
fn code<const BITS: u8>(s: [uint8x16_t; 4], symbols: [uint8x16_t; 3]) -> ([u64; 3], u64) {
    let [a, b, c] = symbols;
    let equal = |x| mask(s.map(|s| vceqq_u8(s, x)));
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
            let code = s.map(|s| vminq_u8(vsubq_u8(s, a), vdupq_n_u8(7)));
            let plane = |bit| mask(code.map(|c| vtstq_u8(c, vdupq_n_u8(bit))));
            let (p0, p1, p2) = (plane(1), plane(2), plane(4));
            ([p0, p1, p2], p0 & p1 & p2)
        }
    }
}

/// Copies the bytes of 64 whose bit is set to `rest`, which has room for 64, and returns their number.
#[inline]
#[target_feature(enable = "neon")]
fn compress(s: [uint8x16_t; 4], escape: u64, rest: &mut [u8]) -> usize {
    let mut taken = 0;
    for (i, s) in s.into_iter().enumerate() {
        for (j, half) in [vget_low_u8(s), vget_high_u8(s)].into_iter().enumerate() {
            let bits = (escape >> (16 * i + 8 * j) & 0xff) as usize;
            store8(rest, taken, vtbl1_u8(half, load8(&COMPRESS[bits], 0)));
            taken += bits.count_ones() as usize;
        }
    }
    taken
}

/// Sixteen bytes with 0xff where the bit is set.
#[inline]
#[target_feature(enable = "neon")]
fn spread(bits: u64) -> uint8x16_t {
    let bytes = vcombine_u8(vdup_n_u8(bits as u8), vdup_n_u8((bits >> 8) as u8));
    vtstq_u8(bytes, vreinterpretq_u8_u64(vdupq_n_u64(0x8040_2010_0804_0201)))
}

/// Symbols of one group, its escapes taken from the front of `deeper`, and how many those were.
#[inline]
#[target_feature(enable = "neon")]
fn join<const BITS: u8>(
    planes: [u64; 3],
    symbols: [uint8x16_t; 3],
    deeper: &[u8],
) -> ([uint8x16_t; 4], usize) {
    let [a, b, c] = symbols;
    let escape = match BITS {
        1 => planes[0],
        2 => planes[0] & planes[1],
        _ => planes[0] & planes[1] & planes[2],
    };
    let mut taken = 0;
    let mut out = [a; 4];
    for (i, out) in out.iter_mut().enumerate() {
        let [m0, m1, m2] = planes.map(|p| spread(p >> (16 * i)));
        let v = match BITS {
            1 => a,
            2 => vbslq_u8(m1, c, vbslq_u8(m0, b, a)),
            _ => {
                let v = vsubq_u8(a, m0);
                vaddq_u8(vaddq_u8(v, vandq_u8(m1, vdupq_n_u8(2))), vandq_u8(m2, vdupq_n_u8(4)))
            }
        };
        let low_bits = (escape >> (16 * i) & 0xff) as usize;
        let high_bits = (escape >> (16 * i + 8) & 0xff) as usize;
        let low = vtbl1_u8(load8(deeper, taken), load8(&EXPAND[low_bits], 0));
        taken += low_bits.count_ones() as usize;
        let high = vtbl1_u8(load8(deeper, taken), load8(&EXPAND[high_bits], 0));
        taken += high_bits.count_ones() as usize;
        *out = vbslq_u8(spread(escape >> (16 * i)), vcombine_u8(low, high), v);
    }
    (out, taken)
}

#[inline]
#[target_feature(enable = "neon")]
fn broadcast(layer: Layer) -> [uint8x16_t; 3] {
    layer.symbols.map(|s| vdupq_n_u8(s))
}

#[inline]
fn put_planes<const BITS: u8>(planes: &mut [u8], group: usize, p: [u64; 3]) {
    for i in 0..usize::from(BITS) {
        let at = (group * usize::from(BITS) + i) * 8;
        planes[at..at + 8].copy_from_slice(&p[i].to_le_bytes());
    }
}

#[inline]
fn get_planes<const BITS: u8>(planes: &[u8], group: usize) -> [u64; 3] {
    let bytes = usize::from(BITS) * 8;
    let mut p = [0; 3];
    for (i, b) in planes[group * bytes..(group + 1) * bytes].as_chunks::<8>().0.iter().enumerate() {
        p[i] = u64::from_le_bytes(*b);
    }
    p
}

#[target_feature(enable = "neon")]
fn split_first<const BITS: u8>(
    words: &[u8],
    rotate: bool,
    offsets: &[u8],
    layer: Layer,
    tails: &mut [u8],
    planes: &mut [u8],
    rest: &mut [u8],
) -> usize {
    let symbols = broadcast(layer);
    let mut taken = 0;
    for g in 0..tails.len() / GROUP {
        let mut s = [vdupq_n_u8(0); 4];
        for (i, s) in s.iter_mut().enumerate() {
            let at = GROUP * g + 16 * i;
            let low = load(words, 2 * at);
            let high = load(words, 2 * at + 16);
            let mut tail = vuzp1q_u8(low, high);
            let mut symbol = vuzp2q_u8(low, high);
            if rotate {
                let sign = vshrq_n_u8::<7>(symbol);
                symbol = vsliq_n_u8::<1>(vshrq_n_u8::<7>(tail), symbol);
                tail = vsliq_n_u8::<1>(sign, tail);
            }
            store(tails, at, tail);
            *s = vsubq_u8(symbol, load(offsets, at));
        }
        let (p, escape) = code::<BITS>(s, symbols);
        put_planes::<BITS>(planes, g, p);
        taken += compress(s, escape, &mut rest[taken..]);
    }
    taken
}

#[target_feature(enable = "neon")]
fn split_layer<const BITS: u8>(data: &[u8], layer: Layer, planes: &mut [u8], rest: &mut [u8]) -> usize {
    let symbols = broadcast(layer);
    let mut taken = 0;
    for g in 0..data.len() / GROUP {
        let at = GROUP * g;
        let s = [load(data, at), load(data, at + 16), load(data, at + 32), load(data, at + 48)];
        let (p, escape) = code::<BITS>(s, symbols);
        put_planes::<BITS>(planes, g, p);
        taken += compress(s, escape, &mut rest[taken..]);
    }
    taken
}

#[target_feature(enable = "neon")]
fn join_layer<const BITS: u8>(planes: &[u8], layer: Layer, deeper: &[u8], out: &mut [u8]) -> usize {
    let symbols = broadcast(layer);
    let mut taken = 0;
    for g in 0..out.len() / GROUP {
        let (v, count) = join::<BITS>(get_planes::<BITS>(planes, g), symbols, &deeper[taken..]);
        for (i, v) in v.into_iter().enumerate() {
            store(out, GROUP * g + 16 * i, v);
        }
        taken += count;
    }
    taken
}

#[target_feature(enable = "neon")]
fn join_first<const BITS: u8>(
    tails: &[u8],
    planes: &[u8],
    layer: Layer,
    deeper: &[u8],
    offsets: &[u8],
    rotate: bool,
    words: &mut [u8],
) -> usize {
    let symbols = broadcast(layer);
    let mut taken = 0;
    for g in 0..tails.len() / GROUP {
        let (v, count) = join::<BITS>(get_planes::<BITS>(planes, g), symbols, &deeper[taken..]);
        taken += count;
        for (i, v) in v.into_iter().enumerate() {
            let at = GROUP * g + 16 * i;
            let mut symbol = vaddq_u8(v, load(offsets, at));
            let mut tail = load(tails, at);
            if rotate {
                let sign = vshlq_n_u8::<7>(tail);
                tail = vsriq_n_u8::<1>(vshlq_n_u8::<7>(symbol), tail);
                symbol = vsriq_n_u8::<1>(sign, symbol);
            }
            store(words, 2 * at, vzip1q_u8(tail, symbol));
            store(words, 2 * at + 16, vzip2q_u8(tail, symbol));
        }
    }
    taken
}

impl Kernels for Neon {
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
            match layer.bits {
                1 => split_first::<1>(words, rotate, offsets, layer, tails, planes, rest),
                2 => split_first::<2>(words, rotate, offsets, layer, tails, planes, rest),
                _ => split_first::<3>(words, rotate, offsets, layer, tails, planes, rest),
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
            match layer.bits {
                1 => join_first::<1>(tails, planes, layer, deeper, offsets, rotate, words),
                2 => join_first::<2>(tails, planes, layer, deeper, offsets, rotate, words),
                _ => join_first::<3>(tails, planes, layer, deeper, offsets, rotate, words),
            }
        }
    }
}
