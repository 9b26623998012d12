//! The micro-batches that a node holds, and what each waits for.

use std::collections::{BTreeMap, BTreeSet};

use wire::{Direction, Millis, NodeId};

use crate::miner::{Item, limits};

/// One micro-batch under way through this node.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) phase: Phase,
    /// Order of arrival.
    pub(super) order: u64,
    /// Last moment at which its gradient may be added (80 % of the lease's time), by this node's clock.
    pub(super) deadline: Millis,
    /// Stages, by bit, that accumulate.
    pub(super) grad_mask: u64,
    /// Who sent it; none on the head.
    pub(super) from: Option<NodeId>,
    /// Who took it; none on the tail, or as long as nobody did.
    pub(super) to: Option<NodeId>,
    /// Weight version of its forward.
    pub(super) version: u32,
    /// Loss, as far as it is known here.
    pub(super) loss: Option<f32>,
}

/// What an item waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Its forward.
    Forward,
    /// Somebody to take its output.
    Sending(Sending),
    /// The gradient from the next stage.
    Gradient,
    /// Its backward.
    Backward,
}

/// An output on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sending {
    pub(super) direction: Direction,
    /// Rank of the receiver that is asked now, or next.
    pub(super) rank: u8,
    /// Rounds over all ranks that ended without anybody taking it.
    pub(super) rounds: u32,
    /// Receiver that is being asked.
    pub(super) asked: Option<NodeId>,
    /// When the next one may be asked.
    pub(super) at: Millis,
}

impl Sending {
    pub(super) fn new(direction: Direction, now: Millis) -> Self {
        Self { direction, rank: 0, rounds: 0, asked: None, at: now }
    }

    /// All ranks were asked: a pause, then from the first one again.
    pub(super) fn back_off(&mut self, now: Millis) {
        let pause = limits::SEND_RETRY.0 << self.rounds.min(16);
        self.at = now.plus(Millis(pause.min(limits::SEND_RETRY_MAX.0)));
        self.rounds += 1;
        self.rank = 0;
    }
}

impl Entry {
    /// Whether its graph is kept: forward done, backward not.
    pub(super) fn has_graph(&self) -> bool {
        match self.phase {
            Phase::Forward => false,
            Phase::Sending(sending) => sending.direction == Direction::Forward,
            Phase::Gradient | Phase::Backward => true,
        }
    }
}

/// All of them, and those that were there.
#[derive(Debug, Default)]
pub(super) struct Items {
    pub(super) open: BTreeMap<Item, Entry>,
    /// Every item ever taken in this epoch: a second offer of one is a duplicate.
    seen: BTreeSet<Item>,
    next_order: u64,
}

impl Items {
    pub(super) fn has_seen(&self, item: &Item) -> bool {
        self.seen.contains(item)
    }

    pub(super) fn insert(&mut self, item: Item, deadline: Millis, grad_mask: u64, from: Option<NodeId>) {
        self.seen.insert(item);
        let order = self.next_order;
        self.next_order += 1;
        let phase = Phase::Forward;
        self.open.insert(
            item,
            Entry { phase, order, deadline, grad_mask, from, to: None, version: 0, loss: None },
        );
    }

    /// An open item of the same micro-batch under another lease.
    pub(super) fn rival(&self, item: &Item) -> Option<Item> {
        let same =
            self.open.keys().find(|other| other.micro_batch == item.micro_batch && other.lease != item.lease);
        same.copied()
    }

    /// The earliest open item in this phase that `admits` lets through.
    pub(super) fn first(&self, phase: Phase, admits: impl Fn(&Item, &Entry) -> bool) -> Option<Item> {
        let waiting = self.open.iter().filter(|(item, entry)| entry.phase == phase && admits(item, entry));
        waiting.min_by_key(|(_, entry)| entry.order).map(|(item, _)| *item)
    }

    /// Items that wait for their gradient.
    pub(super) fn graphs(&self) -> impl Iterator<Item = &Entry> {
        self.open.values().filter(|entry| entry.has_graph())
    }

    /// Lowest version whose forward still waits for its backward.
    pub(super) fn oldest_version(&self) -> Option<u32> {
        self.graphs().map(|entry| entry.version).min()
    }

    pub(super) fn next_deadline(&self) -> Option<Millis> {
        let times = self.open.values().flat_map(|entry| {
            let retry = match entry.phase {
                Phase::Sending(sending) if sending.asked.is_none() => Some(sending.at),
                _ => None,
            };
            [Some(entry.deadline), retry]
        });
        times.flatten().min()
    }
}
