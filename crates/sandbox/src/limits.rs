//! Every limit of this crate that no caller sets.

use std::time::Duration;

/// Log kept of one failure, bytes.
pub const LOG_BYTES_MAX: usize = 64 << 10;

// WebAssembly.

/// A component, bytes. Larger ones are refused before anything reads them. Ordinary code of this size compiles in a
/// quarter of [`COMPILE_CPU`], so that only code made to be slow can meet that limit on one judge and not on another.
pub const COMPONENT_BYTES_MAX: usize = 4 << 20;
/// Compiled code of one component, bytes.
pub const COMPILED_BYTES_MAX: u64 = 512 << 20;
/// Address space of the child that compiles, bytes.
pub const COMPILE_MEMORY_BYTES: u64 = 3 << 30;
/// Processor time of the child that compiles.
pub const COMPILE_CPU: Duration = Duration::from_mins(1);
/// Wall-clock time of the child that compiles. Beyond it the machine is to blame, not the entry.
pub const COMPILE_WALL: Duration = Duration::from_mins(5);
/// Stack of one call, bytes. Part of the settings: another stack is another verdict.
pub const WASM_STACK_BYTES: usize = 512 << 10;
/// Core and component instances in one store.
pub const INSTANCES_MAX: usize = 64;
/// Linear memories in one store.
pub const MEMORIES_MAX: usize = 8;
/// Tables in one store.
pub const TABLES_MAX: usize = 16;
/// Elements of all tables of one store.
pub const TABLE_ELEMENTS_MAX: usize = 1 << 20;
/// How often running calls are checked against their deadline.
pub const EPOCH_TICK: Duration = Duration::from_millis(5);

// Jail.

/// Arguments and environment of a program together, bytes.
pub const ARGUMENT_BYTES_MAX: usize = 64 << 10;
/// One message between a jail and its supervisor, bytes.
pub const MESSAGE_BYTES_MAX: usize = 96 << 10;
/// Time for bubblewrap and the supervisor to come up; a machine that needs more is not fit to judge.
pub const SUPERVISOR_START: Duration = Duration::from_secs(20);
/// How often a jail's counters are read.
pub const POLL: Duration = Duration::from_millis(10);
/// Time for a killed tree to leave its cgroup.
pub const KILL: Duration = Duration::from_secs(10);
/// Wait between two attempts to connect to a server that does not listen yet.
pub const CONNECT_RETRY: Duration = Duration::from_millis(5);
/// Time for one connection inside a jail.
pub const CONNECT_ONCE: Duration = Duration::from_secs(1);
/// Processes that belong to the jail itself: bubblewrap twice, the supervisor and its threads.
pub const OWN_PROCESSES: u64 = 8;
/// Memory that belongs to the jail itself, bytes.
pub const OWN_MEMORY_BYTES: u64 = 24 << 20;
