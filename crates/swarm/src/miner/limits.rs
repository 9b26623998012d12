//! Bounds and waits of a miner's own decisions.

use wire::Millis;

/// Longest that a frame waits for this node's log to catch up with its sender's.
pub const OFFER_WAIT: Millis = Millis(2_000);
/// Frames that wait so at a time; the oldest is told "busy".
pub const OFFERS_WAITING: usize = 256;
/// First pause before a frame that nobody took is offered again; it doubles up to [`SEND_RETRY_MAX`].
pub const SEND_RETRY: Millis = Millis(10);
/// Longest such pause.
pub const SEND_RETRY_MAX: Millis = Millis(320);
/// Items in one report at most; with more the rest goes into the next one.
pub const REPORT_ITEMS: usize = crate::limits::WORK_ITEMS_MAX / 2;
/// Steps in one report at most.
pub const REPORT_STEPS: usize = crate::limits::WORK_STEPS_MAX / 2;
/// First pause before something that could not be fetched is asked for again; it doubles up to [`FETCH_RETRY_MAX`].
pub const FETCH_RETRY: Millis = Millis(5);
/// Longest such pause.
pub const FETCH_RETRY_MAX: Millis = Millis(640);
/// Failed attempts (not "not yet") after which an upload counts as out of reach.
pub const FETCH_ATTEMPTS: u32 = 4;
/// Part of a merge step's time after which an owner says what it has, complete or not, percent.
pub const PATIENCE_PERCENT: u64 = 70;
/// How long a result that is held waits for others before both are stated together.
pub const HOLDS_WAIT: Millis = Millis(25);
