//! The tokens of micro-batches: derived from the run spec's data, whose shards are fetched once and kept on disk.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use model::data::{DataError, Dataset, Order};
use model::hash::BlobHash;
use net::Link;
use store::{BlobError, Blobs};
use wire::{Hash, NodeId, RunId};

use crate::fetch::{FetchError, fetch_blob};
use crate::limits;
use crate::spec::RunSpec;

/// Why tokens are not there.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TokensError {
    /// The spec's data makes no micro-batches, or a shard is not what the spec lists.
    #[error(transparent)]
    Data(#[from] DataError),
    /// A shard could not be fetched.
    #[error("data shard {hash} could not be fetched: {source}")]
    Fetch {
        /// Shard.
        hash: Hash,
        /// Why.
        source: Box<FetchError>,
    },
    /// The node's own store failed.
    #[error(transparent)]
    Store(#[from] BlobError),
    /// Reading was broken off: the node stops.
    #[error("reading tokens was broken off")]
    Stopped,
}

impl TokensError {
    /// Trying again is of no use until somebody has done what the words say.
    pub fn is_for_hands(&self) -> bool {
        matches!(self, Self::Store(error) if error.is_for_hands())
    }
}

/// Tokens of one micro-batch.
#[derive(Clone, Debug)]
pub struct Tokens {
    /// `[batch, sequence + 1]`.
    pub tokens: Arc<Vec<u32>>,
    /// Hash of them, which frames carry.
    pub hash: Hash,
}

/// Shards on their way from the store into the data set.
type Loaded = Arc<Mutex<Vec<(BlobHash, Bytes)>>>;

/// Derives tokens; shared by whoever needs them.
pub struct TokenSource {
    dataset: Dataset,
    order: Order,
    loaded: Loaded,
    blobs: Arc<dyn Blobs>,
    link: Arc<dyn Link>,
    run: RunId,
    /// Who has the shards.
    origin: NodeId,
    recent: Mutex<VecDeque<(u64, Tokens)>>,
    /// One shard is fetched at a time.
    fetching: tokio::sync::Mutex<()>,
}

impl TokenSource {
    /// Over the data of a run; `origin` serves shards, `blobs` keeps them.
    pub fn new(
        spec: &RunSpec,
        blobs: Arc<dyn Blobs>,
        link: Arc<dyn Link>,
        run: RunId,
        origin: NodeId,
    ) -> Result<Self, TokensError> {
        let loaded: Loaded = Arc::default();
        let shelf = Arc::clone(&loaded);
        let dataset = Dataset::new(spec.manifest(), move |hash| {
            let mut shelf = shelf.lock().unwrap_or_else(PoisonError::into_inner);
            let at = shelf.iter().position(|(known, _)| *known == hash);
            at.map(|at| shelf.swap_remove(at).1.to_vec()).ok_or_else(|| std::io::ErrorKind::NotFound.into())
        })?;
        Ok(Self {
            dataset,
            order: spec.order(),
            loaded,
            blobs,
            link,
            run,
            origin,
            recent: Mutex::default(),
            fetching: tokio::sync::Mutex::default(),
        })
    }

    /// Tokens of a micro-batch; fetches the shards that are not here yet.
    pub async fn micro_batch(self: &Arc<Self>, index: u64) -> Result<Tokens, TokensError> {
        if let Some(tokens) = self.recall(index) {
            return Ok(tokens);
        }
        self.load(|dataset| dataset.missing_for(&self.order, index)).await?;
        let source = Arc::clone(self);
        let read = tokio::task::spawn_blocking(move || source.dataset.micro_batch(&source.order, index));
        let batch = read.await.map_err(|_| TokensError::Stopped)??;
        let tokens = Tokens { tokens: Arc::new(batch.tokens), hash: Hash(batch.hash.0) };
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        recent.push_front((index, tokens.clone()));
        recent.truncate(limits::TOKENS_KEPT);
        Ok(tokens)
    }

    /// Batches of held-out data.
    pub fn held_out_batches(&self) -> u64 {
        self.dataset.held_out_batches(self.order.batch, self.order.sequence)
    }

    /// Tokens of held-out batch `index`; fetches the shards that are not here yet.
    pub async fn held_out(self: &Arc<Self>, index: u64) -> Result<Tokens, TokensError> {
        let Order { batch, sequence, .. } = self.order;
        self.load(|dataset| dataset.missing_for_held_out(index, batch, sequence)).await?;
        let source = Arc::clone(self);
        let read = tokio::task::spawn_blocking(move || source.dataset.held_out_batch(index, batch, sequence));
        let batch = read.await.map_err(|_| TokensError::Stopped)??;
        Ok(Tokens { tokens: Arc::new(batch.tokens), hash: Hash(batch.hash.0) })
    }

    fn recall(&self, index: u64) -> Option<Tokens> {
        let recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        recent.iter().find(|(known, _)| *known == index).map(|(_, tokens)| tokens.clone())
    }

    async fn load(
        &self,
        missing: impl Fn(&Dataset) -> Result<Vec<BlobHash>, DataError>,
    ) -> Result<(), TokensError> {
        if missing(&self.dataset)?.is_empty() {
            return Ok(());
        }
        let _one = self.fetching.lock().await;
        for shard in missing(&self.dataset)? {
            let hash = Hash(shard.0);
            let bytes = match self.blobs.get(hash).await {
                Ok(bytes) => bytes,
                Err(BlobError::Missing(_) | BlobError::Corrupt { .. }) => self.fetch(hash).await?,
                Err(error) => return Err(error.into()),
            };
            let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
            if loaded.iter().all(|(known, _)| *known != shard) {
                loaded.push((shard, bytes));
            }
        }
        Ok(())
    }

    async fn fetch(&self, hash: Hash) -> Result<Bytes, TokensError> {
        let bytes = fetch_blob(self.link.as_ref(), self.run, [self.origin], hash, limits::FETCH_BYTES)
            .await
            .map_err(|source| TokensError::Fetch { hash, source: Box::new(source) })?;
        self.blobs.delete(hash).await?;
        self.blobs.put_at(hash, bytes.clone()).await?;
        Ok(bytes)
    }
}

impl std::fmt::Debug for TokenSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TokenSource").field("run", &self.run).finish_non_exhaustive()
    }
}
