//! The swarm's daemons: orchestrator, miner, validator; they drive the pure protocol over links and stores.
//!
//! This crate must never decide what the protocol decides: what a node does is a function of the state it folded.

mod backoff;
pub mod clock;
pub mod fetch;
pub mod folder;
pub mod key;
pub mod limits;
pub mod progress;
pub mod rpc;
pub mod spec;
