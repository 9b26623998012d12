//! A log as one file: a header, then each block behind its length. What `shoal verify` reads.

use serde::{Deserialize, Serialize};
use wire::{DecodeError, NodeId, RunId};

use crate::block::Block;
use crate::limits;

/// First bytes of every log file: name and version.
pub const MAGIC: [u8; 10] = *b"shoal-log\x02";
/// Length of the file's header: magic, run, orchestrator.
pub const HEADER_BYTES: usize = MAGIC.len() + 64;

/// Whose log it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogHeader {
    /// Run.
    pub run: RunId,
    /// Who signs the blocks.
    pub orchestrator: NodeId,
}

/// Why bytes are not a log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LogError {
    /// Another kind of file.
    #[error("not a log: the first {HEADER_BYTES} bytes are not its header")]
    Header,
    /// A log whose records say other things.
    #[error(
        "a log of format {found}, made by another version of shoal; this one reads format {reads}: verify it with the version that made it, or start a new one",
        reads = MAGIC[MAGIC.len() - 1]
    )]
    Version {
        /// The version byte of the file.
        found: u8,
    },
    /// The last block is torn: everything before `at` is whole. A writer that died leaves this; truncate to `at`.
    #[error("torn at byte {at}: {missing} bytes of the last block are missing")]
    Torn {
        /// Where the torn block begins.
        at: usize,
        /// Bytes that are missing at least.
        missing: usize,
    },
    /// A length over the limit.
    #[error("block at byte {at} claims {len} bytes, the limit is {limit}", limit = limits::ENCODED_BLOCK_BYTES_MAX)]
    TooLarge {
        /// Where the block begins.
        at: usize,
        /// Length it claims, bytes.
        len: usize,
    },
    /// Bytes that are no block.
    #[error("block at byte {at}: {source}")]
    Malformed {
        /// Where the block begins.
        at: usize,
        /// What the decoder said.
        source: DecodeError,
    },
}

impl LogHeader {
    /// First bytes of the file.
    pub fn to_bytes(&self) -> Vec<u8> {
        [&MAGIC[..], &self.run.0, &self.orchestrator.0].concat()
    }

    /// Reads the first bytes of a file.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, LogError> {
        let (magic, rest) = bytes.split_first_chunk::<{ MAGIC.len() }>().ok_or(LogError::Header)?;
        if *magic != MAGIC {
            let known = magic[..MAGIC.len() - 1] == MAGIC[..MAGIC.len() - 1];
            let found = magic[MAGIC.len() - 1];
            return Err(if known { LogError::Version { found } } else { LogError::Header });
        }
        let (run, rest) = rest.split_first_chunk().ok_or(LogError::Header)?;
        let (orchestrator, _) = rest.split_first_chunk().ok_or(LogError::Header)?;
        Ok(Self { run: RunId(*run), orchestrator: NodeId(*orchestrator) })
    }
}

/// A block as the file holds it.
pub fn block_bytes(block: &Block) -> Vec<u8> {
    let body = wire::to_bytes(block);
    let len = u32::try_from(body.len()).expect("a block within its limits is shorter than 4 GiB");
    [&len.to_le_bytes()[..], &body].concat()
}

/// Reads blocks from the bytes of a file. Ends after the first error.
#[derive(Clone, Debug)]
pub struct LogReader<'a> {
    header: LogHeader,
    bytes: &'a [u8],
    at: usize,
}

impl<'a> LogReader<'a> {
    /// Opens the bytes of a whole file.
    pub fn new(bytes: &'a [u8]) -> Result<Self, LogError> {
        Ok(Self { header: LogHeader::from_bytes(bytes)?, bytes, at: HEADER_BYTES })
    }

    /// Whose log it is.
    pub fn header(&self) -> LogHeader {
        self.header
    }

    /// Where the next block begins, bytes.
    pub fn position(&self) -> usize {
        self.at
    }

