//! Tensor to bytes and back: lossless and lossy codecs for neural activations, gradients and weights, one payload format.
//! It must never know of networks, files, runs or any other crate of the workspace.
//!
//! A *payload* is a self-describing, checksummed encoding of one tensor; [`header`] documents it byte by byte.

mod auto;
pub mod bench;
mod bits;
mod bytes;
mod context;
mod entropy;
pub mod error;
mod f32_halves;
mod fixed;
pub mod header;
mod inspect;
mod kernel;
mod layered;
pub mod limits;
mod linalg;
mod lossy;
mod payload;
mod predictive;
mod shared;
mod simd;
pub mod tensor;

pub use auto::{Auto, Speed};
pub use error::CodecError;
pub use header::{CodecId, Header};
pub use inspect::{Inspection, inspect};
pub use limits::Limits;
pub use lossy::{
    Basis, LowRank, Target, encode_klt, encode_lossy, encode_low_rank, relative_error, similarity,
};
pub use payload::{decode, decode_into, decode_into_at, encode, encode_at};
pub use predictive::{Predictor, encode_predictive};
pub use shared::Shared;
pub use simd::Level;
pub use tensor::{DType, Tensor, TensorRef};
