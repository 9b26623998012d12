//! One input of a round: a tensor as raw little-endian bf16, with what both sides of a codec are told about it.
//!
//! As a blob, which is what a pool names by its hash, a tensor has a head, so that every judge tells an entry the same:
//!
//! | offset | bytes | field (little-endian) |
//! |---|---|---|
//! | 0 | 8 | magic `shoaltn1` |
//! | 8 | 4 | direction: 0 forward, 1 backward |
//! | 12 | 4 | rows |
//! | 16 | 4 | columns |
//! | 20 | 4 | zero |
//! | 24 | 2 × rows × columns | bf16 |
//!
//! A blob without that head is one row of bf16, forward, unless a manifest says otherwise.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use arena::measure::CodecItem;
use arena::similarity::{similarity, to_ppb};
use wire::Hash;

/// Where a tensor comes from. A codec is told, since the swarm's frames say so too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Direction {
    /// An activation on its way forward, a weight, data of no swarm.
    #[default]
    Forward,
    /// A gradient on its way back.
    Backward,
}

impl Direction {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Forward, Self::Backward];

    /// Name in a manifest.
    pub fn name(self) -> &'static str {
        match self {
            Self::Forward => "forward",
            Self::Backward => "backward",
        }
    }
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Direction {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        Self::ALL.into_iter().find(|direction| direction.name() == text).ok_or(())
    }
}

/// One input.
#[derive(Clone, PartialEq, Eq)]
pub struct Input {
    /// For logs. An entry never sees it.
    pub name: String,
    /// Elements along each dimension, slowest first.
    pub shape: Vec<u32>,
    /// Where it comes from.
    pub direction: Direction,
    /// bf16, little-endian, row-major.
    pub bytes: Arc<[u8]>,
    /// BLAKE3 of the blob: the item's name in a pool.
    pub hash: Hash,
}

/// First bytes of a blob with a head.
const MAGIC: &[u8; 8] = b"shoaltn1";
/// Bytes of the head.
const HEAD_BYTES: usize = 24;

impl fmt::Debug for Input {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Input({} {:?} {} {})", self.name, self.shape, self.direction, self.hash.short())
    }
}

/// Why bytes are no input.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InputError {
    /// Empty, or too long.
    #[error("{0} bytes: an input has 1 (a tensor 2) to {max}", max = crate::limits::INPUT_BYTES_MAX)]
    Length(usize),
    /// The shape asks for another length.
    #[error("shape {shape:?} takes {expected} bytes of bf16, there are {found}")]
    Shape {
        /// Shape given.
        shape: Vec<u32>,
        /// Bytes that it takes.
        expected: u64,
        /// Bytes given.
        found: usize,
    },
    /// A head with impossible fields.
    #[error("the head of the blob is none: direction 0 or 1, then rows, columns and zero")]
    Head,
    /// An infinity, or no number: nothing is like it.
    #[error("element {0} is not a finite number")]
    NotFinite(usize),
}

impl Input {
    /// Checks the bytes. Without a shape it is one row.
    pub fn new(
        name: impl Into<String>,
        shape: Option<Vec<u32>>,
        direction: Direction,
        bytes: impl Into<Arc<[u8]>>,
    ) -> Result<Self, InputError> {
        let bytes = bytes.into();
        if bytes.is_empty() || bytes.len() > crate::limits::INPUT_BYTES_MAX || !bytes.len().is_multiple_of(2)
        {
            return Err(InputError::Length(bytes.len()));
        }
        let shape = shape.unwrap_or_else(|| vec![(bytes.len() / 2) as u32]);
        let expected = shape.iter().try_fold(2_u64, |product, n| product.checked_mul(u64::from(*n)));
        if expected != Some(bytes.len() as u64) {
            let expected = expected.unwrap_or(u64::MAX);
            return Err(InputError::Shape { shape, expected, found: bytes.len() });
        }
        // All bits of the exponent: infinity or no number.
        let broken = |pair: &[u8; 2]| u16::from_le_bytes(*pair) & 0x7f80 == 0x7f80;
        if let Some(index) = bytes.as_chunks::<2>().0.iter().position(broken) {
            return Err(InputError::NotFinite(index));
        }
        let mut input = Self { name: name.into(), shape, direction, bytes, hash: Hash([0; 32]) };
        input.hash = Hash::of(&input.to_blob());
        Ok(input)
    }