    fn read(&self) -> Result<(Block, usize), LogError> {
        let at = self.at;
        let rest = &self.bytes[at..];
        let Some((len, body)) = rest.split_first_chunk() else {
            return Err(LogError::Torn { at, missing: 4 - rest.len() });
        };
        let len = u32::from_le_bytes(*len) as usize;
        if len > limits::ENCODED_BLOCK_BYTES_MAX {
            return Err(LogError::TooLarge { at, len });
        }
        let Some(body) = body.get(..len) else {
            return Err(LogError::Torn { at, missing: len - body.len() });
        };
        let block = wire::from_bytes(body).map_err(|source| LogError::Malformed { at, source })?;
        Ok((block, at + 4 + len))
    }
}

impl Iterator for LogReader<'_> {
    type Item = Result<Block, LogError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.at >= self.bytes.len() {
            return None;
        }
        Some(match self.read() {
            Ok((block, next)) => {
                self.at = next;
                Ok(block)
            }
            Err(error) => {
                self.bytes = &self.bytes[..self.at];
                Err(error)
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use wire::{Hash, Millis, SigningKey};

    use super::*;
    use crate::chain::Chain;

    fn file(blocks: u8) -> (Vec<u8>, Vec<Block>, Vec<usize>) {
        let key = SigningKey::from_bytes(&[1; 32]);
        let run = RunId([7; 32]);
        let mut chain = Chain::genesis(run, key.node_id());
        let mut bytes = LogHeader { run, orchestrator: key.node_id() }.to_bytes();
        let mut ends = vec![bytes.len()];
        let blocks: Vec<Block> = (0..blocks)
            .map(|i| chain.append(&key, Millis(u64::from(i)), vec![vec![i; usize::from(i) * 3]]).unwrap())
            .collect();
        for block in &blocks {
            bytes.extend(block_bytes(block));
            ends.push(bytes.len());
        }
        (bytes, blocks, ends)
    }

    #[test]
    fn blocks_come_back() {
        let (bytes, blocks, _) = file(5);
        let reader = LogReader::new(&bytes).unwrap();
        assert_eq!(reader.header().run, RunId([7; 32]));
        assert_eq!(reader.collect::<Result<Vec<_>, _>>().unwrap(), blocks);
    }

    #[test]
    fn golden_file() {
        let (bytes, _, _) = file(3);
        assert_eq!(Hash::of(&bytes).short(), "0b4f835ee6");
    }

    #[test]
    fn every_torn_tail_is_found_where_it_begins() {
        let (bytes, blocks, ends) = file(3);
        for len in HEADER_BYTES..bytes.len() {
            let read: Vec<_> = LogReader::new(&bytes[..len]).unwrap().collect();
            let whole = ends.iter().filter(|end| **end <= len).count() - 1;
            assert_eq!(read.iter().filter_map(|r| r.as_ref().ok()).count(), whole);
            assert_eq!(read[..whole].iter().map(|r| r.clone().unwrap()).collect::<Vec<_>>(), blocks[..whole]);
            if len == ends[whole] {
                assert_eq!(read.len(), whole);
            } else {
                assert!(matches!(read[whole], Err(LogError::Torn { at, .. }) if at == ends[whole]));
                assert_eq!(read.len(), whole + 1);
            }
        }
        let mut old = bytes.clone();
        old[MAGIC.len() - 1] = 1;
        let error = LogReader::new(&old).unwrap_err();
        assert_eq!(error, LogError::Version { found: 1 });
        assert!(error.to_string().contains("start a new one"), "{error}");
        for len in 0..HEADER_BYTES {
            assert_eq!(LogReader::new(&bytes[..len]).unwrap_err(), LogError::Header);
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(tail in proptest::collection::vec(any::<u8>(), 0..300), flip in 0_usize..600) {
            let (mut bytes, _, _) = file(3);
            let at = flip % bytes.len();
            bytes[at] ^= 1 << (flip % 8);
            bytes.extend(tail);
            if let Ok(reader) = LogReader::new(&bytes) {
                prop_assert!(reader.count() < 100);
            }
        }
    }
}
