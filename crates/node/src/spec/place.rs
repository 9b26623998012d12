//! Errors of a spec that say where: key, value, what is allowed, line.

use model::config::ConfigError;
use serde::de::Unexpected;
use toml::Spanned;
use toml::de::{DeTable, DeValue};
use wire::RunId;

/// Why a text is not a run spec.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpecError {
    /// Not TOML.
    #[error("line {line}: {message}")]
    Syntax {
        /// Line from 1.
        line: usize,
        /// What is wrong.
        message: String,
    },
    /// A key that no section has.
    #[error("{}unknown key {key}{}; known here: {known}", line_prefix(*line), near.as_ref().map(|n| format!(" (did you mean {n}?)")).unwrap_or_default())]
    UnknownKey {
        /// Full key.
        key: String,
        /// The known key that looks most like it.
        near: Option<String>,
        /// All keys of its section.
        known: String,
        /// Line from 1, if it stands in a text.
        line: Option<usize>,
    },
    /// A value of the wrong type or with an unknown name.
    #[error("line {line}: {key} = {value} is not possible: {message}")]
    Type {
        /// Full key.
        key: String,
        /// The value as written.
        value: String,
        /// What was expected.
        message: String,
        /// Line from 1.
        line: usize,
    },
    /// A key that has no default is missing.
    #[error("{}{key} is missing", line_prefix(*line))]
    Missing {
        /// Full key.
        key: String,
        /// Line of its section, from 1.
        line: Option<usize>,
    },
    /// A value outside its range, or one that does not fit another.
    #[error("{}{key} = {value} is not possible: {allowed}", line_prefix(*line))]
    Value {
        /// Full key.
        key: String,
        /// The value.
        value: String,
        /// What is allowed.
        allowed: String,
        /// Line from 1, if it stands in a text.
        line: Option<usize>,
    },
    /// The spec lists no data, or too little.
    #[error(
        "data.{list} has {found} tokens, but a micro-batch needs {needed}: add data, or shrink batch.sequences or model.sequence"
    )]
    Data {
        /// Which list.
        list: &'static str,
        /// Tokens found.
        found: u64,
        /// Tokens needed.
        needed: u64,
    },
    /// The list of shards is impossible.
    #[error("[data] is not possible: {reason}")]
    Manifest {
        /// Why.
        reason: String,
    },
    /// Longer than any spec.
    #[error("the spec is {bytes} bytes long, at most {allowed} are allowed")]
    TooLong {
        /// Its length.
        bytes: usize,
        /// The limit.
        allowed: usize,
    },
    /// Canonical bytes that are no UTF-8.
    #[error("the spec is not UTF-8 text")]
    NotText,
    /// Canonical bytes of another run.
    #[error("the spec is that of run {}, not of run {}", found.short(), expected.short())]
    OtherRun {
        /// The run asked for.
        expected: RunId,
        /// The run that the bytes hash to.
        found: RunId,
    },
}

fn line_prefix(line: Option<usize>) -> String {
    line.map(|line| format!("line {line}: ")).unwrap_or_default()
}

impl From<ConfigError> for SpecError {
    fn from(error: ConfigError) -> Self {
        let ConfigError::Range { key, value, allowed } = error;
        Self::value(key, &value, allowed)
    }
}

impl SpecError {
    pub(super) fn value(key: impl Into<String>, value: &impl ToString, allowed: impl Into<String>) -> Self {
        Self::Value { key: key.into(), value: value.to_string(), allowed: allowed.into(), line: None }
    }

    pub(super) fn missing(key: impl Into<String>) -> Self {
        Self::Missing { key: key.into(), line: None }
    }

    /// A key that its section, the part before the last dot, does not have.
    pub(super) fn unknown(key: String, known: &[String]) -> Self {
        let name = key.rsplit('.').next().unwrap_or_default();
        let near = known.iter().find(|known| alike(known, name)).cloned();
        Self::UnknownKey { near, known: known.join(", "), line: None, key }
    }

    /// Without the line: for a spec that nobody wrote by hand.
    #[must_use]
    pub fn without_line(self) -> Self {
        match self {
            Self::Value { key, value, allowed, .. } => Self::Value { key, value, allowed, line: None },
            Self::Missing { key, .. } => Self::Missing { key, line: None },
            other => other,
        }
    }

