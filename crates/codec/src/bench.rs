//! Measuring codecs on tensors in memory; the clock is the caller's.

use crate::auto::{Auto, Link};
use crate::error::CodecError;
use crate::header::{CodecId, checksum};
use crate::limits::Limits;
use crate::lossy::{Basis, LowRank, Target, encode_klt, encode_lossy, encode_low_rank, similarity};
use crate::payload::{decode_into_at, encode_at};
use crate::predictive::{Predictor, encode_predictive};
use crate::shared::Shared;
use crate::simd::Level;
use crate::tensor::{Tensor, TensorRef};
use std::hint;
use std::sync::{Arc, Barrier};
use std::thread;

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
    /// Median time to encode into a reused buffer, without the checksum.
    pub encode_s: f64,
    /// Median time to decode into a reused buffer, checksum not verified.
    pub decode_s: f64,
    /// Median time of the payload's checksum: once when it is written, once where it is verified.
    pub checksum_s: f64,
    /// Median time to get fresh memory for the payload and the decoded tensor, where buffers are not reused.
    pub allocation_s: f64,
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
            Subject::Auto(link) => self.auto.encode(tensor, Link::idle(link), None, out).map(|(n, _)| n),
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
        let (mut checksum_s, mut allocation_s) = (Vec::new(), Vec::new());
        for round in 0..=rounds.max(1) {
            payload.clear();
            let start = clock();
            self.encode(scored, &mut payload)?;
            let encoded = clock();
            hint::black_box(checksum(&payload));
            let summed = clock();
            self.decode(&payload, &mut decoded)?;
            let end = clock();
            hint::black_box((vec![1_u8; payload.len()], vec![1_u8; decoded.len()]));
            let allocated = clock();
            if round > 0 {
                checksum_s.push(summed - encoded);
                encode_s.push((encoded - start - (summed - encoded)).max(0.0));
                decode_s.push(end - summed);
                allocation_s.push(allocated - end);
            }
        }
        let outcome = Outcome { decoded, compressed_bytes: payload.len() };
        let times = [encode_s, decode_s, checksum_s, allocation_s].map(|mut times| median(&mut times));
        self.measurement(outcome, times)
    }

    /// Like [`Prepared::measure`], with `threads` at work at the same time, each on its share of the rows, as a node
    /// has several tensors under way. A round lasts as long as its slowest thread, checksums included.
    pub fn measure_threads(
        &self,
        threads: usize,
        rounds: usize,
        clock: &(dyn Fn() -> f64 + Sync),
    ) -> Result<Measurement, CodecError> {
        let scored = self.scored()?;
        let (rows, cols) = scored.rows_cols();
        let width = cols * scored.dtype().size();
        let share = (rows.div_ceil(threads.max(1)) * width).max(1);
        let parts: Vec<(Vec<usize>, &[u8])> =
            scored.bytes().chunks(share).map(|b| (vec![b.len() / width, cols], b)).collect();
        let barrier = Barrier::new(parts.len());
        type Worked = (Vec<[f64; 2]>, Outcome);
        let work = |shape: &[usize], bytes: &[u8]| -> Result<Worked, CodecError> {
            let part = TensorRef::new(scored.dtype(), shape, bytes);
            let (mut payload, mut decoded) = (Vec::new(), Vec::new());
            let (mut times, mut failed) = (Vec::new(), None);
            for round in 0..=rounds.max(1) {
                payload.clear();
                barrier.wait();
                let start = clock();
                let encoded = part.clone().and_then(|part| self.encode(part, &mut payload));
                let middle = clock();
                // Whatever failed, every thread keeps to the barriers.
                barrier.wait();
                let again = clock();
                let result = encoded.and_then(|_| self.decode(&payload, &mut decoded));
                let end = clock();
                if round > 0 {
                    times.push([middle - start, end - again]);
                }
                failed = failed.or(result.err());
            }
            failed.map_or(Ok((times, Outcome { decoded, compressed_bytes: payload.len() })), Err)
        };
        let results: Vec<Result<Worked, CodecError>> = thread::scope(|scope| {
            let work = &work;
            let handles: Vec<_> =
                parts.iter().map(|(shape, bytes)| scope.spawn(move || work(shape, bytes))).collect();
            let join = |handle: thread::ScopedJoinHandle<'_, _>| match handle.join() {
                Ok(result) => result,
                Err(panic) => std::panic::resume_unwind(panic),
            };
            handles.into_iter().map(join).collect()
        });
        let results = results.into_iter().collect::<Result<Vec<Worked>, _>>()?;
        let slowest = |field: usize| -> f64 {
            let round = |r: usize| results.iter().map(|(times, _)| times[r][field]).fold(0.0, f64::max);
            median(&mut (0..rounds.max(1)).map(round).collect::<Vec<f64>>())
        };
        let times = [slowest(0), slowest(1), 0.0, 0.0];
        let outcome = Outcome {
            compressed_bytes: results.iter().map(|(_, outcome)| outcome.compressed_bytes).sum(),
            decoded: results.iter().flat_map(|(_, outcome)| outcome.decoded.iter().copied()).collect(),
        };
        self.measurement(outcome, times)
    }

    fn measurement(&self, outcome: Outcome, times: [f64; 4]) -> Result<Measurement, CodecError> {
        let scored = self.scored()?;
        let Outcome { decoded, compressed_bytes } = outcome;
        let [encode_s, decode_s, checksum_s, allocation_s] = times;
        let lossless = decoded == scored.bytes();
        let decoded = Tensor::new(scored.dtype(), scored.shape().to_vec(), decoded)?;
        Ok(Measurement {
            bytes: scored.bytes().len(),
            compressed_bytes,
            encode_s,
            decode_s,
            checksum_s,
            allocation_s,
            similarity: if lossless { 1.0 } else { similarity(scored, decoded.view())? },
            lossless,
            side_bytes: self.side_bytes(),
        })
    }
}

/// What came out of the last round.
struct Outcome {
    decoded: Vec<u8>,
    compressed_bytes: usize,
}

/// The middle value, the lower of two; 0 for none.
pub fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len().saturating_sub(1) / 2).copied().unwrap_or(0.0)
}
