//! The miner.

pub mod frames;
