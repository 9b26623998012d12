//! Leases asked for, work reported, squares sent (protocol §2.2).

use wire::{Direction, Epoch, NodeId, StageIndex};

use super::accept::{limit, not_now, number, require};
use super::work::Cell;
use super::{MergeStep, Phase, State};
use crate::limits;
use crate::record::{Traffic, Work, WorkItem};
use crate::refusal::Refusal;
use crate::spec::Pace;

impl State {
    pub(super) fn check_lease_request(
        &self,
        sender: &NodeId,
        epoch: Epoch,
        want: u16,
    ) -> Result<(), Refusal> {
        self.check_epoch(epoch)?;
        let Phase::Training { .. } = self.phase else { return Err(not_now("training is over")) };
        let member = self.work.get(sender).filter(|work| work.live).ok_or(Refusal::NotMember)?;
        match () {
            () if member.member.stage != StageIndex(0) => Err(Refusal::NotHead),
            () if self.draining => Err(not_now("the run ends after this epoch")),
            () => number("want", want > 0),
        }
    }

    pub(super) fn check_work(&self, sender: &NodeId, work: &Work) -> Result<(), Refusal> {
        if work.epoch != self.work.epoch || self.work.members.is_empty() {
            return Err(Refusal::WrongEpoch { theirs: work.epoch, ours: self.epoch() });
        }
        let member = self.work.get(sender).filter(|work| work.live).ok_or(Refusal::NotMember)?;
        if work.seq != member.next_report {
            return Err(Refusal::OutOfTurn { theirs: work.seq, expected: member.next_report });
        }
        limit("items", work.items.len(), limits::WORK_ITEMS_MAX)?;
        limit("steps", work.steps.len(), limits::WORK_STEPS_MAX)?;
        limit("hops", work.hops.len(), limits::HOPS_MAX)?;
        let stage = member.member.stage;
        let open = match self.phase {
            Phase::Training { .. } => true,
            Phase::Merging { .. } => self
                .merge(stage)
                .is_some_and(|merge| merge.step == MergeStep::Commit && !merge.commits.contains_key(sender)),
            _ => false,
        };
        let nothing = work.items.is_empty() && work.steps.is_empty();
        require(open || nothing, || not_now("no gradient may be added any more"))?;
        for item in &work.items {
            self.check_micro_batch(item.micro_batch)?;
            if let Some(loss) = item.loss {
                number("loss", (0.0..=limits::LOSS_MAX).contains(&loss) && stage == self.spec.tail())?;
            }
        }
        let closed = self.work.closed.is_some();
        for (at, step) in work.steps.iter().enumerate() {
            let expected = wire::Step(member.steps + at as u32);
            if step.step != expected {
                return Err(Refusal::StepOutOfTurn { theirs: step.step, expected });
            }
            limit("inner steps", step.step.0 as usize + 1, self.steps_max() as usize)?;
            number("clip", step.clip > 0.0 && step.clip <= 1.0)?;
            let (found, expected) = (step.items.len() as u32, member.member.accumulate);
            let last = closed && at + 1 == work.steps.len();
            let least = if last { expected.div_ceil(2) } else { expected };
            require((least..=expected).contains(&found), || Refusal::StepSize { found, expected })?;
            if let Pace::Lockstep { .. } = self.spec.pace {
                let agreed =
                    self.work.clips.get(&step.step).ok_or_else(|| not_now("clip scale not known"))?;
                number("clip", agreed.to_bits() == step.clip.to_bits())?;
            }
            step.items.iter().try_for_each(|(id, _)| self.check_micro_batch(*id))?;
        }
        Ok(())
    }

    pub(super) fn check_micro_batch(&self, micro_batch: wire::MicroBatch) -> Result<(), Refusal> {
        if self.work.paths.contains_key(&micro_batch) {
            return Ok(());
        }
        Err(Refusal::UnknownMicroBatch { micro_batch })
    }

    pub(super) fn check_squares(
        &self,
        sender: &NodeId,
        epoch: Epoch,
        step: wire::Step,
        sums: &[f64],
    ) -> Result<(), Refusal> {
        let Pace::Lockstep { .. } = self.spec.pace else { return Err(not_now("only in lock-step")) };
        self.check_epoch(epoch)?;
        let member = self.work.get(sender).filter(|work| work.live).ok_or(Refusal::NotMember)?;
        let stage = member.member.stage;
        if self.merge(stage).is_some_and(|m| self.work.closed.is_some() && m.step > MergeStep::Commit) {
            return Err(not_now("commits are closed"));
        }
        if step.0 != member.steps {
            return Err(Refusal::StepOutOfTurn { theirs: step, expected: wire::Step(member.steps) });
        }
        limit("units", sums.len(), limits::UNITS_MAX)?;
        number("sum of squares", sums.iter().all(|sum| sum.is_finite() && *sum >= 0.0))?;
        let said = self.work.squares.get(&step).is_some_and(|stages| stages.contains_key(&stage));
        if said || self.work.clips.contains_key(&step) {
            return Err(Refusal::Repeated { what: "squares of this step".to_owned() });
        }
        Ok(())
    }

