//! Choosing a codec for a tensor and a link: the least time until the tensor is decoded.
//!
//! On a link with nothing to send that is encode + transfer + decode. While the link is busy with earlier tensors the
//! three overlap: encoding costs only what it takes longer than the link has work, decoding what it takes longer than the
//! transfer, or it would fall behind.

use crate::error::CodecError;
use crate::header::CodecId;
use crate::payload::encode_at;
use crate::predictive::{Predictor, encode_predictive};
use crate::probe::Probe;
use crate::simd::Level;
use crate::tensor::{DType, TensorRef};

/// Elements of the rows that are coded to estimate ratios.
const PROBE_ELEMENTS: usize = 1 << 15;
/// The same for codecs whose tables would outweigh what they gain on so few.
const LARGE_PROBE_ELEMENTS: usize = 1 << 17;
/// Share of the newest observation in a running speed.
const NEWEST: f64 = 0.1;

/// Share of the work itself that counts even where it is hidden: of two that end together the lighter one wins.
const WORK_SHARE: f64 = 0.02;

/// The link that a tensor is to cross.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Link {
    /// Its speed, bytes a second.
    pub bytes_per_s: f64,
    /// How long it is still busy with what was encoded before, seconds.
    pub backlog_s: f64,
    /// How long the decoder will be busy with what was encoded before, seconds; 0 where that is not known.
    pub decoding_s: f64,
}

impl Link {
    /// A link with nothing to send.
    pub const fn idle(bytes_per_s: f64) -> Self {
        Self { bytes_per_s, backlog_s: 0.0, decoding_s: 0.0 }
    }
}

/// What the tensors of one wire have shown: by how much the slower codecs beat huffman's ratio there. With it a choice
/// does not code the same few rows by every codec again.
#[derive(Clone, Debug, Default)]
pub struct Wire {
    gains: [Option<Gain>; 5],
    /// Bytes per byte that huffman made of the last tensor's probe.
    huffman: f64,
}

#[derive(Clone, Copy, Debug)]
struct Gain {
    /// Ratio ÷ huffman's ratio.
    gain: f64,
    /// Tensors since it was measured.
    age: u32,
}

/// Tensors of a wire after which a gain is measured again.
const GAIN_LIFE: u32 = 32;

impl Wire {
    /// Learns from a whole tensor that was encoded after [`Auto::choose_on`] chose: `payload_bytes` for `bytes`.
    pub fn note(&mut self, codec: CodecId, bytes: usize, payload_bytes: usize) {
        let index = Auto::CODECS.iter().position(|&c| c == codec);
        if let (Some(index), true) = (index, payload_bytes > 0 && self.huffman > 0.0) {
            let gain = bytes as f64 / payload_bytes as f64 * self.huffman;
            self.gains[index] = Some(Gain { gain, age: 0 });
        }
    }

    fn gain(&self, index: usize) -> Option<f64> {
        self.gains[index].filter(|gain| gain.age < GAIN_LIFE).map(|gain| gain.gain)
    }
}

/// What a codec was seen to do, in bytes of the uncompressed tensor per second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Speed {
    /// Encoding.
    pub encode: f64,
    /// Decoding.
    pub decode: f64,
}

/// Speeds of the lossless codecs, kept up to date by [`Auto::observe`].
#[derive(Clone, Debug)]
pub struct Auto {
    level: Level,
    speeds: [Speed; 5],
}

impl Auto {
    /// The lossless codecs, in the order of `speeds`.
    const CODECS: [CodecId; 5] =
        [CodecId::Raw, CodecId::Fast, CodecId::Huffman, CodecId::Context, CodecId::Predictive];

    /// Starts from speeds measured on one core of a server of 2023.
    pub fn new(level: Level) -> Self {
        let gb = |encode: f64, decode: f64| Speed { encode: encode * 1e9, decode: decode * 1e9 };
        let speeds = match level {
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 => [gb(20.0, 20.0), gb(11.0, 15.0), gb(7.5, 12.0), gb(0.55, 1.1), gb(0.16, 0.15)],
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => [gb(20.0, 20.0), gb(3.0, 5.0), gb(2.2, 3.8), gb(0.3, 0.3), gb(0.13, 0.11)],
            #[cfg(target_arch = "aarch64")]
            Level::Neon => [gb(20.0, 20.0), gb(3.0, 5.0), gb(2.0, 3.5), gb(0.3, 0.3), gb(0.1, 0.1)],
            Level::Scalar => [gb(20.0, 20.0), gb(0.4, 0.8), gb(0.4, 0.25), gb(0.15, 0.15), gb(0.03, 0.03)],
        };
        Self { level, speeds }
    }

    /// Follows what was measured: seconds to encode and decode `bytes` of a tensor; a time of zero says nothing.
    pub fn observe(&mut self, codec: CodecId, bytes: usize, encode_s: f64, decode_s: f64) {
        let Some(index) = Self::CODECS.iter().position(|&c| c == codec) else { return };
        let follow = |speed: &mut f64, seconds: f64| {
            if seconds > 0.0 && bytes > 0 {
                *speed += NEWEST * (bytes as f64 / seconds - *speed);
            }
        };
        follow(&mut self.speeds[index].encode, encode_s);
        follow(&mut self.speeds[index].decode, decode_s);
    }

