//! The competition protocol, pure: competitions, rounds, sealed entries, verdicts, takeovers, boards, rewards.
//!
//! This crate must never know tokio, a clock, randomness, files, sockets or an entry's code: time, seeds and input are
//! arguments, effects are data. The same code runs in the host, in every judge that follows the log, and in whoever
//! verifies it.

pub mod block;
pub mod calendar;
pub mod limits;
pub mod measure;
pub mod number;
pub mod record;
pub mod refusal;
pub mod rule;
pub mod spec;
pub mod state;
pub mod verify;

pub use refusal::Refusal;
pub use state::State;
