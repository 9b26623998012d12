//! Carries out what the merge machine asks for: arithmetic on vectors, fetches, verification.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use codec::DType;
use model::config::StageSpec;
use net::{Link, Message, Refusal};
use rayon::ThreadPool;
use rayon::prelude::*;
use swarm::miner::merger::{Apply, Event, Fetched, Residual, Shard, Summand, Want};
use swarm::miner::reduce::{self, BLOCK, Dither};
use swarm::record::ShardClaim;
use swarm::spec::{MergeWire, Outer};
use tokio::sync::Semaphore;
use wire::{Epoch, Hash, NodeId, RunId, merkle};

use super::shelf::{Opening, OwnUpload, Shelf};
use crate::fetch::{self, FetchError, fetch_within};
use crate::keeper;
use crate::limits;
use crate::packed::{self, Meter};
use crate::rpc::{Span, What};
use crate::spec::{CodecSpec, TensorCodec};

/// Numbers that one task takes at a time: a multiple of a block.
const PART: usize = 64 * BLOCK;

/// Everything that merges of one stage need; shared by their tasks.
pub(super) struct Merging {
    pub(super) shelf: Shelf,
    pub(super) link: Arc<dyn Link>,
    pub(super) run: RunId,
    pub(super) pool: Arc<ThreadPool>,
    pub(super) wire: MergeWire,
    pub(super) outer: Outer,
    /// Deadline of one fetch.
    pub(super) patience: Duration,
    /// Fetches at a time.
    pub(super) lanes: Semaphore,
    /// How its vectors travel.
    pub(super) codec: CodecSpec,
    /// Bytes of merges, sent and received.
    pub(super) meter: Arc<Meter>,
}

impl Merging {
    /// Answers with a piece of what lies on the shelf, encoded as the run says.
    pub(super) async fn serve(&self, what: What, span: Span) -> Result<Message, Refusal> {
        let whole = self.shelf.answer(what).await?;
        let piece = span.of(&whole)?;
        let full = piece.len();
        let narrow = if self.wire == MergeWire::Bf16 { DType::Bf16 } else { DType::F32 };
        let (codec, dtype) = match what {
            What::Blob(_) | What::Predictor { .. } | What::UploadLeaves { .. } => {
                (TensorCodec::Raw, DType::U8)
            }
            What::Upload { .. } | What::Result { .. } => (self.codec.pseudo_gradients, narrow),
            What::Weights { .. } | What::Momentum { .. } => (self.codec.weights, DType::F32),
        };
        let (speed, total) = (self.link.speed(None), whole.len() as u64);
        let answer = packed::answer(&self.meter, codec, speed, dtype, total, piece).await;
        self.meter.merge(answer.payload.len(), full);
        Ok(answer)
    }

    fn count(&self, fetched: &fetch::Fetched) {
        self.meter.merge(fetched.wire, fetched.bytes.len());
        self.meter.codec_time(fetched.decoding);
    }

    /// Encodes the upload of an epoch.
    pub(super) fn make_upload(&self, epoch: Epoch, opening: &Opening, trained: &[f32]) -> Option<Event> {
        let width = self.wire.width();
        let mut bytes = vec![0; trained.len() * width];
        let mut residual = vec![0.0; trained.len()];
        let encoded = self.pool.install(|| {
            bytes
                .par_chunks_mut(PART * width)
                .zip(residual.par_chunks_mut(PART))
                .zip(opening.weights.par_chunks(PART))
                .zip(trained.par_chunks(PART))
                .zip(opening.residual.par_chunks(PART))
                .try_for_each(|((((bytes, next), opened), trained), residual)| {
                    reduce::encode_upload(self.wire, opened, trained, residual, bytes, next)
                })
        });
        if let Err(error) = encoded {
            tracing::warn!(%error, %epoch, "this epoch's training diverged; nothing is uploaded");
            return None;
        }
        let leaves = self.leaves(0, width, &bytes);
        let root = |values: &[f32]| merkle::root(&self.leaves(0, 4, reduce::bytes_of(values)));
        let event = Event::UploadMade {
            epoch,
            base: root(&opening.weights),
            upload: merkle::root(&leaves),
            residual: root(&residual),
        };
        self.shelf.put_own(epoch, OwnUpload { bytes: bytes.into(), leaves: Arc::new(leaves), residual });
        Some(event)
    }

