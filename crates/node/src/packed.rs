//! Pieces of large vectors on the wire: encoded where that makes them smaller, given back bit for bit.
//!
//! Hashes and commitments are over the numbers themselves, so the receiver's checks are the same either way.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use codec::{DType, TensorRef};
use net::Message;
use tokio::sync::Semaphore;
use wire::Millis;

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
    pub(crate) fn take(&self) -> (u64, u64, Millis) {
        let take = |counter: &AtomicU64| counter.swap(0, Ordering::Relaxed);
        // What is less than a millisecond stays for the next report.
        let whole = self.codec_us.load(Ordering::Relaxed) / 1000;
        self.codec_us.fetch_sub(whole * 1000, Ordering::Relaxed);
        (take(&self.merge), take(&self.merge_full), Millis(whole))
    }
}

/// Pieces that are encoded or decoded at a time. A permit goes with the work: that of a call which was given up goes on.
static LANES: Semaphore = Semaphore::const_new(limits::PACKED_LANES);

/// Runs `work` off the main task and off the threads that compute; returns its time too.
async fn apart<R: Send + 'static>(work: impl FnOnce() -> R + Send + 'static) -> Option<(R, Duration)> {
    let lane = LANES.acquire().await.ok()?;
    let timed = move || {
        let _lane = lane;
        let start = Instant::now();
        (work(), start.elapsed())
    };
    tokio::task::spawn_blocking(timed).await.ok()
}

/// The answer that carries `piece` of a thing of `total` bytes: numbers of type `dtype`, encoded if that is shorter.
pub(crate) async fn answer(
    codec: TensorCodec,
    dtype: DType,
    total: u64,
    piece: Bytes,
) -> (Message, Duration) {
    let plain = Reply::Piece { total };
    if codec == TensorCodec::Raw || piece.len() < limits::PACKED_MIN_BYTES {
        return (plain.with_payload(piece), Duration::ZERO);
    }
    let numbers = piece.clone();
    match apart(move || pack(codec, dtype, &numbers)).await {
        Some((Some(packed), time)) => {
            (Reply::Packed { total, len: piece.len() as u64 }.with_payload(packed), time)
        }
        Some((None, time)) => (plain.with_payload(piece), time),
        None => (plain.with_payload(piece), Duration::ZERO),
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

/// The `len` bytes that were packed, and the time that took.
pub(crate) async fn unpack(packed: Bytes, len: u64) -> Result<(Bytes, Duration), String> {
    let decode = move || {
        let limits =
            codec::Limits { verify_checksum: false, ..codec::Limits::with_max_decoded_bytes(len as usize) };
        codec::decode(&packed, &limits).map_err(|error| error.to_string())
    };
    let (tensor, time) = apart(decode).await.ok_or("decoding failed")?;
    let bytes = tensor?.into_bytes();
    if bytes.len() as u64 != len {
        return Err(format!("a packed piece of {} bytes where {len} were announced", bytes.len()));
    }
    Ok((bytes.into(), time))
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
                let (message, _) = answer(codec, dtype, bytes.len() as u64, bytes.clone()).await;
                let got = match Reply::parse(&message).unwrap() {
                    Reply::Piece { .. } => {
                        assert_eq!(codec, TensorCodec::Raw);
                        message.payload
                    }
                    Reply::Packed { len, .. } => {
                        assert!(message.payload.len() * 10 < bytes.len() * 9, "{codec:?} {dtype:?}");
                        unpack(message.payload, len).await.unwrap().0
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
        let (message, _) = answer(TensorCodec::Huffman, DType::Bf16, 3, Bytes::from_static(b"abc")).await;
        assert_eq!(Reply::parse(&message).unwrap(), Reply::Piece { total: 3 });
    }
}
