//! What follows while stages merge: each step closes when all who are there have answered, or at its deadline.

use std::collections::{BTreeMap, BTreeSet};

use wire::{Hash, Millis, NodeId, StageIndex};

use super::merge::{MergeStep, SetUpload, ShardView, StageMerge, Standing};
use super::work::{Cause, Cell};
use super::{Phase, State};
use crate::limits;
use crate::record::{Derived, ShardClaim, ShardOutcome};
use crate::shard::{Partition, Witnesses};
use crate::spec::Unwitnessed;

/// How far the claims on a shard are.
enum Progress {
    Refer(NodeId),
    Wait,
    Decided(Standing),
}

/// What `InputsFixed` says, and what else follows from the same figures.
struct Inputs {
    shards: Vec<u64>,
    clip: Vec<f64>,
    norm: Option<f64>,
    disputes: BTreeSet<(u16, u8)>,
}

impl State {
    pub(super) fn merge_due(&self) -> Option<Derived> {
        self.merges.iter().find_map(|merge| match merge.step {
            MergeStep::Commit => self.commits_closed_due(merge),
            MergeStep::Reveal => self.set_fixed_due(merge),
            MergeStep::Fetch => self.inputs_fixed_due(merge),
            MergeStep::Claim => self.claims_due(merge),
            MergeStep::Check => self.manifest_due(merge),
            MergeStep::Done => None,
        })
    }

    pub(super) fn merge_deadlines(&self) -> Vec<Millis> {
        let of_step = |merge: &StageMerge| {
            let at = |percent| vec![merge.clock.at(percent)];
            match merge.step {
                MergeStep::Commit => at(limits::COMMIT_PERCENT),
                MergeStep::Reveal => at(limits::REVEAL_PERCENT),
                MergeStep::Fetch => at(limits::FETCH_PERCENT),
                MergeStep::Claim => at(limits::CLAIM_PERCENT),
                MergeStep::Check => {
                    let asked =
                        merge.shards.iter().flat_map(|shard| shard.referred.iter().map(|(_, at)| *at));
                    let answers = asked.chain([merge.claims_due]).map(|at| at.plus(refer_span(merge)));
                    let ends =
                        [limits::CHECK_PERCENT, limits::HOLD_PERCENT].map(|share| merge.clock.at(share));
                    answers.chain(ends).collect()
                }
                MergeStep::Done => Vec::new(),
            }
        };
        self.merges.iter().flat_map(of_step).collect()
    }

    fn commits_closed_due(&self, merge: &StageMerge) -> Option<Derived> {
        let waiting = self.work.live(merge.stage).any(|work| {
            let nothing = work.finished && work.steps == 0 && work.accumulated * 2 < work.member.accumulate;
            !merge.commits.contains_key(&work.member.node) && !nothing
        });
        if waiting && !self.passed(merge.clock.at(limits::COMMIT_PERCENT)) {
            return None;
        }
        // All started from the same weights; whoever says otherwise is out (ties: the smallest node id's).
        let live = merge.commits.iter().filter(|(node, _)| self.work.is_live(node));
        let mut bases: BTreeMap<&Hash, (usize, &NodeId)> = BTreeMap::new();
        for (node, commit) in live.clone() {
            bases.entry(&commit.base).or_insert((0, node)).0 += 1;
        }
        let base = bases.iter().max_by_key(|(_, (count, first))| (*count, std::cmp::Reverse(*first)));
        let base = base.map(|(base, _)| **base);
        let nodes = live.filter(|(_, commit)| Some(commit.base) == base).map(|(node, _)| *node).collect();
        Some(Derived::CommitsClosed { epoch: merge.epoch, stage: merge.stage, nodes })
    }

    pub(super) fn apply_commits_closed(&mut self, stage: StageIndex, nodes: &[NodeId]) {
        let digest = self.digest();
        let Some(merge) = self.merges.get_mut(usize::from(stage.0)) else { return };
        merge.committed = nodes.to_vec();
        merge.head = digest;
        merge.step = MergeStep::Reveal;
        for path in self.work.paths.values_mut() {
            let leased = path.ever_leased >> stage.0 & 1 == 1;
            let Some(cell) = path.cells.get_mut(usize::from(stage.0)) else { continue };
            match cell {
                Cell::Leased => *cell = Cell::Forfeited { cause: Cause::Unfinished },
                Cell::Open if leased => *cell = Cell::Forfeited { cause: Cause::Unfinished },
                Cell::Accumulated { .. } => *cell = Cell::Forfeited { cause: Cause::Partial },
                _ => {}
            }
        }
        for work in self.work.members.iter_mut().filter(|work| work.member.stage == stage) {
            work.accumulated = 0;
        }
    }

