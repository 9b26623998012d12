//! Thirty-two interleaved range-ANS coders with static tables per context.
//!
//! States are 31 bits, renormalised by 16-bit words (J. Duda, "Asymmetric numeral systems", arXiv 1311.2540; the
//! interleaving of F. Giesen, arXiv 1402.3392). Element i belongs to coder i mod 32; in each group of 32 the coders that
//! need a word take the next one in order, so that a decoder of 16 lanes can expand words into lanes.
//!
//! Stream: 32 states of 4 bytes, then words of 2 bytes, little-endian.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod groups;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod lanes;
#[cfg(target_arch = "aarch64")]
mod neon;

use super::tables::{SCALE, SCALE_BITS, Tables};
use crate::scratch::Scratch;
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
    slots: Scratch<u32>,
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
        let mut slots = Scratch::any(contexts << SCALE_BITS);
        for (slots, frequencies) in slots.chunks_exact_mut(SCALE as usize).zip(&tables.frequencies) {
            let mut at = 0;
            for (s, &f) in frequencies.iter().enumerate().filter(|(_, f)| **f > 0) {
                let base = s as u32 | (u32::from(f) - 1) << 8;
                let end = (at + usize::from(f)).min(SCALE as usize);
                for (i, slot) in (0_u32..).zip(&mut slots[at..end]) {
                    *slot = base | i << 19;
                }
                at = end;
            }
            slots[at..].fill(0);
        }
        Self { slots, contexts }
    }
}

/// Writes one stream, last run of symbols first.
#[derive(Debug)]
pub(crate) struct Encoder {
    states: [u32; LANES],
    /// Words fill this from its end; a symbol costs at most one.
    words: Scratch<u8>,
    at: usize,
}

impl Encoder {
    /// An encoder of at most `symbols` symbols.
    pub(crate) fn new(symbols: usize) -> Self {
        let words = Scratch::any(2 * symbols + 4 * LANES + SLACK);
        Self { states: [LOWER; LANES], at: words.len() - SLACK, words }
    }

    /// Puts a run of `symbols`, whose contexts are `contexts`, before what was pushed so far. Every symbol has a
    /// frequency in its context. The decoder takes it as one run of the same length.
    pub(crate) fn push(&mut self, level: Level, table: &EncodeTable, symbols: &[u8], contexts: &[u8]) {
        let Self { states, words, at } = self;
        let whole = symbols.len() / LANES * LANES;
        let (symbols, last_symbols) = symbols.split_at(whole);
        let (contexts, last_contexts) = contexts.split_at(whole);
        *at = encode_group(table, last_symbols, last_contexts, states, words, *at);
        *at = match level {
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 => avx512::encode(&table.entries, symbols, contexts, states, words, *at),
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => avx2::encode(&table.entries, symbols, contexts, states, words, *at),
            #[cfg(target_arch = "aarch64")]
            Level::Neon => neon::encode(&table.entries, symbols, contexts, states, words, *at),
            Level::Scalar => {
                let groups = symbols.as_chunks::<LANES>().0.iter().zip(contexts.as_chunks::<LANES>().0);
                groups.rev().fold(*at, |at, (s, c)| encode_group(table, s, c, states, words, at))
            }
        };
    }

    /// Appends the stream.
    pub(crate) fn finish(self, out: &mut Vec<u8>) {
        for state in self.states {
            out.extend_from_slice(&state.to_le_bytes());
        }
        out.extend_from_slice(&self.words[self.at..self.words.len() - SLACK]);
    }
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
        *state = ((x / f) << SCALE_BITS) + x % f + start;
    }
    at
}

/// Reads one stream, first run of symbols first.
#[derive(Debug)]
pub(crate) struct Decoder<'a> {
    table: &'a DecodeTable,
    states: [u32; LANES],
    words: &'a [u8],
}

impl<'a> Decoder<'a> {
    /// Begins with `stream`; an error is a reason.
    pub(crate) fn new(table: &'a DecodeTable, stream: &'a [u8]) -> Result<Self, &'static str> {
        let Some((heads, words)) = stream.split_first_chunk::<{ 4 * LANES }>() else {
            return Err("stream is cut short");
        };
        let mut states = [0_u32; LANES];
        for (state, bytes) in states.iter_mut().zip(heads.as_chunks::<4>().0) {
            *state = u32::from_le_bytes(*bytes);
            if *state >= 1 << 31 {
                return Err("state is out of range");
            }
        }
        Ok(Self { table, states, words })
    }

    /// Decodes one run of `out.len()` symbols in as many `contexts`.
    pub(crate) fn run(&mut self, level: Level, contexts: &[u8], out: &mut [u8]) -> Result<(), &'static str> {
        let most = level.run(|| contexts.iter().fold(0, |m, &c| m.max(c)));
        if usize::from(most) >= self.table.contexts {
            return Err("context is out of range");
        }
        let (slots, words, states) = (&self.table.slots, self.words, &mut self.states);
        let (done, taken) = match level {
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 => avx512::decode(slots, words, contexts, states, out),
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => avx2::decode(slots, words, contexts, states, out),
            #[cfg(target_arch = "aarch64")]
            Level::Neon => neon::decode(slots, words, contexts, states, out),
            Level::Scalar => (0, 0),
        };
        self.words = &words[taken..];
        let groups = out[done..].chunks_mut(LANES).zip(contexts[done..].chunks(LANES));
        for (out, contexts) in groups {
            self.group(contexts, out)?;
        }
        Ok(())
    }

    #[inline]
    fn group(&mut self, contexts: &[u8], out: &mut [u8]) -> Result<(), &'static str> {
        let lanes = out.iter_mut().zip(contexts).zip(&mut self.states);
        // A group takes at most a word a lane; near the end each read is checked.
        if let Some(taken) = self.words.first_chunk::<{ 2 * LANES }>() {
            let mut used = 0;
            for ((o, &c), state) in lanes {
                let (symbol, x) = step(self.table, *state, c);
                *o = symbol;
                let need = x < LOWER;
                let word = u32::from(u16::from_le_bytes([taken[used], taken[used + 1]]));
                *state = if need { x << 16 | word } else { x };
                used += 2 * usize::from(need);
            }
            self.words = &self.words[used..];
            return Ok(());
        }
        for ((o, &c), state) in lanes {
            let (symbol, mut x) = step(self.table, *state, c);
            *o = symbol;
            if x < LOWER {
                let Some((word, rest)) = self.words.split_first_chunk::<2>() else {
                    return Err("stream is cut short");
                };
                x = x << 16 | u32::from(u16::from_le_bytes(*word));
                self.words = rest;
            }
            *state = x;
        }
        Ok(())
    }

    /// Checks that the stream ends here.
    pub(crate) fn finish(self) -> Result<(), &'static str> {
        if self.states.iter().any(|&s| s != LOWER) {
            return Err("stream does not end where it began");
        }
        if self.words.is_empty() { Ok(()) } else { Err("bytes are left over in a stream") }
    }
}

#[inline]
fn step(table: &DecodeTable, state: u32, context: u8) -> (u8, u32) {
    let slot = table.slots[usize::from(context) << SCALE_BITS | (state & (SCALE - 1)) as usize];
    let x = ((slot >> 8 & 0x7ff) + 1) * (state >> SCALE_BITS) + (slot >> 19);
    (slot as u8, x)
}
