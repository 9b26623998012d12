//! An entry before its judges: who was asked, what they bound and showed, what they agree on.

use std::collections::BTreeMap;

use wire::{Hash, Millis, NodeId};

use super::State;
use super::competition::Competition;
use super::entry::{Entry, EntryState, Role};
use super::round::Round;
use crate::measure::{Outcome, Verdict, Wall};
use crate::record::{Derived, EntryId, LeaseId, Settlement};
use crate::rule::{Comparison, Facts};

/// An entry that is judged.
#[derive(Clone, Debug, PartialEq)]
pub struct Job {
    /// Judges who must agree.
    pub need: u8,
    /// Judges asked in all.
    pub asked: u8,
    /// Who was asked.
    pub slots: Vec<Slot>,
    /// Judges who let a lease run out: how often, and until when they do not get it again.
    pub(super) missed: BTreeMap<NodeId, (u32, Millis)>,
    /// Everybody asked is bound: verdicts may be shown.
    pub showing: bool,
    /// What came of it.
    pub settlement: Option<Settlement>,
    /// Lease of the first judge whose verdict was settled on.
    pub(super) basis: Option<LeaseId>,
    /// The challenger against the bar, and whether that is sure enough.
    pub comparison: Option<(Comparison, bool)>,
}

/// A judge's part of a job.
#[derive(Clone, Debug, PartialEq)]
pub struct Slot {
    /// Its lease.
    pub lease: LeaseId,
    /// Who.
    pub judge: NodeId,
    /// Who runs it.
    pub operator: String,
    /// Hash of the verdict.
    pub seal: Option<Hash>,
    /// The verdict.
    pub verdict: Option<Verdict>,
}

impl Job {
    pub(super) fn new(agree: u8) -> Self {
        Self {
            need: agree,
            asked: agree,
            slots: Vec::new(),
            missed: BTreeMap::new(),
            showing: false,
            settlement: None,
            basis: None,
            comparison: None,
        }
    }

    /// Leases with a verdict that is bound and not shown.
    pub(super) fn bound(&self) -> impl Iterator<Item = LeaseId> {
        let hidden = |slot: &&Slot| slot.seal.is_some() && slot.verdict.is_none();
        self.slots.iter().filter(hidden).map(|slot| slot.lease)
    }

    fn verdicts(&self) -> impl Iterator<Item = &Verdict> {
        self.slots.iter().filter_map(|slot| slot.verdict.as_ref())
    }

    /// The outcome that most judges found, and how many. Of two that are even the first.
    pub fn plurality(&self, tolerance_ppm: u32) -> Option<(&Outcome, u8)> {
        let (lease, count) = self.most(tolerance_ppm)?;
        Some((self.outcome_under(lease)?, count))
    }

    fn most(&self, tolerance_ppm: u32) -> Option<(LeaseId, u8)> {
        let mut best: Option<(LeaseId, u8)> = None;
        for slot in &self.slots {
            let Some(verdict) = &slot.verdict else { continue };
            let count = self.count(&verdict.outcome, tolerance_ppm);
            if best.is_none_or(|(_, most)| count > most) {
                best = Some((slot.lease, count));
            }
        }
        best
    }

    fn count(&self, outcome: &Outcome, tolerance_ppm: u32) -> u8 {
        self.verdicts().filter(|verdict| verdict.outcome.agrees(outcome, tolerance_ppm)).count() as u8
    }

    fn outcome_under(&self, lease: LeaseId) -> Option<&Outcome> {
        let slot = self.slots.iter().find(|slot| slot.lease == lease)?;
        slot.verdict.as_ref().map(|verdict| &verdict.outcome)
    }

    /// What was settled on; later verdicts do not change it.
    pub fn settled(&self) -> Option<&Outcome> {
        self.outcome_under(self.basis?)
    }

    /// Number of judges who agree with what was settled.
    pub fn agreeing(&self, tolerance_ppm: u32) -> u8 {
        self.settled().map_or(0, |outcome| self.count(outcome, tolerance_ppm))
    }

    /// Another judge may be asked.
    pub(super) fn has_place(&self, tolerance_ppm: u32) -> bool {
        let open = self.settlement.is_none() || self.agreeing(tolerance_ppm) < self.need;
        open && self.slots.len() < usize::from(self.asked)
    }

