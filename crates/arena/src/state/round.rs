//! Rounds: open, closed, unsealed, drawn, judged.

use std::collections::{BTreeMap, BTreeSet};

use wire::{Hash, Millis, NodeId};

use super::State;
use super::competition::{Competition, RoundSummary};
use super::entry::{EntryState, Role};
use super::job::Job;
use super::queue::Queue;
use crate::record::{Derived, EntryId, PoolItem, RoundNumber, Step, VoidReason};
use crate::spec::{CompetitionId, Source};

/// A round that is open or judged.
#[derive(Clone, Debug, PartialEq)]
pub struct Round {
    /// Number.
    pub number: RoundNumber,
    /// What is awaited.
    pub step: Step,
    /// When it opened.
    pub opened_at: Millis,
    /// When it closes, or closed.
    pub closes: Millis,
    /// When the step ends at the latest.
    pub until: Millis,
    /// Challengers in the order of entry, also replaced ones.
    pub entries: Vec<EntryId>,
    /// Challengers whose seal is awaited.
    pub(super) unopened: BTreeSet<EntryId>,
    /// Judges' parts of the seed.
    pub nonces: BTreeMap<NodeId, NonceState>,
    /// What the inputs are drawn from.
    pub pool: Vec<PoolItem>,
    /// Seed; zero before it is known.
    pub seed: Hash,
    /// Drawn inputs.
    pub items: Vec<Hash>,
    /// Entry of the baseline.
    pub baseline: Option<EntryId>,
    /// Entry of the champion.
    pub incumbent: Option<EntryId>,
    /// What is judged.
    pub jobs: BTreeMap<EntryId, Job>,
    /// Jobs from which something may follow.
    pub(super) pending: BTreeSet<EntryId>,
    /// Lists over `jobs`.
    pub(super) queue: Queue,
    /// Voices among the admitted judges whose part of the seed is opened: operators, where one may judge an entry once.
    pub(super) parts: usize,
    /// Leases that each judge gave back.
    pub(super) returned: BTreeMap<NodeId, u8>,
    /// From here on a takeover is prepared, even if an entry is not settled.
    pub decide_from: Millis,
}

/// A judge's part of the seed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NonceState {
    /// What binds it.
    pub commitment: Hash,
    /// The nonce.
    pub opened: Option<Hash>,
}

impl Round {
    fn new(number: RoundNumber, opened_at: Millis, closes: Millis) -> Self {
        Self {
            number,
            step: Step::Open,
            opened_at,
            closes,
            until: closes,
            entries: Vec::new(),
            unopened: BTreeSet::new(),
            nonces: BTreeMap::new(),
            pool: Vec::new(),
            seed: Hash([0; 32]),
            items: Vec::new(),
            baseline: None,
            incumbent: None,
            jobs: BTreeMap::new(),
            pending: BTreeSet::new(),
            queue: Queue::default(),
            parts: 0,
            returned: BTreeMap::new(),
            decide_from: Millis(u64::MAX),
        }
    }

    /// Whether it takes entries.
    pub fn is_open(&self) -> bool {
        self.step == Step::Open
    }

    /// Entries under which jobs stand: baseline and incumbent first.
    pub fn automatic(&self) -> impl Iterator<Item = EntryId> {
        self.baseline.into_iter().chain(self.incumbent)
    }

    pub(super) fn deadlines(&self) -> Vec<Millis> {
        let jobs = self.queue.barred().filter_map(|id| self.jobs.get(&id));
        let barred = jobs.flat_map(|job| job.missed.values().map(|(_, until)| *until));
        barred.chain([self.until, self.decide_from]).collect()
    }

    pub(super) fn shift(&mut self, down: Millis) {
        self.until = self.until.plus(down);
        self.decide_from = self.decide_from.plus(down);
        for (_, until) in self.jobs.values_mut().flat_map(|job| job.missed.values_mut()) {
            *until = until.plus(down);
        }
        if self.step == Step::Open {
            self.closes = self.closes.plus(down);
        }
    }

