//! Blobs in memory: for tests and for nodes without a disk.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use wire::Hash;

use super::{BlobError, BlobReader, BlobWriter, Blobs};
use crate::limits;

type Shelf = Arc<Mutex<BTreeMap<Hash, Bytes>>>;

/// Blobs in memory.
#[derive(Clone, Debug, Default)]
pub struct MemoryBlobs {
    shelf: Shelf,
}

fn lock(shelf: &Shelf) -> MutexGuard<'_, BTreeMap<Hash, Bytes>> {
    shelf.lock().unwrap_or_else(PoisonError::into_inner)
}

#[async_trait]
impl Blobs for MemoryBlobs {
    async fn put(&self, bytes: Bytes) -> Result<Hash, BlobError> {
        super::check_len(bytes.len() as u64, limits::BLOB_IN_MEMORY_BYTES)?;
        let hash = Hash::of(&bytes);
        lock(&self.shelf).entry(hash).or_insert(bytes);
        Ok(hash)
    }

    async fn put_at(&self, hash: Hash, bytes: Bytes) -> Result<(), BlobError> {
        super::check_len(bytes.len() as u64, limits::BLOB_IN_MEMORY_BYTES)?;
        super::check_hash(hash, Hash::of(&bytes))?;
        lock(&self.shelf).entry(hash).or_insert(bytes);
        Ok(())
    }

    async fn get(&self, hash: Hash) -> Result<Bytes, BlobError> {
        lock(&self.shelf).get(&hash).cloned().ok_or(BlobError::Missing(hash))
    }

    async fn size(&self, hash: Hash) -> Result<Option<u64>, BlobError> {
        Ok(lock(&self.shelf).get(&hash).map(|bytes| bytes.len() as u64))
    }

    async fn delete(&self, hash: Hash) -> Result<(), BlobError> {
        lock(&self.shelf).remove(&hash);
        Ok(())
    }

    async fn list(&self) -> Result<Vec<Hash>, BlobError> {
        Ok(lock(&self.shelf).keys().copied().collect())
    }

    async fn create(&self) -> Result<Box<dyn BlobWriter>, BlobError> {
        Ok(Box::new(MemoryWriter { blobs: self.clone(), bytes: BytesMut::new() }))
    }

    async fn open(&self, hash: Hash) -> Result<Box<dyn BlobReader>, BlobError> {
        Ok(Box::new(MemoryReader { left: self.get(hash).await? }))
    }
}

struct MemoryWriter {
    blobs: MemoryBlobs,
    bytes: BytesMut,
}

#[async_trait]
impl BlobWriter for MemoryWriter {
    async fn write(&mut self, chunk: Bytes) -> Result<(), BlobError> {
        super::check_len((self.bytes.len() + chunk.len()) as u64, limits::BLOB_IN_MEMORY_BYTES)?;
        self.bytes.extend_from_slice(&chunk);
        Ok(())
    }

    async fn finish(self: Box<Self>, expected: Option<Hash>) -> Result<Hash, BlobError> {
        let bytes = self.bytes.freeze();
        match expected {
            Some(hash) => self.blobs.put_at(hash, bytes).await.map(|()| hash),
            None => self.blobs.put(bytes).await,
        }
    }
}

struct MemoryReader {
    left: Bytes,
}

#[async_trait]
impl BlobReader for MemoryReader {
    async fn next(&mut self) -> Result<Option<Bytes>, BlobError> {
        if self.left.is_empty() {
            return Ok(None);
        }
        let len = self.left.len().min(limits::CHUNK_BYTES);
        Ok(Some(self.left.split_to(len)))
    }
}
