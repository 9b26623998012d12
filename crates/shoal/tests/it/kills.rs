//! Real processes over QUIC, killed with -9 at drawn points: the run goes on, and its log accounts for every cell.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use wire::{Hash, Seq};

use super::audit::Audit;
use super::binary::Place;
use super::crew::{Crew, Said};

/// Kills per role, and the seed that draws them.
const KILLS: &str = "SHOAL_TEST_KILLS";
const SEED: &str = "SHOAL_TEST_SEED";
/// Stages of two miners each.
const STAGES: usize = 2;
/// Longest wait for the acknowledgements that a kill or a return waits for.
const STALLED: Duration = Duration::from_secs(5);
/// Longest that the run may go without any acknowledgement: all waits of the protocol have shorter deadlines.
const HUNG: Duration = Duration::from_mins(1);

const SPEC: &str = r#"
name = "kills"
stages = 2
[model]
preset = "micro"
[batch]
sequences = 2
micro_batches_per_epoch = 24
[inner]
steps = 3
[phases]
epochs = 100000
miners_min = 1
validators_min = 0
heartbeat_ms = 200
lost_after_ms = 2000
lease_ms = 1500
epoch_deadline_ms = 20000
merge_min_ms = 1500
merge_max_ms = 6000
[audit]
rate = 0.2
"#;

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name}={text}")))
}

/// Draws by a seed.
struct Draws {
    seed: u64,
    drawn: u64,
}

impl Draws {
    /// A number below `end`.
    fn below(&mut self, end: u64) -> u64 {
        self.drawn += 1;
        let hash = Hash::of_parts("kills", &[&self.seed.to_le_bytes(), &self.drawn.to_le_bytes()]);
        let (number, _) = hash.0.split_first_chunk().expect("32 bytes");
        u64::from_le_bytes(*number) % end
    }

    fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last as u64 + 1) as usize);
        }
    }
}

/// Roles that are killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Role {
    Orchestrator,
    Miner,
    Validator,
}

/// A run and what was seen of it.
struct Swarm {
    crew: Crew,
    roles: BTreeMap<Role, Vec<usize>>,
    /// Acknowledged statements: where each stands, and who was told.
    acknowledged: Vec<(Seq, Hash, usize)>,
    /// Blocks that nodes followed.
    followed: BTreeMap<Seq, BTreeSet<Hash>>,
    heard: Instant,
    /// Last kill, until somebody is heard again.
    struck: Option<(Role, Instant)>,
    /// From each kill to the next acknowledgement.
    pauses: BTreeMap<Role, Vec<Duration>>,
}

impl Swarm {
    fn start() -> Self {
        let place = Place::new();
        place.write_text("text/a.txt", 60_000);
        place.write_text("text/b.txt", 60_000);
        std::fs::write(place.path("spec.toml"), SPEC).expect("a spec");
        place.run(&["run", "new", "run", "--data", "text", "--spec", "spec.toml"]).good();
        // The port stays when the orchestrator comes back: the ticket names it.
        let port = std::net::UdpSocket::bind("127.0.0.1:0").and_then(|socket| socket.local_addr());
        let bind = port.expect("a free port").to_string();
        let mut crew = Crew::new(place, "shoal_node=debug");
        let args = ["--json", "orchestrator", "run", "--no-relay", "--bind", &bind];
        let orchestrator = crew.start("orchestrator", &[], &args);
        let ticket = crew.until("a ticket", |said| {
            said.is("listening").and_then(|event| event["ticket"].as_str().map(str::to_owned))
        });
        let mut roles = BTreeMap::from([(Role::Orchestrator, vec![orchestrator])]);
        let common = ["--bind", "127.0.0.1:0", "--threads", "1"];
        for number in 0..2 * STAGES {
            let (stage, name) = ((number / 2).to_string(), format!("miner-{number}"));
            let args = [&["miner", &ticket, "--dir", &name, "--stage", &stage], &common[..]].concat();
            roles.entry(Role::Miner).or_default().push(crew.start(&name, &[], &args));
        }
        let args = [&["validator", &ticket, "--dir", "validator"], &common[..]].concat();
        roles.insert(Role::Validator, vec![crew.start("validator", &[], &args)]);
        Self {
            crew,
            roles,
            acknowledged: Vec::new(),
            followed: BTreeMap::new(),
            heard: Instant::now(),
            struck: None,
            pauses: BTreeMap::new(),
        }
    }