    /// Number of jobs settled, and of all.
    pub fn progress(&self) -> (usize, usize) {
        (self.queue.settled, self.jobs.len())
    }
}

impl State {
    pub(super) fn rounds_due(&self) -> Option<Derived> {
        let running = self.competitions.values().filter(|competition| competition.completed_at.is_none());
        running.into_iter().find_map(|competition| self.competition_due(competition))
    }

    fn competition_due(&self, competition: &Competition) -> Option<Derived> {
        let id = competition.id;
        let rounds = competition.live.values().find_map(|round| self.round_due(competition, round));
        if rounds.is_some() {
            return rounds;
        }
        if let Some(round) = competition.opening(self.tip.now()) {
            let closes = competition.spec.schedule.closes(round.0);
            return Some(Derived::RoundOpened { competition: id, round, closes });
        }
        let over = competition.live.is_empty() && competition.is_spent(self.tip.now());
        over.then_some(Derived::Completed { competition: id })
    }

    fn round_due(&self, competition: &Competition, round: &Round) -> Option<Derived> {
        let (id, number) = (competition.id, round.number);
        let passed = self.passed(round.until);
        let advance = |step| Some(Derived::Advanced { competition: id, round: number, step });
        let void = |reason| Some(Derived::RoundVoid { competition: id, round: number, reason });
        match round.step {
            Step::Open if !passed => None,
            Step::Open if round.entries.is_empty() => void(VoidReason::NoEntries),
            Step::Open if competition.spec.inputs.source == Source::Pool => advance(Step::Pooling),
            Step::Open => advance(Step::Opening),
            Step::Pooling if !round.pool.is_empty() => advance(Step::Opening),
            Step::Pooling if passed => void(VoidReason::NoPool),
            Step::Pooling => None,
            Step::Opening if !passed && !round.unopened.is_empty() => None,
            Step::Opening if !self.any_opened(round) => void(VoidReason::NoEntries),
            Step::Opening => advance(Step::Drawing),
            Step::Drawing => self.drawing_due(competition, round, passed),
            Step::Judging => {
                self.jobs_due(competition, round).or_else(|| self.completion_due(competition, round, passed))
            }
        }
    }

    fn any_opened(&self, round: &Round) -> bool {
        round.entries.iter().any(|id| self.entry(*id).is_some_and(|entry| entry.state == EntryState::Opened))
    }

    fn drawing_due(&self, competition: &Competition, round: &Round, passed: bool) -> Option<Derived> {
        let awaited =
            |(judge, nonce): (&NodeId, &super::NonceState)| self.is_judge(*judge) && nonce.opened.is_none();
        if !passed && round.nonces.iter().any(awaited) {
            return None;
        }
        let (id, number) = (competition.id, round.number);
        if round.nonces.values().all(|nonce| nonce.opened.is_none()) {
            return Some(Derived::RoundVoid { competition: id, round: number, reason: VoidReason::NoJudges });
        }
        // The round before must be decided: its champion is this round's incumbent.
        if competition.live.keys().any(|other| *other < number) {
            return None;
        }
        let seed = self.round_seed(competition, round);
        let (challengers, copies) = self.admitted(round);
        let mut next = self.next_entry();
        let mut automatic = |exists: bool| {
            let id = next;
            next = EntryId(next.0 + u64::from(exists));
            exists.then_some(id)
        };
        let baseline = automatic(competition.spec.baseline.code.is_some());
        let incumbent = automatic(competition.champion.is_some());
        let items = draw(&seed, &round.pool, competition);
        Some(Derived::InputsFixed {
            competition: id,
            round: number,
            seed,
            items,
            challengers,
            baseline,
            incumbent,
            copies,
        })
    }

    /// Beacon of the pool, the entrants' salts in order of entry and the judges' nonces in order of key. Entrants open
    /// before judges, so that nobody who competes can choose between seeds.
    fn round_seed(&self, competition: &Competition, round: &Round) -> Hash {
        let pool = Hash::of(&wire::to_bytes(&round.pool));
        let number = round.number.0.to_le_bytes();
        let salts = round.entries.iter().filter_map(|id| {
            let entry = self.entry(*id).filter(|entry| entry.state == EntryState::Opened)?;
            entry.code.as_ref().map(|code| &code.salt)
        });
        let nonces = round.nonces.values().filter_map(|nonce| nonce.opened.as_ref());
        let context: [&[u8]; 4] = [b"arena round", &competition.id.0.0, &number, &pool.0];
        ledger::beacon::seed(&context, salts.chain(nonces))
    }

