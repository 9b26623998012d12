//! The wall clock, as milliseconds that never go back within one process.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use wire::Millis;

/// A clock since the Unix epoch.
#[derive(Debug, Default)]
pub struct Clock {
    last: AtomicU64,
}

impl Clock {
    /// A clock that starts at `floor` at the earliest.
    pub fn from(floor: Millis) -> Self {
        Self { last: AtomicU64::new(floor.0) }
    }

    /// Now; never before an earlier answer.
    pub fn now(&self) -> Millis {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_millis() as u64;
        Millis(self.last.fetch_max(wall, Ordering::AcqRel).max(wall))
    }
}
