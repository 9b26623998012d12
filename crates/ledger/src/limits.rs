//! Bounds on what a log holds.

/// Most records of a block.
pub const BLOCK_RECORDS_MAX: usize = 65_536;
/// Longest record, bytes.
pub const RECORD_BYTES_MAX: usize = 16 << 20;
/// Most bytes of all records of a block. The orchestrator closes a block at 1 MiB of inputs; what follows from them
/// comes on top.
pub const BLOCK_BYTES_MAX: usize = 64 << 20;
/// Longest encoded block, bytes: records, a length before each, header and signature.
pub const ENCODED_BLOCK_BYTES_MAX: usize = BLOCK_BYTES_MAX + 5 * BLOCK_RECORDS_MAX + 512;
