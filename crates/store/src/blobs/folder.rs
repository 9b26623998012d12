//! Blobs in a folder, through `object_store`: `ab/cdef…` by the hash's hex digits, written aside and renamed into place.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures_util::TryStreamExt;
use object_store::local::LocalFileSystem;
use object_store::path::Path as Location;
use object_store::{MultipartUpload, ObjectStore, ObjectStoreExt};
use tokio::task::JoinHandle;
use wire::Hash;

use super::{BlobError, BlobReader, BlobWriter, Blobs};
use crate::limits;

/// Whether a stored blob survives the machine's power cut, not only the process's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// Each blob is on the disk before its name appears. For blobs that nobody else has.
    Synced,
    /// Left to the operating system. A blob that a power cut damages is noticed by its hash and fetched again.
    Cached,
}

/// Blobs in a folder.
#[derive(Clone, Debug)]
pub struct FolderBlobs {
    folder: PathBuf,
    store: LocalFileSystem,
}

/// Folder of unfinished uploads, beside the 256 folders of blobs.
const INCOMING: &str = "incoming";
/// Age after which what an unfinished write left behind is removed.
const STALE: Duration = Duration::from_hours(1);

impl FolderBlobs {
    /// Opens `folder`, which is made if need be, and removes what writes cut off by a crash left there.
    pub async fn open(folder: impl Into<PathBuf>, durability: Durability) -> Result<Self, BlobError> {
        let folder = folder.into();
        let fail = |reason: &io::Error, place: &Path| backend("opening the blob folder", place, reason);
        let opened = folder.clone();
        blocking(move || {
            fs::create_dir_all(&opened).map_err(|error| fail(&error, &opened))?;
            remove_stale(&opened).map_err(|error| fail(&error, &opened))?;
            let store = LocalFileSystem::new_with_prefix(&opened)
                .map_err(|error| backend("opening the blob folder", &opened, &error))?;
            Ok(Self { folder: opened, store: store.with_fsync(durability == Durability::Synced) })
        })
        .await
    }

    /// Where it is.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The file of a blob, whether it is there or not: for readers that map it into memory. Such a reader must check
    /// the hash itself.
    pub fn path(&self, hash: Hash) -> PathBuf {
        let hex = hash.to_string();
        self.folder.join(&hex[..2]).join(&hex[2..])
    }

    async fn store(&self, hash: Hash, bytes: Bytes) -> Result<(), BlobError> {
        if self.size(hash).await? == Some(bytes.len() as u64) {
            return Ok(());
        }
        self.store
            .put(&location(hash), bytes.into())
            .await
            .map_err(|error| self.failed("writing a blob", &error))?;
        Ok(())
    }

    fn failed(&self, doing: &'static str, error: &object_store::Error) -> BlobError {
        backend(doing, &self.folder, error)
    }

    /// Bytes `range` of a blob, or [`BlobError::Missing`].
    async fn range(&self, hash: Hash, range: std::ops::Range<u64>) -> Result<Bytes, BlobError> {
        match self.store.get_range(&location(hash), range).await {
            Ok(bytes) => Ok(bytes),
            Err(object_store::Error::NotFound { .. }) => Err(BlobError::Missing(hash)),
            Err(error) => Err(self.failed("reading a blob", &error)),
        }
    }
}

fn location(hash: Hash) -> Location {
    let hex = hash.to_string();
    Location::from_iter([&hex[..2], &hex[2..]])
}

/// The hash whose blob lies at `location`; none for what is not a blob.
fn hash_at(location: &Location) -> Option<Hash> {
    let (first, rest) = location.as_ref().split_once('/')?;
    if first.len() == 2 { format!("{first}{rest}").parse().ok() } else { None }
}

fn backend(doing: &'static str, place: &Path, error: &(dyn std::error::Error + 'static)) -> BlobError {
    let place = place.display().to_string();
    if is_full(error) {
        return BlobError::Full { place };
    }
    BlobError::Backend { doing, place, reason: error.to_string() }
}

