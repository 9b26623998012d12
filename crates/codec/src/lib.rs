//! Tensor to bytes and back: lossless and lossy codecs for neural activations, gradients and weights, one payload format.
//! It must never know of networks, files, runs or any other crate of the workspace.
//!
//! A *payload* is a self-describing, checksummed encoding of one tensor; [`header`] documents it byte by byte.

pub mod error;
pub mod header;
pub mod limits;
mod payload;
pub mod tensor;

pub use error::CodecError;
pub use header::{CodecId, Header};
pub use limits::Limits;
pub use payload::{decode, decode_into, encode};
pub use tensor::{DType, Tensor, TensorRef};
