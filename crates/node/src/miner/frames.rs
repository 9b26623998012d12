//! Tensors as frames: encoded, hashed, signed on the way out; verified and decoded on the way in.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use codec::{CodecError, CodecId, DType, Level, Limits, Predictor, Shared, TensorRef};
use model::config::{Dtype, Message};
use wire::{FrameHeader, Hash, SignedFrame, SigningKey};

use crate::champion::{Champions, Undecoded, is_component_name};
use crate::limits;
use crate::packed::Meter;
use crate::spec::{RunSpec, TensorCodec};

/// Why a peer's frame is refused before the protocol looks at it.
#[derive(Debug, thiserror::Error)]
pub enum BadFrame {
    /// Header, signature or payload hash.
    #[error(transparent)]
    Frame(#[from] wire::FrameError),
    /// The payload does not decode.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// Not a codec that tensors cross by.
    #[error("tensors do not cross by codec {0}")]
    Unknown(String),
    /// A predictor that this node does not hold.
    #[error("predictor {0:016x} is not here")]
    NoPredictor(u64),
    /// A component that this node has not compiled.
    #[error("component {0} is not ready here")]
    NotReady(String),
    /// A component did not give back the tensor that the header names.
    #[error("component {}: {reason}", component.short())]
    Champion {
        /// Component.
        component: Hash,
        /// What happened.
        reason: String,
        /// The tensor that it gave; none if none.
        decoded: Option<Hash>,
        /// Whether the component or the sender is to blame, and not this machine.
        fault: bool,
    },
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
    pub codec: Arc<str>,
    /// What whoever decodes it must hold.
    pub(crate) predictor: Option<Arc<Predictor>>,
}

/// A decoded tensor.
#[derive(Debug)]
pub struct Decoded {
    /// The tensor.
    pub message: Message,
    /// Which codec of ours it was; none: a champion.
    pub(crate) codec: Option<CodecId>,
    /// Time that took.
    pub(crate) time: Duration,
}

/// A tensor as a payload of `codec`; none if it has no shape that a payload can have.
pub(crate) fn payload(codec: CodecId, message: &Message) -> Option<Vec<u8>> {
    let mut payload = Vec::with_capacity(message.bytes.len() + limits::PAYLOAD_OVERHEAD_BYTES);
    codec::encode(codec, view(message).ok()?, &mut payload).ok()?;
    Some(payload)
}

/// A tensor as the codec crate sees it.
pub(crate) fn view(message: &Message) -> Result<TensorRef<'_>, CodecError> {
    TensorRef::new(dtype(message), &message.shape, &message.bytes)
}

fn dtype(message: &Message) -> DType {
    match message.dtype {
        Dtype::F32 => DType::F32,
        Dtype::Bf16 => DType::Bf16,
        Dtype::U8 => DType::U8,
    }
}

/// Encodes a tensor for a link of the measured `speed`, bytes per second.
pub(crate) fn encode(
    codec: TensorCodec,
    message: &Message,
    speed: Option<f64>,
    meter: &Meter,
    predictor: Option<Arc<Predictor>>,
) -> Result<Encoded, CodecError> {
    let tensor = view(message)?;
    let codec = meter.choose(codec, tensor, speed, predictor.as_deref())?;
    let start = Instant::now();
    let mut payload = Vec::with_capacity(message.bytes.len() + limits::PAYLOAD_OVERHEAD_BYTES);
    match &predictor {
        Some(predictor) if codec == CodecId::Predictive => {
            codec::encode_predictive(Level::detect(), predictor, tensor, &mut payload)?
        }
        _ => codec::encode(codec, tensor, &mut payload)?,
    };
    meter.worked(codec, message.bytes.len(), start.elapsed(), Duration::ZERO);
    // Codecs give way: to another where that is smaller, to none where nothing is.
    let used = codec::Header::parse(&payload, &Limits::with_max_decoded_bytes(message.bytes.len()))?.codec;
    let (hash, tensor) = (Hash::of(&payload), tensor_hash(message));
    let predictor = predictor.filter(|_| used == CodecId::Predictive);
    Ok(Encoded { payload: payload.into(), hash, tensor, codec: used.name().into(), predictor })
}

