//! Tensor to bytes and back: lossless and lossy codecs for neural activations, gradients and weights, one payload format.
//! It must never know of networks, files, runs or any other crate of the workspace.
//!
//! A *payload* is a self-describing, checksummed encoding of one tensor; [`header`] documents it byte by byte.
//!
//! ```
//! use shoal_codec::{CodecId, DType, Limits, TensorRef, decode, encode};
//!
//! // 1.0, 1.0078125, … as bf16: two little-endian bytes each.
//! let bytes: Vec<u8> = (0..1024_u16).flat_map(|i| (0x3f80 | i % 128).to_le_bytes()).collect();
//! let tensor = TensorRef::new(DType::Bf16, &[32, 32], &bytes)?;
//!
//! // The buffer is appended to; clear and reuse it for the next tensor.
//! let mut payload = Vec::new();
//! let length = encode(CodecId::Huffman, tensor, &mut payload)?;
//! assert!(length < bytes.len());
//!
//! // Whoever decodes says how large a tensor may be.
//! let got = decode(&payload, &Limits::with_max_decoded_bytes(1 << 20))?;
//! assert_eq!(got.bytes(), bytes);
//! # Ok::<(), shoal_codec::CodecError>(())
//! ```
//!
//! | codec | what it does |
//! |---|---|
//! | [`CodecId::Raw`] | nothing |
//! | [`CodecId::Fast`] | one window of seven exponents, escapes |
//! | [`CodecId::Huffman`] | exponents in layers of bit planes |
//! | [`CodecId::Context`] | sign, exponent, first mantissa bit in context of row and column |
//! | [`CodecId::Predictive`] | columns predicted by a shared [`Predictor`], learned by a [`Learner`] |
//! | [`CodecId::Uniform`], [`CodecId::Int8`] | lossy to a stated [`Target`] ([`encode_lossy`]) |
//! | [`CodecId::Klt`] | lossy, rows in a shared [`Basis`] ([`encode_klt`]) |
//! | [`CodecId::LowRank`] | lossy, factors with error feedback ([`encode_low_rank`]) |
//!
//! [`Auto`] picks a lossless codec for a link; [`inspect()`] says what a tensor holds.
//!
//! Kernels are chosen at run time ([`Level`]); all levels write and read the same bytes. Decoders take any input.

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
mod parallel;
mod payload;
mod predictive;
mod probe;
mod scratch;
mod shared;
mod simd;
pub mod tensor;

pub use auto::{Auto, Link, Speed, Wire};
pub use error::CodecError;
pub use header::{CodecId, Header, checksum};
pub use inspect::{Inspection, inspect};
pub use limits::Limits;
pub use lossy::{
    Basis, LowRank, Target, encode_klt, encode_lossy, encode_low_rank, relative_error, similarity,
};
pub use parallel::with_threads;
pub use payload::{decode, decode_into, decode_into_at, encode, encode_at};
pub use predictive::{Learner, Predictor, encode_predictive};
pub use shared::Shared;
pub use simd::Level;
pub use tensor::{DType, Tensor, TensorRef};
