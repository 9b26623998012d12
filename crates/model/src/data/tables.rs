//! Documents from .jsonl and .parquet files.

use std::{fs::File, path::Path};

use parquet::{
    basic::Type as PhysicalType,
    column::reader::ColumnReader,
    file::{
        metadata::ColumnChunkMetaData,
        reader::{FileReader, SerializedFileReader},
    },
};
use serde_json::Value;

use super::{DataError, read::read_error, summary::size};
use crate::guard::guarded;

/// Rows that are decoded at once.
const ROWS_AT_ONCE: usize = 1024;
/// Columns that an error names.
const NAMED_COLUMNS: usize = 20;

/// One document per line, from `field` of the object there; blank lines are passed over.
pub(super) fn json_lines(text: &str, name: &str, field: &str) -> Result<Vec<String>, DataError> {
    let mut documents = Vec::new();
    for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let bad = |reason: String| DataError::Line {
            path: name.to_owned(),
            line: number + 1,
            reason,
            field: field.to_owned(),
        };
        let value: Value = serde_json::from_str(line).map_err(|e| bad(format!("not JSON ({e})")))?;
        let Value::Object(mut object) = value else {
            return Err(bad("not an object".to_owned()));
        };
        match object.remove(field) {
            Some(Value::String(text)) => documents.push(text),
            Some(Value::Null) => {}
            Some(_) => return Err(bad(format!("\"{field}\" is not a text"))),
            None => {
                let names: Vec<_> = object.keys().take(NAMED_COLUMNS).map(String::as_str).collect();
                return Err(bad(format!("no \"{field}\", only {}", names.join(", "))));
            }
        }
    }
    Ok(documents)
}

/// One document per row, from the top-level column `column`; rows without a value are passed over.
///
/// The library asserts what it expects of a page, so a broken file can make it panic; that is an error here.
pub(super) fn parquet(path: &Path, name: &str, column: &str, room: u64) -> Result<Vec<String>, DataError> {
    guarded(|| rows(path, name, column, room)).unwrap_or_else(|| {
        Err(DataError::Parquet { path: name.to_owned(), reason: "a page of it is broken".to_owned() })
    })
}

fn rows(path: &Path, name: &str, column: &str, room: u64) -> Result<Vec<String>, DataError> {
    let broken = |error: parquet::errors::ParquetError| DataError::Parquet {
        path: name.to_owned(),
        reason: error.to_string(),
    };
    let file = File::open(path).map_err(|source| read_error(name, source))?;
    let file_bytes = file.metadata().map_err(|source| read_error(name, source))?.len();
    let reader = SerializedFileReader::new(file).map_err(broken)?;
    let columns = reader.metadata().file_metadata().schema_descr().columns();
    let Some(index) = columns.iter().position(|c| {
        c.path().parts() == [column]
            && c.physical_type() == PhysicalType::BYTE_ARRAY
            && c.max_rep_level() == 0
    }) else {
        let names: Vec<_> = columns.iter().take(NAMED_COLUMNS).map(|c| c.path().string()).collect();
        return Err(DataError::Column {
            path: name.to_owned(),
            column: column.to_owned(),
            found: names.join(", "),
        });
    };
    let mut documents = Vec::new();
    let mut bytes = 0;
    for group in 0..reader.num_row_groups() {
        if !inside(reader.metadata().row_group(group).column(index), file_bytes) {
            return Err(DataError::Parquet {
                path: name.to_owned(),
                reason: "its text column lies outside the file".to_owned(),
            });
        }
        let group = reader.get_row_group(group).map_err(broken)?;
        let ColumnReader::ByteArrayColumnReader(mut column) =
            group.get_column_reader(index).map_err(broken)?
        else {
            return Err(DataError::Parquet {
                path: name.to_owned(),
                reason: "its text column changes type".to_owned(),
            });
        };
        loop {
            let (mut levels, mut values) = (Vec::new(), Vec::new());
            let (rows, ..) =
                column.read_records(ROWS_AT_ONCE, Some(&mut levels), None, &mut values).map_err(broken)?;
            if rows == 0 {
                break;
            }
            for value in values {
                let text = std::str::from_utf8(value.data()).map_err(|error| DataError::NotUtf8 {
                    path: name.to_owned(),
                    offset: error.valid_up_to(),
                })?;
                bytes += text.len() as u64;
                if bytes > room {
                    return Err(too_much(name, room));
                }
                documents.push(text.to_owned());
            }
        }
    }
    Ok(documents)
}

/// Whether a column's bytes lie inside the file: the library asserts it where we can return an error.
fn inside(column: &ColumnChunkMetaData, file_bytes: u64) -> bool {
    let start = column.dictionary_page_offset().unwrap_or(column.data_page_offset());
    let (start, bytes) = (u64::try_from(start), u64::try_from(column.compressed_size()));
    let (Ok(start), Ok(bytes)) = (start, bytes) else { return false };
    column.num_values() >= 0 && start.checked_add(bytes).is_some_and(|end| end <= file_bytes)
}

pub(super) fn too_much(name: &str, room: u64) -> DataError {
    DataError::TooMuch {
        what: format!("the text of {name}"),
        limit: format!("{} that is left of the corpus", size(room)),
        next: "give --data fewer or smaller files".to_owned(),
    }
}
