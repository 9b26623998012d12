//! Whose fault a missed time limit is: the entry's, or that of a machine that was busy with something else.
//!
//! Limits in time by the clock are needed, since a program may sleep. But a clock also runs while others use the processors.
//! A limit counts against an entry unless the whole machine was busy, a good part of that was others' work, and the entry wanted
//! processors that it did not get; only then does the judge give it back. What the judge does for the entry, and what the
//! entry's own quota holds back, is the entry's to bring about: it is neither others' work nor waiting.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use wire::Hash;

use crate::coder::Clock;
use crate::limits;

/// Share of the promised processor time with which an entry has had it, and of the machine's with which it is full.
const HAD: f64 = 0.9;
/// Share of the time from which waiting, and of the machine from which others' work, explain a missed limit.
const FELT: f64 = 0.1;
/// Where the kernel does not tell who waited: share of the time that who only sleeps does not compute.
const AWAKE: f64 = 0.05;

/// How often entries were given back since the machine was busy.
#[derive(Debug, Default)]
pub(crate) struct GivenBack(BTreeMap<Hash, u32>);

impl GivenBack {
    /// Counts it if an entry may be given back once more.
    pub(crate) fn again(&mut self, entry: Hash) -> bool {
        if self.0.len() >= limits::GIVEN_BACK_KEPT && !self.0.contains_key(&entry) {
            self.0.clear();
        }
        let times = self.0.entry(entry).or_default();
        *times += 1;
        *times <= limits::BUSY_RETURNS
    }
}

/// What a jail and its machine did for a while.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Seen {
    /// Length of it.
    window: Duration,
    /// Processor time that there was: its length for each processor that the judge may use.
    there: Duration,
    /// Processor time of those that was not idle.
    busy: Duration,
    /// Processor time of the jail.
    own: Duration,
    /// Processor time of the judge on behalf of the jail: whoever sends byte by byte makes it work.
    judge: Duration,
    /// How long the jail's threads waited for a processor; `None` where the kernel does not tell.
    waited: Option<Duration>,
    /// How long the jail's own quota held it back.
    throttled: Duration,
}

impl Seen {
    /// Adds another while.
    pub(crate) fn add(&mut self, other: &Self) {
        self.window += other.window;
        self.there += other.there;
        self.busy += other.busy;
        self.own += other.own;
        self.judge += other.judge;
        self.throttled += other.throttled;
        self.waited = match (self.waited, other.waited) {
            (Some(ours), Some(theirs)) => Some(ours + theirs),
            (one, two) => one.or(two),
        };
    }

    /// Whether the machine, not the jail, explains a limit that was missed. `cpus` are the processors that the spec promises.
    pub(crate) fn starved(&self, cpus: f64) -> bool {
        let part = |of: Duration, all: Duration| of.as_secs_f64() / all.as_secs_f64().max(1e-9);
        let others = self.busy.saturating_sub(self.own).saturating_sub(self.judge);
        let had = part(self.own, self.window) >= HAD * cpus;
        let full = part(self.busy, self.there) >= HAD;
        let asked = match self.waited {
            Some(waited) => part(waited.saturating_sub(self.throttled), self.window) >= FELT,
            None => part(self.own, self.window) >= AWAKE,
        };
        !had && asked && full && part(others, self.there) >= FELT
    }
}

/// The beginning of such a while. It ends on the thread on which it began.
#[derive(Debug)]
pub(crate) struct Watch {
    began: Instant,
    own: Duration,
    judge: Clock,
    waited: Option<Duration>,
    throttled: Duration,
    machine: Busy,
}

impl Watch {
    pub(crate) fn start(jail: &sandbox::Jail) -> Self {
        let (own, waited, throttled) = (jail.usage().cpu, jail.waited(), jail.throttled());
        Self { began: Instant::now(), own, judge: Clock::start(), waited, throttled, machine: Busy::now() }
    }

    /// What happened since.
    pub(crate) fn seen(&self, jail: &sandbox::Jail) -> Seen {
        let window = self.began.elapsed();
        let machine = Busy::now();
        Seen {
            window,
            there: window * machine.processors,
            busy: machine.time.saturating_sub(self.machine.time),
            own: jail.usage().cpu.saturating_sub(self.own),
            judge: Duration::from_nanos(self.judge.elapsed_ns()),
            waited: jail.waited().map(|now| now.saturating_sub(self.waited.unwrap_or_default())),
            throttled: jail.throttled().saturating_sub(self.throttled),
        }
    }
}

/// The processors that this process may use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Busy {
    processors: u32,
    /// Their time since the machine started, all together, in which they were not idle.
    time: Duration,
}

impl Busy {
    /// Nothing where it cannot be read.
    fn now() -> Self {
        let read = |path| std::fs::read_to_string(path).unwrap_or_default();
        Self::of(&read("/proc/stat"), &read("/proc/self/status"))
    }

