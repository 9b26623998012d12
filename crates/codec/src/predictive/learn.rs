//! Learning a predictor: ridge regression of each column on the columns before it, by one Cholesky factor.
//!
//! With the covariance C + λI = L Lᵀ and D = diag(L), the rows of I − D L⁻¹ are the regression's weights and D² its
//! residual variances. λ is the one of a few that predicts held-back rows best.

use super::element::{UNIT_SHIFT, integer};
use super::predictor::{Column, Predictor};
use super::row_exponent;
use crate::error::CodecError;
use crate::limits::MAX_PREDICTOR_COLUMNS;
use crate::linalg::Symmetric;
use crate::tensor::{DType, TensorRef};

/// Ridges tried, as shares of the mean variance.
const RIDGES: [f64; 6] = [1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1];
/// One row in this many is held back to choose the ridge.
const HOLD_BACK: usize = 5;
/// Share of a column's error that rounding its weights may add, in variance.
const ROUNDING: f64 = 0.01;

impl Predictor {
    /// Learns from earlier tensors of the same wire, all bf16 with rows of the same length.
    ///
    /// Time grows with rows × columns²; a few thousand rows are enough for 512 columns. The result depends on the
    /// machine's arithmetic in its last bits, so learn at one end and send it to the other.
    ///
    /// # Errors
    /// No tensors, another element type, differing row lengths, more than [`MAX_PREDICTOR_COLUMNS`] columns.
    pub fn learn(tensors: &[TensorRef<'_>]) -> Result<Self, CodecError> {
        let columns = tensors.first().map_or(0, |t| t.rows_cols().1);
        let fits = |t: &TensorRef<'_>| t.dtype() == DType::Bf16 && t.rows_cols().1 == columns;
        if !(1..=MAX_PREDICTOR_COLUMNS).contains(&columns) || !tensors.iter().all(fits) {
            let range = "one or more bf16 tensors with rows of the same length, at most 4096";
            return Err(CodecError::OutOfRange { what: "tensors to learn from", range });
        }
        let mut learner = Learner::new(columns)?;
        learner.exponents = Some(column_exponents(tensors, columns));
        for tensor in tensors {
            learner.add(*tensor)?;
        }
        learner.predictor()
    }
}

/// Learns a wire's predictor from its tensors as they pass: two matrices of columns × columns of f64 stay, however many
/// tensors there were.
///
/// The sender adds the tensors that it encodes anyway, every now and then asks for a [`Predictor`], sends that one's
/// bytes once, and encodes by it from then on. Payloads name the predictor that they need by its id, so both ends may
/// hold several versions; the receiver forgets one ([`crate::Shared::remove_predictor`]) when the sender says that no
/// payload under way names it.
///
/// # Examples
/// ```
/// use shoal_codec::{DType, Learner, Predictor, TensorRef};
///
/// let bytes: Vec<u8> = (0..4096_u32).flat_map(|i| (0x3f80 ^ (i * 37 % 512) as u16).to_le_bytes()).collect();
/// let mut learner = Learner::new(64)?;
/// for rows in bytes.chunks(16 * 64 * 2) {
///     learner.add(TensorRef::new(DType::Bf16, &[16, 64], rows)?)?;
/// }
/// let predictor = learner.predictor()?;
/// assert_eq!(Predictor::from_bytes(predictor.to_bytes())?.id(), predictor.id());
/// # Ok::<(), shoal_codec::CodecError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Learner {
    columns: usize,
    /// Those of the first tensor: integers of all tensors must have the same units.
    exponents: Option<Vec<i8>>,
    kept: Symmetric,
    /// Rows held back, by which the ridge is chosen and errors are expected.
    held: Symmetric,
    rows: usize,
}

impl Learner {
    /// Nothing learned yet, of tensors with rows of `columns` elements.
    ///
    /// # Errors
    /// No columns, or more than [`MAX_PREDICTOR_COLUMNS`].
    pub fn new(columns: usize) -> Result<Self, CodecError> {
        if !(1..=MAX_PREDICTOR_COLUMNS).contains(&columns) {
            return Err(CodecError::OutOfRange { what: "columns of a predictor", range: "1 to 4096" });
        }
        let none = Symmetric::none(columns);
        Ok(Self { columns, exponents: None, kept: none.clone(), held: none, rows: 0 })
    }

