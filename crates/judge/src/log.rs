//! The log of a verdict: what happened, call by call, within a bound. It is the blob that the verdict names.

use std::fmt::Write;

use arena::account::Account;

use crate::limits;

/// A bounded text.
#[derive(Clone, Debug, Default)]
pub(crate) struct RunLog {
    text: String,
    dropped: u64,
    /// What the verdict tells besides.
    pub(crate) account: Account,
}

impl RunLog {
    /// Adds a line of the judge's own.
    pub(crate) fn line(&mut self, line: &str) {
        if self.text.len() + line.len() + 1 > limits::LOG_BYTES_MAX {
            self.dropped += 1;
            return;
        }
        self.text.push_str(line);
        self.text.push('\n');
    }

    /// Adds what an entry wrote: cut to a length, without control characters, marked as the entry's.
    pub(crate) fn entry(&mut self, what: &str, written: &str) {
        for line in written.lines() {
            let shown = |c: char| if c.is_control() && c != '\t' { '\u{fffd}' } else { c };
            let cut: String = line.chars().take(limits::LOG_LINE_CHARS).map(shown).collect();
            self.line(&format!("{what}| {cut}"));
        }
    }

    /// The last lines: what the entry took, and where.
    pub(crate) fn closing(&mut self) {
        let Account { metrics, usage, machine, .. } = self.account.clone();
        for metric in &metrics {
            let value = metric.nano as f64 / 1e9;
            self.line(format!("metric {}: {value} {}", metric.name, metric.unit).trim_end());
        }
        let seconds = |ns: u64| ns as f64 / 1e9;
        self.line(&format!(
            "took: {:.3} s of processor time, {:.3} s by the clock, at most {} bytes of memory, {} processes, {} bytes on disk; fuel {}",
            seconds(usage.cpu_ns),
            seconds(usage.wall_ns),
            usage.memory_peak_bytes,
            usage.processes_peak,
            usage.disk_peak_bytes,
            usage.fuel
        ));
        self.line(&format!(
            "on: {}, {} cores, {} bytes of memory; {}",
            machine.cpu_model, machine.cores, machine.memory_bytes, machine.sandbox
        ));
    }

    /// The log as it is stored, and what is told besides.
    pub(crate) fn into_parts(mut self) -> (Vec<u8>, Account) {
        if self.dropped > 0 {
            _ = writeln!(self.text, "… and {} lines more", self.dropped);
        }
        (self.text.into_bytes(), self.account)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_entry_writes_is_bounded_and_harmless() {
        let mut log = RunLog::default();
        log.entry("stderr", "red \u{1b}[31m\nnext");
        for _ in 0..10_000 {
            log.entry("stderr", &"x".repeat(10_000));
        }
        let text = String::from_utf8(log.into_parts().0).unwrap();
        assert!(text.len() < limits::LOG_BYTES_MAX + 100);
        assert!(text.starts_with("stderr| red \u{fffd}[31m\nstderr| next\n"));
        assert!(text.lines().all(|line| line.chars().count() < limits::LOG_LINE_CHARS + 20));
        assert!(text.ends_with("lines more\n"));
    }
}
