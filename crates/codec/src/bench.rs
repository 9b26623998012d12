//! Measuring codecs on tensors in memory; the clock is the caller's.

use crate::auto::Auto;
use crate::error::CodecError;
use crate::header::CodecId;
use crate::limits::Limits;
use crate::lossy::{Basis, LowRank, Target, encode_klt, encode_lossy, encode_low_rank, similarity};
use crate::payload::{decode_into_at, encode_at};
use crate::predictive::{Predictor, encode_predictive};
use crate::shared::Shared;
use crate::simd::Level;
use crate::tensor::{Tensor, TensorRef};
use std::sync::Arc;

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Subject {
    /// One codec.
    Codec(CodecId),
    /// [`Auto`] for a link of this many bytes a second.
    Auto(f64),
}

impl Subject {
    /// Whether this learns from earlier tensors, so that only the second half of the rows is scored.
    pub const fn learns(self) -> bool {
        matches!(self, Self::Codec(CodecId::Predictive | CodecId::Klt))
    }
}

/// Result of one subject on one tensor.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Measurement {
    /// Bytes of what was encoded: the tensor, or the second half of its rows.
    pub bytes: usize,
    /// Bytes of the payload.
    pub compressed_bytes: usize,
    /// Median time to encode into a reused buffer, checksum included.
    pub encode_s: f64,
    /// Median time to decode into a reused buffer, checksum not verified.
    pub decode_s: f64,
    /// Cosine × (1 − relative error); 1 where every bit came back.
    pub similarity: f64,
    /// Whether every bit came back.
    pub lossless: bool,
    /// Bytes of the predictor or basis that both ends must hold.
    pub side_bytes: usize,
}

/// Rank of the low-rank codec when it is measured.
const RANK: usize = 32;

/// A subject made ready for one tensor: what it learns is learned.
#[derive(Debug)]
pub struct Prepared<'a> {
    level: Level,
    subject: Subject,
    target: Target,
    tensor: TensorRef<'a>,
    shape: Vec<usize>,
    auto: Auto,
    predictor: Option<Arc<Predictor>>,
    basis: Option<Arc<Basis>>,
    shared: Shared,
}

impl<'a> Prepared<'a> {
    /// Learns from the first half of the rows where the subject learns, and keeps the second.
    pub fn new(
        level: Level,
        subject: Subject,
        target: Target,
        tensor: TensorRef<'a>,
    ) -> Result<Self, CodecError> {
        let (rows, cols) = tensor.rows_cols();
        let mut prepared = Self {
            level,
            subject,
            target,
            tensor,
            shape: tensor.shape().to_vec(),
            auto: Auto::new(level),
            predictor: None,
            basis: None,
            shared: Shared::new(),
        };
        if !subject.learns() {
            return Ok(prepared);
        }
        let dtype = tensor.dtype();
        let first = &tensor.bytes()[..rows / 2 * cols * dtype.size()];
        let first_shape = [rows / 2, cols];
        let first = TensorRef::new(dtype, &first_shape, first)?;
        if subject == Subject::Codec(CodecId::Klt) {
            let basis = Arc::new(Basis::learn(&[first])?);
            prepared.shared.add_basis(basis.clone());
            prepared.basis = Some(basis);
        } else {
            let predictor = Arc::new(Predictor::learn(&[first])?);
            prepared.shared.add_predictor(predictor.clone());
            prepared.predictor = Some(predictor);
        }
        prepared.shape = vec![rows - rows / 2, cols];
        Ok(prepared)
    }

    /// What is encoded.
    pub fn scored(&self) -> Result<TensorRef<'_>, CodecError> {
        let skipped = if self.subject.learns() {
            let (rows, cols) = self.tensor.rows_cols();
            rows / 2 * cols * self.tensor.dtype().size()
        } else {
            0
        };
        TensorRef::new(self.tensor.dtype(), &self.shape, &self.tensor.bytes()[skipped..])
    }

    /// Bytes of the predictor or basis.
    pub fn side_bytes(&self) -> usize {
        self.predictor.as_ref().map_or(0, |p| p.to_bytes().len())
            + self.basis.as_ref().map_or(0, |b| b.to_bytes().len())
    }

    /// Appends the payload of `tensor`.
    pub fn encode(&self, tensor: TensorRef<'_>, out: &mut Vec<u8>) -> Result<usize, CodecError> {
        match self.subject {
            Subject::Auto(link) => self.auto.encode(tensor, link, None, out).map(|(n, _)| n),
            Subject::Codec(codec) => match (codec, &self.predictor, &self.basis) {
                (CodecId::Predictive, Some(p), _) => encode_predictive(self.level, p, tensor, out),
                (CodecId::Klt, _, Some(b)) => encode_klt(self.level, b, self.target, tensor, out),
                (CodecId::LowRank, ..) => {
                    let mut state = LowRank::with_target(RANK, self.target)?;
                    encode_low_rank(self.level, &mut state, tensor, out)
                }
                (CodecId::Uniform | CodecId::Int8, ..) => {
                    encode_lossy(self.level, codec, self.target, tensor, out)
                }
                _ => encode_at(self.level, codec, tensor, out),
            },
        }
    }

    /// Decodes a payload into a reused buffer, without verifying the checksum.
    pub fn decode(&self, payload: &[u8], out: &mut Vec<u8>) -> Result<(), CodecError> {
        let limits = Limits { max_decoded_bytes: usize::MAX, verify_checksum: false };
        decode_into_at(self.level, payload, &limits, &self.shared, out).map(|_| ())
    }

    /// Encodes and decodes `rounds` times after one warm-up; `clock` returns seconds.
    pub fn measure(&self, rounds: usize, clock: &dyn Fn() -> f64) -> Result<Measurement, CodecError> {
        let scored = self.scored()?;
        let (mut payload, mut decoded) = (Vec::new(), Vec::new());
        let (mut encode_s, mut decode_s) = (Vec::new(), Vec::new());
        for round in 0..=rounds.max(1) {
            payload.clear();
            let start = clock();
            self.encode(scored, &mut payload)?;
            let middle = clock();
            self.decode(&payload, &mut decoded)?;
            let end = clock();
            if round > 0 {
                encode_s.push(middle - start);
                decode_s.push(end - middle);
            }
        }
        let lossless = decoded == scored.bytes();
        let decoded = Tensor::new(scored.dtype(), scored.shape().to_vec(), decoded)?;
        Ok(Measurement {
            bytes: scored.bytes().len(),
            compressed_bytes: payload.len(),
            encode_s: median(&mut encode_s),
            decode_s: median(&mut decode_s),
            similarity: if lossless { 1.0 } else { similarity(scored, decoded.view())? },
            lossless,
            side_bytes: self.side_bytes(),
        })
    }
}

/// The middle value, the lower of two; 0 for none.
pub fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len().saturating_sub(1) / 2).copied().unwrap_or(0.0)
}
