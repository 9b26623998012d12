//! A champion at work in a run, by the commands of the README.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use serde_json::Value;

use super::binary::{Place, Ran, component, two_stages};

/// A run whose codec is changed under way.
const SPEC: &str = r#"
[batch]
sequences = 2
micro_batches_per_epoch = 32
[inner]
steps = 2
[phases]
heartbeat_ms = 200
[codec]
activations = "raw"
gradients = "raw"
"#;

fn run_spec() -> String {
    two_stages("champion", SPEC)
}

fn hash(path: &str) -> wire::Hash {
    wire::Hash::of(&std::fs::read(path).expect("a committed component"))
}

fn place(spec: &str) -> Place {
    let place = Place::new();
    place.write_text("text/a.txt", 60_000);
    std::fs::write(place.path("spec.toml"), spec).expect("a spec");
    place
}

const DATA: [&str; 6] = ["--data", "text", "--dir", "run", "--spec", "spec.toml"];

#[test]
fn up_with_a_champion_shows_what_it_saves() {
    let place = place(&run_spec());
    let champion = component("sleeper");
    let args =
        ["--json", "up", "--replicas", "1", "--validators", "1", "--epochs", "12", "--champion", &champion];
    let args: Vec<&str> = args.into_iter().chain(DATA).collect();
    let ran = place.run(&args).good();
    assert!(ran.err.contains(&format!("champion: {}", hash(&champion).short())), "{}", ran.err);
    let events = ran.objects();
    let codec: Vec<&Value> = events.iter().filter(|event| event["event"] == "codec").collect();
    let news: Vec<&str> = codec.iter().filter_map(|event| event["news"].as_str()).collect();
    assert!(news.contains(&"pinned") && news.contains(&"in_force") && !news.contains(&"off"), "{codec:?}");
    let epochs: Vec<&Value> = events.iter().filter(|event| event["event"] == "champion").collect();
    assert!(!epochs.is_empty());
    for epoch in &epochs {
        let number = |key: &str| epoch[key].as_u64().unwrap_or_else(|| panic!("{key} in {epoch}"));
        assert!(number("tensors") > 0 && number("fallbacks") == 0, "{epoch}");
        assert!(number("bytes") * 10 < number("raw_bytes") * 9, "{epoch}");
    }
    let failed = events.iter().filter(|event| event["event"] == "failed").count();
    assert_eq!(failed, 0, "the validator decodes by the champion too");

    assert!(place.run(&["verify", "run"]).good().out.contains("follows:"));
    let shown = place.run(&["--json", "run", "show", "run"]).good().objects().remove(0);
    assert_eq!(shown["codec"]["in_force"]["component"].as_str().map(str::len), Some(64));
    assert_eq!(shown["codec"]["epochs"].as_array().map(Vec::len), Some(epochs.len()));
    assert!(place.run(&["run", "show", "run"]).good().out.contains("carried"));
}

#[test]
fn up_with_a_lossy_champion_says_when_it_leaves_the_shadow() {
    let place = place(&run_spec());
    let champion = component("uniform-99");
    let args =
        ["--json", "up", "--replicas", "1", "--validators", "1", "--epochs", "40", "--champion", &champion];
    let args: Vec<&str> = args.into_iter().chain(DATA).collect();
    let ran = place.run(&args).good();
    assert!(
        ran.err.contains("for activations") && ran.err.contains("lossy: in its shadow until"),
        "{}",
        ran.err
    );
    let events = ran.objects();
    let codec: Vec<&Value> = events.iter().filter(|event| event["event"] == "codec").collect();
    // On a busy machine nodes are ready some epochs later.
    let codec: Vec<&Value> = codec.into_iter().filter(|event| event["news"] != "declined").collect();
    let news: Vec<&str> = codec.iter().filter_map(|event| event["news"].as_str()).collect();
    assert_eq!(news, ["pinned", "shadow", "measured", "in_force"], "{codec:?}");
    assert!(codec[2]["about"].as_str().is_some_and(|about| about.contains("of 16 micro-batches the loss")));
    let last = events.iter().rfind(|event| event["event"] == "champion").expect("it worked");
    assert_eq!((last["shadow"].as_bool(), last["tensors"].as_u64()), (Some(false), Some(32)), "{last}");
    assert!(place.run(&["verify", "run"]).good().out.contains("follows:"));
    let shown = place.run(&["--json", "run", "show", "run"]).good().objects().remove(0);
    assert_eq!(shown["codec"]["in_force"]["lossy"]["similarity_ppm"], 990_000);
    assert_eq!(shown["codec"]["shadow"], false);
    let words = place.run(&["run", "show", "run"]).good().out;
    assert!(words.contains("(lossy) in force") && words.contains("in its shadow carried"), "{words}");
}

