//! What a tensor holds: entropies of its fields, its structure, and how far a lossless codec can go.

use crate::context::Repeats;
use crate::error::CodecError;
use crate::header::CodecId;
use crate::payload::encode_at;
use crate::predictive::{Predictor, encode_predictive};
use crate::simd::Level;
use crate::tensor::{DType, TensorRef};

/// Statistics of one tensor of 16-bit floats; entropies in bits an element.
#[derive(Clone, Debug, PartialEq)]
pub struct Inspection {
    /// Rows: all dimensions but the last.
    pub rows: usize,
    /// Columns: the last dimension.
    pub columns: usize,
    /// Entropy of the sign.
    pub sign_bits: f64,
    /// Entropy of the sign given its column.
    pub sign_given_column_bits: f64,
    /// Entropy of the exponent.
    pub exponent_bits: f64,
    /// Entropy of the exponent relative to its row's mean.
    pub exponent_given_row_bits: f64,
    /// Entropy of the exponent relative to its column's mean.
    pub exponent_given_column_bits: f64,
    /// Entropy of the mantissa.
    pub mantissa_bits: f64,
    /// Share of elements that are zero.
    pub zeros: f64,
    /// Share of rows that repeat an earlier row.
    pub repeated_rows: f64,
    /// Spread of the columns' mean exponents (standard deviation), in octaves: how much columns differ in scale.
    pub column_spread: f64,
    /// Spread of the rows' mean exponents (standard deviation), in octaves.
    pub row_spread: f64,
    /// Ratio that coding the exponent alone reaches: 16 / (sign + exponent + mantissa stored).
    pub exponent_ratio: f64,
    /// Ratio of the context codec.
    pub context_ratio: f64,
    /// Ratio of the predictive codec on the second half of the rows, learned on the first; 0 where it does not apply.
    pub predictive_ratio: f64,
    /// The best of the reached ratios: a lower bound on what is reachable.
    pub best_ratio: f64,
}

/// Inspects a tensor of bf16 or f16.
///
/// # Errors
/// Another element type, or no elements.
pub fn inspect(tensor: TensorRef<'_>) -> Result<Inspection, CodecError> {
    let (exponent_width, mantissa_width) = match tensor.dtype() {
        DType::Bf16 => (8, 7),
        DType::F16 => (5, 10),
        dtype => return Err(CodecError::UnsupportedDType { codec: CodecId::Raw, dtype }),
    };
    if tensor.is_empty() {
        return Err(CodecError::OutOfRange { what: "tensor", range: "of one element or more" });
    }
    let (rows, columns) = tensor.rows_cols();
    let words: Vec<u16> = tensor.bytes().as_chunks::<2>().0.iter().map(|w| u16::from_le_bytes(*w)).collect();
    let exponent = |w: u16| usize::from(w >> mantissa_width) & ((1 << exponent_width) - 1);
    let n = words.len() as f64;
    let mean = |sum: f64, count: usize| sum / count.max(1) as f64;
    let row_means: Vec<f64> =
        words.chunks(columns).map(|r| mean(r.iter().map(|&w| exponent(w) as f64).sum(), r.len())).collect();
    let mut column_sums = vec![0.0; columns];
    let mut negatives = vec![0_u64; columns];
    for row in words.chunks(columns) {
        for (j, &w) in row.iter().enumerate() {
            column_sums[j] += exponent(w) as f64;
            negatives[j] += u64::from(w >> 15);
        }
    }
    let column_means: Vec<f64> = column_sums.iter().map(|&s| mean(s, rows)).collect();
    let histogram = |symbol: &dyn Fn(usize, u16) -> usize, size: usize| {
        let mut counts = vec![0_u64; size];
        for (i, &w) in words.iter().enumerate() {
            counts[symbol(i, w) % size] += 1;
        }
        entropy(&counts)
    };
    let relative = |e: usize, base: f64| (e + 256).wrapping_sub(base as usize);
    let sign_given_column =
        negatives.iter().map(|&k| rows as f64 * entropy(&[k, rows as u64 - k])).sum::<f64>() / n;
    let sign_bits = entropy(&[negatives.iter().sum(), words.len() as u64 - negatives.iter().sum::<u64>()]);
    let exponent_bits = histogram(&|_, w| exponent(w), 256);
    let repeated = Repeats::find(tensor.bytes(), columns).count();
    let level = Level::detect();
    let mut payload = Vec::new();
    encode_at(level, CodecId::Context, tensor, &mut payload)?;
    let context_ratio = tensor.bytes().len() as f64 / payload.len() as f64;
    let predictive_ratio = predictive_ratio(level, tensor)?;
    let exponent_ratio = 16.0 / (1.0 + exponent_bits + f64::from(mantissa_width));
    Ok(Inspection {
        rows,
        columns,
        sign_bits,
        sign_given_column_bits: sign_given_column,
        exponent_bits,
        exponent_given_row_bits: histogram(&|i, w| relative(exponent(w), row_means[i / columns]), 512),
        exponent_given_column_bits: histogram(&|i, w| relative(exponent(w), column_means[i % columns]), 512),
        mantissa_bits: histogram(&|_, w| usize::from(w) & ((1 << mantissa_width) - 1), 1 << mantissa_width),
        zeros: words.iter().filter(|&&w| w.trailing_zeros() >= 15).count() as f64 / n,
        repeated_rows: repeated as f64 / rows as f64,
        column_spread: spread(&column_means),
        row_spread: spread(&row_means),
        exponent_ratio,
        context_ratio,
        predictive_ratio,
        best_ratio: exponent_ratio.max(context_ratio).max(predictive_ratio),
    })
}

fn predictive_ratio(level: Level, tensor: TensorRef<'_>) -> Result<f64, CodecError> {
    let (rows, columns) = tensor.rows_cols();
    if tensor.dtype() != DType::Bf16 || rows < 4 || columns > 2048 {
        return Ok(0.0);
    }
    let (first, second) = tensor.bytes().split_at(rows / 2 * columns * 2);
    let (first_shape, second_shape) = ([rows / 2, columns], [rows - rows / 2, columns]);
    let predictor = Predictor::learn(&[TensorRef::new(DType::Bf16, &first_shape, first)?])?;
    let mut payload = Vec::new();
    encode_predictive(level, &predictor, TensorRef::new(DType::Bf16, &second_shape, second)?, &mut payload)?;
    Ok(second.len() as f64 / payload.len() as f64)
}

/// Order-0 entropy in bits a symbol.
fn entropy(counts: &[u64]) -> f64 {
    let total: u64 = counts.iter().sum();
    let bits = |&c: &u64| if c == 0 { 0.0 } else { c as f64 * (total as f64 / c as f64).log2() };
    counts.iter().map(bits).sum::<f64>() / (total as f64).max(1.0)
}

fn spread(values: &[f64]) -> f64 {
    let n = values.len().max(1) as f64;
    let mean = values.iter().sum::<f64>() / n;
    (values.iter().map(|v| (v - mean) * (v - mean)).sum::<f64>() / n).sqrt()
}
