//! Numbers, times and keys as a person reads them.

use api::model::{EntryRole, Time};
use wire::Millis;

/// The first digits of a key.
pub(crate) fn short(key: &str) -> String {
    key.chars().take(8).collect()
}

/// The maker's counter, or what an automatic entry is.
pub(crate) fn version(role: EntryRole, version: u32) -> String {
    match role {
        EntryRole::Baseline => "base".to_owned(),
        EntryRole::Incumbent => "auto".to_owned(),
        EntryRole::Challenger => version.to_string(),
    }
}

/// A score; also a negative one.
pub(crate) fn score(value: Option<f64>) -> String {
    match value {
        None => "–".to_owned(),
        Some(value) if value.abs() >= 1e6 => format!("{value:.0}"),
        Some(value) => format!("{value:.5}"),
    }
}

/// Date and minute, UTC.
pub(crate) fn moment(time: Time) -> String {
    let text = time.to_string();
    text.get(..16).map_or(text.clone(), |head| head.replace('T', " "))
}

/// A span in its two largest units.
pub(crate) fn span(ms: u64) -> String {
    let s = ms / 1000;
    match s {
        0..60 => format!("{s} s"),
        60..3600 => format!("{} min {:02} s", s / 60, s % 60),
        3600..86_400 => format!("{} h {:02} min", s / 3600, s / 60 % 60),
        _ => format!("{} d {:02} h", s / 86_400, s / 3600 % 24),
    }
}

/// How long judging took.
pub(crate) fn took(seconds: f64) -> String {
    if seconds < 60.0 { format!("{seconds:.1} s") } else { span((seconds * 1000.0) as u64) }
}

/// Time until a moment, or since.
pub(crate) fn until(now: Millis, at: Time) -> String {
    if at.0 > now {
        format!("in {}", span(at.0.since(now).0))
    } else {
        format!("{} ago", span(now.since(at.0).0))
    }
}

/// Part of a span that has passed, 0 to 1.
pub(crate) fn part(now: Millis, start: Time, end: Time) -> f64 {
    let all = end.0.since(start.0).0.max(1) as f64;
    (now.since(start.0).0 as f64 / all).clamp(0.0, 1.0)
}

/// A bar of a number of cells.
pub(crate) fn bar(part: f64, cells: usize) -> String {
    let full = (part * cells as f64).round() as usize;
    "█".repeat(full.min(cells)) + &"░".repeat(cells - full.min(cells))
}

/// A number of a metric with its unit.
pub(crate) fn figure(value: f64, unit: &str) -> String {
    let number = if value == value.trunc() && value.abs() < 1e15 {
        format!("{value:.0}")
    } else {
        format!("{value:.6}")
    };
    if unit.is_empty() { number } else { format!("{number} {unit}") }
}

/// Text without control characters, which must not reach the terminal.
pub(crate) fn plain(text: &str) -> String {
    text.replace('\t', "    ").chars().filter(|c| !c.is_control()).collect()
}

/// A size.
pub(crate) fn bytes(len: u64) -> String {
    match len {
        0..10_000 => format!("{len} B"),
        10_000..1_000_000 => format!("{:.1} kB", len as f64 / 1e3),
        _ => format!("{:.1} MB", len as f64 / 1e6),
    }
}

/// Sign and word of a state: the sign never stands alone.
pub(crate) fn state(state: &str) -> String {
    let sign = match state {
        "active" | "open" | "scored" => "●",
        "pending" | "queued" | "evaluating" | "pooling" | "opening" | "drawing" => "◌",
        "completed" => "■",
        "stale" | "replaced" | "void" | "unopened" => "○",
        _ => "✗",
    };
    format!("{sign} {state}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_for_people() {
        assert_eq!(score(Some(-12.5)), "-12.50000");
        assert_eq!(score(None), "–");
        assert_eq!(span(90_000), "1 min 30 s");
        assert_eq!(span(90_000_000), "1 d 01 h");
        assert_eq!((took(0.44), took(61.0)), ("0.4 s".to_owned(), "1 min 01 s".to_owned()));
        assert_eq!(until(Millis(5000), Time(Millis(2000))), "3 s ago");
        assert_eq!(bar(0.5, 8), "████░░░░");
        assert_eq!(bar(2.0, 4), "████");
        assert_eq!(figure(0.25, "s"), "0.250000 s");
        assert_eq!(bytes(12_345), "12.3 kB");
    }
}
