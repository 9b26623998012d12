//! A log with many judged rounds, made by the fold itself under a clock of its own.

use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use arena::calendar::Moment;
use arena::commit::{self, Committed};
use arena::measure::{CodecItem, Measures, Outcome, Verdict, Wall};
use arena::record::{Control, EntryId, Input, RoundNumber, STATEMENT_KIND, Statement, entry_seal};
use arena::spec::{CompetitionId, CompetitionSpec, Form};
use arena::{Fold, State};
use ledger::Chain;
use store::{LogStore, SqliteLog};
use wire::{Envelope, Hash, Millis, SigningKey};

use crate::{ENTRANTS, PER_ROUND, SUBMISSIONS, host_key, key, owner, spec};

/// Inputs of a block.
const BLOCK: usize = 500;
/// Length of a round, seconds.
const EVERY_S: u64 = 3600;

struct Maker {
    state: State,
    chain: Chain,
    log: SqliteLog,
    now: Millis,
    nonce: u64,
}

impl Maker {
    fn envelope(&mut self, key: &SigningKey, statement: &Statement) -> Input {
        self.nonce += 1;
        let body = wire::to_bytes(statement);
        Input::Stated(Envelope::sign(key, self.state.run(), STATEMENT_KIND, body, self.now, self.nonce))
    }

    async fn commit(&mut self, inputs: Vec<Input>) {
        let Committed { records, outcomes } = commit::commit(&mut self.state, self.now, inputs);
        for outcome in outcomes {
            outcome.expect("the fold accepts it");
        }
        if records.is_empty() {
            return;
        }
        let records = records.iter().map(wire::to_bytes).collect();
        let block = self.chain.append(&host_key(), self.now, records).expect("a block");
        let seq = block.header().seq;
        self.log.append(self.chain.term(), seq, wire::to_bytes(&block).into()).await.expect("it is appended");
    }

    async fn say(&mut self, all: Vec<(SigningKey, Statement)>) {
        for part in all.chunks(BLOCK) {
            let inputs = part.iter().map(|(key, statement)| self.envelope(key, statement)).collect();
            self.commit(inputs).await;
            self.now = self.now.plus(Millis(1));
        }
    }

    async fn wait_until(&mut self, at: Millis) {
        while let Some(due) = self.state.next_deadline(self.now).filter(|due| *due <= at) {
            self.now = due;
            self.commit(Vec::new()).await;
        }
        self.now = self.now.max(at);
        self.commit(Vec::new()).await;
    }
}

/// Builds the log unless it is there.
pub async fn build(folder: &Path) {
    if folder.join("complete").exists() {
        return;
    }
    let start = Instant::now();
    let rounds = SUBMISSIONS / PER_ROUND;
    let today = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970");
    let begin = today - Duration::from_secs((rounds + 1) * EVERY_S);
    let now = Millis(begin.as_secs() * 1000);
    let log = SqliteLog::open(folder.join("log.sqlite")).await.expect("a log");
    let spec = spec();
    let control = Control::Genesis { spec: spec.canonical(), host: host_key().node_id() };
    let (state, records) = commit::genesis::<State>(spec.run_id(), now, control).expect("a genesis");
    let mut chain = Chain::genesis(spec.run_id(), host_key().node_id());
    let term = chain.begin_term();
    log.take_term(term).await.expect("a term");
    let records = records.iter().map(wire::to_bytes).collect();
    let block = chain.append(&host_key(), now, records).expect("a block");
    log.append(term, block.header().seq, wire::to_bytes(&block).into()).await.expect("it is appended");
    let mut maker = Maker { state, chain, log, now, nonce: 0 };
    let judge = key(1 << 42);
    maker.commit(vec![Input::Control(Control::Admitted { judge: judge.node_id(), operator: "bench".into() })]).await;
    let text = format!(
        "name = \"bench\"\nkind = \"codec\"\n[schedule]\nstart = \"{}\"\nevery_s = {EVERY_S}\nopening_s = 60\n\
         judging_s = 1800\n[inputs]\nitems = 8\n[takeover]\nalpha_ppm = 0\n[submission]\nper_round_max = 1000\n\
         [judges]\nagree = 1\ntakeover = 1\nmax = 1\nlease_s = 600\n[reveal]\ncode_delay_s = 60\n",
        Moment(now)
    );
    let competition = CompetitionSpec::parse(&text).expect("a spec");
    maker.say(vec![(owner(), Statement::Open { spec: competition.canonical() })]).await;
    for round in 0..rounds {
        // The last one is left with its judges: a thousand entries in the queue while the arena is asked.
        play(&mut maker, competition.id(), &judge, round, round + 1 < rounds).await;
        if round % 10 == 9 {
            eprintln!("{} entries after {:.0} s", maker.state.entries().len(), start.elapsed().as_secs_f64());
        }
    }
    maker.log.close().await;
    std::fs::write(folder.join("complete"), b"").expect("a mark");
}

