//! The log of a verdict: what happened, call by call, within a bound. It is the blob that the verdict names.

use std::fmt::Write;

use crate::limits;

/// A bounded text.
#[derive(Clone, Debug, Default)]
pub(crate) struct RunLog {
    text: String,
    dropped: u64,
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

    /// The log as it is stored.
    pub(crate) fn into_bytes(mut self) -> Vec<u8> {
        if self.dropped > 0 {
            _ = writeln!(self.text, "… and {} lines more", self.dropped);
        }
        self.text.into_bytes()
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
        let text = String::from_utf8(log.into_bytes()).unwrap();
        assert!(text.len() < limits::LOG_BYTES_MAX + 100);
        assert!(text.starts_with("stderr| red \u{fffd}[31m\nstderr| next\n"));
        assert!(text.lines().all(|line| line.chars().count() < limits::LOG_LINE_CHARS + 20));
        assert!(text.ends_with("lines more\n"));
    }
}
