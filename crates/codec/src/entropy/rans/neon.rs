//! The interleaved coders with NEON: eight vectors of four states. Tables are read lane by lane: NEON has no gather.
#![expect(unsafe_code, reason = "NEON vector loads and stores")]
#![cfg_attr(not(test), expect(clippy::wildcard_imports, reason = "intrinsics by the dozen"))]

use super::lanes::{EXPAND, TO_THE_END};
use super::{LANES, LOWER, SCALE, SCALE_BITS};
use std::arch::aarch64::*;

/// States of a vector.
const WIDTH: usize = 4;
const SHIFT: i32 = SCALE_BITS as i32;

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

#[target_feature(enable = "neon")]
fn load(states: &[u32; LANES]) -> [uint32x4_t; LANES / WIDTH] {
    let mut x = [vdupq_n_u32(0); LANES / WIDTH];
    for (x, part) in x.iter_mut().zip(states.as_chunks::<WIDTH>().0) {
        // SAFETY: `part` is 16 readable bytes.
        *x = unsafe { vld1q_u32(part.as_ptr()) };
    }
    x
}

#[target_feature(enable = "neon")]
fn store(x: [uint32x4_t; LANES / WIDTH], states: &mut [u32; LANES]) {
    for (x, part) in x.into_iter().zip(states.as_chunks_mut::<WIDTH>().0) {
        // SAFETY: `part` is 16 writable bytes.
        unsafe { vst1q_u32(part.as_mut_ptr(), x) };
    }
}

#[target_feature(enable = "neon")]
fn lanes_of(x: uint32x4_t) -> [u32; WIDTH] {
    let mut lanes = [0; WIDTH];
    // SAFETY: `lanes` is 16 writable bytes.
    unsafe { vst1q_u32(lanes.as_mut_ptr(), x) };
    lanes
}

#[target_feature(enable = "neon")]
fn of_lanes(lanes: [u32; WIDTH]) -> uint32x4_t {
    // SAFETY: `lanes` is 16 readable bytes.
    unsafe { vld1q_u32(lanes.as_ptr()) }
}

/// The lanes that are all ones, as bits.
#[target_feature(enable = "neon")]
fn set_of(lanes: uint32x4_t) -> usize {
    vaddvq_u32(vandq_u32(lanes, of_lanes([1, 2, 4, 8]))) as usize
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

#[target_feature(enable = "neon")]
fn decode_groups(
    slots: &[u32],
    words: &[u8],
    contexts: &[u8],
    states: &mut [u32; LANES],
    out: &mut [u8],
) -> (usize, usize) {
    let mask = vdupq_n_u32(SCALE - 1);
    let (low11, one, lower) = (vdupq_n_u32(0x7ff), vdupq_n_u32(1), vdupq_n_u32(LOWER));
    let mut x = load(states);
    let (mut done, mut at) = (0, 0);
    let groups = contexts.as_chunks::<LANES>().0.iter().zip(out.as_chunks_mut::<LANES>().0);
    for (contexts, out) in groups {
        if words.len() - at < 2 * LANES {
            break;
        }
        let parts = contexts.as_chunks::<WIDTH>().0.iter().zip(out.as_chunks_mut::<WIDTH>().0);
        for (x, (c, o)) in x.iter_mut().zip(parts) {
            let low = lanes_of(vandq_u32(*x, mask));
            let slot: [u32; WIDTH] =
                std::array::from_fn(|i| slots[usize::from(c[i]) << SCALE_BITS | low[i] as usize]);
            *o = slot.map(|slot| slot as u8);
            let slot = of_lanes(slot);
            let frequency = vaddq_u32(vandq_u32(vshrq_n_u32::<8>(slot), low11), one);
            let next = vmlaq_u32(vshrq_n_u32::<19>(slot), frequency, vshrq_n_u32::<SHIFT>(*x));
            let need = vcltq_u32(next, lower);
            let lanes = set_of(need);
            let part = &words[at..at + 2 * WIDTH];
            // SAFETY: `part` is 8 readable bytes, and so is each entry of the table.
            let fresh = unsafe { vtbl1_u8(vld1_u8(part.as_ptr()), vld1_u8(EXPAND_WORDS[lanes].as_ptr())) };
            let fresh = vmovl_u16(vreinterpret_u16_u8(fresh));
            *x = vbslq_u32(need, vorrq_u32(vshlq_n_u32::<16>(next), fresh), next);
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
    // SAFETY: this level is only chosen where the instructions were detected.
    unsafe { encode_groups(entries, symbols, contexts, states, words, at) }
}

/// ⌊v ÷ f⌋ of numbers below 2^31.
#[target_feature(enable = "neon")]
fn quotients(v: uint32x4_t, f: uint32x4_t) -> uint32x4_t {
    // Exact: quotients of numbers below 2^31 by numbers up to 2^11 are at least 2^-11 from the next integer.
    let divide = |v: uint32x2_t, f: uint32x2_t| {
        let (v, f) = (vcvtq_f64_u64(vmovl_u32(v)), vcvtq_f64_u64(vmovl_u32(f)));
        vmovn_u64(vcvtq_u64_f64(vdivq_f64(v, f)))
    };
    vcombine_u32(divide(vget_low_u32(v), vget_low_u32(f)), divide(vget_high_u32(v), vget_high_u32(f)))
}

#[target_feature(enable = "neon")]
fn encode_groups(
    entries: &[[u32; 256]],
    symbols: &[u8],
    contexts: &[u8],
    states: &mut [u32; LANES],
    words: &mut [u8],
    mut at: usize,
) -> usize {
    let mut x = load(states);
    let (one, low16) = (vdupq_n_u32(1), vdupq_n_u32(0xffff));
    let groups = symbols.as_chunks::<LANES>().0.iter().zip(contexts.as_chunks::<LANES>().0);
    for (s, c) in groups.rev() {
        let parts = s.as_chunks::<WIDTH>().0.iter().zip(c.as_chunks::<WIDTH>().0);
        for (x, (s, c)) in x.iter_mut().zip(parts).rev() {
            let entry = of_lanes(std::array::from_fn(|i| entries[usize::from(c[i])][usize::from(s[i])]));
            let (frequency, start) = (vshrq_n_u32::<16>(entry), vandq_u32(entry, low16));
            let emit = vcgeq_u32(vshrq_n_u32::<{ 31 - SHIFT }>(*x), frequency);
            let lanes = set_of(emit);
            // What is emitted goes to the end of the vector, so that a whole store ends where the words begin.
            let emitted = vreinterpret_u8_u16(vmovn_u32(*x));
            let part = &mut words[at - 2 * WIDTH..at];
            // SAFETY: `part` is 8 writable bytes; each entry of the table is 8 readable ones.
            unsafe {
                let moves = vld1_u8(WORDS_TO_THE_END[lanes].as_ptr());
                vst1_u8(part.as_mut_ptr(), vtbl1_u8(emitted, moves));
            }
            at -= 2 * lanes.count_ones() as usize;
            let v = vbslq_u32(emit, vshrq_n_u32::<16>(*x), *x);
            let f = vmaxq_u32(frequency, one);
            let q = quotients(v, f);
            let r = vmlsq_u32(v, q, f);
            *x = vaddq_u32(vaddq_u32(vshlq_n_u32::<SHIFT>(q), r), start);
        }
    }
    store(x, states);
    at
}
