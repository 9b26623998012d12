//! What a collection took and what it left, for people and for `--json`.

use std::{collections::BTreeMap, fmt};

use serde::Serialize;

/// Why a file of a scanned folder or pattern was left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SkipReason {
    /// It has zero bytes.
    Binary,
    /// It is text in another encoding.
    NotUtf8,
    /// Nothing but white space.
    Empty,
    /// Larger than a scan takes.
    TooLarge,
    /// The corpus was full.
    OverLimit,
    /// A lock file: hashes, not text.
    LockFile,
    /// A .jsonl or .parquet file without the text field, or a broken one.
    NoTextField,
    /// The operating system refused.
    Unreadable,
}

impl SkipReason {
    /// In words.
    pub fn words(self) -> &'static str {
        match self {
            Self::Binary => "binary",
            Self::NotUtf8 => "not UTF-8",
            Self::Empty => "empty",
            Self::TooLarge => "too large",
            Self::OverLimit => "over the limit of the corpus",
            Self::LockFile => "lock files",
            Self::NoTextField => "without a text field",
            Self::Unreadable => "unreadable",
        }
    }
}

/// Files left out for one reason.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Skipped {
    /// How many.
    pub files: u64,
    /// Their size in bytes.
    pub bytes: u64,
    /// The first one.
    pub example: String,
}

/// What was taken and what was skipped.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// Files taken.
    pub files: u64,
    /// Documents in them: one per text file, one per line of .jsonl and row of .parquet.
    pub documents: u64,
    /// Their text in bytes.
    pub bytes: u64,
    /// Files taken by extension ("" for none).
    pub extensions: BTreeMap<String, u64>,
    /// Files skipped by reason.
    pub skipped: BTreeMap<SkipReason, Skipped>,
}

/// Extensions that the summary names before it says "other".
const NAMED_EXTENSIONS: usize = 5;

impl Summary {
    pub(super) fn skip(&mut self, reason: SkipReason, bytes: u64, name: &str) {
        let skipped = self.skipped.entry(reason).or_default();
        if skipped.files == 0 {
            name.clone_into(&mut skipped.example);
        }
        skipped.files += 1;
        skipped.bytes += bytes;
    }

    pub(super) fn take(&mut self, extension: &str, documents: u64, bytes: u64) {
        self.files += 1;
        self.documents += documents;
        self.bytes += bytes;
        *self.extensions.entry(extension.to_owned()).or_default() += 1;
    }

    /// The skipped files in words, or "nothing was skipped".
    pub fn skipped_words(&self) -> String {
        if self.skipped.is_empty() {
            return "nothing was skipped".to_owned();
        }
        let reasons = self.skipped.iter().map(|(reason, skipped)| {
            format!("{} {} ({}{})", skipped.files, reason.words(), skipped.example, more(skipped.files))
        });
        format!("skipped {}", reasons.collect::<Vec<_>>().join(", "))
    }
}

fn more(files: u64) -> &'static str {
    if files > 1 { ", …" } else { "" }
}

/// Bytes with a unit that fits.
pub(super) fn size(bytes: u64) -> String {
    match bytes {
        0..10_000 => format!("{bytes} B"),
        10_000..1_000_000 => format!("{:.0} kB", bytes as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} MB", bytes as f64 / 1e6),
        _ => format!("{:.1} GB", bytes as f64 / 1e9),
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "took {} files with {} of text", self.files, size(self.bytes))?;
        if self.documents != self.files {
            write!(f, " in {} documents", self.documents)?;
        }
        let mut counts: Vec<_> = self.extensions.iter().collect();
        counts.sort_by_key(|&(extension, &files)| (std::cmp::Reverse(files), extension));
        let mut words: Vec<_> = counts
            .iter()
            .take(NAMED_EXTENSIONS)
            .map(|(extension, files)| match extension.as_str() {
                "" => format!("{files} without extension"),
                extension => format!("{files} .{extension}"),
            })
            .collect();
        let other: u64 = counts.iter().skip(NAMED_EXTENSIONS).map(|(_, files)| **files).sum();
        if other > 0 {
            words.push(format!("{other} other"));
        }
        write!(f, " ({}); {}", words.join(", "), self.skipped_words())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_what_was_taken_and_skipped() {
        let mut summary = Summary::default();
        for (extension, bytes) in [("rs", 900), ("rs", 1200), ("md", 70), ("", 3)] {
            summary.take(extension, 1, bytes);
        }
        assert_eq!(
            summary.to_string(),
            "took 4 files with 2173 B of text (2 .rs, 1 without extension, 1 .md); nothing was skipped"
        );
        summary.skip(SkipReason::Binary, 10, "a.png");
        summary.skip(SkipReason::Binary, 10, "b.png");
        summary.skip(SkipReason::Empty, 0, "e.txt");
        assert!(summary.to_string().ends_with("; skipped 2 binary (a.png, …), 1 empty (e.txt)"));
    }
}
