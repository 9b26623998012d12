//! The chain: what may follow a block. The orchestrator appends, everybody else checks; both hold the same value.

use serde::{Deserialize, Serialize};
use wire::{Hash, Head, Millis, NodeId, RunId, Seq, SigningKey, Term};

use crate::block::{Block, BlockHeader, SignedHeader, records_root};
use crate::limits;

/// End of a log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chain {
    run: RunId,
    orchestrator: NodeId,
    head: Option<Head>,
    term: Term,
    time: Millis,
}

/// Why a block does not follow.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChainError {
    /// Of another run.
    #[error("block of run {}, this is run {}", theirs.short(), ours.short())]
    WrongRun {
        /// Run of the block.
        theirs: RunId,
        /// Run of the chain.
        ours: RunId,
    },
    /// Not the next one.
    #[error("block {found}, expected {expected}")]
    Sequence {
        /// Position of the block.
        found: Seq,
        /// Position that is next.
        expected: Seq,
    },
    /// Follows another block.
    #[error("block {seq} follows {}, the log ends with {}", found.short(), expected.short())]
    Fork {
        /// Position of the block.
        seq: Seq,
        /// Its `prev`.
        found: Hash,
        /// Hash of the block before.
        expected: Hash,
    },
    /// Of a reign that is over.
    #[error("block of term {found:?}, the log has reached term {reached:?}")]
    Term {
        /// Term of the block.
        found: Term,
        /// Highest term seen.
        reached: Term,
    },
    /// Time goes back.
    #[error("block of {found:?}, the block before is of {reached:?}")]
    Time {
        /// Time of the block.
        found: Millis,
        /// Time of the block before.
        reached: Millis,
    },
    /// Records are not those of the header.
    #[error("records of block {seq} do not match its header")]
    Records {
        /// Position of the block.
        seq: Seq,
    },
    /// Too large.
    #[error("{what} of block {seq}: {found} is over the limit of {limit}")]
    TooLarge {
        /// Position of the block.
        seq: Seq,
        /// What is counted.
        what: &'static str,
        /// Found.
        found: usize,
        /// Limit.
        limit: usize,
    },
    /// Not signed by the orchestrator.
    #[error("block {seq} is not signed by the orchestrator {}", orchestrator.short())]
    Signature {
        /// Position of the block.
        seq: Seq,
        /// Whose signature it needs.
        orchestrator: NodeId,
    },
}

impl Chain {
    /// The empty log of a run.
    pub fn genesis(run: RunId, orchestrator: NodeId) -> Self {
        Self { run, orchestrator, head: None, term: Term(0), time: Millis(0) }
    }

    /// Run.
    pub fn run(&self) -> RunId {
        self.run
    }

    /// Who signs.
    pub fn orchestrator(&self) -> NodeId {
        self.orchestrator
    }

    /// Newest block; `None` for an empty log.
    pub fn head(&self) -> Option<Head> {
        self.head
    }

    /// Position of the next block.
    pub fn next_seq(&self) -> Seq {
        self.head.map_or(Seq(0), |head| head.seq.next())
    }

    /// Time of the newest block.
    pub fn time(&self) -> Millis {
        self.time
    }

    /// Term of the newest block, or the one begun since.
    pub fn term(&self) -> Term {
        self.term
    }

    /// Begins a new reign: the next block carries the next term, and blocks of earlier ones are refused.
    pub fn begin_term(&mut self) -> Term {
        self.term = self.term.next();
        self.term
    }

    /// Makes the next block. Its time is `time`, or that of the block before if that is later.
    pub fn append(
        &mut self,
        key: &SigningKey,
        time: Millis,
        records: Vec<Vec<u8>>,
    ) -> Result<Block, ChainError> {
        let header = BlockHeader {
            run: self.run,
            term: self.term,
            seq: self.next_seq(),
            prev: self.prev(),
            time: time.max(self.time),
            records_root: records_root(&records),
            count: u32::try_from(records.len()).unwrap_or(u32::MAX),
        };
        let block = Block { signed: SignedHeader::sign(key, header), records };
        self.check(&block)?;
        Ok(block)
    }

    /// Takes a block if it follows; an error leaves the chain as it was.
    pub fn check(&mut self, block: &Block) -> Result<(), ChainError> {
        let header = block.header();
        let seq = header.seq;
        if header.run != self.run {
            return Err(ChainError::WrongRun { theirs: header.run, ours: self.run });
        }
        if seq != self.next_seq() {
            return Err(ChainError::Sequence { found: seq, expected: self.next_seq() });
        }
        if header.prev != self.prev() {
            return Err(ChainError::Fork { seq, found: header.prev, expected: self.prev() });
        }
        if header.term < self.term {
            return Err(ChainError::Term { found: header.term, reached: self.term });
        }
        if header.time < self.time {
            return Err(ChainError::Time { found: header.time, reached: self.time });
        }
        check_size(block)?;
        if header.count as usize != block.records.len() || header.records_root != records_root(&block.records)
        {
            return Err(ChainError::Records { seq });
        }
        if !block.signed.verify(&self.orchestrator) {
            return Err(ChainError::Signature { seq, orchestrator: self.orchestrator });
        }
        self.head = Some(header.head());
        self.term = header.term;
        self.time = header.time;
        Ok(())
    }

    fn prev(&self) -> Hash {
        let first = || Hash::of_parts("shoal 2026-11 log", &[&self.run.0, &self.orchestrator.0]);
        self.head.map_or_else(first, |head| head.hash)
    }
}

