//! What follows while an epoch trains: leases, their expiry, clip scales, the closing.

use std::collections::BTreeMap;

use wire::{Epoch, LeaseId, MicroBatch, Millis, NodeId, StageIndex, Step};

use super::merge::{MergeClock, StageMerge};
use super::work::{Cell, Lease};
use super::{Phase, Presence, State};
use crate::limits;
use crate::record::Derived;
use crate::spec::Pace;

impl State {
    pub(super) fn train_due(&self) -> Option<Derived> {
        let epoch = self.work.epoch;
        if self.epoch_is_over() {
            return Some(Derived::Closed { epoch });
        }
        self.expired_due().or_else(|| self.clip_due()).or_else(|| self.leased_due())
    }

    /// Every leased micro-batch came back or cannot any more, time is up, or a stage has nobody.
    fn epoch_is_over(&self) -> bool {
        let nothing_to_lease = self.work.open.is_empty() || self.draining;
        (nothing_to_lease && self.work.leases.is_empty())
            || self.passed(self.work.deadline)
            || self.spec.stage_indices().any(|stage| self.work.live(stage).next().is_none())
    }

    fn expired_due(&self) -> Option<Derived> {
        let gone = |node: &NodeId| self.nodes.get(node).is_none_or(|node| node.presence == Presence::Left);
        let over = |lease: &Lease| self.passed(lease.expires) || gone(&lease.node);
        let (lease, _) = self.work.leases.iter().find(|(_, lease)| over(lease))?;
        Some(Derived::Expired { lease: *lease })
    }

    fn leased_due(&self) -> Option<Derived> {
        if self.draining {
            return None;
        }
        let (node, count) = self.grantable()?;
        let grad_mask = self.open_mask(*self.work.open.first()?);
        let same = self.work.open.iter().copied().filter(|id| self.open_mask(*id) == grad_mask);
        let micro_batches = same.take(count).collect();
        Some(Derived::Leased { lease: LeaseId(self.next_lease), node, micro_batches, grad_mask })
    }

    /// The first head that may have what it wants, or a part of it: no more than its share, by capacity, of all that is open
    /// or leased, so that at the end of an epoch nobody waits for a slow head that took more. Heads count that want some or
    /// hold some, and at first those that have not spoken yet.
    fn grantable(&self) -> Option<(NodeId, usize)> {
        let work = &self.work;
        if work.wants.is_empty() || work.open.is_empty() {
            return None;
        }
        let mut held: BTreeMap<NodeId, usize> = BTreeMap::new();
        for lease in work.leases.values() {
            *held.entry(lease.node).or_default() += lease.micro_batches.len();
        }
        let silent_count = !self.passed(self.silent_heads_count_until());
        let heads: BTreeMap<NodeId, (usize, u128)> = work
            .live(StageIndex(0))
            .map(|work| (work.member.node, u128::from(work.member.capacity.max(1))))
            .filter(|(node, _)| silent_count || held.contains_key(node) || work.wants.contains_key(node))
            .map(|(node, capacity)| (node, (held.get(&node).copied().unwrap_or(0), capacity)))
            .collect();
        let all = work.open.len() + heads.values().map(|(held, _)| held).sum::<usize>();
        let capacity: u128 = heads.values().map(|(_, capacity)| capacity).sum();
        work.wants.iter().find_map(|(node, want)| {
            let (held, own) = heads.get(node)?;
            let share = (all as u128 * own).div_ceil(capacity) as usize;
            let most = usize::from(*want).min(limits::LEASE_MICRO_BATCHES_MAX as usize);
            let count = share.saturating_sub(*held).min(most);
            (count > 0).then_some((*node, count))
        })
    }

    fn silent_heads_count_until(&self) -> Millis {
        self.work.opened.plus(self.spec.heartbeat)
    }

    fn open_mask(&self, micro_batch: MicroBatch) -> u64 {
        let cells = self.work.paths.get(&micro_batch).map_or(&[][..], |path| &path.cells);
        let open = cells.iter().enumerate().filter(|(_, cell)| **cell == Cell::Open);
        open.fold(0, |mask, (stage, _)| mask | 1 << stage)
    }

    /// Lock-step: once every stage sent its squares of a step, the scale over the whole model's norm.
    pub(super) fn clip_due(&self) -> Option<Derived> {
        let Pace::Lockstep { clip_norm } = self.spec.pace else { return None };
        let (step, stages) =
            self.work.squares.iter().find(|(_, stages)| stages.len() == self.stage_count())?;
        // Declared order: stages from the head, units in stage order, one f64 sum.
        let norm = stages.values().flatten().fold(0.0, |sum, square| sum + square).sqrt();
        let scale = if norm > clip_norm { ((clip_norm / norm) as f32).max(f32::MIN_POSITIVE) } else { 1.0 };
        Some(Derived::Clipped { epoch: self.work.epoch, step: *step, scale })
    }

    pub(super) fn train_deadlines(&self) -> Vec<Millis> {
        let leases = self.work.leases.values().map(|lease| lease.expires);
        leases.chain([self.work.deadline, self.silent_heads_count_until()]).collect()
    }