/// Length of what `codec` makes of a tensor, and its time to encode and decode it, for comparison only.
pub(super) fn timed(codec: TensorCodec, message: &Message, meter: &Meter) -> Option<(usize, Duration)> {
    let codec = meter.choose(codec, view(message).ok()?, None, None).ok()?;
    let start = Instant::now();
    let payload = payload(codec, message)?;
    let limits = Limits { verify_checksum: false, ..Limits::with_max_decoded_bytes(message.bytes.len()) };
    codec::decode(&payload, &limits).ok()?;
    Some((payload.len(), start.elapsed()))
}

/// Most bytes of a tensor that crosses a run's cuts.
pub fn most_bytes(spec: &RunSpec) -> usize {
    let rows = spec.batch.sequences * spec.model.sequence;
    let (forward, backward) = spec.cut.message_bytes(&spec.model, rows);
    forward.max(backward)
}

/// Decodes a payload whose hash was checked against `header`, and checks the tensor, which has at most `most` bytes.
/// `shared`: predictors that the sender told this node.
pub fn decode(
    header: &FrameHeader,
    payload: &[u8],
    most: usize,
    champions: &Champions,
    shared: &Shared,
) -> Result<Decoded, BadFrame> {
    if is_component_name(&header.codec) {
        return decode_champion(header, payload, most, champions);
    }
    if !TensorCodec::ALL.iter().filter_map(|codec| codec.id()).any(|codec| codec.name() == header.codec) {
        return Err(BadFrame::Unknown(header.codec.clone()));
    }
    let limits = Limits { verify_checksum: false, ..Limits::with_max_decoded_bytes(most) };
    let found = codec::Header::parse(payload, &limits)?.codec;
    if found.name() != header.codec {
        return Err(BadFrame::Unknown(found.name().to_owned()));
    }
    let start = Instant::now();
    let mut bytes = Vec::new();
    let tensor = match codec::decode_into_at(Level::detect(), payload, &limits, shared, &mut bytes) {
        Err(CodecError::MissingShared { id, .. }) => return Err(BadFrame::NoPredictor(id)),
        decoded => decoded?,
    };
    let time = start.elapsed();
    let dtype = match tensor.dtype {
        DType::F32 => Dtype::F32,
        DType::Bf16 => Dtype::Bf16,
        DType::U8 => Dtype::U8,
        other => return Err(BadFrame::Dtype(other.name())),
    };
    let message = Message { dtype, shape: tensor.shape().to_vec(), bytes };
    if tensor_hash(&message) != header.tensor_hash {
        return Err(BadFrame::Tensor);
    }
    Ok(Decoded { message, codec: Some(found), time })
}

fn decode_champion(
    header: &FrameHeader,
    payload: &[u8],
    most: usize,
    champions: &Champions,
) -> Result<Decoded, BadFrame> {
    let Some(champion) = champions.named(&header.codec) else {
        return Err(BadFrame::NotReady(header.codec.clone()));
    };
    let component = champion.component();
    let bad = |reason: String, decoded, fault| BadFrame::Champion { component, reason, decoded, fault };
    let start = Instant::now();
    let message = champion.decode(header.direction, payload, most).map_err(|undecoded| match undecoded {
        Undecoded::Head => bad("no type and shape in front of it".to_owned(), None, true),
        Undecoded::Failed(reason) => bad(reason, None, true),
        Undecoded::Here(reason) => bad(reason, None, false),
    })?;
    let found = tensor_hash(&message);
    if found != header.tensor_hash {
        return Err(bad("it gave another tensor back".to_owned(), Some(found), true));
    }
    Ok(Decoded { message, codec: None, time: start.elapsed() })
}

