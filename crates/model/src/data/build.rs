//! Documents to shards: tokenize, end each document, cut into content-addressed pieces.

use std::io;

use rayon::prelude::*;

use super::{
    DataError,
    shards::{DatasetManifest, Shard, ShardEntry},
    split::Split,
};
use crate::{hash::BlobHash, limits::SHARD_TOKENS, tokenizer::Tokenizer};

/// Text that is tokenized in parallel before its tokens are stored, in bytes.
const ROUND_BYTES: usize = 8 << 20;

/// Tokenizes both sides of `split` and hands every shard to `store`.
///
/// Each document is followed by one end-of-text; documents are packed without padding. `progress` gets the
/// bytes of text done and in all. The result depends on the split and the tokenizer only.
pub fn build(
    split: &Split,
    tokenizer: &Tokenizer,
    mut store: impl FnMut(BlobHash, Vec<u8>) -> io::Result<()>,
    mut progress: impl FnMut(u64, u64),
) -> Result<DatasetManifest, DataError> {
    let total = split.note.train_bytes + split.note.held_out_bytes;
    let mut done = 0;
    let mut side = |texts: &[String]| -> Result<Vec<ShardEntry>, DataError> {
        let mut packer = Packer { vocab: tokenizer.vocab(), tokens: Vec::new(), entries: Vec::new() };
        for round in rounds(texts) {
            let encoded: Result<Vec<_>, _> = round.par_iter().map(|text| tokenizer.encode(text)).collect();
            for tokens in encoded? {
                packer.tokens.extend(tokens);
                packer.tokens.push(tokenizer.end_of_text());
                packer.store(SHARD_TOKENS, &mut store)?;
            }
            done += round.iter().map(|text| text.len() as u64).sum::<u64>();
            progress(done, total);
        }
        packer.store(1, &mut store)?;
        Ok(packer.entries)
    };
    let (train, held_out) = (side(&split.train)?, side(&split.held_out)?);
    let manifest = DatasetManifest { tokenizer: tokenizer.hash(), vocab: tokenizer.vocab(), train, held_out };
    manifest.check()?;
    Ok(manifest)
}

struct Packer {
    vocab: u32,
    tokens: Vec<u32>,
    entries: Vec<ShardEntry>,
}

impl Packer {
    /// Stores full shards while at least `least` tokens are waiting.
    fn store(
        &mut self,
        least: usize,
        store: &mut impl FnMut(BlobHash, Vec<u8>) -> io::Result<()>,
    ) -> Result<(), DataError> {
        let mut from = 0;
        while self.tokens.len() - from >= least {
            let to = self.tokens.len().min(from + SHARD_TOKENS);
            let shard = Shard::encode(&self.tokens[from..to], self.vocab);
            let entry = ShardEntry { hash: BlobHash::of(&shard), tokens: (to - from) as u64 };
            let bytes = shard.len();
            store(entry.hash, shard).map_err(|source| DataError::Store { bytes, source })?;
            self.entries.push(entry);
            from = to;
        }
        self.tokens.drain(..from);
        Ok(())
    }
}

/// Runs of documents with about `ROUND_BYTES` of text each.
fn rounds(texts: &[String]) -> impl Iterator<Item = &[String]> {
    let mut rest = texts;
    std::iter::from_fn(move || {
        let mut bytes = 0;
        let count = rest
            .iter()
            .take_while(|text| {
                let room = bytes < ROUND_BYTES;
                bytes += text.len();
                room
            })
            .count();
        let round;
        (round, rest) = rest.split_at(count);
        (!round.is_empty()).then_some(round)
    })
}
