//! This workspace's codecs behind the component interface.
//!
//! It must never know which of them a component is.

use codec::{CodecId, DType, Level, Limits, Target, TensorRef};
use guest::{Dtype, Meta};

/// Most bytes of a tensor: addresses have 32 bits.
const TENSOR_BYTES_MAX: usize = 256 << 20;

fn dtype(meta: &Meta) -> DType {
    match meta.dtype {
        Dtype::Bf16 => DType::Bf16,
        Dtype::F16 => DType::F16,
        Dtype::F32 => DType::F32,
        Dtype::U16 => DType::U16,
        Dtype::U8 => DType::U8,
    }
}

/// Lossless.
pub fn compress(codec: CodecId, data: &[u8], meta: &Meta) -> Result<Vec<u8>, String> {
    with_tensor(data, meta, |tensor, out| codec::encode(codec, tensor, out))
}

/// Lossy, at least this similar.
pub fn compress_lossy(similarity: f64, data: &[u8], meta: &Meta) -> Result<Vec<u8>, String> {
    with_tensor(data, meta, |tensor, out| {
        let target = Target::similarity(similarity)?;
        codec::encode_lossy(Level::detect(), CodecId::Uniform, target, tensor, out)
    })
}

fn with_tensor(
    data: &[u8],
    meta: &Meta,
    encode: impl FnOnce(TensorRef<'_>, &mut Vec<u8>) -> Result<usize, codec::CodecError>,
) -> Result<Vec<u8>, String> {
    let shape: Vec<usize> = meta.shape.iter().map(|side| *side as usize).collect();
    let tensor = TensorRef::new(dtype(meta), &shape, data).map_err(|error| error.to_string())?;
    let mut out = Vec::with_capacity(data.len() + 256);
    encode(tensor, &mut out).map_err(|error| error.to_string())?;
    Ok(out)
}

/// Any payload of ours.
pub fn decompress(data: &[u8]) -> Result<Vec<u8>, String> {
    let limits = Limits::with_max_decoded_bytes(TENSOR_BYTES_MAX);
    Ok(codec::decode(data, &limits).map_err(|error| error.to_string())?.into_bytes())
}
