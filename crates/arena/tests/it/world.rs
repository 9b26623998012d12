//! A seeded world: entrants who seal and open, judges who measure, lie, fall silent and die. Time is a number.
//!
//! "Code" is a few figures behind a hash; a judge's measurement is a pure function of code, seed and input. After each
//! block the world checks what must hold whatever happens.

use shoal_arena::Fold as _;
use std::collections::{BTreeMap, BTreeSet};

use shoal_arena::State;
use shoal_arena::account::{Account, Usage};
use shoal_arena::calendar::Moment;
use shoal_arena::commit::{self, Committed};
use shoal_arena::measure::{CodecItem, Failure, Measures, Outcome, ProgramItem, Verdict, Wall};
use shoal_arena::record::{
    Control, Derived, EntryId, Input, LeaseId, Record, RoundNumber, STATEMENT_KIND, Statement, Step,
    entry_seal,
};
use shoal_arena::refusal::Refusal;
use shoal_arena::spec::{ArenaSpec, CompetitionId, CompetitionSpec, Form, Kind, Source};
use shoal_arena::state::{Artefact, EntryState, GateReason, inputs_hash};
use shoal_arena::verify;
use wire::{Envelope, Hash, Millis, NodeId, RunId, SigningKey};

/// splitmix64: small, seeded, the same everywhere.
#[derive(Clone)]
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
    pub(crate) fn below(&mut self, n: u64) -> u64 {
        self.next() % n.max(1)
    }
    pub(crate) fn percent(&mut self, p: u64) -> bool {
        self.below(100) < p
    }
}

/// What an entry's code is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Quality {
    /// Compressed ÷ original, 10⁻⁶.
    pub(crate) size_ppm: u64,
    /// Fuel per input.
    pub(crate) fuel: u64,
    pub(crate) similarity_ppb: i64,
    pub(crate) failure: Option<Failure>,
    /// Codes with the same number give the same outputs.
    pub(crate) outputs: u64,
    /// Makes codes of one quality differ.
    pub(crate) variant: u64,
}

/// How far clocks are off, 10⁻⁶, either way.
const CLOCK_LUCK_PPM: u64 = 80_000;

impl Quality {
    pub(crate) fn of(size_ppm: u64, variant: u64) -> Self {
        Self {
            size_ppm,
            fuel: 1_000_000,
            similarity_ppb: 999_000_000,
            failure: None,
            outputs: variant,
            variant,
        }
    }
    pub(crate) fn code(&self) -> Hash {
        Hash::of(format!("{self:?}").as_bytes())
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Manner {
    Honest,
    /// Shows other figures than it measured, its own each time.
    Lies,
    /// Shows a far too good figure for key 1's entries: the same as all who do so.
    Colludes,
    /// Binds and never shows.
    Hides,
    /// Gives every lease back: its machine fails.
    Fails,
    /// Neither takes leases nor opens nonces.
    Dead,
}

pub(crate) struct SimJudge {
    pub(crate) key: SigningKey,
    pub(crate) manner: Manner,
    pub(crate) want: u16,
    /// The competition that it can judge, if it cannot judge all.
    pub(crate) only: Option<CompetitionId>,
    /// Verdicts that it bound. A judge that is killed forgets them.
    pub(crate) bound: BTreeMap<LeaseId, (Hash, Verdict)>,
}

pub(crate) struct Sealed {
    pub(crate) entry: EntryId,
    pub(crate) quality: Quality,
    pub(crate) salt: Hash,
    pub(crate) key: SigningKey,
}

pub(crate) const START: &str = "2026-01-01T00:00:00Z";
pub(crate) const HOUR: u64 = 3_600_000;

/// Rounds of an hour; a minute to open, a minute to draw, half an hour to judge.
pub(crate) const SPEC: &str = r#"
name = "matrix"
kind = "codec"
[schedule]
start = "2026-01-01T01:00:00Z"
every_s = 3600
pool_s = 60
opening_s = 60
judging_s = 1800
[inputs]
items = 16
[submission]
bytes_max = 20000
forms = ["component", "python"]
per_round_max = 100
[judges]
lease_s = 60
"#;

pub(crate) fn key(number: u64) -> SigningKey {
    SigningKey::from_bytes(&Hash::of(&number.to_le_bytes()).0)
}

pub(crate) fn owner() -> SigningKey {
    key(1_000_000)
}

pub(crate) struct World {
    /// Times over the baseline's by the clock, 10⁻⁶, by code; each judge finds up to [`CLOCK_LUCK_PPM`] more or less. Of
    /// others fuel decides.
    pub(crate) clocks: BTreeMap<Hash, u64>,
    /// A judge that finds every time a thousandfold.
    pub(crate) slow_clock: Option<NodeId>,
    pub(crate) state: State,
    pub(crate) log: Vec<(Millis, Vec<Record>)>,
    pub(crate) now: Millis,
    pub(crate) random: Random,
    pub(crate) run: RunId,
    pub(crate) judges: BTreeMap<NodeId, SimJudge>,
    pub(crate) codes: BTreeMap<Hash, Quality>,
    pub(crate) sealed: Vec<Sealed>,
    nonce: u64,
    finals: BTreeMap<EntryId, EntryState>,
    settled: BTreeSet<EntryId>,
    ended: BTreeMap<(CompetitionId, RoundNumber), Option<EntryId>>,
    /// Every statement that was accepted.
    pub(crate) statements: Vec<Envelope>,
}

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        let text = format!("name = \"test\"\nowners = [\"{}\"]\nrate_entries = 1000\n", owner().node_id());
        Self::of(&text, seed)
    }

