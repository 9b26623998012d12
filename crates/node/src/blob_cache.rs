//! Blobs that were just served, so that a thing fetched in pieces is read once.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use store::{BlobError, Blobs};
use wire::Hash;

use crate::limits;

/// A store behind a few recently used blobs.
pub(crate) struct BlobCache {
    blobs: Arc<dyn Blobs>,
    recent: Mutex<VecDeque<(Hash, Bytes)>>,
}

impl BlobCache {
    pub(crate) fn new(blobs: Arc<dyn Blobs>) -> Self {
        Self { blobs, recent: Mutex::default() }
    }

    /// The whole blob, checked when it was read.
    pub(crate) async fn get(&self, hash: Hash) -> Result<Bytes, BlobError> {
        if let Some(bytes) = self.recall(hash) {
            return Ok(bytes);
        }
        let bytes = self.blobs.get(hash).await?;
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        recent.push_front((hash, bytes.clone()));
        let mut sum = 0;
        let fit = recent.iter().take_while(|(_, bytes)| {
            sum += bytes.len();
            sum <= limits::BLOB_CACHE_BYTES
        });
        let fit = fit.count();
        recent.truncate(fit);
        Ok(bytes)
    }

    fn recall(&self, hash: Hash) -> Option<Bytes> {
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        let at = recent.iter().position(|(known, _)| *known == hash)?;
        let entry = recent.remove(at)?;
        let bytes = entry.1.clone();
        recent.push_front(entry);
        Some(bytes)
    }
}

impl std::fmt::Debug for BlobCache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BlobCache").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use store::MemoryBlobs;

    use super::*;

    #[tokio::test]
    async fn a_blob_that_was_served_is_served_again_without_the_store() {
        let store = Arc::new(MemoryBlobs::default());
        let hash = store.put(Bytes::from_static(b"shard")).await.unwrap();
        let cache = BlobCache::new(Arc::clone(&store) as Arc<dyn Blobs>);
        assert_eq!(cache.get(hash).await.unwrap(), &b"shard"[..]);
        store.delete(hash).await.unwrap();
        assert_eq!(cache.get(hash).await.unwrap(), &b"shard"[..]);
        let absent = cache.get(Hash::of(b"other")).await;
        assert!(matches!(absent, Err(BlobError::Missing(_))));
    }
}
