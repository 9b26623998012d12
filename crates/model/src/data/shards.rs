//! Shards: runs of token ids as content-addressed bytes, and the manifest that names them.
//!
//! Layout, little-endian: magic `SHOALTOK` (8 bytes), version 1 (u8), bytes per token 2 or 4 (u8), zero (u16),
//! vocabulary (u32), number of tokens (u64), then the tokens. Two bytes are used when the vocabulary fits.

use serde::{Deserialize, Serialize};

use super::DataError;
use crate::{
    hash::BlobHash,
    limits::{MAX_SHARD_TOKENS, MAX_SHARDS, MAX_VOCAB},
};

const MAGIC: &[u8; 8] = b"SHOALTOK";
const VERSION: u8 = 1;
/// Bytes before the first token.
const HEADER_BYTES: usize = 24;

/// One shard as a manifest names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShardEntry {
    /// BLAKE3 of the shard's bytes.
    pub hash: BlobHash,
    /// Tokens in it.
    pub tokens: u64,
}

/// Everything that decides the tokens of a run, but for the order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DatasetManifest {
    /// Hash of the tokenizer that made the tokens.
    pub tokenizer: BlobHash,
    /// Every token is below this.
    pub vocab: u32,
    /// Shards to train on; together one long run of tokens.
    pub train: Vec<ShardEntry>,
    /// Shards to measure on.
    pub held_out: Vec<ShardEntry>,
}

impl DatasetManifest {
    /// Refuses manifests that no data set can have.
    pub fn check(&self) -> Result<(), DataError> {
        if !(1..=MAX_VOCAB).contains(&self.vocab) {
            return Err(DataError::Manifest("its vocabulary is zero or too large"));
        }
        for side in [&self.train, &self.held_out] {
            if side.is_empty() || side.len() > MAX_SHARDS {
                return Err(DataError::Manifest("one side has no shards, or too many"));
            }
            if side.iter().any(|shard| shard.tokens == 0 || shard.tokens > MAX_SHARD_TOKENS) {
                return Err(DataError::Manifest("a shard has no tokens, or too many"));
            }
        }
        Ok(())
    }

    /// Tokens to train on, and held out.
    pub fn tokens(&self) -> (u64, u64) {
        let sum = |side: &[ShardEntry]| side.iter().map(|shard| shard.tokens).sum();
        (sum(&self.train), sum(&self.held_out))
    }
}

/// The tokens of one shard, as wide as they are stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Shard {
    /// Vocabulary of at most 65,536.
    Narrow(Vec<u16>),
    /// A larger vocabulary.
    Wide(Vec<u32>),
}