    /// Adds the rows of a tensor. Time grows with rows × columns².
    ///
    /// # Errors
    /// Another element type or row length.
    pub fn add(&mut self, tensor: TensorRef<'_>) -> Result<(), CodecError> {
        if tensor.dtype() != DType::Bf16 || tensor.rows_cols().1 != self.columns {
            let range = "bf16 with rows of the learner's length";
            return Err(CodecError::OutOfRange { what: "tensor to learn from", range });
        }
        let columns = self.columns;
        let exponents = self.exponents.get_or_insert_with(|| column_exponents(&[tensor], columns));
        let rows = integer_rows(tensor, columns, exponents);
        let (mut kept, mut held) = (Vec::new(), Vec::new());
        for row in &rows {
            self.rows += 1;
            if self.rows.is_multiple_of(HOLD_BACK) { &mut held } else { &mut kept }.push(row.as_slice());
        }
        self.kept.add(&Symmetric::of(&kept, columns));
        self.held.add(&Symmetric::of(&held, columns));
        Ok(())
    }

    /// Lets what was learned so far count `share` times, from 0 to 1: weights change, and what they say ages.
    pub fn fade(&mut self, share: f64) {
        let share = if share.is_finite() { share.clamp(0.0, 1.0) } else { 1.0 };
        self.kept.scale(share);
        self.held.scale(share);
    }

    /// Rows that were added.
    pub const fn rows(&self) -> usize {
        self.rows
    }

    /// The predictor that these rows make. Time grows with columns³. The result depends on the machine's arithmetic in
    /// its last bits, so learn at one end and send it to the other.
    ///
    /// # Errors
    /// No rows yet, or nothing but zeros.
    pub fn predictor(&self) -> Result<Predictor, CodecError> {
        let columns = self.columns;
        let no_factor =
            CodecError::OutOfRange { what: "tensors to learn from", range: "finite and not all zero" };
        let exponents = self.exponents.as_ref().ok_or(no_factor.clone())?;
        let mut covariance = self.kept.clone();
        let held_covariance = &self.held;
        let holds = held_covariance.rows > 0.0;
        let mut best = (f64::INFINITY, RIDGES[2]);
        for ridge in RIDGES {
            let Some(weights) = covariance.regressions(ridge) else { continue };
            let loss: f64 = (0..columns).map(|j| held_covariance.error(&weights, j).max(1e-3).log2()).sum();
            if loss < best.0 {
                best = (loss, ridge);
            }
        }
        let weights = covariance.regressions(best.1).ok_or(no_factor.clone())?;
        let errors: Vec<f64> = (0..columns)
            .map(|j| if holds { held_covariance.error(&weights, j) } else { covariance.error(&weights, j) })
            .collect();
        covariance.add(held_covariance);
        let weights = covariance.regressions(best.1).ok_or(no_factor)?;
        let columns: Vec<Column> = (0..columns)
            .map(|j| column(exponents[j], &weights[j * columns..j * columns + j], errors[j], &covariance))
            .collect();
        Ok(Predictor::from_columns(&columns))
    }
}

/// Rounds one column's weights to as few bits as the expected error allows.
fn column(exponent: i8, weights: &[f64], variance: f64, covariance: &Symmetric) -> Column {
    // Rounding to steps of 2^-b adds Σ var(x_k) 4^-b / 12.
    let power: f64 = (0..weights.len()).map(|k| covariance.at(k, k)).sum::<f64>().max(1e-9);
    let variance = variance.max(1.0 / 12.0);
    let finest = weights.iter().fold(1e-9_f64, |m, w| m.max(w.abs()));
    // Weights and sums stay within 15 and 31 bits.
    let most = (32000.0 / finest).log2().floor().clamp(0.0, 14.0);
    let bits = (0.5 * (power / (12.0 * ROUNDING * variance)).log2()).ceil().clamp(0.0, most);
    let unit = bits.exp2();
    let error = variance.sqrt() * unit;
    Column {
        exponent,
        weight_bits: bits as u8,
        log_error: (error.log2() * 256.0).clamp(0.0, 8191.0) as u16,
        weights: weights.iter().map(|w| (w * unit).round() as i16).collect(),
    }
}

