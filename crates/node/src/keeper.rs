//! The keeper: fetches the merged state of every stage by its agreed hashes, keeps two epochs, serves late joiners.
//!
//! It believes nobody: a shard counts when its weights and momentum hash to what the log agreed on.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use bytes::Bytes;
use net::Link;
use serde::{Deserialize, Serialize};
use store::{BlobError, Blobs, LogError, LogStore};
use swarm::miner::reduce;
use swarm::record::{Control, Input};
use swarm::shard::Partition;
use swarm::state::{Phase, State};
use tokio::sync::{oneshot, watch};
use tokio_util::sync::CancellationToken;
use wire::{Epoch, Hash, NodeId, RunId, StageIndex};

use crate::fetch::{self, FetchError};
use crate::limits;
use crate::orchestrator::shared::{Inputs, Pending};
use crate::rpc::What;

/// Why the keeper could not keep a state.
#[derive(Debug, thiserror::Error)]
pub enum KeepError {
    /// A peer did not give it.
    #[error("stage {stage}, shard {shard}: {source}")]
    Fetch {
        /// Stage.
        stage: StageIndex,
        /// Shard.
        shard: u16,
        /// The last peer's error.
        source: FetchError,
    },
    /// A peer gave other bytes than agreed.
    #[error("stage {stage}, shard {shard}: what node {} serves is not the agreed state", peer.short())]
    Unequal {
        /// Stage.
        stage: StageIndex,
        /// Shard.
        shard: u16,
        /// Who served it.
        peer: NodeId,
    },
    /// The blob store failed.
    #[error(transparent)]
    Blob(#[from] BlobError),
    /// The durable state failed.
    #[error(transparent)]
    Store(#[from] LogError),
}

/// The state of one stage at the opening of one epoch, as blobs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptStage {
    /// Length of the flat vector.
    pub elements: u64,
    /// State hash per shard of the merge before.
    pub states: Vec<Hash>,
    /// Flat weights, little-endian f32.
    pub weights: Hash,
    /// Flat outer momentum, if the outer optimiser has one.
    pub momentum: Option<Hash>,
}

impl KeptStage {
    fn range(&self, shard: u16) -> Option<Range<usize>> {
        let partition = Partition::new(self.elements, self.states.len() as u16);
        let range = partition.elements(shard);
        (!range.is_empty()).then_some(range.start * 4..range.end * 4)
    }
}

/// What is kept: an index over blobs, shared with whoever serves it.
#[derive(Debug, Default)]
pub struct Kept {
    stages: RwLock<BTreeMap<StageIndex, BTreeMap<Epoch, KeptStage>>>,
}

impl Kept {
    /// Reads the index that an earlier life of the orchestrator left.
    pub async fn load(store: &dyn LogStore, stages: usize) -> Result<Self, LogError> {
        let mut all = BTreeMap::new();
        for stage in (0..stages).map(|stage| StageIndex(stage as u16)) {
            let Some(bytes) = store.get(&key(stage)).await? else { continue };
            let kept = wire::from_bytes(&bytes).map_err(|error| LogError::Corrupt {
                place: format!("the log's entry {}", key(stage)),
                reason: error.to_string(),
            })?;
            all.insert(stage, kept);
        }
        Ok(Self { stages: RwLock::new(all) })
    }

    /// One stage at the opening of one epoch.
    pub fn get(&self, epoch: Epoch, stage: StageIndex) -> Option<KeptStage> {
        let stages = self.stages.read().unwrap_or_else(PoisonError::into_inner);
        stages.get(&stage)?.get(&epoch).cloned()
    }

    /// Newest epoch of which all of `stages` stages are kept, head first.
    pub fn newest(&self, stages: usize) -> Option<(Epoch, Vec<KeptStage>)> {
        let all = self.stages.read().unwrap_or_else(PoisonError::into_inner);
        let head = all.get(&StageIndex(0))?;
        head.keys().rev().find_map(|epoch| {
            let whole = (0..stages).map(|stage| all.get(&StageIndex(stage as u16))?.get(epoch).cloned());
            Some((*epoch, whole.collect::<Option<Vec<_>>>()?))
        })
    }