impl Shard {
    /// The bytes of a shard; every token is below `vocab`.
    pub fn encode(tokens: &[u32], vocab: u32) -> Vec<u8> {
        assert!(
            tokens.iter().all(|&token| token < vocab),
            "tokens come from the tokenizer of this vocabulary"
        );
        let width = token_bytes(vocab);
        let mut bytes = Vec::with_capacity(HEADER_BYTES + tokens.len() * usize::from(width));
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&[VERSION, width, 0, 0]);
        bytes.extend_from_slice(&vocab.to_le_bytes());
        bytes.extend_from_slice(&(tokens.len() as u64).to_le_bytes());
        for token in tokens {
            bytes.extend_from_slice(&token.to_le_bytes()[..usize::from(width)]);
        }
        bytes
    }

    /// Reads and checks the shard that `entry` names in a data set with this vocabulary.
    pub fn decode(bytes: &[u8], entry: &ShardEntry, vocab: u32) -> Result<Self, DataError> {
        let bad = |reason| DataError::Shard { hash: entry.hash, reason };
        if BlobHash::of(bytes) != entry.hash {
            return Err(bad("its hash differs"));
        }
        let (header, body) =
            bytes.split_at_checked(HEADER_BYTES).ok_or(bad("it is shorter than its header"))?;
        let width = token_bytes(vocab);
        if header[..8] != MAGIC[..] || header[8] != VERSION || header[10..12] != [0, 0] {
            return Err(bad("its header is not that of a shard of version 1"));
        }
        if header[12..16] != vocab.to_le_bytes() || header[9] != width {
            return Err(bad("its vocabulary is not that of the manifest"));
        }
        if header[16..24] != entry.tokens.to_le_bytes() {
            return Err(bad("its number of tokens is not that of the manifest"));
        }
        if body.len() as u64 != entry.tokens.saturating_mul(u64::from(width)) {
            return Err(bad("its length is not that of its header"));
        }
        let shard = if width == 2 {
            Self::Narrow(body.chunks_exact(2).map(|b| u16::from_le_bytes([b[0], b[1]])).collect())
        } else {
            Self::Wide(body.chunks_exact(4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect())
        };
        let inside = match &shard {
            Self::Narrow(tokens) => tokens.iter().all(|&token| u32::from(token) < vocab),
            Self::Wide(tokens) => tokens.iter().all(|&token| token < vocab),
        };
        if inside { Ok(shard) } else { Err(bad("it has a token outside the vocabulary")) }
    }

    /// Appends tokens `from..to` of this shard to `out`.
    pub(super) fn copy(&self, from: usize, to: usize, out: &mut Vec<u32>) {
        match self {
            Self::Narrow(tokens) => out.extend(tokens[from..to].iter().map(|&token| u32::from(token))),
            Self::Wide(tokens) => out.extend_from_slice(&tokens[from..to]),
        }
    }
}

fn token_bytes(vocab: u32) -> u8 {
    if vocab <= 1 << 16 { 2 } else { 4 }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn entry(bytes: &[u8], tokens: u64) -> ShardEntry {
        ShardEntry { hash: BlobHash::of(bytes), tokens }
    }

    fn tokens_of(shard: &Shard, count: usize) -> Vec<u32> {
        let mut out = Vec::new();
        shard.copy(0, count, &mut out);
        out
    }

    #[test]
    fn golden_bytes() {
        let bytes = Shard::encode(&[1, 256, 2], 257);
        assert_eq!(&bytes[..8], b"SHOALTOK");
        assert_eq!(bytes[8..24], [1, 2, 0, 0, 1, 1, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(bytes[24..], [1, 0, 0, 1, 2, 0]);
    }

    #[test]
    fn every_header_byte_matters() {
        let good = Shard::encode(&[1, 2, 3], 70_000);
        for position in 0..HEADER_BYTES {
            let mut bytes = good.clone();
            bytes[position] ^= 1;
            let entry = entry(&bytes, 3);
            assert!(Shard::decode(&bytes, &entry, 70_000).is_err(), "byte {position}");
        }
        assert!(Shard::decode(&good, &entry(&good, 3), 70_000).is_ok());
        assert!(Shard::decode(&good, &entry(b"other", 3), 70_000).is_err());
    }

    proptest! {
        #[test]
        fn round_trip(tokens in prop::collection::vec(0_u32..70_000, 0..200), wide: bool) {
            let vocab = if wide { 70_000 } else { 65_536 };
            let tokens: Vec<_> = tokens.into_iter().map(|token| token % vocab).collect();
            let bytes = Shard::encode(&tokens, vocab);
            let shard = Shard::decode(&bytes, &entry(&bytes, tokens.len() as u64), vocab).unwrap();
            prop_assert_eq!(tokens_of(&shard, tokens.len()), tokens);
        }

        #[test]
        fn hostile_bytes_never_panic(
            start in prop::collection::vec(any::<u8>(), 0..60), keep in 0_usize..30, tokens: u64, vocab in 1_u32..80_000
        ) {
            let mut bytes = Shard::encode(&[0, 0, 0], vocab);
            bytes.truncate(keep);
            bytes.extend(start);
            let _ = Shard::decode(&bytes, &entry(&bytes, tokens), vocab);
            let _ = Shard::decode(&bytes, &entry(&bytes, 3), vocab);
        }
    }
}
