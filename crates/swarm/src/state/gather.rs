//! Presence, assignment to stages, agreement on weights, and what opens an epoch or ends the run.

use std::collections::{BTreeMap, BTreeSet};

use wire::{Epoch, Hash, MicroBatch, Millis, NodeId, StageIndex};

use super::work::{Cause, Cell, EpochWork, MemberWork, Path};
use super::{MergeStep, Node, Phase, Presence, State};
use crate::limits;
use crate::record::{Derived, Member, Role, ShardOutcome};
use crate::spec::Pace;
use crate::state::summary::{EpochSummary, StageSummary};

/// Agreement of a stage on the weights that open an epoch.
struct Agreement {
    states: Vec<Hash>,
    nodes: Vec<NodeId>,
}

impl State {
    pub(super) fn lost_due(&self) -> Option<Derived> {
        let silent = |node: &Node| node.present() && self.passed(node.seen.plus(self.spec.lost_after));
        let (node, _) = self.nodes.iter().find(|(_, node)| silent(node))?;
        Some(Derived::Lost { node: *node })
    }

    pub(super) fn assigned_due(&self) -> Option<Derived> {
        let (id, node) = self.present(Role::Miner).find(|(_, node)| node.stage.is_none())?;
        let mut counts = vec![(0_usize, 0_u64); self.stage_count()];
        for (other, there) in self.present(Role::Miner) {
            if let Some(count) = there.stage.and_then(|stage| counts.get_mut(usize::from(stage.0))) {
                count.0 += 1;
                count.1 = count.1.saturating_add(self.capacity(other));
            }
        }
        let wish = node.join.stage.filter(|stage| usize::from(stage.0) < self.stage_count());
        let best =
            counts.iter().enumerate().filter(|(stage, _)| self.fits(node.join.memory, *stage)).min_by_key(
                |(stage, (count, capacity))| {
                    let needed = *count < usize::from(self.spec.miners_min);
                    (!needed, if needed { *count } else { 0 }, *capacity, *stage)
                },
            );
        let stage = wish.or(best.map(|(stage, _)| StageIndex(stage as u16)))?;
        Some(Derived::Assigned { node: *id, stage })
    }

    /// Whether a miner with so much memory (0 = unknown) can train a stage at all.
    pub(super) fn fits(&self, memory: u64, stage: usize) -> bool {
        let needed = self
            .spec
            .stages
            .get(stage)
            .map_or(u64::MAX, |facts| facts.parameters.saturating_mul(limits::STATE_BYTES_PER_PARAMETER));
        memory == 0 || memory >= needed
    }

    pub(super) fn apply_assigned(&mut self, node: &NodeId, stage: StageIndex) {
        if let Some(node) = self.nodes.get_mut(node) {
            node.stage = Some(stage);
            node.ready = None;
            node.measured = None;
        }
    }

    /// A node goes (or restarts): its membership ends, and unless its upload is in a fixed set, so does its work.
    pub(super) fn depart(&mut self, id: &NodeId, presence: Presence, cause: Cause) {
        let Some(node) = self.nodes.get_mut(id) else { return };
        node.presence = presence;
        node.ready = None;
        self.work.wants.remove(id);
        let Some(position) = self.work.index.get(id).copied() else { return };
        let work = &mut self.work.members[usize::from(position)];
        if !std::mem::take(&mut work.live) {
            return;
        }
        let stage = work.member.stage;
        let fixed = match self.phase {
            Phase::Training { .. } => false,
            Phase::Merging { .. } => {
                self.merges.get(usize::from(stage.0)).is_some_and(|merge| merge.step > MergeStep::Reveal)
            }
            _ => true,
        };
        if fixed {
            return;
        }
        work.accumulated = 0;
        work.stepped = 0;
        for path in self.work.paths.values_mut() {
            let Some(cell) = path.cells.get_mut(usize::from(stage.0)) else { continue };
            match cell {
                Cell::Accumulated { member } | Cell::Stepped { member, .. } if *member == position => {
                    *cell = Cell::Forfeited { cause };
                }
                _ => {}
            }
        }
    }

    fn present_in(&self, stage: StageIndex) -> impl Iterator<Item = (&NodeId, &Node)> {
        self.present(Role::Miner).filter(move |(_, node)| node.stage == Some(stage))
    }

