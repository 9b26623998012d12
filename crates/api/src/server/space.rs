//! The room that all blobs share. What is coming counts as well, so that uploads at a time do not pass the bound together.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use wire::Hash;

use super::problem::ApiError;

/// Bytes of all blobs, and their bound.
#[derive(Debug)]
pub(crate) struct Space {
    max: u64,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    bytes: u64,
    coming: BTreeMap<Hash, Coming>,
}

/// What is known of a blob while somebody brings it.
#[derive(Debug, Default)]
struct Coming {
    rooms: usize,
    /// One of those who bring it has stored it: its bytes count once.
    stored: bool,
}

/// Room for one blob; given back where it does not come, or was stored by another meanwhile.
#[derive(Debug)]
pub(crate) struct Room {
    space: Arc<Space>,
    hash: Hash,
    bytes: u64,
}

impl Space {
    pub(crate) fn new(max: u64, bytes: u64) -> Arc<Self> {
        Arc::new(Self { max, taken: Mutex::new(Taken { bytes, ..Taken::default() }) })
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.taken().bytes
    }

    /// Room for a blob, none of it taken yet. It must be asked for before it is looked whether the blob is there: else one
    /// that is stored in between counts twice.
    pub(crate) fn room(self: &Arc<Self>, hash: Hash) -> Room {
        self.taken().coming.entry(hash).or_default().rooms += 1;
        Room { space: Arc::clone(self), hash, bytes: 0 }
    }
}

impl Room {
    /// Takes room for so many bytes in all.
    pub(crate) fn reach(&mut self, bytes: u64) -> Result<(), ApiError> {
        let more = bytes.saturating_sub(self.bytes);
        let mut taken = self.space.taken();
        if taken.bytes.saturating_add(more) > self.space.max {
            return Err(ApiError::NoRoom);
        }
        taken.bytes += more;
        self.bytes += more;
        Ok(())
    }

    /// The blob is stored: what it takes stays taken.
    pub(crate) fn stored(mut self) {
        let mut taken = self.space.taken();
        if let Some(coming) = taken.coming.get_mut(&self.hash)
            && !std::mem::replace(&mut coming.stored, true)
        {
            self.bytes = 0;
        }
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let mut taken = self.space.taken();
        taken.bytes -= self.bytes;
        if let Some(coming) = taken.coming.get_mut(&self.hash) {
            coming.rooms -= 1;
            if coming.rooms == 0 {
                taken.coming.remove(&self.hash);
            }
        }
    }
}