    /// Whether a blob begins with a head, and has all of it.
    pub(crate) fn has_head(blob: &[u8]) -> bool {
        blob.starts_with(MAGIC) && blob.len() >= HEAD_BYTES
    }

    /// Reads a blob. `shape` and `direction` are what a manifest says, for a blob without a head.
    pub fn of_blob(
        name: impl Into<String>,
        blob: &[u8],
        shape: Option<Vec<u32>>,
        direction: Direction,
    ) -> Result<Self, InputError> {
        let hash = Hash::of(blob);
        let input = match blob.split_first_chunk::<HEAD_BYTES>() {
            Some((head, bytes)) if head.starts_with(MAGIC) => {
                let word =
                    |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
                let direction = *Direction::ALL.get(word(8) as usize).ok_or(InputError::Head)?;
                if word(20) != 0 {
                    return Err(InputError::Head);
                }
                Self::new(name, Some(vec![word(12), word(16)]), direction, bytes)?
            }
            _ => Self::new(name, shape, direction, blob)?,
        };
        Ok(Self { hash, ..input })
    }

    /// The tensor as a blob with a head; dimensions before the last count as rows.
    pub fn to_blob(&self) -> Vec<u8> {
        let cols = self.shape.last().copied().unwrap_or(1);
        let rows = (self.bytes.len() / 2) as u32 / cols.max(1);
        let mut blob = Vec::with_capacity(HEAD_BYTES + self.bytes.len());
        blob.extend_from_slice(MAGIC);
        for word in [self.direction as u32, rows, cols, 0] {
            blob.extend_from_slice(&word.to_le_bytes());
        }
        blob.extend_from_slice(&self.bytes);
        blob
    }

    /// Any bytes, as programs get them.
    pub fn plain(name: impl Into<String>, bytes: impl Into<Arc<[u8]>>) -> Result<Self, InputError> {
        let bytes = bytes.into();
        if bytes.is_empty() || bytes.len() > crate::limits::INPUT_BYTES_MAX {
            return Err(InputError::Length(bytes.len()));
        }
        let (hash, shape) = (Hash::of(&bytes), vec![bytes.len() as u32]);
        Ok(Self { name: name.into(), shape, direction: Direction::Forward, bytes, hash })
    }

    /// What a codec made of this input.
    pub fn measure(&self, compressed: usize, decoded: &[u8], fuel: u64) -> CodecItem {
        let exact = *decoded == *self.bytes;
        let found = if exact { 1.0 } else { self.similarity(decoded) };
        CodecItem {
            original_bytes: self.bytes.len() as u64,
            compressed_bytes: compressed as u64,
            similarity_ppb: to_ppb(found, exact),
            exact,
            fuel,
        }
    }

    fn similarity(&self, decoded: &[u8]) -> f64 {
        if decoded.len() != self.bytes.len() {
            return 0.0;
        }
        similarity(&to_f32(&self.bytes), &to_f32(decoded))
    }
}

/// bf16 is the upper half of an f32.
fn to_f32(bytes: &[u8]) -> Vec<f32> {
    let widen = |pair: &[u8; 2]| f32::from_bits(u32::from(u16::from_le_bytes(*pair)) << 16);
    bytes.as_chunks::<2>().0.iter().map(widen).collect()
}

