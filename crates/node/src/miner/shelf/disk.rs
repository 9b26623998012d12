//! Opening states on disk: three blobs per epoch and a small index, so that a miner that restarts need not fetch them.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::{Bytes, BytesMut};
use serde::{Deserialize, Serialize};
use store::{BlobError, Blobs};
use swarm::miner::reduce;
use wire::{Epoch, Hash, StageIndex};

use super::{Opening, Vector};

/// One epoch's opening state as blobs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Entry {
    stage: StageIndex,
    epoch: Epoch,
    /// Shards of the merge before.
    pub(super) shards: u16,
    weights: Hash,
    /// None if the outer optimiser has none.
    momentum: Option<Hash>,
    residual: Hash,
}

impl Entry {
    fn blobs(&self) -> impl Iterator<Item = Hash> {
        [Some(self.weights), self.momentum, Some(self.residual)].into_iter().flatten()
    }
}

/// What lies on disk.
pub(super) struct Index {
    path: PathBuf,
    stage: StageIndex,
    blobs: Arc<dyn Blobs>,
    entries: Mutex<Vec<Entry>>,
    /// Held while the file is written: the newest entries are written last.
    writing: tokio::sync::Mutex<()>,
}

impl Index {
    /// Reads the index; one that is missing or damaged counts as empty, since everything can be fetched again.
    pub(super) fn open(folder: &Path, stage: StageIndex, blobs: Arc<dyn Blobs>) -> Self {
        let path = folder.join("states");
        let entries = std::fs::read(&path).ok().and_then(|bytes| wire::from_bytes(&bytes).ok());
        let entries = Mutex::new(entries.unwrap_or_default());
        Self { path, stage, blobs, entries, writing: tokio::sync::Mutex::default() }
    }

    fn entries(&self) -> Vec<Entry> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn find(&self, epoch: Epoch) -> Option<Entry> {
        self.entries().into_iter().find(|entry| entry.epoch == epoch && entry.stage == self.stage)
    }

    pub(super) fn has(&self, epoch: Epoch) -> bool {
        self.find(epoch).is_some()
    }

    pub(super) async fn save(&self, epoch: Epoch, shards: u16, opening: &Opening) -> Result<(), BlobError> {
        let weights = self.put(&opening.weights).await?;
        let momentum =
            if opening.momentum.is_empty() { None } else { Some(self.put(&opening.momentum).await?) };
        let residual = self.put(&opening.residual).await?;
        let entry = Entry { stage: self.stage, epoch, shards, weights, momentum, residual };
        self.replace(|entries| {
            entries.retain(|other| other.epoch != epoch);
            entries.push(entry);
        })
        .await;
        Ok(())
    }

    async fn put(&self, values: &[f32]) -> Result<Hash, BlobError> {
        self.blobs.put(Bytes::copy_from_slice(reduce::bytes_of(values))).await
    }

    pub(super) async fn load(&self, epoch: Epoch) -> Option<(Entry, Opening)> {
        let entry = self.find(epoch)?;
        let weights = self.get(entry.weights).await?;
        let momentum = match entry.momentum {
            Some(hash) => self.get(hash).await?,
            None => Vec::new(),
        };
        let residual = self.get(entry.residual).await?;
        Some((entry, Opening { weights, momentum, residual }))
    }

    /// Blob of one vector, and the shards of the merge before.
    pub(super) fn vector(&self, epoch: Epoch, vector: Vector) -> Option<(Hash, u16)> {
        let entry = self.find(epoch)?;
        let hash = match vector {
            Vector::Weights => entry.weights,
            Vector::Momentum => entry.momentum?,
        };
        Some((hash, entry.shards))
    }

    /// Numbers `range` of a kept vector, little-endian. The whole vector is checked, no more than the range is kept.
    pub(super) async fn slice(&self, hash: Hash, range: Range<usize>) -> Option<Bytes> {
        let wanted = range.start * size_of::<f32>()..range.end * size_of::<f32>();
        let read = async {
            let (mut reader, mut at) = (self.blobs.open(hash).await?, 0);
            let mut out = BytesMut::with_capacity(wanted.len());
            while let Some(chunk) = reader.next().await? {
                let end = at + chunk.len();
                let (from, to) = (wanted.start.clamp(at, end), wanted.end.clamp(at, end));
                out.extend_from_slice(&chunk[from - at..to - at]);
                at = end;
            }
            Ok::<_, BlobError>(out.freeze())
        };
        let bytes =
            read.await.inspect_err(|error| tracing::warn!(%error, "a kept state is of no use")).ok()?;
        (!bytes.is_empty() && bytes.len() == wanted.len()).then_some(bytes)
    }

    async fn get(&self, hash: Hash) -> Option<Vec<f32>> {
        let bytes = self.blobs.get(hash).await;
        let bytes = bytes.inspect_err(|error| tracing::warn!(%error, "a kept state is of no use")).ok()?;
        Some(bytes.as_chunks().0.iter().map(|chunk| f32::from_le_bytes(*chunk)).collect())
    }

    pub(super) async fn forget(&self, before: Epoch) {
        let keep = |entry: &Entry| entry.epoch >= before && entry.stage == self.stage;
        let entries = self.entries();
        let kept: Vec<Hash> = entries.iter().filter(|entry| keep(entry)).flat_map(Entry::blobs).collect();
        let gone: Vec<Hash> =
            entries.iter().flat_map(Entry::blobs).filter(|hash| !kept.contains(hash)).collect();
        self.replace(|entries| entries.retain(keep)).await;
        for hash in gone {
            if let Err(error) = self.blobs.delete(hash).await {
                tracing::warn!(%error, "an old state stays on disk");
            }
        }
    }

    async fn replace(&self, change: impl FnOnce(&mut Vec<Entry>)) {
        let _writing = self.writing.lock().await;
        let bytes = {
            let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
            change(&mut entries);
            wire::to_bytes(&*entries)
        };
        let half = self.path.with_extension("new");
        let written = async {
            tokio::fs::write(&half, bytes).await?;
            tokio::fs::rename(&half, &self.path).await
        };
        if let Err(error) = written.await {
            tracing::warn!(%error, path = %self.path.display(), "the index of kept states was not written");
        }
    }
}
