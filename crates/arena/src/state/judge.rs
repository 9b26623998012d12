//! Judges: leases, sealed verdicts, verdicts.

use wire::{Hash, Millis, NodeId};

use super::State;
use super::accept::{limit, not_now, require};
use super::entry::{EntryState, Role};
use super::job::Slot;
use crate::limits;
use crate::measure::{Measures, Outcome, Verdict};
use crate::record::{Derived, EntryId, LeaseId};
use crate::refusal::Refusal;
use crate::spec::{Form, Kind, Source};

/// A judge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judge {
    /// Who runs it.
    pub operator: String,
    /// May judge.
    pub admitted: bool,
    /// Leases it ever had.
    pub leased: u64,
    /// Leases that ran out.
    pub expired: u64,
    /// Verdicts it showed.
    pub judged: u64,
    /// Of those, equal to what was settled.
    pub agreed: u64,
    /// Of those, different from what was settled.
    pub disagreed: u64,
    /// Nonces that it bound and did not open.
    pub withheld: u64,
}

impl Judge {
    pub(super) fn new(operator: &str) -> Self {
        Self {
            operator: operator.to_owned(),
            admitted: true,
            leased: 0,
            expired: 0,
            judged: 0,
            agreed: 0,
            disagreed: 0,
            withheld: 0,
        }
    }
}

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

/// No deadline: the judge has done its part and waits for the others.
const NEVER: Millis = Millis(u64::MAX);

impl State {
    /// Whether a key is an admitted judge.
    pub fn is_judge(&self, key: NodeId) -> bool {
        self.judges.get(&key).is_some_and(|judge| judge.admitted)
    }

    pub(super) fn check_lease(&self, sender: NodeId, want: u16) -> Result<(), Refusal> {
        require(self.is_judge(sender), || Refusal::NotJudge)?;
        limit("leases of one judge", want.into(), limits::LEASES_PER_JUDGE_MAX as u64)
    }

    pub(super) fn fold_lease(&mut self, sender: NodeId, want: u16) {
        if want == 0 {
            self.wants.remove(&sender);
        } else {
            self.wants.insert(sender, want);
        }
    }

    fn slot(&self, sender: NodeId, id: LeaseId) -> Result<(&Lease, &Slot, bool), Refusal> {
        let missing = Refusal::NotLeased { lease: id };
        let lease = self.leases.get(&id).filter(|lease| lease.judge == sender);
        let Some(lease) = lease else { return Err(missing) };
        let job = self.job(lease.entry);
        let slot = job.and_then(|job| job.slots.iter().find(|slot| slot.lease == id));
        let (Some(job), Some(slot)) = (job, slot) else { return Err(missing) };
        Ok((lease, slot, job.showing))
    }

    pub(super) fn check_judged(&self, sender: NodeId, id: LeaseId) -> Result<(), Refusal> {
        let (_, slot, _) = self.slot(sender, id)?;
        require(slot.seal.is_none(), || Refusal::Repeated { what: "a verdict for this lease".to_owned() })
    }

    pub(super) fn fold_judged(&mut self, id: LeaseId, seal: Hash) {
        let Some(lease) = self.leases.get_mut(&id) else { return };
        lease.expires = NEVER;
        let entry = lease.entry;
        if let Some(slot) = self.slot_mut(entry, id) {
            slot.seal = Some(seal);
        }
    }

    fn slot_mut(&mut self, entry: EntryId, id: LeaseId) -> Option<&mut Slot> {
        self.job_mut(entry)?.slots.iter_mut().find(|slot| slot.lease == id)
    }

    pub(super) fn check_show(
        &self,
        sender: NodeId,
        id: LeaseId,
        nonce: &Hash,
        verdict: &Verdict,
    ) -> Result<(), Refusal> {
        let (lease, slot, showing) = self.slot(sender, id)?;
        let seal = slot.seal.ok_or_else(|| not_now("bind the verdict first"))?;
        require(showing, || not_now("the other judges of this entry are not bound yet"))?;
        require(slot.verdict.is_none(), || Refusal::Repeated { what: "this verdict".to_owned() })?;
        require(verdict.seal(&sender, nonce) == seal, || Refusal::WrongOpening {
            what: "the verdict".to_owned(),
        })?;
        self.check_verdict(lease.entry, verdict)
    }

