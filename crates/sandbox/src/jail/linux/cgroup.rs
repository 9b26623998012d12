//! One cgroup per run: the only limits here that hold for a whole tree of processes.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::{JailLimits, Version};
use crate::limits;

const PREFIX: &str = "shoal-";
/// Period of the processor quota, microseconds.
const CPU_PERIOD_US: u64 = 100_000;

/// Where this process may make groups: one folder with version 2, one per controller with version 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Hierarchy {
    pub(super) version: Version,
    memory: PathBuf,
    pids: PathBuf,
    cpu_time: PathBuf,
    cpu_quota: Option<PathBuf>,
}

/// What the kernel counted.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counters {
    pub(super) cpu: Duration,
    pub(super) memory_peak_bytes: u64,
    pub(super) out_of_memory: u64,
    pub(super) forks_refused: u64,
    pub(super) processes_peak: u64,
}

impl Hierarchy {
    /// The first place where a group with memory and process limits can be made, or why there is none.
    pub(super) fn find() -> Result<Self, String> {
        let own =
            fs::read_to_string("/proc/self/cgroup").map_err(|error| format!("/proc/self/cgroup: {error}"))?;
        let mounts =
            fs::read_to_string("/proc/self/mounts").map_err(|error| format!("/proc/self/mounts: {error}"))?;
        let mut reasons = Vec::new();
        for candidate in candidates(&own, &mounts) {
            match candidate.try_out() {
                Ok(()) => {
                    candidate.sweep();
                    return Ok(candidate);
                }
                Err(reason) => reasons.push(reason),
            }
        }
        if reasons.is_empty() {
            reasons.push("no cgroup file system has memory, pids and cpu accounting".to_owned());
        }
        Err(reasons.join("; "))
    }

    pub(super) fn has_quota(&self) -> bool {
        self.cpu_quota.is_some()
    }

    fn try_out(&self) -> Result<(), String> {
        self.delegate();
        let group = self
            .create(&JailLimits::default())
            .map_err(|error| format!("{}: {error}", self.memory.display()))?;
        let counted =
            group.counters().map(drop).map_err(|error| format!("{}: {error}", self.memory.display()));
        group.remove();
        counted
    }

    /// Version 2 only gives a group's children the controllers that the group lists. Fails where it may not: the
    /// attempt to set a limit then says so.
    fn delegate(&self) {
        if self.version == Version::V2 {
            for controller in ["+memory", "+pids", "+cpu"] {
                drop(fs::write(self.memory.join("cgroup.subtree_control"), controller));
            }
        }
    }

    /// Removes groups of processes that are gone: a judge that was killed leaves empty ones.
    fn sweep(&self) {
        for folder in self.folders().into_values() {
            for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
                let name = entry.file_name();
                let pid = name
                    .to_str()
                    .and_then(|name| name.strip_prefix(PREFIX)?.split('-').next()?.parse::<u32>().ok());
                if pid.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
                    drop(fs::remove_dir(entry.path()));
                }
            }
        }
    }

    fn folders(&self) -> BTreeMap<&'static str, PathBuf> {
        let mut folders = BTreeMap::from([
            ("memory", self.memory.clone()),
            ("pids", self.pids.clone()),
            ("cpu time", self.cpu_time.clone()),
        ]);
        if let Some(folder) = &self.cpu_quota {
            folders.insert("cpu quota", folder.clone());
        }
        folders
    }

    pub(super) fn create(&self, of: &JailLimits) -> io::Result<Group> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let name = format!("{PREFIX}{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let at = |folder: &PathBuf| folder.join(&name);
        let group = Group {
            version: self.version,
            memory: at(&self.memory),
            pids: at(&self.pids),
            cpu_time: at(&self.cpu_time),
            cpu_quota: self.cpu_quota.as_ref().map(at),
        };
        let made = group.make().and_then(|()| group.limit(of));
        match made {
            Ok(()) => Ok(group),
            Err(error) => {
                group.remove();
                Err(error)
            }
        }
    }
}

