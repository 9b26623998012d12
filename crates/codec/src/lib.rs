//! Tensor to bytes and back: lossless and lossy codecs for neural activations, gradients and weights, one payload format.
//! It must never know of networks, files, runs or any other crate of the workspace.
//!
//! A *payload* is a self-describing, checksummed encoding of one tensor; [`header`] documents it byte by byte.

mod bytes;
mod context;
mod entropy;
pub mod error;
mod f32_halves;
mod fixed;
pub mod header;
mod layered;
pub mod limits;
mod payload;
mod simd;
pub mod tensor;

pub use error::CodecError;
pub use header::{CodecId, Header};
pub use limits::Limits;
pub use payload::{decode, decode_into, decode_into_at, encode, encode_at};
pub use simd::Level;
pub use tensor::{DType, Tensor, TensorRef};