/// Rounds to bf16, to even; what is too large for it becomes the largest bf16, so that inputs stay finite.
pub fn to_bf16(values: &[f32]) -> Vec<u8> {
    let narrow = |value: &f32| {
        let bits = value.to_bits();
        let rounded = ((u64::from(bits) + 0x7fff + u64::from((bits >> 16) & 1)) >> 16) as u16;
        let narrow = if rounded & 0x7f80 == 0x7f80 { (rounded & 0x8000) | 0x7f7f } else { rounded };
        narrow.to_le_bytes()
    };
    values.iter().flat_map(narrow).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn bytes_that_are_no_tensor_are_refused() {
        let make = |shape: Option<Vec<u32>>, bytes: &[u8]| Input::new("x", shape, Direction::Forward, bytes);
        assert_eq!(make(None, &[]).unwrap_err(), InputError::Length(0));
        assert_eq!(make(None, &[1]).unwrap_err(), InputError::Length(1));
        assert_eq!(make(Some(vec![2, 2]), &[0; 8]).unwrap().shape, [2, 2]);
        assert!(matches!(make(Some(vec![3]), &[0; 8]), Err(InputError::Shape { expected: 6, .. })));
        assert!(matches!(make(Some(vec![u32::MAX; 3]), &[0; 8]), Err(InputError::Shape { .. })));
        assert_eq!(make(None, &[0, 0, 0x80, 0x7f]).unwrap_err(), InputError::NotFinite(1));
        assert_eq!(make(None, &[0, 0, 0xc1, 0xff]).unwrap_err(), InputError::NotFinite(1));
    }

    #[test]
    fn a_blob_tells_shape_and_direction() {
        let input = Input::new("x", Some(vec![1, 2]), Direction::Backward, to_bf16(&[3.0, 4.0])).unwrap();
        let blob = input.to_blob();
        assert_eq!(Input::of_blob("x", &blob, None, Direction::Forward).unwrap(), input);
        assert_eq!(input.hash, Hash::of(&blob));
        let raw = Input::of_blob("x", &input.bytes, None, Direction::Forward).unwrap();
        assert_eq!((raw.shape, raw.hash), (vec![2], Hash::of(&input.bytes)));
        let mut bad = blob.clone();
        bad[8] = 2;
        assert_eq!(Input::of_blob("x", &bad, None, Direction::Forward).unwrap_err(), InputError::Head);
        assert!(Input::of_blob("x", &blob[..blob.len() - 2], None, Direction::Forward).is_err());
    }

    #[test]
    fn measurements_of_copies_losses_and_nonsense() {
        let input = Input::new("x", None, Direction::Forward, to_bf16(&[3.0, 4.0])).unwrap();
        let exact = input.measure(3, &input.bytes, 7);
        assert_eq!((exact.exact, exact.similarity_ppb, exact.compressed_bytes), (true, 1_000_000_000, 3));
        let swapped = input.measure(3, &to_bf16(&[4.0, 3.0]), 7);
        assert_eq!(swapped.similarity_ppb, (0.96 * (1.0 - 0.08_f64.sqrt()) * 1e9) as i64);
        assert_eq!(input.measure(3, &[0; 3], 7).similarity_ppb, 0);
        assert_eq!(input.measure(3, &[0, 0, 0x80, 0x7f], 7).similarity_ppb, 0);
        // Zeros of either sign are equal numbers and different bits.
        let zero = Input::new("x", None, Direction::Forward, to_bf16(&[0.0])).unwrap();
        let minus = zero.measure(1, &to_bf16(&[-0.0]), 0);
        assert_eq!((minus.exact, minus.similarity_ppb), (false, 999_999_999));
    }

    proptest! {
        #[test]
        fn rounding_to_bf16_is_near_and_finite(value in any::<f32>().prop_filter("finite", |v| v.is_finite())) {
            let back = to_f32(&to_bf16(&[value]))[0];
            prop_assert!(back.is_finite());
            let bound = f64::from(value.abs()) / 256.0 + 1e-39;
            prop_assert!((f64::from(back) - f64::from(value)).abs() <= bound || value.abs() > 3.38e38);
        }
    }
}
