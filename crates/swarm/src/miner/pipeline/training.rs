//! One epoch of training at one node.

use std::collections::BTreeSet;

use wire::{Direction, Epoch, LeaseId, MicroBatch, Millis, NodeId, StageIndex, Step};

use super::items::{Items, Phase, Sending};
use super::report::{Report, Wish};
use super::{Action, Answer, Computed, Job, Membership, Offer, Outbox, Refused, Sent, Settings, item_of};
use crate::limits::LEASE_HOLDER_PERCENT;
use crate::miner::{Item, Token};
use crate::record::{Member, Statement, StepCommit, WorkItem};
use crate::spec::Pace;
use crate::state::{MergeStep, State};

/// What lives for one epoch.
#[derive(Debug)]
pub(super) struct Training {
    epoch: Epoch,
    member: Member,
    tail: bool,
    settings: Settings,
    items: Items,
    /// A head's micro-batches that it has not started, by lease.
    granted: Vec<Grant>,
    known_leases: BTreeSet<LeaseId>,
    wish: Wish,
    report: Report,
    /// Inner steps taken: the version of the weights.
    steps: u32,
    /// Items in the gradient, in the order they were added.
    accumulated: Vec<Item>,
    /// Lock-step only.
    order: Option<LockOrder>,
    /// Most inner steps that an epoch allows.
    steps_max: u32,
    closing: Closing,
    /// Pause between requests for leases that do not come.
    lease_retry: Millis,
}

/// Micro-batches of a lease that wait to be started.
#[derive(Debug)]
struct Grant {
    lease: LeaseId,
    grad_mask: u64,
    deadline: Millis,
    micro_batches: BTreeSet<MicroBatch>,
}

/// Lock-step: gradients are added in this order, a fixed number per step.
#[derive(Debug)]
struct LockOrder {
    micro_batches: Vec<MicroBatch>,
    /// Position of the next one to be added.
    next: usize,
    squares: Squares,
}

/// Lock-step: where the clip scale of the step under way is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Squares {
    /// The step is not full.
    Filling,
    /// Stated; the scale comes with the log.
    Stated,
}

/// How far the end of the epoch is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Closing {
    /// Training.
    No,
    /// Closed in the log: the last step is taken or dropped.
    LastStep,
    /// The last report is due.
    Reporting,
    /// Over.
    Done,
}

impl Training {
    pub(super) fn new(now: Millis, settings: &Settings, membership: &Membership, state: &State) -> Self {
        let member = membership.member;
        let order = match state.spec().pace {
            Pace::Async => None,
            Pace::Lockstep { .. } => {
                let micro_batches = state.paths().keys().copied().collect();
                Some(LockOrder { micro_batches, next: 0, squares: Squares::Filling })
            }
        };
        Self {
            epoch: membership.epoch,
            member,
            tail: member.stage == state.spec().tail(),
            settings: *settings,
            items: Items::default(),
            granted: Vec::new(),
            known_leases: BTreeSet::new(),
            wish: Wish::default(),
            report: Report::new(now, membership.epoch, state.spec().heartbeat),
            steps: 0,
            accumulated: Vec::new(),
            order,
            steps_max: state.steps_max(),
            closing: Closing::No,
            lease_retry: state.spec().heartbeat,
        }
    }

    pub(super) fn epoch(&self) -> Epoch {
        self.epoch
    }

    pub(super) fn stage(&self) -> StageIndex {
        self.member.stage
    }

    pub(super) fn is_done(&self) -> bool {
        self.closing == Closing::Done
    }

    pub(super) fn next_deadline(&self) -> Option<Millis> {
        let grants = self.granted.iter().map(|grant| grant.deadline).min();
        let wish = if self.wants() > 0 { self.wish.next_deadline() } else { None };
        [self.items.next_deadline(), grants, wish, self.report.due_at()].into_iter().flatten().min()
    }

    /// The node is out of the epoch: everything open is dropped.
    pub(super) fn abandon(&mut self, out: &mut Outbox) {
        for item in std::mem::take(&mut self.items.open).into_keys() {
            // Also where the forward is still out: the discard runs behind it.
            out.push(Action::Compute(Job::Discard(item)));
            out.push(Action::Release(item));
        }
        out.push(Action::Compute(Job::Clear));
    }

