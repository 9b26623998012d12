//! Reads TOML key by key, so that every fault names its key, its value and what is allowed.

use std::ops::RangeInclusive;
use std::str::FromStr;

use toml::{Table, Value};

use crate::limits;

/// Why a text is not a spec.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SpecError {
    /// Not TOML.
    #[error("not TOML: {message}")]
    Syntax {
        /// What the reader of TOML said, with the place.
        message: String,
    },
    /// A key that no section has.
    #[error("unknown key {key} = {value}; known here: {known}")]
    UnknownKey {
        /// Full key.
        key: String,
        /// Its value.
        value: String,
        /// All keys of its section.
        known: String,
    },
    /// A key that has no default is missing.
    #[error("{key} is missing: expected {allowed}")]
    Missing {
        /// Full key.
        key: String,
        /// What it may hold.
        allowed: String,
    },
    /// A value that no spec can have.
    #[error("{key} = {value} is not possible: expected {allowed}")]
    Value {
        /// Full key.
        key: String,
        /// The value.
        value: String,
        /// What is allowed.
        allowed: String,
    },
    /// Longer than any spec.
    #[error("the spec is {bytes} bytes long, at most {allowed} are allowed")]
    TooLong {
        /// Its length.
        bytes: usize,
        /// The limit.
        allowed: usize,
    },
}

impl SpecError {
    pub(super) fn value(key: impl Into<String>, value: &impl ToString, allowed: impl Into<String>) -> Self {
        Self::Value { key: key.into(), value: shorten(&value.to_string()), allowed: allowed.into() }
    }
}

/// Most characters of a value in an error.
const VALUE_CHARS: usize = 60;

fn shorten(value: &str) -> String {
    let line = value.lines().next().unwrap_or_default();
    if line.chars().count() <= VALUE_CHARS && line.len() == value.len() {
        return line.to_owned();
    }
    line.chars().take(VALUE_CHARS).chain(['…']).collect()
}

/// One section of a spec that is being read.
#[derive(Debug)]
pub(super) struct Reader {
    /// Full key of the section with a dot behind it, or nothing.
    prefix: String,
    table: Table,
    known: Vec<String>,
}

impl Reader {
    pub(super) fn parse(text: &str) -> Result<Self, SpecError> {
        if text.len() > limits::SPEC_BYTES_MAX {
            return Err(SpecError::TooLong { bytes: text.len(), allowed: limits::SPEC_BYTES_MAX });
        }
        let table =
            text.parse::<Table>().map_err(|error| SpecError::Syntax { message: error.to_string() })?;
        Ok(Self { prefix: String::new(), table, known: Vec::new() })
    }

    /// Every key was asked for, or one is unknown.
    pub(super) fn finish(self) -> Result<(), SpecError> {
        match self.table.iter().next() {
            None => Ok(()),
            Some((key, value)) => Err(SpecError::UnknownKey {
                key: format!("{}{key}", self.prefix),
                value: shorten(&value.to_string()),
                known: self.known.join(", "),
            }),
        }
    }

    pub(super) fn section<T>(
        &mut self,
        key: &str,
        read: impl FnOnce(&mut Reader) -> Result<T, SpecError>,
    ) -> Result<T, SpecError> {
        let table = match self.take(key) {
            None => Table::new(),
            Some(Value::Table(table)) => table,
            Some(other) => return Err(self.wrong(key, &other, "a section")),
        };
        let mut inner = Self { prefix: format!("{}{key}.", self.prefix), table, known: Vec::new() };
        let value = read(&mut inner)?;
        inner.finish()?;
        Ok(value)
    }

    /// A list of sections.
    pub(super) fn sections<T>(
        &mut self,
        key: &str,
        len_max: usize,
        read: impl Fn(&mut Reader) -> Result<T, SpecError>,
    ) -> Result<Vec<T>, SpecError> {
        let allowed = format!("at most {len_max} sections, each under [[{}{key}]]", self.prefix);
        let tables = match self.take(key) {
            None => Vec::new(),
            Some(Value::Array(list)) if list.len() <= len_max => list,
            Some(other) => return Err(self.wrong(key, &other, allowed)),
        };
        let one = |(index, value): (usize, Value)| {
            let Value::Table(table) = value else { return Err(self.wrong(key, &value, allowed.clone())) };
            let mut inner =
                Self { prefix: format!("{}{key}[{index}].", self.prefix), table, known: Vec::new() };
            let found = read(&mut inner)?;
            inner.finish()?;
            Ok(found)
        };
        tables.into_iter().enumerate().map(one).collect()
    }

    fn take(&mut self, key: &str) -> Option<Value> {
        self.known.push(key.to_owned());
        self.table.remove(key)
    }

