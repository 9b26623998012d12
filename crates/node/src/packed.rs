//! Pieces of large vectors on the wire: encoded where that makes them smaller, given back bit for bit.
//!
//! Hashes and commitments are over the numbers themselves, so the receiver's checks are the same either way.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use codec::{Auto, CodecError, CodecId, DType, Level, Predictor, TensorRef};
use net::Message;
use tokio::sync::Semaphore;
use wire::Millis;

use crate::limits;
use crate::miner::frames::Decoded;
use crate::rpc::Reply;
use crate::spec::TensorCodec;

/// What is counted of the tensors that cross one node's wires, and learned from it.
#[derive(Debug)]
pub(crate) struct Meter {
    merge: AtomicU64,
    merge_full: AtomicU64,
    codec_us: AtomicU64,
    /// Encoded activations and gradients that are being sent, bytes.
    sending: AtomicU64,
    /// What the codecs of this machine were seen to do.
    speeds: Mutex<Auto>,
}

impl Default for Meter {
    fn default() -> Self {
        let (merge, merge_full, codec_us, sending) = Default::default();
        let speeds = Mutex::new(Auto::new(Level::detect()));
        Self { merge, merge_full, codec_us, sending, speeds }
    }
}

/// Holds bytes among those that are being sent.
#[derive(Debug)]
pub(crate) struct Sending<'a> {
    meter: &'a Meter,
    bytes: u64,
}

impl Drop for Sending<'_> {
    fn drop(&mut self) {
        self.meter.sending.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

impl Meter {
    /// Counts bytes as being sent, until what is returned is dropped.
    pub(crate) fn sending(&self, bytes: usize) -> Sending<'_> {
        let bytes = bytes as u64;
        self.sending.fetch_add(bytes, Ordering::Relaxed);
        Sending { meter: self, bytes }
    }

    /// The codec that `tensor` crosses by, over a link of the measured `speed`, bytes per second.
    pub(crate) fn choose(
        &self,
        codec: TensorCodec,
        tensor: TensorRef<'_>,
        speed: Option<f64>,
        predictor: Option<&Predictor>,
    ) -> Result<CodecId, CodecError> {
        match codec.id() {
            Some(CodecId::Predictive) if predictor.is_none() => return Ok(CodecId::Context),
            Some(codec) => return Ok(codec),
            None => {}
        }
        let bytes_per_s = speed.unwrap_or(limits::UNMEASURED_BYTES_PER_S);
        let backlog_s = self.sending.load(Ordering::Relaxed) as f64 / bytes_per_s;
        let speeds = self.speeds.lock().unwrap_or_else(PoisonError::into_inner).clone();
        speeds.choose(tensor, codec::Link { bytes_per_s, backlog_s, decoding_s: 0.0 }, predictor)
    }

    /// Counts time that a codec took to encode or to decode `bytes` of a tensor, and learns its speed.
    pub(crate) fn worked(&self, codec: CodecId, bytes: usize, encoding: Duration, decoding: Duration) {
        self.codec_time(encoding + decoding);
        let mut speeds = self.speeds.lock().unwrap_or_else(PoisonError::into_inner);
        speeds.observe(codec, bytes, encoding.as_secs_f64(), decoding.as_secs_f64());
    }

    /// Counts the time that decoding a frame took, and learns from it if it was a codec of ours.
    pub(crate) fn decoded(&self, decoded: &Decoded) {
        match decoded.codec {
            Some(codec) => self.worked(codec, decoded.message.bytes.len(), Duration::ZERO, decoded.time),
            None => self.codec_time(decoded.time),
        }
    }

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
/// `speed`: of the link, as it was measured, bytes per second.
pub(crate) async fn answer(
    meter: &Arc<Meter>,
    codec: TensorCodec,
    speed: Option<f64>,
    dtype: DType,
    total: u64,
    piece: Bytes,
) -> Message {
    let plain = Reply::Piece { total };
    if codec == TensorCodec::Raw || piece.len() < limits::PACKED_MIN_BYTES {
        return plain.with_payload(piece);
    }
    let (numbers, meter) = (piece.clone(), Arc::clone(meter));
    match apart(move || pack(&meter, codec, speed, dtype, &numbers)).await {
        Some((Some(packed), _)) => Reply::Packed { total, len: piece.len() as u64 }.with_payload(packed),
        _ => plain.with_payload(piece),
    }
}

/// None if the bytes are no whole numbers, or would not become fewer.
fn pack(
    meter: &Meter,
    codec: TensorCodec,
    speed: Option<f64>,
    dtype: DType,
    numbers: &[u8],
) -> Option<Bytes> {
    let shape = [numbers.len() / dtype.size()];
    let tensor = TensorRef::new(dtype, &shape, numbers).ok()?;
    let codec = meter.choose(codec, tensor, speed, None).ok()?;
    if codec == CodecId::Raw {
        return None;
    }
    let start = Instant::now();
    let mut packed = Vec::with_capacity(numbers.len());
    let len = codec::encode(codec, tensor, &mut packed).ok()?;
    meter.worked(codec, numbers.len(), start.elapsed(), Duration::ZERO);
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
                let meter = Arc::default();
                let total = bytes.len() as u64;
                let message = answer(&meter, codec, None, dtype, total, bytes.clone()).await;
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

    #[test]
    fn auto_follows_the_link_and_what_the_codecs_do() {
        let meter = Meter::default();
        let bytes = numbers(DType::Bf16);
        let shape = [bytes.len() / 2];
        let tensor = TensorRef::new(DType::Bf16, &shape, &bytes).unwrap();
        let choose = |speed: f64| meter.choose(TensorCodec::Auto, tensor, Some(speed), None).unwrap();
        assert_eq!(choose(1e3), CodecId::Context);
        assert_eq!(choose(1e13), CodecId::Raw);
        assert_eq!(meter.choose(TensorCodec::Fast, tensor, Some(1e3), None).unwrap(), CodecId::Fast);
        // Encoders that were seen to crawl are not worth it.
        for codec in [CodecId::Fast, CodecId::Huffman, CodecId::Context] {
            for _ in 0..200 {
                meter.worked(codec, 1000, Duration::from_secs(10), Duration::ZERO);
            }
        }
        assert_eq!(choose(1e3), CodecId::Raw);
        // While the link is busy for longer than that, their work costs nothing.
        let sending = meter.sending(1 << 40);
        assert_ne!(choose(1e3), CodecId::Raw);
        drop(sending);
        assert_eq!(choose(1e3), CodecId::Raw);
    }

    #[tokio::test]
    async fn what_lies_about_its_length_or_is_no_tensor_is_refused() {
        let bytes = numbers(DType::Bf16);
        let meter = Arc::default();
        let packed = pack(&meter, TensorCodec::Huffman, None, DType::Bf16, &bytes).unwrap();
        assert!(unpack(packed.clone(), bytes.len() as u64 - 2).await.is_err());
        assert!(unpack(packed.clone(), bytes.len() as u64 + 2).await.is_err());
        assert!(unpack(packed.slice(..packed.len() / 2), bytes.len() as u64).await.is_err());
        // Not whole numbers, and nothing to gain: as they are.
        assert!(pack(&meter, TensorCodec::Huffman, None, DType::F32, &bytes[..1023]).is_none());
        let short = Bytes::from_static(b"abc");
        let message = answer(&meter, TensorCodec::Huffman, None, DType::Bf16, 3, short).await;
        assert_eq!(Reply::parse(&message).unwrap(), Reply::Piece { total: 3 });
    }
}