    /// Everybody who was asked has shown a verdict.
    pub(super) fn is_complete(&self) -> bool {
        self.slots.len() >= usize::from(self.asked) && self.slots.iter().all(|slot| slot.verdict.is_some())
    }

    /// Lower medians of the times that the judges of an outcome measured.
    pub(super) fn wall(&self, outcome: &Outcome, tolerance_ppm: u32) -> Option<Wall> {
        let agree = |verdict: &&Verdict| verdict.outcome.agrees(outcome, tolerance_ppm);
        let walls: Vec<Wall> = self.verdicts().filter(agree).filter_map(|verdict| verdict.wall).collect();
        let median = |of: fn(&Wall) -> u64| {
            let mut values: Vec<u64> = walls.iter().map(of).collect();
            values.sort_unstable();
            values.get(values.len().saturating_sub(1) / 2).copied()
        };
        Some(Wall {
            task_time_ns: median(|wall| wall.task_time_ns)?,
            over_baseline_ppm: median(|wall| wall.over_baseline_ppm)?,
        })
    }
}

impl State {
    /// What follows for the jobs of a round.
    pub(super) fn jobs_due(&self, competition: &Competition, round: &Round) -> Option<Derived> {
        round.pending.iter().find_map(|id| self.job_due(competition, round, *id))
    }

    fn job_due(&self, competition: &Competition, round: &Round, id: EntryId) -> Option<Derived> {
        let job = round.jobs.get(&id)?;
        let rules = &competition.spec.judges;
        let agreed = match job.settlement {
            None => job.plurality(rules.tolerance_ppm).filter(|(_, count)| *count >= job.need),
            Some(_) => job
                .settled()
                .filter(|_| job.agreeing(rules.tolerance_ppm) >= job.need)
                .map(|outcome| (outcome, job.need)),
        };
        if job.settlement.is_none()
            && let Some((outcome, _)) = agreed
        {
            // Times are measured against the baseline's.
            let waits = round.baseline.filter(|baseline| *baseline != id).is_some_and(|baseline| {
                round.jobs.get(&baseline).is_some_and(|job| job.settlement.is_none())
            });
            return (!waits).then(|| Derived::Settled {
                entry: id,
                settlement: self.settlement(competition, round, id, job, outcome),
            });
        }
        if agreed.is_some() {
            return None;
        }
        if job.is_complete() {
            return match () {
                () if job.asked < rules.max => {
                    Some(Derived::Referred { entry: id, need: job.need, asked: job.asked + 1 })
                }
                () if job.settlement.is_none() => {
                    Some(Derived::Settled { entry: id, settlement: Settlement::Disputed })
                }
                () => None,
            };
        }
        let all_bound =
            job.slots.len() >= usize::from(job.asked) && job.slots.iter().all(|slot| slot.seal.is_some());
        (all_bound && !job.showing).then_some(Derived::VerdictsDue { entry: id })
    }

    fn settlement(
        &self,
        competition: &Competition,
        round: &Round,
        id: EntryId,
        job: &Job,
        outcome: &Outcome,
    ) -> Settlement {
        let rule = competition.spec.rule();
        match outcome {
            Outcome::Failed(failure) => Settlement::Failed(*failure),
            Outcome::Measured { outputs, measures, .. } => {
                let tolerance = competition.spec.judges.tolerance_ppm;
                let baseline = round.baseline.filter(|baseline| *baseline != id);
                let facts = Facts {
                    measures,
                    code_bytes: self.code_bytes(id),
                    wall: job.wall(outcome, tolerance),
                    baseline_ns: baseline.and_then(|baseline| {
                        Some(rule.time_ns(&self.facts(competition, round, baseline)?)).filter(|ns| *ns > 0)
                    }),
                };
                Settlement::Scored { scoring: rule.judge(&facts), outputs: *outputs }
            }
        }
    }

    fn code_bytes(&self, id: EntryId) -> u64 {
        self.entry(id).and_then(|entry| entry.code).map_or(0, |code| code.bytes)
    }

