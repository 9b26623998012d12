//! What can go wrong, named for what failed.

use crate::header::CodecId;
use crate::tensor::DType;

/// Why a tensor was not encoded or a payload not decoded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CodecError {
    /// The payload ends before its header, body or checksum does.
    #[error("payload is cut short: {needed} bytes needed, {have} there")]
    Truncated {
        /// Bytes needed to go on.
        needed: usize,
        /// Bytes that are there.
        have: usize,
    },
    /// Bytes follow the checksum.
    #[error("{extra} bytes follow the payload")]
    TrailingBytes {
        /// Bytes after the end.
        extra: usize,
    },
    /// The first two bytes are not those of a payload.
    #[error("not a tensor payload (it must start with \"SC\")")]
    BadMagic,
    /// The payload was written by another version of the format.
    #[error("payload has format version {found}, this build reads version {}", crate::limits::FORMAT_VERSION)]
    UnsupportedVersion {
        /// The version found.
        found: u8,
    },
    /// The codec id is not known.
    #[error("unknown codec id {found}")]
    UnknownCodec {
        /// The id found.
        found: u8,
    },
    /// No codec has this name.
    #[error("unknown codec \"{name}\" (known: {})", CodecId::NAMES.join(", "))]
    UnknownCodecName {
        /// The name asked for.
        name: String,
    },
    /// The element type is not known.
    #[error("unknown element type id {found}")]
    UnknownDType {
        /// The id found.
        found: u8,
    },
    /// A reserved header field is not zero.
    #[error("reserved header bits are set: {found:#06x}")]
    ReservedBits {
        /// The bits found.
        found: u16,
    },
    /// The shape has more dimensions than allowed.
    #[error("{found} dimensions, at most {} are allowed", crate::limits::MAX_DIMENSIONS)]
    TooManyDimensions {
        /// Dimensions found.
        found: usize,
    },
    /// A dimension does not fit its 32 bits on the wire.
    #[error("dimension of {found} elements is larger than the format's {}", crate::limits::MAX_DIMENSION)]
    DimensionTooLarge {
        /// The dimension found, in elements.
        found: usize,
    },
    /// The decoded tensor would be larger than the caller allows.
    #[error("decoded tensor would take {bytes} bytes, {limit} are allowed")]
    TooLarge {
        /// Bytes of the decoded tensor; saturated when the product overflows.
        bytes: u64,
        /// Bytes allowed.
        limit: usize,
    },
    /// The bytes of a tensor do not match its shape and type.
    #[error("tensor of {dtype} needs {expected} bytes for its shape, {found} given")]
    SizeMismatch {
        /// Element type.
        dtype: DType,
        /// Bytes that shape and type ask for.
        expected: usize,
        /// Bytes given.
        found: usize,
    },
    /// The checksum does not match.
    #[error("checksum mismatch: the payload was damaged")]
    ChecksumMismatch,
    /// The body contradicts the header or itself.
    #[error("malformed {codec} body: {reason}")]
    Malformed {
        /// The codec that read it.
        codec: CodecId,
        /// What is wrong.
        reason: &'static str,
    },
    /// The codec cannot encode this element type.
    #[error("{codec} cannot encode {dtype}")]
    UnsupportedDType {
        /// The codec asked for.
        codec: CodecId,
        /// The element type.
        dtype: DType,
    },
    /// The payload needs a predictor or basis that was not given.
    #[error("{codec} payload needs the shared {what} with id {id:#018x}")]
    MissingShared {
        /// The codec.
        codec: CodecId,
        /// "predictor" or "basis".
        what: &'static str,
        /// Content id of what is missing.
        id: u64,
    },
    /// A lossy codec was given values it cannot approximate.
    #[error("{codec} needs finite values")]
    NotFinite {
        /// The codec.
        codec: CodecId,
    },
    /// A target or parameter is out of its range.
    #[error("{what} must be {range}")]
    OutOfRange {
        /// The parameter.
        what: &'static str,
        /// Its range in words.
        range: &'static str,
    },
    /// The codec needs parameters or state and has its own entry point.
    #[error("{codec} needs more than a tensor: use {entry}")]
    NeedsParameters {
        /// The codec.
        codec: CodecId,
        /// The function or type to use.
        entry: &'static str,
    },
}
