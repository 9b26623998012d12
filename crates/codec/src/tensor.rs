//! Tensors at the edge of the crate: element type, shape and little-endian bytes.

use crate::error::CodecError;
use crate::limits::{MAX_DIMENSION, MAX_DIMENSIONS};
use std::fmt;

/// Element type. The discriminant is the byte on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum DType {
    /// bfloat16: sign, 8 exponent bits, 7 mantissa bits.
    Bf16 = 0,
    /// IEEE half: sign, 5 exponent bits, 10 mantissa bits.
    F16 = 1,
    /// IEEE single.
    F32 = 2,
    /// Unsigned 16-bit integers.
    U16 = 3,
    /// Bytes, such as codes that were packed elsewhere.
    U8 = 4,
}

impl DType {
    /// Bytes of one element.
    pub const fn size(self) -> usize {
        match self {
            Self::Bf16 | Self::F16 | Self::U16 => 2,
            Self::F32 => 4,
            Self::U8 => 1,
        }
    }

    /// The type with this byte on the wire.
    pub const fn from_id(id: u8) -> Option<Self> {
        match id {
            0 => Some(Self::Bf16),
            1 => Some(Self::F16),
            2 => Some(Self::F32),
            3 => Some(Self::U16),
            4 => Some(Self::U8),
            _ => None,
        }
    }

    /// Lower-case name: `bf16`, `f16`, `f32`, `u16`, `u8`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Bf16 => "bf16",
            Self::F16 => "f16",
            Self::F32 => "f32",
            Self::U16 => "u16",
            Self::U8 => "u8",
        }
    }

    /// The type with this name.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Bf16, Self::F16, Self::F32, Self::U16, Self::U8].into_iter().find(|d| d.name() == name)
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A borrowed tensor: row-major, little-endian, its length checked against its shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TensorRef<'a> {
    dtype: DType,
    shape: &'a [usize],
    bytes: &'a [u8],
}

impl<'a> TensorRef<'a> {
    /// Checks that `bytes` is what `shape` and `dtype` ask for.
    ///
    /// An empty shape is a scalar of one element.
    pub fn new(dtype: DType, shape: &'a [usize], bytes: &'a [u8]) -> Result<Self, CodecError> {
        let expected = byte_len(dtype, shape)?;
        if expected != bytes.len() {
            return Err(CodecError::SizeMismatch { dtype, expected, found: bytes.len() });
        }
        Ok(Self { dtype, shape, bytes })
    }

    /// Element type.
    pub const fn dtype(&self) -> DType {
        self.dtype
    }

    /// Elements along each dimension, slowest first.
    pub const fn shape(&self) -> &'a [usize] {
        self.shape
    }

    /// The elements, row-major and little-endian.
    pub const fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Number of elements.
    pub const fn len(&self) -> usize {
        self.bytes.len() / self.dtype.size()
    }

    /// Whether there are no elements.
    pub const fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// The tensor as a matrix: all dimensions but the last, and the last. A scalar is 1 × 1.
    pub fn rows_cols(&self) -> (usize, usize) {
        rows_cols(self.shape)
    }
}

/// An owned tensor: row-major and little-endian.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tensor {
    dtype: DType,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

impl Tensor {
    /// Checks that `bytes` is what `shape` and `dtype` ask for.
    pub fn new(dtype: DType, shape: Vec<usize>, bytes: Vec<u8>) -> Result<Self, CodecError> {
        TensorRef::new(dtype, &shape, &bytes)?;
        Ok(Self { dtype, shape, bytes })
    }

    /// Element type.
    pub const fn dtype(&self) -> DType {
        self.dtype
    }

    /// Elements along each dimension, slowest first.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The elements, row-major and little-endian.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Gives up the bytes, for reuse.
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// A borrowed view.
    pub fn view(&self) -> TensorRef<'_> {
        TensorRef { dtype: self.dtype, shape: &self.shape, bytes: &self.bytes }
    }
}

/// Matrix view of a shape: all dimensions but the last, and the last.
pub(crate) fn rows_cols(shape: &[usize]) -> (usize, usize) {
    match shape.split_last() {
        None => (1, 1),
        Some((&cols, rest)) => (rest.iter().product(), cols),
    }
}

/// Bytes that a shape of this type takes, with every bound checked.
pub(crate) fn byte_len(dtype: DType, shape: &[usize]) -> Result<usize, CodecError> {
    if shape.len() > MAX_DIMENSIONS {
        return Err(CodecError::TooManyDimensions { found: shape.len() });
    }
    if let Some(&found) = shape.iter().find(|&&d| d > MAX_DIMENSION) {
        return Err(CodecError::DimensionTooLarge { found });
    }
    if shape.contains(&0) {
        return Ok(0);
    }
    let overflow = CodecError::TooLarge { bytes: u64::MAX, limit: isize::MAX as usize };
    shape
        .iter()
        .try_fold(dtype.size(), |n, &d| n.checked_mul(d))
        .filter(|&n| isize::try_from(n).is_ok())
        .ok_or(overflow)
}
