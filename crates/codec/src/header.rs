//! The payload's header and codec ids.
//!
//! Every payload, on the wire and on disk, is laid out like this; integers are little-endian.
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 2 | magic `SC` |
//! | 2 | 1 | format version, 2 |
//! | 3 | 1 | codec id ([`CodecId`]) |
//! | 4 | 1 | element type ([`DType`]) |
//! | 5 | 1 | number of dimensions, 0 to 8 |
//! | 6 | 2 | reserved, zero |
//! | 8 | 8 | body length in bytes |
//! | 16 | 4 × dimensions | elements along each dimension, slowest first |
//! | 16 + 4 n | body length | body, laid out by the codec |
//! | … | 8 | XXH3-64 (seed 0) of everything before it |

use crate::error::CodecError;
use crate::limits::{CHECKSUM_BYTES, FORMAT_VERSION, HEADER_FIXED_BYTES, Limits, MAGIC, MAX_DIMENSIONS};
use crate::tensor::{DType, byte_len};
use std::fmt;

/// Codec of a payload's body. The discriminant is the byte on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
#[non_exhaustive]
pub enum CodecId {
    /// The bytes as they are.
    Raw = 0,
    /// Lossless: one window of seven exponents with escapes, near the speed of memory.
    Fast = 1,
    /// Lossless: exponents in layers of bit planes, with Huffman's ratio.
    Huffman = 2,
    /// Lossless: sign, exponent and first mantissa bit in the context of row and column; repeated rows coded once.
    Context = 3,
    /// Lossless: every column predicted from those before it by a shared [`Predictor`](crate::Predictor).
    Predictive = 4,
    /// Lossy: one uniform step, codes less what similar rows before say, in the context of row and column.
    Uniform = 5,
    /// Lossy: bytes in blocks with a scale.
    Int8 = 6,
    /// Lossy: rows in a shared orthogonal [`Basis`](crate::Basis).
    Klt = 7,
    /// Lossy: low-rank factors, with error feedback in [`LowRank`](crate::LowRank).
    LowRank = 8,
}

impl CodecId {
    /// Every codec, by id.
    pub const ALL: [Self; 9] = [
        Self::Raw,
        Self::Fast,
        Self::Huffman,
        Self::Context,
        Self::Predictive,
        Self::Uniform,
        Self::Int8,
        Self::Klt,
        Self::LowRank,
    ];

    /// The names of [`CodecId::ALL`], in the same order.
    pub const NAMES: [&'static str; 9] =
        ["raw", "fast", "huffman", "context", "predictive", "uniform", "int8", "klt", "low-rank"];

    /// The codec with this byte on the wire.
    pub fn from_id(id: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|c| *c as u8 == id)
    }

    /// The codec with this name.
    pub fn from_name(name: &str) -> Result<Self, CodecError> {
        let found = Self::ALL.into_iter().find(|c| c.name() == name);
        found.ok_or_else(|| CodecError::UnknownCodecName { name: name.to_owned() })
    }

    /// Lower-case name.
    pub const fn name(self) -> &'static str {
        Self::NAMES[self as usize]
    }
}

impl CodecId {
    /// Whether the codec gives back every bit.
    pub const fn is_lossless(self) -> bool {
        matches!(self, Self::Raw | Self::Fast | Self::Huffman | Self::Context | Self::Predictive)
    }
}

impl fmt::Display for CodecId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl std::str::FromStr for CodecId {
    type Err = CodecError;

    fn from_str(name: &str) -> Result<Self, CodecError> {
        Self::from_name(name)
    }
}

/// A parsed header: what follows can be trusted to be consistent with itself, not yet with the body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Codec of the body.
    pub codec: CodecId,
    /// Element type of the decoded tensor.
    pub dtype: DType,
    dimensions: u8,
    shape: [usize; MAX_DIMENSIONS],
    /// Bytes of the body.
    pub body_bytes: usize,
    /// Bytes of the decoded tensor.
    pub decoded_bytes: usize,
}