    pub(crate) fn of(arena: &str, seed: u64) -> Self {
        let spec = ArenaSpec::parse(arena).unwrap();
        let now = START.parse::<Moment>().unwrap().0;
        let control = Control::Genesis { spec: spec.canonical(), host: key(255).node_id() };
        let (state, records) = commit::genesis::<State>(spec.run_id(), now, control).unwrap();
        Self {
            state,
            log: vec![(now, records)],
            now,
            random: Random(seed),
            run: spec.run_id(),
            judges: BTreeMap::new(),
            codes: BTreeMap::new(),
            clocks: BTreeMap::new(),
            slow_clock: None,
            sealed: Vec::new(),
            nonce: 0,
            finals: BTreeMap::new(),
            settled: BTreeSet::new(),
            ended: BTreeMap::new(),
            statements: Vec::new(),
        }
    }

    #[expect(clippy::needless_pass_by_value, reason = "callers make the input for this call")]
    pub(crate) fn input(&mut self, input: Input) -> Result<(), Refusal> {
        let before = self.state.digest();
        let Committed { records, outcomes } = commit::commit(&mut self.state, self.now, vec![input.clone()]);
        if !records.is_empty() {
            self.log.push((self.now, records.clone()));
        }
        if let (Ok(()), Input::Stated(envelope)) = (&outcomes[0], &input) {
            self.statements.push(envelope.clone());
        }
        if outcomes[0].is_err() && records.is_empty() {
            assert_eq!(before, self.state.digest(), "a refused input changed the state");
        }
        self.check(&records);
        outcomes.into_iter().next().unwrap()
    }

    /// Several inputs of one block.
    pub(crate) fn inputs(&mut self, inputs: Vec<Input>) -> Vec<Result<(), Refusal>> {
        let Committed { records, outcomes } = commit::commit(&mut self.state, self.now, inputs);
        if !records.is_empty() {
            self.log.push((self.now, records.clone()));
        }
        self.check(&records);
        outcomes
    }

    pub(crate) fn envelope(&mut self, key: &SigningKey, statement: &Statement) -> Envelope {
        self.nonce += 1;
        Envelope::sign(key, self.run, STATEMENT_KIND, wire::to_bytes(statement), self.now, self.nonce)
    }

    pub(crate) fn say(&mut self, key: &SigningKey, statement: &Statement) -> Result<(), Refusal> {
        let envelope = self.envelope(key, statement);
        self.input(Input::Stated(envelope))
    }

    pub(crate) fn at_nonce(&mut self, nonce: u64) {
        self.nonce = nonce;
    }

    pub(crate) fn control(&mut self, control: Control) -> Result<(), Refusal> {
        self.input(Input::Control(control))
    }

    pub(crate) fn open(&mut self, text: &str) -> CompetitionId {
        self.open_by(&owner(), text).unwrap()
    }

    pub(crate) fn open_by(&mut self, key: &SigningKey, text: &str) -> Result<CompetitionId, Refusal> {
        let spec = CompetitionSpec::parse(text).unwrap();
        let baseline = Quality::of(800_000, 0);
        self.codes.insert(baseline.code(), baseline);
        self.say(key, &Statement::Open { spec: spec.canonical() }).map(|()| spec.id())
    }

    pub(crate) fn judge(&mut self, number: u64, manner: Manner) -> NodeId {
        let key = key(2_000_000 + number);
        let id = key.node_id();
        self.control(Control::Admitted { judge: id, operator: format!("operator {number}") }).unwrap();
        self.judges.insert(id, SimJudge { key, manner, want: 4, only: None, bound: BTreeMap::new() });
        id
    }

