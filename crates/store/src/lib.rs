//! State and blobs of a node: the log's blocks and small durable state in SQLite, blobs in a folder; both also in memory.
//!
//! This crate must never know what a block or a blob means: it keeps bytes, their order and their hashes.

pub mod blobs;
pub mod limits;
pub mod log;

pub use blobs::{BlobError, BlobReader, BlobWriter, Blobs, Durability, FolderBlobs, MemoryBlobs};
pub use log::{LogError, LogStore, MemoryLog, SqliteLog};