    fn check_verdict(&self, id: EntryId, verdict: &Verdict) -> Result<(), Refusal> {
        let refuse = |what: &str| Err(Refusal::Verdict { what: what.to_owned() });
        let Some(entry) = self.entry(id) else { return Err(Refusal::UnknownEntry { entry: id }) };
        let competition = self.running(&entry.competition)?;
        let spec = &competition.spec;
        let Some(round) = competition.live.get(&entry.round) else { return refuse("its round is over") };
        if let Some(wall) = &verdict.wall {
            limit("task_time_ns", wall.task_time_ns, limits::ITEM_TIME_NS_MAX)?;
            limit("over_baseline_ppm", wall.over_baseline_ppm, limits::ITEM_TIME_NS_MAX)?;
        }
        let Outcome::Measured { inputs, measures, .. } = &verdict.outcome else { return Ok(()) };
        let of_kind = matches!(
            (spec.kind, measures),
            (Kind::Codec, Measures::Codec(_)) | (Kind::Program, Measures::Program(_))
        );
        if !of_kind {
            return refuse("measurements of another kind of competition");
        }
        if measures.len() != spec.inputs.items as usize {
            return refuse("not one measurement per input");
        }
        if spec.inputs.source == Source::Pool && *inputs != inputs_hash(&round.items) {
            return refuse("other inputs than those of the round");
        }
        if entry.form != Form::Component && verdict.wall.is_none() {
            return refuse("no time: only components are timed by fuel");
        }
        measures.check().map_err(|error| Refusal::Verdict { what: error.to_string() })
    }

    pub(super) fn fold_show(&mut self, id: LeaseId, verdict: Verdict) {
        let Some(lease) = self.leases.remove(&id) else { return };
        if let Some(judge) = self.judges.get_mut(&lease.judge) {
            judge.judged += 1;
        }
        if let Some(slot) = self.slot_mut(lease.entry, id) {
            slot.verdict = Some(verdict);
        }
        self.rest(lease.entry);
    }

    pub(super) fn expired_due(&self) -> Option<Derived> {
        let over = |lease: &Lease| self.passed(lease.expires) || !self.is_judge(lease.judge);
        let (id, _) = self.leases.iter().find(|(_, lease)| over(lease))?;
        Some(Derived::Expired { lease: *id })
    }

    pub(super) fn apply_expired(&mut self, id: LeaseId) {
        let Some(lease) = self.leases.remove(&id) else { return };
        if let Some(judge) = self.judges.get_mut(&lease.judge) {
            judge.expired += 1;
        }
        let (now, span) = (self.tip.now(), self.lease_time(lease.entry));
        let Some(job) = self.job_mut(lease.entry) else { return };
        job.slots.retain(|slot| slot.lease != id);
        // Others come first: each time for one lease longer.
        let missed = job.missed.entry(lease.judge).or_default();
        missed.0 += 1;
        missed.1 = now.plus(Millis(span.0.saturating_mul(missed.0.into())));
        job.showing = false;
        // The others wait for whoever takes the place.
        let waiting: Vec<LeaseId> = job.bound().collect();
        for id in waiting {
            if let Some(lease) = self.leases.get_mut(&id) {
                lease.expires = NEVER;
            }
        }
    }

    fn lease_time(&self, entry: EntryId) -> Millis {
        let competition = self.entry(entry).and_then(|entry| self.competitions.get(&entry.competition));
        competition.map_or(Millis(0), |found| found.spec.judges.lease())
    }

    pub(super) fn apply_verdicts_due(&mut self, entry: EntryId) {
        let expires = self.tip.now().plus(self.lease_time(entry));
        let Some(job) = self.job_mut(entry) else { return };
        job.showing = true;
        let bound: Vec<LeaseId> = job.bound().collect();
        for id in bound {
            if let Some(lease) = self.leases.get_mut(&id) {
                lease.expires = expires;
            }
        }
    }

