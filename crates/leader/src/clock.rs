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

    /// A time above every earlier answer and above `floor`.
    pub fn after(&self, floor: Millis) -> Millis {
        self.last.fetch_max(floor.0 + 1, Ordering::AcqRel);
        self.now()
    }
}

/// How long from now until `at`; zero if it has passed.
pub fn until(now: Millis, at: Millis) -> Duration {
    Duration::from_millis(at.since(now).0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_does_not_go_back() {
        let clock = Clock::default();
        let first = clock.now();
        let far = first.plus(Millis(1_000_000));
        assert!(clock.after(far) > far);
        assert!(clock.now() > far);
        assert!(Clock::from(far).now() >= far);
        assert_eq!(until(far, first), Duration::ZERO);
    }
}
