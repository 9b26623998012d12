//! Keys, run folders and tokenizers.

use super::binary::{Place, entries};

#[test]
fn a_key_is_made_once() {
    let place = Place::new();
    let made = place.run(&["key", "new", "node.key"]).good().out;
    assert_eq!(made.trim().len(), 64);
    assert_eq!(place.run(&["key", "show", "node.key"]).good().out, made);
    place.run(&["key", "new", "node.key"]).bad(3, &["node.key", "is there already"]);
    assert_eq!(place.run(&["key", "show", "node.key"]).good().out, made);
}

#[test]
fn a_run_is_made_shown_and_never_overwritten() {
    let place = Place::new();
    place.write_text("text/a.txt", 30_000);
    place.write_text("text/b.txt", 30_000);
    let args = [
        "--json", "run", "new", "one", "--data", "text", "--preset", "micro", "--stages", "2", "--seed", "7",
    ];
    let made = place.run(&args).good().objects().pop().expect("an object");
    assert_eq!(entries(&place.path("one")), ["blobs", "orchestrator.key", "run.toml"]);
    let shown = place.run(&["--json", "run", "show", "one"]).good().objects().pop().expect("an object");
    assert_eq!(shown["run"], made["run"]);
    assert_eq!(shown["stages"].as_array().map(Vec::len), Some(2));
    assert!((shown["activation_ratio"].as_f64().unwrap() - 64.0).abs() < 2.0, "{shown}");
    place.run(&["run", "new", "one", "--data", "text"]).bad(3, &["one already holds a run"]);
    // The same data and options give the same run, wherever it lies.
    let mut again = args;
    again[3] = "two";
    assert_eq!(place.run(&again).good().objects()[0]["run"], made["run"]);
    // Its canonical text is a spec of the same run.
    let toml = place.run(&["run", "show", "one", "--toml"]).good().out;
    std::fs::write(place.path("copy.toml"), toml).unwrap();
    let copy = place.run(&["--json", "run", "show", "copy.toml"]).good().objects().pop().unwrap();
    assert_eq!(copy["run"], made["run"]);
}

#[test]
fn a_tokenizer_is_trained_and_used() {
    let place = Place::new();
    place.write_text("a.txt", 40_000);
    place.run(&["tokenizer", "train", "a.txt", "--vocab", "300", "--out", "t.json"]).good();
    place
        .run(&["tokenizer", "train", "a.txt", "--vocab", "300", "--out", "t.json"])
        .bad(3, &["t.json exists"]);
    place.run(&["run", "new", "one", "--data", "a.txt", "--tokenizer", "t.json", "--preset", "micro"]).good();
    let toml = place.run(&["run", "show", "one", "--toml"]).good().out;
    assert!(!toml.contains("tokenizer = \"bytes\""), "{toml}");
}

#[test]
fn presets_are_listed() {
    let place = Place::new();
    let listed = place.run(&["--json", "run", "show", "--presets"]).good().objects();
    assert!(listed.iter().any(|preset| preset["preset"] == "15b"));
}