    /// Blob and byte range of the weights of a shard.
    pub(crate) fn weights(
        &self,
        epoch: Epoch,
        stage: StageIndex,
        shard: u16,
    ) -> Option<(Hash, Range<usize>)> {
        let kept = self.get(epoch, stage)?;
        Some((kept.weights, kept.range(shard)?))
    }

    /// Blob and byte range of the momentum of a shard.
    pub(crate) fn momentum(
        &self,
        epoch: Epoch,
        stage: StageIndex,
        shard: u16,
    ) -> Option<(Hash, Range<usize>)> {
        let kept = self.get(epoch, stage)?;
        Some((kept.momentum?, kept.range(shard)?))
    }

    fn same(&self, stage: StageIndex, states: &[Hash]) -> Option<KeptStage> {
        let stages = self.stages.read().unwrap_or_else(PoisonError::into_inner);
        stages.get(&stage)?.values().find(|kept| kept.states == states).cloned()
    }

    /// Adds an entry, keeps the newest two epochs of the stage; returns the stage's entries and the blobs that nothing
    /// names any more.
    fn insert(
        &self,
        epoch: Epoch,
        stage: StageIndex,
        kept: KeptStage,
    ) -> (BTreeMap<Epoch, KeptStage>, Vec<Hash>) {
        let mut stages = self.stages.write().unwrap_or_else(PoisonError::into_inner);
        let entries = stages.entry(stage).or_default();
        let mut gone: Vec<Hash> = entries.insert(epoch, kept).iter().flat_map(blobs_of).collect();
        while entries.len() > limits::KEPT_EPOCHS {
            let Some((_, old)) = entries.pop_first() else { break };
            gone.extend(blobs_of(&old));
        }
        let entries = entries.clone();
        let named: Vec<Hash> = stages.values().flat_map(BTreeMap::values).flat_map(blobs_of).collect();
        gone.retain(|hash| !named.contains(hash));
        (entries, gone)
    }
}

fn blobs_of(kept: &KeptStage) -> Vec<Hash> {
    [Some(kept.weights), kept.momentum].into_iter().flatten().collect()
}

fn key(stage: StageIndex) -> String {
    format!("kept/{stage}")
}

/// What is to be kept of one stage now, and who has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Epoch that opens with it.
    pub epoch: Epoch,
    /// State hash per shard.
    pub states: Vec<Hash>,
    /// Nodes that say they hold it.
    pub holders: Vec<NodeId>,
}

/// The newest agreed state of a stage that some node holds; none before the first merge.
pub fn target(state: &State, stage: StageIndex) -> Option<Target> {
    let known = state.stage(stage)?;
    let ready = |epoch: Epoch| {
        let states: Option<Vec<Hash>> = known.wanted.iter().copied().collect();
        let nodes =
            state.ready_nodes(stage).filter_map(|id| Some((id, &state.node(&id)?.ready.as_ref()?.states)));
        let nodes: Vec<(NodeId, &Vec<Hash>)> = nodes.collect();
        // A kept shard has no hash in the manifest: the first holder's is tried, and the log decides.
        let states = states.or_else(|| nodes.first().map(|(_, states)| (*states).clone()))?;
        let holders = nodes.iter().filter(|(_, theirs)| **theirs == states).map(|(id, _)| *id).collect();
        Some(Target { epoch, states, holders })
    };
    let agreed = |epoch: Epoch, holders: Vec<NodeId>| {
        (epoch > Epoch(0)).then_some(())?;
        Some(Target { epoch, states: known.agreed.clone()?, holders })
    };
    match state.phase() {
        Phase::Merging { epoch } => {
            state.merge(stage)?.manifest.as_ref()?;
            ready(epoch.next())
        }
        Phase::Gathering { epoch, .. } => {
            (epoch > Epoch(0)).then_some(())?;
            ready(epoch)
        }
        Phase::Training { epoch } => agreed(epoch, state.members(stage).map(|member| member.node).collect()),
        Phase::Finished { epochs } => {
            let present =
                state.nodes().iter().filter(|(_, node)| node.present_miner() && node.stage == Some(stage));
            agreed(Epoch(epochs), present.map(|(id, _)| *id).collect())
        }
    }
}