    fn set_fixed_due(&self, merge: &StageMerge) -> Option<Derived> {
        let live = || merge.committed.iter().filter(|node| self.work.is_live(node));
        let all = live().all(|node| merge.nonces.contains_key(node));
        if !all && !self.passed(merge.clock.at(limits::REVEAL_PERCENT)) {
            return None;
        }
        let nodes: Vec<NodeId> = live().filter(|node| merge.nonces.contains_key(node)).copied().collect();
        let epoch = merge.epoch.0.to_le_bytes();
        let stage = merge.stage.0.to_le_bytes();
        let nonces = nodes.iter().filter_map(|node| merge.nonces.get(node));
        let seed = ledger::beacon::seed(&[&self.run().0, &epoch, &stage, &merge.head.0], nonces);
        Some(Derived::SetFixed { epoch: merge.epoch, stage: merge.stage, nodes, seed })
    }

    pub(super) fn apply_set_fixed(&mut self, stage: StageIndex, nodes: &[NodeId], seed: Hash) {
        let shards = self.shard_count(stage, nodes.len());
        let elements = self.spec.stages.get(usize::from(stage.0)).map_or(0, |facts| facts.parameters);
        let Some(merge) = self.merges.get_mut(usize::from(stage.0)) else { return };
        merge.set = nodes
            .iter()
            .filter_map(|node| {
                let work = self.work.get(node)?;
                let upload = merge.commits.get(node)?.upload;
                Some(SetUpload { node: *node, micro_batches: work.stepped, steps: work.steps, upload })
            })
            .collect();
        merge.seed = seed;
        merge.partition = Partition::new(elements, shards);
        merge.witnesses = Witnesses::new(&seed, nodes, shards);
        merge.shards = vec![ShardView::default(); usize::from(shards)];
        merge.step = MergeStep::Fetch;
    }

    /// Owners of a shard: the first two of its witness order that are there.
    pub fn owners(&self, stage: StageIndex, shard: u16) -> Vec<NodeId> {
        let Some(merge) = self.merge(stage) else { return Vec::new() };
        merge.witness_order(shard).filter(|node| self.work.is_live(node)).take(2).collect()
    }

    /// Shards that `node` owns now: with an input once inputs are fixed, all before.
    pub fn owned_shards(&self, stage: StageIndex, node: &NodeId) -> Vec<u16> {
        let Some((merge, position)) =
            self.merge(stage).and_then(|merge| Some((merge, merge.position(node)?)))
        else {
            return Vec::new();
        };
        let live = self.live_set(merge);
        let owns = |shard: &u16| merge.owners(*shard, live).any(|owner| usize::from(owner) == position);
        let filled = |shard: &u16| merge.inputs.get(usize::from(*shard)).is_none_or(|bitmap| *bitmap != 0);
        (0..merge.shard_count()).filter(filled).filter(owns).collect()
    }

    /// Bit i: the i-th uploader of the set is there.
    pub(super) fn live_set(&self, merge: &StageMerge) -> u64 {
        let live = merge.set.iter().enumerate().filter(|(_, upload)| self.work.is_live(&upload.node));
        live.fold(0, |mask, (index, _)| mask | 1 << index)
    }

    fn inputs_fixed_due(&self, merge: &StageMerge) -> Option<Derived> {
        let live = self.live_set(merge);
        let has_all = |shard: u16, owner: u8| {
            merge.haves.get(&(shard, owner)).is_some_and(|have| have.bitmap & live == live)
        };
        let all = (0..merge.shard_count())
            .all(|shard| merge.owners(shard, live).all(|owner| has_all(shard, owner)));
        if !all && !self.passed(merge.clock.at(limits::FETCH_PERCENT)) {
            return None;
        }
        let inputs = self.inputs(merge);
        Some(Derived::InputsFixed {
            epoch: merge.epoch,
            stage: merge.stage,
            shards: inputs.shards,
            clip: inputs.clip,
        })
    }