fn check_size(block: &Block) -> Result<(), ChainError> {
    let longest = block.records.iter().map(Vec::len).max().unwrap_or(0);
    let sizes = [
        ("number of records", block.records.len(), limits::BLOCK_RECORDS_MAX),
        ("longest record", longest, limits::RECORD_BYTES_MAX),
        ("bytes", block.record_bytes(), limits::BLOCK_BYTES_MAX),
    ];
    match sizes.into_iter().find(|(_, found, limit)| found > limit) {
        Some((what, found, limit)) => {
            Err(ChainError::TooLarge { seq: block.header().seq, what, found, limit })
        }
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RUN: RunId = RunId([7; 32]);

    fn key() -> SigningKey {
        SigningKey::from_bytes(&[1; 32])
    }

    fn log() -> (Chain, Vec<Block>) {
        let mut chain = Chain::genesis(RUN, key().node_id());
        let blocks = (0..4_u8)
            .map(|i| chain.append(&key(), Millis(100 * u64::from(i)), vec![vec![i], vec![i, i]]).unwrap())
            .collect();
        (chain, blocks)
    }

    fn replay(blocks: &[Block]) -> Result<Chain, ChainError> {
        let mut chain = Chain::genesis(RUN, key().node_id());
        blocks.iter().try_for_each(|block| chain.check(block))?;
        Ok(chain)
    }

    #[test]
    fn a_follower_ends_where_the_orchestrator_does() {
        let (chain, blocks) = log();
        assert_eq!(replay(&blocks).unwrap(), chain);
        assert_eq!(chain.head().unwrap().seq, Seq(3));
    }

    #[test]
    fn golden_head() {
        let (chain, _) = log();
        assert_eq!(chain.head().unwrap().hash.short(), "26f5d1d080");
    }

    #[test]
    fn time_stands_still_rather_than_going_back() {
        let (mut chain, _) = log();
        let block = chain.append(&key(), Millis(5), vec![]).unwrap();
        assert_eq!(block.header().time, Millis(300));
    }

    #[test]
    fn any_change_is_refused_and_leaves_the_chain_alone() {
        type Change = (fn(&mut Vec<Block>), fn(&ChainError) -> bool);
        let changes: [Change; 11] = [
            (|b| b[2].records[0][0] ^= 1, |e| matches!(e, ChainError::Records { seq: Seq(2) })),
            (|b| b[2].records.swap(0, 1), |e| matches!(e, ChainError::Records { .. })),
            (|b| drop(b[2].records.pop()), |e| matches!(e, ChainError::Records { .. })),
            (|b| b[2].signed.signature.0[3] ^= 1, |e| matches!(e, ChainError::Signature { .. })),
            (|b| b[2].signed.header.time.0 += 1, |e| matches!(e, ChainError::Signature { .. })),
            (|b| b[2].signed.header.time.0 = 1, |e| matches!(e, ChainError::Time { .. })),
            (|b| b[2].signed.header.prev.0[0] ^= 1, |e| matches!(e, ChainError::Fork { .. })),
            (|b| b[2].signed.header.run.0[0] ^= 1, |e| matches!(e, ChainError::WrongRun { .. })),
            (|b| drop(b.remove(1)), |e| matches!(e, ChainError::Sequence { .. })),
            (|b| b.swap(1, 2), |e| matches!(e, ChainError::Sequence { .. })),
            (|b| b[1] = b[0].clone(), |e| matches!(e, ChainError::Sequence { .. })),
        ];
        for (index, (change, expected)) in changes.into_iter().enumerate() {
            let (_, mut blocks) = log();
            change(&mut blocks);
            let error = replay(&blocks).unwrap_err();
            assert!(expected(&error), "change {index}: {error}");
        }
        let (mut chain, blocks) = log();
        let before = chain.clone();
        assert!(chain.check(&blocks[1]).is_err());
        assert_eq!(chain, before);
    }

    #[test]
    fn another_key_cannot_append() {
        let (mut chain, _) = log();
        let other = SigningKey::from_bytes(&[2; 32]);
        assert!(matches!(chain.append(&other, Millis(900), vec![]), Err(ChainError::Signature { .. })));
    }

    #[test]
    fn an_old_term_is_refused() {
        let (mut chain, _) = log();
        let mut deposed = chain.clone();
        chain.begin_term();
        chain.append(&key(), Millis(900), vec![]).unwrap();
        let block = deposed.append(&key(), Millis(900), vec![]).unwrap();
        assert!(chain.check(&block).is_err());
        let mut follower = deposed.clone();
        follower.begin_term();
        let late = deposed.append(&key(), Millis(950), vec![]).unwrap();
        assert!(matches!(follower.check(&late), Err(ChainError::Term { .. })));
    }

    #[test]
    fn two_stories_are_proof() {
        let (mut chain, _) = log();
        let mut other = chain.clone();
        let a = chain.append(&key(), Millis(900), vec![vec![1]]).unwrap().signed;
        let b = other.append(&key(), Millis(900), vec![vec![2]]).unwrap().signed;
        let orchestrator = key().node_id();
        assert!(a.equivocates(&b, &orchestrator));
        assert!(!a.equivocates(&a, &orchestrator));
        let mut forged = b.clone();
        forged.header.time.0 += 1;
        assert!(!a.equivocates(&forged, &orchestrator));
    }

    #[test]
    fn limits_hold() {
        let (mut chain, _) = log();
        let many = vec![vec![]; limits::BLOCK_RECORDS_MAX + 1];
        assert!(matches!(chain.append(&key(), Millis(900), many), Err(ChainError::TooLarge { .. })));
        let long = vec![vec![0; limits::RECORD_BYTES_MAX + 1]];
        assert!(matches!(chain.append(&key(), Millis(900), long), Err(ChainError::TooLarge { .. })));
        assert!(chain.append(&key(), Millis(900), vec![vec![]]).is_ok());
    }
}
