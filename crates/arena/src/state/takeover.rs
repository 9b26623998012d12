//! The end of a round: who is above the threshold, how sure that is, who confirms it, who leads.

use std::collections::{BTreeMap, BTreeSet};

use wire::{Hash, NodeId};

use super::State;
use super::competition::{BoardRow, Champion, Competition, RoundSummary};
use super::entry::{Entry, EntryState, Role};
use super::job::{Clock, Job};
use super::round::Round;
use crate::limits;
use crate::number::{PPM, ppm_of};
use crate::record::{Derived, EntryId, RoundNumber, Settlement};
use crate::rule::{Scoring, sign_flip_test};
use crate::spec::CompetitionId;

/// What the takeover rule says at a moment.
enum Decision {
    /// This must follow first.
    Due(Derived),
    /// Judges are awaited.
    Wait,
    /// Decided.
    Done(Option<EntryId>),
}

/// Whether enough judges agree on an entry for a takeover.
enum Confirmed {
    Yes,
    No,
    /// Not yet: ask these.
    Ask(Derived),
    Wait,
}

impl Round {
    /// Scores of a settled entry.
    pub(super) fn scoring(&self, id: EntryId) -> Option<&Scoring> {
        match &self.jobs.get(&id)?.settlement {
            Some(Settlement::Scored { scoring, .. }) => Some(scoring),
            _ => None,
        }
    }

    fn outputs(&self, id: EntryId) -> Option<Hash> {
        match &self.jobs.get(&id)?.settlement {
            Some(Settlement::Scored { outputs, .. }) => Some(*outputs),
            _ => None,
        }
    }
}

impl State {
    pub(super) fn completion_due(
        &self,
        competition: &Competition,
        round: &Round,
        passed: bool,
    ) -> Option<Derived> {
        let settled = round.queue.settled == round.jobs.len();
        if !settled && !self.passed(round.decide_from) {
            return None;
        }
        let takeover = match self.decide_takeover(competition, round) {
            Decision::Due(derived) => {
                let asks = matches!(derived, Derived::Referred { .. });
                if !(asks && passed) {
                    return Some(derived);
                }
                None
            }
            Decision::Wait if passed => None,
            Decision::Done(takeover) if settled || passed => takeover,
            Decision::Wait | Decision::Done(_) => return None,
        };
        let stale =
            round.jobs.iter().filter(|(_, job)| job.settlement.is_none()).map(|(id, _)| *id).collect();
        Some(Derived::RoundCompleted {
            competition: competition.id,
            round: round.number,
            takeover,
            champion: takeover.or(competition.champion.map(|champion| champion.entry)),
            stale,
            disputed: Self::contradicted(competition, round),
        })
    }

    /// The entry that holds the bar: the better one of incumbent and baseline.
    fn bar(competition: &Competition, round: &Round) -> Option<(EntryId, f64)> {
        let direction = competition.spec.rule().direction();
        let scored = round.automatic().filter_map(|id| Some((id, round.scoring(id)?.score.raw)));
        scored.min_by(|(_, a), (_, b)| direction.order(*a, *b))
    }

