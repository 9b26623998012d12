//! Vectors of merges: opening states, uploads, results; what is served to peers, and what lies on disk.

mod disk;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use net::Refusal;
use store::{BlobError, Blobs};
use swarm::miner::merger::Shard;
use swarm::miner::reduce;
use swarm::shard::Partition;
use tokio::sync::OnceCell;
use wire::{Epoch, Hash, NodeId, StageIndex};

use crate::rpc::{What, code};
use disk::Index;

/// Weights, outer momentum and residual with which an epoch opens. Momentum is empty if the outer optimiser has none.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Opening {
    pub(super) weights: Vec<f32>,
    pub(super) momentum: Vec<f32>,
    pub(super) residual: Vec<f32>,
}

/// A vector of an opening state that peers may ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Vector {
    Weights,
    Momentum,
}

impl Vector {
    fn of(self, opening: &Opening) -> &[f32] {
        match self {
            Self::Weights => &opening.weights,
            Self::Momentum => &opening.momentum,
        }
    }
}

/// This node's own upload.
#[derive(Debug)]
pub(super) struct OwnUpload {
    pub(super) bytes: Bytes,
    pub(super) leaves: Arc<Vec<Hash>>,
    /// What the next merge adds if this one counts the upload.
    pub(super) residual: Vec<f32>,
}

/// An opening state and the cut in which its parts are served.
#[derive(Debug)]
struct Shelved {
    partition: Partition,
    /// Gone from memory once it is on disk and training goes on.
    opening: Option<Arc<Opening>>,
}

/// Leaf hashes of somebody's upload, fetched once.
pub(super) type Leaves = Arc<OnceCell<Arc<Vec<Hash>>>>;

#[derive(Debug, Default)]
struct Shelves {
    openings: BTreeMap<Epoch, Shelved>,
    own: BTreeMap<Epoch, Arc<OwnUpload>>,
    /// Merges whose uploads may be served, and their cut.
    serving: BTreeMap<Epoch, Partition>,
    uploads: BTreeMap<(Epoch, u16, NodeId), Bytes>,
    leaves: BTreeMap<(Epoch, NodeId), Leaves>,
    results: BTreeMap<(Epoch, u16, Hash), Bytes>,
    parts: BTreeMap<(Epoch, u16), (Bytes, Bytes)>,
}

/// All shelves of one miner, for the stage it has.
pub(super) struct Shelf {
    pub(super) node: NodeId,
    pub(super) stage: StageIndex,
    pub(super) elements: usize,
    /// Bytes per number of uploads and results.
    pub(super) width: usize,
    shelves: Mutex<Shelves>,
    index: Index,
}

impl Shelf {
    pub(super) fn new(
        node: NodeId,
        stage: StageIndex,
        elements: usize,
        width: usize,
        blobs: Arc<dyn Blobs>,
        folder: &std::path::Path,
    ) -> Self {
        let index = Index::open(folder, stage, blobs);
        Self { node, stage, elements, width, shelves: Mutex::default(), index }
    }

    fn lock(&self) -> MutexGuard<'_, Shelves> {
        self.shelves.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps an opening state in memory.
    pub(super) fn open(&self, epoch: Epoch, shards: u16, opening: Arc<Opening>) {
        let partition = Partition::new(self.elements as u64, shards);
        self.lock().openings.insert(epoch, Shelved { partition, opening: Some(opening) });
    }

    /// Writes an opening state to disk.
    pub(super) async fn save(&self, epoch: Epoch, shards: u16, opening: &Opening) -> Result<(), BlobError> {
        self.index.save(epoch, shards, opening).await
    }

    /// Lets go of the opening states of other epochs that are on disk: from there they can still be served.
    pub(super) fn let_go_before(&self, epoch: Epoch) {
        for (other, shelved) in self.lock().openings.range_mut(..epoch) {
            if self.index.has(*other) {
                shelved.opening = None;
            }
        }
    }

    /// Training goes on: lets go of opening states that are on disk, and of what only a merge needs.
    pub(super) fn rest(&self) {
        let mut shelves = self.lock();
        let Shelves { own, serving, uploads, leaves, results, parts, .. } = &mut *shelves;
        own.clear();
        serving.clear();
        uploads.clear();
        leaves.clear();
        results.clear();
        parts.clear();
        for (epoch, shelved) in &mut shelves.openings {
            if self.index.has(*epoch) {
                shelved.opening = None;
            }
        }
    }

