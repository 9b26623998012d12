//! Blocks: what the orchestrator made durable at once, under one signature.

use serde::{Deserialize, Serialize};
use wire::{Hash, Head, Millis, NodeId, RunId, Seq, Signature, SigningKey, Term, merkle, to_bytes};

/// Header of a block; its hash is the block's name and the next block's `prev`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockHeader {
    /// Run.
    pub run: RunId,
    /// Reign in which it was made.
    pub term: Term,
    /// Position in the log.
    pub seq: Seq,
    /// Hash of the block before.
    pub prev: Hash,
    /// Time of the run; never goes back.
    pub time: Millis,
    /// Merkle root over the records.
    pub records_root: Hash,
    /// Number of records.
    pub count: u32,
}

/// A header with the orchestrator's signature: a signed head of the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedHeader {
    /// What is signed.
    pub header: BlockHeader,
    /// By the orchestrator.
    pub signature: Signature,
}

/// A block.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Block {
    /// Header and signature.
    pub signed: SignedHeader,
    /// Records, opaque here.
    pub records: Vec<Vec<u8>>,
}

impl BlockHeader {
    /// Hash of the header.
    pub fn hash(&self) -> Hash {
        Hash::of_parts("shoal 2026-11 block", &[&to_bytes(self)])
    }

    /// Position and hash, as frame headers carry them.
    pub fn head(&self) -> Head {
        Head { seq: self.seq, hash: self.hash() }
    }
}

impl SignedHeader {
    /// Signs a header.
    pub fn sign(key: &SigningKey, header: BlockHeader) -> Self {
        let signature = key.sign(&message(&header));
        Self { header, signature }
    }

    /// Whether `signer` signed it.
    pub fn verify(&self, signer: &NodeId) -> bool {
        self.signature.verify(signer, &message(&self.header))
    }

    /// Whether two signed headers prove that `signer` told two stories: two blocks at one place of one run's log.
    pub fn equivocates(&self, other: &Self, signer: &NodeId) -> bool {
        let (a, b) = (&self.header, &other.header);
        (a.run, a.seq) == (b.run, b.seq) && a != b && self.verify(signer) && other.verify(signer)
    }
}

impl Block {
    /// Header without its signature.
    pub fn header(&self) -> &BlockHeader {
        &self.signed.header
    }

    /// Bytes of all records.
    pub fn record_bytes(&self) -> usize {
        self.records.iter().map(Vec::len).sum()
    }
}

/// Merkle root over records: each bound to its place, their number bound at the top.
pub fn records_root(records: &[Vec<u8>]) -> Hash {
    let leaves: Vec<Hash> =
        records.iter().enumerate().map(|(index, bytes)| merkle::leaf_hash(index, bytes)).collect();
    merkle::root(&leaves)
}

fn message(header: &BlockHeader) -> Vec<u8> {
    [b"shoal block\0", &header.hash().0[..]].concat()
}
