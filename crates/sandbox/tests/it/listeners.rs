//! What listens, as the kernel tells it from outside: on this machine, and in the namespace of a jail.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Sockets that wait for others: listening ones of TCP and Unix, all of UDP and raw ones, by inode.
pub(super) type Listeners = BTreeMap<u64, String>;

/// Those of the namespace in which a process lives (`self`, or a number).
pub(super) fn of(process: &str) -> Listeners {
    let folder = Path::new("/proc").join(process).join("net");
    let mut found = Listeners::new();
    for table in ["tcp", "tcp6", "udp", "udp6", "raw", "raw6"] {
        for line in fs::read_to_string(folder.join(table)).unwrap_or_default().lines().skip(1) {
            let words: Vec<&str> = line.split_whitespace().collect();
            let (Some(local), Some(state), Some(inode)) = (words.get(1), words.get(3), words.get(9)) else {
                continue;
            };
            // 0A is LISTEN.
            if !table.starts_with("tcp") || *state == "0A" {
                found.insert(inode.parse().unwrap_or(0), format!("{table} {local}"));
            }
        }
    }
    for line in fs::read_to_string(folder.join("unix")).unwrap_or_default().lines().skip(1) {
        let words: Vec<&str> = line.split_whitespace().collect();
        // The flag __SO_ACCEPTCON.
        if let (Some(&"00010000"), Some(inode)) = (words.get(3), words.get(6)) {
            let name = words.get(7).copied().unwrap_or_default();
            found.insert(inode.parse().unwrap_or(0), format!("unix {name}"));
        }
    }
    found
}

/// Name of the network namespace of a process.
pub(super) fn namespace(process: &str) -> Option<PathBuf> {
    fs::read_link(Path::new("/proc").join(process).join("ns/net")).ok()
}

/// Processes of a network namespace.
pub(super) fn living_in(namespace: &Path) -> Vec<String> {
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let names = processes.map(|process| process.file_name().to_string_lossy().into_owned());
    let inside = |name: &String| {
        name.bytes().all(|byte| byte.is_ascii_digit()) && self::namespace(name).as_deref() == Some(namespace)
    };
    names.filter(inside).collect()
}

/// Interfaces that a process sees.
pub(super) fn interfaces(process: &str) -> Vec<String> {
    let text = fs::read_to_string(Path::new("/proc").join(process).join("net/dev")).unwrap_or_default();
    text.lines().filter_map(|line| Some(line.split_once(':')?.0.trim().to_owned())).collect()
}

/// Inodes of sockets that processes of this machine hold.
fn held() -> BTreeSet<u64> {
    let mut found = BTreeSet::new();
    for process in fs::read_dir("/proc").unwrap().flatten() {
        for file in fs::read_dir(process.path().join("fd")).into_iter().flatten().flatten() {
            let Ok(target) = fs::read_link(file.path()) else { continue };
            let inode: Option<u64> = target
                .to_str()
                .and_then(|name| name.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok());
            found.extend(inode);
        }
    }
    found
}

/// Nothing listens on this machine that did not before and that no living process holds: others may come and go meanwhile.
pub(super) fn none_is_left(before: &Listeners) {
    // Who is not root sees only its own processes' files.
    if !fs::read_to_string("/proc/self/status").is_ok_and(|text| text.contains("\nUid:\t0\t0\t")) {
        return;
    }
    let mut left: BTreeSet<u64> =
        of("self").into_keys().filter(|inode| !before.contains_key(inode)).collect();
    for _ in 0..3 {
        let (held, now) = (held(), of("self"));
        left.retain(|inode| *inode != 0 && !held.contains(inode) && now.contains_key(inode));
    }
    let now = of("self");
    let left: Vec<&String> = left.iter().filter_map(|inode| now.get(inode)).collect();
    assert!(left.is_empty(), "somebody who is gone still listens: {left:?}");
}