    /// Leaf hashes of a run of whole leaves, in parallel.
    fn leaves(&self, first: usize, width: usize, bytes: &[u8]) -> Vec<Hash> {
        let elements = self.shelf.elements;
        let part = merkle::leaf_elements(elements) * LEAVES_PER_TASK;
        if bytes.len() <= part * width {
            return reduce::leaf_hashes(elements, first, width, bytes);
        }
        let parts = bytes.par_chunks(part * width).enumerate();
        let hashes: Vec<Vec<Hash>> = self.pool.install(|| {
            parts.map(|(i, bytes)| reduce::leaf_hashes(elements, first + i * part, width, bytes)).collect()
        });
        hashes.concat()
    }

    fn state_of(&self, shard: &Shard, weights: &[f32], momentum: &[f32]) -> Hash {
        let weights = self.leaves(shard.start, 4, reduce::bytes_of(weights));
        let momentum = if momentum.is_empty() {
            Vec::new()
        } else {
            self.leaves(shard.start, 4, reduce::bytes_of(momentum))
        };
        reduce::state_hash(&weights, &momentum)
    }

    /// Reduces a shard and computes its claim. None if something that was held is gone.
    pub(super) fn reduce(
        &self,
        epoch: Epoch,
        shard: &Shard,
        summands: &[Summand],
        seed: &Hash,
        opening: &Opening,
        own: Option<&[f32]>,
    ) -> Option<Event> {
        let width = self.wire.width();
        let result = if let Some(trained) = own {
            reduce::bytes_of(trained.get(shard.range())?).to_vec()
        } else {
            let uploads: Option<Vec<(f32, Bytes)>> = summands
                .iter()
                .map(|summand| Some((summand.weight, self.shelf.upload(epoch, shard, summand.node)?)))
                .collect();
            let uploads = uploads?;
            let dither = Dither::new(seed, shard.index);
            let mut out = vec![0; shard.range().len() * width];
            self.pool.install(|| {
                out.par_chunks_mut(PART * width).enumerate().for_each(|(i, out)| {
                    let at = i * PART * width;
                    let slices: Vec<(f32, &[u8])> =
                        uploads.iter().map(|(weight, bytes)| (*weight, &bytes[at..at + out.len()])).collect();
                    reduce::reduce(self.wire, &slices, dither, shard.start + i * PART, out);
                });
            });
            out
        };
        let (mut weights, mut momentum) = (opening.weights.get(shard.range())?.to_vec(), Vec::new());
        if !opening.momentum.is_empty() {
            momentum = opening.momentum.get(shard.range())?.to_vec();
        }
        self.outer(epoch, &result, own.is_some(), &mut weights, &mut momentum);
        let claim = ShardClaim {
            shard: shard.index,
            result: Hash::of(&result),
            state: self.state_of(shard, &weights, &momentum),
        };
        self.shelf.put_result(epoch, shard.index, claim.result, result.into());
        Some(Event::Reduced { epoch, claim })
    }

    /// Takes the outer step that ends `epoch` on a range, or the result as it is.
    fn outer(&self, epoch: Epoch, result: &[u8], own: bool, weights: &mut [f32], momentum: &mut [f32]) {
        if own {
            reduce::decode(MergeWire::F32, result, weights);
            return;
        }
        let (wire, outer, width) = (self.wire, self.outer, self.wire.width());
        let results = result.par_chunks(PART * width);
        self.pool.install(|| {
            if momentum.is_empty() {
                results.zip(weights.par_chunks_mut(PART)).for_each(|(result, weights)| {
                    reduce::outer_step(wire, outer, epoch, result, weights, &mut []);
                });
            } else {
                results.zip(weights.par_chunks_mut(PART)).zip(momentum.par_chunks_mut(PART)).for_each(
                    |((result, weights), momentum)| {
                        reduce::outer_step(wire, outer, epoch, result, weights, momentum);
                    },
                );
            }
        });
    }

