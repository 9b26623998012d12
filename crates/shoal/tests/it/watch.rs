//! The live view and the plain lines, from recorded events.

use super::binary::Place;

const EVENTS: &str = include_str!("watch/events.jsonl");

fn shown(args: &[&str]) -> String {
    let place = Place::new();
    std::fs::write(place.path("events.jsonl"), EVENTS).unwrap();
    let mut all = vec!["watch", "events.jsonl"];
    all.extend(args);
    let ran = place.run(&all).good();
    format!("{}{}", ran.err, ran.out)
}

#[test]
fn the_live_view_shows_the_whole_run() {
    insta::assert_snapshot!("wide", shown(&["--frame", "110x12"]));
    insta::assert_snapshot!("narrow", shown(&["--frame", "60x8"]));
}

#[test]
fn elsewhere_plain_lines_and_a_summary_are_printed() {
    insta::assert_snapshot!("plain", shown(&[]));
}

#[test]
fn json_passes_through() {
    let place = Place::new();
    std::fs::write(place.path("events.jsonl"), EVENTS).unwrap();
    let ran = place.run(&["--json", "watch", "events.jsonl"]).good();
    assert_eq!(ran.objects().len(), EVENTS.lines().count());
    assert_eq!(ran.summary()["epochs"], 2);
    std::fs::write(place.path("broken.jsonl"), "{\"event\":\"swam\"}\n").unwrap();
    place.run(&["watch", "broken.jsonl"]).bad(3, &["line 1 is not an event"]);
}

#[test]
#[cfg(target_os = "linux")]
fn a_terminal_that_does_not_answer_gets_lines() {
    let place = Place::new();
    std::fs::write(place.path("events.jsonl"), EVENTS).unwrap();
    let mut script = std::process::Command::new("script");
    script.args(["-qec", &format!("{} watch events.jsonl", env!("CARGO_BIN_EXE_shoal")), "/dev/null"]);
    script.current_dir(place.path(".")).env("TERM", "xterm").stdin(std::process::Stdio::null());
    let Ok(ran) = script.output() else {
        _ = std::io::Write::write_all(&mut std::io::stderr(), b"skipped: no `script` of util-linux here\n");
        return;
    };
    let said = String::from_utf8_lossy(&ran.stdout);
    assert!(ran.status.success(), "{said}");
    for line in ["lines follow instead of a picture", "epoch 2 merged in 1.1 s", "held-out loss   5.6012"] {
        assert!(said.contains(line), "{line:?} is missing: {said}");
    }
}