    pub(crate) fn judges(&mut self, count: u64) -> Vec<NodeId> {
        (0..count).map(|number| self.judge(number, Manner::Honest)).collect()
    }

    pub(crate) fn submit(
        &mut self,
        entrant: u64,
        competition: CompetitionId,
        quality: Quality,
    ) -> Result<EntryId, Refusal> {
        self.submit_with(entrant, competition, quality, Vec::new(), None)
    }

    pub(crate) fn submit_with(
        &mut self,
        entrant: u64,
        competition: CompetitionId,
        quality: Quality,
        parents: Vec<EntryId>,
        receipt: Option<Hash>,
    ) -> Result<EntryId, Refusal> {
        let key = key(entrant);
        let salt = Hash::of(&self.random.next().to_le_bytes());
        let code = quality.code();
        let seal = entry_seal(&competition, &key.node_id(), Form::Component, &code, 1000, &salt);
        self.say(&key, &Statement::Submit { competition, seal, form: Form::Component, parents, receipt })?;
        let entry = self.state.entry_of_seal(&seal).unwrap().id;
        self.codes.insert(code, quality);
        self.sealed.push(Sealed { entry, quality, salt, key });
        Ok(entry)
    }

    /// Opens what may be opened.
    pub(crate) fn unseal(&mut self) {
        for index in 0..self.sealed.len() {
            self.unseal_one(index);
        }
    }

    pub(crate) fn unseal_one(&mut self, index: usize) {
        let Sealed { entry, quality, salt, key } = &self.sealed[index];
        let (entry, code, salt, key) = (*entry, quality.code(), *salt, key.clone());
        let known = self.state.entry(entry).unwrap();
        let round = self.state.competition(&known.competition).unwrap().live.get(&known.round);
        if known.state == EntryState::Sealed && round.is_some_and(|round| round.step == Step::Opening) {
            self.say(&key, &Statement::Unseal { entry, code, bytes: 1000, salt }).unwrap();
        }
    }

    fn wait_for(&mut self, at: Millis) {
        self.now = self.now.max(at);
        let Committed { records, .. } = commit::commit(&mut self.state, self.now, Vec::new());
        if !records.is_empty() {
            self.log.push((self.now, records.clone()));
        }
        self.check(&records);
    }

    /// Lets time pass.
    pub(crate) fn pass(&mut self, ms: u64) {
        let end = self.now.plus(Millis(ms));
        while let Some(at) = self.state.next_deadline(self.now).filter(|at| *at <= end) {
            self.wait_for(at);
        }
        self.wait_for(end);
    }

    /// What an honest judge finds.
    pub(crate) fn measure(&self, id: EntryId) -> Outcome {
        let entry = self.state.entry(id).unwrap();
        let competition = self.state.competition(&entry.competition).unwrap();
        let round = &competition.live[&entry.round];
        let code = entry.code.unwrap();
        let Some(quality) = self.codes.get(&code.hash) else {
            return Outcome::Failed(Failure::CodeUnavailable);
        };
        if let Some(failure) = quality.failure {
            return Outcome::Failed(failure);
        }
        let item = |index: u32| {
            // How hard the input is, and how it suits the code: both by chance of the seed.
            let luck = |parts: &[&[u8]]| u64::from(Hash::of_parts("luck", parts).0[0]);
            let hard = luck(&[&round.seed.0, &index.to_le_bytes()]);
            let suits = luck(&[&round.seed.0, &index.to_le_bytes(), &quality.outputs.to_le_bytes()]);
            CodecItem {
                original_bytes: 2 << 20,
                compressed_bytes: 2 * quality.size_ppm + 100 * hard + 20 * suits,
                similarity_ppb: quality.similarity_ppb,
                exact: quality.similarity_ppb == 1_000_000_000,
                fuel: quality.fuel,
            }
        };
        let inputs = match competition.spec.inputs.source {
            Source::Pool => inputs_hash(&round.items),
            Source::Generator => Hash::of_parts("generated", &[&round.seed.0]),
        };
        let outputs = Hash::of_parts("outputs", &[&round.seed.0, &quality.outputs.to_le_bytes()]);
        let items = 0..competition.spec.inputs.items;
        let measures = match competition.spec.kind {
            Kind::Codec => Measures::Codec(items.map(item).collect()),
            Kind::Program => Measures::Program(
                items
                    .map(|index| ProgramItem {
                        objective_nano: (index != 3 || quality.variant != 3)
                            .then(|| 1000 * item(index).compressed_bytes as i64),
                        fuel: 0,
                    })
                    .collect(),
            ),
        };
        Outcome::Measured { inputs, outputs, measures }
    }