    /// Applies the outcome of a merge to what the epoch opened with. None if a result is gone.
    pub(super) fn apply(
        &self,
        epoch: Epoch,
        opening: &Opening,
        shards: &[(Shard, Apply)],
        residual: Residual,
        report: &[Shard],
    ) -> Option<(Opening, Vec<Hash>)> {
        let own = self.shelf.own(epoch);
        let mut next = Opening {
            weights: opening.weights.clone(),
            momentum: opening.momentum.clone(),
            residual: match residual {
                Residual::Stays => opening.residual.clone(),
                Residual::Uploaded => own.as_ref()?.residual.clone(),
                Residual::Lost => vec![0.0; opening.residual.len()],
            },
        };
        for (shard, apply) in shards {
            let (hash, taken, carry) = match apply {
                Apply::Result { hash, carry } => (Some(*hash), false, *carry),
                Apply::Own(hash) => (Some(*hash), true, false),
                Apply::Keep { carry } => (None, false, *carry),
            };
            if carry {
                let width = self.wire.width();
                let bytes = own.as_ref()?.bytes.slice(shard.start * width..shard.end * width);
                reduce::carry(self.wire, &bytes, next.residual.get_mut(shard.range())?);
            }
            let Some(hash) = hash else { continue };
            let result = self.shelf.result(epoch, shard.index, hash)?;
            let weights = next.weights.get_mut(shard.range())?;
            let momentum: &mut [f32] =
                if next.momentum.is_empty() { &mut [] } else { next.momentum.get_mut(shard.range())? };
            self.outer(epoch, &result, taken, weights, momentum);
        }
        let states = self.states(&next, report)?;
        Some((next, states))
    }

    /// State hashes of some shards.
    pub(super) fn states(&self, opening: &Opening, shards: &[Shard]) -> Option<Vec<Hash>> {
        let hash = |shard: &Shard| {
            let weights = opening.weights.get(shard.range())?;
            let momentum =
                if opening.momentum.is_empty() { &[] } else { opening.momentum.get(shard.range())? };
            Some(self.state_of(shard, weights, momentum))
        };
        shards.iter().map(hash).collect()
    }

    /// The opening state of epoch 0.
    pub(super) fn initial(&self, weights: Vec<f32>) -> Option<(Opening, Vec<Hash>)> {
        let zeros = |wanted: bool| vec![0.0; if wanted { weights.len() } else { 0 }];
        let opening =
            Opening { momentum: zeros(reduce::has_momentum(self.outer)), residual: zeros(true), weights };
        let whole = Shard { index: 0, start: 0, end: self.shelf.elements };
        let states = self.states(&opening, &[whole])?;
        Some((opening, states))
    }

    /// Puts fetched parts together; the residual is what this node had, if it had one.
    pub(super) fn adopt(
        &self,
        epoch: Epoch,
        parts: &[(Shard, Hash)],
        residual: Option<Vec<f32>>,
    ) -> Option<Opening> {
        let mut opening = Opening { weights: Vec::new(), momentum: Vec::new(), residual: Vec::new() };
        let read = |bytes: &Bytes, out: &mut Vec<f32>| {
            out.extend(bytes.as_chunks().0.iter().map(|chunk| f32::from_le_bytes(*chunk)));
        };
        for (shard, _) in parts {
            let (weights, momentum) = self.shelf.take_part(epoch, shard.index)?;
            read(&weights, &mut opening.weights);
            read(&momentum, &mut opening.momentum);
        }
        let elements = self.shelf.elements;
        opening.residual = residual.filter(|r| r.len() == elements).unwrap_or_else(|| vec![0.0; elements]);
        (opening.weights.len() == elements).then_some(opening)
    }

