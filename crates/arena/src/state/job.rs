//! An entry before its judges: who was asked, what they bound and showed, what they agree on.

use std::collections::BTreeMap;

use wire::{Hash, Millis, NodeId};

use super::State;
use super::competition::Competition;
use super::entry::{Entry, EntryState, Role};
use super::round::Round;
use crate::limits;
use crate::measure::{Outcome, Verdict, Wall, plurality};
use crate::number::{PPM, ppm_of};
use crate::record::{Derived, EntryId, LeaseId, Settlement};
use crate::rule::{Comparison, Facts};
use crate::spec::JudgeRules;

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
        let shown = self.slots.iter().filter_map(|slot| Some((slot.lease, &slot.verdict.as_ref()?.outcome)));
        let (leases, outcomes): (Vec<_>, Vec<_>) = shown.unzip();
        plurality(&outcomes, tolerance_ppm).map(|(place, count)| (leases[place], count as u8))
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

    /// Until when a judge that let its lease run out does not get it again.
    pub fn barred_until(&self, judge: NodeId) -> Option<Millis> {
        self.missed.get(&judge).map(|(_, until)| *until)
    }

    pub(super) fn is_barred(&self) -> bool {
        !self.missed.is_empty()
    }

    /// Everybody who was asked has shown a verdict.
    pub fn is_complete(&self) -> bool {
        self.slots.len() >= usize::from(self.asked) && self.slots.iter().all(|slot| slot.verdict.is_some())
    }

    /// One of the times that the judges of an outcome measured.
    pub(super) fn wall(&self, outcome: &Outcome, tolerance_ppm: u32, which: Clock) -> Option<Wall> {
        let agree = |verdict: &&Verdict| verdict.outcome.agrees(outcome, tolerance_ppm);
        let walls: Vec<Wall> = self.verdicts().filter(agree).filter_map(|verdict| verdict.wall).collect();
        let pick = |of: fn(&Wall) -> u64| {
            let mut values: Vec<u64> = walls.iter().map(of).collect();
            values.sort_unstable();
            let median = *values.get(values.len().saturating_sub(1) / 2)?;
            // Beyond what clocks are apart it is one judge's word.
            Some(match which {
                Clock::Fastest => values[0].max(ppm_of(median, PPM - limits::CLOCK_NOISE_PPM)),
                Clock::Median => median,
                Clock::Slowest => values[values.len() - 1].min(ppm_of(median, PPM + limits::CLOCK_NOISE_PPM)),
            })
        };
        Some(Wall {
            task_time_ns: pick(|wall| wall.task_time_ns)?,
            over_baseline_ppm: pick(|wall| wall.over_baseline_ppm)?,
        })
    }
}

/// Which of its judges' times an entry is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Clock {
    Fastest,
    /// The lower median: what scores are made of.
    Median,
    Slowest,
}

/// What follows from a job.
pub(super) enum Next<'a> {
    /// Enough judges agree on this.
    Settle(&'a Outcome),
    /// They do not, and no further judge can be asked.
    Dispute,
    /// They do not: one more is asked.
    Refer,
    /// All who were asked are bound.
    Show,
}

impl Round {
    /// What follows from a job now.
    pub(super) fn next(&self, rules: &JudgeRules, id: EntryId) -> Option<Next<'_>> {
        let job = self.jobs.get(&id)?;
        let tolerance = rules.tolerance_ppm;
        let agreed = if job.settlement.is_some() {
            let settled = job.settled().filter(|_| job.agreeing(tolerance) >= job.need);
            settled.map(|outcome| (outcome, job.need))
        } else {
            job.plurality(tolerance).filter(|(_, count)| *count >= job.need)
        };
        if let (None, Some((outcome, _))) = (job.settlement, agreed) {
            return (!self.waits_for_baseline(id)).then_some(Next::Settle(outcome));
        }
        if agreed.is_some() {
            return None;
        }
        if job.is_complete() {
            return match () {
                () if job.asked < rules.max => Some(Next::Refer),
                () => job.settlement.is_none().then_some(Next::Dispute),
            };
        }
        let all_bound =
            job.slots.len() >= usize::from(job.asked) && job.slots.iter().all(|slot| slot.seal.is_some());
        (all_bound && !job.showing).then_some(Next::Show)
    }

    /// Times are measured against the baseline's.
    fn waits_for_baseline(&self, id: EntryId) -> bool {
        let baseline = self.baseline.filter(|baseline| *baseline != id);
        let job = baseline.and_then(|baseline| self.jobs.get(&baseline));
        job.is_some_and(|job| job.settlement.is_none())
    }
}