    fn verdict(&mut self, id: EntryId, manner: Manner) -> Verdict {
        let mut outcome = self.measure(id);
        if let Outcome::Measured { measures: Measures::Program(items), .. } = &mut outcome {
            // A program's measurement is never quite the same.
            for nano in items.iter_mut().filter_map(|item| item.objective_nano.as_mut()) {
                *nano += self.random.below(1000) as i64;
            }
        }
        let favourite = self.state.entry(id).unwrap().entrant == key(1).node_id();
        if let (Manner::Colludes, true, Outcome::Measured { measures: Measures::Codec(items), .. }) =
            (manner, favourite, &mut outcome)
        {
            for item in items.iter_mut() {
                item.compressed_bytes /= 10;
            }
        }
        if manner == Manner::Lies {
            let lie = self.random.below(1_000_000);
            match &mut outcome {
                Outcome::Measured { measures: Measures::Codec(items), .. } => items[0].fuel += 1 + lie,
                Outcome::Measured { measures: Measures::Program(items), .. } => {
                    items[0].objective_nano = Some(-1_000_000 * lie as i64);
                }
                other => *other = Outcome::Failed(Failure::Escape),
            }
        }
        let task_time_ns = 1_000_000 + self.random.below(1_000_000);
        let code = self.state.entry(id).and_then(|entry| entry.code);
        let luck = |clock_ppm: &u64| {
            let luck = 1_000_000 - CLOCK_LUCK_PPM + self.random.below(2 * CLOCK_LUCK_PPM);
            clock_ppm * luck / 1_000_000
        };
        let over_baseline_ppm = code.and_then(|code| self.clocks.get(&code.hash)).map_or(0, luck);
        let wall = Some(Wall { task_time_ns, over_baseline_ppm });
        // Another at every judge: nothing may hang on it.
        let usage = Usage { cpu_ns: task_time_ns, ..Usage::default() };
        let account = Box::new(Account { usage, ..Account::default() });
        Verdict { outcome, wall, log: Hash([0; 32]), account }
    }

    /// One judge does what it can do now. Whether that was anything.
    pub(crate) fn act(&mut self, id: NodeId) -> bool {
        let judge = &self.judges[&id];
        let (key, manner, want, only) = (judge.key.clone(), judge.manner, judge.want, judge.only);
        if manner == Manner::Dead || !self.state.is_judge(id) {
            return false;
        }
        let mut acted = false;
        let live: Vec<(CompetitionId, RoundNumber, Step)> = self
            .state
            .competitions()
            .values()
            .flat_map(|found| found.live.values().map(|round| (found.id, round.number, round.step)))
            .collect();
        let covers = |found: &CompetitionId| only.is_none_or(|only| only == *found);
        for (competition, round, step) in live.into_iter().filter(|(found, ..)| covers(found)) {
            let nonce = key.derive("round nonce", &[&competition.0.0, &round.0.to_le_bytes()]);
            let bound = self
                .state
                .competition(&competition)
                .unwrap()
                .live
                .get(&round)
                .map(|round| round.nonces.get(&id).map(|nonce| nonce.opened.is_some()));
            match (step, bound) {
                (Step::Open | Step::Pooling, Some(None)) => {
                    let commitment = ledger::beacon::commitment(&nonce);
                    acted |= self.say(&key, &Statement::Nonce { competition, round, commitment }).is_ok();
                }
                (Step::Drawing, Some(Some(false))) => {
                    acted |= self.say(&key, &Statement::OpenNonce { competition, round, nonce }).is_ok();
                }
                _ => {}
            }
        }
        let leases: Vec<(LeaseId, EntryId)> =
            self.state.leases_of(id).map(|(lease, found)| (lease, found.entry)).collect();
        for (lease, entry) in &leases {
            acted |= self.work(id, *lease, *entry);
        }
        if leases.iter().all(|(lease, _)| self.judges[&id].bound.contains_key(lease)) {
            let before = self.state.leases().len();
            self.say(&key, &Statement::Lease { want }).unwrap();
            acted |= self.state.leases().len() > before;
        }
        acted
    }

