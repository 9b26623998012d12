//! zstd, lz4, pco from Cargo's registry; ZipNN, OpenZL, blosc2 through Python.

use crate::{File, Found};
use anyhow::{Context, ensure};
use codec::bench::median;
use cpu_time::ThreadTime;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Timed rounds after one warm-up.
const ROUNDS: usize = 5;

type Encode = fn(&[u8]) -> anyhow::Result<Vec<u8>>;
type Decode = fn(&[u8], usize) -> anyhow::Result<Vec<u8>>;

fn words(bytes: &[u8]) -> Vec<u16> {
    bytes.as_chunks::<2>().0.iter().map(|w| u16::from_le_bytes(*w)).collect()
}

fn unpco(packed: &[u8], _: usize) -> anyhow::Result<Vec<u8>> {
    let values: Vec<u16> = pco::standalone::simple_decompress(packed)?;
    Ok(values.iter().flat_map(|v| v.to_le_bytes()).collect())
}

fn pco_classic(bytes: &[u8]) -> anyhow::Result<Vec<u8>> {
    let config = pco::ChunkConfig::default()
        .with_mode_spec(pco::ModeSpec::Classic)
        .with_delta_spec(pco::DeltaSpec::NoOp);
    Ok(pco::standalone::simple_compress(&words(bytes), &config)?)
}

const PEERS: [(&str, Encode, Decode); 4] = [
    ("zstd 1", |b| Ok(zstd::bulk::compress(b, 1)?), |p, n| Ok(zstd::bulk::decompress(p, n)?)),
    ("zstd 3", |b| Ok(zstd::bulk::compress(b, 3)?), |p, n| Ok(zstd::bulk::decompress(p, n)?)),
    ("lz4", |b| Ok(lz4_flex::compress(b)), |p, n| Ok(lz4_flex::decompress(p, n)?)),
    ("pco u16 classic", pco_classic, unpco),
];

pub(crate) fn measure(file: &File) -> anyhow::Result<Vec<Found>> {
    let mut found = Vec::new();
    for (name, encode, decode) in PEERS {
        let (mut encode_s, mut decode_s, mut length) = (Vec::new(), Vec::new(), 0);
        for round in 0..=ROUNDS {
            let start = ThreadTime::now();
            let packed = encode(&file.bytes)?;
            let middle = start.elapsed().as_secs_f64();
            let back = decode(&packed, file.bytes.len())?;
            let end = start.elapsed().as_secs_f64();
            ensure!(back == file.bytes, "{name} did not give back {}", file.name);
            length = packed.len();
            if round > 0 {
                encode_s.push(middle);
                decode_s.push(end - middle);
            }
        }
        found.push(Found {
            file: file.name.clone(),
            codec: name.to_owned(),
            bytes: file.bytes.len(),
            compressed_bytes: length,
            encode_s: median(&mut encode_s),
            decode_s: median(&mut decode_s),
            side_bytes: 0,
            similarity: Some(1.0),
        });
    }
    Ok(found)
}

/// Runs `peers.py` beside this package's manifest.
pub(crate) fn measure_python(python: &Path, files: &[PathBuf]) -> anyhow::Result<Vec<Found>> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("peers.py");
    let output = Command::new(python)
        .arg("-W")
        .arg("ignore")
        .arg(script)
        .args(files)
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("{} cannot be run", python.display()))?;
    let text = String::from_utf8(output.stdout)?;
    let mut found = Vec::new();
    for line in text.lines().filter(|l| l.starts_with('{')) {
        let mut row: Found = serde_json::from_str(line)?;
        let stem = Path::new(&row.file).file_stem().unwrap_or_default().to_string_lossy().into_owned();
        row.file = stem;
        found.push(row);
    }
    Ok(found)
}