    /// Opened entries: those to be judged, and the copies with their originals. Of equal codes the one sealed first is
    /// the original; a key may enter its own code again.
    fn admitted(&self, round: &Round) -> (Vec<EntryId>, Vec<(EntryId, EntryId)>) {
        let (mut challengers, mut copies) = (Vec::new(), Vec::new());
        let mut fresh: BTreeMap<Hash, EntryId> = BTreeMap::new();
        for id in &round.entries {
            let Some(entry) = self.entry(*id).filter(|entry| entry.state == EntryState::Opened) else {
                continue;
            };
            let Some(code) = &entry.code else { continue };
            let known = self.codes.get(&(entry.competition, code.hash)).copied();
            let original = known.unwrap_or_else(|| *fresh.entry(code.hash).or_insert(*id));
            let owner = self.entry(original).map(|entry| entry.entrant);
            if owner == Some(entry.entrant) {
                challengers.push(*id);
            } else {
                copies.push((*id, original));
            }
        }
        (challengers, copies)
    }

    pub(super) fn apply_round_opened(&mut self, id: CompetitionId, number: RoundNumber, closes: Millis) {
        let now = self.tip.now();
        if let Some(competition) = self.competitions.get_mut(&id) {
            competition.next_round = RoundNumber(number.0 + 1);
            competition.live.insert(number, Round::new(number, now, closes));
        }
    }

    pub(super) fn apply_advanced(&mut self, id: CompetitionId, number: RoundNumber, step: Step) {
        let now = self.tip.now();
        let Some(competition) = self.competitions.get(&id) else { return };
        let schedule = &competition.spec.schedule;
        let span = if step == Step::Pooling { schedule.pool_s } else { schedule.opening_s };
        let until = now.plus(Millis(span * 1000));
        let Some(round) = competition.live.get(&number) else { return };
        let sealed: BTreeSet<EntryId> = round
            .entries
            .iter()
            .copied()
            .filter(|id| self.entry(*id).is_some_and(|entry| entry.state == EntryState::Sealed))
            .collect();
        if step == Step::Drawing {
            for id in &sealed {
                if let Some(entry) = self.entry_mut(*id) {
                    entry.state = EntryState::Unopened;
                }
            }
        }
        let Some(round) = self.round_mut(id, number) else { return };
        round.step = step;
        round.until = until;
        if step == Step::Opening {
            round.unopened = sealed;
        }
    }

