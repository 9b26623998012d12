//! One tensor through a component and back, in new instances, within limits that follow from its size; a lossy one within
//! bounds too.

use std::time::{Duration, Instant};

use model::config::{Dtype, Message};
use sandbox::{Call, CallLimits, DType, Failed, Fault, Meta, Task};
use swarm::record::LossyBounds;
use wire::{Direction, Hash};

use super::bounds;
use crate::limits;

/// Most dimensions of a tensor that crosses.
const RANK_MAX: usize = 8;

/// A compiled component.
#[derive(Debug)]
pub(crate) struct Champion {
    codec: sandbox::Codec,
    name: String,
    /// None: every bit comes back.
    lossy: Option<LossyBounds>,
}

/// A tensor as the component made it, in a payload.
#[derive(Debug)]
pub(crate) struct Carried {
    /// Type and shape, then the component's bytes.
    pub(crate) payload: Vec<u8>,
    /// What comes back, where that may be another tensor.
    pub(crate) lossy: Option<Message>,
    /// Encoding, and decoding if that was asked for.
    pub(crate) time: Duration,
}

/// Why a tensor does not cross by the component.
#[derive(Debug)]
pub(crate) enum Fell {
    /// It became hardly shorter, or longer.
    Larger,
    /// A trap, an error, a limit.
    Failed(Failed),
    /// Its own decoder gives another tensor back.
    Wrong {
        /// The payload.
        payload: Vec<u8>,
        /// The tensor that came back.
        decoded: Box<Message>,
    },
    /// What its own decoder gives back is too far from the tensor.
    Beyond(bounds::Beyond),
    /// This machine could not run it.
    Host(String),
}

/// Why a payload is no tensor.
#[derive(Debug)]
pub(crate) enum Undecoded {
    /// Not even a type and a shape, or more bytes than allowed.
    Head,
    /// The component's fault, at a payload that its sender had decoded.
    Failed(String),
    /// This machine's: too slow, or out of memory.
    Here(String),
}

/// Whether a frame's codec names a component rather than one of ours.
pub(crate) fn is_component_name(codec: &str) -> bool {
    codec.len() == 64 && codec.bytes().all(|byte| byte.is_ascii_hexdigit())
}

impl Champion {
    /// A component whose tensors need not come back bit for bit has bounds.
    pub(crate) fn new(codec: sandbox::Codec, lossy: Option<LossyBounds>) -> Self {
        let name = codec.hash().to_string();
        Self { codec, name, lossy }
    }

    /// The same component as a lossy one.
    pub(crate) fn within(self, bounds: LossyBounds) -> Self {
        Self { lossy: Some(bounds), ..self }
    }

    pub(crate) fn is_lossy(&self) -> bool {
        self.lossy.is_some()
    }

    pub(crate) fn component(&self) -> Hash {
        self.codec.hash()
    }

    /// What frames call it: the component's hash.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Compresses; with `check`, and always if it is lossy, also decompresses, in another instance, and compares.
    pub(crate) fn encode(
        &self,
        direction: Direction,
        message: &Message,
        check: bool,
    ) -> Result<Carried, Fell> {
        let start = Instant::now();
        let raw = message.bytes.len();
        // Whoever gives back more is no better than what comes with the binary.
        let most = raw as u64 * limits::CHAMPION_WORTH_PERCENT / 100;
        let mut payload = head(message).ok_or(Fell::Larger)?;
        let most = most.checked_sub(payload.len() as u64).ok_or(Fell::Larger)?;
        let meta = meta(direction, message.dtype, &message.shape).ok_or(Fell::Larger)?;
        let bytes = match self.call(Task::Compress, &message.bytes, &meta, raw, most)? {
            Ok(bytes) => bytes,
            Err(failed) if failed.fault == Fault::OutputTooLarge => return Err(Fell::Larger),
            Err(failed) => return Err(Fell::Failed(failed)),
        };
        payload.extend_from_slice(&bytes);
        let mut lossy = None;
        if check || self.is_lossy() {
            let back = self.call(Task::Decompress, &bytes, &meta, raw, raw as u64)?.map_err(Fell::Failed)?;
            let decoded = Message { dtype: message.dtype, shape: message.shape.clone(), bytes: back };
            match &self.lossy {
                Some(bounds) => {
                    bounds::check(bounds, message, &decoded).map_err(Fell::Beyond)?;
                    lossy = Some(decoded);
                }
                None if decoded.bytes == message.bytes => {}
                None => return Err(Fell::Wrong { payload, decoded: Box::new(decoded) }),
            }
        }
        Ok(Carried { payload, lossy, time: start.elapsed() })
    }

