//! A plane of byte symbols, each in a context of its row and column, as rANS streams.
//!
//! Layout: 4 bytes of length for each chunk of 262144 symbols, then the chunks' streams.

use super::rans::{self, DecodeTable, EncodeTable};
use super::tables::Tables;
use crate::bytes::Reader;
use crate::error::CodecError;
use crate::layered::Offsets;
use crate::parallel::{self, PART};
use crate::scratch::Scratch;
use crate::simd::Level;

/// Symbols of one stream.
const CHUNK: usize = 1 << 18;
/// Symbols whose contexts are worked out at a time.
const BLOCK: usize = 4096;

/// Counts the symbols of each of `contexts` contexts; the context of an element is its offset.
pub(crate) fn count(symbols: &[u8], offsets: &Offsets, contexts: usize) -> Vec<[u32; 256]> {
    let count = |start: usize, symbols: &[u8]| {
        let mut counts = vec![[0_u32; 256]; contexts];
        let mut block_contexts = [0; BLOCK];
        for (i, block) in symbols.chunks(BLOCK).enumerate() {
            offsets.fill(start + i * BLOCK, block.len(), &mut block_contexts);
            for (&s, &c) in block.iter().zip(&block_contexts) {
                counts[usize::from(c)][usize::from(s)] += 1;
            }
        }
        counts
    };
    if !parallel::shared(symbols.len()) {
        return count(0, symbols);
    }
    let parts = parallel::map(symbols.chunks(PART).enumerate(), |(i, part)| count(i * PART, part));
    let mut counts = vec![[0_u32; 256]; contexts];
    for part in &parts {
        for (all, own) in counts.iter_mut().flatten().zip(part.iter().flatten()) {
            *all += own;
        }
    }
    counts
}

/// Appends the streams of `symbols`, all of which `tables` know in their contexts.
pub(crate) fn encode(level: Level, tables: &Tables, symbols: &[u8], offsets: &Offsets, out: &mut Vec<u8>) {
    let table = EncodeTable::new(tables);
    let lengths = out.len();
    out.resize(lengths + 4 * symbols.len().div_ceil(CHUNK), 0);
    let encode = |i: usize, chunk: &[u8]| {
        let mut contexts = Scratch::any(chunk.len());
        offsets.fill(i * CHUNK, chunk.len(), &mut contexts);
        let mut encoder = rans::Encoder::new(chunk.len());
        encoder.push(level, &table, chunk, &contexts);
        encoder
    };
    let mut together = if parallel::shared(symbols.len()) {
        parallel::map(symbols.chunks(CHUNK).enumerate(), |(i, chunk)| encode(i, chunk))
    } else {
        Vec::new()
    }
    .into_iter();
    for (i, chunk) in symbols.chunks(CHUNK).enumerate() {
        let before = out.len();
        together.next().unwrap_or_else(|| encode(i, chunk)).finish(out);
        let length = (out.len() - before) as u32;
        out[lengths + 4 * i..lengths + 4 * i + 4].copy_from_slice(&length.to_le_bytes());
    }
}

/// Reads the streams of `out.len()` symbols.
pub(crate) fn decode(
    level: Level,
    tables: &Tables,
    reader: &mut Reader<'_>,
    offsets: &Offsets,
    out: &mut [u8],
) -> Result<(), CodecError> {
    let table = DecodeTable::new(tables);
    let lengths = reader.take(4 * out.len().div_ceil(CHUNK))?.as_chunks::<4>().0;
    let mut streams = Vec::with_capacity(lengths.len());
    for length in lengths {
        streams.push(reader.take(u32::from_le_bytes(*length) as usize)?);
    }
    let decode = |(i, (chunk, stream)): (usize, (&mut [u8], &[u8]))| {
        let mut contexts = Scratch::any(chunk.len());
        offsets.fill(i * CHUNK, chunk.len(), &mut contexts);
        let mut decoder = rans::Decoder::new(&table, stream)?;
        decoder.run(level, &contexts, chunk)?;
        decoder.finish()
    };
    let elements = out.len();
    let mut chunks = out.chunks_mut(CHUNK).zip(streams).enumerate();
    let decoded = if parallel::shared(elements) {
        parallel::map(chunks, decode).into_iter().collect()
    } else {
        chunks.try_for_each(decode)
    };
    decoded.map_err(|r| reader.malformed(r))
}
