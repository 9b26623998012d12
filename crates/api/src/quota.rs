//! How many bytes a key may upload: a bucket per key that drains evenly, in bounded memory.

use std::collections::BTreeMap;

use wire::{Millis, NodeId};

use crate::limits;
use crate::model::UploadQuota;

/// What keys have uploaded of late.
#[derive(Debug, Default)]
pub(crate) struct Uploads {
    spent: BTreeMap<NodeId, Spent>,
}

#[derive(Clone, Copy, Debug)]
struct Spent {
    bytes: u64,
    at: Millis,
}

impl Spent {
    /// What still counts at `now`.
    fn left_over(self, now: Millis) -> u64 {
        let drained = u128::from(now.since(self.at).0) * u128::from(limits::UPLOAD_QUOTA_BYTES)
            / u128::from(limits::UPLOAD_WINDOW.as_millis().max(1) as u64);
        u128::from(self.bytes).saturating_sub(drained) as u64
    }
}

impl Uploads {
    /// Counts bytes of a key.
    ///
    /// # Errors
    /// They are more than is left; nothing is counted then.
    pub(crate) fn spend(&mut self, key: NodeId, bytes: u64, now: Millis) -> Result<(), UploadQuota> {
        let used = self.spent.get(&key).map_or(0, |spent| spent.left_over(now));
        if used.saturating_add(bytes) > limits::UPLOAD_QUOTA_BYTES {
            return Err(status(used, bytes));
        }
        if self.spent.len() >= limits::RATED_KEYS {
            self.spent.retain(|_, spent| spent.left_over(now) > 0);
        }
        self.spent.insert(key, Spent { bytes: used + bytes, at: now });
        Ok(())
    }
}

fn status(used: u64, wanted: u64) -> UploadQuota {
    let limit = limits::UPLOAD_QUOTA_BYTES;
    let window_s = limits::UPLOAD_WINDOW.as_secs();
    let over = used.saturating_add(wanted).saturating_sub(limit).min(limit);
    let free_in_s = (u128::from(over) * u128::from(window_s)).div_ceil(u128::from(limit)) as u64;
    UploadQuota {
        limit_bytes: limit,
        used_bytes: used,
        left_bytes: limit - used.min(limit),
        window_s,
        free_in_s,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_has_its_quota_back_with_time_and_others_have_their_own() {
        let (one, other) = (NodeId([1; 32]), NodeId([2; 32]));
        let (limit, window) = (limits::UPLOAD_QUOTA_BYTES, limits::UPLOAD_WINDOW.as_millis() as u64);
        let mut uploads = Uploads::default();
        let start = Millis(1_000_000);
        uploads.spend(one, limit, start).unwrap();
        let full = uploads.spend(one, 1, start).unwrap_err();
        assert_eq!((full.used_bytes, full.left_bytes, full.limit_bytes), (limit, 0, limit));
        assert_eq!(full.free_in_s, 1);
        uploads.spend(other, limit, start).unwrap();
        let half = start.plus(Millis(window / 2));
        let found = uploads.spend(one, limit / 2 + 4096, half).unwrap_err();
        assert_eq!(found.left_bytes, limit / 2);
        uploads.spend(one, limit / 2, half).unwrap();
        uploads.spend(one, limit, half.plus(Millis(window))).unwrap();
    }

    #[test]
    fn keys_that_rest_are_forgotten() {
        let mut uploads = Uploads::default();
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
