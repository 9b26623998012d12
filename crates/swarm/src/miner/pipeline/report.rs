//! What a miner states while it trains: reports of work, and wishes for micro-batches.

use std::collections::BTreeMap;

use wire::{Epoch, Hash, Millis, NodeId};

use super::Outbox;
use crate::limits::HOPS_MAX;
use crate::miner::{Token, limits};
use crate::record::{HopReport, Statement, StepCommit, Traffic, Work, WorkItem};

/// Work not yet reported, and the report that is out.
#[derive(Debug)]
pub(super) struct Report {
    epoch: Epoch,
    seq: u32,
    heartbeat: Millis,
    /// When the last report was made.
    last: Millis,
    /// The report that is not answered yet.
    out: Option<Token>,
    pub(super) items: Vec<WorkItem>,
    pub(super) steps: Vec<StepCommit>,
    hops: BTreeMap<NodeId, (u16, u16)>,
}

impl Report {
    pub(super) fn new(now: Millis, epoch: Epoch, heartbeat: Millis) -> Self {
        let (items, steps, hops) = Default::default();
        Self { epoch, seq: 0, heartbeat, last: now, out: None, items, steps, hops }
    }

    pub(super) fn busy(&mut self, node: NodeId) {
        let hop = self.hops.entry(node).or_default();
        hop.0 = hop.0.saturating_add(1);
    }

    pub(super) fn failed(&mut self, node: NodeId) {
        let hop = self.hops.entry(node).or_default();
        hop.1 = hop.1.saturating_add(1);
    }

    /// Notes an answer; false if it is of another statement. A refused report leaves its number to the next one.
    pub(super) fn on_answered(&mut self, token: Token, accepted: bool) -> bool {
        let ours = self.out == Some(token);
        if ours {
            self.out = None;
            self.seq -= u32::from(!accepted);
        }
        ours
    }

    /// Something is left to say.
    pub(super) fn has_more(&self) -> bool {
        !self.items.is_empty() || !self.steps.is_empty()
    }

    pub(super) fn due_at(&self) -> Option<Millis> {
        self.out.is_none().then(|| self.last.plus(self.heartbeat))
    }

    /// Reports if it is time, or at once if `urgent`; one report is out at a time.
    pub(super) fn make(&mut self, now: Millis, out: &mut Outbox, urgent: bool, free: u16) {
        let full = self.items.len() >= limits::REPORT_ITEMS || self.steps.len() >= limits::REPORT_STEPS;
        if self.out.is_none() && (urgent || full || now >= self.last.plus(self.heartbeat)) {
            self.state(now, out, free);
        }
    }

    /// Reports all that is left, behind a report that may still be out.
    pub(super) fn finish(&mut self, now: Millis, out: &mut Outbox, free: u16) {
        self.state(now, out, free);
        while self.has_more() {
            self.state(now, out, free);
        }
    }

    fn state(&mut self, now: Millis, out: &mut Outbox, free: u16) {
        let items: Vec<WorkItem> = self.items.drain(..self.items.len().min(limits::REPORT_ITEMS)).collect();
        // A step follows the items that it holds: it goes with the last of them.
        let steps = if self.items.is_empty() { self.steps.len().min(limits::REPORT_STEPS) } else { 0 };
        let steps: Vec<StepCommit> = self.steps.drain(..steps).collect();
        let hops = std::mem::take(&mut self.hops).into_iter().take(HOPS_MAX);
        let hops = hops.map(|(node, (busy, failed))| HopReport { node, busy, failed }).collect();
        let work = Work {
            epoch: self.epoch,
            seq: self.seq,
            items,
            steps,
            evidence: Hash([0; 32]),
            busy: Millis(0),
            hops,
            traffic: Traffic::default(),
            free,
        };
        self.seq += 1;
        self.last = now;
        self.out = Some(out.state(Statement::Work(work)));
    }
}

/// A head's wish for micro-batches.
#[derive(Debug, Default)]
pub(super) struct Wish {
    out: Option<Token>,
    /// When the request before the newest one without a lease was made: what a lease's time counts from, since a
    /// lease may still answer that one.
    since: Option<Millis>,
    /// When the newest request was made.
    asked: Millis,
    /// When the next one may be made.
    retry: Millis,
}

impl Wish {
    pub(super) fn on_answered(&mut self, token: Token) {
        if self.out == Some(token) {
            self.out = None;
        }
    }

    /// A lease came: when was it asked for?
    pub(super) fn granted(&mut self, now: Millis) -> Millis {
        self.retry = now;
        self.since.take().unwrap_or(now)
    }

    pub(super) fn next_deadline(&self) -> Option<Millis> {
        self.out.is_none().then_some(self.retry)
    }

    /// Asks, and asks again after `pause` as long as nothing comes.
    pub(super) fn make(&mut self, now: Millis, out: &mut Outbox, epoch: Epoch, want: u16, pause: Millis) {
        if self.out.is_some() || now < self.retry {
            return;
        }
        self.since = Some(if self.since.is_some() { self.asked } else { now });
        self.asked = now;
        self.retry = now.plus(pause);
        self.out = Some(out.state(Statement::LeaseRequest { epoch, want }));
    }
}
