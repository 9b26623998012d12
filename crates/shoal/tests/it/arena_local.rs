//! `shoal arena` on one machine: demo, eval, samples, harvest, and entries to start from.

use std::io::Write as _;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use super::binary::{Place, Ran, two_stages};
use super::crew::Crew;
use super::lending::{miner, new_run, open};

fn only(ran: Ran) -> Value {
    let mut rows = ran.good().objects();
    assert_eq!(rows.len(), 1);
    rows.remove(0)
}

#[test]
fn the_demo_judges_every_baseline_and_names_a_champion() {
    let place = Place::new();
    let rows: Value =
        serde_json::from_str(place.run(&["arena", "demo", "--json"]).good().out.trim()).unwrap();
    let rows = rows.as_array().unwrap();
    let names: Vec<&str> = rows.iter().map(|row| row["submission"].as_str().unwrap()).collect();
    for name in ["zstd-3 (baseline)", "fast", "huffman", "context", "uniform-99"] {
        assert!(names.contains(&name), "{names:?}");
    }
    for (index, row) in rows.iter().enumerate() {
        assert_eq!(row["rank"], index as u64 + 1);
        assert_eq!(row["state"], "scored");
        let number = |key: &str| row[key].as_f64().unwrap_or_else(|| panic!("{key} in {row}"));
        assert!(number("compression_ratio") > 1.0 && number("task_time_s") > 0.0, "{row}");
        assert!(number("similarity") >= 0.99 && number("similarity") <= 1.0, "{row}");
        assert!((0.0..=1.0).contains(&number("score")), "{row}");
        if index > 0 {
            assert!(number("raw_score") <= rows[index - 1]["raw_score"].as_f64().unwrap());
        }
    }
    // The tensors are a real model's: a codec that knows them is ahead of zstd.
    let place_of = |name: &str| names.iter().position(|found| *found == name).unwrap();
    assert!(place_of("huffman") < place_of("zstd-3 (baseline)"), "{names:?}");
}

#[test]
fn eval_finds_the_same_again_and_says_what_is_wrong() {
    let place = Place::new();
    only(place.run(&["arena", "samples", "--items", "1", "-o", "samples", "--json"]));
    let eval = |entry: &str| place.run(&["arena", "eval", entry, "--data", "samples", "--json"]);
    let (first, again) = (only(eval("huffman")), only(eval("huffman")));
    for key in ["outputs_hash", "inputs_hash", "items", "compression_ratio"] {
        assert_eq!(first[key], again[key], "{key}");
    }
    assert_eq!(first["state"], "scored");
    assert_eq!(first["baseline"]["name"], "zstd-3");
    // What it took, and where.
    let usage = |key: &str| first["usage"][key].as_f64().unwrap();
    assert!(usage("cpu_s") > 0.0 && usage("fuel") > 0.0 && usage("memory_peak_bytes") > 65536.0, "{first}");
    assert!(first["machine"]["sandbox"].as_str().unwrap().starts_with("wasmtime"), "{first}");
    assert!(first["machine"]["cores"].as_u64() > Some(0), "{first}");
    let raw = |value: &Value| value["raw_score"].as_f64().unwrap();
    assert!((raw(&first) / raw(&again) - 1.0).abs() < 0.005, "{first} {again}");
    // By another rule, from the spec.
    let spec = "name = \"m\"\nkind = \"codec\"\n[rule]\nname = \"apex-2026-01-13\"\n[schedule]\nstart = \"2026-01-13T00:00:00Z\"\ndays = 2\n[inputs]\nitems = 1\n";
    std::fs::write(place.path("spec.toml"), spec).unwrap();
    let apex =
        only(place.run(&["arena", "eval", "huffman", "--spec", "spec.toml", "--data", "samples", "--json"]));
    let ratio = apex["compression_ratio"].as_f64().unwrap();
    assert!((raw(&apex) - (1.0 - 1.0 / ratio)).abs() < 1e-12, "{apex}");
    // What a spec names must be given, and be that.
    let program = spec
        .replace("codec", "program")
        .replace("[rule]\nname = \"apex-2026-01-13\"\n", "[takeover]\nalpha_ppm = 0\n");
    let named = format!("{program}code = \"{}\"\n", "ab".repeat(32));
    std::fs::write(place.path("program.toml"), named).unwrap();
    let program = ["arena", "eval", "huffman", "--spec", "program.toml"];
    place.run(&program).bad(3, &["names the evaluator", "--reference"]);
    std::fs::write(place.path("other.py"), "other").unwrap();
    place.run(&[&program[..], &["--reference", "other.py"]].concat()).bad(3, &["--reference is ", "abab"]);
    // What cannot be judged, and what cannot be read.
    std::fs::write(place.path("broken.wasm"), b"\0as").unwrap();
    place
        .run(&["arena", "eval", "broken.wasm"])
        .bad(3, &["broken.wasm", "its name ends in .wasm", "damaged"]);
    std::fs::write(place.path("junk.wasm"), b"\0asm\x0d\0\x01\0junk").unwrap();
    let ran = eval("junk.wasm");
    assert_eq!(ran.code, Some(1));
    assert_eq!(ran.objects()[0]["state"], "rejected");
    place.run(&["arena", "eval", "missing.wasm"]).bad(3, &["missing.wasm", "zstd-3"]);
    place.run(&["arena", "eval", "huffman", "--data", "nowhere"]).bad(3, &["nowhere"]);
}

