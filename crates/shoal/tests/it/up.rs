//! `shoal up`: the README's promise, from text to a checkpoint that writes text.

use serde_json::Value;

use super::binary::{Place, component, entries};

#[test]
fn a_swarm_trains_resumes_and_its_checkpoint_writes_text() {
    let place = Place::new();
    place.write_text("text/a.txt", 60_000);
    place.write_text("text/b.txt", 60_000);
    let args = ["--json", "up", "--preset", "micro", "--data", "text", "--epochs", "3", "--stages", "2"];
    let ran = place.run(&args).good();
    let summary = ran.summary();
    let number = |key: &str| summary[key].as_f64().unwrap_or_else(|| panic!("{key} in {summary}"));
    assert!(number("loss_last") < number("loss_first"), "{summary}");
    assert!(number("heldout_loss_last") < number("heldout_loss_first") - 0.3, "{summary}");
    assert_eq!(number("epochs"), 3.0);
    for key in ["tokens", "seconds", "tokens_per_s", "activation_bytes", "merge_bytes"] {
        assert!(number(key) > 0.0, "{key} in {summary}");
    }
    assert!((number("activation_ratio") - 64.0).abs() < 4.0, "{summary}");
    assert!(ran.err.contains("took 2 files"), "{}", ran.err);

    let checkpoint = summary["checkpoint"].as_str().expect("a path").to_owned();
    let sample = ["--json", "sample", &checkpoint, "--prompt", "the ", "--tokens", "40"];
    let written = place.run(&sample).good().objects().pop().expect("an object");
    assert!(!written["text"].as_str().expect("text").is_empty());
    assert_eq!(
        place.run(&sample).good().objects().pop().expect("an object"),
        written,
        "the same seed, the same text"
    );

    // A finished run stays finished, and a second one lies beside it.
    let resumed = place.run(&["--json", "up", "--resume"]).good().summary();
    assert_eq!(resumed["tokens"], summary["tokens"]);
    place
        .run(&[
            "--json",
            "up",
            "--preset",
            "micro",
            "--data",
            "text",
            "--epochs",
            "1",
            "--stages",
            "1",
            "--replicas",
            "1",
            "--validators",
            "0",
        ])
        .good();
    assert_eq!(entries(&place.path("shoal-runs")), [".gitignore", "run-1", "run-2"]);
    let text = ["up", "--dir", "shoal-runs/run-1", "--preset", "micro", "--data", "text"];
    place.run(&text).bad(3, &["shoal-runs/run-1 already holds a run", "--resume"]);

    // The log follows from its inputs, as `verify` recomputes it.
    let verified = place.run(&["verify", "shoal-runs/run-1/log.sqlite"]).good();
    assert!(verified.out.contains("follows:"), "{}", verified.out);
    let verified = place.run(&["verify", "shoal-runs/run-1"]).good();
    assert!(verified.out.contains("follows:"), "{}", verified.out);

    // One process learns as much from the same tokens, and the log tells who did what when.
    let alone = place.run(&["--json", "bench", "alone", "shoal-runs/run-1"]).good().summary();
    assert_eq!(alone["tokens"], summary["tokens"]);
    let gap = number("heldout_loss_last") / alone["heldout_loss"].as_f64().expect("a loss") - 1.0;
    assert!(gap.abs() < 0.15, "{gap}");
    let log = place.run(&["--json", "bench", "log", "shoal-runs/run-1"]).good().objects();
    let (totals, epochs): (Vec<_>, Vec<_>) = log.iter().partition(|line| line["event"] == "totals");
    assert_eq!((totals.len(), epochs.len()), (4, 3));
    let moved = totals.iter().map(|one| one["merge_bytes"].as_u64().expect("bytes")).sum::<u64>();
    assert_eq!(moved as f64, number("merge_bytes"));
    let tokens = epochs.iter().map(|epoch| epoch["tokens"].as_u64().expect("a number")).sum::<u64>();
    assert_eq!(tokens as f64, number("tokens"));
    assert!(epochs.iter().all(|epoch| epoch["stages"].as_array().expect("stages").len() == 2));

    // The exported checkpoint is one that shoal reads.
    place.run(&["run", "export", "shoal-runs/run-1", "out"]).good();
    place.run(&["sample", "out", "--tokens", "5"]).good();
}

