//! Disks that are full and files that are damaged: whoever runs a swarm hears what it is, once, and what to do.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::binary::{Place, entries};

/// A file system of 6 MiB, where one can be mounted (Linux, as root).
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(at: PathBuf) -> Option<Self> {
        std::fs::create_dir(&at).unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=6m", "tmpfs"]).arg(&at);
        if mount.output().is_ok_and(|output| output.status.success()) {
            return Some(Self(at));
        }
        _ = writeln!(
            std::io::stderr(),
            "skipped: a small file system cannot be mounted here (it needs root)"
        );
        None
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).output();
    }
}

#[test]
fn a_full_disk_ends_a_run_with_its_reason() {
    let place = Place::new();
    place.write_text("a.txt", 60_000);
    let Some(_disk) = SmallDisk::mount(place.path("small")) else { return };
    let up = ["up", "--preset", "micro", "--data", "a.txt", "--epochs", "100000", "--dir", "small/run"];
    place.run(&up).bad(3, &["6 miners keep up to", "is free at small/run", "--dir"]);
    assert_eq!(entries(&place.path("small")), [""; 0]);
    // What one miner keeps has room; what the run adds to it has not.
    let ran = place.run(&[&up[..], &["--stages", "1", "--replicas", "1", "--validators", "0"]].concat());
    ran.bad(3, &["disk full at", "free"]);
    assert!(!ran.err.contains("started again"), "{}", ran.err);
}

/// Turns over the bytes `range` of a file.
fn damage(path: &Path, range: std::ops::Range<usize>) {
    let mut bytes = std::fs::read(path).unwrap();
    bytes[range].iter_mut().for_each(|byte| *byte ^= 0xff);
    std::fs::write(path, bytes).unwrap();
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

#[test]
fn damaged_data_ends_a_run_with_its_reason() {
    let place = Place::new();
    place.write_text("a.txt", 60_000);
    place.run(&["run", "new", "one", "--data", "a.txt", "--preset", "micro"]).good();
    let blobs = files(&place.path("one/blobs"));
    let shards = blobs.iter().filter(|blob| std::fs::metadata(blob).unwrap().len() > 1000);
    shards.for_each(|shard| damage(shard, 30..31));
    place
        .run(&["orchestrator", "one", "--bind", "127.0.0.1:0"])
        .bad(3, &["a shard of the run's data is of no use", "is corrupt", "put back a copy of one/blobs"]);
}

#[test]
fn the_first_entry_that_does_not_follow_is_named() {
    let place = Place::new();
    place.write_text("a.txt", 60_000);
    let up =
        ["up", "--preset", "micro", "--data", "a.txt", "--stages", "1", "--replicas", "1", "--epochs", "2"];
    place.run(&[&up[..], &["--dir", "run"]].concat()).good();
    place.run(&["run", "log", "run", "run.log"]).good();
    place.run(&["verify", "run.log"]).good();
    let log = place.path("run.log");
    let bytes = std::fs::read(&log).unwrap();
    let verify = || {
        let told = place.run(&["--json", "verify", "run.log"]);
        assert_eq!(told.code, Some(4), "{}", told.err);
        let told = told.objects().remove(0);
        assert_eq!(told["follows"], false);
        (told["wrong"].as_str().expect("what is wrong").to_owned(), told["blocks"].as_u64().expect("blocks"))
    };
    damage(&log, bytes.len() / 2..bytes.len() / 2 + 1);
    let (wrong, blocks) = verify();
    assert!(blocks > 0 && wrong.starts_with("block "), "{wrong}, after {blocks}");
    let shown = place.run(&["verify", "run.log"]).out;
    assert!(shown.starts_with(&format!("does not follow: {wrong}\n{blocks} blocks with ")), "{shown}");
    std::fs::write(&log, &bytes[..bytes.len() - 1]).unwrap();
    let (wrong, torn) = verify();
    assert!(torn > blocks && wrong.starts_with("torn at byte "), "{wrong}, after {torn}");
}

#[test]
fn a_damaged_log_is_one_line_and_not_tried_again() {
    let place = Place::new();
    place.write_text("a.txt", 60_000);
    let up =
        ["up", "--preset", "micro", "--data", "a.txt", "--stages", "1", "--replicas", "1", "--epochs", "2"];
    place.run(&[&up[..], &["--dir", "run"]].concat()).good();
    let log = place.path("run/log.sqlite");
    let len = std::fs::metadata(&log).unwrap().len() as usize;
    damage(&log, 4096..len);
    for command in [&["up", "--resume", "--dir", "run"][..], &["orchestrator", "run"], &["verify", "run"]] {
        let ran = place.run(command);
        ran.bad(3, &["log.sqlite is damaged", "put back a copy"]);
        assert!(!ran.err.contains("started again"), "{}", ran.err);
        assert_eq!(ran.err.lines().filter(|line| line.starts_with("shoal: ")).count(), 1, "{}", ran.err);
    }
}
