//! What a round's jobs are searched for at every step, kept instead of searched: what follows from which of them, and what
//! each judge would get. Nothing here is known that the jobs do not say.

use std::collections::{BTreeMap, BTreeSet};

use wire::{Hash, Millis, NodeId};

use super::State;
use super::competition::Competition;
use super::entry::Role;
use super::job::Job;
use super::round::Round;
use crate::record::{EntryId, RoundNumber};
use crate::spec::CompetitionId;

/// Lists over the jobs of a round.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Queue {
    /// Jobs from which a record follows.
    due: BTreeSet<EntryId>,
    /// What each judge who asked for leases could take, in the order in which it gets them.
    places: BTreeMap<NodeId, BTreeSet<Place>>,
    /// Jobs that some judge does not get again for a while, and from which something may follow.
    barred: BTreeSet<EntryId>,
    /// Jobs that are settled.
    pub(super) settled: usize,
}

/// A job's place in a judge's order (protocol §7 "Judges").
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    /// The baseline, the incumbent, challengers.
    role: u8,
    /// Nobody has begun it: what another judge has begun comes first, so that verdicts come in all along.
    fresh: bool,
    /// Nobody chooses.
    draw: Hash,
    pub(super) entry: EntryId,
}

impl Queue {
    /// The first job from which a record follows.
    pub(super) fn due(&self) -> Option<EntryId> {
        self.due.first().copied()
    }

    /// What a judge could take, best first; some of it only later.
    pub(super) fn places(&self, judge: NodeId) -> impl Iterator<Item = &Place> {
        self.places.get(&judge).into_iter().flatten()
    }

    /// Jobs that some judge does not get again for a while.
    pub(super) fn barred(&self) -> impl Iterator<Item = EntryId> {
        self.barred.iter().copied()
    }
}

fn put<T: Ord>(set: &mut BTreeSet<T>, item: T, wanted: bool) {
    if wanted {
        set.insert(item);
    } else {
        set.remove(&item);
    }
}

impl State {
    /// Where a job stands in a judge's order, whoever may take it.
    fn place(&self, round: &Round, judge: NodeId, id: EntryId, job: &Job) -> Place {
        let role = match self.entry(id).map_or(Role::Challenger, |entry| entry.role) {
            Role::Baseline => 0,
            Role::Incumbent => 1,
            Role::Challenger => 2,
        };
        let parts = [&round.seed.0[..], &judge.0, &id.0.to_le_bytes()];
        let draw = Hash::of_parts("shoal 2026-11 arena order", &parts);
        Place { role, fresh: job.slots.is_empty(), draw, entry: id }
    }

    /// Whether a judge could take a job, as soon as it has room for it.
    fn could_take(&self, competition: &Competition, judge: NodeId, id: EntryId, job: &Job) -> bool {
        let rules = &competition.spec.judges;
        let Some(known) = self.judges.get(&judge) else { return false };
        let taken = |slot: &super::Slot| {
            slot.judge == judge || (rules.distinct_operators && slot.operator == known.operator)
        };
        let own = |entry: &super::Entry| entry.entrant == judge && entry.role != Role::Baseline;
        job.has_place(rules.tolerance_ppm)
            && !job.slots.iter().any(taken)
            && self.entry(id).is_some_and(|entry| !own(entry))
    }