    /// What a lossless codec was seen to do.
    pub fn speed(&self, codec: CodecId) -> Option<Speed> {
        Self::CODECS.iter().position(|&c| c == codec).map(|index| self.speeds[index])
    }

    /// Seconds that `bytes` take with `codec`, whose payload is `payload_bytes`, over a link.
    fn seconds(&self, codec: CodecId, bytes: f64, payload_bytes: f64, link: Link) -> f64 {
        let index = Self::CODECS.iter().position(|&c| c == codec).unwrap_or(0);
        let Speed { encode, decode } = self.speeds[index];
        let (encode, transfer, decode) = (bytes / encode, payload_bytes / link.bytes_per_s, bytes / decode);
        let backlog = link.backlog_s.max(0.0);
        let stall = (encode - backlog).max(0.0);
        let behind = (link.decoding_s - backlog - stall - transfer).max(0.0);
        let late = (behind + decode - transfer.min(backlog)).max(0.0);
        stall + transfer + late + WORK_SHARE * (encode + decode)
    }

    /// The codec with the least estimated time for `tensor` over `link`.
    ///
    /// Ratios come from coding a few rows; codecs that could not win even at twice their usual ratio are not tried.
    pub fn choose(
        &self,
        tensor: TensorRef<'_>,
        link: Link,
        predictor: Option<&Predictor>,
    ) -> Result<CodecId, CodecError> {
        self.choose_on(&mut Wire::default(), tensor, link, predictor)
    }

    /// Like [`Auto::choose`], for one of many tensors of a wire.
    pub fn choose_on(
        &self,
        wire: &mut Wire,
        tensor: TensorRef<'_>,
        link: Link,
        predictor: Option<&Predictor>,
    ) -> Result<CodecId, CodecError> {
        wire.huffman = 0.0;
        if tensor.dtype() == DType::U8 || tensor.is_empty() {
            return Ok(CodecId::Raw);
        }
        let bytes = tensor.bytes().len() as f64;
        let probe = Probe::of(tensor, PROBE_ELEMENTS);
        let mut best = (self.seconds(CodecId::Raw, bytes, bytes, link), CodecId::Raw);
        let mut payload = Vec::new();
        wire.gains.iter_mut().flatten().for_each(|gain| gain.age = gain.age.saturating_add(1));
        // The strongest first: what it wins rules out probing the others only where they are slower too.
        let order = [CodecId::Huffman, CodecId::Fast, CodecId::Context, CodecId::Predictive];
        for codec in order {
            let hoped = match codec {
                CodecId::Context => 3.0,
                CodecId::Predictive => 8.0,
                _ => 2.0,
            };
            if self.seconds(codec, bytes, bytes / hoped, link) >= best.0 {
                continue;
            }
            if codec == CodecId::Predictive && predictor.is_none() {
                continue;
            }
            let index = Self::CODECS.iter().position(|&c| c == codec).unwrap_or(0);
            let known = wire.gain(index).filter(|_| codec != CodecId::Huffman && wire.huffman > 0.0);
            let fraction = if let Some(gain) = known {
                wire.huffman / gain
            } else {
                payload.clear();
                let large = matches!(codec, CodecId::Context | CodecId::Predictive);
                let large = large.then(|| Probe::of(tensor, LARGE_PROBE_ELEMENTS));
                let probe = large.as_ref().unwrap_or(&probe);
                let length = match (codec, predictor) {
                    (CodecId::Predictive, Some(p)) => {
                        encode_predictive(self.level, p, probe.view()?, &mut payload)?
                    }
                    _ => encode_at(self.level, codec, probe.view()?, &mut payload)?,
                };
                let fraction = length as f64 / probe.len() as f64;
                if codec == CodecId::Huffman {
                    wire.huffman = fraction;
                } else if wire.huffman > 0.0 {
                    wire.gains[index] = Some(Gain { gain: wire.huffman / fraction, age: 0 });
                }
                fraction
            };
            let scaled = fraction * bytes;
            let seconds = self.seconds(codec, bytes, scaled, link);
            if seconds < best.0 {
                best = (seconds, codec);
            }
        }
        Ok(best.1)
    }

    /// Appends `tensor` by the codec that [`Auto::choose`] picks, and returns the payload's length and that codec.
    pub fn encode(
        &self,
        tensor: TensorRef<'_>,
        link: Link,
        predictor: Option<&Predictor>,
        out: &mut Vec<u8>,
    ) -> Result<(usize, CodecId), CodecError> {
        let codec = self.choose(tensor, link, predictor)?;
        let length = match (codec, predictor) {
            (CodecId::Predictive, Some(p)) => encode_predictive(self.level, p, tensor, out)?,
            _ => encode_at(self.level, codec, tensor, out)?,
        };
        Ok((length, codec))
    }
}
