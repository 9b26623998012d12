//! Whatever is wrong with the input gives one clear line, the right exit code, and leaves nothing behind.

use super::binary::{Place, entries};

#[test]
fn an_unknown_key_in_a_spec_is_named_with_its_line() {
    let place = Place::new();
    place.write_text("a.txt", 20_000);
    std::fs::write(place.path("run.toml"), "seed = 3\n[model]\npreset = \"micro\"\n[inner]\nstep = 4\n")
        .unwrap();
    let ran = place.run(&["up", "--spec", "run.toml", "--data", "a.txt"]);
    ran.bad(3, &["run.toml", "line 5", "unknown key inner.step", "did you mean steps?"]);
    assert_eq!(entries(&place.path("shoal-runs")), Vec::<String>::new());
}

#[test]
fn an_impossible_value_is_named_with_its_range() {
    let place = Place::new();
    place.write_text("a.txt", 20_000);
    std::fs::write(place.path("run.toml"), "[model]\npreset = \"micro\"\n[phases]\nepochs = 0\n").unwrap();
    let ran = place.run(&["up", "--spec", "run.toml", "--data", "a.txt"]);
    ran.bad(3, &["line 4", "phases.epochs = 0 is not possible", "must be from 1 to"]);
    let ran = place.run(&["up", "--preset", "micro", "--stages", "9", "--data", "a.txt"]);
    ran.bad(3, &["stages = 9 is not possible", "from 1 to 4"]);
    let ran = place.run(&["up", "--preset", "giant", "--data", "a.txt"]);
    ran.bad(3, &["no preset \"giant\"", "micro"]);
    assert_eq!(entries(&place.path(".")), ["a.txt", "run.toml"]);
}

#[test]
fn data_that_cannot_be_used_is_refused() {
    let place = Place::new();
    place
        .run(&["up", "--preset", "micro", "--data", "no-such.txt"])
        .bad(3, &["no-such.txt", "does not exist"]);
    std::fs::write(place.path("empty.txt"), "").unwrap();
    place.run(&["up", "--preset", "micro", "--data", "empty.txt"]).bad(3, &["empty.txt", "empty"]);
    std::fs::write(place.path("latin1.txt"), b"caf\xe9 au lait").unwrap();
    place.run(&["up", "--preset", "micro", "--data", "latin1.txt"]).bad(3, &["latin1.txt", "not UTF-8"]);
    std::fs::write(place.path("short.txt"), "too short to train on").unwrap();
    place.run(&["up", "--preset", "micro", "--data", "short.txt"]).bad(3, &["data"]);
    assert_eq!(entries(&place.path("shoal-runs")).iter().filter(|name| *name != ".gitignore").count(), 0);
}

/// The library that reads it panics, which nobody needs to see.
#[test]
fn a_broken_tokenizer_gives_one_line() {
    let place = Place::new();
    place.write_text("a.txt", 20_000);
    std::fs::write(place.path("broken.json"), r#"{"version":"1.0","decoder":{"type":"ByteLevel" x}}"#)
        .unwrap();
    let ran = place.run(&["up", "--preset", "micro", "--data", "a.txt", "--tokenizer", "broken.json"]);
    ran.bad(3, &["broken.json", "the file contradicts itself"]);
    assert_eq!(ran.err.lines().count(), 1, "{}", ran.err);
}

#[test]
fn wrong_usage_has_its_own_code() {
    let place = Place::new();
    assert_eq!(place.run(&["up", "--replicas", "0"]).code, Some(2));
    assert_eq!(place.run(&["up", "--epochs", "2", "--tokens", "5k"]).code, Some(2));
    assert_eq!(place.run(&["swim"]).code, Some(2));
    assert_eq!(place.run(&["run", "new", "x", "--preset", "micro", "--init", "y"]).code, Some(2));
    place.run(&["--help"]).good();
}

#[test]
fn what_is_no_run_or_checkpoint_is_refused() {
    let place = Place::new();
    place.run(&["up", "--resume"]).bad(3, &["no run below ./shoal-runs", "--dir"]);
    place.run(&["up", "--resume", "--dir", "nowhere"]).bad(3, &["nowhere is not a run folder"]);
    place.run(&["sample", "nowhere"]).bad(3, &["nowhere"]);
    place.run(&["run", "new", "x", "--init", "nowhere"]).bad(3, &["--init nowhere: there is no such folder"]);
    std::fs::create_dir(place.path("empty")).unwrap();
    place.run(&["sample", "empty"]).bad(3, &["empty"]);
    place.run(&["run", "show", "empty"]).bad(3, &["run.toml"]);
    let json = place.run(&["--json", "run", "show", "nowhere"]);
    let error: serde_json::Value = serde_json::from_str(json.err.trim()).expect("an object");
    assert_eq!((json.code, &error["code"]), (Some(3), &serde_json::json!(3)));
}

/// 192 miners of a third of 15 billion parameters each: no machine that runs these tests has room for them.
#[test]
#[cfg(target_os = "linux")]
fn a_run_that_this_machine_has_no_room_for_is_refused_before_anything_is_made() {
    let place = Place::new();
    place.write_text("a.txt", 60_000);
    let up = ["up", "--preset", "15b", "--stages", "3", "--replicas", "64", "--data", "a.txt"];
    let ran = place.run(&up);
    let words =
        ["192 miners and ", " validators need up to", "this machine has", "(--keep inputs)", "--replicas"];
    ran.bad(3, &words);
    let told: Vec<&str> = ran.err.lines().collect();
    assert!(told.len() == 2 && told[0].starts_with("needs up to "), "{}", ran.err);
    assert_eq!(entries(&place.path(".")), ["a.txt"]);
    // What is kept already is not recommended.
    let ran = place.run(&[&up[..], &["--keep", "inputs", "--json"]].concat());
    assert!(ran.code == Some(3) && !ran.err.contains("--keep"), "{}", ran.err);
    let needs = ran.objects().pop().expect("what it needs");
    let number = |key: &str| needs[key].as_u64().unwrap_or_else(|| panic!("{key} in {needs}"));
    assert_eq!((needs["event"].as_str(), number("miners"), number("validators")), (Some("needs"), 192, 1));
    assert!(number("memory_bytes") > 2 * number("memory_free_bytes"), "{needs}");
    assert!(number("memory_bytes") > 60 * number("miner_bytes"), "{needs}");
    assert!(number("disk_bytes") > 0 && number("disk_free_bytes") > 0, "{needs}");
    // A run that was made elsewhere, or for many machines, is not gone on with here either.
    let new =
        ["run", "new", "big", "--preset", "15b", "--stages", "3", "--data", "a.txt", "--miners-min", "64"];
    place.run(&new).good();
    let made = entries(&place.path("big"));
    place.run(&["up", "--resume", "--dir", "big"]).bad(3, &words);
    assert_eq!(entries(&place.path("big")), made);
}