/// One round: its entries, their opening, and with `judged` their verdicts.
async fn play(maker: &mut Maker, id: CompetitionId, judge: &SigningKey, round: u64, judged: bool) {
    let open = maker.state.competition(&id).and_then(|found| found.open_round()).expect("an open round");
    let (number, closes) = (open.number, open.closes);
    let nonce = judge.derive("bench", &[&number.0.to_le_bytes()]);
    let commitment = ledger::beacon::commitment(&nonce);
    let bind = Statement::Nonce { competition: id, round: number, commitment };
    maker.say(vec![(judge.clone(), bind)]).await;
    let mut submits = Vec::new();
    let mut seals = Vec::new();
    for index in 0..PER_ROUND {
        let entrant = key((round * PER_ROUND + index) % ENTRANTS);
        let code = Hash::of(&(round * PER_ROUND + index).to_be_bytes());
        let salt = Hash::of_parts("bench salt", &[&code.0]);
        let seal = entry_seal(&id, &entrant.node_id(), Form::Component, &code, 1000, &salt);
        seals.push((entrant.clone(), seal, code, salt));
        let form = Form::Component;
        submits.push((entrant, Statement::Submit { competition: id, seal, form, parents: Vec::new(), receipt: None }));
    }
    maker.say(submits).await;
    maker.wait_until(closes).await;
    let opened = seals.iter().map(|(entrant, seal, code, salt)| {
        let entry = maker.state.entry_of_seal(seal).expect("it was entered").id;
        (entrant.clone(), Statement::Unseal { entry, code: *code, bytes: 1000, salt: *salt })
    });
    let opened = opened.collect();
    maker.say(opened).await;
    maker.say(vec![(judge.clone(), Statement::OpenNonce { competition: id, round: number, nonce })]).await;
    if judged {
        judge_all(maker, id, number, judge).await;
    } else {
        maker.say(vec![(judge.clone(), Statement::Lease { want: 64 })]).await;
    }
}

async fn judge_all(maker: &mut Maker, id: CompetitionId, round: RoundNumber, judge: &SigningKey) {
    while maker.state.competition(&id).is_some_and(|found| found.live.contains_key(&round)) {
        maker.say(vec![(judge.clone(), Statement::Lease { want: 64 })]).await;
        let leases: Vec<_> = maker.state.leases_of(judge.node_id()).map(|(id, lease)| (id, lease.entry)).collect();
        assert!(!leases.is_empty(), "the round goes on");
        let found: Vec<_> =
            leases.iter().map(|(lease, entry)| (*lease, verdict(*entry), Hash::of(&lease.0.to_le_bytes()))).collect();
        let bound = found.iter().map(|(lease, verdict, nonce)| {
            (judge.clone(), Statement::Judged { lease: *lease, seal: verdict.seal(&judge.node_id(), nonce) })
        });
        maker.say(bound.collect()).await;
        let shown = found.into_iter().map(|(lease, verdict, nonce)| {
            (judge.clone(), Statement::Show { lease, nonce, verdict })
        });
        maker.say(shown.collect()).await;
    }
}

fn verdict(entry: EntryId) -> Verdict {
    let draw = Hash::of_parts("bench figure", &[&entry.0.to_le_bytes()]);
    let size = 500_000 + u64::from(u16::from_le_bytes([draw.0[0], draw.0[1]])) * 8;
    let item = |index: u64| CodecItem {
        original_bytes: 2 << 20,
        compressed_bytes: size + index,
        similarity_ppb: 995_000_000,
        exact: false,
        fuel: 1_000_000,
    };
    let measures = Measures::Codec((0..8).map(item).collect());
    let outcome = Outcome::Measured { inputs: Hash([1; 32]), outputs: draw, measures };
    let wall = Some(Wall { task_time_ns: 1_000_000, over_baseline_ppm: 0 });
    Verdict { outcome, wall, log: Hash([0; 32]), account: Box::default() }
}