impl State {
    /// What follows for the jobs of a round.
    pub(super) fn jobs_due(&self, competition: &Competition, round: &Round) -> Option<Derived> {
        let entry = round.queue.due()?;
        let job = round.jobs.get(&entry)?;
        Some(match round.next(&competition.spec.judges, entry)? {
            Next::Settle(outcome) => {
                let settlement = self.settlement(competition, round, entry, job, outcome);
                Derived::Settled { entry, settlement }
            }
            Next::Dispute => Derived::Settled { entry, settlement: Settlement::Disputed },
            Next::Refer => Derived::Referred { entry, need: job.need, asked: job.asked + 1 },
            Next::Show => Derived::VerdictsDue { entry },
        })
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
                    wall: job.wall(outcome, tolerance, Clock::Median),
                    baseline_ns: baseline.and_then(|baseline| {
                        let base = self.facts(competition, round, baseline, Clock::Median)?;
                        Some(rule.time_ns(&base)).filter(|ns| *ns > 0)
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
        clock: Clock,
    ) -> Option<Facts<'a>> {
        let job = round.jobs.get(&id)?;
        matches!(job.settlement, Some(Settlement::Scored { .. })).then_some(())?;
        let tolerance = competition.spec.judges.tolerance_ppm;
        let outcome = job.settled()?;
        let Outcome::Measured { measures, .. } = outcome else { return None };
        let mut facts = Facts {
            measures,
            code_bytes: self.code_bytes(id),
            wall: job.wall(outcome, tolerance, clock),
            baseline_ns: None,
        };
        if let Some(baseline) = round.baseline.filter(|baseline| *baseline != id) {
            let rule = competition.spec.rule();
            let base = self.facts(competition, round, baseline, Clock::Median);
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
        self.requeue(id);
    }

    pub(super) fn apply_settled(&mut self, id: EntryId, settlement: &Settlement) {
        let competition = self.entry(id).and_then(|entry| self.competitions.get(&entry.competition));
        let tolerance = competition.map_or(0, |found| found.spec.judges.tolerance_ppm);
        let mut first = false;
        if let Some(job) = self.job_mut(id) {
            first = job.settlement.replace(*settlement).is_none();
            if !matches!(settlement, Settlement::Disputed) {
                job.basis = job.most(tolerance).map(|(lease, _)| lease);
            }
        }
        let now = self.tip.now();
        let Some(entry) = self.entry_mut(id) else { return };
        let (competition, number, role) = (entry.competition, entry.round, entry.role);
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
        if first && let Some(round) = self.round_mut(competition, number) {
            round.queue.settled += 1;
        }
        self.rest(id);
        if let (Settlement::Scored { scoring, .. }, Role::Challenger, true) = (settlement, role, first) {
            self.contend(id, scoring.score.raw);
        }
        if role == Role::Baseline {
            self.due_anew(competition, number);
        }
    }

    /// Takes a job off the list once nothing can follow from it any more.
    pub(super) fn rest(&mut self, id: EntryId) {
        let place = self.entry(id).map(|entry| (entry.competition, entry.round));
        if let Some((competition, number)) = place
            && let Some(found) = self.competitions.get_mut(&competition)
            && let Some(round) = found.live.get_mut(&number)
            && let Some(job) = round.jobs.get(&id).filter(|job| job.settlement.is_some())
        {
            let rules = found.spec.judges;
            let exhausted = job.is_complete() && job.asked >= rules.max;
            if exhausted || job.agreeing(rules.tolerance_ppm) >= job.need {
                round.pending.remove(&id);
            }
        }
        self.requeue(id);
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
            about: None,
            described: 0,
        })
    }
}