    /// Looks for parts of a state on disk, under this epoch or the one before; keeps those it finds.
    pub(super) async fn restore(&self, epoch: Epoch, parts: &[(Shard, Hash)]) -> Vec<u16> {
        let mut missing: Vec<(Shard, Hash)> = parts.to_vec();
        for candidate in [Some(epoch), epoch.0.checked_sub(1).map(Epoch)].into_iter().flatten() {
            let Some(opening) = self.shelf.opening(candidate).await else { continue };
            missing.retain(|(shard, hash)| {
                let states = self.states(&opening, std::slice::from_ref(shard));
                if states.as_deref() != Some(&[*hash]) {
                    return true;
                }
                let bytes = |values: &[f32]| {
                    let values = values.get(shard.range()).unwrap_or(&[]);
                    Bytes::copy_from_slice(reduce::bytes_of(values))
                };
                self.shelf.put_part(epoch, shard.index, bytes(&opening.weights), bytes(&opening.momentum));
                false
            });
        }
        missing.into_iter().map(|(shard, _)| shard.index).collect()
    }

    /// Fetches, verifies, keeps.
    pub(super) async fn fetch(self: &Arc<Self>, want: &Want, from: NodeId) -> Fetched {
        let Ok(_lane) = self.lanes.acquire().await else { return Fetched::Failed };
        let outcome = match want {
            Want::Upload { epoch, shard, of, root } => {
                self.fetch_upload(*epoch, *shard, *of, *root, from).await
            }
            Want::Result { epoch, shard, hash } => self.fetch_result(*epoch, *shard, *hash, from).await,
            Want::Part { epoch, shard, state } => {
                let now = self.fetch_part(*epoch, *epoch, *shard, *state, from).await;
                match (now, epoch.0.checked_sub(1)) {
                    (Err(error), Some(before)) if error.not_here() => {
                        self.fetch_part(*epoch, Epoch(before), *shard, *state, from).await
                    }
                    (now, _) => now,
                }
            }
        };
        outcome.unwrap_or_else(|error| {
            tracing::debug!(%error, ?want, "not fetched");
            if error.not_here() { Fetched::NotYet } else { Fetched::Failed }
        })
    }

    async fn get(&self, what: What, from: NodeId, len: usize) -> Result<Bytes, FetchError> {
        let len = len as u64;
        let fetched = fetch_within(self.link.as_ref(), self.run, from, what, len, self.patience).await?;
        self.count(&fetched);
        let bytes = fetched.bytes;
        if bytes.len() as u64 != len {
            let reason = format!("{} bytes where {len} belong", bytes.len());
            return Err(FetchError::Wrong { peer: from, reason });
        }
        Ok(bytes)
    }

    async fn fetch_upload(
        self: &Arc<Self>,
        epoch: Epoch,
        shard: Shard,
        of: NodeId,
        root: Hash,
        from: NodeId,
    ) -> Result<Fetched, FetchError> {
        let wrong = |reason: &str| FetchError::Wrong { peer: from, reason: reason.to_owned() };
        let (stage, elements, width) = (self.shelf.stage, self.shelf.elements, self.shelf.width);
        let own = of == self.shelf.node;
        let bytes = if own {
            self.shelf.upload(epoch, &shard, of).ok_or(FetchError::Nobody)?
        } else {
            let what = What::Upload { epoch, stage, shard: shard.index, of };
            let leaves = self.shelf.leaves(epoch, of);
            let listed = leaves.get_or_try_init(|| async {
                let len = merkle::leaf_count(elements) * size_of::<Hash>();
                let bytes = self.get(What::UploadLeaves { epoch, stage, of }, from, len).await?;
                let leaves: Vec<Hash> = bytes.as_chunks().0.iter().map(|chunk| Hash(*chunk)).collect();
                if merkle::root(&leaves) != root {
                    return Err(wrong("leaf hashes that are not those of the commitment"));
                }
                Ok(Arc::new(leaves))
            });
            // Side by side: the leaves come once for all shards.
            let (bytes, listed) = tokio::join!(self.get(what, from, shard.range().len() * width), listed);
            let (bytes, listed) = (bytes?, Arc::clone(listed?));
            let (this, found) = (Arc::clone(self), bytes.clone());
            let matches = tokio::task::spawn_blocking(move || {
                let first = shard.start / merkle::leaf_elements(elements);
                let leaves = this.leaves(shard.start, this.shelf.width, &found);
                listed.get(first..first + leaves.len()) == Some(&leaves[..])
            });
            if !matches.await.unwrap_or(false) {
                return Err(wrong("an upload that is not the one committed to"));
            }
            bytes
        };
        let (wire, summed) = (self.wire, bytes.clone());
        let sum = tokio::task::spawn_blocking(move || reduce::square_sum(wire, &summed)).await;
        let Ok(Ok(square_sum)) = sum else { return Err(wrong("an upload with numbers that are not finite")) };
        if !own {
            self.shelf.put_upload(epoch, shard.index, of, bytes);
        }
        Ok(Fetched::Held { square_sum })
    }