/// Fetches one stage's state, shard by shard, each checked against its agreed hash before it is written.
pub async fn keep_stage(
    link: &dyn Link,
    run: RunId,
    blobs: &dyn Blobs,
    state: &State,
    stage: StageIndex,
    target: &Target,
) -> Result<KeptStage, KeepError> {
    let elements = state.spec().stages.get(usize::from(stage.0)).map_or(0, |facts| facts.parameters);
    let momentum = reduce::has_momentum(state.spec().merge.outer);
    let partition = Partition::new(elements, target.states.len() as u16);
    let mut weights_out = blobs.create().await?;
    let mut momentum_out = blobs.create().await?;
    for (shard, agreed) in target.states.iter().enumerate() {
        let place = Place { stage, shard: shard as u16, epoch: target.epoch };
        let range = partition.elements(place.shard);
        let part =
            part(link, run, &target.holders, place, elements as usize, range, momentum, *agreed).await?;
        weights_out.write(part.0).await?;
        if momentum {
            momentum_out.write(part.1).await?;
        }
    }
    let weights = weights_out.finish(None).await?;
    let momentum = if momentum { Some(momentum_out.finish(None).await?) } else { None };
    Ok(KeptStage { elements, states: target.states.clone(), weights, momentum })
}

/// Which shard of which state.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub(crate) stage: StageIndex,
    pub(crate) shard: u16,
    pub(crate) epoch: Epoch,
}

/// Weights and momentum of one shard, little-endian, from the first holder that serves the agreed state.
#[expect(clippy::too_many_arguments, reason = "one shard's whole address")]
pub(crate) async fn part(
    link: &dyn Link,
    run: RunId,
    holders: &[NodeId],
    place: Place,
    elements: usize,
    range: Range<usize>,
    momentum: bool,
    agreed: Hash,
) -> Result<(Bytes, Bytes), KeepError> {
    let Place { stage, shard, epoch } = place;
    let mut last = KeepError::Fetch { stage, shard, source: FetchError::Nobody };
    // Different shards begin with different holders, so that one node does not serve all.
    let first = usize::from(shard) % holders.len().max(1);
    for peer in holders[first..].iter().chain(&holders[..first]) {
        let len = (range.len() * 4) as u64;
        let both = async {
            let what = What::Weights { epoch, stage, shard };
            let weights = fetch::fetch(link, run, *peer, what, len).await?;
            let what = What::Momentum { epoch, stage, shard };
            let momentum =
                if momentum { fetch::fetch(link, run, *peer, what, len).await? } else { Bytes::new() };
            Ok((weights, momentum))
        };
        let (weights, momentum) = match both.await {
            Ok(both) => both,
            Err(source) => {
                last = KeepError::Fetch { stage, shard, source };
                continue;
            }
        };
        if state_of(elements, range.start, &weights, &momentum) == agreed && weights.len() as u64 == len {
            return Ok((weights, momentum));
        }
        tracing::warn!(peer = %peer.short(), %stage, shard, "a node serves another state than agreed");
        last = KeepError::Unequal { stage, shard, peer: *peer };
    }
    Err(last)
}

/// State hash of a shard from the bytes of its weights and momentum (empty if there is none).
pub(crate) fn state_of(elements: usize, first: usize, weights: &[u8], momentum: &[u8]) -> Hash {
    let leaves = |bytes: &[u8]| reduce::leaf_hashes(elements, first, 4, bytes);
    let momentum = if momentum.is_empty() { Vec::new() } else { leaves(momentum) };
    reduce::state_hash(&leaves(weights), &momentum)
}