    pub(super) fn apply_inputs_fixed(
        &mut self,
        (id, number): (CompetitionId, RoundNumber),
        seed: Hash,
        items: &[Hash],
        challengers: &[EntryId],
        (baseline, incumbent): (Option<EntryId>, Option<EntryId>),
        copies: &[(EntryId, EntryId)],
    ) {
        for (copy, original) in copies {
            if let Some(entry) = self.entry_mut(*copy) {
                entry.state = EntryState::Copy { of: *original };
                let receipt = entry.receipt;
                self.free_receipt(receipt);
            }
        }
        for id in challengers {
            let Some(entry) = self.entry_mut(*id) else { continue };
            entry.state = EntryState::Queued;
            let key = entry.code.map(|code| (entry.competition, code.hash));
            if let Some(key) = key {
                self.codes.entry(key).or_insert(*id);
            }
        }
        for role in [Role::Baseline, Role::Incumbent] {
            let wanted = if role == Role::Baseline { baseline } else { incumbent };
            let found = self
                .competitions
                .get(&id)
                .and_then(|competition| self.automatic(competition, competition.live.get(&number)?, role));
            if let (Some(_), Some(entry)) = (wanted, found) {
                if role == Role::Incumbent {
                    self.entrants.entry(entry.entrant).or_default().automatic.push(entry.id);
                }
                self.entries.push(entry);
            }
        }
        let withheld: Vec<NodeId> = self
            .competitions
            .get(&id)
            .and_then(|found| found.live.get(&number))
            .map_or_else(Vec::new, |round| {
                round
                    .nonces
                    .iter()
                    .filter(|(_, nonce)| nonce.opened.is_none())
                    .map(|(judge, _)| *judge)
                    .collect()
            });
        for judge in withheld {
            if let Some(judge) = self.judges.get_mut(&judge) {
                judge.withheld += 1;
            }
        }
        let now = self.tip.now();
        let Some(competition) = self.competitions.get_mut(&id) else { return };
        let agree = competition.spec.judges.agree;
        let span = competition.spec.schedule.judging_s * 1000;
        competition.used.extend(items.iter().copied());
        while competition.used.len() > crate::limits::USED_ITEMS_MAX {
            competition.used.pop_first();
        }
        let Some(round) = competition.live.get_mut(&number) else { return };
        round.step = Step::Judging;
        round.until = now.plus(Millis(span));
        round.decide_from = now.plus(Millis(span / 2));
        round.seed = seed;
        round.items = items.to_vec();
        (round.baseline, round.incumbent) = (baseline, incumbent);
        let judged: Vec<EntryId> = round.automatic().chain(challengers.iter().copied()).collect();
        round.jobs = judged.iter().map(|id| (*id, Job::new(agree))).collect();
        round.pending = judged.into_iter().collect();
        self.due_anew(id, number);
        self.parts_anew();
    }

    pub(super) fn apply_round_void(&mut self, id: CompetitionId, number: RoundNumber, reason: VoidReason) {
        let Some(competition) = self.competitions.get_mut(&id) else { return };
        let Some(round) = competition.live.remove(&number) else { return };
        let last = competition.summaries.back().and_then(|summary| summary.to_beat);
        let champion = competition.champion.map(|champion| champion.entry);
        competition.summarise(RoundSummary {
            round: number,
            opened_at: round.opened_at,
            closed_at: round.closes,
            completed_at: self.tip.now(),
            void: Some(reason),
            seed: Hash([0; 32]),
            items: Vec::new(),
            board: Vec::new(),
            takeover: None,
            champion,
            to_beat: last,
        });
        for id in round.entries {
            let Some(entry) = self.entry_mut(id) else { continue };
            if entry.state.is_final()
                || (reason == VoidReason::NoEntries && entry.state == EntryState::Sealed)
            {
                // Whoever let the time pass is not given it back.
                if entry.state == EntryState::Sealed {
                    entry.state = EntryState::Unopened;
                }
                continue;
            }
            entry.state = EntryState::Stale;
            self.refund(id);
        }
    }

    pub(super) fn apply_completed(&mut self, id: CompetitionId) {
        self.accrue(id);
        let now = self.tip.now();
        if let Some(competition) = self.competitions.get_mut(&id) {
            competition.completed_at = Some(now);
            competition.payees.clear();
            competition.registered.clear();
        }
    }
}

/// Draws the inputs: items in an order that the seed declares, as many of each operator as the spec allows.
fn draw(seed: &Hash, pool: &[PoolItem], competition: &Competition) -> Vec<Hash> {
    let inputs = &competition.spec.inputs;
    if inputs.source == Source::Generator {
        return Vec::new();
    }
    let place = |item: &PoolItem| Hash::of_parts("shoal 2026-11 arena draw", &[&seed.0, &item.hash.0]);
    let mut order: Vec<(Hash, &PoolItem)> = pool.iter().map(|item| (place(item), item)).collect();
    order.sort_unstable();
    let mut given: BTreeMap<NodeId, usize> = BTreeMap::new();
    let mut drawn = Vec::new();
    for (_, item) in order {
        let count = given.entry(item.operator).or_default();
        if drawn.len() < inputs.items as usize && *count < inputs.per_operator_max() {
            *count += 1;
            drawn.push(item.hash);
        }
    }
    drawn
}
