//! Blobs: bytes under their own hash.

use async_trait::async_trait;
use bytes::Bytes;
use wire::Hash;

mod folder;
mod memory;

pub use folder::{Durability, FolderBlobs};
pub use memory::MemoryBlobs;

/// A store of content-addressed blobs. What it returns has been checked against the hash.
#[async_trait]
pub trait Blobs: Send + Sync + 'static {
    /// Stores `bytes` and returns their hash. A blob that is there already costs nothing.
    async fn put(&self, bytes: Bytes) -> Result<Hash, BlobError>;

    /// Stores `bytes` that should have `hash`; refuses others before anything is written.
    async fn put_at(&self, hash: Hash, bytes: Bytes) -> Result<(), BlobError>;

    /// The whole blob, checked.
    async fn get(&self, hash: Hash) -> Result<Bytes, BlobError>;

    /// Whether the blob is there (not whether its bytes are still good), and how long it is.
    async fn size(&self, hash: Hash) -> Result<Option<u64>, BlobError>;

    /// Whether the blob is there (not whether its bytes are still good).
    async fn has(&self, hash: Hash) -> Result<bool, BlobError> {
        Ok(self.size(hash).await?.is_some())
    }

    /// Deletes the blob; one that is not there is deleted already.
    async fn delete(&self, hash: Hash) -> Result<(), BlobError>;

    /// Hashes of all blobs, in ascending order.
    async fn list(&self) -> Result<Vec<Hash>, BlobError>;

    /// Starts to write a large blob chunk by chunk. Nothing is visible before [`BlobWriter::finish`], and dropping the
    /// writer leaves nothing behind.
    async fn create(&self) -> Result<Box<dyn BlobWriter>, BlobError>;

    /// Starts to read a large blob chunk by chunk. The last chunk comes only if the whole matched.
    async fn open(&self, hash: Hash) -> Result<Box<dyn BlobReader>, BlobError>;
}

/// A blob being written.
#[async_trait]
pub trait BlobWriter: Send {
    /// Adds bytes.
    async fn write(&mut self, chunk: Bytes) -> Result<(), BlobError>;

    /// Makes the blob visible under its hash; if `expected` is given and differs, nothing stays. Dropped half-way, it ends
    /// one way or the other: the blob is there, or nothing is.
    async fn finish(self: Box<Self>, expected: Option<Hash>) -> Result<Hash, BlobError>;
}

/// A blob being read.
#[async_trait]
pub trait BlobReader: Send {
    /// The next chunk, or none after the last. Until it returned none, the bytes so far are not known to be good.
    async fn next(&mut self) -> Result<Option<Bytes>, BlobError>;
}

/// Why a blob operation failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BlobError {
    /// Not there.
    #[error("blob {0} is not in the store: fetch it from a peer that has it")]
    Missing(Hash),
    /// The stored bytes are not those of the name.
    #[error("blob {hash} is corrupt: its bytes have hash {found}; delete it and fetch it again")]
    Corrupt {
        /// Its name.
        hash: Hash,
        /// Hash of what is stored.
        found: Hash,
    },
    /// Offered bytes are not those of the name; nothing was stored.
    #[error("bytes offered as blob {expected} have hash {found}")]
    Mismatch {
        /// Expected.
        expected: Hash,
        /// Hash of the bytes.
        found: Hash,
    },
    /// Over the limit.
    #[error("blob of {len} bytes is over the limit of {limit}")]
    TooLarge {
        /// Length so far, bytes.
        len: u64,
        /// Limit, bytes.
        limit: u64,
    },
    /// No space left; nothing half-written stays.
    #[error("disk full at {place}: free space or choose another folder, then start again")]
    Full {
        /// Where.
        place: String,
    },
    /// The back end failed.
    #[error("{doing} at {place}: {reason}")]
    Backend {
        /// What was tried.
        doing: &'static str,
        /// Where.
        place: String,
        /// The back end's words.
        reason: String,
    },
}

impl BlobError {
    /// Trying again is of no use until somebody has done what the words say.
    pub fn is_for_hands(&self) -> bool {
        matches!(self, Self::Full { .. })
    }
}

fn check_len(len: u64, limit: u64) -> Result<(), BlobError> {
    if len > limit { Err(BlobError::TooLarge { len, limit }) } else { Ok(()) }
}

fn check_hash(expected: Hash, found: Hash) -> Result<(), BlobError> {
    if expected == found { Ok(()) } else { Err(BlobError::Mismatch { expected, found }) }
}
