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