    fn wrong(&self, key: &str, value: &Value, allowed: impl Into<String>) -> SpecError {
        SpecError::value(format!("{}{key}", self.prefix), value, allowed)
    }

    fn missing(&self, key: &str, allowed: impl Into<String>) -> SpecError {
        SpecError::Missing { key: format!("{}{key}", self.prefix), allowed: allowed.into() }
    }

    /// An integer within a range.
    pub(super) fn number(
        &mut self,
        key: &str,
        default: u64,
        range: RangeInclusive<u64>,
    ) -> Result<u64, SpecError> {
        let allowed = || format!("an integer from {} to {}", range.start(), range.end());
        match self.take(key) {
            None => Ok(default),
            Some(Value::Integer(found)) => u64::try_from(found)
                .ok()
                .filter(|found| range.contains(found))
                .ok_or_else(|| self.wrong(key, &Value::Integer(found), allowed())),
            Some(other) => Err(self.wrong(key, &other, allowed())),
        }
    }

    /// A number, whole or not, within `-bound` and `bound`; it has no default.
    pub(super) fn float(&mut self, key: &str, bound: f64) -> Result<f64, SpecError> {
        let allowed = format!("a number from -{bound} to {bound}");
        let value = self.take(key).ok_or_else(|| self.missing(key, &allowed))?;
        let found = value.as_float().or_else(|| value.as_integer().map(|whole| whole as f64));
        found.filter(|found| found.abs() <= bound).ok_or_else(|| self.wrong(key, &value, allowed))
    }

    /// A signed integer within `-bound` and `bound`.
    pub(super) fn signed(&mut self, key: &str, default: Option<i64>, bound: i64) -> Result<i64, SpecError> {
        let allowed = format!("an integer from -{bound} to {bound}");
        match self.take(key) {
            None => default.ok_or_else(|| self.missing(key, allowed)),
            Some(Value::Integer(found)) if (-bound..=bound).contains(&found) => Ok(found),
            Some(other) => Err(self.wrong(key, &other, allowed)),
        }
    }

    pub(super) fn flag(&mut self, key: &str, default: bool) -> Result<bool, SpecError> {
        match self.take(key) {
            None => Ok(default),
            Some(Value::Boolean(found)) => Ok(found),
            Some(other) => Err(self.wrong(key, &other, "true or false")),
        }
    }

    /// Text without control characters other than line breaks.
    pub(super) fn text(&mut self, key: &str, default: &str, bytes_max: usize) -> Result<String, SpecError> {
        let allowed = format!("text of at most {bytes_max} bytes");
        match self.take(key) {
            None => Ok(default.to_owned()),
            Some(Value::String(text)) if text.len() <= bytes_max && is_plain(&text) => Ok(text),
            Some(other) => Err(self.wrong(key, &other, allowed)),
        }
    }

    /// A short name: small letters, digits and hyphens, beginning with a letter.
    pub(super) fn name(&mut self, key: &str, default: Option<&str>) -> Result<String, SpecError> {
        let allowed = "1 to 64 small letters, digits and hyphens, a letter first";
        let good = |text: &str| {
            (1..=64).contains(&text.len())
                && text.starts_with(|c: char| c.is_ascii_lowercase())
                && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
        };
        match (self.take(key), default) {
            (None, Some(default)) => Ok(default.to_owned()),
            (None, None) => Err(self.missing(key, allowed)),
            (Some(Value::String(text)), _) if good(&text) => Ok(text),
            (Some(other), _) => Err(self.wrong(key, &other, allowed)),
        }
    }

    /// One of some words.
    pub(super) fn choice<T: Copy>(
        &mut self,
        key: &str,
        default: Option<T>,
        choices: &[(&str, T)],
    ) -> Result<T, SpecError> {
        let allowed = choices.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
        match (self.take(key), default) {
            (None, Some(default)) => Ok(default),
            (None, None) => Err(self.missing(key, format!("one of {allowed}"))),
            (Some(value), _) => {
                let named = value.as_str().and_then(|text| choices.iter().find(|(name, _)| *name == text));
                named
                    .map(|(_, choice)| *choice)
                    .ok_or_else(|| self.wrong(key, &value, format!("one of {allowed}")))
            }
        }
    }

    /// Text that parses as `T`; the error of `T` says what is allowed.
    pub(super) fn parsed<T: FromStr<Err: std::fmt::Display>>(
        &mut self,
        key: &str,
        default: Option<T>,
        allowed: &str,
    ) -> Result<T, SpecError> {
        match (self.take(key), default) {
            (None, Some(default)) => Ok(default),
            (None, None) => Err(self.missing(key, allowed)),
            (Some(value), _) => {
                let parsed = value.as_str().and_then(|text| text.parse().ok());
                parsed.ok_or_else(|| self.wrong(key, &value, allowed))
            }
        }
    }

