//! A few rows of a tensor, to estimate what a codec makes of all of them.

use crate::error::CodecError;
use crate::tensor::{DType, TensorRef};

/// Runs of rows that a probe is taken from.
const RUNS: usize = 4;

/// A few runs of rows of a tensor.
pub(crate) struct Probe {
    dtype: DType,
    shape: [usize; 2],
    bytes: Vec<u8>,
}

impl Probe {
    /// Rows of about `elements` elements, at least one row.
    pub(crate) fn of(tensor: TensorRef<'_>, elements: usize) -> Self {
        let (rows, cols) = tensor.rows_cols();
        let width = cols * tensor.dtype().size();
        let wanted = (elements / cols.max(1)).clamp(1, rows);
        let run = wanted.div_ceil(RUNS);
        let stride = (rows / RUNS).max(run);
        let mut bytes = Vec::with_capacity(wanted * width);
        for start in (0..rows).step_by(stride) {
            bytes.extend_from_slice(&tensor.bytes()[start * width..(start + run).min(rows) * width]);
            if bytes.len() >= wanted * width {
                break;
            }
        }
        let shape = [bytes.len() / width.max(1), cols];
        Self { dtype: tensor.dtype(), shape, bytes }
    }

    pub(crate) fn view(&self) -> Result<TensorRef<'_>, CodecError> {
        TensorRef::new(self.dtype, &self.shape, &self.bytes)
    }

    /// Bytes of the rows.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }
}