impl Header {
    /// Reads and checks the header at the start of `payload`, which may go on after it.
    ///
    /// Nothing is allocated. `body_bytes` is not compared with what follows; [`split`](Self::split) does that.
    ///
    /// # Errors
    /// Every field that is out of its range, and a decoded size above `limits`.
    pub fn parse(payload: &[u8], limits: &Limits) -> Result<Self, CodecError> {
        let Some((fixed, rest)) = payload.split_first_chunk::<HEADER_FIXED_BYTES>() else {
            return Err(CodecError::Truncated { needed: HEADER_FIXED_BYTES, have: payload.len() });
        };
        let [m0, m1, version, codec, dtype, dimensions, r0, r1, length @ ..] = *fixed;
        if [m0, m1] != MAGIC {
            return Err(CodecError::BadMagic);
        }
        if version != FORMAT_VERSION {
            return Err(CodecError::UnsupportedVersion { found: version });
        }
        let codec = CodecId::from_id(codec).ok_or(CodecError::UnknownCodec { found: codec })?;
        let dtype = DType::from_id(dtype).ok_or(CodecError::UnknownDType { found: dtype })?;
        let count = usize::from(dimensions);
        if count > MAX_DIMENSIONS {
            return Err(CodecError::TooManyDimensions { found: count });
        }
        if [r0, r1] != [0, 0] {
            return Err(CodecError::ReservedBits { found: u16::from_le_bytes([r0, r1]) });
        }
        let Some(dims) = rest.get(..4 * count) else {
            return Err(CodecError::Truncated {
                needed: HEADER_FIXED_BYTES + 4 * count,
                have: payload.len(),
            });
        };
        let mut shape = [0; MAX_DIMENSIONS];
        for (d, b) in shape.iter_mut().zip(dims.as_chunks::<4>().0) {
            *d = u32::from_le_bytes(*b) as usize;
        }
        let decoded_bytes = byte_len(dtype, &shape[..count])?;
        if decoded_bytes > limits.max_decoded_bytes {
            return Err(CodecError::TooLarge {
                bytes: decoded_bytes as u64,
                limit: limits.max_decoded_bytes,
            });
        }
        let length = u64::from_le_bytes(length);
        let room = isize::MAX as usize - HEADER_FIXED_BYTES - 4 * MAX_DIMENSIONS - CHECKSUM_BYTES;
        let body_bytes = usize::try_from(length).ok().filter(|&n| n <= room);
        let body_bytes =
            body_bytes.ok_or(CodecError::Truncated { needed: usize::MAX, have: payload.len() })?;
        Ok(Self { codec, dtype, dimensions, shape, body_bytes, decoded_bytes })
    }

    /// Elements along each dimension, slowest first.
    pub fn shape(&self) -> &[usize] {
        &self.shape[..usize::from(self.dimensions)]
    }

    /// Bytes of the header itself.
    pub fn header_bytes(&self) -> usize {
        HEADER_FIXED_BYTES + 4 * usize::from(self.dimensions)
    }

    /// Bytes of the whole payload: header, body and checksum.
    pub fn payload_bytes(&self) -> usize {
        self.header_bytes() + self.body_bytes + CHECKSUM_BYTES
    }

    /// Number of elements of the decoded tensor.
    pub fn len(&self) -> usize {
        self.decoded_bytes / self.dtype.size()
    }

    /// Whether the decoded tensor has no elements.
    pub fn is_empty(&self) -> bool {
        self.decoded_bytes == 0
    }

    /// Parses `payload`, which must be exactly one payload, into its header and body, and verifies the checksum
    /// where `limits` ask for it.
    pub fn split<'a>(payload: &'a [u8], limits: &Limits) -> Result<(Self, &'a [u8]), CodecError> {
        let header = Self::parse(payload, limits)?;
        let needed = header.payload_bytes();
        if payload.len() < needed {
            return Err(CodecError::Truncated { needed, have: payload.len() });
        }
        if payload.len() > needed {
            return Err(CodecError::TrailingBytes { extra: payload.len() - needed });
        }
        let (content, stored) = payload.split_at(needed - CHECKSUM_BYTES);
        if limits.verify_checksum && checksum_bytes(content) != *stored {
            return Err(CodecError::ChecksumMismatch);
        }
        Ok((header, &content[header.header_bytes()..]))
    }

    /// Appends the header of a payload whose body length is not known yet; [`finish`] fills it in.
    pub(crate) fn begin(codec: CodecId, dtype: DType, shape: &[usize], out: &mut Vec<u8>) {
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&[FORMAT_VERSION, codec as u8, dtype as u8, shape.len() as u8, 0, 0]);
        out.extend_from_slice(&0_u64.to_le_bytes());
        for &d in shape {
            out.extend_from_slice(&(d as u32).to_le_bytes());
        }
    }
}

/// Fills in the body length of the payload that starts at `start` and appends the checksum.
pub(crate) fn finish(start: usize, dimensions: usize, out: &mut Vec<u8>) {
    let body = out.len() - start - HEADER_FIXED_BYTES - 4 * dimensions;
    out[start + 8..start + 16].copy_from_slice(&(body as u64).to_le_bytes());
    let sum = checksum_bytes(&out[start..]);
    out.extend_from_slice(&sum);
}

/// Where in a payload the codec id stands.
pub(crate) const CODEC_AT: usize = 3;

/// XXH3-64 with seed 0: the checksum of a payload.
pub fn checksum(content: &[u8]) -> u64 {
    twox_hash::XxHash3_64::oneshot(content)
}

/// The checksum, little-endian.
pub(crate) fn checksum_bytes(content: &[u8]) -> [u8; CHECKSUM_BYTES] {
    checksum(content).to_le_bytes()
}
