//! Every bound on what comes from outside, in one place.

/// Longest encoded envelope body, bytes (a work batch of a large miner is the longest).
pub const ENVELOPE_BODY_BYTES: usize = 1 << 20;
/// Furthest an envelope's time may lie from the receiver's clock, milliseconds.
pub const ENVELOPE_SKEW_MS: u64 = 120_000;
/// Nonces remembered per sender; the oldest falls out, its time is then already stale.
pub const NONCES_PER_SENDER: usize = 65_536;
/// Largest tensor payload of one frame, bytes.
pub const FRAME_PAYLOAD_BYTES: u64 = 1 << 30;
/// Longest codec name in a frame header, bytes.
pub const CODEC_NAME_BYTES: usize = 64;
/// Smallest leaf of a Merkle tree over f32 vectors, elements (protocol §1.2 "Leaves").
pub const LEAF_ELEMENTS_MIN: usize = 4096;
/// Most leaves of a Merkle tree over f32 vectors (protocol §1.2 "Leaves").
pub const LEAVES_MAX: usize = 65_536;
