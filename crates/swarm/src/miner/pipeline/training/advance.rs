//! What a training miner does next: drop what is late, start, send, compute, close, report.

use super::{
    Action, Closing, Direction, Item, Job, LockOrder, MergeStep, MicroBatch, Millis, Outbox, Phase, Squares,
    StageIndex, State, Step, Training,
};

impl Training {
    /// Does everything that can be done now.
    pub(in super::super) fn advance(
        &mut self,
        now: Millis,
        out: &mut Outbox,
        state: &State,
        job: &mut Option<Job>,
        draining: bool,
    ) {
        if self.closing == Closing::No {
            self.expire(now, out, job.as_ref());
            self.start();
            self.send(now, out, state);
        } else {
            self.stop(out, job.as_ref());
        }
        if job.is_none()
            && let Some(next) = self.next_job(now, out, state)
        {
            *job = Some(next);
            out.push(Action::Compute(next));
        }
        self.ask(now, out, draining);
        self.state_work(now, out);
    }

    /// Drops what is past its time; an item under computation is dropped when it comes back.
    fn expire(&mut self, now: Millis, out: &mut Outbox, job: Option<&Job>) {
        self.granted.retain(|grant| now < grant.deadline && !grant.micro_batches.is_empty());
        let busy = job.and_then(Job::item);
        let late: Vec<Item> = self
            .items
            .open
            .iter()
            .filter(|(item, entry)| now >= entry.deadline && busy != Some(**item))
            .map(|(item, _)| *item)
            .collect();
        for item in late {
            self.drop_item(out, item);
        }
    }

    /// The epoch is closed: nothing but the gradient that is already there counts.
    fn stop(&mut self, out: &mut Outbox, job: Option<&Job>) {
        self.granted.clear();
        let busy = job.and_then(Job::item);
        let open: Vec<Item> = self.items.open.keys().filter(|item| busy != Some(**item)).copied().collect();
        for item in open {
            self.drop_item(out, item);
        }
    }

    /// A head takes granted micro-batches in order, those of a draining node too: nobody else may before the lease is
    /// over.
    fn start(&mut self) {
        while self.items.open.len() < self.settings.in_flight {
            let steps = self.steps;
            let admits = |micro_batch: &MicroBatch| {
                self.order
                    .as_ref()
                    .is_none_or(|order| order.step_of(*micro_batch, self.member.accumulate) <= steps)
            };
            let next = self
                .granted
                .iter()
                .enumerate()
                .filter_map(|(at, grant)| grant.micro_batches.first().map(|first| (*first, at)))
                .min()
                .filter(|(micro_batch, _)| admits(micro_batch));
            let Some((micro_batch, at)) = next else { return };
            let grant = &mut self.granted[at];
            grant.micro_batches.remove(&micro_batch);
            let item = Item { micro_batch, lease: grant.lease };
            if !self.items.has_seen(&item) && self.items.rival(&item).is_none() {
                self.items.insert(item, grant.deadline, grant.grad_mask, None);
            }
        }
    }

    fn send(&mut self, now: Millis, out: &mut Outbox, state: &State) {
        for (item, entry) in &mut self.items.open {
            let Phase::Sending(sending) = &mut entry.phase else { continue };
            if sending.asked.is_some() || now < sending.at {
                continue;
            }
            let to = match sending.direction {
                Direction::Forward => {
                    let next = StageIndex(self.member.stage.0 + 1);
                    state.route(item.micro_batch, next).get(usize::from(sending.rank)).copied()
                }
                Direction::Backward => entry.from,
            };
            let Some(to) = to else {
                sending.back_off(now);
                continue;
            };
            sending.asked = Some(to);
            out.push(Action::Send {
                item: *item,
                direction: sending.direction,
                to,
                epoch: self.epoch,
                ttl: entry.deadline.since(now),
                grad_mask: entry.grad_mask,
                version: entry.version,
                loss: if sending.direction == Direction::Backward { entry.loss } else { None },
            });
        }
    }

    fn next_job(&mut self, now: Millis, out: &mut Outbox, state: &State) -> Option<Job> {
        match self.closing {
            Closing::No => {}
            Closing::LastStep => {
                if self.deserves_last_step(state) {
                    return self.step_job(state, true);
                }
                if !self.accumulated.is_empty() {
                    self.accumulated.clear();
                    out.push(Action::Compute(Job::Clear));
                }
                self.closing = Closing::Reporting;
                return None;
            }
            Closing::Reporting | Closing::Done => return None,
        }
        if self.step_is_full() {
            if self.settings.stash == 0 && self.items.oldest_version().is_some() {
                return self.backward_job(now);
            }
            let job = self.step_job(state, false);
            if job.is_some() || self.order.is_some() {
                return job;
            }
        }
        self.backward_job(now).or_else(|| self.forward_job())
    }

    fn step_is_full(&self) -> bool {
        if self.steps >= self.steps_max {
            return false;
        }
        let full = self.accumulated.len() >= self.member.accumulate as usize;
        let last = self.order.as_ref().is_some_and(|order| order.next == order.micro_batches.len());
        full || last && !self.accumulated.is_empty()
    }

