//! What a judge tells beside what it found: why an entry was not admitted, what the evaluator measured besides the objective,
//! what the run took, and on which machine.
//!
//! It stands in the verdict under the judge's name and is shown. It is never compared: two judges agree or not by
//! [`crate::measure::Outcome`] alone, and no rule reads it.

use serde::{Deserialize, Serialize};

use crate::limits;

/// A judge's account of one run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// Why screening rejected the entry, with file and line where there are any; empty if it did not.
    pub reason: String,
    /// What the evaluator measured besides the objective, in its order.
    pub metrics: Vec<Metric>,
    /// What the entry took.
    pub usage: Usage,
    /// Where it ran.
    pub machine: Machine,
}

/// A named number of the competition's evaluator: the mean over the inputs for which it gave one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Metric {
    /// Name: small letters, digits and `_`, a letter first.
    pub name: String,
    /// Unit without blanks; empty for plain numbers.
    pub unit: String,
    /// Value, 10⁻⁹ units.
    pub nano: i64,
}

/// What judges of codecs tell of each direction in which tensors cross, where gradients are among the inputs: name and label.
/// More is better of each.
pub const CODEC_METRICS: [(&str, &str); 4] = [
    ("ratio_forward", "Compression ratio, activations"),
    ("similarity_forward", "Similarity, activations"),
    ("ratio_backward", "Compression ratio, gradients"),
    ("similarity_backward", "Similarity, gradients"),
];

/// What an entry took over all inputs, as far as its sandbox can tell; 0 where it cannot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Processor time, nanoseconds.
    pub cpu_ns: u64,
    /// Time by the clock, nanoseconds: of a component the time of its calls, of a program the life of its longer jail.
    pub wall_ns: u64,
    /// Most memory of one call, or of one jail, bytes.
    pub memory_peak_bytes: u64,
    /// Most processes and threads of one jail, its own few included; programs only.
    pub processes_peak: u32,
    /// Most bytes that lay on a jail's disk; programs only.
    pub disk_peak_bytes: u64,
    /// Fuel; components only.
    pub fuel: u64,
}

impl Usage {
    /// Adds what another part of the run took: times and fuel add up, peaks are the larger ones.
    pub fn add(&mut self, other: &Self) {
        self.cpu_ns = self.cpu_ns.saturating_add(other.cpu_ns);
        self.wall_ns = self.wall_ns.max(other.wall_ns);
        self.memory_peak_bytes = self.memory_peak_bytes.max(other.memory_peak_bytes);
        self.processes_peak = self.processes_peak.max(other.processes_peak);
        self.disk_peak_bytes = self.disk_peak_bytes.max(other.disk_peak_bytes);
        self.fuel = self.fuel.saturating_add(other.fuel);
    }
}

/// A judge's machine, as it says itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// Model of its processor.
    pub cpu_model: String,
    /// Processors that the judge may use.
    pub cores: u32,
    /// Memory of the machine, bytes.
    pub memory_bytes: u64,
    /// What holds entries there: version and settings of the runtime, or of the jail.
    pub sandbox: String,
}

impl Account {
    /// Checks every text and number against its bounds; names the one that is wrong.
    pub fn check(&self) -> Result<(), &'static str> {
        let Self { reason, metrics, usage, machine } = self;
        let texts = [
            (reason, limits::REASON_BYTES, "reason"),
            (&machine.cpu_model, limits::NAME_BYTES, "cpu_model"),
            (&machine.sandbox, limits::NAME_BYTES, "sandbox"),
        ];
        for (text, most, what) in texts {
            if text.len() > most || text.chars().any(char::is_control) {
                return Err(what);
            }
        }
        let numbers = [
            (usage.cpu_ns, limits::RUN_TIME_NS_MAX, "cpu_ns"),
            (usage.wall_ns, limits::RUN_TIME_NS_MAX, "wall_ns"),
            (usage.memory_peak_bytes, limits::MACHINE_BYTES_MAX, "memory_peak_bytes"),
            (usage.disk_peak_bytes, limits::MACHINE_BYTES_MAX, "disk_peak_bytes"),
            (u64::from(usage.processes_peak), limits::MACHINE_PROCESSES_MAX, "processes_peak"),
            (usage.fuel, limits::RUN_FUEL_MAX, "fuel"),
            (machine.memory_bytes, limits::MACHINE_BYTES_MAX, "memory_bytes"),
            (u64::from(machine.cores), limits::MACHINE_PROCESSES_MAX, "cores"),
        ];
        if let Some((_, _, what)) = numbers.iter().find(|(number, most, _)| number > most) {
            return Err(what);
        }
        if metrics.len() > limits::METRICS_MAX {
            return Err("number of metrics");
        }
        for (index, metric) in metrics.iter().enumerate() {
            metric.check()?;
            if metrics[..index].iter().any(|other| other.name == metric.name) {
                return Err("a metric that comes twice");
            }
        }
        Ok(())
    }
}