/// Puts an encoded tensor's facts into a header and signs it.
pub fn sign(key: &SigningKey, header: &FrameHeader, encoded: &Encoded) -> SignedFrame {
    SignedFrame::sign(
        key,
        FrameHeader {
            enc_len: encoded.payload.len() as u64,
            enc_hash: encoded.hash,
            tensor_hash: encoded.tensor,
            codec: encoded.codec.to_string(),
            ..header.clone()
        },
    )
}

#[cfg(test)]
pub(crate) mod tests {
    use wire::{Direction, Epoch, Head, LeaseId, MicroBatch, Millis, NodeId, RunId, Seq, StageIndex};

    use super::*;

    /// A header of nothing in particular.
    pub(crate) fn header() -> FrameHeader {
        let node = NodeId([1; 32]);
        FrameHeader {
            run: RunId([0; 32]),
            epoch: Epoch(0),
            micro_batch: MicroBatch(0),
            lease: LeaseId(0),
            direction: Direction::Forward,
            stage: StageIndex(0),
            from: node,
            to: node,
            grad_mask: 1,
            version: 0,
            ttl: Millis(1),
            enc_len: 0,
            enc_hash: Hash([0; 32]),
            tensor_hash: Hash([0; 32]),
            tokens_hash: Hash([0; 32]),
            codec: String::new(),
            loss: None,
            head: Head { seq: Seq(0), hash: Hash([0; 32]) },
        }
    }

    #[test]
    fn every_codec_carries_every_type_of_numbers_bit_for_bit() {
        for (dtype, size) in [(Dtype::F32, 4), (Dtype::Bf16, 2), (Dtype::U8, 1)] {
            let shape = vec![4, 64, 32];
            let count: usize = shape.iter().product();
            let wave = (0..count).map(|i| (i as f32 * 0.7).sin());
            let bytes: Vec<u8> = match size {
                4 => wave.flat_map(f32::to_le_bytes).collect(),
                2 => wave.flat_map(|v| ((v.to_bits() >> 16) as u16).to_le_bytes()).collect(),
                _ => wave.map(|v| (v * 100.0) as i8 as u8).collect(),
            };
            let message = Message { dtype, shape, bytes };
            let none = Champions::new(sandbox::Child::new("", [""; 0]), None);
            let shared = Shared::new();
            for codec in TensorCodec::ALL {
                let encoded = encode(codec, &message, None, &Meter::default(), None).unwrap();
                let header = FrameHeader {
                    enc_len: encoded.payload.len() as u64,
                    enc_hash: encoded.hash,
                    tensor_hash: encoded.tensor,
                    codec: encoded.codec.to_string(),
                    ..header()
                };
                let most = message.bytes.len();
                let decoded = decode(&header, &encoded.payload, most, &none, &shared).unwrap().message;
                assert!(matches!(
                    decode(&header, &encoded.payload, most - 1, &none, &shared),
                    Err(BadFrame::Codec(_))
                ));
                assert_eq!((decoded.dtype, &decoded.shape), (dtype, &message.shape));
                assert!(decoded.bytes == message.bytes, "{codec:?} {dtype:?}");
                if codec != TensorCodec::Raw && dtype != Dtype::U8 {
                    assert!(encoded.payload.len() < message.bytes.len(), "{codec:?} {dtype:?}");
                }
                let other = FrameHeader { codec: "klt".into(), ..header };
                assert!(matches!(
                    decode(&other, &encoded.payload, most, &none, &shared),
                    Err(BadFrame::Unknown(_))
                ));
                let other = FrameHeader { codec: Hash::of(b"component").to_string(), ..other };
                assert!(matches!(
                    decode(&other, &encoded.payload, most, &none, &shared),
                    Err(BadFrame::NotReady(_))
                ));
            }
        }
    }
}
