//! The log's blocks, the term that may append to them, and a node's small durable state.

use async_trait::async_trait;
use bytes::Bytes;
use wire::{Seq, Term};

use crate::limits;

mod memory;
mod sqlite;

pub use memory::MemoryLog;
pub use sqlite::SqliteLog;

/// A durable log with one writer at a time (protocol §6 "Standby"). When a call returns, its effect survives a crash.
#[async_trait]
pub trait LogStore: Send + Sync + 'static {
    /// The term that may append; 0 before the first was taken.
    async fn term(&self) -> Result<Term, LogError>;

    /// Starts the reign of `term` if it is above the current one, else [`LogError::TermTaken`]. From then on nobody
    /// with a lower term appends.
    async fn take_term(&self, term: Term) -> Result<(), LogError>;

    /// Appends the block at `seq`, which must follow the last one, if `term` still reigns.
    async fn append(&self, term: Term, seq: Seq, block: Bytes) -> Result<(), LogError>;

    /// Blocks from `from` on, in order, without gaps: at most `limit` of them, [`crate::limits::READ_BLOCKS`], and as
    /// many as fit [`crate::limits::READ_BYTES`] (at least one, if there is one). Empty past the end.
    async fn read(&self, from: Seq, limit: u32) -> Result<Vec<Bytes>, LogError>;

    /// Position of the last block.
    async fn last(&self) -> Result<Option<Seq>, LogError>;

    /// Value of a key of the node's durable state.
    async fn get(&self, key: &str) -> Result<Option<Bytes>, LogError>;

    /// Sets a key of the node's durable state.
    async fn put(&self, key: &str, value: Bytes) -> Result<(), LogError>;

    /// Forgets a key; one that is not there is forgotten already.
    async fn remove(&self, key: &str) -> Result<(), LogError>;

    /// Writes everything back and releases the store for another process.
    async fn close(&self);
}

/// Why a log operation failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LogError {
    /// Someone with a higher term appends now: this orchestrator must stop.
    #[error("another orchestrator took over: term {current} reigns, ours is {ours}; stop this one")]
    TakenOver {
        /// Term of the caller.
        ours: Term,
        /// Term in the store.
        current: Term,
    },
    /// The term asked for is not above the current one.
    #[error("term {wanted} cannot start: term {current} already did")]
    TermTaken {
        /// Asked for.
        wanted: Term,
        /// In the store.
        current: Term,
    },
    /// The block does not follow the last one.
    #[error("block {seq} does not follow: the next one is {next}")]
    OutOfOrder {
        /// Offered.
        seq: Seq,
        /// Expected.
        next: Seq,
    },
    /// Over a limit.
    #[error("{part} of {len} bytes is over the limit of {limit}")]
    TooLarge {
        /// What.
        part: &'static str,
        /// Its length, bytes.
        len: usize,
        /// Limit, bytes.
        limit: usize,
    },
    /// Another process has the store.
    #[error("{place} is in use by another process: stop it, or give this one a folder of its own")]
    InUse {
        /// The store.
        place: String,
    },
    /// The store's file is damaged.
    #[error(
        "{place} is damaged ({reason}): put back a copy, or move the file away and start from a peer's log"
    )]
    Corrupt {
        /// The store.
        place: String,
        /// What was found.
        reason: String,
    },
    /// A store made by another version.
    #[error("{place} has layout {found}, this program knows {known}: use the program that made it")]
    Layout {
        /// The store.
        place: String,
        /// Layout found.
        found: i64,
        /// Layout known.
        known: i64,
    },
    /// No space left; the transaction left no trace.
    #[error("disk full at {place}: free space, then start again; nothing acknowledged is lost")]
    Full {
        /// The store.
        place: String,
    },
    /// The back end failed.
    #[error("{doing} in {place}: {reason}")]
    Backend {
        /// What was tried.
        doing: &'static str,
        /// The store.
        place: String,
        /// The back end's words.
        reason: String,
    },
    /// The store was closed.
    #[error("the store is closed")]
    Closed,
}

impl LogError {
    /// Trying again is of no use until somebody has done what the words say.
    pub fn is_for_hands(&self) -> bool {
        matches!(self, Self::Corrupt { .. } | Self::Layout { .. } | Self::Full { .. })
    }
}

fn check_block(block: &[u8]) -> Result<(), LogError> {
    check_len("block", block.len(), limits::BLOCK_BYTES)
}

fn check_key(key: &str) -> Result<(), LogError> {
    check_len("key", key.len(), limits::KEY_BYTES)
}

fn check_value(value: &[u8]) -> Result<(), LogError> {
    check_len("value", value.len(), limits::VALUE_BYTES)
}

fn check_len(part: &'static str, len: usize, limit: usize) -> Result<(), LogError> {
    if len > limit { Err(LogError::TooLarge { part, len, limit }) } else { Ok(()) }
}
