//! Every bound of the server and the client, in one place.

use std::num::NonZeroU32;
use std::time::Duration;

use governor::Quota;

/// Largest body of a request that is held in memory, bytes: one statement, or one hand-in by Epistula.
pub const BODY_BYTES: usize = 2 << 20;
/// Largest blob that anybody may upload, bytes.
pub const UPLOAD_BYTES: u64 = 2 << 30;
/// Largest log of one judgement, bytes.
pub const LOG_BYTES: u64 = 4 << 20;
/// Bytes of all blobs after which uploads are refused, unless the host sets another bound.
pub const BLOBS_TOTAL_BYTES: u64 = 256 << 30;
/// Bytes that one key may upload in [`UPLOAD_WINDOW`], unless the host sets another bound.
pub const UPLOAD_QUOTA_BYTES: u64 = 16 << 30;
/// Bytes of judgements' logs that one judge may upload in [`UPLOAD_WINDOW`], unless the host sets another bound.
pub const LOG_QUOTA_BYTES: u64 = 16 << 30;
/// Window of the quota of uploads.
pub const UPLOAD_WINDOW: Duration = Duration::from_hours(24);
/// Bytes of a refused upload that are read all the same, so that its sender hears why.
pub const LINGER_BYTES: u64 = 64 << 20;
/// Time for that.
pub const LINGER: Duration = Duration::from_secs(5);
/// Refused uploads that are read on at a time; others see a broken line.
pub const LINGERING: usize = 64;
/// Requests that are brought to their end at a time, whether or not whoever asked is still there.
pub const ENDING: usize = 64;
/// Newest uploads of which a host knows who sent them.
pub const BROUGHT_MAX: usize = 1 << 16;
/// Time in which [`UPLOAD_LEAST_BYTES`] of an upload must come; else it ends, and what it counted is free again.
pub const UPLOAD_STALL: Duration = Duration::from_secs(30);
/// Bytes that must come in that time.
pub const UPLOAD_LEAST_BYTES: u64 = 64 << 10;
/// Such times that an upload may take in all; of a large one that announces its length more must come in each.
pub const UPLOAD_SPANS: u64 = 480;
/// Bytes of an upload that a client sends in one piece.
pub const SENT_PART_BYTES: usize = 64 << 10;
/// Bytes of a manifest of samples whose items everybody may read.
pub const SAMPLES_LIST_BYTES: u64 = 4 << 20;
/// Such manifests kept in memory.
pub const SAMPLES_LISTS: usize = 64;
/// Time in which a reader must take [`WRITE_LEAST_BYTES`] of what waits for it; else its connection ends.
pub const WRITE_STALL: Duration = Duration::from_secs(30);
/// Bytes that a reader must take in [`WRITE_STALL`].
pub const WRITE_LEAST_BYTES: usize = 64 << 10;
/// Time for the head of a request to arrive.
pub const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// Time for a whole request but uploads, streams and long polls.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// Time after which a client asks whether a silent connection is still there.
pub const KEEPALIVE: Duration = Duration::from_secs(30);
/// Time for a client's download, and for the host to begin to answer one.
pub const TRANSFER_TIMEOUT: Duration = Duration::from_mins(10);
/// Longest a long poll is held open.
pub const LONG_POLL: Duration = Duration::from_secs(25);
/// Connections held open at a time; more wait to be accepted.
pub const CONNECTIONS: usize = 4096;
/// Connections to a judge's own page of metrics.
pub const JUDGE_CONNECTIONS: usize = 16;
/// Time without an answer of the host after which a judge calls itself cut off.
pub const JUDGE_SILENCE: Duration = Duration::from_mins(2);
/// Requests worked on at a time; beyond it clients are told to come again.
pub const REQUESTS_IN_FLIGHT: usize = 1024;
/// Event streams and long polls held open at a time.
pub const STREAMS: usize = 2048;
/// Pause between two signs of life on a silent event stream.
pub const STREAM_HEARTBEAT: Duration = Duration::from_secs(15);
/// Events that one pass over the log hands to a stream before others get their turn.
pub const STREAM_BLOCKS: u32 = 64;
/// Shortest distance between two blocks.
pub const GROUP_COMMIT: Duration = Duration::from_millis(5);
/// Bytes of newest records kept in memory for event streams.
pub const RECENT_BYTES: usize = 8 << 20;
/// Statements that one key may make in a second, in the long run.
pub const STATEMENTS_PER_S: NonZeroU32 = NonZeroU32::new(200).unwrap();
/// Statements that one key may make at once, after a silence.
pub const STATEMENTS_BURST: NonZeroU32 = NonZeroU32::new(1000).unwrap();
/// Both as a quota.
pub const STATEMENT_RATE: Quota = Quota::per_second(STATEMENTS_PER_S).allow_burst(STATEMENTS_BURST);
/// Keys whose rates are remembered before those that rest are forgotten.
pub const RATED_KEYS: usize = 16_384;
/// Furthest that the time of a signed request may lie from the host's clock, milliseconds.
pub const REQUEST_SKEW_MS: u64 = 60_000;
/// Signed requests remembered per window against replay; beyond it clients are told to come again.
pub const REPLAYS: usize = 1 << 20;
/// Signed requests from ahead of the host's clock that are waited for rather than remembered on the disk, milliseconds.
pub const AHEAD_WAIT_MS: u64 = 250;
/// Signed requests from further ahead, other than reads, that are remembered on the disk per window; beyond it clients are told to come again.
pub const AHEAD: usize = 1024;
/// Those of one key.
pub const AHEAD_OF_KEY: usize = 16;
/// Longest `Authorization` header, bytes.
pub const AUTHORIZATION_BYTES: usize = 2048;
/// Longest head of a request, bytes.
pub const HEAD_BYTES: usize = 32 << 10;
/// Rows of a page, if the client does not say.
pub const PAGE: u32 = 10;
/// Most rows of a page.
pub const PAGE_MAX: u32 = 200;
/// Lines of a file's page, if the client does not say.
pub const LINES: u32 = 200;
/// Most lines of a file's page.
pub const LINES_MAX: u32 = 5000;
/// Most bytes of a file's page; a longer line is cut there.
pub const PAGE_BYTES: usize = 1 << 20;
/// Longest part of a key that can be searched for, characters.
pub const NEEDLE_BYTES: usize = 64;
/// Entries of matching keys that are gathered and sorted; more are found by walking the sorted list.
pub const GATHER_MAX: usize = 4096;
/// Age after which a leaderboard is made anew.
pub const LEADERBOARD_AGE: Duration = Duration::from_secs(5);
/// Bytes of blocks in one answer of the log.
pub const LOG_ANSWER_BYTES: usize = 16 << 20;
/// Largest answer that the client holds in memory, bytes.
pub const ANSWER_BYTES: u64 = 64 << 20;
/// Time for a client to connect.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest line of an event stream that a client reads, bytes.
pub const EVENT_BYTES: usize = 1 << 20;
/// Age from which a kept seal that the host does not know never became an entry.
pub const SEAL_UNSETTLED: Duration = Duration::from_hours(1);
/// Shortest pause before a failed call is tried again; doubles up to [`RETRY_MAX`].
pub const RETRY_MIN: Duration = Duration::from_millis(100);
/// Longest pause before a failed call is tried again.
pub const RETRY_MAX: Duration = Duration::from_secs(5);
/// Entries that one judge works on at a time, at most.
pub const JUDGE_LANES: u16 = 64;
/// Competitions that one judge looks at at a time, before it binds a part of their seeds.
pub const JUDGE_LOOKS: usize = 4;
/// Longest pause before a competition at which a look failed is looked at again.
pub const LOOK_AGAIN_MAX: Duration = Duration::from_mins(1);
/// Largest generator or evaluator that a judge keeps for the next competition that names it, bytes.
pub const REFERENCE_KEPT_BYTES: usize = 64 << 20;
/// Largest code or input that a judge fetches into memory, bytes.
pub const JUDGE_BLOB_BYTES: u64 = 1 << 30;
/// Time given to requests under way when the host stops.
pub const CLOSE: Duration = Duration::from_secs(5);
/// Pause before the keeper of entrusted seals looks again, if nothing wakes it.
pub const CUSTODY_LOOK: Duration = Duration::from_secs(5);
/// Statements in one batch.
pub const BATCH: usize = 256;
