//! A round with more entries than its board keeps: they are compared with a baseline that stands on it no more.

use arena::commit::{self, Committed};
use arena::limits::{BOARD_ROWS_MAX, LEASES_PER_JUDGE_MAX};
use arena::measure::Measures;
use arena::record::{Control, Input, LeaseId, RoundNumber, STATEMENT_KIND, Statement, Step, entry_seal};
use arena::spec::{ArenaSpec, CompetitionId, CompetitionSpec};
use arena::state::Role;
use arena::{Fold as _, account::Account};
use wire::{Envelope, Seq, SigningKey};

use super::*;
use crate::host::index::Index;

const SPEC: &str = "name = \"large\"\nkind = \"codec\"\n[takeover]\nalpha_ppm = 0\n\
    [schedule]\nstart = \"2026-01-01T00:00:00Z\"\nevery_s = 3600\nrounds = 1\nopening_s = 60\njudging_s = 1800\n\
    [inputs]\nitems = 1\n[submission]\nper_round_max = 1000\n[judges]\nagree = 1\ntakeover = 1\nmax = 1\n\
    [baseline]\nname = \"plain\"\n";

fn key(number: u64) -> SigningKey {
    SigningKey::from_bytes(&Hash::of(&number.to_le_bytes()).0)
}

/// A fold and what is served of it.
struct World {
    view: View,
    now: Millis,
    nonce: u64,
}

impl World {
    fn start() -> Self {
        let spec = ArenaSpec::parse("name = \"test\"\nrate_entries = 100000\n").unwrap();
        let now = "2026-01-01T00:00:00Z".parse::<arena::calendar::Moment>().unwrap().0;
        let genesis = Control::Genesis { spec: spec.canonical(), host: key(0).node_id() };
        let (state, _) = commit::genesis::<State>(spec.run_id(), now, genesis).unwrap();
        Self { view: View { state, index: Index::default() }, now, nonce: 0 }
    }

    fn commit(&mut self, inputs: Vec<Input>) {
        let Committed { records, outcomes } = commit::commit(&mut self.view.state, self.now, inputs);
        for outcome in outcomes {
            outcome.unwrap();
        }
        let View { state, index } = &mut self.view;
        index.note(state, Seq(0), &records);
    }

    fn stated(&mut self, key: &SigningKey, statement: &Statement) -> Input {
        self.nonce += 1;
        let (run, body) = (self.view.state.run(), wire::to_bytes(statement));
        Input::Stated(Envelope::sign(key, run, STATEMENT_KIND, body, self.now, self.nonce))
    }

    fn say(&mut self, key: &SigningKey, statement: &Statement) {
        let input = self.stated(key, statement);
        self.commit(vec![input]);
    }

    /// Lets time pass until the round is at a step.
    fn wait(&mut self, id: CompetitionId, step: Step) {
        let at = |world: &Self| {
            let found = world.view.state.competition(&id).unwrap();
            found.live.values().next().map(|round| round.step)
        };
        while at(self) != Some(step) {
            self.now = self.view.state.next_deadline(self.now).unwrap();
            self.commit(Vec::new());
        }
    }

    /// Judges what is leased; false if nothing is.
    fn judge(&mut self, judge: &SigningKey) -> bool {
        self.say(judge, &Statement::Lease { want: LEASES_PER_JUDGE_MAX as u16 });
        let state = &self.view.state;
        let leases: Vec<(LeaseId, Entry)> = state
            .leases_of(judge.node_id())
            .map(|(lease, found)| (lease, state.entry(found.entry).unwrap().clone()))
            .collect();
        let verdict = |entry: &Entry| Verdict {
            outcome: Outcome::Measured {
                inputs: Hash([1; 32]),
                outputs: Hash::of(&entry.id.0.to_le_bytes()),
                measures: Measures::Codec(vec![CodecItem {
                    original_bytes: 1 << 20,
                    compressed_bytes: if entry.role == Role::Baseline { 1 << 20 } else { 1 << 19 },
                    similarity_ppb: 1_000_000_000,
                    exact: true,
                    fuel: 1,
                }]),
            },
            wall: None,
            log: Hash([0; 32]),
            account: Box::new(Account::default()),
        };
        let nonce = Hash([3; 32]);
        for (lease, entry) in &leases {
            let seal = verdict(entry).seal(&judge.node_id(), &nonce);
            self.say(judge, &Statement::Judged { lease: *lease, seal });
            self.say(judge, &Statement::Show { lease: *lease, nonce, verdict: verdict(entry) });
        }
        !leases.is_empty()
    }
}

#[test]
fn a_baseline_that_the_board_no_longer_holds_is_compared_with() {
    let (mut world, judge, opener) = (World::start(), key(1), key(2));
    let spec = CompetitionSpec::parse(&format!("{SPEC}code = \"{}\"\n", Hash([9; 32]))).unwrap();
    let (id, round) = (spec.id(), RoundNumber(0));
    let admitted = Control::Admitted { judge: judge.node_id(), operator: "one".to_owned() };
    world.commit(vec![Input::Control(admitted)]);
    world.say(&opener, &Statement::Open { spec: spec.canonical() });
    world.wait(id, Step::Open);
    let nonce = Hash([5; 32]);
    let commitment = ledger::beacon::commitment(&nonce);
    world.say(&judge, &Statement::Nonce { competition: id, round, commitment });

    let mut opened = Vec::new();
    for number in 0..=BOARD_ROWS_MAX as u64 {
        let (entrant, code, salt) = (key(3 + number % 2), Hash::of(&number.to_le_bytes()), Hash([4; 32]));
        let seal = entry_seal(&id, &entrant.node_id(), Form::Component, &code, 1000, &salt);
        let (form, parents) = (Form::Component, Vec::new());
        world.say(&entrant, &Statement::Submit { competition: id, seal, form, parents, receipt: None });
        let entry = world.view.state.entry_of_seal(&seal).unwrap().id;
        opened.push((entrant, Statement::Unseal { entry, code, bytes: 1000, salt }));
    }
    world.wait(id, Step::Opening);
    for (entrant, statement) in &opened {
        world.say(entrant, statement);
    }
    world.wait(id, Step::Drawing);
    world.say(&judge, &Statement::OpenNonce { competition: id, round, nonce });
    world.wait(id, Step::Judging);
    while world.judge(&judge) {}

    let found = world.view.state.competition(&id).unwrap();
    let board = &found.last_judged().expect("the round is over").board;
    let base = world.view.index.competitions[&id].baselines[&round];
    assert_eq!(board.len(), BOARD_ROWS_MAX);
    assert!(board.iter().all(|row| row.entry != base), "the worst of all has no row");
    let entry = world.view.state.entry(board[0].entry).unwrap();
    let found = detail(&world.view, entry, &Verdicts::default(), None, world.now, false);
    let ratio = found.summary.iter().find(|metric| metric.key == "compression_ratio").unwrap();
    assert!(ratio.value > 1.99 && ratio.baseline_value == Some(1.0), "{ratio:?}");
}
