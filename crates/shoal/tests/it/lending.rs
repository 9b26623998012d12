//! What a lender allows: threads, idle time, bandwidth, memory, as seen from outside.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

use serde_json::Value;

use super::binary::{Place, Ran};
use super::crew::Crew;

/// Scheduling class of threads that run in idle time only (sched(7)).
const SCHED_IDLE: &str = "5";

/// A new run folder from a spec; returns the place and the text of what `run show` says.
pub(crate) fn new_run(spec: &str) -> (Place, Value) {
    let place = Place::new();
    place.write_text("text/a.txt", 60_000);
    place.write_text("text/b.txt", 60_000);
    std::fs::write(place.path("spec.toml"), spec).expect("a spec");
    place.run(&["run", "new", "run", "--data", "text", "--spec", "spec.toml"]).good();
    let shown = place.run(&["--json", "run", "show", "run"]).good().objects().pop().expect("an object");
    (place, shown)
}

/// Starts the orchestrator of a run; returns its number and its ticket.
pub(crate) fn open(crew: &mut Crew) -> (usize, String) {
    let args = ["--json", "orchestrator", "run", "--no-relay", "--bind", "127.0.0.1:0"];
    let orchestrator = crew.start("orchestrator", &[], &args);
    let ticket = crew.until("a ticket", |said| {
        said.is("listening").and_then(|event| event["ticket"].as_str().map(str::to_owned))
    });
    (orchestrator, ticket)
}

/// Arguments of a miner on this machine.
pub(crate) fn miner<'a>(ticket: &'a str, dir: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    [&["--json", "miner", ticket, "--dir", dir, "--bind", "127.0.0.1:0"], more].concat()
}

/// Asserts that a miner refused to join with one line that holds all of `words`.
pub(crate) fn refused(ran: &Ran, words: &[&str]) {
    assert_eq!(ran.code, Some(3), "{}\n{}", ran.out, ran.err);
    let error: Value = serde_json::from_str(ran.err.trim()).expect("one object");
    let line = error["error"].as_str().expect("words");
    assert!(words.iter().all(|word| line.contains(word)), "{line}");
}

/// Names of a process's threads, and the scheduling class of each.
fn threads(id: u32) -> Vec<(String, String)> {
    let tasks = std::fs::read_dir(format!("/proc/{id}/task")).into_iter().flatten().filter_map(Result::ok);
    let read = |path: &Path| {
        let name = std::fs::read_to_string(path.join("comm")).ok()?.trim().to_owned();
        let stat = std::fs::read_to_string(path.join("stat")).ok()?;
        // proc(5): the policy is field 41, the third is the first behind the name.
        let policy = stat.rsplit_once(") ")?.1.split_whitespace().nth(38)?.to_owned();
        Some((name, policy))
    };
    tasks.filter_map(|task| read(&task.path())).collect()
}

fn micro(stages: usize, more: &str) -> String {
    format!("stages = {stages}\n[model]\npreset = \"micro\"\n{more}")
}

#[test]
#[cfg(target_os = "linux")]
fn a_miner_computes_with_as_many_threads_as_it_may_and_in_idle_time_if_it_shall() {
    let (place, _) = new_run(&micro(1, "[phases]\nepochs = 100000\nminers_min = 2\n"));
    let mut crew = Crew::new(place, "warn");
    let (_, ticket) = open(&mut crew);
    let plain = crew.start("plain", &[], &miner(&ticket, "plain", &["--threads", "3"]));
    let idle = crew.start("idle", &[], &miner(&ticket, "idle", &["--threads", "2", "--when-idle"]));
    crew.until("a merge", |said| said.is("merged"));
    let computing = |member: usize| -> BTreeMap<String, String> {
        threads(crew.id(member)).into_iter().filter(|(name, _)| name.starts_with("compute")).collect()
    };
    let plain = computing(plain);
    assert_eq!(plain.keys().collect::<Vec<_>>(), ["compute", "compute-0", "compute-1", "compute-2"]);
    assert!(plain.values().all(|policy| policy == "0"), "{plain:?}");
    let lent = computing(idle);
    assert_eq!(lent.keys().collect::<Vec<_>>(), ["compute", "compute-0", "compute-1"]);
    assert!(lent.values().all(|policy| policy == SCHED_IDLE), "{lent:?}");
    // Its talking threads stay prompt: a lease must not run out because somebody uses the machine.
    let talking = |(name, _): &&(String, String)| !name.starts_with("compute");
    let others = threads(crew.id(idle));
    assert!(others.iter().filter(talking).all(|(_, policy)| policy == "0"), "{others:?}");
}

/// Plain cuts of f32: what a head must send is known to the byte.
const RATE: u64 = 400_000;
const UPLOADS: &str = r#"
name = "uploads"
stages = 2
[model]
preset = "micro"
[cut]
kind = "plain"
wire = "f32"
[batch]
sequences = 4
micro_batches_per_epoch = 16
[inner]
steps = 2
[phases]
epochs = 1
miners_min = 1
lease_ms = 60000
"#;