#[test]
fn samples_are_drawn_and_checkpoints_are_harvested() {
    let place = Place::new();
    place.run(&["arena", "samples", "--items", "4", "-o", "all"]).good();
    let drawn =
        place.run(&["arena", "samples", "all", "--items", "2", "--seed", "x", "-o", "some", "--json"]).good();
    assert_eq!(drawn.objects().len(), 2);
    let again = place.run(&["arena", "samples", "all", "--items", "2", "--seed", "x", "--json"]).good();
    assert_eq!(drawn.objects(), again.objects());
    place.run(&["arena", "samples", "-o", "some"]).bad(3, &["some", "another folder"]);
    place.run(&["arena", "harvest", "all", "-o", "none"]).bad(3, &["--keep-frames"]);
    // A checkpoint: one tensor of 64 × 64, in f32.
    let header = r#"{"w":{"dtype":"F32","shape":[64,64],"data_offsets":[0,16384]}}"#;
    let values: Vec<u8> = (0..4096_u32).flat_map(|i| ((i as f32).sin()).to_le_bytes()).collect();
    let file = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &values].concat();
    std::fs::create_dir(place.path("checkpoint")).unwrap();
    std::fs::write(place.path("checkpoint/model.safetensors"), file).unwrap();
    let found = only(place.run(&["arena", "harvest", "checkpoint", "-o", "harvested", "--json"]));
    assert_eq!((found["bytes"].as_u64(), &found["shape"]), (Some(8192), &serde_json::json!([64, 64])));
    only(place.run(&["arena", "eval", "context", "--data", "harvested", "--json"]));
}

/// Two epochs.
const TRAFFIC: &str = r"
[batch]
sequences = 4
micro_batches_per_epoch = 24
[inner]
steps = 3
[phases]
epochs = 2
miners_min = 1
";

#[test]
fn traffic_of_a_real_run_becomes_inputs() {
    let (place, _) = new_run(&two_stages("traffic", TRAFFIC));
    let mut crew = Crew::new(place, "warn");
    let (orchestrator, ticket) = open(&mut crew);
    let args = |stage: &'static str| ["--threads", "1", "--stage", stage, "--keep-frames", "frames"];
    let head = crew.start("head", &[], &miner(&ticket, "head", &args("0")));
    let tail = crew.start("tail", &[], &miner(&ticket, "tail", &args("1")));
    for member in [orchestrator, head, tail] {
        let status = crew.end(member, |_| {});
        assert!(status.success(), "{status}: {}", crew.tails());
    }
    let place = &crew.place;
    let ran = place.run(&["arena", "harvest", "frames", "-o", "inputs", "--items", "4", "--json"]).good();
    let rows = ran.objects();
    assert!(!rows.is_empty() && rows.len() <= 4, "{}", ran.out);
    for row in &rows {
        let side = |at: usize| row["shape"][at].as_u64().expect("a number");
        assert_eq!(side(0) * side(1) * 2, row["bytes"].as_u64().expect("bytes"), "{row}");
        let name = row["file"].as_str().expect("a name");
        assert_eq!(name.contains("backward"), row["direction"] == "backward", "{row}");
    }
    // In turns: both miners, both directions.
    let manifest = std::fs::read_to_string(place.path("inputs/manifest.csv")).expect("a manifest");
    let operators: std::collections::BTreeSet<&str> = manifest
        .lines()
        .skip(1)
        .filter_map(|line| {
            line.split(',').find(|cell| cell.len() == 64 && line.contains(&format!("-{cell}.bin")))
        })
        .collect();
    assert_eq!(operators.len(), 2, "{manifest}");
    // Nobody has replayed anything here.
    place
        .run(&["arena", "harvest", "frames", "-o", "none", "--audited", "run"])
        .bad(3, &["is, by its name, work of this run that was replayed", "[audit] rate"]);
    let found = only(place.run(&["arena", "eval", "huffman", "--data", "inputs", "--json"]));
    assert_eq!((&found["state"], &found["similarity_min"]), (&Value::from("scored"), &Value::from(1.0)));
    assert!(found["compression_ratio"].as_f64().expect("a ratio") > 1.0, "{found}");
    // The whole run, its own checkpoint included.
    place.run(&["run", "export", "run", "checkpoint"]).good();
    let all = place.run(&["arena", "harvest", ".", "-o", "all", "--json"]).good().objects();
    assert!(all.len() > rows.len());
}

