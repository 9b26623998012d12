//! Encoding and decoding of whole payloads: header, body by codec, checksum.

use crate::context;
use crate::error::CodecError;
use crate::header::{CODEC_AT, CodecId, Header, finish};
use crate::layered::{self, Effort};
use crate::limits::Limits;
use crate::lossy;
use crate::predictive;
use crate::shared::Shared;
use crate::simd::Level;
use crate::tensor::{Tensor, TensorRef};

/// Elements below which the context codec is compared with the huffman codec.
const SMALL: usize = 1 << 14;

/// Appends `tensor` to `out` as one payload, and returns the payload's length in bytes.
///
/// `out` is only appended to, so a frame header may stand before, and a reused buffer costs no allocation. A lossless
/// codec that would not shrink the tensor writes it as [`CodecId::Raw`], and the context codec a small one as
/// [`CodecId::Huffman`] where that is smaller; the header tells.
///
/// # Examples
/// ```
/// use shoal_codec::{CodecId, DType, Limits, TensorRef, decode, encode};
///
/// let bytes = [0x80, 0x3f, 0x00, 0x40]; // 1.0 and 2.0
/// let tensor = TensorRef::new(DType::Bf16, &[2], &bytes)?;
/// let mut payload = Vec::new();
/// encode(CodecId::Raw, tensor, &mut payload)?;
/// assert_eq!(decode(&payload, &Limits::default())?.bytes(), bytes);
/// # Ok::<(), shoal_codec::CodecError>(())
/// ```
pub fn encode(codec: CodecId, tensor: TensorRef<'_>, out: &mut Vec<u8>) -> Result<usize, CodecError> {
    encode_at(Level::detect(), codec, tensor, out)
}

/// Like [`encode`], with the kernels of `level`, or the scalar ones where the machine lacks it: the same bytes.
pub fn encode_at(
    level: Level,
    codec: CodecId,
    tensor: TensorRef<'_>,
    out: &mut Vec<u8>,
) -> Result<usize, CodecError> {
    let level = level.checked();
    let start = out.len();
    Header::begin(codec, tensor.dtype(), tensor.shape(), out);
    let shrunk = match codec {
        CodecId::Raw => false,
        CodecId::Fast => layered::encode(level, Effort::Window, tensor, out),
        CodecId::Huffman => layered::encode(level, Effort::Layers, tensor, out),
        CodecId::Context => context_or_layers(level, tensor, start, out),
        CodecId::Predictive => {
            out.truncate(start);
            return Err(CodecError::NeedsParameters { codec, entry: "encode_predictive" });
        }
        CodecId::Uniform | CodecId::Int8 | CodecId::Klt | CodecId::LowRank => {
            out.truncate(start);
            return Err(CodecError::NeedsParameters { codec, entry: "encode_lossy" });
        }
    };
    if !shrunk {
        out[start + CODEC_AT] = CodecId::Raw as u8;
        out.extend_from_slice(tensor.bytes());
    }
    finish(start, tensor.shape().len(), out);
    Ok(out.len() - start)
}

/// The body of the context codec, or of the huffman codec where tensors are too small for tables of contexts.
fn context_or_layers(level: Level, tensor: TensorRef<'_>, start: usize, out: &mut Vec<u8>) -> bool {
    let body = out.len();
    let shrunk = context::encode(level, tensor, out);
    if tensor.len() >= SMALL {
        return shrunk;
    }
    let mut other = Vec::new();
    let other_shrunk = layered::encode(level, Effort::Layers, tensor, &mut other);
    if other_shrunk && (!shrunk || other.len() < out.len() - body) {
        out.truncate(body);
        out.extend_from_slice(&other);
        out[start + CODEC_AT] = CodecId::Huffman as u8;
        return true;
    }
    shrunk
}

/// Decodes one payload, which must end where `payload` does.
///
/// # Errors
/// Any malformed input; never a panic, and never more memory than the decoded size that the header states and
/// `limits` allow, plus a fixed amount of scratch.
pub fn decode(payload: &[u8], limits: &Limits) -> Result<Tensor, CodecError> {
    let mut bytes = Vec::new();
    let header = decode_into(payload, limits, &mut bytes)?;
    Tensor::new(header.dtype, header.shape().to_vec(), bytes)
}

/// Like [`decode`], into a buffer whose memory is reused; what it held is gone, also after an error.
pub fn decode_into(payload: &[u8], limits: &Limits, out: &mut Vec<u8>) -> Result<Header, CodecError> {
    decode_into_at(Level::detect(), payload, limits, &Shared::default(), out)
}

/// Like [`decode_into`], with the kernels of `level`, or the scalar ones where the machine lacks it: the same
/// bytes. `shared` holds the predictors and bases that payloads may name.
pub fn decode_into_at(
    level: Level,
    payload: &[u8],
    limits: &Limits,
    shared: &Shared,
    out: &mut Vec<u8>,
) -> Result<Header, CodecError> {
    let result = decode_body(level.checked(), payload, limits, shared, out);
    if result.is_err() {
        out.clear();
    }
    result
}

fn decode_body(
    level: Level,
    payload: &[u8],
    limits: &Limits,
    shared: &Shared,
    out: &mut Vec<u8>,
) -> Result<Header, CodecError> {
    let (header, body) = Header::split(payload, limits)?;
    if header.codec == CodecId::Raw {
        if body.len() != header.decoded_bytes {
            let reason = "body length differs from the tensor's size";
            return Err(CodecError::Malformed { codec: header.codec, reason });
        }
        out.clear();
        out.extend_from_slice(body);
        return Ok(header);
    }
    // Old contents stay where they are: every byte is written anew.
    out.resize(header.decoded_bytes, 0);
    match header.codec {
        CodecId::Raw => {}
        CodecId::Fast | CodecId::Huffman => layered::decode(level, &header, body, out)?,
        CodecId::Context => context::decode(level, &header, body, out)?,
        CodecId::Predictive => {
            let id = predictive::predictor_id(&header, body)?;
            predictive::decode(level, shared.predictor(id)?, &header, body, out)?;
        }
        CodecId::Uniform => lossy::uniform::decode(level, &header, body, out)?,
        CodecId::Int8 => lossy::int8::decode(level, &header, body, out)?,
        CodecId::Klt => {
            let id = lossy::klt::basis_id(&header, body)?;
            lossy::klt::decode(level, shared.basis(id)?, &header, body, out)?;
        }
        CodecId::LowRank => lossy::lowrank::decode(level, &header, body, out)?,
    }
    Ok(header)
}