    /// An opening state, from memory or from disk; it stays in memory until training goes on.
    pub(super) async fn opening(&self, epoch: Epoch) -> Option<Arc<Opening>> {
        if let Some(opening) = self.lock().openings.get(&epoch).and_then(|shelved| shelved.opening.clone()) {
            return Some(opening);
        }
        let (entry, opening) = self.index.load(epoch).await?;
        if opening.weights.len() != self.elements || opening.residual.len() != self.elements {
            return None;
        }
        let opening = Arc::new(opening);
        self.open(epoch, entry.shards, Arc::clone(&opening));
        Some(opening)
    }

    pub(super) fn put_own(&self, epoch: Epoch, upload: OwnUpload) {
        self.lock().own.insert(epoch, Arc::new(upload));
    }

    pub(super) fn own(&self, epoch: Epoch) -> Option<Arc<OwnUpload>> {
        self.lock().own.get(&epoch).cloned()
    }

    pub(super) fn serve(&self, epoch: Epoch, partition: Partition) {
        self.lock().serving.insert(epoch, partition);
    }

    pub(super) fn put_upload(&self, epoch: Epoch, shard: u16, of: NodeId, bytes: Bytes) {
        self.lock().uploads.insert((epoch, shard, of), bytes);
    }

    /// Somebody's encoded upload of a shard, or this node's own.
    pub(super) fn upload(&self, epoch: Epoch, shard: &Shard, of: NodeId) -> Option<Bytes> {
        let shelves = self.lock();
        if of == self.node {
            let own = shelves.own.get(&epoch)?;
            return Some(own.bytes.slice(shard.start * self.width..shard.end * self.width));
        }
        shelves.uploads.get(&(epoch, shard.index, of)).cloned()
    }

    pub(super) fn leaves(&self, epoch: Epoch, of: NodeId) -> Leaves {
        Arc::clone(self.lock().leaves.entry((epoch, of)).or_default())
    }

    pub(super) fn put_result(&self, epoch: Epoch, shard: u16, hash: Hash, bytes: Bytes) {
        self.lock().results.insert((epoch, shard, hash), bytes);
    }

    /// Keeps a result that the log settled on; own ones that differ are of no use.
    pub(super) fn settle_result(&self, epoch: Epoch, shard: u16, hash: Hash, bytes: Bytes) {
        let mut shelves = self.lock();
        shelves.results.retain(|(e, s, h), _| (*e, *s) != (epoch, shard) || *h == hash);
        shelves.results.insert((epoch, shard, hash), bytes);
    }

    pub(super) fn result(&self, epoch: Epoch, shard: u16, hash: Hash) -> Option<Bytes> {
        self.lock().results.get(&(epoch, shard, hash)).cloned()
    }

    pub(super) fn put_part(&self, epoch: Epoch, shard: u16, weights: Bytes, momentum: Bytes) {
        self.lock().parts.insert((epoch, shard), (weights, momentum));
    }

    pub(super) fn take_part(&self, epoch: Epoch, shard: u16) -> Option<(Bytes, Bytes)> {
        self.lock().parts.remove(&(epoch, shard))
    }

    /// Forgets everything before an epoch, on disk too.
    pub(super) async fn forget(&self, before: Epoch) {
        {
            let mut shelves = self.lock();
            shelves.openings.retain(|epoch, _| *epoch >= before);
            shelves.own.retain(|epoch, _| *epoch >= before);
            shelves.serving.retain(|epoch, _| *epoch >= before);
            shelves.uploads.retain(|(epoch, ..), _| *epoch > before);
            shelves.leaves.retain(|(epoch, _), _| *epoch >= before);
            shelves.results.retain(|(epoch, ..), _| *epoch >= before);
            shelves.parts.clear();
        }
        self.index.forget(before).await;
    }

