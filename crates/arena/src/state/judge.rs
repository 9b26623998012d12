//! Judges: leases, sealed verdicts, verdicts.

use wire::{Hash, Millis, NodeId};

use super::State;
use super::accept::{limit, not_now, require};
use super::entry::EntryState;
use super::job::Slot;
use super::lease::{Lease, NEVER};
use super::round::Round;
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
    /// Since when.
    pub admitted_at: Millis,
    /// Leases it ever had.
    pub leased: u64,
    /// Leases that ran out or were given back.
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
    pub(super) fn new(operator: &str, now: Millis) -> Self {
        Self {
            operator: operator.to_owned(),
            admitted: true,
            admitted_at: now,
            leased: 0,
            expired: 0,
            judged: 0,
            agreed: 0,
            disagreed: 0,
            withheld: 0,
        }
    }
}

impl State {
    /// Whether a key is an admitted judge.
    pub fn is_judge(&self, key: NodeId) -> bool {
        self.judges.get(&key).is_some_and(|judge| judge.admitted)
    }

    /// How many entries a judge said it could take and has not got.
    pub fn wanted(&self, judge: NodeId) -> u16 {
        self.wants.get(&judge).copied().unwrap_or(0)
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
            self.queue_for(sender);
        }
    }

    fn slot(&self, sender: NodeId, id: LeaseId) -> Result<(&Lease, &Slot, bool), Refusal> {
        let missing = Refusal::NotLeased { lease: id };
        let lease = self.leases.get(id).filter(|lease| lease.judge == sender);
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
        let Some(entry) = self.leases.get(id).map(|lease| lease.entry) else { return };
        self.leases.expire_at(id, NEVER);
        if let Some(slot) = self.slot_mut(entry, id) {
            slot.seal = Some(seal);
        }
        self.requeue(entry);
    }

    pub(super) fn check_return(&self, sender: NodeId, id: LeaseId) -> Result<(), Refusal> {
        let (lease, slot, _) = self.slot(sender, id)?;
        require(slot.seal.is_none(), || not_now("a verdict is bound for this lease: show it"))?;
        // Else a judge could give back until it gets the entry that it wants.
        let given = self.round_of(lease.entry).and_then(|round| round.returned.get(&sender));
        let after = u64::from(given.copied().unwrap_or(0)) + 1;
        limit("leases given back in this round", after, limits::RETURNS_PER_ROUND_MAX.into())
    }

    /// It runs out now: as after a deadline that passed others come first.
    pub(super) fn fold_return(&mut self, sender: NodeId, id: LeaseId) {
        let place = self.leases.get(id).and_then(|lease| self.entry(lease.entry));
        let place = place.map(|entry| (entry.competition, entry.round));
        if let Some(round) = place.and_then(|(competition, number)| self.round_mut(competition, number)) {
            *round.returned.entry(sender).or_default() += 1;
        }
        self.leases.expire_at(id, self.tip.now());
    }

    fn round_of(&self, id: EntryId) -> Option<&Round> {
        let entry = self.entry(id)?;
        self.competitions.get(&entry.competition)?.live.get(&entry.round)
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
        verdict.account.check().map_err(|what| Refusal::Verdict { what: what.to_owned() })?;
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
        let Some(lease) = self.leases.remove(id) else { return };
        if let Some(judge) = self.judges.get_mut(&lease.judge) {
            judge.judged += 1;
        }
        if let Some(slot) = self.slot_mut(lease.entry, id) {
            slot.verdict = Some(verdict);
        }
        self.rest(lease.entry);
    }

    pub(super) fn expired_due(&self) -> Option<Derived> {
        let gone = self.leases.judges().filter(|judge| !self.is_judge(*judge));
        let theirs = gone.filter_map(|judge| self.leases.of(judge).next()).map(|(id, _)| id);
        let lease = self.leases.run_out(self.tip.now()).into_iter().chain(theirs).min()?;
        Some(Derived::Expired { lease })
    }

    pub(super) fn apply_expired(&mut self, id: LeaseId) {
        let Some(lease) = self.leases.remove(id) else { return };
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
            self.leases.expire_at(id, NEVER);
        }
        self.requeue(lease.entry);
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
            self.leases.expire_at(id, expires);
        }
        self.requeue(entry);
    }

    pub(super) fn leased_due(&self) -> Option<Derived> {
        self.wants.keys().find_map(|judge| {
            let (entry, expires) = self.job_for(*judge)?;
            Some(Derived::Leased { lease: LeaseId(self.next_lease), judge: *judge, entry, expires })
        })
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
        self.requeue(entry);
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
