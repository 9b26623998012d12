//! `[cut]` as people write it.

use model::config::{Cut, Dtype, Table};
use serde::Deserialize;

use super::SpecError;

/// `[cut]` as written: keys that do not belong to its kind are refused, each by its name.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CutDraft {
    kind: String,
    wire: Option<String>,
    width: Option<usize>,
    bits: Option<u8>,
    table: Option<toml::Value>,
}

/// Values of all keys; anything where a kind has none.
struct Keys {
    wire: Dtype,
    width: usize,
    bits: u8,
    table: Table,
}

/// A kind of cut, the keys that it needs, and what it is made of.
type Kind = (&'static str, &'static [&'static str], fn(Keys) -> Cut);

const CUTS: [Kind; 5] = [
    ("plain", &["cut.wire"], |Keys { wire, .. }| Cut::Plain { wire }),
    ("tabled", &["cut.wire", "cut.table"], |Keys { wire, table, .. }| Cut::Tabled { wire, table }),
    ("bottleneck", &["cut.width", "cut.wire"], |Keys { width, wire, .. }| Cut::Bottleneck { width, wire }),
    ("anchored", &["cut.width", "cut.bits", "cut.table"], |Keys { width, bits, table, .. }| Cut::Anchored {
        width,
        bits,
        table,
    }),
    ("nothing", &["cut.table"], |Keys { table, .. }| Cut::Nothing { table }),
];

impl CutDraft {
    pub(super) fn complete(self) -> Result<Cut, SpecError> {
        let quoted = |text: &str| format!("\"{text}\"");
        let Some((_, needed, make)) = CUTS.iter().find(|(kind, ..)| *kind == self.kind) else {
            let kinds = CUTS.map(|(kind, ..)| kind).join(", ");
            return Err(SpecError::value("cut.kind", &quoted(&self.kind), format!("must be one of {kinds}")));
        };
        let given = [
            ("cut.wire", self.wire.as_deref().map(quoted)),
            ("cut.width", self.width.map(|width| width.to_string())),
            ("cut.bits", self.bits.map(|bits| bits.to_string())),
            ("cut.table", self.table.as_ref().map(ToString::to_string)),
        ];
        for (key, value) in given {
            match (needed.contains(&key), value) {
                (true, None) => return Err(SpecError::missing(key)),
                (false, Some(value)) => {
                    let words = format!("a cut of kind \"{}\" has none: leave it out", self.kind);
                    return Err(SpecError::value(key, &value, words));
                }
                _ => {}
            }
        }
        let wire = match self.wire.as_deref() {
            Some("bf16") => Dtype::Bf16,
            Some("f32") | None => Dtype::F32,
            Some(other) => {
                return Err(SpecError::value("cut.wire", &quoted(other), "must be \"f32\" or \"bf16\""));
            }
        };
        let table = self.table.map_or(Ok(Table::None), |table| read_table(&table))?;
        let (width, bits) = (self.width.unwrap_or_default(), self.bits.unwrap_or_default());
        Ok(make(Keys { wire, width, bits, table }))
    }
}

fn read_table(value: &toml::Value) -> Result<Table, SpecError> {
    let refused = || {
        let allowed = "must be \"full\", \"none\" or { factorised = { rank = 16 } }";
        SpecError::value("cut.table", value, allowed)
    };
    match value.as_str() {
        Some("none") => return Ok(Table::None),
        Some("full") => return Ok(Table::Full),
        Some(_) => return Err(refused()),
        None => {}
    }
    let factorised = only(value, "cut.table", "factorised")?.ok_or_else(refused)?;
    let rank = only(factorised, "cut.table.factorised", "rank")?;
    let rank = rank.and_then(toml::Value::as_integer).ok_or_else(refused)?;
    let rank = usize::try_from(rank).map_err(|_| {
        SpecError::value("cut.table.factorised.rank", &rank, "must be from 1 to model.d_model")
    })?;
    Ok(Table::Factorised { rank })
}

/// The value of the only key that a table may have.
fn only<'a>(table: &'a toml::Value, section: &str, key: &str) -> Result<Option<&'a toml::Value>, SpecError> {
    let Some(table) = table.as_table() else { return Ok(None) };
    match table.keys().find(|name| *name != key) {
        Some(name) => Err(SpecError::unknown(format!("{section}.{name}"), &[key.to_owned()])),
        None => Ok(table.get(key)),
    }
}