impl Metric {
    /// Whether a metric may be called that.
    pub fn is_name(text: &str) -> bool {
        let good = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
        let first = text.bytes().next().is_some_and(|byte| byte.is_ascii_lowercase());
        first && text.len() <= limits::METRIC_NAME_BYTES && text.bytes().all(good)
    }

    /// Checks name, unit and value; names the one that is wrong.
    pub fn check(&self) -> Result<(), &'static str> {
        let Self { name, unit, nano } = self;
        if !Self::is_name(name) {
            return Err("name of a metric");
        }
        let odd = |c: char| c.is_whitespace() || c.is_control();
        if unit.len() > limits::METRIC_UNIT_BYTES || unit.chars().any(odd) {
            return Err("unit of a metric");
        }
        let bound = limits::OBJECTIVE_NANO_MAX;
        if (-bound..=bound).contains(nano) { Ok(()) } else { Err("value of a metric") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metric(name: &str, unit: &str, nano: i64) -> Metric {
        Metric { name: name.to_owned(), unit: unit.to_owned(), nano }
    }

    #[test]
    fn texts_and_numbers_have_bounds() {
        let good = Account {
            reason: "solution.py:3: imports ctypes".to_owned(),
            metrics: vec![metric("latency_p99", "ms", -3), metric("hits", "", 0)],
            ..Account::default()
        };
        assert_eq!((good.check(), Account::default().check()), (Ok(()), Ok(())));
        type Change = (fn(&mut Account), &'static str);
        let changes: [Change; 15] = [
            (|a| a.reason = "x".repeat(limits::REASON_BYTES + 1), "reason"),
            (|a| a.reason = "red \u{1b}[31m".to_owned(), "reason"),
            (|a| a.machine.cpu_model = "x".repeat(limits::NAME_BYTES + 1), "cpu_model"),
            (|a| a.machine.sandbox = "two\nlines".to_owned(), "sandbox"),
            (|a| a.machine.cores = u32::MAX, "cores"),
            (|a| a.machine.memory_bytes = u64::MAX, "memory_bytes"),
            (|a| a.usage.fuel = u64::MAX, "fuel"),
            (|a| a.usage.wall_ns = limits::RUN_TIME_NS_MAX + 1, "wall_ns"),
            (|a| a.metrics[0].name = String::new(), "name of a metric"),
            (|a| a.metrics[0].name = "_x".to_owned(), "name of a metric"),
            (|a| a.metrics[0].name = "x".repeat(limits::METRIC_NAME_BYTES + 1), "name of a metric"),
            (|a| a.metrics[0].unit = "m s".to_owned(), "unit of a metric"),
            (|a| a.metrics[0].nano = i64::MIN, "value of a metric"),
            (|a| a.metrics[1].name = "latency_p99".to_owned(), "a metric that comes twice"),
            (
                |a| a.metrics = (0..=limits::METRICS_MAX).map(|i| metric(&format!("m{i}"), "", 0)).collect(),
                "number of metrics",
            ),
        ];
        for (change, what) in changes {
            let mut bad = good.clone();
            change(&mut bad);
            assert_eq!(bad.check(), Err(what));
        }
    }

    #[test]
    fn times_add_up_and_peaks_are_the_larger_ones() {
        let one = Usage { cpu_ns: 3, wall_ns: 9, memory_peak_bytes: 7, fuel: 1, ..Usage::default() };
        let mut both = Usage { cpu_ns: 4, wall_ns: 2, processes_peak: 5, fuel: u64::MAX, ..Usage::default() };
        both.add(&one);
        let expected = Usage {
            cpu_ns: 7,
            wall_ns: 9,
            memory_peak_bytes: 7,
            processes_peak: 5,
            disk_peak_bytes: 0,
            fuel: u64::MAX,
        };
        assert_eq!(both, expected);
    }
}
