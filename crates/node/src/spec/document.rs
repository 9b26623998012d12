//! Holds `docs/spec.md` against the parser.

use std::collections::{BTreeMap, BTreeSet};

use super::*;

const PAGE: &str = include_str!("../../../../docs/spec.md");

/// One key of the table.
struct Row {
    key: String,
    range: String,
    default: String,
}

/// What stands between backticks.
fn quoted(cell: &str) -> Vec<&str> {
    cell.split('`').skip(1).step_by(2).collect()
}

fn rows() -> Vec<Row> {
    let table = PAGE.split("| key | range |").nth(1).expect("the table");
    let lines = table.lines().skip(2).take_while(|line| line.starts_with('|'));
    let mut section = String::new();
    let mut rows = Vec::new();
    for line in lines {
        let cells: Vec<&str> = line.split(" | ").collect();
        let [first, range, default, _] = cells[..] else { panic!("four cells: {line}") };
        let keys = match first.split_once("]`** ") {
            Some((head, keys)) => {
                section =
                    format!("{}.", head.trim_start_matches(['|', ' ', '*', '`', '[']).trim_end_matches(']'));
                keys
            }
            None => first,
        };
        rows.extend(quoted(keys).into_iter().map(|key| Row {
            key: format!("{section}{key}"),
            range: range.to_owned(),
            default: default.to_owned(),
        }));
    }
    rows
}

fn examples() -> Vec<&'static str> {
    PAGE.split("```toml\n").skip(1).filter_map(|rest| rest.split("```").next()).collect()
}

/// All keys of a table and those inside it; an array's items have the keys of the first.
fn leaves(table: &toml::Table, prefix: &str, into: &mut BTreeMap<String, toml::Value>) {
    for (name, value) in table {
        let key = format!("{prefix}{name}");
        let item = value.as_array().and_then(|items| items.first()?.as_table());
        if let Some(inner) = value.as_table().or(item) {
            leaves(inner, &format!("{key}."), into);
        }
        if !value.is_table() {
            into.insert(key, value.clone());
        }
    }
}

fn leaves_of(text: &str) -> BTreeMap<String, toml::Value> {
    let mut found = BTreeMap::new();
    leaves(&text.parse().expect("TOML"), "", &mut found);
    found
}

/// The text with a value put in place of what stands at a key.
fn with(text: &str, key: &str, value: toml::Value) -> String {
    let mut root: toml::Table = text.parse().expect("TOML");
    let (sections, name) = key.rsplit_once('.').map_or((None, key), |(before, name)| (Some(before), name));
    let mut table = &mut root;
    for section in sections.into_iter().flat_map(|sections| sections.split('.')) {
        let inner = table.get_mut(section).expect("a section of the text");
        table = match inner {
            toml::Value::Array(items) => items[0].as_table_mut().expect("tables"),
            other => other.as_table_mut().expect("a table"),
        };
    }
    table.insert(name.to_owned(), value);
    toml::to_string(&root).expect("TOML")
}

#[test]
fn every_key_of_the_complete_spec_is_explained_with_its_default() {
    let rows = rows();
    let complete = RunSpec::parse("").expect("the defaults").canonical();
    for (key, value) in leaves_of(&complete) {
        let row = rows.iter().find(|row| row.key == key).unwrap_or_else(|| panic!("{key} is not explained"));
        let stated =
            quoted(&row.default).first().and_then(|text| format!("x = {text}").parse::<toml::Table>().ok());
        if let Some(stated) = stated {
            assert_eq!(stated["x"], value, "the default of {key}");
        }
    }
}

#[test]
fn every_key_explained_is_one_that_the_parser_takes() {
    let complete = RunSpec::parse("").expect("the defaults").canonical();
    let mut taken: BTreeSet<String> = leaves_of(&complete).into_keys().collect();
    let model = ModelConfig::preset("tiny").expect("known");
    let base = Base { cut: Cut::anchored(model.d_model), model, cuts: None };
    for example in examples() {
        let read = RunSpec::parse(example).or_else(|_| RunSpec::parse_on(example, &base));
        read.unwrap_or_else(|error| panic!("{error} in\n{example}"));
        taken.extend(leaves_of(example).into_keys());
    }
    for row in rows() {
        assert!(taken.contains(&row.key), "{} stands in no text that is parsed", row.key);
    }
}

/// A key that no section has makes the parser say which it knows: all of them are explained.
#[test]
fn every_key_that_the_parser_knows_is_explained() {
    let explained: BTreeSet<String> = rows().into_iter().map(|row| row.key).collect();
    let sections: BTreeSet<&str> =
        explained.iter().filter_map(|key| key.rsplit_once('.')).map(|(section, _)| section).collect();
    let complete = RunSpec::parse("").expect("the defaults").canonical();
    let mut asked = BTreeSet::new();
    for text in examples().into_iter().chain([complete.as_str()]) {
        let here: BTreeSet<String> = leaves_of(text).into_keys().collect();
        for section in sections.iter().chain([&""]) {
            let prefix = if section.is_empty() { String::new() } else { format!("{section}.") };
            if !here.iter().any(|key| key.starts_with(&prefix)) {
                continue;
            }
            asked.insert(*section);
            let error = RunSpec::parse(&with(text, &format!("{prefix}zzz"), toml::Value::Integer(1)));
            let Err(SpecError::UnknownKey { key, known, .. }) = &error else {
                panic!("{section}: {error:?}")
            };
            assert_eq!(key.rsplit('.').next(), Some("zzz"), "{key}");
            for name in known.split(", ") {
                let key = format!("{prefix}{name}");
                let inside = explained.iter().any(|other| other.starts_with(&format!("{key}.")));
                assert!(inside || explained.contains(&key), "{key} is not explained");
            }
        }
    }
    assert_eq!(asked.len(), sections.len() + 1, "{asked:?}");
}

#[test]
fn ranges_are_those_that_errors_name() {
    let complete = RunSpec::parse("").expect("the defaults").canonical();
    let values = leaves_of(&complete);
    let mut compared = 0;
    for row in rows() {
        let range = row.range.split([',', ';']).next().unwrap_or_default();
        let Some((low, high)) = range.split_once(" to ") else { continue };
        let (Ok(low), Ok(high), Some(value)) =
            (low.parse::<f64>(), high.parse::<i64>(), values.get(&row.key))
        else {
            continue;
        };
        let beyond = match value {
            toml::Value::Float(_) => toml::Value::Float(high as f64 * 2.0),
            _ if high == i64::MAX => continue,
            _ => toml::Value::Integer(high + 1),
        };
        let error = RunSpec::parse(&with(&complete, &row.key, beyond)).expect_err(&row.key).to_string();
        let words = format!("{} = ", row.key);
        assert!(
            error.contains(&words) && error.contains(&format!("from {low} to {high}")),
            "{}: {error}",
            row.key
        );
        compared += 1;
    }
    assert!(compared > 20, "{compared}");
}
