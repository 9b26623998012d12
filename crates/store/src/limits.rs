//! Every bound on what is stored, in one place.

/// Largest blob, bytes.
pub const BLOB_BYTES: u64 = 64 << 30;
/// Largest blob that [`crate::Blobs::put`] and [`crate::Blobs::get`] hold in memory at once, bytes; larger ones are streamed.
pub const BLOB_IN_MEMORY_BYTES: u64 = 4 << 30;
/// Size of a chunk of a streamed blob, bytes.
pub const CHUNK_BYTES: usize = 1 << 20;
/// Largest block of the log, bytes: the group commit's 1 MiB, one longest envelope over it, and room for headers.
pub const BLOCK_BYTES: usize = 4 << 20;
/// Most blocks that one read returns.
pub const READ_BLOCKS: u32 = 4096;
/// Bytes of blocks after which one read stops.
pub const READ_BYTES: usize = 64 << 20;
/// Longest key of a node's durable state, bytes.
pub const KEY_BYTES: usize = 256;
/// Largest value of a node's durable state, bytes.
pub const VALUE_BYTES: usize = 16 << 20;
