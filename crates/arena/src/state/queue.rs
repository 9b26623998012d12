//! What a round's jobs are searched for at every step, kept instead of searched: what follows from which of them, and what
//! each judge would get. Nothing here is known that the jobs do not say.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

use wire::{Hash, Millis, NodeId};

use super::State;
use super::competition::Competition;
use super::entry::{Entry, Role};
use super::job::Job;
use super::round::Round;
use crate::record::{EntryId, RoundNumber};
use crate::rule::Direction;
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
    /// Jobs that may stand in some judge's list.
    offered: BTreeSet<EntryId>,
    /// Jobs that are settled.
    pub(super) settled: usize,
    /// Challengers that are scored.
    pub(super) scored: usize,
    /// Of those, the ones that no comparison found unsure, best first: what a takeover is looked for among.
    pub(super) contenders: BTreeSet<Contender>,
}

/// A scored challenger. The first is the best; of equal scores the one that was sealed first.
#[derive(Clone, Copy, Debug)]
pub(super) struct Contender {
    pub(super) raw: f64,
    pub(super) entry: EntryId,
    pub(super) direction: Direction,
}

impl Ord for Contender {
    fn cmp(&self, other: &Self) -> Ordering {
        self.direction.order(self.raw, other.raw).then(self.entry.cmp(&other.entry))
    }
}

impl PartialOrd for Contender {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Contender {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Contender {}

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
    fn could_take(
        &self,
        competition: &Competition,
        round: &Round,
        judge: NodeId,
        id: EntryId,
        job: &Job,
    ) -> bool {
        let rules = &competition.spec.judges;
        let Some(known) = self.judges.get(&judge) else { return false };
        let taken = |slot: &super::Slot| {
            slot.judge == judge || (rules.distinct_operators && slot.operator == known.operator)
        };
        let own = |entry: &Entry| entry.entrant == judge && entry.role != Role::Baseline;
        job.has_place(rules.tolerance_ppm)
            && !job.slots.iter().any(taken)
            && self.entry(id).is_some_and(|entry| !own(entry) && self.is_asked(round, judge, entry, job))
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
        // A job that nobody may take, and that stands in no list, needs no look at each judge.
        let open = pending && job.has_place(found.spec.judges.tolerance_ppm);
        let listed = open || round.queue.offered.contains(&id);
        let judges = round.queue.places.keys().filter(|_| listed);
        let places: Vec<(NodeId, Place, bool)> = judges
            .map(|judge| {
                let free = open && self.could_take(found, round, *judge, id, job);
                (*judge, self.place(round, *judge, id, job), free)
            })
            .collect();
        let Some(round) = self.round_mut(competition, number) else { return };
        put(&mut round.queue.due, id, due);
        put(&mut round.queue.barred, id, barred);
        put(&mut round.queue.offered, id, open);
        for (judge, place, free) in places {
            let Some(set) = round.queue.places.get_mut(&judge) else { continue };
            set.remove(&Place { fresh: !place.fresh, ..place });
            put(set, place, free);
        }
    }