/// Version 2 from the own group upwards, then version 1 likewise.
fn candidates(own: &str, mounts: &str) -> Vec<Hierarchy> {
    let mut found = Vec::new();
    let mounts: Vec<(&str, &str, &str)> = mounts
        .lines()
        .filter_map(|line| {
            let mut words = line.split(' ').skip(1);
            Some((words.next()?, words.next()?, words.next()?))
        })
        .collect();
    let groups: Vec<(&str, &str)> = own
        .lines()
        .filter_map(|line| {
            let mut words = line.splitn(3, ':').skip(1);
            Some((words.next()?, words.next()?))
        })
        .collect();
    let upwards = |mount: &str, path: &str| -> Vec<PathBuf> {
        let path = Path::new(path.trim_start_matches('/'));
        let inside = !path.components().any(|part| part.as_os_str() == "..");
        let from = if inside { path } else { Path::new("") };
        from.ancestors().map(|path| Path::new(mount).join(path)).filter(|path| path.is_dir()).collect()
    };
    let unified = mounts.iter().find(|mount| mount.1 == "cgroup2");
    if let (Some(mount), Some(group)) = (unified, groups.iter().find(|group| group.0.is_empty())) {
        for folder in upwards(mount.0, group.1) {
            let offered = fs::read_to_string(folder.join("cgroup.controllers")).unwrap_or_default();
            let offers = |name| offered.split_whitespace().any(|word| word == name);
            if offers("memory") && offers("pids") {
                found.push(Hierarchy {
                    version: Version::V2,
                    memory: folder.clone(),
                    pids: folder.clone(),
                    cpu_time: folder.clone(),
                    cpu_quota: offers("cpu").then_some(folder),
                });
            }
        }
    }
    let of = |controller: &str| -> Vec<PathBuf> {
        let mount =
            mounts.iter().find(|mount| mount.1 == "cgroup" && mount.2.split(',').any(|o| o == controller));
        let group = groups.iter().find(|group| group.0.split(',').any(|name| name == controller));
        match (mount, group) {
            (Some(mount), Some(group)) => upwards(mount.0, group.1),
            _ => Vec::new(),
        }
    };
    let (memory, pids, time, quota) = (of("memory"), of("pids"), of("cpuacct"), of("cpu"));
    let deepest = memory.len().max(pids.len()).max(time.len());
    // The own group first; where it cannot hold children, its parents.
    for depth in 0..deepest {
        let at = |folders: &[PathBuf]| folders.get(depth).or(folders.last()).cloned();
        if let (Some(memory), Some(pids), Some(cpu_time)) = (at(&memory), at(&pids), at(&time)) {
            let cpu_quota = at(&quota);
            found.push(Hierarchy { version: Version::V1, memory, pids, cpu_time, cpu_quota });
        }
    }
    found
}

/// The group of one run.
#[derive(Debug)]
pub(super) struct Group {
    version: Version,
    memory: PathBuf,
    pids: PathBuf,
    cpu_time: PathBuf,
    cpu_quota: Option<PathBuf>,
}

impl Group {
    fn folders(&self) -> Vec<&Path> {
        let mut folders = vec![self.memory.as_path(), &self.pids, &self.cpu_time];
        folders.extend(self.cpu_quota.as_deref());
        folders.sort_unstable();
        folders.dedup();
        folders
    }

    fn make(&self) -> io::Result<()> {
        self.folders().into_iter().try_for_each(fs::create_dir)
    }

    fn limit(&self, of: &JailLimits) -> io::Result<()> {
        let memory = (of.memory_bytes + limits::OWN_MEMORY_BYTES).to_string();
        fs::write(self.pids.join("pids.max"), (of.processes + limits::OWN_PROCESSES).to_string())?;
        let quota = of.cpus.map(|cpus| ((f64::from(cpus) * CPU_PERIOD_US as f64) as u64).max(1_000));
        match self.version {
            Version::V2 => {
                fs::write(self.memory.join("memory.max"), &memory)?;
                drop(fs::write(self.memory.join("memory.swap.max"), "0")); // absent without swap
                fs::write(self.memory.join("memory.oom.group"), "1")?;
                if let (Some(quota), Some(folder)) = (quota, &self.cpu_quota) {
                    fs::write(folder.join("cpu.max"), format!("{quota} {CPU_PERIOD_US}"))?;
                }
            }
            Version::V1 => {
                fs::write(self.memory.join("memory.limit_in_bytes"), &memory)?;
                drop(fs::write(self.memory.join("memory.memsw.limit_in_bytes"), &memory)); // absent without swap
                if let (Some(quota), Some(folder)) = (quota, &self.cpu_quota) {
                    fs::write(folder.join("cpu.cfs_period_us"), CPU_PERIOD_US.to_string())?;
                    fs::write(folder.join("cpu.cfs_quota_us"), quota.to_string())?;
                }
            }
        }
        Ok(())
    }

