//! Every bound of the crate, with its unit.

/// Bytes that start every payload.
pub const MAGIC: [u8; 2] = *b"SC";

/// Version of the payload format that this crate writes and reads.
pub const FORMAT_VERSION: u8 = 2;

/// Most dimensions a tensor may have.
pub const MAX_DIMENSIONS: usize = 8;

/// Most elements along one dimension; a dimension travels as `u32`.
pub const MAX_DIMENSION: usize = u32::MAX as usize;

/// Bytes of the header before the dimensions.
pub const HEADER_FIXED_BYTES: usize = 16;

/// Bytes of the checksum that ends every payload.
pub const CHECKSUM_BYTES: usize = 8;

/// Most bytes a decoded tensor takes unless the caller says otherwise: 1 GiB (256 MiB where addresses have 32 bits).
pub const DEFAULT_MAX_DECODED_BYTES: usize = if usize::BITS >= 64 { 1 << 30 } else { 1 << 28 };

/// Most columns of a shared predictor.
pub const MAX_PREDICTOR_COLUMNS: usize = 4096;

/// Most columns of a shared basis.
pub const MAX_BASIS_COLUMNS: usize = 2048;

/// Most directions of a low-rank payload.
pub const MAX_RANK: usize = 512;

/// Most bytes of working memory that a thread keeps from one tensor to the next.
pub const MAX_KEPT_SCRATCH_BYTES: usize = 64 << 20;

/// Most threads that work on one tensor.
pub const MAX_THREADS: usize = 256;

/// What a caller allows a payload to ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Most bytes of the decoded tensor.
    pub max_decoded_bytes: usize,
    /// Whether the checksum is compared. Turn it off only where a hash around the payload was checked already.
    pub verify_checksum: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Self { max_decoded_bytes: DEFAULT_MAX_DECODED_BYTES, verify_checksum: true }
    }
}

impl Limits {
    /// The default limits with another bound on the decoded size, in bytes.
    #[must_use]
    pub fn with_max_decoded_bytes(max_decoded_bytes: usize) -> Self {
        Self { max_decoded_bytes, ..Self::default() }
    }
}