    async fn fetch_result(
        self: &Arc<Self>,
        epoch: Epoch,
        shard: Shard,
        hash: Hash,
        from: NodeId,
    ) -> Result<Fetched, FetchError> {
        let what = What::Result { epoch, stage: self.shelf.stage, shard: shard.index };
        // A single uploader's own weights travel as f32, longer than the encoded mean.
        let most = shard.range().len() as u64 * 4;
        let fetched = fetch_within(self.link.as_ref(), self.run, from, what, most, self.patience).await?;
        self.count(&fetched);
        let bytes = fetched.bytes;
        let hashed = bytes.clone();
        let found = tokio::task::spawn_blocking(move || Hash::of(&hashed)).await.unwrap_or(Hash([0; 32]));
        if found != hash {
            return Err(FetchError::Mismatch { peer: from, expected: hash, found });
        }
        let count = shard.range().len();
        if bytes.len() != count * self.shelf.width && bytes.len() != count * 4 {
            return Err(FetchError::Wrong {
                peer: from,
                reason: format!("a result of {} bytes", bytes.len()),
            });
        }
        self.shelf.settle_result(epoch, shard.index, hash, bytes);
        Ok(Fetched::Held { square_sum: 0.0 })
    }

    async fn fetch_part(
        self: &Arc<Self>,
        epoch: Epoch,
        served: Epoch,
        shard: Shard,
        state: Hash,
        from: NodeId,
    ) -> Result<Fetched, FetchError> {
        let (stage, len) = (self.shelf.stage, shard.range().len() * 4);
        let weights = self.get(What::Weights { epoch: served, stage, shard: shard.index }, from, len).await?;
        let momentum = if reduce::has_momentum(self.outer) {
            self.get(What::Momentum { epoch: served, stage, shard: shard.index }, from, len).await?
        } else {
            Bytes::new()
        };
        let (elements, both) = (self.shelf.elements, (weights.clone(), momentum.clone()));
        let hashed =
            tokio::task::spawn_blocking(move || keeper::state_of(elements, shard.start, &both.0, &both.1));
        let found = hashed.await.unwrap_or(Hash([0; 32]));
        if found != state {
            return Err(FetchError::Mismatch { peer: from, expected: state, found });
        }
        self.shelf.put_part(epoch, shard.index, weights, momentum);
        Ok(Fetched::Held { square_sum: 0.0 })
    }
}

/// Leaves that one task hashes.
const LEAVES_PER_TASK: usize = 64;

/// Initial weights of a stage: drawn from the seed, or read from the blob that the spec names.
pub(super) async fn initial_weights(
    stage: StageSpec,
    given: Option<Hash>,
    link: &dyn Link,
    run: RunId,
    origin: NodeId,
) -> Result<Vec<f32>, FetchError> {
    let Some(hash) = given else {
        let drawn = tokio::task::spawn_blocking(move || stage.initial_weights()).await;
        return drawn.map_err(|_| FetchError::Nobody);
    };
    let bytes = crate::fetch::fetch_blob(link, run, [origin], hash, limits::FETCH_BYTES).await?;
    Ok(bytes.as_chunks().0.iter().map(|chunk| f32::from_le_bytes(*chunk)).collect())
}