/// The orchestrator's keeping task.
pub(crate) struct Keeper {
    pub(crate) link: Arc<dyn Link>,
    pub(crate) run: RunId,
    pub(crate) blobs: Arc<dyn Blobs>,
    pub(crate) store: Arc<dyn LogStore>,
    pub(crate) kept: Arc<Kept>,
    pub(crate) inputs: Inputs,
    pub(crate) states: watch::Receiver<Arc<State>>,
    /// Tells the newest epoch of which every stage is kept.
    pub(crate) whole: watch::Sender<Option<Epoch>>,
}

impl Keeper {
    /// Keeps until `stop`, or until the last state of a finished run is kept.
    ///
    /// # Errors
    /// The node's own stores failed; what peers do wrong is tried again.
    pub(crate) async fn run(mut self, stop: CancellationToken) -> Result<(), KeepError> {
        loop {
            let state = Arc::clone(&self.states.borrow_and_update());
            let open = tokio::select! {
                () = stop.cancelled() => return Ok(()),
                open = self.round(&state) => open?,
            };
            if !open && matches!(state.phase(), Phase::Finished { .. }) {
                return Ok(());
            }
            let again = if open { limits::KEEP_RETRY } else { Duration::MAX };
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                changed = self.states.changed() => if changed.is_err() { return Ok(()) },
                () = tokio::time::sleep(again) => {}
            }
        }
    }

    /// Keeps what can be kept now; whether something is still wanted.
    async fn round(&self, state: &State) -> Result<bool, KeepError> {
        let mut open = false;
        let stages = state.spec().stages.len();
        for stage in (0..stages).map(|stage| StageIndex(stage as u16)) {
            let Some(target) = target(state, stage) else {
                open |= matches!(state.phase(), Phase::Gathering { epoch, .. } if epoch > Epoch(0));
                continue;
            };
            if self.kept.get(target.epoch, stage).is_none_or(|kept| kept.states != target.states) {
                let kept = match self.kept.same(stage, &target.states) {
                    Some(kept) => Ok(kept), // a withdrawn merge: the state before opens the next epoch too
                    None => {
                        keep_stage(self.link.as_ref(), self.run, self.blobs.as_ref(), state, stage, &target)
                            .await
                    }
                };
                match kept {
                    Ok(kept) => self.insert(target.epoch, stage, kept).await?,
                    Err(error @ (KeepError::Blob(_) | KeepError::Store(_))) => return Err(error),
                    Err(error) => {
                        tracing::debug!(%error, "not kept yet");
                        open = true;
                        continue;
                    }
                }
            }
            self.say(state, stage, &target).await;
        }
        self.whole.send_if_modified(|whole| {
            let newest = self.kept.newest(stages).map(|(epoch, _)| epoch);
            std::mem::replace(whole, newest) != newest
        });
        Ok(open)
    }

    async fn insert(&self, epoch: Epoch, stage: StageIndex, kept: KeptStage) -> Result<(), KeepError> {
        let (entries, gone) = self.kept.insert(epoch, stage, kept);
        self.store.put(&key(stage), wire::to_bytes(&entries).into()).await?;
        for hash in gone {
            self.blobs.delete(hash).await?;
        }
        Ok(())
    }

    /// Tells the log, where it does not know yet.
    async fn say(&self, state: &State, stage: StageIndex, target: &Target) {
        let waits = matches!(state.phase(), Phase::Merging { .. } | Phase::Gathering { .. });
        if !waits || state.stage(stage).is_none_or(|known| known.keeper.is_some()) {
            return;
        }
        let states = target.states.clone();
        let len = states.len() * 32 + 64;
        let input = Input::Control(Control::Keeps { epoch: target.epoch, stage, states });
        let (answer, outcome) = oneshot::channel();
        if self.inputs.send(Pending { input, len, answer }).await.is_err() {
            return; // the driver has stopped, and this task is about to
        }
        if let Ok(Err(refusal)) = outcome.await {
            tracing::debug!(%refusal, %stage, "the keeper's word was not needed");
        }
    }
}

impl std::fmt::Debug for Keeper {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keeper").field("run", &self.run).finish_non_exhaustive()
    }
}
