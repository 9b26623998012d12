//! Every bound of the crate, in one place.

/// Longest manifest of a data set, bytes.
pub const MANIFEST_BYTES_MAX: usize = 16 << 20;
/// Most inputs of a data set.
pub const DATASET_ITEMS_MAX: usize = 65_536;
/// Longest name of a file in a manifest, bytes.
pub const FILE_NAME_BYTES: usize = 255;
/// Largest input, bytes: it must fit into a component's memory several times.
pub const INPUT_BYTES_MAX: usize = 256 << 20;
/// What a compressed form may be longer than its input, bytes. More is a failure, not a ratio below one.
pub const COMPRESSED_SLACK_BYTES: usize = 64 << 10;
/// What a decompressed form may be longer than its input, bytes.
pub const DECODED_SLACK_BYTES: usize = 4 << 10;
/// Longest answer of a program of kind `program` to one input, bytes.
pub const ANSWER_BYTES_MAX: usize = 16 << 20;
/// Longest log of a verdict, bytes; the rest is counted.
pub const LOG_BYTES_MAX: usize = 256 << 10;
/// Longest line of a log that an entry can write to, characters.
pub const LOG_LINE_CHARS: usize = 400;
/// One in so many inputs is given twice, but at least [`REPEATS_MIN`] of them.
pub const REPEAT_EVERY: usize = 8;
/// Fewest inputs that are given twice.
pub const REPEATS_MIN: usize = 2;
/// Most inputs on which the baseline is timed beside an entry.
pub const PAIRS_MAX: usize = 64;
/// How much dearer by the clock than by fuel, both beside the baseline, a component may be before the clock counts.
/// Below that its time is its fuel alone, the same at every judge. Components of honest make differ by less.
pub const CLOCK_SLACK: f64 = 2.0;
/// Longest head of an HTTP answer, bytes.
pub const HTTP_HEAD_BYTES: usize = 16 << 10;
/// Longest environment lock file, bytes.
pub const LOCK_FILE_BYTES: usize = 1 << 20;
/// Time that building an environment of programs may take, seconds.
pub const ENVIRONMENT_BUILD_S: u64 = 900;
/// Compiled components that a judge keeps in memory.
pub const COMPILED_KEPT: usize = 64;
