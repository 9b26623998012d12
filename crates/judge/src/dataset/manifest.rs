//! `manifest.csv`: read with every bound checked, written in one form.

use std::collections::BTreeSet;
use std::fmt::Write;

use wire::{Hash, NodeId};

use crate::input::Direction;
use crate::limits;

/// What a data set lists.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Manifest {
    /// In the order of the file.
    pub items: Vec<Item>,
}

/// One input of a data set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// File below the folder.
    pub file: String,
    /// Hash of its content.
    pub hash: Option<Hash>,
    /// Its length.
    pub bytes: Option<u64>,
    /// Elements along each dimension.
    pub shape: Option<Vec<u32>>,
    /// Where it comes from.
    pub direction: Direction,
    /// Who computed it.
    pub operator: Option<NodeId>,
}

const COLUMNS: [&str; 8] = ["file", "blake3", "bytes", "dtype", "rows", "cols", "direction", "operator"];

impl Manifest {
    /// Reads a manifest; the error says what is wrong in which line.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        let text = std::str::from_utf8(bytes).map_err(|_| "not UTF-8 text".to_owned())?;
        let mut lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()).peekable();
        let headed =
            lines.peek().is_some_and(|(_, line)| line.split(',').next().map(str::trim) == Some("file"));
        let columns: Vec<&str> = if headed {
            lines.next().map(|(_, line)| line.split(',').map(str::trim).collect()).unwrap_or_default()
        } else {
            vec!["file"]
        };
        let mut items: Vec<Item> = Vec::new();
        let mut names = BTreeSet::new();
        for (number, line) in lines {
            let fail = |what: String| format!("line {}: {what}", number + 1);
            if items.len() == limits::DATASET_ITEMS_MAX {
                return Err(fail(format!("more than {} inputs", limits::DATASET_ITEMS_MAX)));
            }
            let item = Self::row(&columns, line, headed).map_err(fail)?;
            if !names.insert(item.file.clone()) {
                return Err(fail(format!("{:?} is listed twice", item.file)));
            }
            items.push(item);
        }
        Ok(Self { items })
    }

    fn row(columns: &[&str], line: &str, headed: bool) -> Result<Item, String> {
        if line.contains('"') {
            return Err("quotes are not used here: names without commas need none".to_owned());
        }
        let cells: Vec<&str> = line.split(',').map(str::trim).collect();
        if headed && cells.len() != columns.len() {
            return Err(format!("{} cells, the first line has {} columns", cells.len(), columns.len()));
        }
        let cell = |name: &str| {
            let place = columns.iter().position(|column| *column == name)?;
            cells.get(place).copied().filter(|cell| !cell.is_empty())
        };
        let number = |name: &str| {
            let parse =
                |cell: &str| cell.parse::<u64>().map_err(|_| format!("{name} = {cell:?} is not a number"));
            cell(name).map(parse).transpose()
        };
        let file = cell("file").ok_or("no file name")?.to_owned();
        check_name(&file)?;
        if let Some(dtype) = cell("dtype").filter(|dtype| *dtype != "bf16") {
            return Err(format!("dtype = {dtype:?}: inputs are bf16"));
        }
        let side = |name: &str| {
            let value = number(name)?;
            value
                .map(|value| u32::try_from(value).map_err(|_| format!("{name} = {value} is too large")))
                .transpose()
        };
        let shape = match (side("rows")?, side("cols")?) {
            (Some(rows), Some(cols)) => Some(vec![rows, cols]),
            (None, None) => None,
            _ => return Err("rows without cols, or cols without rows".to_owned()),
        };
        let direction = cell("direction").map_or(Ok(Direction::default()), |cell| {
            cell.parse().map_err(|()| format!("direction = {cell:?}: expected forward or backward"))
        })?;
        let hash =
            cell("blake3").map(|cell| cell.parse::<Hash>().map_err(|error| format!("blake3: {error}")));
        let operator =
            cell("operator").map(|cell| cell.parse::<NodeId>().map_err(|error| format!("operator: {error}")));
        Ok(Item {
            file,
            hash: hash.transpose()?,
            bytes: number("bytes")?,
            shape,
            direction,
            operator: operator.transpose()?,
        })
    }

    /// The manifest as text. Shapes of other than two dimensions are left out.
    pub fn to_csv(&self) -> String {
        let mut text = COLUMNS.join(",");
        text.push('\n');
        for item in &self.items {
            let show = |value: Option<String>| value.unwrap_or_default();
            let side = |index: usize| match item.shape.as_deref() {
                Some(shape @ [_, _]) => shape[index].to_string(),
                _ => String::new(),
            };
            _ = writeln!(
                text,
                "{},{},{},bf16,{},{},{},{}",
                item.file,
                show(item.hash.map(|hash| hash.to_string())),
                show(item.bytes.map(|bytes| bytes.to_string())),
                side(0),
                side(1),
                item.direction,
                show(item.operator.map(|operator| operator.to_string())),
            );
        }
        text
    }
}