#[test]
fn a_miner_sends_no_faster_than_it_may() {
    let (place, shown) = new_run(UPLOADS);
    let bytes = 16 * shown["forward_bytes"].as_u64().expect("bytes per micro-batch");
    // Half a second's worth may leave at once.
    let least = (bytes - RATE / 2) as f64 / RATE as f64;
    assert!(least > 1.5, "{bytes} bytes show nothing");
    let mut crew = Crew::new(place, "warn");
    let (orchestrator, ticket) = open(&mut crew);
    let rate = format!("{RATE}B/s");
    let limit = ["--stage", "0", "--threads", "1", "--upload", &rate];
    let head = crew.start("head", &[], &miner(&ticket, "head", &limit));
    let tail = crew.start("tail", &[], &miner(&ticket, "tail", &["--stage", "1", "--threads", "1"]));
    crew.until("the epoch", |said| said.is("epoch"));
    let begun = Instant::now();
    crew.until("its merge", |said| said.is("merged"));
    let seconds = begun.elapsed().as_secs_f64();
    println!("{bytes} bytes of activations at {RATE} bytes/s in {seconds:.2} s, {least:.2} s at least");
    assert!(seconds > least, "{bytes} bytes left in {seconds} s");
    for member in [orchestrator, head, tail] {
        assert!(crew.end(member, |_| {}).success(), "{}", crew.tails());
    }
}

#[test]
fn a_miner_gets_a_stage_that_fits_its_memory() {
    // The first stage is far larger, and the run would give it to whoever comes first.
    let (place, _) = new_run(&micro(2, "[phases]\nepochs = 1\n").replace("stages = 2", "cuts = [3]"));
    let mut crew = Crew::new(place, "warn");
    let (orchestrator, ticket) = open(&mut crew);
    let needs = crew.place.run(&miner(&ticket, "asks", &["--memory", "1"]));
    refused(&needs, &["needs", "may use", "more stages"]);
    let peaks: Vec<u64> =
        needs.objects().iter().map(|need| need["memory_bytes"].as_u64().expect("bytes")).collect();
    assert!(peaks.len() == 2 && peaks[0] > peaks[1] + (1 << 20), "{peaks:?}");
    // What the run says of its stages is what miners ask for.
    let shown = crew.place.run(&["--json", "run", "show", "run"]).good().objects().remove(0);
    for (stage, peak) in shown["stages"].as_array().expect("stages").iter().zip(&peaks) {
        assert_eq!(stage["memory_bytes"].as_u64(), Some(*peak));
    }
    let memory = u64::midpoint(peaks[0], peaks[1]).to_string();
    let first = crew.start("first", &[], &miner(&ticket, "first", &["--memory", &memory]));
    let stage = crew.until("it has a stage", |said| said.is("joined").map(|event| event["stage"].clone()));
    assert_eq!(stage, 1, "{peaks:?}");
    // The other stage by name is refused.
    let named = miner(&ticket, "named", &["--memory", &memory, "--stage", "0"]);
    refused(&crew.place.run(&named), &["stage 0 needs", "may use"]);
    let second = crew.start("second", &[], &miner(&ticket, "second", &[]));
    for member in [orchestrator, first, second] {
        assert!(crew.end(member, |_| {}).success(), "{}", crew.tails());
    }
}

#[test]
fn who_is_interrupted_leaves_in_good_order_and_is_heard() {
    let (place, _) = new_run(&micro(1, "[phases]\nepochs = 100000\nminers_min = 1\n"));
    let mut crew = Crew::new(place, "warn");
    let (_, ticket) = open(&mut crew);
    crew.start("stays", &[], &miner(&ticket, "stays", &["--threads", "1"]));
    crew.until("a merge", |said| said.is("merged"));
    for (role, count) in [("validator", 6), ("miner", 1)] {
        for index in 0..count {
            let dir = format!("{role}-{index}");
            let args = ["--json", role, &ticket, "--dir", &dir, "--bind", "127.0.0.1:0", "--threads", "1"];
            let member = crew.start(&dir, &[], &args);
            let node = crew.until("it joined", |said| {
                said.is("joined").and_then(|event| event["node"].as_str().map(str::to_owned))
            });
            crew.interrupt(member);
            let mut gone = None;
            let status = crew.end(member, |said| {
                gone = gone.take().or_else(|| said.is("gone").filter(|event| event["node"] == *node));
            });
            assert!(status.success(), "{}", crew.tails());
            let gone = gone.unwrap_or_else(|| {
                crew.until("it is gone", |said| said.is("gone").filter(|event| event["node"] == *node))
            });
            assert_eq!(gone["lost"], false, "{dir}: {gone}");
        }
    }
}
