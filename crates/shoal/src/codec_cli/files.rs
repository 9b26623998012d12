//! Tensor files: .npy, .safetensors, raw.

use super::RawArgs;
use anyhow::{Context, bail, ensure};
use codec::{DType, TensorRef};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::path::Path;

/// Most bytes of a safetensors header.
const MAX_HEADER_BYTES: u64 = 100 << 20;

/// A file in memory: a prefix (its header), then its tensors' bytes one after the other.
#[derive(Debug)]
pub(super) struct TensorFile {
    pub(super) bytes: Vec<u8>,
    pub(super) prefix_bytes: usize,
    pub(super) tensors: Vec<Entry>,
}

/// One tensor of a file.
#[derive(Debug)]
pub(super) struct Entry {
    /// Its name; empty where the file holds one.
    pub(super) name: String,
    pub(super) dtype: DType,
    pub(super) shape: Vec<usize>,
    /// Where its bytes lie in the file.
    pub(super) range: std::ops::Range<usize>,
}

impl TensorFile {
    /// Reads `path`, or standard input for `-`.
    pub(super) fn read(path: &Path, raw: &RawArgs) -> anyhow::Result<Self> {
        let bytes = read_all(path)?;
        Self::parse(bytes, raw).with_context(|| format!("{} cannot be read as tensors", path.display()))
    }

    fn parse(bytes: Vec<u8>, raw: &RawArgs) -> anyhow::Result<Self> {
        if let (Some(dtype), Some(shape)) = (&raw.dtype, &raw.shape) {
            let dtype = DType::from_name(dtype).with_context(|| format!("unknown element type {dtype}"))?;
            let range = 0..bytes.len();
            let entry = Entry { name: String::new(), dtype, shape: parse_shape(shape)?, range };
            TensorRef::new(dtype, &entry.shape, &bytes)?;
            return Ok(Self { bytes, prefix_bytes: 0, tensors: vec![entry] });
        }
        if bytes.starts_with(b"\x93NUMPY") {
            return parse_npy(bytes);
        }
        if bytes.get(8) == Some(&b'{') {
            return parse_safetensors(bytes);
        }
        bail!("neither .npy nor .safetensors; give --dtype and --shape for raw elements");
    }

    /// The tensor of an entry.
    pub(super) fn tensor<'a>(&'a self, entry: &'a Entry) -> anyhow::Result<TensorRef<'a>> {
        Ok(TensorRef::new(entry.dtype, &entry.shape, &self.bytes[entry.range.clone()])?)
    }
}

pub(super) fn read_all(path: &Path) -> anyhow::Result<Vec<u8>> {
    if path == Path::new("-") {
        let mut bytes = Vec::new();
        std::io::stdin().lock().read_to_end(&mut bytes).context("standard input cannot be read")?;
        return Ok(bytes);
    }
    std::fs::read(path).with_context(|| format!("{} cannot be read", path.display()))
}

pub(super) fn write_all(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    if path == Path::new("-") {
        let mut out = std::io::stdout().lock();
        out.write_all(bytes).and_then(|()| out.flush()).context("standard output cannot be written")?;
        return Ok(());
    }
    std::fs::write(path, bytes).with_context(|| format!("{} cannot be written", path.display()))
}

fn parse_shape(text: &str) -> anyhow::Result<Vec<usize>> {
    let parts = text.split([',', 'x']).map(str::trim).filter(|p| !p.is_empty());
    parts.map(|p| p.parse().with_context(|| format!("{p} in the shape is not a number"))).collect()
}

fn parse_npy(bytes: Vec<u8>) -> anyhow::Result<TensorFile> {
    let major = *bytes.get(6).context("file ends in its header")?;
    let (length, start) = if major == 1 {
        let b = bytes.get(8..10).context("file ends in its header")?;
        (usize::from(u16::from_le_bytes([b[0], b[1]])), 10)
    } else {
        let b = bytes.get(8..12).context("file ends in its header")?;
        (u32::from_le_bytes([b[0], b[1], b[2], b[3]]) as usize, 12)
    };
    let prefix_bytes = start + length;
    let header = bytes.get(start..prefix_bytes).context("file ends in its header")?;
    let header = std::str::from_utf8(header).context("header is not text")?;
    let after = |key: &str| header.split_once(key).map(|(_, rest)| rest.trim_start_matches([' ', ':']));
    let descr = after("'descr'").and_then(|d| d.split('\'').nth(1)).context("header has no descr")?;
    let dtype = match descr {
        "<u2" | "|u2" => DType::Bf16,
        "<f2" => DType::F16,
        "<f4" => DType::F32,
        "|u1" => DType::U8,
        _ => bail!("element type {descr} is not supported (u2 with bf16 bits, f2, f4 and u1 are)"),
    };
    ensure!(
        !after("'fortran_order'").is_some_and(|v| v.starts_with("True")),
        "the array is stored column by column; save it in C order"
    );
    let shape = after("'shape'").and_then(|s| s.split(['(', ')']).nth(1)).context("header has no shape")?;
    let range = prefix_bytes..bytes.len();
    let entry = Entry { name: String::new(), dtype, shape: parse_shape(shape)?, range };
    TensorRef::new(dtype, &entry.shape, &bytes[prefix_bytes..])?;
    Ok(TensorFile { bytes, prefix_bytes, tensors: vec![entry] })
}

#[derive(Deserialize)]
struct SafetensorsEntry {
    dtype: String,
    shape: Vec<usize>,
    data_offsets: [usize; 2],
}

fn parse_safetensors(bytes: Vec<u8>) -> anyhow::Result<TensorFile> {
    let length = u64::from_le_bytes(bytes[..8].try_into().context("file ends in its header")?);
    ensure!(length <= MAX_HEADER_BYTES, "header of {length} bytes is larger than {MAX_HEADER_BYTES}");
    let prefix_bytes = 8 + length as usize;
    let header = bytes.get(8..prefix_bytes).context("file ends in its header")?;
    let mut header: BTreeMap<String, serde_json::Value> =
        serde_json::from_slice(header).context("header is not JSON")?;
    header.remove("__metadata__");
    let mut tensors = Vec::with_capacity(header.len());
    for (name, value) in header {
        let entry: SafetensorsEntry =
            serde_json::from_value(value).with_context(|| format!("entry {name} is malformed"))?;
        let [from, to] = entry.data_offsets;
        let whole = prefix_bytes.checked_add(from).zip(prefix_bytes.checked_add(to));
        let (from, to) = whole.with_context(|| format!("{name} lies outside the file"))?;
        let data = bytes.get(from..to).with_context(|| format!("{name} lies outside the file"))?;
        let (dtype, shape) = match entry.dtype.as_str() {
            "BF16" => (DType::Bf16, entry.shape),
            "F16" => (DType::F16, entry.shape),
            "F32" => (DType::F32, entry.shape),
            "U16" => (DType::U16, entry.shape),
            // Anything else goes through as bytes.
            _ => (DType::U8, vec![data.len()]),
        };
        TensorRef::new(dtype, &shape, data).with_context(|| name.clone())?;
        tensors.push(Entry { name, dtype, shape, range: from..to });
    }
    tensors.sort_by_key(|t| (t.range.start, t.range.end));
    let mut end = prefix_bytes;
    for t in &tensors {
        ensure!(t.range.start == end, "there is a gap before {}, or it overlaps", t.name);
        end = t.range.end;
    }
    ensure!(end == bytes.len(), "bytes follow the last tensor");
    Ok(TensorFile { bytes, prefix_bytes, tensors })
}
