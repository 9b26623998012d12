//! Children: none stays when the parent is killed, and each is started again when it dies itself.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use super::binary::{Place, Ran, alive, children_of, entries, until};

const ARGS: [&str; 10] =
    ["--json", "up", "--preset", "micro", "--data", "a.txt", "--stages", "2", "--epochs", "1000000"];

/// Starts a run that would last for days and waits until it trains.
fn start(place: &Place) -> (Child, Vec<u32>, BufReader<std::process::ChildStdout>) {
    start_with(place, &[])
}

fn start_with(place: &Place, more: &[&str]) -> (Child, Vec<u32>, BufReader<std::process::ChildStdout>) {
    place.write_text("a.txt", 60_000);
    let mut up = place
        .command(&[&ARGS[..], more].concat())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("shoal starts");
    let mut out = BufReader::new(up.stdout.take().expect("piped"));
    wait_for(&mut out, "merged");
    // An orchestrator, two stages of two miners, a validator.
    let id = up.id();
    let children = until("all children", || Some(children_of(id)).filter(|children| children.len() == 6));
    (up, children, out)
}

fn wait_for(out: &mut impl BufRead, event: &str) {
    let wanted = format!("\"event\":\"{event}\"");
    let mut line = String::new();
    loop {
        line.clear();
        assert_ne!(out.read_line(&mut line).expect("a line"), 0, "ended before {event}");
        if line.contains(&wanted) {
            return;
        }
    }
}

fn signal(id: u32, name: &str) {
    assert!(Command::new("kill").args([name, &id.to_string()]).status().expect("kill runs").success());
}

#[test]
fn no_orphan_stays_when_the_parent_is_killed() {
    let place = Place::new();
    let (mut up, children, _out) = start(&place);
    signal(up.id(), "-9");
    up.wait().expect("it is dead");
    until("the children's end", || children.iter().all(|child| !alive(*child)).then_some(()));
}

#[test]
fn killed_children_come_back_and_one_interrupt_ends_in_good_order() {
    let place = Place::new();
    let (up, children, mut out) = start(&place);
    for child in &children {
        signal(*child, "-9");
    }
    let id = up.id();
    until("six new children", || {
        let now = children_of(id);
        (now.len() == 6 && now.iter().all(|child| !children.contains(child))).then_some(())
    });
    wait_for(&mut out, "merged");
    signal(id, "-INT");
    let rest = std::thread::spawn(move || out.lines().map_while(Result::ok).last().unwrap_or_default());
    let ran = Ran::wait(up).good();
    let last = rest.join().expect("read");
    assert!(last.contains("\"event\":\"summary\""), "{last}\n{}", ran.err);
    until("the children's end", || children_of(id).is_empty().then_some(()));
}

#[test]
fn a_second_interrupt_ends_at_once() {
    let place = Place::new();
    let (up, _, mut out) = start(&place);
    signal(up.id(), "-INT");
    signal(up.id(), "-INT");
    // Two signals sent together may arrive as one: the third makes sure.
    signal(up.id(), "-INT");
    let rest =
        std::thread::spawn(move || while out.read_line(&mut String::new()).is_ok_and(|read| read > 0) {});
    let code = Ran::wait(up).code;
    rest.join().expect("read");
    assert!(matches!(code, Some(130 | 0)), "{code:?}");
}

#[test]
fn a_run_that_goes_on_can_be_exported() {
    let place = Place::new();
    let (mut up, _, mut out) = start_with(&place, &["--checkpoint-every", "1"]);
    wait_for(&mut out, "checkpoint");
    place.run(&["run", "export", "shoal-runs/run-1", "alive"]).good();
    signal(up.id(), "-9");
    up.wait().expect("it is dead");
    place.run(&["run", "export", "shoal-runs/run-1", "dead"]).good();
    for out in ["alive", "dead"] {
        place.run(&["sample", out, "--tokens", "5"]).good();
    }
}

/// Folders of runs that are being made, or were.
fn drafts(place: &Place) -> Vec<String> {
    let mut names = entries(&place.path("."));
    names.retain(|name| name.starts_with(".new-run-"));
    names
}

/// Starts to make a run of much text, and stops the process as soon as its folder is there.
fn half_made(place: &Place) -> (Child, String) {
    let before = drafts(place);
    let args = ["run", "new", "slow", "--data", "much", "--tokenizer", "t.json", "--preset", "micro"];
    let child =
        place.command(&args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("shoal starts");
    let begun = |draft: &String| !before.contains(draft) && place.path(draft).join("blobs").exists();
    let draft = until("its folder", || drafts(place).into_iter().find(begun));
    signal(child.id(), "-STOP");
    assert!(drafts(place).contains(&draft), "it was too fast");
    (child, draft)
}

#[test]
fn of_a_run_that_is_not_made_to_the_end_nothing_stays() {
    let place = Place::new();
    place.write_text("little.txt", 60_000);
    place.run(&["tokenizer", "train", "little.txt", "--vocab", "300", "--out", "t.json"]).good();
    for part in 0..4 {
        place.write_text(&format!("much/{part}{}.txt", "x".repeat(part)), 6_000_000);
    }
    // Killed: nobody could take it away.
    let (mut killed, left) = half_made(&place);
    signal(killed.id(), "-9");
    killed.wait().expect("it is dead");
    assert_eq!(drafts(&place), std::slice::from_ref(&left));
    // The next one does, but lets be what another process makes.
    let (making, draft) = half_made(&place);
    assert!(
        draft != left && drafts(&place) == std::slice::from_ref(&draft),
        "{draft} of {:?}",
        drafts(&place)
    );
    place.run(&["run", "new", "quick", "--data", "little.txt", "--preset", "micro"]).good();
    assert_eq!(drafts(&place), [draft]);
    // Ctrl-C: it takes away its own, and says so.
    signal(making.id(), "-INT");
    signal(making.id(), "-CONT");
    let ran = Ran::wait(making);
    assert_eq!(ran.code, Some(130), "{}\n{}", ran.out, ran.err);
    assert_eq!(ran.err.lines().last(), Some("stopped before the run was made; nothing is left of it"));
    assert_eq!(entries(&place.path(".")), ["little.txt", "much", "quick", "t.json"]);
    assert_eq!(entries(&place.path("quick")), ["blobs", "orchestrator.key", "run.toml"]);
    // So does `up`.
    let up = ["up", "--data", "much", "--tokenizer", "t.json", "--preset", "micro"];
    let up = place.command(&up).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("shoal starts");
    let runs = place.path("shoal-runs");
    until("its folder", || entries(&runs).iter().any(|name| name.starts_with(".new-run-")).then_some(()));
    signal(up.id(), "-TERM");
    let ran = Ran::wait(up);
    assert_eq!(ran.code, Some(130), "{}\n{}", ran.out, ran.err);
    assert!(ran.err.ends_with("nothing is left of it\n"), "{}", ran.err);
    assert_eq!(entries(&runs), [".gitignore"]);
}
