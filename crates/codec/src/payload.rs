//! Encoding and decoding of whole payloads: header, body by codec, checksum.

use crate::error::CodecError;
use crate::header::{CodecId, Header, finish};
use crate::limits::Limits;
use crate::tensor::{Tensor, TensorRef};

/// Appends `tensor` to `out` as one payload, and returns the payload's length in bytes.
///
/// `out` is only appended to, so a frame header may stand before, and a reused buffer costs no allocation. A lossless
/// codec that would not shrink the tensor writes it as [`CodecId::Raw`]; the header tells.
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
    let start = out.len();
    Header::begin(codec, tensor.dtype(), tensor.shape(), out);
    match codec {
        CodecId::Raw => out.extend_from_slice(tensor.bytes()),
    }
    finish(start, tensor.shape().len(), out);
    Ok(out.len() - start)
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

/// Like [`decode`], into a buffer that is cleared first and whose memory is reused.
pub fn decode_into(payload: &[u8], limits: &Limits, out: &mut Vec<u8>) -> Result<Header, CodecError> {
    out.clear();
    let (header, body) = Header::split(payload, limits)?;
    match header.codec {
        CodecId::Raw => {
            if body.len() != header.decoded_bytes {
                let reason = "body length differs from the tensor's size";
                return Err(CodecError::Malformed { codec: header.codec, reason });
            }
            out.extend_from_slice(body);
        }
    }
    Ok(header)
}