    fn work(&mut self, id: NodeId, lease: LeaseId, entry: EntryId) -> bool {
        let (key, manner) = (self.judges[&id].key.clone(), self.judges[&id].manner);
        let Some(slot) =
            self.state.job(entry).and_then(|job| job.slots.iter().find(|slot| slot.lease == lease))
        else {
            return false;
        };
        let showing = self.state.job(entry).unwrap().showing;
        if slot.seal.is_none() && manner == Manner::Fails {
            return self.say(&key, &Statement::Return { lease }).is_ok();
        }
        if slot.seal.is_none() {
            let mut verdict = self.verdict(entry, manner);
            if let Some(wall) = verdict.wall.as_mut().filter(|_| self.slow_clock == Some(id)) {
                wall.over_baseline_ppm *= 1000;
            }
            let nonce = Hash::of(&self.random.next().to_le_bytes());
            let seal = verdict.seal(&id, &nonce);
            self.judges.get_mut(&id).unwrap().bound.insert(lease, (nonce, verdict));
            self.say(&key, &Statement::Judged { lease, seal }).unwrap();
            return true;
        }
        if showing && slot.verdict.is_none() && manner != Manner::Hides {
            // A judge that was killed has lost what it bound; the lease runs out.
            let Some((nonce, verdict)) = self.judges[&id].bound.get(&lease).cloned() else { return false };
            self.say(&key, &Statement::Show { lease, nonce, verdict }).unwrap();
            return true;
        }
        false
    }

    /// All judges act until none has anything to do.
    pub(crate) fn settle(&mut self) {
        let ids: Vec<NodeId> = self.judges.keys().copied().collect();
        loop {
            let mut acted = false;
            for id in &ids {
                acted |= self.act(*id);
            }
            if !acted {
                return;
            }
        }
    }

    /// From an open round to its end: close, open, draw, judge.
    pub(crate) fn play_round(&mut self, competition: CompetitionId) -> RoundNumber {
        let (round, closes) = {
            let open = self.state.competition(&competition).unwrap().open_round().unwrap();
            (open.number, open.closes)
        };
        self.settle();
        self.pass(closes.since(self.now).0);
        self.unseal();
        self.settle();
        for _ in 0..40 {
            if !self.state.competition(&competition).unwrap().live.contains_key(&round) {
                return round;
            }
            self.pass(61_000);
            self.settle();
        }
        panic!("round {round} did not end");
    }

    /// What must hold after every block.
    fn check(&mut self, records: &[Record]) {
        for record in records {
            let Record::Derived(derived) = record else { continue };
            match derived {
                Derived::Settled { entry, .. } => {
                    assert!(self.settled.insert(*entry), "entry {entry} was judged twice");
                }
                Derived::RoundCompleted { competition, round, takeover, .. } => {
                    let old = self.ended.insert((*competition, *round), *takeover);
                    assert!(old.is_none(), "round {round} ended twice");
                }
                Derived::RoundVoid { competition, round, .. } => {
                    let old = self.ended.insert((*competition, *round), None);
                    assert!(old.is_none(), "round {round} ended twice");
                }
                _ => {}
            }
        }
        for (id, before) in &self.finals {
            assert_eq!(&self.state.entry(*id).unwrap().state, before, "entry {id} changed after its end");
        }
        for entry in self.state.entries() {
            let live = &self.state.competition(&entry.competition).unwrap().live;
            if entry.state.is_final() && !live.contains_key(&entry.round) {
                self.finals.insert(entry.id, entry.state);
            }
        }
        let weights = self.state.weights(self.now);
        assert_eq!(weights.keys.values().sum::<u64>() + weights.burned, 1_000_000_000);
        let stranger = key(9_999_999).node_id();
        for entry in self.state.entries().iter().rev().take(20) {
            let competition = self.state.competition(&entry.competition).unwrap();
            let over = !competition.live.contains_key(&entry.round);
            let gate = self.state.gate(entry.id, Artefact::Code, Some(stranger), self.now);
            if gate.is_ok() && entry.version > 0 {
                assert!(over && entry.reveal_at.unwrap() <= self.now, "code of {} shown too early", entry.id);
            }
            let result = self.state.gate(entry.id, Artefact::Result, Some(stranger), self.now);
            assert_eq!(result.is_ok(), over);
            if let Err(gate) = result {
                assert_eq!(gate.reason, GateReason::RoundNotCompleted);
            }
        }
    }

    /// The log, folded again with every signature checked, gives this very state.
    pub(crate) fn verify(&self) {
        let (time, records) = &self.log[0];
        let mut state = verify::start::<State>(self.run, *time, records).unwrap();
        for (time, records) in &self.log[1..] {
            verify::replay(&mut state, *time, records).unwrap();
        }
        assert_eq!(state, self.state);
    }
}