    /// Brings the lists up to date after a job has changed.
    pub(super) fn requeue(&mut self, id: EntryId) {
        let Some((competition, number)) = self.entry(id).map(|entry| (entry.competition, entry.round)) else {
            return;
        };
        let Some(found) = self.competitions.get(&competition) else { return };
        let Some(round) = found.live.get(&number) else { return };
        let Some(job) = round.jobs.get(&id) else { return };
        let pending = round.pending.contains(&id);
        let due = pending && round.next(&found.spec.judges, id).is_some();
        let barred = pending && job.is_barred();
        let places: Vec<(NodeId, Place, bool)> = round
            .queue
            .places
            .keys()
            .map(|judge| {
                let free = pending && self.could_take(found, *judge, id, job);
                (*judge, self.place(round, *judge, id, job), free)
            })
            .collect();
        let Some(round) = self.round_mut(competition, number) else { return };
        put(&mut round.queue.due, id, due);
        put(&mut round.queue.barred, id, barred);
        for (judge, place, free) in places {
            let Some(set) = round.queue.places.get_mut(&judge) else { continue };
            set.remove(&Place { fresh: !place.fresh, ..place });
            put(set, place, free);
        }
    }

    /// The same for all jobs of a round: the baseline's time is known, or the round begins to be judged.
    pub(super) fn requeue_round(&mut self, competition: CompetitionId, number: RoundNumber) {
        let round = self.competitions.get(&competition).and_then(|found| found.live.get(&number));
        let pending: Vec<EntryId> =
            round.map_or_else(Vec::new, |round| round.pending.iter().copied().collect());
        for id in pending {
            self.requeue(id);
        }
    }

    /// A judge asks for leases: from here on its order is kept, in every round that is judged.
    pub(super) fn queue_for(&mut self, judge: NodeId) {
        let live =
            self.competitions.values().flat_map(|found| found.live.values().map(move |round| (found, round)));
        let lists: Vec<(CompetitionId, RoundNumber, BTreeSet<Place>)> = live
            .filter(|(_, round)| !round.jobs.is_empty() && !round.queue.places.contains_key(&judge))
            .map(|(found, round)| (found.id, round.number, self.places_of(found, round, judge)))
            .collect();
        for (competition, number, places) in lists {
            if let Some(round) = self.round_mut(competition, number) {
                round.queue.places.insert(judge, places);
            }
        }
    }

    fn places_of(&self, competition: &Competition, round: &Round, judge: NodeId) -> BTreeSet<Place> {
        let jobs = round.pending.iter().filter_map(|id| Some((*id, round.jobs.get(id)?)));
        let free = jobs.filter(|(id, job)| self.could_take(competition, judge, *id, job));
        free.map(|(id, job)| self.place(round, judge, id, job)).collect()
    }

    /// A judge went, or is another operator's now.
    pub(super) fn forget_queues(&mut self, judge: NodeId) {
        for round in self.competitions.values_mut().flat_map(|found| found.live.values_mut()) {
            round.queue.places.remove(&judge);
        }
        if self.wants.contains_key(&judge) {
            self.queue_for(judge);
        }
    }

    /// What a judge gets next: the baseline, the incumbent, then a challenger that nobody chose (protocol §7 "Judges").
    pub(super) fn job_for(&self, judge: NodeId) -> Option<(EntryId, Millis)> {
        // Bound verdicts that wait for other judges do not count: two judges could block each other.
        let busy = self.leases.of(judge).filter(|(_, lease)| lease.expires != super::lease::NEVER).count();
        if busy >= crate::limits::LEASES_PER_JUDGE_MAX {
            return None;
        }
        let mut best: Option<(&Place, Millis)> = None;
        for competition in self.competitions.values() {
            for round in competition.live.values() {
                // Who kept back its part of the seed judges nothing of it.
                if round.nonces.get(&judge).is_some_and(|nonce| nonce.opened.is_none()) {
                    continue;
                }
                let barred = |place: &Place| {
                    let until = round.jobs.get(&place.entry).and_then(|job| job.barred_until(judge));
                    until.is_some_and(|until| !self.passed(until))
                };
                let first = round.queue.places(judge).find(|place| !barred(place));
                if let Some(place) = first.filter(|place| best.is_none_or(|(other, _)| *place < other)) {
                    best = Some((place, self.tip.now().plus(competition.spec.judges.lease())));
                }
            }
        }
        best.map(|(place, expires)| (place.entry, expires))
    }
}