    /// Inputs and clip factors (protocol §1.2 step 4).
    ///
    /// An upload enters a shard if a witness that is there holds it. If the two owners found different sums of squares
    /// for it, it stays out of that shard: without a referee nobody can say who is wrong.
    fn inputs(&self, merge: &StageMerge) -> Inputs {
        let live = self.live_set(merge);
        let mut disputes = BTreeSet::new();
        let mut sums = vec![0.0_f64; merge.set.len()];
        let mut held = vec![0_usize; merge.set.len()];
        let mut shards = Vec::with_capacity(merge.shards.len());
        for shard in 0..merge.shard_count() {
            let order = merge.witnesses.order(shard).iter().filter(|index| live >> **index & 1 == 1);
            let haves: Vec<_> = order.filter_map(|index| merge.haves.get(&(shard, *index))).collect();
            let mut bitmap = 0_u64;
            for index in 0..merge.set.len() {
                let mut found = haves.iter().filter(|have| have.bitmap >> index & 1 == 1);
                let Some(first) = found.next().map(|have| have.square_sums[index]) else { continue };
                if found.next().is_some_and(|other| other.square_sums[index].to_bits() != first.to_bits()) {
                    disputes.insert((shard, index as u8));
                    continue;
                }
                bitmap |= 1 << index;
                sums[index] += first;
                held[index] += merge.partition.leaves(shard).len();
            }
            shards.push(bitmap);
        }
        let leaves: usize = (0..merge.shard_count()).map(|shard| merge.partition.leaves(shard).len()).sum();
        let kept = (0..merge.set.len()).filter(|index| held[*index] * 2 >= leaves && held[*index] > 0);
        let kept = kept.fold(0_u64, |mask, index| mask | 1 << index);
        for bitmap in &mut shards {
            *bitmap &= kept;
        }
        let norms: Vec<f64> = (0..merge.set.len())
            .map(|index| (sums[index] * (leaves as f64 / held[index].max(1) as f64)).sqrt())
            .collect();
        let used = |norms: &[f64]| {
            let used = norms.iter().enumerate().filter(|(index, _)| kept >> index & 1 == 1);
            lower_median(used.map(|(_, norm)| *norm))
        };
        let bound = if merge.set.len() <= limits::SMALL_SET {
            let history =
                self.stages.get(usize::from(merge.stage.0)).map(|stage| stage.norms.iter().copied());
            let median = history.and_then(lower_median).map(|median| median * limits::NORM_BOUND_FACTOR);
            let first = self.spec.merge.first_norm_bound;
            median.or((first > 0.0).then_some(first))
        } else {
            used(&norms).map(|median| median * limits::NORM_BOUND_FACTOR)
        };
        let clip: Vec<f64> = norms
            .iter()
            .map(|norm| match bound {
                Some(bound) if *norm > bound => (bound / norm).max(f64::MIN_POSITIVE),
                _ => 1.0,
            })
            .collect();
        let clipped: Vec<f64> =
            norms.iter().map(|norm| bound.map_or(*norm, |bound| norm.min(bound))).collect();
        Inputs { shards, clip, norm: used(&clipped), disputes }
    }

    pub(super) fn apply_inputs_fixed(&mut self, stage: StageIndex, shards: &[u64], clip: &[f64]) {
        let Some(inputs) = self.merge(stage).map(|merge| self.inputs(merge)) else { return };
        let Some(merge) = self.merges.get_mut(usize::from(stage.0)) else { return };
        merge.inputs = shards.to_vec();
        merge.clip = clip.to_vec();
        merge.norm = inputs.norm;
        merge.disputes = inputs.disputes;
        merge.haves.clear();
        merge.step = MergeStep::Claim;
    }

    fn claims_due(&self, merge: &StageMerge) -> Option<Derived> {
        let live = self.live_set(merge);
        let blind =
            merge.set.iter().enumerate().filter(|(_, upload)| merge.blinds.contains_key(&upload.node));
        let blind = blind.fold(0_u64, |mask, (index, _)| mask | 1 << index);
        let all =
            merge.filled().flat_map(|shard| merge.owners(shard, live)).all(|owner| blind >> owner & 1 == 1);
        (all || self.passed(merge.clock.at(limits::CLAIM_PERCENT)))
            .then_some(Derived::ClaimsDue { epoch: merge.epoch, stage: merge.stage })
    }

    pub(super) fn apply_claims_due(&mut self, stage: StageIndex) {
        let now = self.tip.now();
        let Some(merge) = self.merges.get_mut(usize::from(stage.0)) else { return };
        merge.claims_due = now;
        merge.step = MergeStep::Check;
    }