    /// Weights that open `epoch` in a stage and who holds them, if that can be said now.
    ///
    /// Settled shards are known from the manifest. For kept ones (and for the initial weights) the plurality of those
    /// who took part in the merge decides, ties for the smallest node id; without any, the keeper.
    fn agreement(&self, stage: StageIndex, epoch: Epoch) -> Option<Agreement> {
        let state = self.stages.get(usize::from(stage.0))?;
        let ready: Vec<(&NodeId, &Vec<Hash>)> = self
            .present_in(stage)
            .filter_map(|(id, node)| {
                node.ready.as_ref().filter(|r| r.epoch == epoch).map(|r| (id, &r.states))
            })
            .collect();
        let known: Option<Vec<Hash>> = state.wanted.iter().copied().collect();
        let states = if let Some(states) = known {
            states
        } else {
            let took_part = |id: &NodeId| epoch == Epoch(0) || self.work.is_live(id);
            let mut votes: BTreeMap<&Vec<Hash>, (usize, &NodeId)> = BTreeMap::new();
            for (id, states) in ready.iter().filter(|(id, _)| took_part(id)) {
                votes.entry(states).or_insert((0, id)).0 += 1;
            }
            let best = votes.iter().max_by_key(|(_, (count, first))| (*count, std::cmp::Reverse(*first)));
            best.map(|(states, _)| (*states).clone()).or_else(|| state.keeper.clone())?
        };
        let nodes = ready.iter().filter(|(_, theirs)| **theirs == states).map(|(id, _)| **id).collect();
        Some(Agreement { states, nodes })
    }

    /// Whether everyone who followed the merge has said that it is ready.
    fn all_ready(&self, epoch: Epoch) -> bool {
        let follows = |id: &NodeId, node: &Node| {
            let caught_up = node.ready.as_ref().is_some_and(|ready| ready.epoch.next() == epoch);
            epoch > Epoch(0) && (self.work.is_live(id) || caught_up)
        };
        self.present(Role::Miner)
            .filter(|(id, node)| follows(id, node))
            .all(|(_, node)| node.ready.as_ref().is_some_and(|ready| ready.epoch == epoch))
    }

    fn last(&self, epoch: Epoch) -> bool {
        self.draining || epoch.0 >= self.spec.epochs
    }

    pub(super) fn gather_due(&self, epoch: Epoch, until: Millis) -> Option<Derived> {
        if self.draining && epoch == Epoch(0) {
            return Some(Derived::Finished { epochs: 0 });
        }
        if !self.all_ready(epoch) && !self.passed(until) {
            return None;
        }
        if let Some(amended) = self.amended_due(epoch, until) {
            return Some(amended);
        }
        let agreements: Option<Vec<Agreement>> =
            self.spec.stage_indices().map(|stage| self.agreement(stage, epoch)).collect();
        let agreements = agreements?;
        if self.last(epoch) {
            // Without a miner that has them, the weights must be the keeper's, or what it had before.
            let served = agreements.iter().zip(&self.stages).all(|(agreement, state)| {
                !agreement.nodes.is_empty()
                    || state.unchanged
                    || state.keeper.as_ref() == Some(&agreement.states)
            });
            return served.then_some(Derived::Finished { epochs: epoch.0 });
        }
        let quorum = (usize::from(self.spec.miners_min), usize::from(self.spec.validators_min));
        let (miners, validators) = match epoch {
            Epoch(0) => quorum,
            // Resumed after a drain: everybody has to come back first.
            _ if self.work.members.is_empty() && !self.passed(until) => quorum,
            _ => (1, 0),
        };
        let enough = agreements.iter().all(|agreement| agreement.nodes.len() >= miners)
            && self.present(Role::Validator).count() >= validators;
        if !enough {
            return None;
        }
        let ready: Vec<&[NodeId]> = agreements.iter().map(|agreement| agreement.nodes.as_slice()).collect();
        self.codec_due(epoch, &ready).or_else(|| Some(self.opened(epoch, &agreements)))
    }