    pub(super) fn on_log(&mut self, now: Millis, membership: &Membership, state: &State) {
        if self.member.stage == StageIndex(0) {
            for (id, lease) in state.leases_of(self.member.node) {
                if self.known_leases.insert(id) {
                    let asked = self.wish.granted(now);
                    let time = Millis(state.spec().lease_ttl.0 * LEASE_HOLDER_PERCENT / 100);
                    self.granted.push(Grant {
                        lease: id,
                        grad_mask: lease.grad_mask,
                        deadline: asked.plus(time),
                        micro_batches: lease.micro_batches.clone(),
                    });
                }
            }
        }
        if !membership.open && self.closing == Closing::No {
            self.closing = Closing::LastStep;
        }
    }

    pub(super) fn on_answered(&mut self, token: Token, accepted: bool) {
        if !self.report.on_answered(token, accepted) {
            self.wish.on_answered(token);
        }
    }

    /// Whether an offered frame is taken.
    pub(super) fn consider(
        &mut self,
        now: Millis,
        out: &mut Outbox,
        frame: &Offer,
        state: &State,
        draining: bool,
        job: Option<&Job>,
    ) -> Result<Answer, Refused> {
        if self.closing != Closing::No {
            return Err(Refused::Epoch);
        }
        match frame.direction {
            Direction::Forward => self.consider_forward(now, out, frame, state, draining, job),
            Direction::Backward => self.consider_backward(now, frame),
        }
    }

    fn consider_forward(
        &mut self,
        now: Millis,
        out: &mut Outbox,
        frame: &Offer,
        state: &State,
        draining: bool,
        job: Option<&Job>,
    ) -> Result<Answer, Refused> {
        let item = item_of(frame);
        let sender = state.member(&frame.from).filter(|work| work.live).ok_or(Refused::Neighbour)?.member;
        if sender.stage != frame.stage || frame.stage.0 + 1 != self.member.stage.0 {
            return Err(Refused::Neighbour);
        }
        if self.items.has_seen(&item) {
            return Err(Refused::Duplicate);
        }
        let path = state.paths().get(&frame.micro_batch).filter(|path| path.lease == Some(frame.lease));
        let path = path.filter(|path| !path.returned).ok_or(Refused::Lease)?;
        let lease = state.leases().get(&frame.lease).ok_or(Refused::Lease)?;
        if path.grad_mask != frame.grad_mask || (sender.stage.0 == 0 && lease.node != frame.from) {
            return Err(Refused::Lease);
        }
        let time = state.spec().lease_ttl.0 * LEASE_HOLDER_PERCENT / 100;
        if frame.ttl.0 == 0 {
            return Err(Refused::Expired);
        }
        if let Some(rival) = self.items.rival(&item) {
            // The log has the micro-batch under another lease now: this one is over.
            if job.is_some_and(|job| job.item() == Some(rival)) {
                return Ok(Answer::Busy);
            }
            self.drop_item(out, rival);
        }
        if draining || self.items.open.len() >= self.settings.queue {
            return Ok(Answer::Busy);
        }
        let deadline = now.plus(Millis(frame.ttl.0.min(time)));
        self.items.insert(item, deadline, frame.grad_mask, Some(frame.from));
        Ok(Answer::Accept)
    }

    fn consider_backward(&mut self, now: Millis, frame: &Offer) -> Result<Answer, Refused> {
        let entry = self.items.open.get_mut(&item_of(frame)).ok_or(Refused::Unknown)?;
        let taken_by = match entry.phase {
            Phase::Gradient => entry.to,
            // Its answer to our frame is still on the way.
            Phase::Sending(Sending { direction: Direction::Forward, asked, .. }) => asked,
            Phase::Backward | Phase::Sending(_) => return Err(Refused::Duplicate),
            Phase::Forward => None,
        };
        if taken_by != Some(frame.from) {
            return Err(Refused::Unknown);
        }
        if now >= entry.deadline {
            return Err(Refused::Expired);
        }
        entry.to = taken_by;
        entry.phase = Phase::Backward;
        entry.loss = frame.loss;
        Ok(Answer::Accept)
    }