    /// Adds the line at which the key, or else the section around it, stands in `text`.
    pub(super) fn at_line_of(self, text: &str) -> Self {
        let Ok(root) = DeTable::parse(text) else { return self };
        match self {
            Self::Value { key, value, allowed, line: None } => {
                let line = key_offset(root.get_ref(), &key).map(|offset| line_of(text, offset));
                Self::Value { key, value, allowed, line }
            }
            Self::UnknownKey { key, near, known, line: None } => {
                let line = key_offset(root.get_ref(), &key).map(|offset| line_of(text, offset));
                Self::UnknownKey { key, near, known, line }
            }
            Self::Missing { key, line: None } => {
                let line = key_offset(root.get_ref(), &key).map(|offset| line_of(text, offset));
                Self::Missing { key, line }
            }
            other => other,
        }
    }
}

/// Turns what the TOML reader says into an error that names key, value and line.
///
/// `check` says what is wrong with another text: where a whole number does not fit its type, it is asked about the
/// nearest that does.
pub(super) fn explain(
    text: &str,
    error: &toml::de::Error,
    check: impl Fn(&str) -> Option<SpecError>,
) -> SpecError {
    let message = error.message().trim();
    let mut span = error.span().unwrap_or(0..0);
    let syntax = || SpecError::Syntax { line: line_of(text, span.start), message: message.to_owned() };
    let Ok(root) = DeTable::parse(text) else { return syntax() };
    let Some((mut path, found)) = at(root.get_ref(), span.start) else { return syntax() };
    if let Some((unknown, mut known)) = unknown_field(message) {
        // The span is the key itself, or, inside a tagged table, the whole table.
        if path.last().is_some_and(|last| *last == unknown) {
            path.pop();
        } else if found.get_ref().as_table().is_some_and(|table| table.contains_key(TAG)) {
            known.insert(0, TAG.to_owned());
            let key = found.get_ref().as_table().and_then(|table| table.get_key_value(unknown.as_str()));
            span = key.map_or(span, |(name, _)| name.span());
        }
        path.push(unknown);
        return match SpecError::unknown(path.join("."), &known) {
            SpecError::UnknownKey { key, near, known, .. } => {
                SpecError::UnknownKey { key, near, known, line: Some(line_of(text, span.start)) }
            }
            other => other,
        };
    }
    if let Some(rest) = message.strip_prefix("missing field `") {
        path.push(rest.trim_end_matches('`').to_owned());
        return SpecError::Missing { key: path.join("."), line: Some(line_of(text, span.start)) };
    }
    // Inside a tagged table the value tells which key is meant.
    let table = found.get_ref().as_table().into_iter().flatten();
    if let Some((name, value)) = table.into_iter().find(|(_, value)| is_named(message, value.get_ref())) {
        path.push(name.get_ref().to_string());
        span = value.span();
    }
    let line = line_of(text, span.start);
    let key = path.join(".");
    let value = shown(text.get(span.clone()).unwrap_or_default());
    let Some((negative, most)) = out_of_type(message) else {
        return SpecError::Type { key, value, message: plain(message), line };
    };
    let mut nearest = [0, most];
    if !negative {
        nearest.reverse();
    }
    let said = nearest.into_iter().find_map(|number| {
        let (before, after) = (text.get(..span.start)?, text.get(span.end..)?);
        match check(&format!("{before}{number}{after}")) {
            Some(SpecError::Value { key: of, allowed, .. }) if key == of || is_item(&key, &of) => {
                Some(allowed)
            }
            _ => None,
        }
    });
    let allowed = said.unwrap_or_else(|| format!("must be from 0 to {most}"));
    SpecError::Value { key, value, allowed, line: Some(line) }
}

/// The key that tells which kind a table is of.
const TAG: &str = "kind";
/// Most characters of a value in an error.
const VALUE_CHARS: usize = 60;

/// The first line of a value, shortened.
fn shown(value: &str) -> String {
    let value = value.lines().next().unwrap_or_default().trim();
    if value.chars().count() > VALUE_CHARS {
        value.chars().take(VALUE_CHARS).chain(['…']).collect()
    } else {
        value.to_owned()
    }
}

/// Whether a key names an item of a list: `cuts[0]` of `cuts`.
fn is_item(key: &str, list: &str) -> bool {
    key.strip_prefix(list).is_some_and(|rest| rest.starts_with('['))
}

