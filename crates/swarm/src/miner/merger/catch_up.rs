//! Getting the agreed weights without having merged them: made from the seed, found on disk, or fetched by hash.

use std::collections::BTreeSet;

use wire::{Epoch, Hash, Millis, NodeId, StageIndex};

use super::fetches::Fetches;
use super::io::{Action, Fetched, Shard, Want};
use super::{Outbox, Settings, Target, shards_of};
use crate::state::{Phase, State};

/// One attempt to get the weights that open one epoch.
#[derive(Debug)]
pub(super) struct CatchUp {
    epoch: Epoch,
    states: Vec<Option<Hash>>,
    parts: Vec<(Shard, Hash)>,
    stage: Stage,
    fetches: Fetches,
    held: BTreeSet<u16>,
}

/// How far it is.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Stage {
    /// Not begun, or a hash is not known yet.
    Waiting,
    /// The driver makes the weights, or looks on its disk.
    Asked,
    /// Parts are fetched.
    Fetching,
    /// All parts are there; the driver puts them together.
    Adopting,
}

impl CatchUp {
    pub(super) fn new(target: &Target) -> Self {
        let states: Option<Vec<Hash>> = target.states.iter().copied().collect();
        let parts = states.map_or_else(Vec::new, |states| shards_of(&target.partition).zip(states).collect());
        Self {
            epoch: target.epoch,
            states: target.states.clone(),
            parts,
            stage: Stage::Waiting,
            fetches: Fetches::default(),
            held: BTreeSet::new(),
        }
    }

    pub(super) fn is_for(&self, target: &Target) -> bool {
        self.epoch == target.epoch && self.states == target.states
    }

    pub(super) fn on_restored(&mut self, epoch: Epoch, missing: Vec<u16>) {
        if epoch == self.epoch && self.stage == Stage::Asked {
            self.held = self.parts.iter().map(|(shard, _)| shard.index).collect();
            for shard in missing {
                self.held.remove(&shard);
            }
            self.stage = Stage::Fetching;
        }
    }

    pub(super) fn on_fetched(&mut self, now: Millis, want: &Want, from: NodeId, outcome: Fetched) {
        if self.fetches.on_fetched(now, want, from, outcome)
            && let Want::Part { shard, .. } = want
        {
            self.held.insert(shard.index);
        }
    }

    pub(super) fn next_deadline(&self) -> Option<Millis> {
        self.fetches.next_deadline()
    }

    pub(super) fn advance(
        &mut self,
        now: Millis,
        settings: &Settings,
        state: &State,
        stage: StageIndex,
        out: &mut Outbox,
    ) {
        match self.stage {
            Stage::Waiting if self.parts.is_empty() => {
                if self.epoch == Epoch(0) {
                    out.push(Action::Initialise { stage });
                    self.stage = Stage::Asked;
                }
                // Else a kept shard's hash is known when the epoch opens.
            }
            Stage::Waiting => {
                out.push(Action::Restore { epoch: self.epoch, parts: self.parts.clone() });
                self.stage = Stage::Asked;
            }
            Stage::Asked | Stage::Adopting => {}
            Stage::Fetching => {
                let sources = sources(settings, state, stage);
                for (shard, hash) in &self.parts {
                    if !self.held.contains(&shard.index) {
                        let want = Want::Part { epoch: self.epoch, shard: *shard, state: *hash };
                        self.fetches.want(now, want, rotated(&sources, usize::from(shard.index)));
                    }
                }
                if self.held.len() == self.parts.len() {
                    out.push(Action::Adopt { epoch: self.epoch, parts: self.parts.clone() });
                    self.stage = Stage::Adopting;
                }
                self.fetches.advance(now, |action| out.push(action));
            }
        }
    }
}

/// Who may have the weights: those who train with them or said that they hold them, and last the keeper.
fn sources(settings: &Settings, state: &State, stage: StageIndex) -> Vec<NodeId> {
    let mut nodes: BTreeSet<NodeId> = state.ready_nodes(stage).collect();
    if !matches!(state.phase(), Phase::Gathering { .. }) {
        nodes.extend(state.members(stage).map(|member| member.node));
    }
    nodes.remove(&settings.node);
    nodes.into_iter().chain([state.orchestrator()]).collect()
}

/// The miners among `sources` in an order that begins elsewhere for each shard; the keeper stays last.
fn rotated(sources: &[NodeId], by: usize) -> Vec<NodeId> {
    let mut rotated = sources.to_vec();
    let miners = rotated.len().saturating_sub(1);
    if miners > 0 {
        rotated[..miners].rotate_left(by % miners);
    }
    rotated
}