    fn decide_takeover(&self, competition: &Competition, round: &Round) -> Decision {
        // Without a verdict on the incumbent nothing can be compared; it stays.
        let incumbent = round.incumbent.and_then(|id| round.jobs.get(&id));
        match incumbent.map(|job| &job.settlement) {
            Some(None) => return Decision::Wait,
            Some(Some(Settlement::Disputed)) => return Decision::Done(None),
            _ => {}
        }
        if round.baseline.and_then(|id| round.jobs.get(&id)).is_some_and(|job| job.settlement.is_none()) {
            return Decision::Wait;
        }
        let (rule, takeover) = (competition.spec.rule(), competition.spec.takeover());
        let direction = rule.direction();
        let bar = Self::bar(competition, round);
        if bar.is_none() && round.baseline.is_some() {
            // A bar is meant to be there, and nobody knows how high.
            return Decision::Done(None);
        }
        // A champion that fails holds no bar: without a baseline there is none, as in the first round.
        // Best first: behind the first that does not clear the bar none does.
        let clears = |raw| takeover.clears(raw, bar.map(|(_, raw)| raw), direction);
        let contenders = round.queue.contenders.iter();
        let near = contenders.take_while(|contender| contender.raw.is_nan() || clears(contender.raw));
        for id in near.filter(|contender| clears(contender.raw)).map(|contender| contender.entry) {
            if let (Some((bar, _)), true) = (bar, takeover.alpha_ppm > 0) {
                let Some(job) = round.jobs.get(&id) else { continue };
                match job.comparison {
                    None => {
                        return Decision::Due(self.compare(competition, round, id, bar, round.queue.scored));
                    }
                    Some((_, false)) => continue,
                    Some((_, true)) => {}
                }
            }
            match Self::confirmed(competition, round, id) {
                Confirmed::No => continue,
                Confirmed::Wait => return Decision::Wait,
                Confirmed::Ask(derived) => return Decision::Due(derived),
                Confirmed::Yes => {}
            }
            let holders = round.incumbent.into_iter().chain(bar.map(|(bar, _)| bar)).collect::<BTreeSet<_>>();
            for holder in holders {
                match Self::confirmed(competition, round, holder) {
                    Confirmed::No => return Decision::Done(None),
                    Confirmed::Wait => return Decision::Wait,
                    Confirmed::Ask(derived) => return Decision::Due(derived),
                    Confirmed::Yes => {}
                }
            }
            // Judges that were asked since the comparison may have found it slower, or the bar faster.
            if let (Some((bar, _)), true) = (bar, takeover.alpha_ppm > 0) {
                let (of_bar, of_entry) = self.losses(competition, round, id, bar);
                if of_entry.iter().sum::<i128>() >= of_bar.iter().sum() {
                    continue;
                }
            }
            return Decision::Done(Some(id));
        }
        Decision::Done(None)
    }

    fn compare(
        &self,
        competition: &Competition,
        round: &Round,
        entry: EntryId,
        bar: EntryId,
        challengers: usize,
    ) -> Derived {
        let (of_bar, of_entry) = self.losses(competition, round, entry, bar);
        let seed = Hash::of_parts("shoal 2026-11 arena coins", &[&round.seed.0, &entry.0.to_le_bytes()]);
        let comparison = sign_flip_test(&seed, &of_bar, &of_entry);
        let sure = competition.spec.takeover().is_sure(&comparison, challengers as u32);
        Derived::Compared { entry, bar, comparison, sure }
    }

    /// What the bar and an entry lose on each input, at the times that speak against the entry: the slowest that a judge
    /// measured, against the fastest of the bar's less what clocks are apart anyway. On all inputs alike it is the clock's
    /// word alone, which no test over inputs can doubt.
    fn losses(
        &self,
        competition: &Competition,
        round: &Round,
        entry: EntryId,
        bar: EntryId,
    ) -> (Vec<i128>, Vec<i128>) {
        let rule = competition.spec.rule();
        let of = |id, clock| {
            let mut facts = self.facts(competition, round, id, clock)?;
            if let (Clock::Fastest, Some(wall)) = (clock, &mut facts.wall) {
                for time in [&mut wall.task_time_ns, &mut wall.over_baseline_ppm] {
                    *time = ppm_of(*time, PPM - limits::CLOCK_NOISE_PPM);
                }
            }
            Some(rule.losses(&facts))
        };
        let found = |id, clock| of(id, clock).unwrap_or_default();
        (found(bar, Clock::Fastest), found(entry, Clock::Slowest))
    }