/// Mean exponent of each column, relative to its row's.
fn column_exponents(tensors: &[TensorRef<'_>], columns: usize) -> Vec<i8> {
    let mut sums = vec![(0_i64, 0_i64); columns];
    for row in tensors.iter().flat_map(|t| t.bytes().chunks_exact(2 * columns)) {
        let base = i64::from(row_exponent(row));
        for (s, w) in sums.iter_mut().zip(row.as_chunks::<2>().0) {
            let exponent = i64::from(u16::from_le_bytes(*w) >> 7 & 0xff);
            if exponent > 0 {
                *s = (s.0 + exponent - base, s.1 + 1);
            }
        }
    }
    sums.into_iter().map(|(s, n)| s.checked_div(n).unwrap_or(0).clamp(-100, 100) as i8).collect()
}

fn integer_rows(tensor: TensorRef<'_>, columns: usize, exponents: &[i8]) -> Vec<Vec<f32>> {
    let rows = tensor.bytes().chunks_exact(2 * columns);
    rows.map(|row| {
        let base = i32::from(row_exponent(row));
        let words = row.as_chunks::<2>().0.iter().zip(exponents);
        words.map(|(w, &e)| integer(u16::from_le_bytes(*w), base + i32::from(e)) as f32).collect()
    })
    .collect()
}

impl Symmetric {
    /// Mean square error of column `j` under `weights`.
    fn error(&self, weights: &[f64], j: usize) -> f64 {
        let w = &weights[j * self.n..j * self.n + j];
        let mut error = self.at(j, j);
        for (k, &wk) in w.iter().enumerate() {
            let row = &self.sums[k * self.n..k * self.n + k];
            let inner: f64 = row.iter().zip(w).map(|(c, w)| c * w).sum();
            error += wk * (2.0 * inner / self.rows.max(1.0) + wk * self.at(k, k) - 2.0 * self.at(j, k));
        }
        error
    }

    /// Weights of all regressions, row-major and strictly lower; `None` where the matrix has no factor.
    fn regressions(&self, ridge: f64) -> Option<Vec<f64>> {
        let n = self.n;
        let trace: f64 = (0..n).map(|i| self.at(i, i)).sum();
        // A quarter of a squared integer step keeps constant columns regular.
        let add = ridge * trace / n as f64 + 0.25;
        let mut factor = vec![0.0; n * n];
        for i in 0..n {
            let (above, row) = factor.split_at_mut(i * n);
            for j in 0..=i {
                let dot: f64 = if j < i {
                    row[..j].iter().zip(&above[j * n..j * n + j]).map(|(a, b)| a * b).sum()
                } else {
                    row[..j].iter().map(|a| a * a).sum()
                };
                let rest = self.at(i, j) - dot + if i == j { add } else { 0.0 };
                if i == j {
                    if !(rest > 0.0 && rest.is_finite()) {
                        return None;
                    }
                    row[i] = rest.sqrt();
                } else {
                    row[j] = rest / above[j * n + j];
                }
            }
        }
        // Row j solves wᵀ L = (row j of L below its diagonal), backwards.
        let mut weights = vec![0.0; n * n];
        for j in 0..n {
            let mut right = factor[j * n..j * n + j].to_vec();
            for k in (0..j).rev() {
                let w = right[k] / factor[k * n + k];
                weights[j * n + k] = w;
                for (r, l) in right[..k].iter_mut().zip(&factor[k * n..k * n + k]) {
                    *r -= w * l;
                }
            }
        }
        Some(weights)
    }
}

const _: () = assert!(UNIT_SHIFT == 3, "log_error's 13 bits hold errors up to 2^31");
