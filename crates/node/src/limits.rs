//! Every bound of the daemons, in one place.

use std::num::NonZeroU32;
use std::time::Duration;

use governor::Quota;

/// Statements that one node may make in a second, in the long run.
pub const STATEMENTS_PER_S: NonZeroU32 = NonZeroU32::new(200).unwrap();
/// Statements that one node may make at once, after a silence.
pub const STATEMENTS_BURST: NonZeroU32 = NonZeroU32::new(1000).unwrap();
/// Both as a quota.
pub const STATEMENT_RATE: Quota = Quota::per_second(STATEMENTS_PER_S).allow_burst(STATEMENTS_BURST);
/// Nodes whose rates are remembered before those that rest are forgotten.
pub const RATED_NODES: usize = 4096;
/// Longest a follower's call for blocks may be held open.
pub const LONG_POLL: Duration = Duration::from_secs(20);
/// Time beyond the long poll in which the answer must arrive.
pub const LONG_POLL_GRACE: Duration = Duration::from_secs(10);
/// Long polls held open at a time; beyond it a follower is answered at once.
pub const LONG_POLLS: usize = 4096;
/// Most blocks in one answer.
pub const BLOCKS_PER_ANSWER: u32 = 512;
/// Bytes of blocks after which an answer ends.
pub const BLOCKS_ANSWER_BYTES: usize = 16 << 20;
/// Deadline of one try to hand in a statement.
pub const STATEMENT_TRY: Duration = Duration::from_secs(10);
/// Statements waiting behind the one in flight.
pub const STATEMENT_QUEUE: usize = 64;
/// Shortest pause before a failed call is tried again; doubles up to [`RETRY_MAX`].
pub const RETRY_MIN: Duration = Duration::from_millis(50);
/// Longest pause before a failed call is tried again.
pub const RETRY_MAX: Duration = Duration::from_secs(2);
/// Longest a group commit waits for more inputs while the one before is written (protocol §6 "Block").
pub const GROUP_COMMIT: Duration = Duration::from_millis(20);
/// Largest piece of a blob, upload, result or state part in one answer, bytes.
pub const PIECE_BYTES: u64 = 64 << 20;
/// Pieces that are encoded or decoded at a time.
pub const PACKED_LANES: usize = 4;
/// Shortest piece that is worth encoding, bytes.
pub const PACKED_MIN_BYTES: usize = 4096;
/// Largest thing that is put together from pieces, bytes.
pub const FETCH_BYTES: u64 = 64 << 30;
/// Deadline of one piece.
pub const PIECE_DEADLINE: Duration = Duration::from_mins(1);
/// Micro-batches in one evaluation on held-out data.
pub const HELDOUT_MICRO_BATCHES: usize = 16;
/// Items that a validator keeps waiting for replay; the oldest beyond it are given up.
pub const REPLAY_QUEUE: usize = 256;
/// Frames in one opened item: in and out, forward and backward.
pub const OPENED_FRAMES: usize = 4;
/// Progress events waiting for a slow reader; older ones are dropped.
pub const PROGRESS_QUEUE: usize = 256;
/// Pause between two status lines of the progress.
pub const PROGRESS_EVERY: Duration = Duration::from_millis(500);
/// Longest key file, bytes.
pub const KEY_FILE_BYTES: u64 = 4096;
/// Times that one statement is signed anew because of clocks.
pub const SIGNATURES: u32 = 4;
/// Bytes of newest blocks that the orchestrator holds in memory for its followers.
pub const RECENT_BYTES: usize = 32 << 20;
/// Bytes of recently served blobs that stay in memory.
pub const BLOB_CACHE_BYTES: usize = 256 << 20;
/// Group commit's pause while a merge is on, whose steps wait for each other.
pub const GROUP_COMMIT_MERGING: Duration = Duration::from_millis(3);
/// Pause between two copies of the state for the orchestrator's other tasks, but for changes of phase.
pub const SHOW_EVERY: Duration = Duration::from_millis(100);
/// What an envelope adds to its body in a block, bytes (an upper bound, for the group commit).
pub const ENVELOPE_OVERHEAD_BYTES: usize = 256;
/// Epochs whose opening state is kept (protocol §4 "Tripwire").
pub const KEPT_EPOCHS: usize = 2;
/// Pause before the keeper asks again for a state that nobody gave it.
pub const KEEP_RETRY: Duration = Duration::from_millis(500);
/// Time over which the shown rate of tokens is taken.
pub const RATE_OVER: Duration = Duration::from_secs(10);
/// After the end of a run: how long the orchestrator waits for its last state, its last held-out loss and its nodes.
pub const FAREWELL: Duration = Duration::from_mins(1);
/// After the end of a run: silence of the orchestrator after which a node ends too.
pub const FAREWELL_SILENCE: Duration = Duration::from_secs(5);
/// Pause between two looks for nodes that did not hear of the run's end.
pub const FAREWELL_LOOK: Duration = Duration::from_millis(50);
/// Time that closing a link or a relay may take.
pub const CLOSE: Duration = Duration::from_secs(5);
/// Time for the orchestrator to reach its own relay.
pub const RELAY_START: Duration = Duration::from_secs(5);
/// What the orchestrator's relay takes from one node, bytes per second, unless its owner says otherwise: a home's 100 Mbit/s.
pub const RELAY_BYTES_PER_S: NonZeroU32 = NonZeroU32::new(12_500_000).unwrap();
/// Nodes that are not in the run yet and use the relay: whoever joins takes seconds.
pub const RELAY_NEWCOMERS: usize = 64;
/// Blocks whose records wait for the validator to draw among; more are passed over.
pub const TAPPED_BLOCKS: usize = 1024;
/// How long a node waits for the first block of a log.
pub const FIRST_BLOCK: Duration = Duration::from_mins(1);
/// Deadline for a miner to open an item (protocol §3.2 "Retention").
pub const OPEN_DEADLINE: Duration = Duration::from_secs(30);
/// Commands waiting for a miner's compute thread.
pub const COMPUTE_QUEUE: usize = 4096;
/// Messages waiting for a miner's main task, from peers and from its own tasks.
pub const MINER_QUEUE: usize = 1024;
/// Micro-batches whose tokens stay in memory.
pub const TOKENS_KEPT: usize = 64;
/// Bytes that a codec adds to a tensor at most.
pub const PAYLOAD_OVERHEAD_BYTES: usize = 256;
/// Speed of a link that was not measured yet, bytes per second: a home's 100 Mbit/s.
pub const UNMEASURED_BYTES_PER_S: f64 = 12.5e6;
/// Most columns of a tensor that a run predicts: learning takes time with their cube, memory with their square.
pub const PREDICTOR_COLUMNS: usize = 1024;
/// Rows for each column that a predictor is learned from.
pub const PREDICTOR_ROWS_PER_COLUMN: usize = 8;
/// Tensors in which a new predictor must save more than its own bytes.
pub const PREDICTOR_PAYS_IN: usize = 16;
/// What an epoch counts for in the predictor of the next.
pub const PREDICTOR_FADE: f64 = 0.5;
/// Where `auto` chooses, links faster than this are not worth learning for, bytes per second.
pub const PREDICTOR_LINK_BYTES_PER_S: f64 = 50e6;
/// New versions of one sender in an epoch: one for each direction.
pub const PREDICTORS_OF_EPOCH: usize = 2;
/// Versions that a node holds of each sender: whatever it used in the epoch before was told before it told these.
pub const PREDICTORS_OF_ONE: usize = 3 * PREDICTORS_OF_EPOCH;
/// Predictors that a node holds in all.
pub const PREDICTORS: usize = 32;
/// Times that a receiver may lose a predictor before it is not told of it any more.
pub const PREDICTOR_LOSSES: u32 = 2;
/// Longest predictor, bytes.
pub const PREDICTOR_BYTES: u64 = 2 << 20;
/// Bytes of a miner's learners and predictors for each column squared: two matrices of f64 in each direction, four more
/// while one is solved, and [`PREDICTORS`] with their 16-bit weights and their bytes as they came.
pub const PREDICTOR_BYTES_PER_PAIR: u64 = 2 * 2 * 8 + 4 * 8 + PREDICTORS as u64 * 9 / 4;
/// Bytes of finished items that a miner keeps for validators.
pub const ARCHIVE_BYTES: usize = 256 << 20;
/// Finished items that a miner keeps for validators.
pub const ARCHIVE_ITEMS: usize = 65_536;
/// Heartbeats for which a miner keeps what it computed (protocol §3.2 "Retention": two, and one for the report itself).
pub const ARCHIVE_HEARTBEATS: u32 = 3;
/// Shortest pause of a miner's main task.
pub const TICK: Duration = Duration::from_millis(1);
/// Deadline of one frame to the next stage.
pub const FRAME_DEADLINE: Duration = Duration::from_secs(20);
/// Shortest deadline of one fetch in a merge.
pub const FETCH_MIN: Duration = Duration::from_secs(2);
/// Fetches of a merge at a time.
pub const FETCH_LANES: usize = 16;
/// Forwards in a row whose tokens a miner cannot get before it gives up.
pub const STARVED_MAX: u32 = 64;
/// How long a miner that leaves waits for its farewell to be heard.
pub const LEAVE: Duration = Duration::from_secs(10);
/// With `--keep-frames` a miner keeps one in so many frames that it sends.
pub const KEEP_EVERY: u64 = 16;
/// Frames that it keeps at most: a draw over the run.
pub const KEEP_FRAMES: usize = 256;
/// Micro-batches that a miner holds beside those that a head keeps under way, before it answers "busy".
pub const QUEUE_BEYOND: usize = 4;
/// Memory of a miner beside tensors and messages, bytes: program, threads, connections, the log's state, data shards.
/// A joined miner of a small model has 50 MiB, the rest is for the allocator and for longer logs.
pub const PROCESS_BYTES: u64 = 96 << 20;
/// Allocations from this size on are given back to the system as soon as they are free, bytes.
pub const GIVEN_BACK_BYTES: i32 = 4 << 20;
/// Champion calls at a time on one node: each may take [`CHAMPION_MEMORY_BYTES`] and more.
pub const CHAMPION_LANES: usize = 2;
/// Compiled components that a node holds: in force, to come, and of the epochs before, whose frames are still opened.
pub const CHAMPIONS_LOADED: usize = 4;
/// Fuel of one call, whatever the tensor's size.
pub const CHAMPION_FUEL: u64 = 20_000_000;
/// Fuel of one call per byte of the tensor (protocol §7 "Production").
pub const CHAMPION_FUEL_PER_BYTE: u64 = 2_000;
/// Wall-clock time of one call: a safety net above what its fuel can take.
pub const CHAMPION_WALL: Duration = Duration::from_secs(10);
/// Memory of one call, whatever the tensor's size, bytes.
pub const CHAMPION_MEMORY_BYTES: u64 = 32 << 20;
/// Memory of one call per byte of the tensor.
pub const CHAMPION_MEMORY_PER_BYTE: u64 = 16;
/// Memory of the engine and of compiled code, bytes.
pub const CHAMPION_ENGINE_BYTES: u64 = 48 << 20;
/// Share of a tensor's bytes from which encoding it was not worth it, percent (protocol §7 "Production").
pub const CHAMPION_WORTH_PERCENT: u64 = 98;
/// One tensor in so many goes through the codec before too, to be compared.
pub const CHAMPION_COMPARE_EVERY: u64 = 16;
/// Epochs in which the sender decodes every tensor that it sends (protocol §7, last line).
pub const CHAMPION_YOUNG_EPOCHS: u32 = 3;
/// After them it decodes one in so many; the receiver's check of every tensor stays.
pub const CHAMPION_CHECK_EVERY: u64 = 20;
/// Micro-batches that a validator computes with a lossy champion and without it before it says what that does.
pub const SHADOW_MICRO_BATCHES: usize = 16;
/// Files of evidence that a node keeps of champions' faults.
pub const CHAMPION_EVIDENCE_FILES: usize = 32;
/// Pause between two looks of the orchestrator for a pin in its folder.
pub const PIN_LOOK: Duration = Duration::from_millis(500);