    /// Files into which a process writes `0` to enter.
    pub(super) fn doors(&self) -> io::Result<Vec<File>> {
        let door = |folder: &Path| OpenOptions::new().write(true).open(folder.join("cgroup.procs"));
        self.folders().into_iter().map(door).collect()
    }

    pub(super) fn counters(&self) -> io::Result<Counters> {
        let memory = |name: &str| fs::read_to_string(self.memory.join(name));
        let forks_refused = field(&fs::read_to_string(self.pids.join("pids.events"))?, "max");
        let number = |text: String| text.trim().parse().unwrap_or(0);
        // The peak is newer than the controller.
        let pids = |name: &str| fs::read_to_string(self.pids.join(name));
        let processes_peak = pids("pids.peak").or_else(|_| pids("pids.current")).map_or(0, number);
        Ok(match self.version {
            Version::V2 => Counters {
                cpu: Duration::from_micros(field(
                    &fs::read_to_string(self.cpu_time.join("cpu.stat"))?,
                    "usage_usec",
                )),
                // The peak is newer than the rest of version 2.
                memory_peak_bytes: memory("memory.peak").or_else(|_| memory("memory.current")).map(number)?,
                out_of_memory: field(&memory("memory.events")?, "oom_kill"),
                forks_refused,
                processes_peak,
            },
            Version::V1 => Counters {
                cpu: Duration::from_nanos(number(fs::read_to_string(self.cpu_time.join("cpuacct.usage"))?)),
                memory_peak_bytes: memory("memory.max_usage_in_bytes").map(number)?,
                out_of_memory: field(&memory("memory.oom_control")?, "oom_kill"),
                forks_refused,
                processes_peak,
            },
        })
    }

    fn processes(&self) -> Vec<i32> {
        let listed = fs::read_to_string(self.pids.join("cgroup.procs")).unwrap_or_default();
        listed.lines().filter_map(|line| line.parse().ok()).collect()
    }

    /// How long the threads inside have waited for a processor (second number of `/proc/PID/task/TID/schedstat`, in
    /// nanoseconds; Documentation/scheduler/sched-stats.rst). `None` where the kernel keeps none.
    pub(super) fn waited(&self) -> Option<Duration> {
        let mut total = None;
        for pid in self.processes() {
            for task in fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten() {
                let text = fs::read_to_string(task.path().join("schedstat")).unwrap_or_default();
                if let Some(waited) = text.split_whitespace().nth(1).and_then(|text| text.parse().ok()) {
                    total = Some(total.unwrap_or(Duration::ZERO) + Duration::from_nanos(waited));
                }
            }
        }
        total
    }

    /// How long the group's own processor quota held it back, over all processors (`cpu.stat`; cgroup-v2.rst and
    /// sched-bwc.rst of the kernel's documentation). Zero where there is none, or the kernel does not tell.
    pub(super) fn throttled(&self) -> Duration {
        let Some(folder) = &self.cpu_quota else { return Duration::ZERO };
        let stat = fs::read_to_string(folder.join("cpu.stat")).unwrap_or_default();
        match self.version {
            Version::V2 => Duration::from_micros(field(&stat, "throttled_usec")),
            Version::V1 => Duration::from_nanos(field(&stat, "throttled_time")),
        }
    }

