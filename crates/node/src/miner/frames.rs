//! Tensors as frames: encoded, hashed, signed on the way out; verified and decoded on the way in.

use bytes::Bytes;
use codec::{CodecError, CodecId, DType, Limits, TensorRef};
use model::config::{Dtype, Message};
use wire::{FrameHeader, Hash, SignedFrame, SigningKey};

use crate::limits;
use crate::spec::FrameCodec;

/// Why a peer's frame is refused before the protocol looks at it.
#[derive(Debug, thiserror::Error)]
pub enum BadFrame {
    /// Header, signature or payload hash.
    #[error(transparent)]
    Frame(#[from] wire::FrameError),
    /// The payload does not decode.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// Not a codec of this run.
    #[error("codec {0} is not the run's")]
    Unknown(String),
    /// The tensor is not the one that the header names.
    #[error("the decoded tensor is not the one that the header names")]
    Tensor,
    /// A type of numbers that no cut sends.
    #[error("numbers of type {0} cross no cut")]
    Dtype(&'static str),
}

/// Hash of a tensor as frames carry it: name of the type, shape, bytes.
pub fn tensor_hash(message: &Message) -> Hash {
    let shape: Vec<u8> = message.shape.iter().flat_map(|size| (*size as u64).to_le_bytes()).collect();
    Hash::of_parts("shoal 2026-11 tensor", &[message.dtype.name().as_bytes(), &shape, &message.bytes])
}

/// An encoded tensor.
#[derive(Clone, Debug)]
pub struct Encoded {
    /// What crosses the wire.
    pub payload: Bytes,
    /// Hash of the payload.
    pub hash: Hash,
    /// Hash of the tensor.
    pub tensor: Hash,
    /// Codec that was used, by name.
    pub codec: &'static str,
}

/// Encodes a tensor.
pub fn encode(codec: FrameCodec, message: &Message) -> Result<Encoded, CodecError> {
    let FrameCodec::Raw = codec;
    let dtype = match message.dtype {
        Dtype::F32 => DType::F32,
        Dtype::Bf16 => DType::Bf16,
        Dtype::U8 => DType::U8,
    };
    let tensor = TensorRef::new(dtype, &message.shape, &message.bytes)?;
    let mut payload = Vec::with_capacity(message.bytes.len() + limits::PAYLOAD_OVERHEAD_BYTES);
    codec::encode(CodecId::Raw, tensor, &mut payload)?;
    let (hash, tensor) = (Hash::of(&payload), tensor_hash(message));
    Ok(Encoded { payload: payload.into(), hash, tensor, codec: RAW })
}

/// Name of the raw codec in frame headers.
const RAW: &str = "raw";

/// Decodes a payload whose hash was checked against `header`, and checks the tensor.
pub fn decode(header: &FrameHeader, payload: &[u8]) -> Result<Message, BadFrame> {
    if header.codec != RAW {
        return Err(BadFrame::Unknown(header.codec.clone()));
    }
    let limits = Limits { verify_checksum: false, ..Limits::default() };
    let tensor = codec::decode(payload, &limits)?;
    let dtype = match tensor.dtype() {
        DType::F32 => Dtype::F32,
        DType::Bf16 => Dtype::Bf16,
        DType::U8 => Dtype::U8,
        other => return Err(BadFrame::Dtype(other.name())),
    };
    let message = Message { dtype, shape: tensor.shape().to_vec(), bytes: tensor.into_bytes() };
    if tensor_hash(&message) != header.tensor_hash {
        return Err(BadFrame::Tensor);
    }
    Ok(message)
}

/// Puts an encoded tensor's facts into a header and signs it.
pub fn sign(key: &SigningKey, header: &FrameHeader, encoded: &Encoded) -> SignedFrame {
    SignedFrame::sign(
        key,
        FrameHeader {
            enc_len: encoded.payload.len() as u64,
            enc_hash: encoded.hash,
            tensor_hash: encoded.tensor,
            codec: encoded.codec.to_owned(),
            ..header.clone()
        },
    )
}