    /// A hash in hexadecimal, or nothing (empty text).
    pub(super) fn hash(&mut self, key: &str) -> Result<Option<wire::Hash>, SpecError> {
        match self.take(key) {
            None => Ok(None),
            Some(Value::String(text)) if text.is_empty() => Ok(None),
            Some(Value::String(text)) if text.parse::<wire::Hash>().is_ok() => Ok(text.parse().ok()),
            Some(other) => Err(self.wrong(key, &other, "a hash: 64 lower-case hex digits, or empty")),
        }
    }

    /// A list of texts, each parsed by `item`, without repetition.
    pub(super) fn list<T: Ord + Copy>(
        &mut self,
        key: &str,
        len_max: usize,
        allowed: &str,
        item: impl Fn(&str) -> Option<T>,
    ) -> Result<Vec<T>, SpecError> {
        let allowed = format!("a list of at most {len_max} different {allowed}");
        let Some(value) = self.take(key) else { return Ok(Vec::new()) };
        let parsed = value.as_array().filter(|array| array.len() <= len_max).and_then(|array| {
            array.iter().map(|value| value.as_str().and_then(&item)).collect::<Option<Vec<T>>>()
        });
        let distinct = |list: &Vec<T>| {
            let mut sorted = list.clone();
            sorted.sort_unstable();
            sorted.windows(2).all(|pair| pair[0] != pair[1])
        };
        parsed.filter(distinct).ok_or_else(|| self.wrong(key, &value, allowed))
    }

    /// A list of different texts that are all `good`; kept in order of the alphabet, so that one meaning has one text.
    pub(super) fn texts(
        &mut self,
        key: &str,
        default: &[String],
        len_max: usize,
        allowed: &str,
        good: impl Fn(&str) -> bool,
    ) -> Result<Vec<String>, SpecError> {
        let allowed = format!("a list of at most {len_max} different {allowed}");
        let Some(value) = self.take(key) else { return Ok(default.to_vec()) };
        let parsed = value.as_array().filter(|array| array.len() <= len_max).and_then(|array| {
            let one = |value: &Value| value.as_str().filter(|text| good(text)).map(str::to_owned);
            array.iter().map(one).collect::<Option<Vec<String>>>()
        });
        let sorted = parsed.map(|mut list| {
            list.sort_unstable();
            list
        });
        let distinct = |list: &Vec<String>| list.windows(2).all(|pair| pair[0] != pair[1]);
        sorted.filter(distinct).ok_or_else(|| self.wrong(key, &value, allowed))
    }

    /// The words of a command, in order: plain text, none of them empty.
    pub(super) fn words(
        &mut self,
        key: &str,
        len_max: usize,
        bytes_max: usize,
    ) -> Result<Vec<String>, SpecError> {
        let allowed = format!("a list of at most {len_max} words of 1 to {bytes_max} bytes");
        let Some(value) = self.take(key) else { return Ok(Vec::new()) };
        let good = |text: &&str| (1..=bytes_max).contains(&text.len()) && is_plain(text);
        let parsed = value.as_array().filter(|array| array.len() <= len_max).and_then(|array| {
            array.iter().map(|value| value.as_str().filter(good).map(str::to_owned)).collect()
        });
        parsed.ok_or_else(|| self.wrong(key, &value, allowed))
    }

    /// A list of integers within a range.
    pub(super) fn numbers(
        &mut self,
        key: &str,
        default: &[u32],
        len_max: usize,
        range: RangeInclusive<u32>,
    ) -> Result<Vec<u32>, SpecError> {
        let Some(value) = self.take(key) else { return Ok(default.to_vec()) };
        let parsed =
            value.as_array().filter(|array| (1..=len_max).contains(&array.len())).and_then(|array| {
                let one = |value: &Value| {
                    let number = value.as_integer().and_then(|number| u32::try_from(number).ok())?;
                    range.contains(&number).then_some(number)
                };
                array.iter().map(one).collect::<Option<Vec<u32>>>()
            });
        let allowed = || format!("1 to {len_max} integers from {} to {}", range.start(), range.end());
        parsed.ok_or_else(|| self.wrong(key, &value, allowed()))
    }

    /// A fault of a value that this section has just read.
    pub(super) fn fault(&self, key: &str, value: &impl ToString, allowed: impl Into<String>) -> SpecError {
        SpecError::value(format!("{}{key}", self.prefix), value, allowed)
    }
}

fn is_plain(text: &str) -> bool {
    text.chars().all(|c| !c.is_control() || c == '\n' || c == '\t')
}