    fn opened(&self, epoch: Epoch, agreements: &[Agreement]) -> Derived {
        let count = self.spec.micro_batches_per_epoch as usize;
        let mut micro_batches: Vec<MicroBatch> = self.pool.iter().copied().take(count).collect();
        let fresh = (count - micro_batches.len()) as u64;
        micro_batches.extend((self.next_micro_batch..self.next_micro_batch + fresh).map(MicroBatch));
        let seed = Hash::of_parts(
            "shoal 2026-11 epoch seed",
            &[&self.run().0, &self.spec.seed.to_le_bytes(), &epoch.0.to_le_bytes(), &self.digest().0],
        );
        let most = match self.spec.pace {
            Pace::Async => limits::UPLOADERS_MAX,
            Pace::Lockstep { .. } => 1,
        };
        let mut members = Vec::new();
        for (stage, agreement) in self.spec.stage_indices().zip(agreements) {
            let mut best: Vec<(u64, NodeId)> =
                agreement.nodes.iter().map(|node| (self.capacity(node), *node)).collect();
            best.sort_by_key(|(capacity, node)| (std::cmp::Reverse(*capacity), *node));
            best.truncate(most);
            best.sort_by_key(|(_, node)| *node);
            let total: u128 = best.iter().map(|(capacity, _)| u128::from(*capacity)).sum();
            let steps = u128::from(self.spec.inner_steps);
            members.extend(best.into_iter().map(|(capacity, node)| {
                // round(M · capacity / Σ capacity / H): its share of the epoch, in H steps.
                let share = count as u128 * u128::from(capacity);
                let accumulate = (2 * share + total * steps) / (2 * total * steps).max(1);
                let accumulate = accumulate.clamp(1, u128::from(limits::ACCUMULATE_MAX)) as u32;
                Member { node, stage, capacity, accumulate }
            }));
        }
        Derived::Opened { epoch, seed, members, micro_batches }
    }

    /// A stage whose merge nobody can serve goes back to the weights before, which the keeper has.
    fn amended_due(&self, epoch: Epoch, until: Millis) -> Option<Derived> {
        if epoch == Epoch(0) || !self.passed(until) {
            return None;
        }
        let patience = until.plus(self.spec.merge.deadline_max);
        let stage = self.spec.stage_indices().find(|stage| {
            let state = &self.stages[usize::from(stage.0)];
            let served = self.agreement(*stage, epoch).is_some_and(|agreement| {
                !agreement.nodes.is_empty() || state.keeper.as_ref() == Some(&agreement.states)
            });
            let hope = self.present_in(*stage).any(|(id, _)| self.work.is_live(id));
            !served && !state.unchanged && (!hope || self.passed(patience))
        })?;
        let settled = self.merges.get(usize::from(stage.0)).and_then(|merge| merge.manifest.as_ref());
        let shards = settled
            .into_iter()
            .flatten()
            .enumerate()
            .filter(|(_, outcome)| matches!(outcome, ShardOutcome::Settled { .. }))
            .map(|(shard, _)| shard as u16)
            .collect();
        Some(Derived::Amended { epoch: Epoch(epoch.0 - 1), stage, shards })
    }

    pub(super) fn gather_deadlines(&self, epoch: Epoch, until: Millis) -> Vec<Millis> {
        match epoch {
            Epoch(0) => Vec::new(),
            _ => vec![until, until.plus(self.spec.merge.deadline_max)],
        }
    }

    pub(super) fn apply_amended(&mut self, stage: StageIndex) {
        let index = usize::from(stage.0);
        self.withdraw(stage);
        for node in self.nodes.values_mut().filter(|node| node.stage == Some(stage)) {
            node.ready = None;
        }
        for path in self.work.paths.values_mut() {
            if let Some(cell @ Cell::Merged { .. }) = path.cells.get_mut(index) {
                *cell = Cell::Forfeited { cause: Cause::Amended };
            }
        }
        if let Some(outcomes) = self.merges.get_mut(index).and_then(|merge| merge.manifest.as_mut()) {
            outcomes.fill(ShardOutcome::Kept);
        }
        if let Some(merge) = self.merges.get_mut(index) {
            merge.amended = true;
        }
        self.stages[index].unchanged = true;
    }

    /// The weights before stay the stage's weights.
    pub(super) fn withdraw(&mut self, stage: StageIndex) {
        let state = &mut self.stages[usize::from(stage.0)];
        if let Some(agreed) = &state.agreed {
            state.wanted = agreed.iter().copied().map(Some).collect();
        }
        state.keeper = None;
    }

    pub(super) fn apply_opened(
        &mut self,
        epoch: Epoch,
        seed: Hash,
        members: &[Member],
        micro_batches: &[MicroBatch],
    ) {
        self.agree(epoch);
        self.fold_epoch();
        self.codecs.open();
        for id in micro_batches {
            if !self.pool.remove(id) {
                self.next_micro_batch = self.next_micro_batch.max(id.0 + 1);
            }
        }
        for node in self.nodes.values_mut() {
            node.ready = None;
        }
        let stages = self.stage_count();
        let path = Path {
            lease: None,
            head: None,
            grad_mask: 0,
            returned: false,
            loss_counted: false,
            ever_leased: 0,
            cells: vec![Cell::Open; stages],
        };
        self.work = EpochWork {
            epoch,
            seed,
            opened: self.tip.now(),
            deadline: self.tip.now().plus(self.spec.epoch_deadline),
            members: members.iter().copied().map(MemberWork::new).collect(),
            index: members.iter().enumerate().map(|(at, member)| (member.node, at as u16)).collect(),
            paths: micro_batches.iter().map(|id| (*id, path.clone())).collect(),
            open: micro_batches.iter().copied().collect(),
            ..EpochWork::idle()
        };
        self.phase = Phase::Training { epoch };
    }