    /// What follows from the jobs of a round, now that the baseline's time is known: who may take them stays.
    pub(super) fn due_anew(&mut self, competition: CompetitionId, number: RoundNumber) {
        let Some(found) = self.competitions.get_mut(&competition) else { return };
        let rules = found.spec.judges;
        let Some(round) = found.live.get_mut(&number) else { return };
        let follows = |id: &&EntryId| round.next(&rules, **id).is_some();
        let due = round.pending.iter().filter(follows).copied().collect();
        round.queue.due = due;
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
                round.queue.offered.extend(places.iter().map(|place| place.entry));
                round.queue.places.insert(judge, places);
            }
        }
    }

    fn places_of(&self, competition: &Competition, round: &Round, judge: NodeId) -> BTreeSet<Place> {
        let jobs = round.pending.iter().filter_map(|id| Some((*id, round.jobs.get(id)?)));
        let free = jobs.filter(|(id, job)| self.could_take(competition, round, judge, *id, job));
        free.map(|(id, job)| self.place(round, judge, id, job)).collect()
    }

    /// A challenger was scored.
    pub(super) fn contend(&mut self, id: EntryId, raw: f64) {
        let Some((competition, number)) = self.entry(id).map(|entry| (entry.competition, entry.round)) else {
            return;
        };
        let Some(found) = self.competitions.get_mut(&competition) else { return };
        let direction = found.spec.rule().direction();
        let Some(round) = found.live.get_mut(&number) else { return };
        round.queue.scored += 1;
        round.queue.contenders.insert(Contender { raw, entry: id, direction });
    }

    /// A judge went, or is another operator's now.
    pub(super) fn forget_queues(&mut self, judge: NodeId) {
        for round in self.competitions.values_mut().flat_map(|found| found.live.values_mut()) {
            round.queue.places.remove(&judge);
        }
        self.parts_anew();
    }

    /// Counts whose part of each round's seed is opened; where that has changed, others may help, or may no more.
    pub(super) fn parts_anew(&mut self) {
        let live =
            self.competitions.values().flat_map(|found| found.live.values().map(move |round| (found, round)));
        let judged = live.filter(|(_, round)| !round.jobs.is_empty());
        let counted: Vec<(CompetitionId, RoundNumber, usize)> =
            judged.map(|(found, round)| (found.id, round.number, self.parts(found, round))).collect();
        for (competition, number, parts) in counted {
            if let Some(round) = self.round_mut(competition, number).filter(|round| round.parts != parts) {
                round.parts = parts;
                round.queue.places.clear();
            }
        }
        for judge in self.wants.keys().copied().collect::<Vec<_>>() {
            self.queue_for(judge);
        }
    }

    fn parts(&self, competition: &Competition, round: &Round) -> usize {
        let judges = round.nonces.iter().filter(|(_, nonce)| nonce.opened.is_some());
        let judges = judges.filter_map(|(judge, _)| self.judges.get(judge)).filter(|judge| judge.admitted);
        if competition.spec.judges.distinct_operators {
            judges.map(|judge| judge.operator.as_str()).collect::<BTreeSet<_>>().len()
        } else {
            judges.count()
        }
    }

    /// Whether a judge may be asked about an entry of a round: it opened its part of the seed. Who bound none cannot judge
    /// what the competition admits, or was not there; who bound one and kept it back judges nothing of it. A judge that was
    /// admitted after close had no chance to bind one, and helps; so does whoever bound none, where an entry needs more
    /// judges than have a part.
    fn is_asked(&self, round: &Round, judge: NodeId, entry: &Entry, job: &Job) -> bool {
        let opened = |judge: NodeId| round.nonces.get(&judge).map(|nonce| nonce.opened.is_some());
        opened(judge).unwrap_or_else(|| {
            let late = self.judges.get(&judge).is_some_and(|judge| judge.admitted_at >= round.closes);
            // Its maker judges other entries.
            let own = entry.role != Role::Baseline
                && opened(entry.entrant) == Some(true)
                && self.is_judge(entry.entrant);
            late || usize::from(job.asked) > round.parts.saturating_sub(own.into())
        })
    }

    /// How many entries that wait for judges a judge may be asked about.
    pub fn queued(&self, judge: NodeId) -> u64 {
        let rounds = self.competitions.values().flat_map(|found| found.live.values());
        let waiting = rounds.flat_map(|round| {
            round.pending.iter().filter_map(move |id| Some((round, round.jobs.get(id)?, id)))
        });
        let asked = |(round, job, id): &(&Round, &Job, &EntryId)| {
            job.settlement.is_none()
                && self.entry(**id).is_some_and(|entry| self.is_asked(round, judge, entry, job))
        };
        waiting.filter(asked).count() as u64
    }

    /// What a judge gets next: the baseline, the incumbent, then a challenger that nobody chose (protocol §7 "Judges").
    pub(super) fn job_for(&self, judge: NodeId) -> Option<(EntryId, Millis)> {
        // Bound verdicts that wait for other judges do not count: two judges could block each other.
        if self.leases.busy(judge) >= crate::limits::LEASES_PER_JUDGE_MAX {
            return None;
        }
        let mut best: Option<(&Place, Millis)> = None;
        for competition in self.competitions.values() {
            for round in competition.live.values() {
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
