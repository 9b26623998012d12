//! Ids, units, limits, messages and their version, signed envelopes and frames: what crosses between nodes.
//!
//! This crate must never know what a message is for: no protocol state, no I/O, no clock, no randomness.

pub mod envelope;
pub mod frame;
pub mod id;
pub mod key;
pub mod limits;
pub mod merkle;
pub mod unit;

pub use envelope::{Envelope, EnvelopeError, Nonces};
pub use frame::{Direction, FrameError, FrameHeader, Head, Receipt, SignedFrame};
pub use id::{Hash, LeaseId, NodeId, RunId, StageIndex};
pub use key::{Signature, SigningKey};
pub use unit::{Epoch, MicroBatch, Millis, Seq, Step, Term};

/// Version of every message and record; a peer with another one is refused by name.
pub const PROTOCOL_VERSION: u16 = 1;

/// Room that an encoding begins with, bytes: an envelope with a short body.
const ENCODED_BYTES: usize = 256;

/// Encodes a value canonically (postcard: deterministic for ordered types).
///
/// # Panics
/// Never for the types of this project: postcard fails only on unsized sequences or a full fixed buffer.
pub fn to_bytes<T: serde::Serialize>(value: &T) -> Vec<u8> {
    // With room from the start: most values are short, and a vector that grows byte by byte is moved several times.
    let bytes = Vec::with_capacity(ENCODED_BYTES);
    postcard::to_extend(value, bytes)
        .expect("postcard into a growing vector fails only for unsized sequences")
}

/// Decodes a value and refuses trailing bytes, so that each value has one encoding.
///
/// # Errors
/// The input is truncated, longer than its value, or not of this type.
pub fn from_bytes<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> Result<T, DecodeError> {
    let (value, rest) =
        postcard::take_from_bytes(bytes).map_err(|_| DecodeError::Malformed { len: bytes.len() })?;
    if rest.is_empty() { Ok(value) } else { Err(DecodeError::Trailing { extra: rest.len() }) }
}

/// Why bytes are not a message of ours.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Truncated, or not of the expected type.
    #[error("{len} bytes do not decode as the expected message")]
    Malformed {
        /// Length of the input in bytes.
        len: usize,
    },
    /// A complete value with bytes behind it.
    #[error("{extra} bytes follow the message")]
    Trailing {
        /// Number of surplus bytes.
        extra: usize,
    },
}
