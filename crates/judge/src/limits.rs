//! Every bound of the crate, in one place.

use std::time::Duration;

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
/// Inputs on which a program is timed, at most.
pub const TIMED_INPUTS_MAX: usize = 16;
/// How often a program is timed on each of them; the least time counts.
pub const TRIES: usize = 6;
/// How much dearer by the clock than by fuel, both beside the baseline, a component may be before the clock counts.
/// Below that its time is its fuel alone, the same at every judge. Components of honest make differ by less.
pub const CLOCK_SLACK: f64 = 2.0;
/// Pause in which a program's processor time must stand still after its answer, milliseconds: the kernel counts what
/// still runs once per tick, of 1 to 4 ms (10 ms on few).
pub const SETTLE_MS: u64 = 5;
/// Most such pauses; what a program goes on doing behind its answer counts up to here.
pub const SETTLES_MAX: u32 = 20;
/// Processor time in one pause that counts as standing still, nanoseconds.
pub const SETTLED_NS: u64 = 50_000;
/// Longest head of an HTTP answer, bytes.
pub const HTTP_HEAD_BYTES: usize = 16 << 10;
/// Longest environment lock file, bytes.
pub const LOCK_FILE_BYTES: usize = 1 << 20;
/// Time that building an environment of programs may take, seconds.
pub const ENVIRONMENT_BUILD_S: u64 = 900;
/// Pause between two looks whether a step of that is over, milliseconds.
pub const ENVIRONMENT_LOOK_MS: u64 = 50;
/// Compiled components that a judge keeps in memory.
pub const COMPILED_KEPT: usize = 64;
/// Most files and folders in an entry's archive.
pub const ARCHIVE_FILES_MAX: usize = 1024;
/// Most bytes that an entry's archive unpacks to.
pub const ARCHIVE_BYTES_MAX: u64 = 256 << 20;
/// Most folders in each other in an entry's archive, the file included.
pub const ARCHIVE_DEPTH_MAX: usize = 12;
/// Largest Python source of an entry, bytes: parsing takes a few hundred times as much memory.
pub const SOURCE_BYTES_MAX: usize = 1 << 20;
/// Memory for parsing an entry's sources, bytes.
pub const SCREENING_MEMORY_BYTES: u64 = 1 << 30;
/// Processor time for that.
pub const SCREENING_CPU: Duration = Duration::from_secs(30);
/// Time by the clock for that, if the lease lasts so long. Beyond it the machine is to blame, not the entry.
pub const SCREENING_WALL: Duration = Duration::from_mins(5);
/// All Python sources of an entry together, bytes.
pub const SOURCES_BYTES_MAX: usize = 4 << 20;
/// Findings of screening that a judge keeps; beyond that the folder is emptied.
pub const SCREENED_KEPT: usize = 4096;
/// How often an entry is given back by one judge since its machine was busy; then its time counts.
pub const BUSY_RETURNS: u32 = 2;
/// Entries of which a judge remembers that.
pub const GIVEN_BACK_KEPT: usize = 4096;
/// A component's call is ended by the clock only after so many times its time limit: until then its processor time counts.
pub const PATIENCE: u32 = 8;
/// Time to reach an object store, seconds.
pub const CONNECT_S: u64 = 10;
/// Time for one object of a data set, retries included, seconds.
pub const FETCH_S: u64 = 300;
/// Times that an object store is asked again.
pub const FETCH_RETRIES: usize = 3;