    /// Notes what a line says; the run must not be silent for long.
    fn note(&mut self, said: &Said) {
        let field = |name: &str| {
            let fields = said.line.split_whitespace();
            fields.filter_map(|field| field.split_once('=')).find(|(key, _)| *key == name).map(|(_, v)| v)
        };
        let seq = || Seq(field("seq").expect("a position").parse().expect("a number"));
        let hash = |name: &str| field(name).expect("a hash").parse::<Hash>().expect("a hash");
        if said.line.contains(" acknowledged ") {
            self.acknowledged.push((seq(), hash("statement"), said.member));
            self.heard = Instant::now();
            if let Some((role, at)) = self.struck.take() {
                self.pauses.entry(role).or_default().push(at.elapsed());
            }
        } else if said.line.contains(" followed ") {
            self.followed.entry(seq()).or_default().insert(hash("hash"));
        }
    }

    /// Hears one line, or nobody for a moment.
    fn hear(&mut self, patience: Duration) -> Option<Said> {
        let said = self.crew.next(patience);
        if let Some(said) = &said {
            self.note(said);
        }
        assert!(self.heard.elapsed() < HUNG, "the run hangs\n{}", self.crew.tails());
        said
    }

    /// Hears until `holds`.
    fn until(&mut self, what: &str, mut holds: impl FnMut(&Said) -> bool) {
        let since = Instant::now();
        while !self.hear(Duration::from_millis(200)).is_some_and(|said| holds(&said)) {
            assert!(since.elapsed() < 2 * HUNG, "waited in vain for {what}\n{}", self.crew.tails());
        }
    }

    /// Hears until `more` statements were acknowledged, or nothing moves any more.
    fn pass(&mut self, more: usize, mut due: Vec<Return>) -> Vec<Return> {
        let (target, since) = (self.acknowledged.len() + more, Instant::now());
        while self.acknowledged.len() < target && since.elapsed() < STALLED {
            self.hear(Duration::from_millis(10));
            due = self.bring_back(due);
        }
        due
    }

    /// Starts again who was away for long enough.
    fn bring_back(&mut self, due: Vec<Return>) -> Vec<Return> {
        let now = self.acknowledged.len();
        let (back, away): (Vec<_>, Vec<_>) =
            due.into_iter().partition(|back| now >= back.at || back.since.elapsed() >= back.latest);
        for back in back {
            self.crew.start_again(back.member);
        }
        away
    }
}

/// A process that is dead and will be started again: at this many acknowledgements, or after so long.
struct Return {
    member: usize,
    at: usize,
    since: Instant,
    latest: Duration,
}

