//! How close a decoded tensor is, and what a caller may ask for.

use super::values::values;
use crate::error::CodecError;
use crate::tensor::TensorRef;

/// What a lossy payload must reach.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Target {
    /// At least this cosine × (1 − ‖x − y‖ / ‖x‖).
    Similarity(f64),
    /// At most this ‖x − y‖ / ‖x‖.
    RelativeError(f64),
}

impl Target {
    /// A similarity above 0 and below 1.
    pub fn similarity(least: f64) -> Result<Self, CodecError> {
        if least > 0.0 && least < 1.0 {
            return Ok(Self::Similarity(least));
        }
        Err(CodecError::OutOfRange { what: "similarity", range: "above 0 and below 1" })
    }

    /// A relative error above 0 and below 1.
    pub fn relative_error(most: f64) -> Result<Self, CodecError> {
        if most > 0.0 && most < 1.0 {
            return Ok(Self::RelativeError(most));
        }
        Err(CodecError::OutOfRange { what: "relative error", range: "above 0 and below 1" })
    }

    /// Whether these sums reach the target.
    pub(crate) fn is_met(self, sums: &Sums) -> bool {
        match self {
            Self::Similarity(least) => sums.similarity() >= least + MARGIN,
            Self::RelativeError(most) => sums.relative_error() <= most - MARGIN,
        }
    }

    /// The relative error to aim at, for errors that are orthogonal to what is decoded.
    pub(crate) fn error_to_aim_at(self) -> f64 {
        match self {
            Self::RelativeError(most) => most - MARGIN,
            Self::Similarity(least) => {
                let least = least + MARGIN;
                // Uniform quantisation leaves errors nearly orthogonal to the values: cosine ≈ 1 / √(1 + ε²).
                let (mut low, mut high) = (0.0, 1.0);
                for _ in 0..60 {
                    let e: f64 = 0.5 * (low + high);
                    if (1.0 - e) / (1.0 + e * e).sqrt() >= least { low = e } else { high = e }
                }
                low
            }
        }
    }
}

/// What encoders stay clear of a target by: their sums run partly in f32.
const MARGIN: f64 = 1e-6;

/// Sums over pairs of original and decoded values, in f64.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sums {
    pub(crate) xx: f64,
    pub(crate) yy: f64,
    pub(crate) error: f64,
}

impl Sums {
    /// Adds a run of pairs.
    #[inline(always)]
    pub(crate) fn add(&mut self, x: &[f32], y: &[f32]) {
        let mut lanes = [[0.0_f64; 8]; 3];
        let (x8, x_rest) = x.as_chunks::<8>();
        let (y8, y_rest) = y.as_chunks::<8>();
        for (x, y) in x8.iter().zip(y8) {
            for i in 0..8 {
                let (x, y) = (f64::from(x[i]), f64::from(y[i]));
                lanes[0][i] += x * x;
                lanes[1][i] += y * y;
                lanes[2][i] += (x - y) * (x - y);
            }
        }
        for (i, (&x, &y)) in x_rest.iter().zip(y_rest).enumerate() {
            let (x, y) = (f64::from(x), f64::from(y));
            lanes[0][i] += x * x;
            lanes[1][i] += y * y;
            lanes[2][i] += (x - y) * (x - y);
        }
        let [xx, yy, error] = lanes.map(|l| l.iter().sum::<f64>());
        self.add_sums(xx, yy, error);
    }

    /// Adds Σ x², Σ y² and Σ (x − y)².
    #[inline(always)]
    pub(crate) fn add_sums(&mut self, xx: f64, yy: f64, error: f64) {
        self.xx += xx;
        self.yy += yy;
        self.error += error;
    }

    pub(crate) fn relative_error(&self) -> f64 {
        if self.error == 0.0 { 0.0 } else { (self.error / self.xx).sqrt() }
    }

    pub(crate) fn similarity(&self) -> f64 {
        if self.error == 0.0 {
            return 1.0;
        }
        let norms = (self.xx * self.yy).sqrt();
        if norms == 0.0 {
            return 0.0;
        }
        let xy = 0.5 * (self.xx + self.yy - self.error);
        xy / norms * (1.0 - self.relative_error())
    }
}

fn sums(original: TensorRef<'_>, decoded: TensorRef<'_>) -> Result<Sums, CodecError> {
    if original.shape() != decoded.shape() || original.dtype() != decoded.dtype() {
        return Err(CodecError::OutOfRange {
            what: "decoded tensor",
            range: "of the original's type and shape",
        });
    }
    let (Some(x), Some(y)) = (values(original), values(decoded)) else {
        return Err(CodecError::OutOfRange { what: "element type", range: "a float" });
    };
    let mut sums = Sums::default();
    for (x, y) in x.chunks(4096).zip(y.chunks(4096)) {
        sums.add(x, y);
    }
    Ok(sums)
}

/// cosine × (1 − ‖x − y‖ / ‖x‖), in f64; 1 for equal tensors.
pub fn similarity(original: TensorRef<'_>, decoded: TensorRef<'_>) -> Result<f64, CodecError> {
    let sums = sums(original, decoded)?;
    Ok(if original.bytes() == decoded.bytes() { 1.0 } else { sums.similarity() })
}

/// ‖x − y‖ / ‖x‖, in f64; 0 for equal tensors.
pub fn relative_error(original: TensorRef<'_>, decoded: TensorRef<'_>) -> Result<f64, CodecError> {
    let sums = sums(original, decoded)?;
    Ok(if original.bytes() == decoded.bytes() { 0.0 } else { sums.relative_error() })
}