    /// Decompresses what a peer sent, at most `most` bytes.
    pub(crate) fn decode(
        &self,
        direction: Direction,
        payload: &[u8],
        most: usize,
    ) -> Result<Message, Undecoded> {
        let (dtype, shape, bytes) = split(payload).ok_or(Undecoded::Head)?;
        let count = shape.iter().try_fold(width(dtype), |product, side| product.checked_mul(*side));
        let raw = count.filter(|raw| *raw <= most && bytes.len() <= most).ok_or(Undecoded::Head)?;
        let meta = meta(direction, dtype, &shape).ok_or(Undecoded::Head)?;
        match self.call(Task::Decompress, bytes, &meta, raw, raw as u64) {
            Ok(Ok(back)) if back.len() == raw => Ok(Message { dtype, shape, bytes: back }),
            Ok(Ok(back)) => Err(Undecoded::Failed(format!("{} bytes of {raw}", back.len()))),
            Ok(Err(failed)) if failed.fault == Fault::Time => Err(Undecoded::Here(failed.to_string())),
            Ok(Err(failed)) => Err(Undecoded::Failed(failed.to_string())),
            Err(Fell::Host(reason)) => Err(Undecoded::Here(reason)),
            Err(_) => Err(Undecoded::Head),
        }
    }

    fn call(
        &self,
        task: Task,
        input: &[u8],
        meta: &Meta,
        raw: usize,
        output_bytes: u64,
    ) -> Result<Result<Vec<u8>, Failed>, Fell> {
        let limits = CallLimits { output_bytes, ..call_limits(raw) };
        let Call { output, .. } =
            self.codec.call(task, input, meta, &limits).map_err(|error| Fell::Host(error.to_string()))?;
        Ok(output)
    }
}

/// What one call may use for a tensor of `raw` bytes.
fn call_limits(raw: usize) -> CallLimits {
    let raw = raw as u64;
    CallLimits {
        fuel: limits::CHAMPION_FUEL + limits::CHAMPION_FUEL_PER_BYTE * raw,
        wall: limits::CHAMPION_WALL,
        memory_bytes: call_memory(raw),
        output_bytes: raw,
    }
}

/// Memory of one call for a tensor of `raw` bytes: the component's, and the two lists outside it.
pub(crate) fn call_memory(raw: u64) -> u64 {
    limits::CHAMPION_MEMORY_BYTES + limits::CHAMPION_MEMORY_PER_BYTE * raw
}

fn width(dtype: Dtype) -> usize {
    match dtype {
        Dtype::F32 => 4,
        Dtype::Bf16 => 2,
        Dtype::U8 => 1,
    }
}

fn meta(direction: Direction, dtype: Dtype, shape: &[usize]) -> Option<Meta> {
    Some(Meta {
        dtype: match dtype {
            Dtype::F32 => DType::F32,
            Dtype::Bf16 => DType::Bf16,
            Dtype::U8 => DType::U8,
        },
        shape: shape.iter().map(|side| u32::try_from(*side).ok()).collect::<Option<_>>()?,
        direction: match direction {
            Direction::Forward => sandbox::Direction::Forward,
            Direction::Backward => sandbox::Direction::Backward,
        },
    })
}

/// One byte for the type, one for the rank, four for each dimension (little-endian).
fn head(message: &Message) -> Option<Vec<u8>> {
    let dtype = match message.dtype {
        Dtype::F32 => 0,
        Dtype::Bf16 => 1,
        Dtype::U8 => 2,
    };
    let rank = Some(message.shape.len()).filter(|rank| *rank <= RANK_MAX)?;
    let mut head = Vec::with_capacity(message.bytes.len() + 2 + 4 * rank);
    head.extend([dtype, rank as u8]);
    for side in &message.shape {
        head.extend(u32::try_from(*side).ok()?.to_le_bytes());
    }
    Some(head)
}

fn split(payload: &[u8]) -> Option<(Dtype, Vec<usize>, &[u8])> {
    let ([dtype, rank], rest) = payload.split_first_chunk::<2>()?;
    let dtype = match dtype {
        0 => Dtype::F32,
        1 => Dtype::Bf16,
        2 => Dtype::U8,
        _ => return None,
    };
    let rank = Some(usize::from(*rank)).filter(|rank| *rank <= RANK_MAX)?;
    let (sides, bytes) = rest.split_at_checked(4 * rank)?;
    let side = |bytes: &[u8]| Some(u32::from_le_bytes(bytes.try_into().ok()?) as usize);
    Some((dtype, sides.chunks_exact(4).map(side).collect::<Option<_>>()?, bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_s_head_is_read_back_and_no_cut_of_it_panics() {
        let message = Message { dtype: Dtype::Bf16, shape: vec![2, 300, 7], bytes: Vec::new() };
        let mut payload = head(&message).unwrap();
        payload.extend(b"rest");
        assert_eq!(split(&payload), Some((Dtype::Bf16, vec![2, 300, 7], &b"rest"[..])));
        for cut in 0..14 {
            assert_eq!(split(&payload[..cut]), None);
        }
        assert_eq!(split(&[9, 0]), None);
        assert_eq!(split(&[0, 200]), None);
        assert!(is_component_name(&Hash::of(b"x").to_string()) && !is_component_name("huffman"));
    }
}