    /// From `/proc/stat`, of each processor user, nice, system, idle, iowait, irq, softirq, steal, in ticks of 10 ms, and from
    /// `/proc/self/status` the processors that may be used (proc(5)).
    fn of(stat: &str, status: &str) -> Self {
        let allowed = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
        let allowed: Vec<(u32, u32)> = allowed.unwrap_or_default().split(',').filter_map(range).collect();
        let mut found = Self::default();
        for line in stat.lines() {
            let mut words = line.split_whitespace();
            let name = words.next().and_then(|name| name.strip_prefix("cpu")?.parse::<u32>().ok());
            let Some(number) = name else { continue };
            if !allowed.is_empty() && !allowed.iter().any(|(from, to)| (*from..=*to).contains(&number)) {
                continue;
            }
            let ticks: Vec<u64> = words.take(8).filter_map(|word| word.parse().ok()).collect();
            let idle = |at: usize| matches!(at, 3 | 4);
            let busy: u64 =
                ticks.iter().enumerate().filter(|(at, _)| !idle(*at)).map(|(_, ticks)| *ticks).sum();
            found.processors += 1;
            found.time += Duration::from_millis(busy.saturating_mul(10));
        }
        found
    }
}

/// `3` or `0-3`.
fn range(text: &str) -> Option<(u32, u32)> {
    let text = text.trim();
    let (from, to) = text.split_once('-').unwrap_or((text, text));
    Some((from.parse().ok()?, to.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// A second on a machine of two processors.
    fn seen(own: u64, waited: Option<u64>, others: u64) -> Seen {
        Seen {
            window: ms(1000),
            there: ms(2000),
            busy: ms(own + others),
            own: ms(own),
            waited: waited.map(ms),
            ..Seen::default()
        }
    }

    #[test]
    fn only_who_wanted_a_processor_that_others_used_was_starved() {
        let four = |seen: Seen| Seen { there: ms(4000), ..seen };
        for (name, seen, cpus, starved) in [
            ("alone, computing", seen(990, Some(5), 20), 1.0, false),
            ("asleep on a busy machine", seen(2, Some(3), 1990), 1.0, false),
            ("computing on a busy machine", seen(300, Some(690), 1690), 1.0, true),
            ("has what is promised on a busy machine", seen(950, Some(400), 1000), 1.0, false),
            ("its own threads in each other's way", seen(500, Some(3000), 30), 1.0, false),
            ("the same where one other processor is busy", four(seen(500, Some(3000), 1000)), 1.0, false),
            ("one thread where four processors are promised", four(seen(300, Some(690), 3600)), 4.0, true),
            ("one of half a processor that is promised", seen(490, Some(500), 1500), 0.5, false),
            ("busy machine, kernel that does not tell, computing", seen(300, None, 1700), 1.0, true),
            ("busy machine, kernel that does not tell, asleep", seen(5, None, 1700), 1.0, false),
        ] {
            assert_eq!(seen.starved(cpus), starved, "{name}");
        }
        assert!(!Seen::default().starved(1.0));
    }

    #[test]
    fn an_entry_cannot_bring_it_about_by_itself() {
        let drips = Seen { judge: ms(980), ..seen(850, Some(850), 1000) };
        assert!(!drips.starved(1.0), "the judge's own reading is no other work");
        let quota = Seen { throttled: ms(650), ..seen(300, Some(690), 1690) };
        assert!(!quota.starved(1.0), "its own quota is no waiting");
        let fills = seen(1790, Some(2000), 20);
        assert!(!fills.starved(2.0), "a machine that is full of the entry is not busy with others");
    }

    #[test]
    fn an_entry_is_not_given_back_for_ever() {
        let mut all = GivenBack::default();
        let (one, two) = (Hash::of(b"one"), Hash::of(b"two"));
        let found: Vec<bool> = (0..4).map(|_| all.again(one)).collect();
        assert_eq!(found, [true, true, false, false]);
        assert!(all.again(two));
        for index in 0..limits::GIVEN_BACK_KEPT {
            all.again(Hash::of(&index.to_le_bytes()));
        }
        assert!(all.0.len() <= limits::GIVEN_BACK_KEPT);
    }

    #[test]
    fn whiles_add_up() {
        let mut all = seen(10, None, 5);
        all.add(&Seen { judge: ms(3), throttled: ms(4), ..seen(300, Some(600), 900) });
        all.add(&seen(200, Some(100), 100));
        let expected = Seen {
            window: ms(3000),
            there: ms(6000),
            busy: ms(1515),
            own: ms(510),
            judge: ms(3),
            waited: Some(ms(700)),
            throttled: ms(4),
        };
        assert_eq!(all, expected);
    }

    #[test]
    fn idle_and_waiting_for_disks_are_not_busy_and_others_processors_do_not_count() {
        let stat = "cpu  9 9 9 9\ncpu0 1 2 3 400 500 6 7 8 9 10\ncpu1 1 0 0 7\ncpu12 2 0 0\nintr 5\n";
        let of = |allowed: &str| Busy::of(stat, &format!("Name:\tx\nCpus_allowed_list:\t{allowed}\n"));
        assert_eq!(of("0"), Busy { processors: 1, time: ms(270) });
        assert_eq!(of("0-1,12"), Busy { processors: 3, time: ms(300) });
        assert_eq!(Busy::of(stat, ""), of("0-12"));
        assert_eq!(Busy::of("", ""), Busy::default());
        assert!(Busy::now().processors > 0 && Busy::now().time > Duration::ZERO);
    }
}
