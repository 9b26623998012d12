//! Results and outcome of a merge: fetch what settles, say so, apply the manifest (protocol §1.2 steps 7–9).

use std::collections::{BTreeMap, BTreeSet};

use wire::{Hash, Millis, NodeId};

use super::owner::takes_own;
use super::{Action, Outbox, Round, Settings, Upload, Want};
use crate::miner::limits;
use crate::miner::merger::io::{Apply, Residual};
use crate::miner::merger::{shard_of, shards_of};
use crate::record::{ShardOutcome, Statement};
use crate::state::{MergeStep, StageMerge, Standing, State};

/// What this node holds of the results.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    held: BTreeMap<u16, Hash>,
    /// Shards that it said it holds.
    stated: BTreeSet<u16>,
    /// When the oldest result came that was not stated yet.
    since: Option<Millis>,
    /// What was applied last.
    applied: Option<(Vec<ShardOutcome>, u16)>,
}

impl Outcome {
    pub(super) fn on_held(&mut self, now: Millis, shard: u16, hash: Hash) {
        self.held.insert(shard, hash);
        self.since.get_or_insert(now);
    }

    /// Whether this node applied an outcome itself, so that it has what the epoch opened with.
    pub(super) fn was_applied(&self) -> bool {
        self.applied.is_some()
    }

    pub(super) fn next_deadline(&self) -> Option<Millis> {
        self.since.map(|since| since.plus(limits::HOLDS_WAIT))
    }
}

impl Round {
    /// Whether the outcome is not known or not applied yet, but will be: nothing that is needed is out of reach.
    pub(in super::super) fn will_apply(&self) -> bool {
        !self
            .fetches
            .has_any(|want| matches!(want, Want::Result { .. }) && self.fetches.is_out_of_reach(want))
    }

    /// Fetches results as soon as they stand, says so, and applies the manifest.
    pub(super) fn finish(
        &mut self,
        now: Millis,
        settings: &Settings,
        state: &State,
        merge: &StageMerge,
        out: &mut Outbox,
    ) {
        if merge.step < MergeStep::Check {
            return;
        }
        let settled: Vec<(u16, Hash)> = match &merge.manifest {
            Some(outcomes) => outcomes
                .iter()
                .zip(0..)
                .filter_map(|(outcome, shard)| match outcome {
                    ShardOutcome::Settled { result, .. } => Some((shard, *result)),
                    ShardOutcome::Kept => None,
                })
                .collect(),
            None => (0..merge.shard_count())
                .filter_map(|shard| match state.standing(merge.stage, shard) {
                    Standing::Settles { claim, .. } => Some((shard, claim.result)),
                    Standing::Undecided | Standing::Keeps => None,
                })
                .collect(),
        };
        self.fetches.retain(|want| match want {
            Want::Result { shard, hash, .. } => settled.contains(&(shard.index, *hash)),
            _ => true,
        });
        for (shard, hash) in &settled {
            if !self.holds(*shard, hash) {
                let want = Want::Result {
                    epoch: self.epoch,
                    shard: shard_of(&merge.partition, *shard),
                    hash: *hash,
                };
                self.fetches.want(now, want, sources(settings, state, merge, *shard, hash));
            }
        }
        if merge.manifest.is_none() {
            self.state_holds(now, settings, state, merge, &settled, out);
        } else {
            self.outcome.since = None;
        }
        self.apply(settings, state, merge, &settled, out);
    }

    /// Whether the result is here: fetched, or reduced here.
    fn holds(&self, shard: u16, hash: &Hash) -> bool {
        self.outcome.held.get(&shard) == Some(hash)
            || self.claims.get(&shard).is_some_and(|claim| claim.result == *hash)
    }