    pub(super) fn apply_finished(&mut self, epochs: u32) {
        if epochs > 0 {
            self.agree(Epoch(epochs));
            self.fold_epoch();
        }
        self.phase = Phase::Finished { epochs };
    }

    /// Whether no epoch is left to train.
    pub(super) fn complete(&self) -> bool {
        matches!(self.phase, Phase::Finished { epochs } if epochs >= self.spec.epochs)
    }

    /// A run that was drained goes on: its last weights open the next epoch.
    pub(super) fn reopen(&mut self, epochs: u32) {
        for state in &mut self.stages {
            if let Some(agreed) = &state.agreed {
                state.wanted = agreed.iter().copied().map(Some).collect();
                state.unchanged = true;
            }
        }
        for node in self.nodes.values_mut() {
            node.ready = None;
        }
        self.work = EpochWork::idle();
        self.work.epoch = Epoch(epochs);
        self.phase = Phase::Gathering {
            epoch: Epoch(epochs),
            until: self.tip.now().plus(self.spec.merge.deadline_max),
        };
    }

    fn agree(&mut self, epoch: Epoch) {
        let agreed: Vec<_> = self.spec.stage_indices().map(|stage| self.agreement(stage, epoch)).collect();
        for (state, agreement) in self.stages.iter_mut().zip(agreed) {
            state.agreed = agreement.map(|agreement| agreement.states);
            state.keeper = None;
            state.unchanged = false;
        }
    }

    /// Folds the epoch that ended into a summary; micro-batches that merged nowhere go back to the pool.
    fn fold_epoch(&mut self) {
        if self.work.closed.is_none() {
            return;
        }
        let merged_nowhere = |path: &Path| !path.cells.iter().any(|cell| matches!(cell, Cell::Merged { .. }));
        let back: BTreeSet<MicroBatch> =
            self.work.paths.iter().filter(|(_, path)| merged_nowhere(path)).map(|(id, _)| *id).collect();
        self.pool.extend(back);
        let coverage = self.work.coverage();
        self.totals.merged += coverage.merged;
        self.totals.forfeited += coverage.forfeited.values().sum::<u64>();
        for path in self.work.paths.values() {
            for cell in &path.cells {
                let Cell::Merged { member } = cell else { continue };
                let id = self.work.members[usize::from(*member)].member.node;
                if let Some(node) = self.nodes.get_mut(&id) {
                    node.merged += 1;
                }
            }
        }
        let stages = self.merges.iter().map(|merge| {
            let outcomes = merge.manifest.as_deref().unwrap_or(&[]);
            let count = |test: fn(&ShardOutcome) -> bool| outcomes.iter().filter(|o| test(o)).count() as u32;
            StageSummary {
                uploads: merge.set.len() as u32,
                micro_batches: merge.set.iter().map(|upload| (upload.node, upload.micro_batches)).collect(),
                witnessed: count(|o| matches!(o, ShardOutcome::Settled { witnessed: true, .. })),
                unwitnessed: count(|o| matches!(o, ShardOutcome::Settled { witnessed: false, .. })),
                kept: count(|o| matches!(o, ShardOutcome::Kept)),
                disputes: merge.disputes.len() as u32,
                amended: merge.amended,
            }
        });
        let stages = stages.collect();
        let closed = self.work.closed.unwrap_or(self.tip.now());
        if self.summaries.len() >= limits::SUMMARIES_MAX {
            self.summaries.pop_front();
        }
        self.summaries.push_back(EpochSummary {
            epoch: self.work.epoch,
            loss_count: self.work.loss_count,
            loss: self.loss(),
            training: closed.since(self.work.opened),
            merging: self.merge_times.back().copied().unwrap_or_default(),
            stages,
            traffic: self.work.traffic,
            survivors: self.work.members.iter().filter(|work| work.live).count() as u32,
            members: self.work.members.len() as u32,
            coverage,
            codec: self.codecs.summary(),
        });
    }
}