/// Whether a complaint of serde is about this value.
fn is_named(message: &str, value: &DeValue<'_>) -> bool {
    let unexpected = match value {
        DeValue::String(text) => {
            if message.starts_with(&format!("unknown variant `{text}`")) {
                return true;
            }
            Unexpected::Str(text)
        }
        DeValue::Integer(number) => match i64::from_str_radix(number.as_str(), number.radix()) {
            Ok(number) => Unexpected::Signed(number),
            Err(_) => return false,
        },
        DeValue::Float(number) => match number.as_str().parse() {
            Ok(number) => Unexpected::Float(number),
            Err(_) => return false,
        },
        DeValue::Boolean(value) => Unexpected::Bool(*value),
        DeValue::Array(_) => Unexpected::Seq,
        DeValue::Table(_) => Unexpected::Map,
        DeValue::Datetime(_) => return false,
    };
    complaint(message).is_some_and(|rest| rest.starts_with(&format!("{unexpected}, ")))
}

/// What serde says after "invalid type" or "invalid value".
fn complaint(message: &str) -> Option<&str> {
    message.strip_prefix("invalid type: ").or_else(|| message.strip_prefix("invalid value: "))
}

/// Whether a whole number is negative, and the largest of the type it does not fit, where that is the complaint.
fn out_of_type(message: &str) -> Option<(bool, u64)> {
    let (number, expected) = complaint(message)?.strip_prefix("integer `")?.split_once('`')?;
    let most = match expected.rsplit(' ').next()? {
        "u8" => u64::from(u8::MAX),
        "u16" => u64::from(u16::MAX),
        "u32" => u64::from(u32::MAX),
        // TOML's own limit.
        "u64" | "usize" => i64::MAX as u64,
        _ => return None,
    };
    Some((number.starts_with('-'), most))
}

/// A complaint of serde without names of Rust's types.
fn plain(message: &str) -> String {
    let Some((found, expected)) = message.rsplit_once("expected ") else { return message.to_owned() };
    let expected = match expected {
        "u8" | "u16" | "u32" | "u64" | "usize" => "a whole number",
        "f32" | "f64" => "a number",
        other => other,
    };
    format!("{found}expected {expected}")
}

fn unknown_field(message: &str) -> Option<(String, Vec<String>)> {
    let rest = message.strip_prefix("unknown field `")?;
    let mut quoted = rest.split('`').step_by(2);
    let unknown = quoted.next()?.to_owned();
    let known = quoted.map(str::to_owned).filter(|name| !name.trim().is_empty()).collect();
    Some((unknown, known))
}

/// Whether two names differ by at most two edits.
fn alike(a: &str, b: &str) -> bool {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()] <= 2
}

fn line_of(text: &str, offset: usize) -> usize {
    text.as_bytes()[..offset.min(text.len())].split(|byte| *byte == b'\n').count()
}

/// Where a dotted key stands; if it does not, where the nearest section around it does.
fn key_offset(root: &DeTable<'_>, key: &str) -> Option<usize> {
    let mut table = root;
    let mut offset = None;
    for part in key.split('.') {
        let Some((name, value)) = table.iter().find(|(name, _)| name.get_ref().as_ref() == part) else {
            break;
        };
        offset = Some(name.span().start);
        let Some(inner) = value.get_ref().as_table() else { break };
        table = inner;
    }
    offset
}

/// The value at an offset of the text, or whose key is there, and the keys that lead to it.
fn at<'a>(table: &'a DeTable<'a>, offset: usize) -> Option<(Vec<String>, &'a Spanned<DeValue<'a>>)> {
    table.iter().find_map(|(name, value)| {
        let key = name.get_ref().to_string();
        below(&key, value, offset).or_else(|| {
            let here = name.span().contains(&offset) || value.span().contains(&offset);
            here.then(|| (vec![key], value))
        })
    })
}

/// The same among what stands in the value of `key`.
fn below<'a>(
    key: &str,
    value: &'a Spanned<DeValue<'a>>,
    offset: usize,
) -> Option<(Vec<String>, &'a Spanned<DeValue<'a>>)> {
    match value.get_ref() {
        DeValue::Table(table) => {
            let (mut path, value) = at(table, offset)?;
            path.insert(0, key.to_owned());
            Some((path, value))
        }
        DeValue::Array(items) => items.iter().enumerate().find_map(|(index, item)| {
            let key = format!("{key}[{index}]");
            let here = || item.span().contains(&offset).then(|| (vec![key.clone()], item));
            below(&key, item, offset).or_else(here)
        }),
        _ => None,
    }
}
