//! What judges tell of a run besides what they found: shown under a judge's name, agreed on by nobody.

use std::fmt::Write;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What an entry took at one judge, over all inputs; 0 where its sandbox cannot tell.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct UsageView {
    /// Processor time, seconds.
    pub cpu_s: f64,
    /// Time by the clock, seconds: of a component's calls, or of the longer of a program's two jails.
    pub wall_s: f64,
    /// Most memory of one call, or of one jail, bytes.
    pub memory_peak_bytes: u64,
    /// Most processes and threads of one jail, its own few included; programs only.
    pub processes_peak: u32,
    /// Most bytes on a jail's disk; programs only.
    pub disk_peak_bytes: u64,
    /// Fuel; components only.
    pub fuel: u64,
}

impl UsageView {
    /// In one line, for people.
    pub fn words(&self) -> String {
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        let mut text = format!(
            "{:.2} s of processor time, {:.2} s by the clock, {:.1} MiB of memory",
            self.cpu_s,
            self.wall_s,
            mib(self.memory_peak_bytes)
        );
        if self.fuel > 0 {
            _ = write!(text, ", {:.3} G fuel", self.fuel as f64 / 1e9);
        }
        if self.processes_peak > 0 {
            let disk = mib(self.disk_peak_bytes);
            _ = write!(text, ", {} processes, {disk:.1} MiB on disk", self.processes_peak);
        }
        text
    }
}

/// A judge's machine, as the judge says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MachineView {
    /// Model of its processor.
    pub cpu_model: String,
    /// Processors that the judge may use.
    pub cores: u32,
    /// Memory, bytes.
    pub memory_bytes: u64,
    /// What holds entries there.
    pub sandbox: String,
}

impl MachineView {
    /// In one line, for people; empty if nothing is known.
    pub fn words(&self) -> String {
        if self.cores == 0 {
            return String::new();
        }
        let gib = self.memory_bytes as f64 / f64::from(1 << 30);
        format!("{} × {}, {gib:.1} GiB; {}", self.cores, self.cpu_model, self.sandbox)
    }
}

impl From<&arena::account::Usage> for UsageView {
    fn from(usage: &arena::account::Usage) -> Self {
        Self {
            cpu_s: usage.cpu_ns as f64 / 1e9,
            wall_s: usage.wall_ns as f64 / 1e9,
            memory_peak_bytes: usage.memory_peak_bytes,
            processes_peak: usage.processes_peak,
            disk_peak_bytes: usage.disk_peak_bytes,
            fuel: usage.fuel,
        }
    }
}

impl From<&arena::account::Machine> for MachineView {
    fn from(machine: &arena::account::Machine) -> Self {
        let arena::account::Machine { cpu_model, cores, memory_bytes, sandbox } = machine.clone();
        Self { cpu_model, cores, memory_bytes, sandbox }
    }
}
