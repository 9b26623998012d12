//! Merging a stage after an epoch, and catching up with a merge that was missed (protocol §1.2).

pub mod io;

pub use io::{Action, Apply, Event, Fetched, Shard, Summand, Want};
