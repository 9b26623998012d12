//! Errors of a spec that say where: key, value, what is allowed, line.

use model::config::ConfigError;
use toml::de::DeTable;
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
    #[error("line {line}: unknown key {key}{}; known here: {known}", near.as_ref().map(|n| format!(" (did you mean {n}?)")).unwrap_or_default())]
    UnknownKey {
        /// Full key.
        key: String,
        /// The known key that looks most like it.
        near: Option<String>,
        /// All keys of its section.
        known: String,
        /// Line from 1.
        line: usize,
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
        key: &'static str,
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
            Self::Missing { key, line: None } => {
                let line = key_offset(root.get_ref(), key).map(|offset| line_of(text, offset));
                Self::Missing { key, line }
            }
            other => other,
        }
    }
}

/// Turns what the TOML reader says into an error that names key, value and line.
pub(super) fn explain(text: &str, error: &toml::de::Error) -> SpecError {
    let message = error.message().trim().to_owned();
    let span = error.span().unwrap_or(0..0);
    let line = line_of(text, span.start);
    let Ok(root) = DeTable::parse(text) else { return SpecError::Syntax { line, message } };
    let path = path_at(root.get_ref(), span.start);
    if let Some((unknown, known)) = unknown_field(&message) {
        // The span is the key itself, or, inside a tagged table, the whole table.
        let mut section = path;
        if section.last().is_some_and(|last| *last == unknown) {
            section.pop();
        }
        let key = section.into_iter().chain([unknown.clone()]).collect::<Vec<_>>().join(".");
        let line = key_offset(root.get_ref(), &key).map_or(line, |offset| line_of(text, offset));
        let near = known.iter().find(|name| alike(name, &unknown)).cloned();
        return SpecError::UnknownKey { key, near, known: known.join(", "), line };
    }
    if path.is_empty() {
        return SpecError::Syntax { line, message };
    }
    let value = text.get(span).unwrap_or_default().lines().next().unwrap_or_default().trim();
    let value = if value.chars().count() > VALUE_CHARS {
        value.chars().take(VALUE_CHARS).chain(['…']).collect()
    } else {
        value.to_owned()
    };
    SpecError::Type { key: path.join("."), value, message, line }
}

/// Most characters of a value in an error.
const VALUE_CHARS: usize = 60;

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

/// Keys that lead to the value or key at an offset of the text.
fn path_at(root: &DeTable<'_>, offset: usize) -> Vec<String> {
    let mut path = Vec::new();
    let mut table = root;
    'down: loop {
        for (name, value) in table {
            let inner = value.get_ref().as_table();
            let here = name.span().contains(&offset) || value.span().contains(&offset);
            let below = inner.is_some_and(|inner| holds(inner, offset));
            if here || below {
                path.push(name.get_ref().to_string());
                if let Some(inner) = inner {
                    table = inner;
                    continue 'down;
                }
                return path;
            }
        }
        return path;
    }
}

fn holds(table: &DeTable<'_>, offset: usize) -> bool {
    table.iter().any(|(name, value)| {
        name.span().contains(&offset)
            || value.span().contains(&offset)
            || value.get_ref().as_table().is_some_and(|inner| holds(inner, offset))
    })
}