#[test]
fn the_last_merge_is_counted_too() {
    let place = Place::new();
    place.write_text("text.txt", 60_000);
    let spec = "stages = 1\n[model]\npreset = \"micro\"\nd_model = 128\n[phases]\nepochs = 1\nminers_min = 4\n\
                [codec]\npseudo_gradients = \"raw\"\nweights = \"raw\"\n";
    std::fs::write(place.path("spec.toml"), spec).expect("a spec");
    let args = ["--json", "up", "--spec", "spec.toml", "--data", "text.txt"];
    let ran = place.run(&[&args[..], &["--replicas", "4", "--validators", "0"]].concat()).good();
    let (summary, shown) = (ran.summary(), place.run(&["--json", "run", "show", "shoal-runs/run-1"]).good());
    // 6W − 8W/N a miner, sent and received, of W = 2 bytes a parameter; and at most the keeper's fetch of the weights in f32.
    let w = 2.0 * shown.objects()[0]["parameters"].as_f64().expect("parameters");
    let moved = summary["merge_bytes"].as_f64().expect("bytes") / w;
    // A miner that comes too late for the merge moves less, whoever asks again more.
    assert!((14.0..20.0).contains(&moved), "{moved} of 4 (6 − 8/4): {summary}");
}

#[test]
fn cuts_are_compared_with_the_plain_one_and_only_those_asked_for() {
    let place = Place::new();
    place.write_text("text.txt", 60_000);
    let args = ["bench", "cuts", "--data", "text.txt", "--preset", "micro", "--stages", "2", "--steps", "2"];
    let args = [&args[..], &["--sequences", "1", "--seeds", "1", "--only"]].concat();
    let rows = place.run(&[&args[..], &["nothing", "--only", "64", "--json"]].concat()).good().objects();
    let names: Vec<&str> = rows.iter().filter_map(|row| row["name"].as_str()).collect();
    assert_eq!(names, ["plain, bf16", "IOTA, 64×", "token-anchored, 64×", "nothing"]);
    assert_eq!(rows.last().expect("rows")["bytes_per_token"][0], 0.0);
    place.run(&[&args[..], &["zip"]].concat()).bad(3, &["--only \"zip\"", "\"token-anchored, 64×\""]);
}

#[test]
fn what_a_codec_does_to_training_is_measured_by_direction() {
    let place = Place::new();
    place.write_text("text.txt", 60_000);
    let args = ["bench", "cuts", "--data", "text.txt", "--preset", "micro", "--stages", "2", "--steps", "3"];
    let args = [&args[..], &["--sequences", "1", "--seeds", "1", "--codec"]].concat();
    let lossless = place.run(&[&args[..], &["huffman", "--json"]].concat()).good().objects();
    let names: Vec<&str> = lossless.iter().filter_map(|row| row["name"].as_str()).collect();
    let ways = ["activations", "gradients", "both"].map(|way| format!("plain, bf16, {way} by huffman"));
    assert_eq!(names, ["plain, bf16", &ways[0], &ways[1], &ways[2], "nothing"]);
    for row in &lossless[..4] {
        assert_eq!(row["losses"], lossless[0]["losses"], "every bit comes back");
    }
    let sent = |row: &Value| [0, 1].map(|way| row["bytes_per_token"][way].as_f64().expect("bytes"));
    let [plain, forward, backward] = [0, 1, 2].map(|at| sent(&lossless[at]));
    assert!(forward[0] < plain[0] && forward[1] == plain[1] && backward[0] == plain[0]);
    let uniform = component("uniform-99");
    let lossy = place.run(&[&args[..], &[uniform.as_str(), "--json"]].concat()).good().objects();
    assert_eq!(lossy[0]["losses"], lossless[0]["losses"]);
    assert!(lossy[1..4].iter().all(|row| row["losses"] != lossy[0]["losses"]));
    place.run(&[&args[..], &["text.txt"]].concat()).bad(3, &["text.txt is no WebAssembly"]);
}

#[test]
fn old_states_are_deleted() {
    let place = Place::new();
    place.write_text("text.txt", 60_000);
    let kept = |epochs: &str| {
        let args = ["up", "--preset", "micro", "--data", "text.txt", "--stages", "1", "--dir", epochs];
        let shape = ["--epochs", epochs, "--replicas", "2", "--validators", "0"];
        place.run(&[&args[..], &shape].concat()).good();
        ["blobs", "nodes/miner-0-0/blobs", "nodes/miner-0-1/blobs"].map(|folder| {
            let shelves = entries(&place.path(epochs).join(folder));
            let files =
                shelves.iter().map(|shelf| entries(&place.path(epochs).join(folder).join(shelf)).len());
            files.sum::<usize>()
        })
    };
    // Two epochs and the data: not one file more after twice as many epochs.
    assert_eq!(kept("8"), kept("4"));
}
