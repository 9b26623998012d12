//! Records of a champion's way into production (protocol §7 "Production", "Swap").

use serde::{Deserialize, Serialize};
use wire::{Direction, Epoch, Hash, MicroBatch, SignedFrame};

use crate::limits;

/// A codec of others that the run is to use: a WebAssembly component, and what it must be run by.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CodecPin {
    /// Hash of the component; every node fetches it as a blob.
    pub component: Hash,
    /// Its length, bytes.
    pub bytes: u32,
    /// Exact version of the engine: fuel and results are its properties.
    pub wasmtime: String,
    /// Hash of the engine's settings.
    pub settings: Hash,
    /// Hash over what the component makes of the run's golden tensors.
    pub golden: Hash,
    /// Where it comes from, for people.
    pub source: String,
    /// Whether activations may cross by it.
    pub activations: bool,
    /// Whether their gradients may.
    pub gradients: bool,
    /// What each tensor keeps to, if it need not come back bit for bit; none: a lossless codec.
    pub lossy: Option<LossyBounds>,
    /// First epoch that may use it.
    pub from: Epoch,
}

/// How far a tensor y that comes back may be from the tensor x that went in, 10⁻⁶. What is further off crosses by the
/// built-in codec.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LossyBounds {
    /// Least cosine(x, y) · (1 − ‖x − y‖ / ‖x‖).
    pub similarity_ppm: u32,
    /// Most |‖y‖ / ‖x‖ − 1|.
    pub norm_ppm: u32,
    /// Most |yᵢ − xᵢ| / max(|xᵢ|, rms(x)).
    pub element_ppm: u32,
}

impl CodecPin {
    /// Whether tensors of this direction may cross by it.
    pub fn carries(&self, direction: Direction) -> bool {
        match direction {
            Direction::Forward => self.activations,
            Direction::Backward => self.gradients,
        }
    }
}

/// What a champion did in an epoch: of one node since its last report, or summed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CodecCounts {
    /// Tensors that were to cross by it.
    pub tensors: u64,
    /// Those that crossed by the built-in codec instead.
    pub fallbacks: u64,
    /// Bytes of the tensors that crossed by it, as they are.
    pub raw_bytes: u64,
    /// The same, encoded.
    pub bytes: u64,
    /// Time that encoding and the sender's own decoding took, fallbacks included, µs.
    pub time_us: u64,
    /// Tensors that the codec it replaced encoded and decoded too, for comparison.
    pub sampled: u64,
    /// Bytes of those by the champion.
    pub sampled_bytes: u64,
    /// Time of those by the champion, µs.
    pub sampled_us: u64,
    /// Bytes of those by the codec it replaced.
    pub previous_bytes: u64,
    /// Time of those by the codec it replaced, µs.
    pub previous_us: u64,
}

impl CodecCounts {
    /// Adds another report.
    pub fn add(&mut self, other: &Self) {
        for (sum, more) in self.fields_mut().into_iter().zip(other.fields()) {
            *sum = sum.saturating_add(more);
        }
    }

    fn fields_mut(&mut self) -> [&mut u64; 10] {
        [
            &mut self.tensors,
            &mut self.fallbacks,
            &mut self.raw_bytes,
            &mut self.bytes,
            &mut self.time_us,
            &mut self.sampled,
            &mut self.sampled_bytes,
            &mut self.sampled_us,
            &mut self.previous_bytes,
            &mut self.previous_us,
        ]
    }

    pub(crate) fn fields(mut self) -> [u64; 10] {
        self.fields_mut().map(|field| *field)
    }

    /// Bytes that the codec before would have taken for what crossed by the champion: the sample's ratio. None without
    /// a sample.
    pub fn previous_bytes_of_all(&self) -> Option<u64> {
        scaled(self.bytes, self.previous_bytes, self.sampled_bytes)
    }

    /// Time that the codec before would have taken, µs, likewise.
    pub fn previous_us_of_all(&self) -> Option<u64> {
        scaled(self.time_us, self.previous_us, self.sampled_us)
    }
}

