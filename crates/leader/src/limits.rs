//! Every bound of the writer, in one place.

use std::time::Duration;

/// Inputs waiting for the next block; senders of more are told to come again.
pub const INPUT_QUEUE: usize = 8192;
/// Bytes of inputs after which a group commit waits no longer (protocol §6 "Block").
pub const GROUP_COMMIT_BYTES: usize = 1 << 20;
/// Inputs in one block.
pub const GROUP_COMMIT_INPUTS: usize = 4096;
/// Longest a block may take to become durable.
pub const APPEND: Duration = Duration::from_secs(30);
