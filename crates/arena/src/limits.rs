//! Every bound of the protocol, in one place.

/// Longest text of a competition's or an arena's spec, bytes.
pub const SPEC_BYTES_MAX: usize = 64 << 10;
/// Longest short text (name, title, operator, zone), bytes.
pub const NAME_BYTES: usize = 128;
/// Longest description, address of a page, or announcement, bytes.
pub const TEXT_BYTES: usize = 4096;
/// Longest text that says where a price is paid, bytes.
pub const PAY_TO_BYTES: usize = 512;
/// Most competitions of one arena.
pub const COMPETITIONS_MAX: usize = 4096;
/// Most competitions without a weight that one key may have open.
pub const OPEN_PER_KEY_MAX: usize = 16;
/// Most owners of an arena.
pub const OWNERS_MAX: usize = 64;
/// Most admitted judges.
pub const JUDGES_MAX: usize = 1024;
/// Most leases that one judge holds at a time.
pub const LEASES_PER_JUDGE_MAX: usize = 64;
/// Most leases that one judge gives back in one round; further ones run to their deadline.
pub const RETURNS_PER_ROUND_MAX: u8 = 8;
/// Most judges that one entry may be put before in one round.
pub const SLOTS_MAX: u8 = 15;
/// Most entries of one round that one spec may admit.
pub const ROUND_ENTRIES_MAX: u32 = 65_536;
/// Most entries of one arena.
pub const ENTRIES_MAX: usize = 1 << 22;
/// Most inputs of a round: a verdict with one measurement per input stays below an envelope's limit.
pub const ITEMS_MAX: u32 = 4096;
/// Most items of a round's pool.
pub const POOL_ITEMS_MAX: usize = 16_384;
/// Most items that were drawn in earlier rounds of a competition and may not come again.
pub const USED_ITEMS_MAX: usize = 1 << 20;
/// Most parents that an entry names.
pub const PARENTS_MAX: usize = 4;
/// Longest note about an entry, bytes.
pub const ABOUT_NOTE_BYTES: usize = 2048;
/// Longest address in what an entry says of itself, bytes.
pub const ABOUT_LINK_BYTES: usize = 512;
/// Most often that an entry may be described: each time stays in the log.
pub const DESCRIPTIONS_MAX: u8 = 8;
/// Most keys that one competition registers.
pub const REGISTERED_MAX: usize = 65_536;
/// Most keys of one registration.
pub const REGISTER_KEYS_MAX: usize = 1024;
/// Most announcements kept per competition and for the arena; the oldest falls out.
pub const NOTES_MAX: usize = 256;
/// Most receipts that one payer may hold unused.
pub const RECEIPTS_MAX: usize = 1024;
/// Round summaries kept per competition; older ones only count in the totals.
pub const SUMMARIES_MAX: usize = 1024;
/// Days by which a key's or a competition's earnings are kept; older ones only count in the total.
pub const EARNING_DAYS_MAX: usize = 366;
/// Rows of a round's board that its summary keeps.
pub const BOARD_ROWS_MAX: usize = 1000;
/// Most places that a reward is split over.
pub const PLACES_MAX: usize = 64;
/// What clocks of judges are apart on one machine for the same program, 10⁻⁶: a gain in time that is smaller is none.
pub const CLOCK_NOISE_PPM: u64 = 100_000;
/// Most bounties of a competition.
pub const BOUNTIES_MAX: usize = 16;
/// Most completed rounds that a bounty is paid for.
pub const BOUNTY_ROUNDS_MAX: u64 = 10_000;
/// Largest raw score that a bounty can ask for, either side of 0.
pub const BOUNTY_RAW_MAX: f64 = 1e15;
/// Most keys that share rewards by how far they raised the bar; beyond it the smallest part is forgotten.
pub const CONTRIBUTORS_MAX: usize = 256;
/// Largest improvement that one takeover counts for, 10⁻⁶ of the bar: a hundredfold.
pub const CONTRIBUTION_PPM_MAX: u64 = 100_000_000;
/// Sign flips of a paired takeover test. The smallest p-value is one over this plus one.
pub const SIGN_FLIPS: u32 = 19_999;
/// Fewest inputs on which a paired test is possible: 2⁻⁸ is below every level that a spec may ask for.
pub const PAIRED_ITEMS_MIN: u32 = 8;
/// Largest code that a spec may admit, bytes.
pub const CODE_BYTES_MAX: u64 = 2 << 30;
/// Largest size of one input or one compressed input, bytes.
pub const ITEM_BYTES_MAX: u64 = 1 << 40;
/// Largest cost of one input, units of fuel.
pub const ITEM_FUEL_MAX: u64 = 1 << 50;
/// Largest time that a verdict may claim for one input, nanoseconds (12 days).
pub const ITEM_TIME_NS_MAX: u64 = 1 << 50;
/// Largest time that a verdict may claim for a whole run, nanoseconds (2 years, of all processors together).
pub const RUN_TIME_NS_MAX: u64 = 1 << 56;
/// Largest fuel that a verdict may claim for a whole run.
pub const RUN_FUEL_MAX: u64 = 1 << 62;
/// Largest memory or disk that a verdict may claim, bytes (1 PiB).
pub const MACHINE_BYTES_MAX: u64 = 1 << 50;
/// Most processors, or processes, that a verdict may claim.
pub const MACHINE_PROCESSES_MAX: u64 = 1 << 22;
/// Most names in one list of a spec's screening.
pub const SCREENING_NAMES_MAX: usize = 256;
/// Longest of them, bytes.
pub const SCREENING_NAME_BYTES: usize = 64;
/// Most words of a command in a spec.
pub const COMMAND_WORDS: usize = 32;
/// Longest of them, bytes.
pub const COMMAND_WORD_BYTES: usize = 1024;
/// Longest reason of a rejection in a verdict, bytes.
pub const REASON_BYTES: usize = 256;
/// Most metrics of an evaluator in a verdict.
pub const METRICS_MAX: usize = 16;
/// Longest name of one, bytes.
pub const METRIC_NAME_BYTES: usize = 32;
/// Longest unit of one, bytes.
pub const METRIC_UNIT_BYTES: usize = 16;
/// Largest absolute objective of a program, 10⁻⁹ units; also of a metric.
pub const OBJECTIVE_NANO_MAX: i64 = 1 << 52;
/// Smallest similarity that a verdict may state, 10⁻⁹ (a reply that is a thousand times too long is as bad as any).
pub const SIMILARITY_PPB_MIN: i64 = -1_000_000_000_000;
