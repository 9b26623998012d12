//! Leases under way: whose they are and when they run out, without a search.

use std::collections::{BTreeMap, BTreeSet};

use wire::{Millis, NodeId};

use crate::record::{EntryId, LeaseId};

/// No deadline: the judge has done its part and waits for the others.
pub(super) const NEVER: Millis = Millis(u64::MAX);

/// A lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lease {
    /// Who judges.
    pub judge: NodeId,
    /// What.
    pub entry: EntryId,
    /// Until when its verdict must be bound, or shown; far away while the others are awaited.
    pub expires: Millis,
}

/// All leases, by id, by judge and by deadline.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Leases {
    all: BTreeMap<LeaseId, Lease>,
    held: BTreeMap<NodeId, BTreeSet<LeaseId>>,
    /// Leases of each judge that have a deadline: those it works on.
    busy: BTreeMap<NodeId, usize>,
    deadlines: BTreeSet<(Millis, LeaseId)>,
}

impl Leases {
    pub(super) fn all(&self) -> &BTreeMap<LeaseId, Lease> {
        &self.all
    }

    pub(super) fn get(&self, id: LeaseId) -> Option<&Lease> {
        self.all.get(&id)
    }

    pub(super) fn of(&self, judge: NodeId) -> impl Iterator<Item = (LeaseId, &Lease)> {
        let ids = self.held.get(&judge).into_iter().flatten();
        ids.filter_map(|id| Some((*id, self.all.get(id)?)))
    }

    /// How many a judge works on: bound verdicts that wait for other judges do not count.
    pub(super) fn busy(&self, judge: NodeId) -> usize {
        self.busy.get(&judge).copied().unwrap_or(0)
    }

    /// Judges who hold one.
    pub(super) fn judges(&self) -> impl Iterator<Item = NodeId> {
        self.held.keys().copied()
    }

    /// The lowest of those whose deadline has come.
    pub(super) fn run_out(&self, now: Millis) -> Option<LeaseId> {
        self.deadlines.iter().take_while(|(at, _)| *at <= now).map(|(_, id)| *id).min()
    }

    /// The first deadline after a moment.
    pub(super) fn next_deadline(&self, after: Millis) -> Option<Millis> {
        let first = self.deadlines.range((after.plus(Millis(1)), LeaseId(0))..).next();
        first.map(|(at, _)| *at).filter(|at| *at > after && *at < NEVER)
    }

    pub(super) fn insert(&mut self, id: LeaseId, lease: Lease) {
        self.remove(id);
        self.all.insert(id, lease);
        self.held.entry(lease.judge).or_default().insert(id);
        if lease.expires != NEVER {
            *self.busy.entry(lease.judge).or_default() += 1;
        }
        self.deadlines.insert((lease.expires, id));
    }

    pub(super) fn remove(&mut self, id: LeaseId) -> Option<Lease> {
        let lease = self.all.remove(&id)?;
        self.deadlines.remove(&(lease.expires, id));
        if lease.expires != NEVER
            && let Some(busy) = self.busy.get_mut(&lease.judge)
        {
            *busy -= 1;
            if *busy == 0 {
                self.busy.remove(&lease.judge);
            }
        }
        if let Some(held) = self.held.get_mut(&lease.judge) {
            held.remove(&id);
            if held.is_empty() {
                self.held.remove(&lease.judge);
            }
        }
        Some(lease)
    }

    pub(super) fn expire_at(&mut self, id: LeaseId, expires: Millis) {
        if let Some(lease) = self.remove(id) {
            self.insert(id, Lease { expires, ..lease });
        }
    }

    /// Moves every deadline.
    pub(super) fn shift(&mut self, down: Millis) {
        for lease in self.all.values_mut() {
            lease.expires = lease.expires.plus(down);
        }
        self.deadlines = self.all.iter().map(|(id, lease)| (lease.expires, *id)).collect();
    }
}
