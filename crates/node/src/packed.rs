//! Pieces of large vectors on the wire: encoded where that makes them smaller, given back bit for bit.
//!
//! Hashes and commitments are over the numbers themselves, so the receiver's checks are the same either way.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use codec::{DType, TensorRef};
use net::Message;

use crate::limits;
use crate::rpc::Reply;
use crate::spec::TensorCodec;

/// What is counted of the tensors that cross one node's wires.
#[derive(Debug, Default)]
pub(crate) struct Meter {
    merge: AtomicU64,
    merge_full: AtomicU64,
    codec_us: AtomicU64,
}

impl Meter {
    /// Counts a piece of a merge: bytes on the wire, bytes of its numbers.
    pub(crate) fn merge(&self, wire: usize, full: usize) {
        self.merge.fetch_add(wire as u64, Ordering::Relaxed);
        self.merge_full.fetch_add(full as u64, Ordering::Relaxed);
    }

    /// Counts time of an encoder or a decoder.
    pub(crate) fn codec_time(&self, time: Duration) {
        self.codec_us.fetch_add(time.as_micros() as u64, Ordering::Relaxed);
    }

    /// Merge bytes on the wire, of their numbers, and the codecs' time, all since the last call.
    pub(crate) fn take(&self) -> (u64, u64, Duration) {
        let take = |counter: &AtomicU64| counter.swap(0, Ordering::Relaxed);
        (take(&self.merge), take(&self.merge_full), Duration::from_micros(take(&self.codec_us)))
    }
}

/// The answer that carries `piece` of a thing of `total` bytes: numbers of type `dtype`, encoded if that is shorter.
pub(crate) async fn answer(codec: TensorCodec, dtype: DType, total: u64, piece: Bytes) -> Message {
    let plain = Reply::Piece { total };
    if codec == TensorCodec::Raw || piece.len() < limits::PACKED_MIN_BYTES {
        return plain.with_payload(piece);
    }
    let numbers = piece.clone();
    // Off the main task, and off the threads that compute.
    match tokio::task::spawn_blocking(move || pack(codec, dtype, &numbers)).await {
        Ok(Some(packed)) => Reply::Packed { total, len: piece.len() as u64 }.with_payload(packed),
        Ok(None) | Err(_) => plain.with_payload(piece),
    }
}

/// None if the bytes are no whole numbers, or would not become fewer.
fn pack(codec: TensorCodec, dtype: DType, numbers: &[u8]) -> Option<Bytes> {
    let shape = [numbers.len() / dtype.size()];
    let tensor = TensorRef::new(dtype, &shape, numbers).ok()?;
    let mut packed = Vec::with_capacity(numbers.len());
    let len = codec::encode(codec.id(), tensor, &mut packed).ok()?;
    (len < numbers.len()).then(|| packed.into())
}

/// The `len` bytes that were packed.
pub(crate) async fn unpack(packed: Bytes, len: u64) -> Result<Bytes, String> {
    let decode = move || {
        let limits =
            codec::Limits { verify_checksum: false, ..codec::Limits::with_max_decoded_bytes(len as usize) };
        codec::decode(&packed, &limits).map_err(|error| error.to_string())
    };
    let tensor = tokio::task::spawn_blocking(decode).await.map_err(|error| error.to_string())??;
    let bytes = tensor.into_bytes();
    if bytes.len() as u64 != len {
        return Err(format!("a packed piece of {} bytes where {len} were announced", bytes.len()));
    }
    Ok(bytes.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(dtype: DType) -> Bytes {
        let values = (0..50_000).map(|i| (i as f32 * 0.37).sin() * 1e-3);
        match dtype {
            DType::Bf16 => values.flat_map(|v| ((v.to_bits() >> 16) as u16).to_le_bytes()).collect(),
            _ => values.flat_map(f32::to_le_bytes).collect(),
        }
    }

    #[tokio::test]
    async fn every_codec_gives_the_bytes_back_and_most_make_them_fewer() {
        for dtype in [DType::Bf16, DType::F32] {
            for codec in TensorCodec::ALL {
                let bytes = numbers(dtype);
                let message = answer(codec, dtype, bytes.len() as u64, bytes.clone()).await;
                let got = match Reply::parse(&message).unwrap() {
                    Reply::Piece { .. } => {
                        assert_eq!(codec, TensorCodec::Raw);
                        message.payload
                    }
                    Reply::Packed { len, .. } => {
                        assert!(message.payload.len() * 10 < bytes.len() * 9, "{codec:?} {dtype:?}");
                        unpack(message.payload, len).await.unwrap()
                    }
                    other => panic!("{}", other.name()),
                };
                assert_eq!(got, bytes);
            }
        }
    }

    #[tokio::test]
    async fn what_lies_about_its_length_or_is_no_tensor_is_refused() {
        let bytes = numbers(DType::Bf16);
        let packed = pack(TensorCodec::Huffman, DType::Bf16, &bytes).unwrap();
        assert!(unpack(packed.clone(), bytes.len() as u64 - 2).await.is_err());
        assert!(unpack(packed.clone(), bytes.len() as u64 + 2).await.is_err());
        assert!(unpack(packed.slice(..packed.len() / 2), bytes.len() as u64).await.is_err());
        // Not whole numbers, and nothing to gain: as they are.
        assert!(pack(TensorCodec::Huffman, DType::F32, &bytes[..1023]).is_none());
        let message = answer(TensorCodec::Huffman, DType::Bf16, 3, Bytes::from_static(b"abc")).await;
        assert_eq!(Reply::parse(&message).unwrap(), Reply::Piece { total: 3 });
    }
}