    /// What a peer asks for, whole.
    pub(super) async fn answer(&self, what: What) -> Result<Bytes, Refusal> {
        let absent = || Refusal::new(code::NOT_HERE, "not here, or not yet");
        let stage = match what {
            What::Blob(_) | What::Predictor { .. } => return Err(absent()),
            What::UploadLeaves { stage, .. }
            | What::Upload { stage, .. }
            | What::Result { stage, .. }
            | What::Weights { stage, .. }
            | What::Momentum { stage, .. } => stage,
        };
        if stage != self.stage {
            return Err(absent());
        }
        match what {
            What::Blob(_) | What::Predictor { .. } => None,
            What::UploadLeaves { epoch, of, .. } => self.served_leaves(epoch, of),
            What::Upload { epoch, shard, of, .. } => self.served_upload(epoch, shard, of),
            What::Result { epoch, shard, .. } => self.served_result(epoch, shard),
            What::Weights { epoch, shard, .. } => self.served_part(epoch, shard, Vector::Weights).await,
            What::Momentum { epoch, shard, .. } => self.served_part(epoch, shard, Vector::Momentum).await,
        }
        .ok_or_else(absent)
    }

    fn served_leaves(&self, epoch: Epoch, of: NodeId) -> Option<Bytes> {
        let shelves = self.lock();
        shelves.serving.get(&epoch)?;
        let leaves = if of == self.node {
            Arc::clone(&shelves.own.get(&epoch)?.leaves)
        } else {
            Arc::clone(shelves.leaves.get(&(epoch, of))?.get()?)
        };
        Some(leaves.iter().flat_map(|hash| hash.0).collect::<Vec<u8>>().into())
    }

    fn served_upload(&self, epoch: Epoch, shard: u16, of: NodeId) -> Option<Bytes> {
        let range = self.lock().serving.get(&epoch)?.elements(shard);
        self.upload(epoch, &Shard { index: shard, start: range.start, end: range.end }, of)
    }

    fn served_result(&self, epoch: Epoch, shard: u16) -> Option<Bytes> {
        let shelves = self.lock();
        let any = (epoch, shard, Hash([0; 32]))..=(epoch, shard, Hash([255; 32]));
        shelves.results.range(any).next_back().map(|(_, bytes)| bytes.clone())
    }

    /// From memory if the state is there, else from disk, where it stays: whoever fetches costs this miner one part.
    async fn served_part(&self, epoch: Epoch, shard: u16, vector: Vector) -> Option<Bytes> {
        let in_memory = {
            let shelves = self.lock();
            let shelved = shelves.openings.get(&epoch);
            shelved.and_then(|shelved| Some((shelved.opening.clone()?, shelved.partition.elements(shard))))
        };
        if let Some((opening, range)) = in_memory {
            let values = vector.of(&opening).get(range)?;
            return (!values.is_empty()).then(|| Bytes::copy_from_slice(reduce::bytes_of(values)));
        }
        let (hash, shards) = self.index.vector(epoch, vector)?;
        let range = Partition::new(self.elements as u64, shards).elements(shard);
        self.index.slice(hash, range).await
    }
}

#[cfg(test)]
mod tests {
    use store::MemoryBlobs;

    use super::*;

    /// More than one chunk of a merge's cut.
    const ELEMENTS: usize = 1 << 17;
    const SHARDS: u16 = 2;

    #[tokio::test]
    async fn a_part_is_served_from_disk_without_loading_the_state() {
        let folder = tempfile::tempdir().unwrap();
        let blobs = Arc::new(MemoryBlobs::default());
        let shelf = Shelf::new(NodeId([1; 32]), StageIndex(0), ELEMENTS, 2, blobs, folder.path());
        let vector = |from: u32| (0..ELEMENTS as u32).map(|i| (from + i) as f32).collect::<Vec<f32>>();
        let (weights, momentum, residual) = (vector(0), vector(7), vector(9));
        let opening = Arc::new(Opening { weights, momentum, residual });
        shelf.open(Epoch(3), SHARDS, Arc::clone(&opening));
        let parts = async || {
            let mut parts = Vec::new();
            for shard in 0..=SHARDS {
                let (epoch, stage) = (Epoch(3), StageIndex(0));
                for what in [What::Weights { epoch, stage, shard }, What::Momentum { epoch, stage, shard }] {
                    parts.push(shelf.answer(what).await.ok());
                }
            }
            parts
        };
        let in_memory = parts().await;
        assert!(in_memory[..4].iter().all(Option::is_some) && in_memory[4..].iter().all(Option::is_none));
        shelf.save(Epoch(3), SHARDS, &opening).await.unwrap();
        shelf.rest();
        assert_eq!(parts().await, in_memory);
        assert_eq!(Arc::strong_count(&opening), 1, "nobody else holds the state");
        assert!(shelf.lock().openings[&Epoch(3)].opening.is_none());
    }
}
