//! What memory this machine has for a process and its children, as the kernel tells it; elsewhere than on Linux nothing is known.

use std::path::{Path, PathBuf};

/// Memory, bytes; none where the system does not tell, or sets no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// What can be had without swapping (`MemAvailable`, proc(5)).
    pub free: Option<u64>,
    /// The least limit of the control groups around this process.
    pub limit: Option<u64>,
    /// The least that such a limit leaves. What the kernel can drop at once, files that were read, does not count as used.
    pub left: Option<u64>,
}

/// Where control groups are found (cgroups(7)), and how their files are called.
struct Hierarchy {
    mount: &'static str,
    limit: &'static str,
    usage: &'static str,
    /// Lines of `memory.stat` with what can be dropped.
    files: [&'static str; 2],
}

const V1: Hierarchy = Hierarchy {
    mount: "/sys/fs/cgroup/memory",
    limit: "memory.limit_in_bytes",
    usage: "memory.usage_in_bytes",
    files: ["total_inactive_file", "total_active_file"],
};
const V2: Hierarchy = Hierarchy {
    mount: "/sys/fs/cgroup",
    limit: "memory.max",
    usage: "memory.current",
    files: ["inactive_file", "active_file"],
};

/// Version 1 writes "no limit" as a number beyond any memory.
const LIMIT_MAX: u64 = 1 << 60;

impl Memory {
    /// As it is now.
    pub fn now() -> Self {
        Self::read(|path| std::fs::read_to_string(path).ok())
    }

    /// From the texts of the system's files; `text` gives none for one that is not there.
    pub fn read(text: impl Fn(&Path) -> Option<String>) -> Self {
        let free = text(Path::new("/proc/meminfo")).and_then(|told| line(&told, "MemAvailable:"));
        let own = text(Path::new("/proc/self/cgroup")).unwrap_or_default();
        let (mut limit, mut left) = (None, None);
        for (hierarchy, folder) in groups(&own) {
            let file = |name: &str| text(&folder.join(name));
            // "max" is no number, and no limit.
            let most: Option<u64> = file(hierarchy.limit).and_then(|told| told.trim().parse().ok());
            let Some(most) = most.filter(|most| *most < LIMIT_MAX) else { continue };
            let usage = file(hierarchy.usage).and_then(|told| told.trim().parse().ok()).unwrap_or(0_u64);
            let stat = file("memory.stat").unwrap_or_default();
            let files: u64 = hierarchy.files.iter().filter_map(|name| line(&stat, name)).sum();
            let rest = most.saturating_sub(usage.saturating_sub(files));
            limit = limit.into_iter().chain([most]).min();
            left = left.into_iter().chain([rest]).min();
        }
        Self { free: free.map(|kib| kib.saturating_mul(1024)), limit, left }
    }

    /// What this process and its children can still get.
    pub fn available(&self) -> Option<u64> {
        self.free.into_iter().chain(self.left).min()
    }
}

/// The number behind a name at the start of a line.
fn line(text: &str, name: &str) -> Option<u64> {
    let mut lines = text.lines().map(str::split_whitespace);
    lines.find_map(|mut words| (words.next()? == name).then(|| words.next()?.parse().ok())?)
}

/// The groups that hold this process and bound its memory: its own, and every one around it. In a container the path may
/// be one of the world outside; then only the mounted root is found.
fn groups(own: &str) -> Vec<(Hierarchy, PathBuf)> {
    let mut found = Vec::new();
    for entry in own.lines() {
        let mut parts = entry.splitn(3, ':');
        let (Some(number), Some(controllers), Some(path)) = (parts.next(), parts.next(), parts.next()) else {
            continue;
        };
        let version = || match (number, controllers) {
            ("0", "") => Some(V2),
            (_, some) if some.split(',').any(|one| one == "memory") => Some(V1),
            _ => None,
        };
        for path in Path::new(path.trim_start_matches('/')).ancestors() {
            let Some(hierarchy) = version() else { break };
            let folder = Path::new(hierarchy.mount).join(path);
            found.push((hierarchy, folder));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;
    const MEMINFO: &str =
        "MemTotal:       16000000 kB\nMemFree:         1000000 kB\nMemAvailable:    8388608 kB\n";

    fn of(files: &[(&str, &str)]) -> Memory {
        Memory::read(|path| {
            let text = files.iter().find(|(name, _)| Path::new(name) == path)?.1;
            Some(text.to_owned())
        })
    }

    #[test]
    fn without_groups_what_is_free_counts() {
        let memory = of(&[("/proc/meminfo", MEMINFO), ("/proc/self/cgroup", "0::/user.slice\n")]);
        assert_eq!(memory, Memory { free: Some(8 * GIB), limit: None, left: None });
        assert_eq!(memory.available(), Some(8 * GIB));
        let memory = of(&[
            ("/proc/self/cgroup", "0::/user.slice\n"),
            ("/sys/fs/cgroup/user.slice/memory.max", "max\n"),
        ]);
        assert_eq!((memory, memory.available()), (Memory::default(), None));
    }

    #[test]
    fn the_tightest_group_around_a_process_counts_and_files_can_be_dropped() {
        let memory = of(&[
            ("/proc/meminfo", MEMINFO),
            ("/proc/self/cgroup", "0::/a.slice/b.scope\n"),
            ("/sys/fs/cgroup/a.slice/b.scope/memory.max", "max"),
            ("/sys/fs/cgroup/a.slice/memory.max", "4294967296\n"),
            ("/sys/fs/cgroup/a.slice/memory.current", "3221225472\n"),
            (
                "/sys/fs/cgroup/a.slice/memory.stat",
                "anon 1073741824\ninactive_file 1073741824\nactive_file 1073741824\n",
            ),
        ]);
        assert_eq!((memory.limit, memory.left), (Some(4 * GIB), Some(3 * GIB)));
        assert_eq!(memory.available(), Some(3 * GIB));
    }

    #[test]
    fn version_1_has_other_names_and_a_container_sees_its_own_root() {
        let own = "9:name=systemd:/\n4:cpu,memory:/docker/0123\n0::/\n";
        let root = "/sys/fs/cgroup/memory/memory.limit_in_bytes";
        let memory =
            of(&[("/proc/meminfo", MEMINFO), ("/proc/self/cgroup", own), (root, "9223372036854771712\n")]);
        assert_eq!((memory.limit, memory.available()), (None, Some(8 * GIB)));
        let memory = of(&[
            ("/proc/meminfo", MEMINFO),
            ("/proc/self/cgroup", own),
            (root, "2147483648\n"),
            ("/sys/fs/cgroup/memory/memory.usage_in_bytes", "2147483648\n"),
            ("/sys/fs/cgroup/memory/memory.stat", "inactive_file 7\ntotal_inactive_file 1073741824\n"),
        ]);
        assert_eq!((memory.limit, memory.available()), (Some(2 * GIB), Some(GIB)));
    }

    #[test]
    fn nonsense_is_nothing() {
        let memory = of(&[
            ("/proc/meminfo", "MemAvailable: lots\nMemAvailable:\n"),
            ("/proc/self/cgroup", "\n::\n0::\n1:memory\n0::/x\n"),
            ("/sys/fs/cgroup/memory.max", "-1"),
        ]);
        assert_eq!(memory, Memory::default());
    }
}
