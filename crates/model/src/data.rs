//! Training data: from files to micro-batches that anyone can derive again.
//!
//! [`collect`](collect()) reads text, .jsonl and .parquet files into a [`Corpus`]; [`split`](split()) holds some files out;
//! [`build`] tokenizes both sides into content-addressed shards and returns the [`DatasetManifest`] that names
//! them. From then on the tokens of a micro-batch are a pure function of (manifest, [`Order`], index), see
//! [`Dataset`].

use crate::{hash::BlobHash, tokenizer::TokenizerError};

mod batches;
mod build;
mod collect;
mod permutation;
mod read;
mod shards;
mod split;
mod summary;
mod tables;

pub use batches::{Dataset, MicroBatch, Order, ShardSource, tokens_hash};
pub use build::build;
pub use collect::{CollectOptions, Corpus, SourceFile, collect, collect_current_folder};
pub use permutation::Permutation;
pub use shards::{DatasetManifest, Shard, ShardEntry};
pub use split::{Split, SplitMethod, SplitNote, split};
pub use summary::{SkipReason, Skipped, Summary};

/// Why data could not be read, split, stored or turned into a micro-batch.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DataError {
    /// A named file or folder does not exist.
    #[error("{path} does not exist; check the path given to --data")]
    NotFound {
        /// As given.
        path: String,
    },
    /// The operating system refused to read a file or folder.
    #[error("cannot read {path}: {source}; check that you may read it, or leave it out of --data")]
    Read {
        /// The file or folder.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// A pattern that is no glob.
    #[error("{pattern} is not a valid pattern: {reason}; quote it and use *, ?, ** or [a-z]")]
    Pattern {
        /// As given.
        pattern: String,
        /// Why.
        reason: String,
    },
    /// A pattern that no file matches.
    #[error("no file matches {pattern}; check the pattern given to --data, and quote it")]
    NoMatch {
        /// As given.
        pattern: String,
    },
    /// A named file has no text.
    #[error("{path} is empty; give --data a file with text")]
    Empty {
        /// The file.
        path: String,
    },
    /// A named file is not text.
    #[error("{path} is not text: it has a zero byte at {offset}; give --data text, .jsonl or .parquet files")]
    Binary {
        /// The file.
        path: String,
        /// Bytes before the first zero byte.
        offset: usize,
    },
    /// A named file is text in another encoding.
    #[error(
        "{path} is not UTF-8: byte {offset} is no character; convert it, for example with `iconv -t UTF-8`"
    )]
    NotUtf8 {
        /// The file.
        path: String,
        /// Bytes before the first that is not UTF-8.
        offset: usize,
    },
    /// A line of a .jsonl file without a usable text.
    #[error("{path}, line {line}: {reason}; each line must be an object with a text under \"{field}\"")]
    Line {
        /// The file.
        path: String,
        /// Counted from 1.
        line: usize,
        /// What is wrong.
        reason: String,
        /// The name of the text field.
        field: String,
    },
    /// A .parquet file without the text column.
    #[error("{path} has no text column \"{column}\", only {found}; name the right one")]
    Column {
        /// The file.
        path: String,
        /// The name looked for.
        column: String,
        /// Names of the columns there.
        found: String,
    },
    /// A broken .parquet file, or one with a compression other than none, snappy or zstd.
    #[error("cannot read {path} as parquet: {reason}; write it again with snappy or zstd, or leave it out")]
    Parquet {
        /// The file.
        path: String,
        /// What the library says.
        reason: String,
    },
    /// More than a limit allows.
    #[error("{what} is over the limit of {limit}; {next}")]
    TooMuch {
        /// What was counted.
        what: String,
        /// The limit with its unit.
        limit: String,
        /// The next step.
        next: String,
    },
    /// Nothing usable in a scanned folder.
    #[error("found no usable text in {source_name}: {summary}; name files with --data")]
    Nothing {
        /// The folder or pattern.
        source_name: String,
        /// What was skipped and why.
        summary: String,
    },
    /// Too little text for one window.
    #[error(
        "the {side} data has {tokens} tokens, but one window needs {needed}; give more text with --data, or a shorter sequence"
    )]
    TooLittle {
        /// "training" or "held-out".
        side: &'static str,
        /// Tokens there.
        tokens: u64,
        /// Tokens of one window.
        needed: u64,
    },
    /// A micro-batch or held-out batch that cannot exist.
    #[error("a batch of {batch} × {sequence} tokens is not possible: {reason}")]
    Batch {
        /// Rows asked for.
        batch: usize,
        /// Tokens a row.
        sequence: usize,
        /// Why.
        reason: &'static str,
    },
    /// A held-out batch beyond the last one.
    #[error("there are {count} held-out batches, number {index} (from 0) is not one of them")]
    HeldOutIndex {
        /// Asked for.
        index: u64,
        /// Batches there are.
        count: u64,
    },
    /// The source of shards failed.
    #[error("cannot get shard {hash}: {source}")]
    Fetch {
        /// The shard.
        hash: BlobHash,
        /// Why.
        source: std::io::Error,
    },
    /// A shard with a bad header, length, token or hash.
    #[error("shard {hash} is not valid: {reason}; delete it and fetch it again")]
    Shard {
        /// The shard.
        hash: BlobHash,
        /// What is wrong.
        reason: &'static str,
    },
    /// A manifest that no data set can have.
    #[error("the data manifest is not valid: {0}")]
    Manifest(&'static str),
    /// Storing a shard failed.
    #[error("cannot store a shard of {bytes} bytes: {source}")]
    Store {
        /// Its size.
        bytes: usize,
        /// Why.
        source: std::io::Error,
    },
    /// The tokenizer refused a text.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
}
