//! The signed hash-chained log: blocks and their chain, the fold that makes and replays it, the log as a file, beacons
//! from commit-reveal, integer splits.
//!
//! This crate must never know what a record means ([`fold::Fold`] does), and no I/O, clock or randomness: keys, times and
//! files' bytes are arguments.

pub mod beacon;
pub mod block;
pub mod chain;
pub mod commit;
pub mod file;
pub mod fold;
pub mod limits;
pub mod split;
pub mod verify;

pub use block::{Block, BlockHeader, SignedHeader};
pub use chain::{Chain, ChainError};
pub use file::{LogError, LogReader};
pub use fold::{Fact, Fold};