    /// What is known of a shard's result; owners push what settles to those who lack it.
    pub fn standing(&self, stage: StageIndex, shard: u16) -> Standing {
        match self.merge(stage) {
            Some(merge) if merge.step >= MergeStep::Check && shard < merge.shard_count() => {
                match self.progress(merge, shard) {
                    Progress::Decided(standing) => standing,
                    Progress::Refer(_) | Progress::Wait => Standing::Undecided,
                }
            }
            _ => Standing::Undecided,
        }
    }

    /// Two equal claims settle; else the next witness is asked; at the end a single claim counts if the spec says so.
    fn progress(&self, merge: &StageMerge, shard: u16) -> Progress {
        let index = usize::from(shard);
        if merge.inputs[index] == 0 {
            return Progress::Decided(Standing::Keeps);
        }
        let view = &merge.shards[index];
        if let Some(claim) = agreed_claim(&view.claims) {
            return Progress::Decided(Standing::Settles { claim, witnessed: true });
        }
        let answered = |node: &NodeId| view.claims.iter().any(|(claimant, _)| claimant == node);
        let opened = |node: &NodeId| merge.blinds.get(node).is_none_or(|(_, opened)| *opened);
        let blinded = view.blinded.iter().filter(|node| !opened(node)).map(|node| (*node, merge.claims_due));
        let outstanding: Vec<(NodeId, Millis)> = blinded
            .chain(view.referred.iter().copied().filter(|(node, _)| !answered(node)))
            .filter(|(node, _)| self.work.is_live(node))
            .collect();
        let over = self.passed(merge.clock.at(limits::CHECK_PERCENT));
        if !over {
            let span = refer_span(merge);
            if outstanding.iter().any(|(_, asked)| !self.passed(asked.plus(span))) {
                return Progress::Wait;
            }
            let referred = |node: &NodeId| view.referred.iter().any(|(other, _)| other == node);
            let asked = view.claims.len() + outstanding.len();
            let next = merge.witness_order(shard).find(|node| {
                let asked_before =
                    answered(node) || referred(node) || (view.blinded.contains(node) && !opened(node));
                !asked_before && self.work.is_live(node)
            });
            match next {
                Some(node) if asked < limits::WITNESSES_MAX => return Progress::Refer(node),
                _ if !outstanding.is_empty() => return Progress::Wait,
                _ => {}
            }
        }
        let standing = match (view.claims.as_slice(), self.spec.merge.unwitnessed) {
            ([(_, claim)], Unwitnessed::Accept) => Standing::Settles { claim: *claim, witnessed: false },
            _ => Standing::Keeps,
        };
        Progress::Decided(standing)
    }

    pub(super) fn apply_referred(&mut self, stage: StageIndex, shard: u16, node: NodeId) {
        let now = self.tip.now();
        let merge = self.merges.get_mut(usize::from(stage.0));
        if let Some(view) = merge.and_then(|merge| merge.shards.get_mut(usize::from(shard))) {
            view.referred.push((node, now));
        }
    }

    fn manifest_due(&self, merge: &StageMerge) -> Option<Derived> {
        let (epoch, stage) = (merge.epoch, merge.stage);
        let hold_over = self.passed(merge.clock.at(limits::HOLD_PERCENT));
        let mut outcomes = Vec::with_capacity(merge.shards.len());
        let mut waiting = false;
        for shard in 0..merge.shard_count() {
            let outcome = match self.progress(merge, shard) {
                Progress::Refer(node) => return Some(Derived::Referred { epoch, stage, shard, node }),
                Progress::Wait => None,
                Progress::Decided(Standing::Settles { claim, witnessed }) => {
                    self.held(merge, shard, claim, witnessed, hold_over)
                }
                Progress::Decided(_) => Some(ShardOutcome::Kept),
            };
            waiting |= outcome.is_none();
            outcomes.extend(outcome);
        }
        (!waiting).then_some(Derived::Manifest { epoch, stage, shards: outcomes })
    }

