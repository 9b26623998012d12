//! A tensor between two stages, as raw little-endian bytes.

use serde::{Deserialize, Serialize};

/// How the bytes of a [`Message`] are to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Dtype {
    /// IEEE 754 single precision.
    F32,
    /// The upper half of an f32.
    Bf16,
    /// Packed codes; the cut knows their meaning.
    U8,
}

impl Dtype {
    /// Bytes per number.
    pub fn bytes(self) -> usize {
        match self {
            Dtype::F32 => 4,
            Dtype::Bf16 => 2,
            Dtype::U8 => 1,
        }
    }

    /// The name as it stands in specs.
    pub fn name(self) -> &'static str {
        match self {
            Dtype::F32 => "f32",
            Dtype::Bf16 => "bf16",
            Dtype::U8 => "u8",
        }
    }
}

/// What crosses a cut, in either direction: `[rows, width]` numbers or `[bytes]` packed codes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Type of the numbers.
    pub dtype: Dtype,
    /// Shape, slowest first.
    pub shape: Vec<usize>,
    /// Raw little-endian bytes; exactly product of `shape` × bytes per number.
    pub bytes: Vec<u8>,
}

/// Why a peer's message can't be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MessageError {
    /// Wrong type of numbers.
    #[error("the message holds {found} where {expected} belongs")]
    Dtype {
        /// What came.
        found: &'static str,
        /// What the cut sends.
        expected: &'static str,
    },
    /// Wrong shape.
    #[error("the message has shape {found:?} where {expected:?} belongs")]
    Shape {
        /// What came.
        found: Vec<usize>,
        /// What the cut sends.
        expected: Vec<usize>,
    },
    /// The bytes don't fill the shape.
    #[error("the message has {found} bytes where its shape needs {expected}")]
    Length {
        /// What came.
        found: usize,
        /// What the shape needs.
        expected: usize,
    },
    /// A number that is infinite or not a number, or a code without a meaning.
    #[error("number {index} of the message is not finite or has no meaning")]
    Value {
        /// Position in the flat message.
        index: usize,
    },
}

impl Message {
    /// Checks type, shape and length against what the cut sends.
    pub fn check(&self, dtype: Dtype, shape: &[usize]) -> Result<(), MessageError> {
        if self.dtype != dtype {
            return Err(MessageError::Dtype { found: self.dtype.name(), expected: dtype.name() });
        }
        if self.shape != shape {
            return Err(MessageError::Shape { found: self.shape.clone(), expected: shape.to_vec() });
        }
        let expected = shape.iter().product::<usize>() * dtype.bytes();
        if self.bytes.len() != expected {
            return Err(MessageError::Length { found: self.bytes.len(), expected });
        }
        Ok(())
    }

    /// Packs `numbers` as `dtype`, which is `F32` or `Bf16` (round to nearest, ties to even).
    pub fn from_f32(dtype: Dtype, shape: Vec<usize>, numbers: &[f32]) -> Message {
        let mut bytes = vec![0; numbers.len() * dtype.bytes()];
        match dtype {
            Dtype::F32 => {
                for (b, x) in bytes.as_chunks_mut::<4>().0.iter_mut().zip(numbers) {
                    *b = x.to_le_bytes();
                }
            }
            Dtype::Bf16 => {
                for (b, &x) in bytes.as_chunks_mut::<2>().0.iter_mut().zip(numbers) {
                    *b = half::bf16::from_f32(x).to_le_bytes();
                }
            }
            Dtype::U8 => {
                for (b, &x) in bytes.iter_mut().zip(numbers) {
                    *b = x as u8;
                }
            }
        }
        Message { dtype, shape, bytes }
    }

    /// Unpacks `F32` or `Bf16` into `out`; refuses what is not finite. The length was checked before.
    pub fn read_f32(&self, out: &mut [f32]) -> Result<(), MessageError> {
        match self.dtype {
            Dtype::F32 => {
                for (o, b) in out.iter_mut().zip(self.bytes.as_chunks::<4>().0) {
                    *o = f32::from_le_bytes(*b);
                }
            }
            Dtype::Bf16 => {
                for (o, b) in out.iter_mut().zip(self.bytes.as_chunks::<2>().0) {
                    *o = half::bf16::from_le_bytes(*b).to_f32();
                }
            }
            Dtype::U8 => {
                return Err(MessageError::Dtype { found: "u8", expected: "f32 or bf16" });
            }
        }
        match out.iter().position(|x| !x.is_finite()) {
            Some(index) => Err(MessageError::Value { index }),
            None => Ok(()),
        }
    }
}