/// Whether a disk or quota without space is at the bottom of an error.
fn is_full(error: &(dyn std::error::Error + 'static)) -> bool {
    let full =
        |error: &io::Error| matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
    let mut next = Some(error);
    while let Some(error) = next {
        if error.downcast_ref::<io::Error>().is_some_and(full) {
            return true;
        }
        next = error.source();
    }
    false
}

/// Removes files that `object_store` staged (`NAME#NUMBER`) and nobody finished. Younger ones may be another process's.
fn remove_stale(folder: &Path) -> io::Result<()> {
    let limit = SystemTime::now().checked_sub(STALE).unwrap_or(SystemTime::UNIX_EPOCH);
    for shelf in fs::read_dir(folder)? {
        let shelf = shelf?;
        if !shelf.file_type()?.is_dir() {
            continue;
        }
        for entry in fs::read_dir(shelf.path())? {
            let entry = entry?;
            let unfinished =
                shelf.file_name() == INCOMING || entry.file_name().to_string_lossy().contains('#');
            if unfinished && entry.metadata().and_then(|data| data.modified()).is_ok_and(|time| time < limit)
            {
                fs::remove_file(entry.path())?;
            }
        }
    }
    Ok(())
}

/// Runs file work and hashing where it does not hold up other tasks.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    joined(tokio::task::spawn_blocking(work)).await
}

async fn joined<T>(task: JoinHandle<T>) -> T {
    match task.await {
        Ok(result) => result,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // Only a runtime that is shutting down cancels it; nobody awaits this then.
            Err(_) => std::future::pending().await,
        },
    }
}

async fn hash_of(bytes: &Bytes) -> Hash {
    if bytes.len() <= limits::CHUNK_BYTES {
        return Hash::of(bytes);
    }
    let bytes = bytes.clone();
    blocking(move || Hash::of(&bytes)).await
}

#[async_trait]
impl Blobs for FolderBlobs {
    async fn put(&self, bytes: Bytes) -> Result<Hash, BlobError> {
        super::check_len(bytes.len() as u64, limits::BLOB_IN_MEMORY_BYTES)?;
        let hash = hash_of(&bytes).await;
        self.store(hash, bytes).await?;
        Ok(hash)
    }

    async fn put_at(&self, hash: Hash, bytes: Bytes) -> Result<(), BlobError> {
        super::check_len(bytes.len() as u64, limits::BLOB_IN_MEMORY_BYTES)?;
        super::check_hash(hash, hash_of(&bytes).await)?;
        self.store(hash, bytes).await
    }

    async fn get(&self, hash: Hash) -> Result<Bytes, BlobError> {
        let len = self.size(hash).await?.ok_or(BlobError::Missing(hash))?;
        super::check_len(len, limits::BLOB_IN_MEMORY_BYTES)?;
        let bytes = if len == 0 { Bytes::new() } else { self.range(hash, 0..len).await? };
        let found = hash_of(&bytes).await;
        if found == hash { Ok(bytes) } else { Err(BlobError::Corrupt { hash, found }) }
    }

    async fn size(&self, hash: Hash) -> Result<Option<u64>, BlobError> {
        match self.store.head(&location(hash)).await {
            Ok(meta) => Ok(Some(meta.size)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(self.failed("looking for a blob", &error)),
        }
    }

    async fn delete(&self, hash: Hash) -> Result<(), BlobError> {
        match self.store.delete(&location(hash)).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(self.failed("deleting a blob", &error)),
        }
    }

    async fn list(&self) -> Result<Vec<Hash>, BlobError> {
        let mut hashes: Vec<Hash> = self
            .store
            .list(None)
            .try_filter_map(|meta| futures_util::future::ready(Ok(hash_at(&meta.location))))
            .try_collect()
            .await
            .map_err(|error| self.failed("listing blobs", &error))?;
        hashes.sort_unstable();
        Ok(hashes)
    }