/// Builds a template where its tools are there; says so where not.
fn builds(folder: &Path, program: &str, args: &[&str], probe: &[&str]) -> bool {
    let there = Command::new(program).args(probe).output().is_ok_and(|output| output.status.success());
    if !there {
        _ = writeln!(std::io::stderr(), "skipped: {program} {probe:?} fails here");
        return false;
    }
    let mut command = Command::new(program);
    command.args(args).current_dir(folder).env_remove("RUSTFLAGS").env_remove("CARGO_TARGET_DIR");
    let output = command.output().expect("it starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    true
}

fn scores(place: &Place, entry: &str) {
    let found = only(place.run(&["arena", "eval", entry, "--items", "2", "--json"]));
    assert_eq!(found["state"], "scored", "{found}");
    assert!(found["compression_ratio"].as_f64().unwrap() > 1.2, "{found}");
    assert_eq!(found["similarity_min"], 1.0, "{found}");
}

#[test]
fn a_new_rust_codec_builds_and_scores() {
    let place = Place::new();
    place.run(&["arena", "new", "codec", "--lang", "rust", "mine"]).good();
    place.run(&["arena", "new", "codec", "mine"]).bad(3, &["mine"]);
    let folder = place.path("mine");
    let has_target = ["--print", "target-libdir", "--target", "wasm32-unknown-unknown"];
    let libs = Command::new("rustc").args(has_target).output().ok();
    let libs = libs.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    if !libs.is_some_and(|libs| !libs.is_empty() && Path::new(&libs).is_dir()) {
        _ = writeln!(
            std::io::stderr(),
            "skipped: no target wasm32-unknown-unknown (rustup target add wasm32-unknown-unknown)"
        );
        return;
    }
    let build = ["build", "--release", "--offline", "--target", "wasm32-unknown-unknown"];
    if builds(&folder, "cargo", &build, &["--version"]) {
        scores(&place, "mine/target/wasm32-unknown-unknown/release/my_codec.wasm");
        let module = "mine/target/wasm32-unknown-unknown/release/my_codec.wasm";
        place.run(&["arena", "pack", module, "-o", "mine.wasm"]).good();
        scores(&place, "mine.wasm");
    }
}

#[test]
fn a_new_c_codec_builds_and_scores() {
    let place = Place::new();
    place.run(&["arena", "new", "codec", "--lang", "c", "mine"]).good();
    let probe = ["--print-targets"];
    let wasm = Command::new("clang").args(probe).output();
    let wasm = wasm.is_ok_and(|output| String::from_utf8_lossy(&output.stdout).contains("wasm32"));
    if !wasm || Command::new("wasm-ld").arg("--version").output().is_err() {
        _ = writeln!(std::io::stderr(), "skipped: no clang and lld for wasm32");
        return;
    }
    if builds(&place.path("mine"), "sh", &["build"], &["-c", "true"]) {
        scores(&place, "mine/codec.wasm");
    }
}

#[test]
fn a_new_python_codec_scores() {
    let place = Place::new();
    place.run(&["arena", "new", "codec", "--lang", "python", "mine"]).good();
    let ran = place.run(&["arena", "eval", "mine/solution.py", "--items", "2", "--json"]);
    if ran.code != Some(0) && ran.err.contains("cannot judge programs") {
        _ = writeln!(std::io::stderr(), "skipped: {}", ran.err.trim());
        return;
    }
    scores(&place, "mine/solution.py");
    // What is not wanted is told by line, as judges would tell it.
    let good = std::fs::read_to_string(place.path("mine/solution.py")).unwrap();
    std::fs::write(place.path("mine/solution.py"), format!("import ctypes\n{good}")).unwrap();
    let ran = place.run(&["arena", "eval", "mine/solution.py", "--items", "2", "--json"]);
    let (code, found) = (ran.code, ran.objects().remove(0));
    assert_eq!((code, &found["state"]), (Some(1), &Value::from("rejected")), "{found}");
    assert_eq!(found["reason"], "solution.py:1: imports ctypes");
    let ran = place.run(&["arena", "eval", "mine/solution.py", "--items", "2"]);
    assert!(
        ran.out.contains("forbidden") && ran.out.contains("entry| solution.py:1: imports ctypes"),
        "{}",
        ran.out
    );
}

#[test]
fn what_a_spec_names_is_tried_before_it_opens() {
    let place = Place::new();
    let zstd = std::fs::read(super::binary::component("zstd-3")).unwrap();
    let write = |name: &str, more: &str| {
        let text = format!(
            "name = \"m\"\nkind = \"codec\"\n[schedule]\nstart = \"2026-01-13T00:00:00Z\"\ndays = 2\n{more}"
        );
        std::fs::write(place.path(name), text).unwrap();
    };
    let baseline = |bytes: usize| {
        format!("[baseline]\nname = \"zstd-3\"\ncode = \"{}\"\nbytes = {bytes}\n", wire::Hash::of(&zstd))
    };
    write("plain.toml", "");
    let shown = place.run(&["arena", "check", "plain.toml", "--try"]).good().out;
    assert!(shown.contains("nothing to try"), "{shown}");
    write("good.toml", &baseline(zstd.len()));
    let row = only(place.run(&["arena", "check", "good.toml", "--try", "--json"]));
    assert!(row["tried"]["baseline"]["raw_score"].as_f64() > Some(0.1), "{row}");
    assert!(only(place.run(&["arena", "check", "good.toml", "--json"]))["tried"].is_null());
    write("size.toml", &baseline(zstd.len() + 1));
    place
        .run(&["arena", "check", "size.toml", "--try"])
        .bad(3, &["size.toml", "baseline.bytes", "the file has"]);
    // A generator that is a codec makes no tensors of 36 bytes.
    let generator = format!("[inputs]\ncode = \"{}\"\n", wire::Hash::of(&zstd));
    write("broken.toml", &generator);
    place.run(&["arena", "check", "broken.toml"]).good();
    place
        .run(&["arena", "check", "broken.toml", "--try"])
        .bad(3, &["the generator failed", "mend it, and name its new hash"]);
    write("missing.toml", &format!("[inputs]\ncode = \"{}\"\n", "ab".repeat(32)));
    place.run(&["arena", "check", "missing.toml", "--try"]).bad(3, &["inputs.code", "abab", "--with"]);
    std::fs::write(place.path("other"), "other").unwrap();
    place
        .run(&["arena", "check", "good.toml", "--try", "--with", "other"])
        .bad(3, &["other is ", "baseline.code"]);
    assert_eq!(place.run(&["arena", "check", "good.toml", "--with", "other"]).code, Some(2));
}

#[test]
fn a_new_competition_of_programs_is_measured() {
    let place = Place::new();
    place.run(&["arena", "new", "program", "--lang", "c", "mine"]).bad(3, &["in python only"]);
    let made = only(place.run(&["arena", "new", "program", "mine", "--json"]));
    assert_eq!(made["eval"], "shoal arena eval entry.py --spec sort.toml --reference evaluator.py");
    place.run(&["arena", "check", "mine/sort.toml"]).good();
    let (spec, evaluator) = ("mine/sort.toml", "mine/evaluator.py");
    let args = ["arena", "eval", "mine/entry.py", "--spec", spec, "--reference", evaluator, "--json"];
    let ran = place.run(&args);
    if ran.code != Some(0) && ran.err.contains("cannot judge programs") {
        _ = writeln!(std::io::stderr(), "skipped: {}", ran.err.trim());
        return;
    }
    let found = only(ran);
    assert_eq!(
        (&found["state"], found["raw_score"].as_f64()),
        (&Value::from("scored"), Some(1.0)),
        "{found}"
    );
    let row = only(place.run(&["arena", "check", spec, "--try", "--with", evaluator, "--json"]));
    let tried = &row["tried"];
    assert_eq!(tried["generator"]["depends_on_seed"], true, "{row}");
    assert!(tried["evaluator"]["objective"].as_f64() < Some(1.0), "an input is not sorted: {row}");
    assert_eq!(tried["evaluator"]["metrics"], serde_json::json!(["bytes"]), "{row}");
    // One that is broken is found before anything is opened.
    let text = std::fs::read_to_string(place.path(evaluator)).unwrap();
    let broken = text.replace("self.reply(f\"{hits", "self.reply(f\"none {hits");
    assert_ne!(broken, text);
    std::fs::write(place.path("broken.py"), &broken).unwrap();
    let named = std::fs::read_to_string(place.path(spec)).unwrap();
    let hash = |text: &str| wire::Hash::of(text.as_bytes()).to_string();
    std::fs::write(place.path("broken.toml"), named.replace(&hash(&text), &hash(&broken))).unwrap();
    place
        .run(&["arena", "check", "broken.toml", "--try", "--with", "broken.py"])
        .bad(3, &["the evaluator failed", "is no number", "mend it"]);
    // The spec names this very evaluator.
    std::fs::write(place.path(evaluator), "print('another')\n").unwrap();
    place.run(&args[..args.len() - 1]).bad(3, &["inputs.code of the spec"]);
}