/// A name that stays below its folder, on every system.
pub(crate) fn check_name(name: &str) -> Result<(), String> {
    let good = |part: &str| {
        !part.is_empty()
            && part != "."
            && part != ".."
            && part.chars().all(|c| c.is_ascii_alphanumeric() || "._-+@=".contains(c))
    };
    if name.len() <= limits::FILE_NAME_BYTES && name.split('/').all(good) {
        return Ok(());
    }
    Err(format!(
        "file name {name:?}: expected letters, digits and ._-+@= in parts between slashes, at most {} bytes",
        limits::FILE_NAME_BYTES
    ))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_documented_columns_come_back() {
        let hash = Hash::of(b"x");
        let text = format!(
            "file,blake3,bytes,dtype,rows,cols,direction,operator\na/b.bin,{hash},8,bf16,2,2,backward,\nc.bin,,,,,,,\n"
        );
        let manifest = Manifest::parse(text.as_bytes()).unwrap();
        assert_eq!(manifest.items[0].shape, Some(vec![2, 2]));
        assert_eq!(manifest.items[0].direction, Direction::Backward);
        assert_eq!((manifest.items[0].hash, manifest.items[1].hash), (Some(hash), None));
        assert_eq!(Manifest::parse(manifest.to_csv().as_bytes()).unwrap(), manifest);
    }

    #[test]
    fn a_list_of_names_is_a_manifest_and_foreign_columns_do_not_matter() {
        let bare = Manifest::parse(b"one.bin\ntwo.bin,4096\n").unwrap();
        assert_eq!(
            bare.items.iter().map(|item| item.file.as_str()).collect::<Vec<_>>(),
            ["one.bin", "two.bin"]
        );
        let foreign = Manifest::parse(b"file,kind,layer\none.bin,act,3\n").unwrap();
        assert_eq!(foreign.items.len(), 1);
    }

    #[test]
    fn faults_name_the_line_and_what_is_expected() {
        for (text, expected) in [
            ("file\n../x\n", "line 2: file name \"../x\""),
            ("file\n/etc/passwd\n", "line 2: file name"),
            ("file\na\na\n", "line 3: \"a\" is listed twice"),
            ("file,bytes\na,many\n", "line 2: bytes = \"many\" is not a number"),
            ("file,rows\na,3\n", "line 2: rows without cols"),
            ("file,dtype\na,f32\n", "line 2: dtype = \"f32\""),
            ("file,blake3\na,12\n", "line 2: blake3: not a Hash"),
            ("file,direction\na,up\n", "line 2: direction = \"up\""),
            ("file,bytes\na\n", "line 2: 1 cells"),
            ("file\n\"a\"\n", "line 2: quotes"),
        ] {
            let error = Manifest::parse(text.as_bytes()).unwrap_err();
            assert!(error.starts_with(expected), "{error}");
        }
        assert!(Manifest::parse(&[0xff]).is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = Manifest::parse(&bytes);
        }
    }
}