    async fn create(&self) -> Result<Box<dyn BlobWriter>, BlobError> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let name = format!("{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let aside = Location::from_iter([INCOMING, &name]);
        let upload = self
            .store
            .put_multipart(&aside)
            .await
            .map_err(|error| self.failed("starting to write a blob", &error))?;
        Ok(Box::new(FolderWriter {
            blobs: self.clone(),
            aside,
            upload,
            hasher: blake3::Hasher::new(),
            pending: BytesMut::new(),
            len: 0,
        }))
    }

    async fn open(&self, hash: Hash) -> Result<Box<dyn BlobReader>, BlobError> {
        let len = self.size(hash).await?.ok_or(BlobError::Missing(hash))?;
        Ok(Box::new(FolderReader { blobs: self.clone(), hash, hasher: blake3::Hasher::new(), at: 0, len }))
    }
}

struct FolderWriter {
    blobs: FolderBlobs,
    aside: Location,
    upload: Box<dyn MultipartUpload>,
    hasher: blake3::Hasher,
    pending: BytesMut,
    len: u64,
}

impl FolderWriter {
    async fn flush(&mut self) -> Result<(), BlobError> {
        let part = self.pending.split().freeze();
        let mut hasher = std::mem::take(&mut self.hasher);
        let hashed = part.clone();
        self.hasher = blocking(move || {
            hasher.update(&hashed);
            hasher
        })
        .await;
        let written = self.upload.put_part(part.into()).await;
        written.map_err(|error| self.blobs.failed("writing a blob", &error))
    }

    /// Gives the file, which is whole, its name.
    async fn name(mut self: Box<Self>, hash: Hash) -> Result<Hash, BlobError> {
        let blobs = &self.blobs;
        self.upload.complete().await.map_err(|error| blobs.failed("finishing a blob", &error))?;
        let renamed = blobs.store.rename(&self.aside, &location(hash)).await;
        if let Err(error) = renamed {
            // What cannot be moved must not stay either; if that fails too, the first error says more.
            let _ = blobs.store.delete(&self.aside).await;
            return Err(blobs.failed("naming a blob", &error));
        }
        Ok(hash)
    }
}

#[async_trait]
impl BlobWriter for FolderWriter {
    async fn write(&mut self, chunk: Bytes) -> Result<(), BlobError> {
        self.len += chunk.len() as u64;
        super::check_len(self.len, limits::BLOB_BYTES)?;
        self.pending.extend_from_slice(&chunk);
        if self.pending.len() >= limits::CHUNK_BYTES { self.flush().await } else { Ok(()) }
    }

    async fn finish(mut self: Box<Self>, expected: Option<Hash>) -> Result<Hash, BlobError> {
        self.flush().await?;
        let hash = Hash(*self.hasher.finalize().as_bytes());
        if let Some(expected) = expected {
            super::check_hash(expected, hash)?;
        }
        // A task of its own: cut off between its two steps it would leave a file that nobody removes.
        joined(tokio::spawn(self.name(hash))).await
    }
}

struct FolderReader {
    blobs: FolderBlobs,
    hash: Hash,
    hasher: blake3::Hasher,
    at: u64,
    len: u64,
}

#[async_trait]
impl BlobReader for FolderReader {
    async fn next(&mut self) -> Result<Option<Bytes>, BlobError> {
        if self.at == self.len && self.len > 0 {
            return Ok(None);
        }
        let end = self.len.min(self.at + limits::CHUNK_BYTES as u64);
        let chunk = match self.len {
            0 => Bytes::new(),
            _ => self.blobs.range(self.hash, self.at..end).await?,
        };
        self.at += chunk.len() as u64;
        self.hasher.update(&chunk);
        if chunk.is_empty() || self.at >= self.len {
            let found = Hash(*self.hasher.finalize().as_bytes());
            if found != self.hash {
                return Err(BlobError::Corrupt { hash: self.hash, found });
            }
        }
        Ok(if chunk.is_empty() { None } else { Some(chunk) })
    }
}
