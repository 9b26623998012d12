//! Every limit of this crate on what comes from files, users and peers.

/// Largest vocabulary that a model or a tokenizer may have, in tokens.
pub const MAX_VOCAB: u32 = crate::config::VOCAB_MAX as u32;

/// Largest `tokenizer.json`, in bytes.
pub const MAX_TOKENIZER_BYTES: u64 = 64 << 20;

/// Text is tokenized in pieces of at most this many bytes, cut after a line break where there is one.
/// It bounds the memory of `tokenizers`, which keeps about 100 bytes of offsets for each byte of text.
pub const MAX_ENCODE_PIECE_BYTES: usize = 256 << 10;

/// Without `--data`: most text that is taken from the current folder, in bytes.
pub const DEFAULT_CORPUS_BYTES: u64 = 64 << 20;

/// Most text of one corpus, in bytes: it is held in memory while it is tokenized.
pub const MAX_CORPUS_BYTES: u64 = 8 << 30;

/// Largest file that a scan of a folder takes, in bytes. A larger one must be named.
pub const MAX_SCANNED_FILE_BYTES: u64 = 16 << 20;

/// Largest .jsonl or .parquet file that a scan of a folder takes, in bytes.
pub const MAX_SCANNED_TABLE_BYTES: u64 = 4 << 30;

/// Most files that one source (folder or glob) may list.
pub const MAX_SCANNED_FILES: usize = 1_000_000;

/// Most documents of one corpus.
pub const MAX_DOCUMENTS: usize = 16 << 20;

/// Most held-out text, in bytes; beyond that more of it only costs time.
pub const MAX_HELD_OUT_BYTES: u64 = 32 << 20;

/// Tokens of one shard when a data set is built (2 or 4 MiB).
pub const SHARD_TOKENS: usize = 1 << 20;

/// Most tokens that one shard of a manifest may claim.
pub const MAX_SHARD_TOKENS: u64 = 64 << 20;

/// Most shards of a manifest, for training and held-out each.
pub const MAX_SHARDS: usize = 1 << 20;

/// Most tokens of one micro-batch (batch × (sequence + 1)).
pub const MAX_BATCH_TOKENS: usize = 64 << 20;

/// Largest JSON file of a checkpoint folder (config, index), in bytes.
pub const MAX_CONFIG_BYTES: u64 = 16 << 20;

/// Largest header of a safetensors file, in bytes.
pub const MAX_TENSOR_HEADER_BYTES: u64 = 100_000_000;

/// Most tokens that one call of `sample` may make.
pub const MAX_SAMPLE_TOKENS: usize = 1 << 20;
