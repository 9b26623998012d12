//! Thirty-two interleaved range-ANS coders with static tables per context.
//!
//! States are 31 bits, renormalised by 16-bit words (J. Duda, "Asymmetric numeral systems", arXiv 1311.2540; the
//! interleaving of F. Giesen, arXiv 1402.3392). Element i belongs to coder i mod 32; in each group of 32 the coders that
//! need a word take the next one in order, so that a decoder of 16 lanes can expand words into lanes.
//!
//! Stream: 32 states of 4 bytes, then words of 2 bytes, little-endian.

#[cfg(target_arch = "x86_64")]
mod avx512;

use super::tables::{SCALE, SCALE_BITS, Tables};
use crate::simd::Level;

/// Interleaved coders.
pub(crate) const LANES: usize = 32;
/// Bytes after the words that a whole vector store may touch.
const SLACK: usize = 32;
/// Lower end of a state's range.
const LOWER: u32 = 1 << 15;

/// What the encoder knows of each symbol in each context: start in the low half, frequency in the high half.
#[derive(Debug)]
pub(crate) struct EncodeTable {
    entries: Vec<[u32; 256]>,
}

/// What the decoder knows of each slot in each context: symbol (bits 0–7), frequency − 1 (bits 8–18), slot − start
/// (bits 19–29).
#[derive(Debug)]
pub(crate) struct DecodeTable {
    slots: Vec<u32>,
    contexts: usize,
}

impl EncodeTable {
    pub(crate) fn new(tables: &Tables) -> Self {
        let entry = |frequencies: &[u16; 256]| {
            let mut start = 0_u32;
            frequencies.map(|f| {
                let e = u32::from(f) << 16 | start;
                start += u32::from(f);
                e
            })
        };
        Self { entries: tables.frequencies.iter().map(entry).collect() }
    }
}

impl DecodeTable {
    /// The table, whose slots are all valid: a context that never occurs decodes to symbol 0.
    pub(crate) fn new(tables: &Tables) -> Self {
        let contexts = tables.frequencies.len();
        let mut slots = Vec::with_capacity(contexts << SCALE_BITS);
        for frequencies in &tables.frequencies {
            let begin = slots.len();
            for (s, &f) in frequencies.iter().enumerate().filter(|(_, f)| **f > 0) {
                let base = s as u32 | (u32::from(f) - 1) << 8;
                slots.extend((0..u32::from(f)).map(|i| base | i << 19));
            }
            slots.resize(begin + SCALE as usize, 0);
        }
        Self { slots, contexts }
    }
}

/// Appends the stream of `symbols`, whose contexts are `contexts`; every symbol has a frequency in its context.
pub(crate) fn encode(level: Level, table: &EncodeTable, symbols: &[u8], contexts: &[u8], out: &mut Vec<u8>) {
    let mut states = [LOWER; LANES];
    // Words fill a buffer from its end; a symbol costs at most one.
    let mut words = vec![0_u8; 2 * symbols.len() + 4 * LANES + SLACK];
    let end = words.len() - SLACK;
    let mut at = end;
    let whole = symbols.len() / LANES * LANES;
    let (symbols, last_symbols) = symbols.split_at(whole);
    let (contexts, last_contexts) = contexts.split_at(whole);
    at = encode_group(table, last_symbols, last_contexts, &mut states, &mut words, at);
    at = match level {
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 => avx512::encode(&table.entries, symbols, contexts, &mut states, &mut words, at),
        _ => {
            let groups = symbols.as_chunks::<LANES>().0.iter().zip(contexts.as_chunks::<LANES>().0);
            groups.rev().fold(at, |at, (s, c)| encode_group(table, s, c, &mut states, &mut words, at))
        }
    };
    for state in states {
        out.extend_from_slice(&state.to_le_bytes());
    }
    out.extend_from_slice(&words[at..end]);
}

/// One group of at most 32 symbols, backwards; returns where its words begin.
#[inline]
fn encode_group(
    table: &EncodeTable,
    symbols: &[u8],
    contexts: &[u8],
    states: &mut [u32; LANES],
    words: &mut [u8],
    mut at: usize,
) -> usize {
    for ((&s, &c), state) in symbols.iter().zip(contexts).zip(states.iter_mut()).rev() {
        let entry = table.entries[usize::from(c)][usize::from(s)];
        let (frequency, start) = (entry >> 16, entry & 0xffff);
        let mut x = *state;
        let emit = x >> (31 - SCALE_BITS) >= frequency;
        words[at - 2..at].copy_from_slice(&(x as u16).to_le_bytes());
        at -= 2 * usize::from(emit);
        x = if emit { x >> 16 } else { x };
        // Frequencies are at least 1; the maximum keeps a wrong table from dividing by zero.
        let f = frequency.max(1);
        *state = (x / f << SCALE_BITS) + x % f + start;
    }
    at
}

/// Decodes `out.len()` symbols from the front of `stream` and returns the bytes taken; an error is a reason.
pub(crate) fn decode(
    level: Level,
    table: &DecodeTable,
    stream: &[u8],
    contexts: &[u8],
    out: &mut [u8],
) -> Result<usize, &'static str> {
    let Some((heads, words)) = stream.split_first_chunk::<{ 4 * LANES }>() else {
        return Err("stream is cut short");
    };
    if contexts.iter().any(|&c| usize::from(c) >= table.contexts) {
        return Err("context is out of range");
    }
    let mut states = [0_u32; LANES];
    for (state, bytes) in states.iter_mut().zip(heads.as_chunks::<4>().0) {
        *state = u32::from_le_bytes(*bytes);
        if *state >= 1 << 31 {
            return Err("state is out of range");
        }
    }
    let mut at = 0;
    let mut done = 0;
    #[cfg(target_arch = "x86_64")]
    if level == Level::Avx512 {
        (done, at) = avx512::decode(&table.slots, words, contexts, &mut states, out);
    }
    let _ = level;
    while done < out.len() {
        let n = (out.len() - done).min(LANES);
        let group = &mut out[done..done + n];
        // A group takes at most a word a lane; near the end each read is checked.
        if words.len() - at >= 2 * LANES {
            let taken = &words[at..at + 2 * LANES];
            let mut used = 0;
            for ((o, &c), state) in group.iter_mut().zip(&contexts[done..]).zip(&mut states) {
                let (symbol, x) = step(table, *state, c);
                *o = symbol;
                let need = x < LOWER;
                let word = u32::from(u16::from_le_bytes([taken[used], taken[used + 1]]));
                *state = if need { x << 16 | word } else { x };
                used += 2 * usize::from(need);
            }
            at += used;
        } else {
            for ((o, &c), state) in group.iter_mut().zip(&contexts[done..]).zip(&mut states) {
                let (symbol, mut x) = step(table, *state, c);
                *o = symbol;
                if x < LOWER {
                    let Some(word) = words[at..].first_chunk::<2>() else {
                        return Err("stream is cut short");
                    };
                    x = x << 16 | u32::from(u16::from_le_bytes(*word));
                    at += 2;
                }
                *state = x;
            }
        }
        done += n;
    }
    if states.iter().any(|&s| s != LOWER) {
        return Err("stream does not end where it began");
    }
    Ok(4 * LANES + at)
}

#[inline]
fn step(table: &DecodeTable, state: u32, context: u8) -> (u8, u32) {
    let slot = table.slots[usize::from(context) << SCALE_BITS | (state & (SCALE - 1)) as usize];
    let x = ((slot >> 8 & 0x7ff) + 1) * (state >> SCALE_BITS) + (slot >> 19);
    (slot as u8, x)
}