    /// Kills whatever is inside and waits until nothing is. `false` if something does not die in time.
    pub(super) fn kill(&self) -> bool {
        let deadline = Instant::now() + limits::KILL;
        loop {
            // Version 2 kills atomically; elsewhere a fork between the list and the signal is met in the next round.
            drop(fs::write(self.pids.join("cgroup.kill"), "1"));
            let processes = self.processes();
            if processes.is_empty() {
                return true;
            }
            for pid in processes.into_iter().filter_map(rustix::process::Pid::from_raw) {
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
            if Instant::now() > deadline {
                return false;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Removes the group; it must be empty.
    pub(super) fn remove(&self) {
        let deadline = Instant::now() + limits::KILL;
        for folder in self.folders() {
            // The last process may still be on its way out after it left the list.
            while fs::remove_dir(folder).is_err_and(|error| error.raw_os_error() == Some(libc::EBUSY))
                && Instant::now() < deadline
            {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    }
}

/// The number behind a name, in lines of "name number".
fn field(text: &str, name: &str) -> u64 {
    text.lines()
        .filter_map(|line| line.split_once(' '))
        .find(|(key, _)| *key == name)
        .and_then(|(_, value)| value.trim().parse().ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_by_their_whole_name() {
        assert_eq!(field("oom 3\noom_kill 2\n", "oom_kill"), 2);
        assert_eq!(field("oom 3\n", "oom_kill"), 0);
    }

    /// Version 2 as files in a folder: what is written where, and how counters are read.
    #[test]
    fn version_2_is_one_folder() {
        let root = tempfile::tempdir().unwrap();
        let own = root.path().join("user.slice/app.scope");
        fs::create_dir_all(&own).unwrap();
        fs::write(root.path().join("user.slice/cgroup.controllers"), "cpuset cpu memory pids\n").unwrap();
        fs::write(own.join("cgroup.controllers"), "memory pids\n").unwrap();
        let mounts = format!("cgroup2 {} cgroup2 rw,nosuid 0 0\n", root.path().display());
        let found = candidates("0::/user.slice/app.scope\n", &mounts);
        assert_eq!(found.len(), 2);
        assert!(found.iter().all(|hierarchy| hierarchy.version == Version::V2));
        assert_eq!(
            (found[0].memory.as_path(), found[0].has_quota(), found[1].has_quota()),
            (own.as_path(), false, true)
        );

        let limits =
            JailLimits { cpus: Some(0.5), processes: 3, memory_bytes: 1 << 20, ..JailLimits::default() };
        let group = found[1].create(&limits).unwrap();
        let read = |name| fs::read_to_string(group.memory.join(name)).unwrap();
        assert_eq!(read("pids.max"), (3 + limits::OWN_PROCESSES).to_string());
        assert_eq!(read("memory.max"), ((1 << 20) + limits::OWN_MEMORY_BYTES).to_string());
        assert_eq!((read("memory.oom.group"), read("cpu.max")), ("1".to_owned(), "50000 100000".to_owned()));
        for (name, text) in [
            ("pids.events", "max 4\n"),
            ("memory.events", "low 0\nhigh 0\nmax 9\noom 2\noom_kill 2\noom_group_kill 1\n"),
            ("memory.peak", "12345\n"),
            ("cpu.stat", "usage_usec 2500\nuser_usec 2000\nsystem_usec 500\nthrottled_usec 700\n"),
            ("pids.current", "4\n"),
        ] {
            fs::write(group.memory.join(name), text).unwrap();
        }
        let counters = group.counters().unwrap();
        assert_eq!((counters.out_of_memory, counters.forks_refused), (2, 4));
        assert_eq!((counters.memory_peak_bytes, counters.cpu), (12345, Duration::from_micros(2500)));
        assert_eq!(counters.processes_peak, 4);
        assert_eq!(group.throttled(), Duration::from_micros(700));
        fs::write(group.pids.join("pids.peak"), "7\n").unwrap();
        assert_eq!(group.counters().unwrap().processes_peak, 7);
    }

    #[test]
    fn a_machine_without_controllers_offers_nothing() {
        assert!(candidates("0::/\n", "proc /proc proc rw 0 0\n").is_empty());
        assert!(candidates("", "cgroup /nowhere cgroup rw,memory 0 0\n").is_empty());
    }
}
