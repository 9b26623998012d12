//! The weights that an epoch opened with, of all stages, each shard checked against the agreed hash.

use std::sync::Arc;

use net::Link;
use swarm::miner::reduce;
use swarm::shard::Partition;
use swarm::spec::Outer;
use swarm::state::{Phase, State};
use wire::{Epoch, Hash, NodeId, RunId, StageIndex};

use super::ValidatorError;
use crate::checkpoint::floats;
use crate::fetch;
use crate::keeper::{self, KeepError, Place, Target};
use crate::limits;
use crate::spec::RunSpec;

/// Weights of one epoch.
#[derive(Clone, Debug)]
pub(super) struct Opening {
    pub(super) epoch: Epoch,
    /// Flat, head first.
    pub(super) weights: Vec<Arc<Vec<f32>>>,
}

/// What is to be fetched.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    pub(super) epoch: Epoch,
    outer: Outer,
    stages: Vec<(u64, Target)>,
}

/// Why weights are not here yet.
#[derive(Debug, thiserror::Error)]
pub(super) enum NotYet {
    #[error(transparent)]
    Keep(#[from] KeepError),
    #[error(transparent)]
    Validator(#[from] Box<ValidatorError>),
    #[error("stage {0} has weights of a wrong length")]
    Length(usize),
}

/// Epoch whose opening weights are agreed and may be measured now.
pub(super) fn opening_epoch(state: &State) -> Option<Epoch> {
    match state.phase() {
        Phase::Gathering { .. } => None,
        Phase::Training { epoch } | Phase::Merging { epoch } => Some(epoch),
        Phase::Finished { epochs } => (epochs > 0).then_some(Epoch(epochs)),
    }
}

impl Wanted {
    /// The present epoch's, from its members or from the keeper of `orchestrator`.
    pub(super) fn of(state: &State, orchestrator: NodeId) -> Option<Self> {
        let epoch = opening_epoch(state)?;
        let stages = state.spec().stages.iter().enumerate().map(|(stage, facts)| {
            let stage = StageIndex(stage as u16);
            let states = state.stage(stage)?.agreed.clone()?;
            let here = |(id, node): (&NodeId, &swarm::state::Node)| {
                (node.present_miner() && node.stage == Some(stage)).then_some(*id)
            };
            let holders = state.nodes().iter().filter_map(here).chain([orchestrator]).collect();
            Some((facts.parameters, Target { epoch, states, holders }))
        });
        Some(Self { epoch, outer: state.spec().merge.outer, stages: stages.collect::<Option<_>>()? })
    }
}

/// Fetches all stages; those of epoch 0 follow from the spec.
pub(super) async fn fetch(
    link: &Arc<dyn Link>,
    run: RunId,
    orchestrator: NodeId,
    spec: &RunSpec,
    wanted: &Wanted,
) -> Result<Opening, NotYet> {
    let mut weights = Vec::with_capacity(wanted.stages.len());
    for (index, (stage, (parameters, target))) in
        spec.stage_specs().into_iter().zip(&wanted.stages).enumerate()
    {
        let flat = if wanted.epoch == Epoch(0) {
            if let Some(hash) = spec.init.get(index) {
                let hash = Hash(hash.0);
                let bytes = fetch::fetch_blob(link.as_ref(), run, [orchestrator], hash, limits::FETCH_BYTES);
                floats(&bytes.await.map_err(|error| Box::new(Box::new(error).into()))?)
            } else {
                let drawn = tokio::task::spawn_blocking(move || stage.initial_weights());
                drawn.await.map_err(|error| Box::new(error.into()))?
            }
        } else {
            merged(link.as_ref(), run, index, *parameters, wanted.outer, target).await?
        };
        if flat.len() as u64 != *parameters {
            return Err(NotYet::Length(index));
        }
        weights.push(Arc::new(flat));
    }
    Ok(Opening { epoch: wanted.epoch, weights })
}

async fn merged(
    link: &dyn Link,
    run: RunId,
    stage: usize,
    parameters: u64,
    outer: Outer,
    target: &Target,
) -> Result<Vec<f32>, KeepError> {
    let partition = Partition::new(parameters, target.states.len() as u16);
    let mut flat = Vec::with_capacity(parameters as usize);
    for (shard, agreed) in target.states.iter().enumerate() {
        let place = Place { stage: StageIndex(stage as u16), shard: shard as u16, epoch: target.epoch };
        let range = partition.elements(place.shard);
        let momentum = reduce::has_momentum(outer);
        let part =
            keeper::part(link, run, &target.holders, place, parameters as usize, range, momentum, *agreed);
        flat.extend(floats(&part.await?.0));
    }
    Ok(flat)
}