    /// The step under way, as soon as what it needs is there.
    fn step_job(&self, state: &State, root: bool) -> Option<Job> {
        let step = Step(self.steps);
        let Some(order) = &self.order else { return Some(Job::Step { step, scale: None, root }) };
        match order.squares {
            // The log must know of the step before.
            Squares::Filling if !self.report.steps.is_empty() => None,
            Squares::Filling => Some(Job::Squares { step }),
            Squares::Stated => {
                state.clip_scale(step).map(|scale| Job::Step { step, scale: Some(scale), root })
            }
        }
    }

    /// After the closing: the gradient that is there makes a step if it is at least half full, and in lock-step only
    /// as long as its scale can come.
    fn deserves_last_step(&self, state: &State) -> bool {
        let half = self.accumulated.len() * 2 >= self.member.accumulate as usize;
        let merge = state.merge(self.member.stage);
        let in_time = merge.is_none_or(|merge| merge.step == MergeStep::Commit);
        half && !self.accumulated.is_empty()
            && self.steps < self.steps_max
            && (self.order.is_none() || in_time)
    }

    fn backward_job(&self, now: Millis) -> Option<Job> {
        let item = self.items.first(Phase::Backward, |item, entry| {
            let turn = self.order.as_ref().is_none_or(|order| order.is_next(item.micro_batch));
            now < entry.deadline && (turn || !self.accumulates(entry.grad_mask))
        })?;
        let grad_mask = self.items.open.get(&item)?.grad_mask;
        Some(Job::Backward { item, accumulate: self.accumulates(grad_mask) })
    }

    /// With a stash at most two versions are open: none is run under v + 1 while one of v − 1 waits for its gradient.
    /// Without one no more are begun than the step takes: it waits for them all.
    fn forward_job(&mut self) -> Option<Job> {
        let stash = self.settings.stash;
        let open = || self.items.graphs().filter(|entry| self.accumulates(entry.grad_mask)).count();
        if self.items.oldest_version().is_some_and(|oldest| oldest + stash < self.steps)
            || stash == 0 && self.accumulated.len() + open() >= self.member.accumulate as usize
        {
            return None;
        }
        let (steps, accumulate) = (self.steps, self.member.accumulate);
        let admits = |item: &Item| {
            self.order.as_ref().is_none_or(|order| order.step_of(item.micro_batch, accumulate) <= steps)
        };
        let item = self.items.first(Phase::Forward, |item, _| admits(item))?;
        self.items.open.get_mut(&item)?.version = steps;
        Some(Job::Forward(item))
    }

    /// Micro-batches that a head wants leased: half its slots beyond those it could start now, so that none is empty while
    /// an answer is on its way; 0 while less than half of its slots' number is missing.
    pub(super) fn wants(&self) -> usize {
        if self.member.stage != StageIndex(0) || self.closing != Closing::No {
            return 0;
        }
        let slots = self.settings.in_flight;
        let waiting: usize = self.granted.iter().map(|grant| grant.micro_batches.len()).sum();
        let missing = (slots + slots.div_ceil(2)).saturating_sub(self.items.open.len() + waiting);
        if missing * 2 >= slots { missing } else { 0 }
    }

    fn ask(&mut self, now: Millis, out: &mut Outbox, draining: bool) {
        let want = self.wants();
        if want > 0 && !draining {
            let want = want.min(usize::from(u16::MAX)) as u16;
            self.wish.make(now, out, self.epoch, want, self.lease_retry);
        }
    }

    fn state_work(&mut self, now: Millis, out: &mut Outbox) {
        let free =
            self.settings.queue.saturating_sub(self.items.open.len()).min(usize::from(u16::MAX)) as u16;
        match self.closing {
            Closing::No => {
                // The last micro-batch is back: the epoch may close without waiting for a heartbeat.
                let head = self.member.stage == StageIndex(0);
                let idle = self.items.open.is_empty() && self.granted.is_empty();
                let last_is_back = head && idle && !self.report.items.is_empty();
                let stepped = self.order.is_some() && !self.report.steps.is_empty();
                self.report.make(now, out, last_is_back || stepped, free);
            }
            Closing::LastStep => {
                if self.order.is_some() && !self.report.steps.is_empty() {
                    self.report.make(now, out, true, free);
                }
            }
            Closing::Done => {}
            Closing::Reporting => {
                self.report.finish(now, out, free);
                self.closing = Closing::Done;
                out.push(Action::Done { epoch: self.epoch, steps: self.steps });
            }
        }
    }
}

impl LockOrder {
    /// Step that a micro-batch belongs to.
    fn step_of(&self, micro_batch: MicroBatch, accumulate: u32) -> u32 {
        let position = self.micro_batches.partition_point(|other| *other < micro_batch);
        (position / accumulate.max(1) as usize) as u32
    }

    fn is_next(&self, micro_batch: MicroBatch) -> bool {
        self.micro_batches.get(self.next) == Some(&micro_batch)
    }
}

impl Job {
    /// The item that the job works on.
    pub fn item(&self) -> Option<Item> {
        match self {
            Self::Forward(item) | Self::Backward { item, .. } | Self::Discard(item) => Some(*item),
            Self::Squares { .. } | Self::Step { .. } | Self::Clear => None,
        }
    }
}
