//! The signed hash-chained log: blocks and their chain, the log as a file, beacons from commit-reveal, integer splits.
//!
//! This crate must never know what a record means, and no I/O, clock or randomness: records are opaque bytes, keys, times
//! and files' bytes are arguments.

pub mod beacon;
pub mod block;
pub mod chain;
pub mod file;
pub mod limits;
pub mod split;

pub use block::{Block, BlockHeader, SignedHeader};
pub use chain::{Chain, ChainError};
pub use file::{LogError, LogReader};