    fn state_holds(
        &mut self,
        now: Millis,
        settings: &Settings,
        state: &State,
        merge: &StageMerge,
        settled: &[(u16, Hash)],
        out: &mut Outbox,
    ) {
        let claimed = |shard: u16| {
            let view = merge.shards.get(usize::from(shard));
            view.is_some_and(|view| view.claims.iter().any(|(node, _)| *node == settings.node))
        };
        let fresh: Vec<u16> = settled
            .iter()
            .filter(|(shard, hash)| self.holds(*shard, hash) && !self.outcome.stated.contains(shard))
            .map(|(shard, _)| *shard)
            .filter(|shard| !claimed(*shard))
            .collect();
        if fresh.is_empty() {
            self.outcome.since = None;
            return;
        }
        let more = self.fetches.has_any(|want| matches!(want, Want::Result { .. }));
        let since = *self.outcome.since.get_or_insert(now);
        if (more && now < since.plus(limits::HOLDS_WAIT)) || !state.is_live_member(&settings.node) {
            return;
        }
        self.outcome.stated.extend(&fresh);
        self.outcome.since = None;
        out.state(Statement::Holds { epoch: self.epoch, shards: fresh });
    }

    fn apply(
        &mut self,
        settings: &Settings,
        state: &State,
        merge: &StageMerge,
        settled: &[(u16, Hash)],
        out: &mut Outbox,
    ) {
        let Some(manifest) = &merge.manifest else { return };
        if !settled.iter().all(|(shard, hash)| self.holds(*shard, hash)) {
            return;
        }
        // A withdrawn merge leads back to the weights before, in the cut that they were agreed on in.
        let partition = state.wanted_partition(merge.stage);
        let applied = (manifest.clone(), partition.shards());
        if self.outcome.applied.as_ref() == Some(&applied) {
            return;
        }
        let own = takes_own(state, merge);
        let position = merge.position(&settings.node).filter(|_| !own);
        let (residual, uploaded) = match (position, self.upload) {
            (None, _) => (Residual::Stays, None),
            (Some(position), Upload::Committed) => (Residual::Uploaded, Some(position)),
            (Some(_), _) => (Residual::Lost, None),
        };
        let shards = shards_of(&merge.partition).zip(manifest).map(|(shard, outcome)| {
            let entered = merge.inputs.get(usize::from(shard.index)).copied().unwrap_or(0);
            let apply = match outcome {
                ShardOutcome::Settled { result, .. } if own => Apply::Own(*result),
                // An upload that was left out of a settled shard is carried like that of a kept one.
                ShardOutcome::Settled { result, .. } => Apply::Result {
                    hash: *result,
                    carry: uploaded.is_some_and(|position| entered >> position & 1 == 0),
                },
                ShardOutcome::Kept => Apply::Keep { carry: uploaded.is_some() },
            };
            (shard, apply)
        });
        out.push(Action::Apply {
            epoch: self.epoch,
            shards: shards.collect(),
            residual,
            report: shards_of(&partition).collect(),
        });
        self.outcome.applied = Some(applied);
    }
}

/// Who has a result: its claimants, those who said so, those who are ready, then everybody else who followed the merge.
fn sources(settings: &Settings, state: &State, merge: &StageMerge, shard: u16, hash: &Hash) -> Vec<NodeId> {
    let mut sources: Vec<NodeId> = Vec::new();
    let mut add = |node: NodeId| {
        if node != settings.node && !sources.contains(&node) {
            sources.push(node);
        }
    };
    if let Some(view) = merge.shards.get(usize::from(shard)) {
        let claimants = view.claims.iter().filter(|(_, claim)| claim.result == *hash).map(|(node, _)| *node);
        let mut claimants: Vec<NodeId> = claimants.collect();
        // Half of the others ask the second claimant first.
        if settings.node.0[31] & 1 == 1 && claimants.len() > 1 {
            claimants.swap(0, 1);
        }
        claimants.into_iter().for_each(&mut add);
        view.holders.iter().copied().for_each(&mut add);
    }
    state.ready_nodes(merge.stage).for_each(&mut add);
    state.members(merge.stage).map(|member| member.node).for_each(&mut add);
    sources
}
