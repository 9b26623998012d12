//! The swarm's daemons: orchestrator, miner, validator; they drive the pure protocol over links and stores.
//!
//! This crate must never decide what the protocol decides: what a node does is a function of the state it folded.

mod backoff;
mod blob_cache;
pub mod champion;
pub mod checkpoint;
pub use leader::clock;
pub mod fetch;
pub mod folder;
pub mod follow;
pub mod keeper;
pub mod key;
pub mod limits;
pub mod machine;
pub mod miner;
pub mod network;
pub mod observe;
pub mod orchestrator;
mod packed;
pub mod progress;
pub mod rpc;
pub mod speak;
pub mod spec;
pub mod tokens;
pub mod validator;