    pub(super) fn on_sent(
        &mut self,
        now: Millis,
        out: &mut Outbox,
        item: Item,
        direction: Direction,
        to: NodeId,
        outcome: Sent,
    ) {
        match outcome {
            Sent::Busy => self.report.busy(to),
            Sent::Failed => self.report.failed(to),
            Sent::Accepted | Sent::Refused => {}
        }
        let Some(entry) = self.items.open.get_mut(&item) else { return };
        let Phase::Sending(sending) = &mut entry.phase else { return };
        if sending.direction != direction || sending.asked != Some(to) {
            return;
        }
        sending.asked = None;
        match (direction, outcome) {
            (Direction::Forward, Sent::Accepted) => {
                entry.to = Some(to);
                entry.phase = Phase::Gradient;
            }
            (Direction::Forward, Sent::Busy | Sent::Failed) => sending.rank += 1,
            // Nobody will take an item that one refuses for good: wrong lease, epoch or time.
            (Direction::Forward, Sent::Refused) => self.drop_item(out, item),
            (Direction::Backward, Sent::Accepted | Sent::Refused) => {
                self.items.open.remove(&item);
                out.push(Action::Release(item));
            }
            (Direction::Backward, Sent::Busy | Sent::Failed) => sending.back_off(now),
        }
    }

    pub(super) fn on_computed(&mut self, now: Millis, out: &mut Outbox, computed: Computed) {
        match computed {
            Computed::Forward { item, loss } => self.forward_done(now, out, item, loss),
            Computed::Backward(item) => self.backward_done(now, out, item),
            Computed::Failed(item) => self.drop_item(out, item),
            Computed::Squares { step, sums } => {
                out.state(Statement::Squares { epoch: self.epoch, step, sums });
                if let Some(order) = &mut self.order {
                    order.squares = Squares::Stated;
                }
            }
            Computed::Stepped { step, clip, root } => {
                let items = self.accumulated.drain(..).map(|item| (item.micro_batch, item.lease)).collect();
                self.report.steps.push(StepCommit { step, items, clip, weights_root: root });
                self.steps += 1;
                if let Some(order) = &mut self.order {
                    order.squares = Squares::Filling;
                }
            }
            Computed::Diverged { .. } => self.accumulated.clear(),
        }
    }

    fn forward_done(&mut self, now: Millis, out: &mut Outbox, item: Item, loss: Option<f32>) {
        let Some(entry) = self.items.open.get_mut(&item) else {
            out.push(Action::Compute(Job::Discard(item)));
            return;
        };
        entry.loss = loss;
        entry.phase =
            if self.tail { Phase::Backward } else { Phase::Sending(Sending::new(Direction::Forward, now)) };
        let (version, direction) = (entry.version, Direction::Forward);
        let Item { micro_batch, lease } = item;
        self.report.items.push(WorkItem { micro_batch, lease, direction, version, loss });
    }

    fn backward_done(&mut self, now: Millis, out: &mut Outbox, item: Item) {
        let Some(entry) = self.items.open.get_mut(&item) else { return };
        let (version, direction, loss) = (entry.version, Direction::Backward, entry.loss);
        let grad_mask = entry.grad_mask;
        if entry.from.is_some() {
            entry.phase = Phase::Sending(Sending::new(Direction::Backward, now));
        } else {
            self.items.open.remove(&item);
            out.push(Action::Release(item));
        }
        if self.accumulates(grad_mask) {
            self.accumulated.push(item);
            if let Some(order) = &mut self.order {
                order.next += 1;
            }
        }
        let Item { micro_batch, lease } = item;
        let loss = loss.filter(|_| self.tail);
        self.report.items.push(WorkItem { micro_batch, lease, direction, version, loss });
    }

    /// Whether this node adds the gradient of items with this mask. Once it has taken all the steps that an epoch
    /// allows, it only passes gradients on.
    fn accumulates(&self, grad_mask: u64) -> bool {
        self.steps < self.steps_max && grad_mask >> self.member.stage.0 & 1 == 1
    }

    fn drop_item(&mut self, out: &mut Outbox, item: Item) {
        let Some(entry) = self.items.open.remove(&item) else { return };
        if entry.has_graph() {
            out.push(Action::Compute(Job::Discard(item)));
        }
        out.push(Action::Release(item));
    }
}

mod advance;