    pub(super) fn apply_leased(
        &mut self,
        id: LeaseId,
        node: &NodeId,
        micro_batches: &[MicroBatch],
        grad_mask: u64,
    ) {
        self.next_lease = id.0 + 1;
        self.work.wants.remove(node);
        for micro_batch in micro_batches {
            self.work.open.remove(micro_batch);
            let Some(path) = self.work.paths.get_mut(micro_batch) else { continue };
            path.lease = Some(id);
            path.head = Some(*node);
            path.grad_mask = grad_mask;
            path.ever_leased |= grad_mask;
            for (stage, cell) in path.cells.iter_mut().enumerate() {
                if *cell == Cell::Open && grad_mask >> stage & 1 == 1 {
                    *cell = Cell::Leased;
                }
            }
        }
        let granter = self.spec.lease_ttl.0.saturating_mul(limits::LEASE_GRANTER_PERCENT).div_ceil(100);
        self.work.leases.insert(
            id,
            Lease {
                node: *node,
                grad_mask,
                granted: self.tip.now(),
                expires: self.tip.now().plus(Millis(granter)),
                micro_batches: micro_batches.iter().copied().collect(),
            },
        );
    }

    pub(super) fn apply_expired(&mut self, id: LeaseId) {
        let Some(lease) = self.work.leases.remove(&id) else { return };
        for micro_batch in lease.micro_batches {
            let Some(path) = self.work.paths.get_mut(&micro_batch) else { continue };
            path.lease = None;
            for cell in &mut path.cells {
                if *cell == Cell::Leased {
                    *cell = Cell::Open;
                    self.work.open.insert(micro_batch);
                }
            }
        }
    }

    pub(super) fn apply_clipped(&mut self, step: Step, scale: f32) {
        self.work.squares.remove(&step);
        self.work.clips.insert(step, scale);
    }

    pub(super) fn apply_closed(&mut self) {
        let epoch = self.work.epoch;
        self.work.closed = Some(self.tip.now());
        self.work.open.clear();
        self.work.leases.clear();
        self.work.wants.clear();
        self.measure();
        let clock = MergeClock { closed: self.tip.now(), deadline: self.merge_deadline_span() };
        let stages = self.spec.stage_indices();
        self.merges = stages.map(|stage| StageMerge::new(epoch, stage, clock)).collect();
        self.phase = Phase::Merging { epoch };
    }

    /// D: three times the median of the last merges, within the spec's bounds (protocol §1.2 "Deadlines").
    fn merge_deadline_span(&self) -> Millis {
        let merge = &self.spec.merge;
        let mut times: Vec<Millis> = self.merge_times.iter().copied().collect();
        times.sort_unstable();
        let Some(median) = times.get(times.len().saturating_sub(1) / 2) else { return merge.deadline_max };
        Millis(median.0.saturating_mul(3)).clamp(merge.deadline_min, merge.deadline_max)
    }

    /// Takes each member's rate from what it reported.
    fn measure(&mut self) {
        for work in &self.work.members {
            if work.busy.0 == 0 || work.thirds < 3 {
                continue;
            }
            let node = self.nodes.get_mut(&work.member.node);
            if let Some(node) = node.filter(|node| node.stage == Some(work.member.stage)) {
                node.measured = Some(rate(work.thirds, work.busy, node.measured));
            }
        }
    }

    pub(super) fn is_current(&self, epoch: Epoch) -> bool {
        self.work.epoch == epoch && matches!(self.phase, Phase::Training { .. } | Phase::Merging { .. })
    }
}

/// Micro-batches per 1000 s of who did so many thirds of one in so much time. What was known before counts as a few
/// micro-batches more, but for no more time than this, so that an epoch says nearly all and nobody stays what it was once.
fn rate(thirds: u64, busy: Millis, known: Option<u64>) -> u64 {
    // Millionths of thirds, in milliseconds.
    let (mut done, mut time) = (u128::from(thirds) * 1_000_000, u128::from(busy.0));
    if let Some(known) = known.map(|known| u128::from(known.max(1))) {
        let before = (u128::from(limits::RATE_MEMORY_MICRO_BATCHES) * 1_000_000 / known).min(time);
        (done, time) = (done + 3 * known * before, time + before);
    }
    u64::try_from(done / (3 * time.max(1))).unwrap_or(u64::MAX).clamp(1, 1 << 40)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_follows_who_becomes_slow_and_who_becomes_fast() {
        // 16 micro-batches in 16 s: 1000 in 1000 s.
        assert_eq!(rate(48, Millis(16_000), None), 1000);
        assert_eq!(rate(48, Millis(16_000), Some(1000)), 1000);
        assert_eq!(rate(48, Millis(64_000), Some(1000)), 272, "a quarter, nearly");
        assert_eq!(rate(48, Millis(16_000), Some(250)), 750);
        // One micro-batch of who had been a hundred times as slow.
        assert_eq!(rate(3, Millis(1000), Some(10)), 505);
        assert_eq!(rate(3, Millis(1), Some(u64::MAX)), 1_000_000);
        assert_eq!(rate(0, Millis(0), None), 1);
    }
}