    pub(super) fn fold_work(&mut self, sender: &NodeId, report: &Work) {
        let Some(position) = self.work.index.get(sender).copied() else { return };
        let closed = self.work.closed.is_some();
        let work = &mut self.work.members[usize::from(position)];
        work.next_report += 1;
        work.finished |= closed;
        work.busy = work.busy.plus(report.busy);
        let stage = work.member.stage;
        let mut surplus = 0;
        for item in &report.items {
            surplus += u32::from(!self.fold_item(sender, position, stage, item));
        }
        for commit in &report.steps {
            let mut counted = 0;
            for (id, _) in &commit.items {
                let cell = self.work.paths.get_mut(id).and_then(|p| p.cells.get_mut(usize::from(stage.0)));
                match cell {
                    Some(cell) if *cell == (Cell::Accumulated { member: position }) => {
                        *cell = Cell::Stepped { member: position, step: commit.step };
                        counted += 1;
                    }
                    _ => surplus += 1,
                }
            }
            let work = &mut self.work.members[usize::from(position)];
            work.steps += 1;
            work.stepped += counted;
            work.accumulated = work.accumulated.saturating_sub(counted);
        }
        self.work.members[usize::from(position)].surplus += surplus;
        for hop in &report.hops {
            if let Some(node) = self.nodes.get_mut(&hop.node) {
                node.busy += u64::from(hop.busy);
                node.failed += u64::from(hop.failed);
            }
        }
        self.add_traffic(sender, &report.traffic);
        if let Some(node) = self.nodes.get_mut(sender) {
            node.strikes += u64::from(surplus);
        }
    }

    pub(super) fn add_traffic(&mut self, sender: &NodeId, traffic: &Traffic) {
        self.work.traffic.add(traffic);
        self.totals.traffic.add(traffic);
        if let Some(node) = self.nodes.get_mut(sender) {
            node.traffic.add(traffic);
        }
    }

    /// Folds one item; false if it was reported without a right to.
    fn fold_item(&mut self, sender: &NodeId, position: u16, stage: StageIndex, item: &WorkItem) -> bool {
        // Only the first three candidates may take a micro-batch. Live members only become fewer, so whoever was among
        // the three when it was asked still is.
        let routed = item.direction == Direction::Forward
            || stage == StageIndex(0)
            || self.route(item.micro_batch, stage).contains(sender);
        let work = &mut self.work.members[usize::from(position)];
        work.thirds += if item.direction == Direction::Forward { 1 } else { 2 };
        let Some(path) = self.work.paths.get_mut(&item.micro_batch) else { return false };
        if path.lease != Some(item.lease) {
            return false;
        }
        if let Some(loss) = item.loss.filter(|_| !path.loss_counted) {
            path.loss_counted = true;
            let micro_nats = (f64::from(loss) * 1e6).round() as u64;
            self.work.loss_micro_nats += micro_nats;
            self.codecs.loss(&self.work.seed, item.micro_batch, micro_nats);
            self.work.loss_count += 1;
            self.totals.tokens = self.totals.tokens.saturating_add(self.spec.tokens_per_micro_batch);
        }
        if item.direction == Direction::Forward {
            return true;
        }
        let head = stage == StageIndex(0);
        if head && path.head != Some(*sender) {
            return false;
        }
        let counts = path.grad_mask >> stage.0 & 1 == 1;
        let mut rightful = true;
        if counts {
            let cell = &mut path.cells[usize::from(stage.0)];
            rightful = *cell == Cell::Leased && routed;
            if rightful {
                *cell = Cell::Accumulated { member: position };
                work.accumulated += 1;
            }
        }
        if head && !path.returned {
            path.returned = true;
            if let Some(lease) = self.work.leases.get_mut(&item.lease) {
                lease.micro_batches.remove(&item.micro_batch);
                if lease.micro_batches.is_empty() {
                    self.work.leases.remove(&item.lease);
                }
            }
        }
        rightful
    }
}
