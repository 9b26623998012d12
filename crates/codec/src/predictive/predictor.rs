//! The shared predictor: integer weights, their scales and the errors to expect.

use crate::bytes::Reader;
use crate::entropy::range::{Decoder, Encoder};
use crate::entropy::weights::WeightModel;
use crate::error::CodecError;
use crate::header::CodecId;
use crate::limits::MAX_PREDICTOR_COLUMNS;

/// Bytes that start every predictor: a name and a version.
const MAGIC: [u8; 4] = *b"SPR1";

/// A linear prediction of each column from the columns before it, in integers.
///
/// Learn one from earlier tensors of a wire with [`Predictor::learn`], send [`Predictor::to_bytes`] once, and name it
/// by [`Predictor::id`].
#[derive(Clone, Debug, PartialEq)]
pub struct Predictor {
    columns: usize,
    /// Row j holds the weights of columns below j, in pairs, zero from j on; rows follow each other.
    weights: Vec<[i16; 2]>,
    /// Where each row of `weights` starts.
    starts: Vec<usize>,
    scales: Vec<Scale>,
    id: u64,
    bytes: Vec<u8>,
}

/// Scales of one column.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Scale {
    /// Exponent of the column relative to its row's.
    pub(crate) column_exponent: i32,
    /// Fraction bits of the column's weights.
    pub(crate) weight_bits: u32,
    /// What to add to the exponent of an f32 of a sum, besides the row's exponent, for the bf16 exponent.
    pub(crate) exponent: i32,
    /// Expected error of a sum.
    pub(crate) error: f32,
    /// 1 / `error`.
    pub(crate) inverse_error: f32,
}

/// One column before it is packed: what learning found.
#[derive(Clone, Debug)]
pub(crate) struct Column {
    pub(crate) exponent: i8,
    pub(crate) weight_bits: u8,
    /// Expected error of a sum, in 1/256 octaves: log2 of it times 256.
    pub(crate) log_error: u16,
    /// Weights of the columns before.
    pub(crate) weights: Vec<i16>,
}

impl Predictor {
    pub(crate) fn from_columns(columns: &[Column]) -> Self {
        let mut body = Encoder::new();
        let mut model = WeightModel::new();
        for column in columns {
            body.direct(u32::from(column.exponent as u8), 8);
            body.direct(u32::from(column.weight_bits), 4);
            body.direct(u32::from(column.log_error), 13);
            model.begin();
            for &w in &column.weights {
                model.write(&mut body, w);
            }
        }
        let mut bytes = MAGIC.to_vec();
        bytes.extend_from_slice(&(columns.len() as u32).to_le_bytes());
        body.finish(&mut bytes);
        Self::pack(columns, bytes)
    }

    fn pack(columns: &[Column], bytes: Vec<u8>) -> Self {
        let mut weights = Vec::new();
        let mut starts = Vec::with_capacity(columns.len());
        let mut scales = Vec::with_capacity(columns.len());
        for column in columns {
            starts.push(weights.len());
            weights.extend(column.weights.chunks(2).map(|w| [w[0], w.get(1).copied().unwrap_or(0)]));
            // 2^(l / 256) by its f32 bit pattern: linear between powers of two, the same on every machine.
            let error = f32::from_bits((127 << 23) + (u32::from(column.log_error) << 15));
            let weight_bits = u32::from(column.weight_bits);
            let column_exponent = i32::from(column.exponent);
            // A sum of 2^(7 + UNIT_SHIFT + weight_bits) stands for the exponent of the row and column.
            let unit = 127 + 7 + super::element::UNIT_SHIFT + i32::from(column.weight_bits);
            scales.push(Scale {
                column_exponent,
                weight_bits,
                exponent: column_exponent - unit,
                error,
                inverse_error: 1.0 / error,
            });
        }
        let id = twox_hash::XxHash3_64::oneshot(&bytes);
        Self { columns: columns.len(), weights, starts, scales, id, bytes }
    }

    /// The predictor as it is sent, once.
    pub fn to_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Reads what [`Predictor::to_bytes`] gave.
    ///
    /// # Errors
    /// Anything but a predictor of at most [`MAX_PREDICTOR_COLUMNS`] columns.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, CodecError> {
        let mut reader = Reader::new(CodecId::Predictive, bytes);
        if reader.take(4)? != MAGIC {
            return Err(reader.malformed("not a predictor"));
        }
        let count = reader.u32()? as usize;
        if count == 0 || count > MAX_PREDICTOR_COLUMNS {
            return Err(reader.malformed("number of columns is out of range"));
        }
        // A column costs at least its 25 direct bits, so a short input cannot ask for many columns.
        if bytes.len() < 3 * count {
            return Err(reader.malformed("predictor is cut short"));
        }
        let mut body = Decoder::new(&mut reader)?;
        reader.end()?;
        let mut model = WeightModel::new();
        let mut columns = Vec::with_capacity(count);
        for j in 0..count {
            let exponent = body.direct(8) as u8 as i8;
            let weight_bits = body.direct(4) as u8;
            let log_error = body.direct(13) as u16;
            model.begin();
            let weights = (0..j).map(|_| model.read(&mut body)).collect();
            columns.push(Column { exponent, weight_bits, log_error, weights });
        }
        Ok(Self::pack(&columns, bytes.to_vec()))
    }

    /// Hash of the predictor's bytes: what payloads name it by.
    pub const fn id(&self) -> u64 {
        self.id
    }

    /// Columns of the tensors that it predicts.
    pub const fn columns(&self) -> usize {
        self.columns
    }

    pub(crate) fn row(&self, column: usize) -> &[[i16; 2]] {
        let start = self.starts[column];
        &self.weights[start..start + column.div_ceil(2)]
    }

    pub(crate) fn scale(&self, column: usize) -> Scale {
        self.scales[column]
    }
}

impl Predictor {
    /// Columns that a predictor says to have, without reading it: what it takes to read one grows with their square.
    ///
    /// # Errors
    /// Bytes that do not begin like a predictor.
    pub fn columns_in(bytes: &[u8]) -> Result<usize, CodecError> {
        let mut reader = Reader::new(CodecId::Predictive, bytes);
        if reader.take(4)? != MAGIC {
            return Err(reader.malformed("not a predictor"));
        }
        Ok(reader.u32()? as usize)
    }
}