fn scaled(whole: u64, part: u64, of: u64) -> Option<u64> {
    let value = u128::from(whole) * u128::from(part) / u128::from((of > 0).then_some(of)?);
    Some(u64::try_from(value).unwrap_or(u64::MAX))
}

/// A champion gave back another tensor than its sender signed for: evidence that anyone can run again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CodecFault {
    /// Epoch.
    pub epoch: Epoch,
    /// Component.
    pub component: Hash,
    /// Whose tensor.
    pub micro_batch: MicroBatch,
    /// Which of its tensors.
    pub direction: Direction,
    /// Hash of the tensor as it is.
    pub tensor: Hash,
    /// Hash of what the component made of it.
    pub encoded: Hash,
    /// Hash of the tensor that it decodes to; none if it decodes to nothing.
    pub decoded: Option<Hash>,
    /// The frame it came in, signed by its sender; none where the sender itself found it before anything was sent.
    pub frame: Option<Box<SignedFrame>>,
}

/// What a lossy champion does to a loss L, by a validator that computed micro-batches with it and without it (protocol §7
/// "Production"). x: a tensor that it carries; y: what comes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CodecEffect {
    /// Component.
    pub component: Hash,
    /// Micro-batches, at least [`crate::limits::SHADOW_BATCHES_MIN`].
    pub micro_batches: u32,
    /// (L with it − L) / L.
    pub loss: Effect,
    /// ⟨y − x, x⟩ / ⟨x, x⟩, what it makes longer, or shorter: at the cut and in the direction where it is worst.
    pub bias: Effect,
    /// ⟨y − x, ∂L/∂x⟩ / L: what it does to the loss to first order, as whoever steers would.
    pub slope: Effect,
}

impl CodecEffect {
    /// Whether each figure stays within 0.1 %, three standard errors from its mean too.
    pub fn is_harmless(&self) -> bool {
        [self.loss, self.bias, self.slope].iter().all(|effect| effect.most_ppb() <= limits::SHADOW_EFFECT_PPB)
    }
}

/// A mean over micro-batches, 10⁻⁹.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Effect {
    /// Mean.
    pub mean_ppb: i64,
    /// Its standard error.
    pub error_ppb: u64,
}

impl Effect {
    /// Of at least two values; what is not finite, or too few of them, is as bad as can be.
    pub fn of(values: &[f64]) -> Self {
        let count = values.len() as f64;
        let mean = values.iter().sum::<f64>() / count;
        let squares: f64 = values.iter().map(|value| (value - mean) * (value - mean)).sum();
        let error = (squares / (count - 1.0) / count).sqrt();
        if !mean.is_finite() || !error.is_finite() {
            return Self { mean_ppb: i64::MAX, error_ppb: u64::MAX };
        }
        Self { mean_ppb: (mean * 1e9).round() as i64, error_ppb: (error * 1e9).ceil() as u64 }
    }

    /// How far from zero it may be: its mean and three standard errors, 10⁻⁹.
    pub fn most_ppb(&self) -> u64 {
        let away = self.error_ppb.saturating_mul(limits::SHADOW_ERRORS);
        self.mean_ppb.unsigned_abs().saturating_add(away)
    }
}

/// Why a champion carries nothing any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum OffCause {
    /// It gave another tensor back. At once, for everybody.
    Fault,
    /// More than 1 % of an epoch's tensors went by the built-in codec instead. From the next epoch.
    Fallbacks,
    /// By the sample, it took at least the bytes of the codec it replaced. From the next epoch.
    NoBetter,
    /// The owner took it away.
    Owner,
    /// A validator found that it changes the loss, or biases tensors, by more than 0.1 %. From the next epoch.
    Effect,
    /// Micro-batches that crossed by it in its shadow epoch had a higher loss than the others. From the next epoch.
    Losses,
    /// No validator said what it does, for as long as it was tried.
    Unproven,
}