    /// What a settled entry was scored from.
    pub(super) fn facts<'a>(
        &self,
        competition: &Competition,
        round: &'a Round,
        id: EntryId,
    ) -> Option<Facts<'a>> {
        let job = round.jobs.get(&id)?;
        matches!(job.settlement, Some(Settlement::Scored { .. })).then_some(())?;
        let tolerance = competition.spec.judges.tolerance_ppm;
        let outcome = job.settled()?;
        let Outcome::Measured { measures, .. } = outcome else { return None };
        let mut facts = Facts {
            measures,
            code_bytes: self.code_bytes(id),
            wall: job.wall(outcome, tolerance),
            baseline_ns: None,
        };
        if let Some(baseline) = round.baseline.filter(|baseline| *baseline != id) {
            let rule = competition.spec.rule();
            let base = self.facts(competition, round, baseline);
            facts.baseline_ns = base.map(|base| rule.time_ns(&base)).filter(|ns| *ns > 0);
        }
        Some(facts)
    }

    pub(super) fn apply_referred(&mut self, id: EntryId, need: u8, asked: u8) {
        if let Some(job) = self.job_mut(id) {
            job.need = need;
            job.asked = asked;
            job.showing = false;
        }
        if let Some((competition, round)) = self.entry(id).map(|entry| (entry.competition, entry.round))
            && let Some(round) = self.round_mut(competition, round)
        {
            round.pending.insert(id);
        }
    }

    pub(super) fn apply_settled(&mut self, id: EntryId, settlement: &Settlement) {
        let competition = self.entry(id).and_then(|entry| self.competitions.get(&entry.competition));
        let tolerance = competition.map_or(0, |found| found.spec.judges.tolerance_ppm);
        if let Some(job) = self.job_mut(id) {
            job.settlement = Some(*settlement);
            if !matches!(settlement, Settlement::Disputed) {
                job.basis = job.most(tolerance).map(|(lease, _)| lease);
            }
        }
        let now = self.tip.now();
        let Some(entry) = self.entry_mut(id) else { return };
        entry.settled_at = Some(now);
        entry.state = match settlement {
            Settlement::Scored { scoring, .. } => EntryState::Scored(*scoring),
            Settlement::Failed(failure) => EntryState::Failed(*failure),
            Settlement::Disputed => EntryState::Disputed,
        };
        if entry.state.frees_fee() {
            let receipt = entry.receipt;
            self.free_receipt(receipt);
        }
        self.rest(id);
    }

    /// Takes a job off the list once nothing can follow from it any more.
    pub(super) fn rest(&mut self, id: EntryId) {
        let Some((competition, number)) = self.entry(id).map(|entry| (entry.competition, entry.round)) else {
            return;
        };
        let Some(found) = self.competitions.get_mut(&competition) else { return };
        let rules = found.spec.judges;
        let Some(round) = found.live.get_mut(&number) else { return };
        let Some(job) = round.jobs.get(&id).filter(|job| job.settlement.is_some()) else { return };
        let exhausted = job.is_complete() && job.asked >= rules.max;
        let over = exhausted || job.agreeing(rules.tolerance_ppm) >= job.need;
        if over {
            round.pending.remove(&id);
        }
    }

    /// An entry that nobody made: the baseline, or the champion again.
    pub(super) fn automatic(&self, competition: &Competition, round: &Round, role: Role) -> Option<Entry> {
        let spec = &competition.spec;
        let (entrant, origin, form, code) = match role {
            Role::Challenger => return None,
            Role::Incumbent => {
                let champion = self.entry(competition.champion?.entry)?;
                (champion.entrant, Some(champion.id), champion.form, champion.code?)
            }
            Role::Baseline => {
                let code = super::Code {
                    hash: spec.baseline.code?,
                    bytes: spec.baseline.bytes,
                    salt: Hash([0; 32]),
                };
                (competition.opener, None, spec.baseline.form, code)
            }
        };
        Some(Entry {
            id: self.next_entry(),
            competition: competition.id,
            round: round.number,
            entrant,
            version: 0,
            role,
            origin,
            form,
            seal: Hash([0; 32]),
            submitted_at: self.tip.now(),
            code: Some(code),
            parents: Vec::new(),
            receipt: None,
            state: EntryState::Queued,
            settled_at: None,
            reveal_at: None,
            rank: None,
            echo_of: None,
        })
    }
}