    pub(super) fn leased_due(&self) -> Option<Derived> {
        self.wants.keys().find_map(|judge| {
            let (entry, expires) = self.job_for(*judge)?;
            Some(Derived::Leased { lease: LeaseId(self.next_lease), judge: *judge, entry, expires })
        })
    }

    /// What a judge gets next: the baseline, the incumbent, then a challenger that nobody chose (protocol §7 "Judges").
    fn job_for(&self, judge: NodeId) -> Option<(EntryId, Millis)> {
        let known = self.judges.get(&judge)?;
        // Bound verdicts that wait for other judges do not count: two judges could block each other.
        let busy = self.leases_of(judge).filter(|(_, lease)| lease.expires != NEVER).count();
        if busy >= limits::LEASES_PER_JUDGE_MAX {
            return None;
        }
        let mut best: Option<((u8, bool, Hash), EntryId, Millis)> = None;
        for competition in self.competitions.values() {
            let rules = &competition.spec.judges;
            for round in competition.live.values() {
                // Who kept back its part of the seed judges nothing of it.
                if round.nonces.get(&judge).is_some_and(|nonce| nonce.opened.is_none()) {
                    continue;
                }
                let free = |(id, job): &(&EntryId, &super::Job)| {
                    let taken = |slot: &Slot| {
                        slot.judge == judge || (rules.distinct_operators && slot.operator == known.operator)
                    };
                    job.has_place(rules.tolerance_ppm)
                        && job.missed.get(&judge).is_none_or(|(_, until)| self.passed(*until))
                        && !job.slots.iter().any(taken)
                        && self
                            .entry(**id)
                            .is_some_and(|entry| entry.entrant != judge || entry.role == Role::Baseline)
                };
                for (id, job) in
                    round.pending.iter().filter_map(|id| round.jobs.get_key_value(id)).filter(free)
                {
                    let role = self.entry(*id).map_or(Role::Challenger, |entry| entry.role);
                    let first = match role {
                        Role::Baseline => 0,
                        Role::Incumbent => 1,
                        Role::Challenger => 2,
                    };
                    let parts = [&round.seed.0[..], &judge.0, &id.0.to_le_bytes()];
                    // What another judge has begun comes first, so that verdicts come in all along.
                    let key =
                        (first, job.slots.is_empty(), Hash::of_parts("shoal 2026-11 arena order", &parts));
                    if best.as_ref().is_none_or(|(other, _, _)| key < *other) {
                        best = Some((key, *id, self.tip.now().plus(rules.lease())));
                    }
                }
            }
        }
        best.map(|(_, id, expires)| (id, expires))
    }

    pub(super) fn apply_leased(&mut self, id: LeaseId, judge: NodeId, entry: EntryId, expires: Millis) {
        self.next_lease = id.0 + 1;
        let want = self.wants.get(&judge).copied().unwrap_or(0).saturating_sub(1);
        self.fold_lease(judge, want);
        self.leases.insert(id, Lease { judge, entry, expires });
        let operator = self.judges.get_mut(&judge).map(|known| {
            known.leased += 1;
            known.operator.clone()
        });
        let slot =
            Slot { lease: id, judge, operator: operator.unwrap_or_default(), seal: None, verdict: None };
        if let Some(job) = self.job_mut(entry) {
            job.slots.push(slot);
        }
        if let Some(entry) = self.entry_mut(entry).filter(|entry| !entry.state.is_final()) {
            entry.state = EntryState::Judging;
        }
    }
}

/// Hash over a round's inputs, as every verdict on drawn inputs must state it.
pub fn inputs_hash(items: &[Hash]) -> Hash {
    let parts: Vec<&[u8]> = items.iter().map(|item| &item.0[..]).collect();
    Hash::of_parts("shoal 2026-11 arena inputs", &parts)
}