#[test]
fn the_run_survives_kills_of_every_role_and_accounts_for_every_cell() {
    let (kills, seed) = (number(KILLS, 10), number(SEED, 1));
    let mut draws = Draws { seed, drawn: 0 };
    let roles = [Role::Orchestrator, Role::Miner, Role::Validator];
    let mut plan: Vec<Role> = roles.into_iter().flat_map(|role| vec![role; kills as usize]).collect();
    draws.shuffle(&mut plan);
    println!("{SEED}={seed} {KILLS}={kills}");

    let started = Instant::now();
    let mut swarm = Swarm::start();
    swarm.until("the first epoch", |said| said.is("epoch").is_some());
    let mut due: Vec<Return> = Vec::new();
    let mut struck_at = Vec::new();
    for (number, role) in plan.iter().enumerate() {
        let (after, pause, away) = (draws.below(40), draws.below(20_000), draws.below(10));
        due = swarm.pass(1 + after as usize, due);
        let candidates = swarm.roles[role].clone();
        let victim = candidates[draws.below(candidates.len() as u64) as usize];
        // Everyone else may be away at the same time, but nobody is killed twice.
        while !swarm.crew.is_alive(victim) {
            due = swarm.pass(1, due);
        }
        // Between two statements, too.
        let strike = Instant::now() + Duration::from_micros(pause);
        while Instant::now() < strike {
            swarm.hear(strike.saturating_duration_since(Instant::now()));
        }
        println!("kill {number}: {} after {after} acknowledgements", swarm.crew.name(victim));
        swarm.crew.kill(victim);
        swarm.struck = Some((*role, Instant::now()));
        struck_at.push((*role, swarm.followed.last_key_value().map_or(Seq(0), |(seq, _)| *seq)));
        let (more, latest) = match (role, away) {
            // Without it nothing is acknowledged.
            (Role::Orchestrator, _) => (usize::MAX, Duration::from_millis(30 * away)),
            // Long enough for the run to lose sight of it.
            (_, 0) => (usize::MAX, Duration::from_millis(2_500)),
            (_, away) => (away as usize * 2, STALLED),
        };
        let at = swarm.acknowledged.len().saturating_add(more);
        due.push(Return { member: victim, at, since: Instant::now(), latest });
    }
    while !due.is_empty() {
        due = swarm.pass(1, due);
    }
    println!("{} kills in {:.0} s", plan.len(), started.elapsed().as_secs_f64());

    // Everyone finds back: a whole epoch with all miners, its merge, and a measurement of what it gave.
    let mut epoch = None;
    swarm.until("an epoch with every miner", |said| {
        epoch = said.is("epoch").filter(|event| event["members"] == serde_json::json!([2, 2]));
        epoch.is_some()
    });
    let whole = epoch.expect("just heard")["epoch"].as_u64().expect("a number");
    swarm.until("its merge", |said| said.is("merged").is_some_and(|event| event["epoch"] == whole));
    swarm.until("a measurement", |said| {
        said.is("held_out").is_some_and(|event| event["epoch"].as_u64() > Some(whole))
    });
    let orchestrator = swarm.roles[&Role::Orchestrator][0];
    swarm.crew.interrupt(orchestrator);
    let mut said = Vec::new();
    for member in swarm.roles.values().flatten() {
        let ended = swarm.crew.end(*member, |line| said.push((line.member, line.line.clone())));
        assert!(ended.success(), "{ended}: {}", swarm.crew.tail(*member));
    }
    for (member, line) in said {
        swarm.note(&Said { member, line });
    }

    let place = &swarm.crew.place;
    place.run(&["verify", "run"]).good();
    place.run(&["run", "log", "run", "log"]).good();
    let audit = Audit::of(&std::fs::read(place.path("log")).expect("the log"));
    assert_eq!(audit.resumed, kills, "the orchestrator came back after each kill");
    for (seq, statement, member) in &swarm.acknowledged {
        let name = swarm.crew.name(*member);
        assert!(audit.stands(*seq, statement), "{name} was told that {statement} stands in block {seq}");
    }
    for (seq, hashes) in &swarm.followed {
        let block = audit.block(*seq);
        assert!(hashes.len() == 1 && block.is_some_and(|block| hashes.contains(&block)), "block {seq}");
    }
    assert!(!audit.merged.is_empty() && audit.passed > 0, "{} replays passed", audit.passed);
    assert_eq!(audit.failed, 0, "a process that was killed and came back computes the same bits");
    let mut phases: BTreeMap<(Role, &str), u32> = BTreeMap::new();
    for (role, seq) in struck_at {
        *phases.entry((role, audit.phase(seq))).or_default() += 1;
    }
    println!("kills by phase {phases:?}; phases in ms {:?}", audit.spent);
    for (role, pauses) in &swarm.pauses {
        println!("{role:?}: from a kill to the next acknowledgement {pauses:.1?}");
    }
    println!(
        "{} epochs, {} acknowledged, {} cells merged, forfeited {:?}, {} replays, {:.0} s",
        audit.state.epoch(),
        swarm.acknowledged.len(),
        audit.merged.len(),
        audit.forfeited,
        audit.passed,
        started.elapsed().as_secs_f64()
    );
}
