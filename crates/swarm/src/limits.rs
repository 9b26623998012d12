//! Every bound of the protocol, in one place.

/// Most stages of a run: a lease's mask of stages is 64 bits wide.
pub const STAGES_MAX: usize = 64;
/// Most uploaders of one stage in one merge: an input bitmap is 64 bits wide.
pub const UPLOADERS_MAX: usize = 64;
/// Most nodes of a run.
pub const NODES_MAX: usize = 4096;
/// Most micro-batches in one lease (protocol §2.2 "Ledger").
pub const LEASE_MICRO_BATCHES_MAX: u32 = 64;
/// Most items in one work report.
pub const WORK_ITEMS_MAX: usize = 4096;
/// Micro-batches that an earlier rate of a miner counts for beside those of the newest epoch.
pub const RATE_MEMORY_MICRO_BATCHES: u32 = 2;
/// Most inner steps in one work report.
pub const WORK_STEPS_MAX: usize = 256;
/// Longest address of a node, bytes.
pub const ADDRESS_BYTES: usize = 1024;
/// Longest device class or agent name, bytes.
pub const NAME_BYTES: usize = 128;
/// Most witnesses asked about one shard (protocol §1.2 step 6).
pub const WITNESSES_MAX: usize = 5;
/// Candidates of a hop, by rank (protocol §2.2 "Routing").
pub const ROUTE_CANDIDATES: usize = 3;
/// Share of a lease's time in which its holder may still add a gradient, percent (protocol §2.2 "Ledger").
pub const LEASE_HOLDER_PERCENT: u64 = 80;
/// Share of a lease's time after which its granter may re-issue, percent (protocol §2.2 "Ledger").
pub const LEASE_GRANTER_PERCENT: u64 = 120;
/// Most micro-batches of one epoch: they stand in one record.
pub const EPOCH_MICRO_BATCHES_MAX: u32 = 1 << 16;
/// Most micro-batches per inner step of one miner (A_max).
pub const ACCUMULATE_MAX: u32 = 4096;
/// A miner takes more inner steps than H when others of its stage go; at most this many per micro-batch of the epoch.
pub const STEPS_PER_MICRO_BATCH: u32 = 2;
/// Most hop reports in one work report.
pub const HOPS_MAX: usize = 256;
/// Most units of a stage in one lock-step report of squares.
pub const UNITS_MAX: usize = 4096;
/// Largest believable loss, nats per token.
pub const LOSS_MAX: f32 = 1000.0;
/// Least memory of a miner per parameter of its stage, bytes: weights, gradient and two moments, f32.
pub const STATE_BYTES_PER_PARAMETER: u64 = 16;
/// Epoch summaries kept; older ones only count in the totals.
pub const SUMMARIES_MAX: usize = 4096;
/// Merges and norms that a median looks back on (protocol §1.2 steps 4 and end).
pub const HISTORY: usize = 5;
/// Factor on the median norm that gives the clip bound R (protocol §1.2 step 4).
pub const NORM_BOUND_FACTOR: f64 = 1.5;
/// Sets up to this size take R from the history, larger ones from their own norms (protocol §1.2 step 4).
pub const SMALL_SET: usize = 3;
/// Cumulative shares of the merge deadline D by which each step ends, percent (protocol §1.2 "Deadlines": 20, 5, 25,
/// 15, 15, 5, 5, 10). Time that one step leaves over belongs to the next.
pub const COMMIT_PERCENT: u64 = 20;
/// See [`COMMIT_PERCENT`].
pub const REVEAL_PERCENT: u64 = 25;
/// See [`COMMIT_PERCENT`].
pub const FETCH_PERCENT: u64 = 50;
/// See [`COMMIT_PERCENT`]. Blind claims.
pub const CLAIM_PERCENT: u64 = 65;
/// See [`COMMIT_PERCENT`]. Opened claims and further witnesses.
pub const CHECK_PERCENT: u64 = 80;
/// See [`COMMIT_PERCENT`].
pub const HOLD_PERCENT: u64 = 85;
/// See [`COMMIT_PERCENT`]. Replicas have applied the manifest.
pub const READY_PERCENT: u64 = 100;
/// Share of D that a witness asked about a shard has before the next one is asked too, percent.
pub const REFER_PERCENT: u64 = 5;
/// Holders beside the claimants before a shard counts as settled (protocol §1.2 step 7).
pub const HOLDERS_MIN: usize = 2;
/// Heartbeats after a restart in which no deadline fires (protocol §6 "Restart").
pub const RESUME_HEARTBEATS: u64 = 2;
/// Longest description of where a codec comes from, bytes.
pub const CODEC_SOURCE_BYTES: usize = 256;
/// Share of an epoch's tensors that may fall back before its codec goes, percent (protocol §7 "Production").
pub const CODEC_FALLBACK_PERCENT: u64 = 1;
/// Fallbacks below which it stays, however few tensors there were.
pub const CODEC_FALLBACKS_MIN: u64 = 3;
/// Openings at which a pinned codec is tried before it is given up.
pub const CODEC_TRIES: u32 = 16;
/// Compared tensors from which a codec that saves nothing goes.
pub const CODEC_SAMPLE_MIN: u64 = 8;
/// While a lossy codec is in its shadow, one in so many micro-batches crosses by it, by seed (protocol §7 "Production").
pub const SHADOW_EVERY: u64 = 10;
/// Least micro-batches of a validator's word on a lossy codec.
pub const SHADOW_BATCHES_MIN: u32 = 8;
/// What a lossy codec may change in the mean, 10⁻⁹ (protocol §7: 0.1 %).
pub const SHADOW_EFFECT_PPB: u64 = 1_000_000;
/// Standard errors that must lie between the mean and that.
pub const SHADOW_ERRORS: u64 = 3;
/// Losses on either side from which those of an epoch's shadow are compared with the others.
pub const SHADOW_LOSSES_MIN: u64 = 12;
/// Standard errors above 0.1 % from which they are too high: means of a dozen losses stray.
pub const SHADOW_LOSSES_ERRORS: f64 = 4.0;
/// What happened to codecs, newest kept.
pub const CODEC_EVENTS_MAX: usize = 256;
/// Components that a node is remembered to be ready for: the one in force, the one before it, and the one to come.
pub const CODECS_READY: usize = 3;
/// Most tensors, bytes or microseconds in one report on a codec.
pub const CODEC_COUNT_MAX: u64 = 1 << 50;
