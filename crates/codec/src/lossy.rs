//! Lossy codecs with a stated target that every payload meets.
//!
//! All of them quantise with one uniform step, which is what a target on the whole tensor asks for: equal error
//! everywhere is the cheapest way to a given sum (reverse water-filling; Cover and Thomas, "Elements of Information
//! Theory", §10.3). Where the values differ in scale, the entropy coder's contexts take the gain. What is decoded is a
//! product of integers and one f32 factor, rounded once, so every machine gives the same bits.
//!
//! The encoder decodes in its head and measures; a payload that would miss its target is never written. Tensors that no
//! lossy codec can serve (not floats, not finite, a target above what the type can hold) are written lossless.

pub(crate) mod basis;
pub(crate) mod codes;
pub(crate) mod int8;
pub(crate) mod klt;
pub(crate) mod lowrank;
pub(crate) mod measure;
pub(crate) mod uniform;
pub(crate) mod values;

pub use basis::Basis;
pub use klt::encode_klt;
pub use lowrank::{LowRank, encode_low_rank};
pub use measure::{Target, relative_error, similarity};

use crate::error::CodecError;
use crate::header::{CodecId, Header, finish};
use crate::simd::Level;
use crate::tensor::TensorRef;

/// Appends `tensor` as one payload that meets `target`, and returns its length in bytes.
///
/// `codec` is [`CodecId::Uniform`] or [`CodecId::Int8`]; the basis and low-rank codecs have their own entry points.
///
/// # Examples
/// ```
/// use shoal_codec::{CodecId, DType, Level, Limits, Target, TensorRef, decode, encode_lossy, similarity};
///
/// let bytes: Vec<u8> = (0..4096_u32).flat_map(|i| (0x3f80 ^ (i * 37 % 512) as u16).to_le_bytes()).collect();
/// let tensor = TensorRef::new(DType::Bf16, &[64, 64], &bytes)?;
/// let mut payload = Vec::new();
/// encode_lossy(Level::detect(), CodecId::Uniform, Target::similarity(0.97)?, tensor, &mut payload)?;
/// let got = decode(&payload, &Limits::default())?;
/// assert!(similarity(tensor, got.view())? >= 0.97);
/// # Ok::<(), shoal_codec::CodecError>(())
/// ```
pub fn encode_lossy(
    level: Level,
    codec: CodecId,
    target: Target,
    tensor: TensorRef<'_>,
    out: &mut Vec<u8>,
) -> Result<usize, CodecError> {
    let level = level.checked();
    let body = |out: &mut Vec<u8>| match codec {
        CodecId::Int8 => int8::encode(level, target, tensor, out),
        _ => uniform::encode(level, target, tensor, out),
    };
    match codec {
        CodecId::Uniform => payload_or_lossless(level, codec, tensor, out, body),
        CodecId::Int8 => {
            let start = out.len();
            let length = payload_or_lossless(level, codec, tensor, out, body)?;
            if out[start + crate::header::CODEC_AT] == CodecId::Int8 as u8 {
                return Ok(length);
            }
            // Blocks of bytes are too coarse for this target; a free step is not.
            out.truncate(start);
            encode_lossy(level, CodecId::Uniform, target, tensor, out)
        }
        CodecId::Klt => Err(CodecError::NeedsParameters { codec, entry: "encode_klt" }),
        CodecId::LowRank => Err(CodecError::NeedsParameters { codec, entry: "encode_low_rank" }),
        _ => crate::payload::encode_at(level, codec, tensor, out),
    }
}

/// Writes a payload whose body `body` appends, or a lossless one where `body` declines or saves nothing.
pub(crate) fn payload_or_lossless(
    level: Level,
    codec: CodecId,
    tensor: TensorRef<'_>,
    out: &mut Vec<u8>,
    body: impl FnOnce(&mut Vec<u8>) -> bool,
) -> Result<usize, CodecError> {
    let start = out.len();
    Header::begin(codec, tensor.dtype(), tensor.shape(), out);
    if !body(out) || out.len() - start > tensor.bytes().len() {
        out.truncate(start);
        return crate::payload::encode_at(level, CodecId::Context, tensor, out);
    }
    finish(start, tensor.shape().len(), out);
    Ok(out.len() - start)
}
