//! How many bytes a key may upload: a bucket per key that drains evenly, in bounded memory.

use std::collections::BTreeMap;

use wire::{Millis, NodeId};

use crate::limits;
use crate::model::UploadQuota;

/// What keys have uploaded of late.
#[derive(Debug)]
pub(crate) struct Uploads {
    /// Bytes of one key in a window.
    limit: u64,
    spent: BTreeMap<NodeId, Spent>,
}

#[derive(Clone, Copy, Debug)]
struct Spent {
    bytes: u64,
    at: Millis,
}

impl Spent {
    /// What still counts at `now`.
    fn left_over(self, limit: u64, now: Millis) -> u64 {
        let drained = u128::from(now.since(self.at).0) * u128::from(limit)
            / u128::from(limits::UPLOAD_WINDOW.as_millis().max(1) as u64);
        u128::from(self.bytes).saturating_sub(drained) as u64
    }
}

impl Uploads {
    /// With so many bytes for each key.
    pub(crate) fn of(limit: u64) -> Self {
        Self { limit, spent: BTreeMap::new() }
    }

    fn used(&self, key: NodeId, now: Millis) -> u64 {
        self.spent.get(&key).map_or(0, |spent| spent.left_over(self.limit, now))
    }

    fn check(&self, key: NodeId, bytes: u64, now: Millis) -> Result<(), UploadQuota> {
        let used = self.used(key, now);
        if used.saturating_add(bytes) > self.limit { Err(self.status(used, bytes)) } else { Ok(()) }
    }

    /// Counts bytes of a key.
    ///
    /// # Errors
    /// They are more than is left; nothing is counted then.
    pub(crate) fn spend(&mut self, key: NodeId, bytes: u64, now: Millis) -> Result<(), UploadQuota> {
        self.check(key, bytes, now)?;
        let (used, limit) = (self.used(key, now), self.limit);
        if self.spent.len() >= limits::RATED_KEYS {
            self.spent.retain(|_, spent| spent.left_over(limit, now) > 0);
        }
        self.spent.insert(key, Spent { bytes: used + bytes, at: now });
        Ok(())
    }

    /// Takes back what was counted and did not come after all.
    pub(crate) fn give_back(&mut self, key: NodeId, bytes: u64, now: Millis) {
        let used = self.used(key, now).saturating_sub(bytes);
        if let Some(spent) = self.spent.get_mut(&key) {
            *spent = Spent { bytes: used, at: now };
        }
    }

    fn status(&self, used: u64, wanted: u64) -> UploadQuota {
        let limit = self.limit;
        let window_s = limits::UPLOAD_WINDOW.as_secs();
        let over = used.saturating_add(wanted).saturating_sub(limit);
        let free_in_s = (u128::from(over) * u128::from(window_s)).div_ceil(u128::from(limit.max(1))) as u64;
        UploadQuota {
            limit_bytes: limit,
            used_bytes: used,
            left_bytes: limit - used.min(limit),
            window_s,
            // What is more than a key may upload at all never becomes free.
            free_in_s: if wanted > limit { 0 } else { free_in_s },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: u64 = limits::UPLOAD_QUOTA_BYTES;

    #[test]
    fn a_key_has_its_quota_back_with_time_and_others_have_their_own() {
        let (one, other) = (NodeId([1; 32]), NodeId([2; 32]));
        let window = limits::UPLOAD_WINDOW.as_millis() as u64;
        let mut uploads = Uploads::of(LIMIT);
        let start = Millis(1_000_000);
        uploads.spend(one, LIMIT, start).unwrap();
        let full = uploads.spend(one, 1, start).unwrap_err();
        assert_eq!((full.used_bytes, full.left_bytes, full.limit_bytes), (LIMIT, 0, LIMIT));
        assert_eq!(full.free_in_s, 1);
        uploads.spend(other, LIMIT, start).unwrap();
        let half = start.plus(Millis(window / 2));
        let found = uploads.spend(one, LIMIT / 2 + 4096, half).unwrap_err();
        assert_eq!(found.left_bytes, LIMIT / 2);
        uploads.spend(one, LIMIT / 2, half).unwrap();
        uploads.spend(one, LIMIT, half.plus(Millis(window))).unwrap();
    }

    #[test]
    fn what_is_free_when_it_is_said_to_be() {
        let key = NodeId([1; 32]);
        let mut uploads = Uploads::of(10_000);
        uploads.spend(key, 9000, Millis(0)).unwrap();
        let refused = uploads.check(key, 6000, Millis(0)).unwrap_err();
        assert_eq!(refused.left_bytes, 1000);
        let early = Millis((refused.free_in_s - 60) * 1000);
        uploads.check(key, 6000, early).unwrap_err();
        uploads.check(key, 6000, Millis(refused.free_in_s * 1000)).unwrap();
        assert_eq!(uploads.check(key, 10_001, Millis(0)).unwrap_err().free_in_s, 0, "never");
    }

    #[test]
    fn what_did_not_come_is_free_at_once() {
        let (key, now) = (NodeId([1; 32]), Millis(5));
        let mut uploads = Uploads::of(1000);
        uploads.spend(key, 800, now).unwrap();
        uploads.spend(key, 800, now).unwrap_err();
        uploads.give_back(key, 500, now);
        uploads.spend(key, 700, now).unwrap();
        assert_eq!(uploads.spend(key, 1, now).unwrap_err().used_bytes, 1000);
        // Never more than there was, also for a key that is not known any more.
        uploads.give_back(key, 5000, now);
        uploads.give_back(NodeId([2; 32]), 5000, now);
        assert_eq!(uploads.spend(key, 1001, now).unwrap_err().used_bytes, 0);
    }

    #[test]
    fn keys_that_rest_are_forgotten() {
        let mut uploads = Uploads::of(LIMIT);
        for number in 0..=limits::RATED_KEYS as u64 {
            let mut key = [0; 32];
            key[..8].copy_from_slice(&number.to_le_bytes());
            let day = limits::UPLOAD_WINDOW.as_millis() as u64;
            let at = Millis(if number < limits::RATED_KEYS as u64 { 0 } else { day });
            uploads.spend(NodeId(key), 1, at).unwrap();
        }
        assert_eq!(uploads.spent.len(), 1);
    }
}
