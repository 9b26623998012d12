//! The interleaved coders with NEON: eight vectors of four states. Tables are read lane by lane: NEON has no gather.
#![expect(unsafe_code, reason = "NEON vector loads and stores")]
#![cfg_attr(not(test), expect(clippy::wildcard_imports, reason = "intrinsics by the dozen"))]

use super::groups::coders;
use super::lanes::{EXPAND, TO_THE_END};
use super::{LANES, LOWER, SCALE, SCALE_BITS};
use crate::simd::Level;
use std::arch::aarch64::*;

type Vector = uint32x4_t;
/// States of a vector.
const WIDTH: usize = 4;
const SHIFT: i32 = SCALE_BITS as i32;

coders!("neon");

#[target_feature(enable = "neon")]
fn load(states: &[u32; WIDTH]) -> Vector {
    // SAFETY: 16 readable bytes.
    unsafe { vld1q_u32(states.as_ptr()) }
}

#[target_feature(enable = "neon")]
fn store(x: Vector, states: &mut [u32; WIDTH]) {
    // SAFETY: 16 writable bytes.
    unsafe { vst1q_u32(states.as_mut_ptr(), x) }
}

#[target_feature(enable = "neon")]
fn lanes_of(x: Vector) -> [u32; WIDTH] {
    let mut lanes = [0; WIDTH];
    store(x, &mut lanes);
    lanes
}

/// The lanes that are all ones, as bits.
#[target_feature(enable = "neon")]
fn set_of(lanes: Vector) -> usize {
    vaddvq_u32(vandq_u32(lanes, load(&[1, 2, 4, 8]))) as usize
}

/// Bytes that move whole 16-bit words by the ranks of one of the tables, less `base`.
const fn word_moves(table: &[[u8; 8]; 256], base: u8) -> [[u8; 8]; 16] {
    let mut moves = [[0; 8]; 16];
    let mut set = 0;
    while set < 16 {
        let mut lane = 0;
        while lane < WIDTH {
            // Sets of four lanes: what `TO_THE_END` puts at the end of eight belongs at the end of four.
            let from = table[set][lane + base as usize];
            moves[set][2 * lane] = 2 * from;
            moves[set][2 * lane + 1] = 2 * from + 1;
            lane += 1;
        }
        set += 1;
    }
    moves
}

const EXPAND_WORDS: [[u8; 8]; 16] = word_moves(&EXPAND, 0);
const WORDS_TO_THE_END: [[u8; 8]; 16] = word_moves(&TO_THE_END, 4);

/// Nothing is assumed of the contexts: the table is read with checks.
#[target_feature(enable = "neon")]
unsafe fn slots_of(slots: &[u32], contexts: &[u8; WIDTH], x: Vector) -> Vector {
    let low = lanes_of(vandq_u32(x, vdupq_n_u32(SCALE - 1)));
    load(&std::array::from_fn(|i| slots[usize::from(contexts[i]) << SCALE_BITS | low[i] as usize]))
}

#[target_feature(enable = "neon")]
fn low_bytes(x: Vector, out: &mut [u8; WIDTH]) {
    *out = lanes_of(x).map(|lane| lane as u8);
}

#[target_feature(enable = "neon")]
fn step(slot: Vector, x: Vector) -> Vector {
    let frequency = vaddq_u32(vandq_u32(vshrq_n_u32::<8>(slot), vdupq_n_u32(0x7ff)), vdupq_n_u32(1));
    vmlaq_u32(vshrq_n_u32::<19>(slot), frequency, vshrq_n_u32::<SHIFT>(x))
}

#[target_feature(enable = "neon")]
fn renew(x: Vector, words: &[u8]) -> (Vector, usize) {
    let need = vcltq_u32(x, vdupq_n_u32(LOWER));
    let lanes = set_of(need);
    let words = &words[..2 * WIDTH];
    // SAFETY: `words` is 8 readable bytes, and so is each entry of the table.
    let fresh = unsafe { vtbl1_u8(vld1_u8(words.as_ptr()), vld1_u8(EXPAND_WORDS[lanes].as_ptr())) };
    let fresh = vmovl_u16(vreinterpret_u16_u8(fresh));
    (vbslq_u32(need, vorrq_u32(vshlq_n_u32::<16>(x), fresh), x), lanes.count_ones() as usize)
}

/// Nothing is assumed of the contexts: the table is read with checks.
#[target_feature(enable = "neon")]
unsafe fn entries_of(entries: &[[u32; 256]], symbols: &[u8; WIDTH], contexts: &[u8; WIDTH]) -> Vector {
    load(&std::array::from_fn(|i| entries[usize::from(contexts[i])][usize::from(symbols[i])]))
}

#[target_feature(enable = "neon")]
fn emit(x: Vector, entry: Vector, words: &mut [u8], at: usize) -> (Vector, usize) {
    let emit = vcgeq_u32(vshrq_n_u32::<{ 31 - SHIFT }>(x), vshrq_n_u32::<16>(entry));
    let lanes = set_of(emit);
    // What is emitted goes to the end of the vector, so that a whole store ends where the words begin.
    let emitted = vreinterpret_u8_u16(vmovn_u32(x));
    let part = &mut words[at - 2 * WIDTH..at];
    // SAFETY: `part` is 8 writable bytes; each entry of the table is 8 readable ones.
    unsafe {
        let moves = vld1_u8(WORDS_TO_THE_END[lanes].as_ptr());
        vst1_u8(part.as_mut_ptr(), vtbl1_u8(emitted, moves));
    }
    (vbslq_u32(emit, vshrq_n_u32::<16>(x), x), lanes.count_ones() as usize)
}

#[target_feature(enable = "neon")]
fn put(x: Vector, entry: Vector) -> Vector {
    let f = vmaxq_u32(vshrq_n_u32::<16>(entry), vdupq_n_u32(1));
    let start = vandq_u32(entry, vdupq_n_u32(0xffff));
    let q = quotients(x, f);
    let r = vmlsq_u32(x, q, f);
    vaddq_u32(vaddq_u32(vshlq_n_u32::<SHIFT>(q), r), start)
}

/// ⌊v ÷ f⌋ of numbers below 2^31.
#[target_feature(enable = "neon")]
fn quotients(v: Vector, f: Vector) -> Vector {
    // Exact: quotients of numbers below 2^31 by numbers up to 2^11 are at least 2^-11 from the next integer.
    let divide = |v: uint32x2_t, f: uint32x2_t| {
        let (v, f) = (vcvtq_f64_u64(vmovl_u32(v)), vcvtq_f64_u64(vmovl_u32(f)));
        vmovn_u64(vcvtq_u64_f64(vdivq_f64(v, f)))
    };
    vcombine_u32(divide(vget_low_u32(v), vget_low_u32(f)), divide(vget_high_u32(v), vget_high_u32(f)))
}
