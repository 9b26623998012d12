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
