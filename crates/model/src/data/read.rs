//! One file to documents, by its extension.

use std::{fs, io::ErrorKind, path::Path};

use super::{DataError, summary::SkipReason, tables};

/// A zero byte among the first bytes of a file means that it is not text.
const SNIFF_BYTES: usize = 8 << 10;

/// How a file is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    Text,
    JsonLines,
    Parquet,
}

impl Format {
    pub(super) fn of(path: &Path) -> Self {
        let extension = path.extension().unwrap_or_default().to_ascii_lowercase();
        match extension.to_str() {
            Some("jsonl" | "ndjson") => Self::JsonLines,
            Some("parquet") => Self::Parquet,
            _ => Self::Text,
        }
    }
}

/// The documents of `path` with at most `room` bytes of text in all; none of them is blank.
///
/// `name` is what errors call the file; `field` names the text in .jsonl and .parquet files.
pub(super) fn documents(path: &Path, name: &str, field: &str, room: u64) -> Result<Vec<String>, DataError> {
    let documents = match Format::of(path) {
        Format::Text => vec![text(path, name)?],
        Format::JsonLines => tables::json_lines(&text(path, name)?, name, field)?,
        Format::Parquet => tables::parquet(path, name, field, room)?,
    };
    let documents: Vec<_> = documents.into_iter().filter(|text| !text.trim().is_empty()).collect();
    if documents.is_empty() {
        return Err(DataError::Empty { path: name.to_owned() });
    }
    Ok(documents)
}

fn text(path: &Path, name: &str) -> Result<String, DataError> {
    let bytes = fs::read(path).map_err(|source| read_error(name, source))?;
    let is_table = Format::of(path) != Format::Text;
    if let Some(offset) = bytes.iter().take(SNIFF_BYTES).position(|&byte| byte == 0)
        && !is_table
    {
        return Err(DataError::Binary { path: name.to_owned(), offset });
    }
    let mut text = String::from_utf8(bytes).map_err(|error| DataError::NotUtf8 {
        path: name.to_owned(),
        offset: error.utf8_error().valid_up_to(),
    })?;
    if text.starts_with('\u{feff}') {
        text.drain(..'\u{feff}'.len_utf8());
    }
    Ok(text)
}

pub(super) fn read_error(name: &str, source: std::io::Error) -> DataError {
    if source.kind() == ErrorKind::NotFound {
        DataError::NotFound { path: name.to_owned() }
    } else {
        DataError::Read { path: name.to_owned(), source }
    }
}

/// Why a scan skips a file for which [`documents`] gave this error.
pub(super) fn skip_reason(error: &DataError) -> SkipReason {
    match error {
        DataError::Binary { .. } => SkipReason::Binary,
        DataError::NotUtf8 { .. } => SkipReason::NotUtf8,
        DataError::Empty { .. } => SkipReason::Empty,
        DataError::Line { .. } | DataError::Column { .. } | DataError::Parquet { .. } => {
            SkipReason::NoTextField
        }
        DataError::TooMuch { .. } => SkipReason::OverLimit,
        _ => SkipReason::Unreadable,
    }
}