    fn confirmed(competition: &Competition, round: &Round, id: EntryId) -> Confirmed {
        let rules = &competition.spec.judges;
        let Some(job) = round.jobs.get(&id) else { return Confirmed::No };
        let agreeing = job.agreeing(rules.tolerance_ppm);
        match () {
            () if agreeing >= rules.takeover => Confirmed::Yes,
            () if job.need < rules.takeover => {
                let asked = (job.slots.len() as u8).saturating_add(rules.takeover - agreeing).min(rules.max);
                let asked = asked.max(job.asked);
                Confirmed::Ask(Derived::Referred { entry: id, need: rules.takeover, asked })
            }
            () if job.is_complete() && job.asked >= rules.max => Confirmed::No,
            () => Confirmed::Wait,
        }
    }

    /// Entries on which as many judges as can be asked were asked, and too few of them agree with what was settled.
    fn contradicted(competition: &Competition, round: &Round) -> Vec<EntryId> {
        let rules = &competition.spec.judges;
        let contradicted = |job: &Job| {
            let settled = matches!(job.settlement, Some(Settlement::Scored { .. } | Settlement::Failed(_)));
            let exhausted = job.is_complete() && job.asked >= rules.max;
            settled && exhausted && job.agreeing(rules.tolerance_ppm) < job.need
        };
        round.jobs.iter().filter(|(_, job)| contradicted(job)).map(|(id, _)| *id).collect()
    }

    pub(super) fn apply_compared(&mut self, id: EntryId, comparison: crate::rule::Comparison, sure: bool) {
        if let Some(job) = self.job_mut(id) {
            job.comparison = Some((comparison, sure));
        }
        if sure {
            return;
        }
        // The bar stays for the rest of the round: who was not sure against it is not looked at again.
        let place = self.entry(id).map(|entry| (entry.competition, entry.round));
        if let Some((competition, number)) = place
            && let Some(round) = self.round_mut(competition, number)
            && let Some(raw) = round.scoring(id).map(|scoring| scoring.score.raw)
        {
            let direction = round.queue.contenders.first().map(|first| first.direction);
            if let Some(direction) = direction {
                round.queue.contenders.remove(&super::queue::Contender { raw, entry: id, direction });
            }
        }
    }

    pub(super) fn apply_round_completed(
        &mut self,
        (id, number): (CompetitionId, RoundNumber),
        takeover: Option<EntryId>,
        stale: &[EntryId],
        disputed: &[EntryId],
    ) {
        self.accrue(id);
        let Some(mut competition) = self.competitions.remove(&id) else { return };
        if let Some(mut round) = competition.live.remove(&number) {
            self.count_judges(&competition, &round);
            for slot in round.jobs.values().flat_map(|job| &job.slots) {
                self.leases.remove(slot.lease);
            }
            for id in stale {
                if let Some(entry) = self.entry_mut(*id) {
                    entry.state = EntryState::Stale;
                }
                self.refund(*id);
            }
            for id in disputed {
                if let Some(job) = round.jobs.get_mut(id) {
                    job.settlement = Some(Settlement::Disputed);
                }
                if let Some(entry) = self.entry_mut(*id) {
                    entry.state = EntryState::Disputed;
                }
            }
            let board = self.rank(&competition, &round);
            self.crown(&mut competition, &round, takeover);
            competition.claim();
            let reveal_at = self.tip.now().plus(wire::Millis(competition.spec.reveal.code_delay_s * 1000));
            for id in &round.entries {
                if let Some(entry) = self.entry_mut(*id).filter(|entry| entry.code.is_some()) {
                    entry.reveal_at = Some(reveal_at);
                }
            }
            competition.payees = self.payees(&competition, &round, &board);
            self.summarise(&mut competition, round, board, takeover);
        }
        self.competitions.insert(id, competition);
    }

