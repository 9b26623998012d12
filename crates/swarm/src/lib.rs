//! The training protocol, pure: run phases, leases, routes, work ledger, butterfly merge, verdicts, verification.
//!
//! This crate must never know tokio, a clock, randomness, files, sockets or tensors: time, seeds and input are
//! arguments, effects are data. The same code runs in the orchestrator, in every node that follows the log, in a
//! simulator and in `shoal verify`.

pub mod limits;
pub mod miner;
pub mod record;
pub mod refusal;
pub mod route;
pub mod shard;
pub mod spec;
pub mod state;

pub use ledger::{Fold, commit, verify};
pub use refusal::Refusal;
pub use state::State;
