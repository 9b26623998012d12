//! Samples and pools named by folders: each item checked, none known before.

use std::fs;
use std::path::Path;

use serde_json::Value;

use super::arena_host::{Arena, spec};
use super::binary::{component, until};

/// The rows of a manifest without its first line.
fn rows(folder: &Path) -> Vec<String> {
    let text = fs::read_to_string(folder.join("manifest.csv")).expect("a manifest");
    text.lines().skip(1).map(str::to_owned).collect()
}

fn write_rows(folder: &Path, rows: &[String]) {
    let head = "file,blake3,bytes,dtype,rows,cols,direction,operator";
    fs::write(folder.join("manifest.csv"), format!("{head}\n{}\n", rows.join("\n"))).expect("a manifest");
}

#[test]
fn samples_and_pools_by_folder() {
    let arena = Arena::new();
    let at = |name: &str| arena.place.path(name).display().to_string();
    let (baseline, entry) = (component("zstd-3"), component("huffman"));
    let (samples, pool, path) = (at("samples"), at("pool"), at("spec.toml"));
    arena.run(&["arena", "samples", "-o", &samples, "--items", "4", "--seed", "known"]).good();
    arena.run(&["arena", "samples", "-o", &pool, "--items", "12", "--seed", "hidden"]).good();
    let text = spec(25, &baseline)
        .replace("opening_s", "pool_s = 20\nopening_s")
        .replace("items = 8", "items = 8\nsource = \"pool\"\noperator_share_ppm = 500000");
    fs::write(&path, &text).expect("a spec");
    let open = ["arena", "open", &path, "--with", &baseline, "--samples", &samples, "--pool", &pool];

    // All of one operator, of whom a round takes half at most.
    arena.run(&open).bad(3, &["4 of 12 unused items can be drawn", "of 1 operators", "column `operator`"]);
    let folder = Path::new(&pool);
    let mut listed = rows(folder);
    for (index, row) in listed.iter_mut().enumerate() {
        let operator = if index % 2 == 0 { "11".repeat(32) } else { "22".repeat(32) };
        row.push_str(&operator);
    }
    // A sample under another name and without its head is still a sample.
    let headed = fs::read(Path::new(&samples).join("synthetic-0001")).expect("a sample");
    let bare = &headed[24..];
    fs::write(folder.join("bare.bin"), bare).expect("a file");
    let shape: Vec<u32> =
        headed[12..20].as_chunks::<4>().0.iter().map(|word| u32::from_le_bytes(*word)).collect();
    let hash = wire::Hash::of(bare);
    for known in [
        format!("bare.bin,{hash},{},bf16,{},{},forward,", bare.len(), shape[0], shape[1]),
        format!("bare.bin,{hash},,,,,,"),
    ] {
        write_rows(folder, &[&listed[..], &[known]].concat());
        arena.run(&open).bad(3, &["bare.bin of the pool are among", "samples, which everybody has"]);
    }
    write_rows(folder, &listed);
    // A byte that was changed, a file that is gone, a row without a hash: named before anything is uploaded.
    let first = folder.join("synthetic-0000");
    let good = fs::read(&first).expect("an item");
    let mut bad = good.clone();
    bad[100] ^= 1;
    fs::write(&first, &bad).expect("a file");
    arena.run(&open).bad(3, &["synthetic-0000: the manifest says"]);
    fs::remove_file(&first).expect("it is there");
    arena.run(&open).bad(3, &["synthetic-0000: not there"]);
    fs::write(&first, &good).expect("a file");
    let mut unhashed = listed.clone();
    unhashed[2] = "synthetic-0002,,,,,,,".to_owned();
    write_rows(folder, &unhashed);
    arena.run(&open).bad(3, &["gives no hash of \"synthetic-0002\"", "writes the set anew"]);
    write_rows(folder, &listed);
    assert_eq!(arena.object(&["arena", "list"])["pagination"]["total"], 0, "nothing was opened");

    let opened = arena.object(&open);
    assert_eq!(opened["samples"]["items"], 4, "{opened}");
    let stranger = arena.key("stranger");
    let drawn = arena.run(&["arena", "samples", "-c", "e2e", "--key", &stranger, "--json"]).good().objects();
    assert_eq!(drawn.len(), 4);
    let named = ["arena", "pool", "e2e", &pool];
    arena.run(&named).bad(3, &["no round awaits its pool now", "--watch"]);
    arena
        .run(&["arena", "pool", "e2e", &samples, "--watch"])
        .bad(3, &["are among the competition's samples"]);

    let judge = arena.spawn(&["arena", "judge", "--key", &arena.key("judge"), "--json"]);
    let namer = arena.spawn(&["arena", "pool", "e2e", &pool, "--watch", "--json"]);
    assert_eq!((&namer.line["event"], &namer.line["items"]), (&"waiting".into(), &12.into()));
    let entrant = arena.key("entrant");
    let ran = arena.run(&["arena", "submit", &entry, "-c", "e2e", "--key", &entrant, "--json"]).good();
    let submission = ran.objects()[0]["submission"].as_u64().expect("an id").to_string();
    arena.run(&["arena", "agent", "--key", &entrant]).good();
    let scored = until("the verdict", || {
        let row = arena.object(&["arena", "result", &submission, "--units", "--key", &entrant]);
        (row["state"] == "scored" && row["round_state"] == "completed").then_some(row)
    });
    assert_eq!(scored["judgements"][0]["units"].as_array().expect("units").len(), 8);
    // What it was judged on is the next development set: eight of the pool, none of the samples.
    let round = at("round");
    let again =
        arena.run(&["arena", "samples", "-c", "e2e", "--round", "last", "-o", &round, "--json"]).good();
    let hashes: Vec<Value> = again.objects().iter().map(|row| row["blake3"].clone()).collect();
    assert_eq!(hashes.len(), 8);
    for hash in &hashes {
        let hash = hash.as_str().expect("a hash");
        assert!(listed.iter().any(|row| row.contains(hash)), "{hash} is of the pool");
    }
    drop((judge, namer));
}