    fn count_judges(&mut self, competition: &Competition, round: &Round) {
        let tolerance = competition.spec.judges.tolerance_ppm;
        for job in round.jobs.values() {
            let Some(outcome) = job.settled() else { continue };
            for slot in &job.slots {
                let Some(verdict) = &slot.verdict else { continue };
                if let Some(judge) = self.judges.get_mut(&slot.judge) {
                    let agrees = verdict.outcome.agrees(outcome, tolerance);
                    judge.agreed += u64::from(agrees);
                    judge.disagreed += u64::from(!agrees);
                }
            }
        }
    }

    /// Ranks the scored entries of a round, best first, and marks those that only repeat another's outputs.
    fn rank(&mut self, competition: &Competition, round: &Round) -> Vec<BoardRow> {
        let direction = competition.spec.rule().direction();
        let mut first: BTreeMap<Hash, (EntryId, NodeId)> = BTreeMap::new();
        let mut rows: Vec<(BoardRow, bool)> = Vec::new();
        for id in round.automatic().chain(round.entries.iter().copied()) {
            let (Some(scoring), Some(outputs)) = (round.scoring(id), round.outputs(id)) else { continue };
            let Some((entrant, role)) = self.entry(id).map(|entry| (entry.entrant, entry.role)) else {
                continue;
            };
            let (original, owner) = *first.entry(outputs).or_insert((id, entrant));
            let echo_of = (owner != entrant && role == Role::Challenger).then_some(original);
            let row = BoardRow { rank: 0, entry: id, entrant, scoring: *scoring, echo_of };
            rows.push((row, role == Role::Challenger));
        }
        rows.sort_by(|(a, late_a), (b, late_b)| {
            let raw = direction.order(a.scoring.score.raw, b.scoring.score.raw);
            raw.then(late_a.cmp(late_b)).then(a.entry.cmp(&b.entry))
        });
        for (index, (row, _)) in rows.iter_mut().enumerate() {
            row.rank = index as u32 + 1;
            if let Some(entry) = self.entry_mut(row.entry) {
                entry.rank = Some(row.rank);
                entry.echo_of = row.echo_of;
            }
        }
        rows.into_iter().map(|(row, _)| row).collect()
    }

    fn crown(&self, competition: &mut Competition, round: &Round, takeover: Option<EntryId>) {
        if let (Some(champion), Some(id)) = (&mut competition.champion, round.incumbent)
            && let Some(scoring) = round.scoring(id)
        {
            champion.scoring = *scoring;
        }
        let winner: Option<&Entry> = takeover.and_then(|id| self.entry(id));
        if let Some(entry) = winner
            && let (Some(scoring), Some(code)) = (round.scoring(entry.id), entry.code)
        {
            let bar = Self::bar(competition, round).map(|(_, raw)| raw);
            competition.contribute(entry.entrant, bar, scoring.score.raw);
            competition.champion = Some(Champion {
                entry: entry.id,
                entrant: entry.entrant,
                code: code.hash,
                round: round.number,
                since: self.tip.now(),
                scoring: *scoring,
            });
        }
    }

    fn summarise(
        &self,
        competition: &mut Competition,
        round: Round,
        mut board: Vec<BoardRow>,
        takeover: Option<EntryId>,
    ) {
        let direction = competition.spec.rule().direction();
        // The winner of this round, else who held the bar.
        let top = takeover.and_then(|id| round.scoring(id).map(|scoring| scoring.score.raw));
        let top = top.or(Self::bar(competition, &round).map(|(_, raw)| raw));
        board.truncate(limits::BOARD_ROWS_MAX);
        let champion = competition.champion.map(|champion| champion.entry);
        let threshold = competition.spec.takeover();
        competition.summarise(RoundSummary {
            round: round.number,
            opened_at: round.opened_at,
            closed_at: round.closes,
            completed_at: self.tip.now(),
            void: None,
            seed: round.seed,
            items: round.items,
            board,
            takeover,
            champion,
            to_beat: top.map(|top| threshold.threshold(top, direction)),
        });
    }
}