    /// Outcome of a shard that settles, once enough nodes beside its claimants hold the bytes; `None` while they may.
    fn held(
        &self,
        merge: &StageMerge,
        shard: u16,
        claim: ShardClaim,
        witnessed: bool,
        hold_over: bool,
    ) -> Option<ShardOutcome> {
        let view = &merge.shards[usize::from(shard)];
        let claimed = |node: &NodeId| {
            view.claims.iter().any(|(other, theirs)| other == node && same_result(theirs, &claim))
        };
        let (mut others, mut holders, mut sources) = (0, 0, 0);
        for work in self.work.live(merge.stage) {
            let node = &work.member.node;
            if claimed(node) {
                sources += 1;
            } else {
                others += 1;
                holders += usize::from(view.holders.contains(node));
            }
        }
        if sources + holders == 0 {
            return Some(ShardOutcome::Kept);
        }
        let settled = ShardOutcome::Settled { result: claim.result, state: claim.state, witnessed };
        (hold_over || holders >= limits::HOLDERS_MIN.min(others)).then_some(settled)
    }

    pub(super) fn apply_manifest(&mut self, stage: StageIndex, outcomes: &[ShardOutcome]) {
        let index = usize::from(stage.0);
        let Some(merge) = self.merges.get_mut(index) else { return };
        merge.manifest = Some(outcomes.to_vec());
        merge.step = MergeStep::Done;
        let settled = |outcome: &ShardOutcome| matches!(outcome, ShardOutcome::Settled { .. });
        let merged = outcomes.iter().zip(&merge.inputs).filter(|(outcome, _)| settled(outcome));
        let merged = merged.fold(0_u64, |mask, (_, bitmap)| mask | bitmap);
        for path in self.work.paths.values_mut() {
            let Some(cell) = path.cells.get_mut(index) else { continue };
            let Cell::Stepped { member, .. } = *cell else { continue };
            let node = &self.work.members[usize::from(member)].member.node;
            *cell = match merge.position(node) {
                Some(position) if merged >> position & 1 == 1 => Cell::Merged { member },
                Some(_) => Cell::Forfeited { cause: Cause::Excluded },
                None => Cell::Forfeited { cause: Cause::NotUploaded },
            };
        }
        let (clock, norm) = (merge.clock, merge.norm);
        if outcomes.iter().any(settled) {
            let state = &mut self.stages[index];
            let hash = |outcome: &ShardOutcome| match outcome {
                ShardOutcome::Settled { state, .. } => Some(*state),
                ShardOutcome::Kept => None,
            };
            state.wanted = outcomes.iter().map(hash).collect();
            state.keeper = None;
            state.unchanged = false;
            state.norms.extend(norm);
            if state.norms.len() > limits::HISTORY {
                state.norms.pop_front();
            }
        } else {
            self.withdraw(stage);
            self.stages[index].unchanged = true;
        }
        if self.merges.iter().all(|merge| merge.step == MergeStep::Done) {
            if self.too_short() {
                // Its length says nothing: the next merge gets the longest time again.
                self.merge_times.clear();
            } else {
                self.merge_times.push_back(self.tip.now().since(clock.closed));
            }
            if self.merge_times.len() > limits::HISTORY {
                self.merge_times.pop_front();
            }
            let epoch = self.work.epoch.next();
            let last_share = clock.span(limits::READY_PERCENT - limits::HOLD_PERCENT);
            let until = clock.at(limits::READY_PERCENT).max(self.tip.now().plus(last_share));
            self.phase = Phase::Gathering { epoch, until };
        }
    }
}

impl State {
    /// Whether some stage's merge counted fewer than half of those who had trained for it and are still there: not one
    /// slow or hostile miner, but a deadline that hardly anybody could keep.
    fn too_short(&self) -> bool {
        self.merges.iter().any(|merge| {
            let trained = self.work.live(merge.stage).filter(|work| work.steps > 0).count();
            merge.set.len() * 2 < trained
        })
    }
}

fn refer_span(merge: &StageMerge) -> Millis {
    merge.clock.span(limits::REFER_PERCENT)
}

fn same_result(a: &ShardClaim, b: &ShardClaim) -> bool {
    (a.result, a.state) == (b.result, b.state)
}

/// The first claim that two nodes share.
fn agreed_claim(claims: &[(NodeId, ShardClaim)]) -> Option<ShardClaim> {
    let shared = |(at, (_, claim)): (usize, &(NodeId, ShardClaim))| {
        claims[..at].iter().any(|(_, earlier)| same_result(earlier, claim)).then_some(*claim)
    };
    claims.iter().enumerate().find_map(shared)
}

fn lower_median(values: impl Iterator<Item = f64>) -> Option<f64> {
    let mut sorted: Vec<f64> = values.collect();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len().saturating_sub(1) / 2).copied()
}