#[test]
fn a_champion_is_pinned_into_a_run_that_goes_on_and_taken_away() {
    let place = place(&run_spec());
    let args = ["--json", "up", "--replicas", "1", "--validators", "0", "--epochs", "100000"];
    let args: Vec<&str> = args.into_iter().chain(DATA).collect();
    let mut up =
        place.command(&args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("shoal starts");
    let mut out = BufReader::new(up.stdout.take().expect("piped"));
    let mut wait_for = |wanted: &dyn Fn(&Value) -> bool| {
        let mut line = String::new();
        loop {
            line.clear();
            assert_ne!(out.read_line(&mut line).expect("a line"), 0, "ended too soon");
            let event: Value = serde_json::from_str(&line).expect("an event");
            if wanted(&event) {
                return event;
            }
        }
    };
    wait_for(&|event| event["event"] == "merged");
    let champion = component("sleeper");
    let pinned =
        place.run(&["--json", "run", "codec", "run", "--champion", &champion]).good().objects().remove(0);
    let from = pinned["from_epoch"].as_u64().expect("it runs");
    assert!(from >= 2, "{pinned}");
    let in_force = wait_for(&|event| event["event"] == "codec" && event["news"] == "in_force");
    assert!(in_force["epoch"].as_u64() >= Some(from));
    let epoch = wait_for(&|event| event["event"] == "champion");
    assert!(epoch["bytes"].as_u64() < epoch["raw_bytes"].as_u64(), "{epoch}");
    place.run(&["run", "codec", "run", "--champion", &champion]).bad(3, &["does not take it", "is pinned"]);
    assert!(place.run(&["run", "codec", "run", "--off"]).good().out.contains("taken away"));
    let off = wait_for(&|event| event["event"] == "codec" && event["news"] == "off");
    assert!(off["about"].as_str().is_some_and(|about| about.contains("owner")), "{off}");
    let id = up.id().to_string();
    for _ in 0..3 {
        std::process::Command::new("kill").args(["-INT", &id]).status().expect("kill runs");
    }
    std::thread::spawn(move || out.lines().map_while(Result::ok).for_each(drop));
    let code = Ran::wait(up).code;
    assert!(matches!(code, Some(130 | 0)), "{code:?}");
}

#[test]
fn what_no_run_can_use_is_refused_by_name() {
    let place = place(&run_spec());
    let new = |extra: &[&str]| {
        let args = ["run", "new", "other", "--data", "text", "--spec", "spec.toml"];
        place.run(&args.into_iter().chain(extra.iter().copied()).collect::<Vec<_>>())
    };
    let huffman = component("huffman");
    let exact = run_spec() + "[codec.lossy]\nactivations = false\n";
    std::fs::write(place.path("spec.toml"), exact).expect("a spec");
    new(&["--champion", &component("uniform-99")]).bad(3, &["is lossy", "[codec.lossy]"]);
    let strict = run_spec() + "[codec.lossy]\nsimilarity = 0.999\n";
    std::fs::write(place.path("spec.toml"), strict).expect("a spec");
    new(&["--champion", &component("uniform-99")]).bad(3, &["too far off", "a similarity of 0.99"]);
    std::fs::write(place.path("spec.toml"), run_spec()).expect("a spec");
    new(&["--champion", "spec.toml"]).bad(3, &["cannot be used"]);
    new(&["--champion", "nothing.wasm"]).bad(3, &["cannot read nothing.wasm"]);
    new(&["--champion", &huffman, "--champion-hash", &"0".repeat(64)])
        .bad(3, &[&format!("has hash {}", hash(&huffman))]);
    new(&["--arena", "http://127.0.0.1:1"]).bad(3, &["arena:matrix-compression"]);
    let packed =
        place.run(&["run", "new", "other", "--data", "text", "--preset", "micro", "--champion", &huffman]);
    packed.bad(3, &["packs its numbers"]);

    let spec = run_spec().replace("activations = \"raw\"", "activations = \"arena:nobody\"");
    std::fs::write(place.path("spec.toml"), spec).expect("a spec");
    new(&["--arena", "http://127.0.0.1:1"]).bad(1, &["no answer from"]);
    let weights = run_spec().replace("[codec]", "[codec]\nweights = \"arena:x\"");
    std::fs::write(place.path("spec.toml"), weights).expect("a spec");
    new(&[]).bad(3, &["carries activations and gradients only"]);
    assert!(!place.path("other").exists());
}
