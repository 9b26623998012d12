//! Markdown tables.

use crate::Found;
use codec::bench::median;
use std::collections::BTreeMap;

fn kind(file: &str) -> &str {
    file.split('_').next().unwrap_or(file)
}

/// The rows of each kind and codec, codecs in the order in which they came.
fn grouped(found: &[Found]) -> Vec<(String, Vec<(String, Vec<&Found>)>)> {
    let mut kinds: BTreeMap<&str, Vec<(String, Vec<&Found>)>> = BTreeMap::new();
    for f in found {
        let codecs = kinds.entry(kind(&f.file)).or_default();
        match codecs.iter_mut().find(|(name, _)| *name == f.codec) {
            Some((_, rows)) => rows.push(f),
            None => codecs.push((f.codec.clone(), vec![f])),
        }
    }
    kinds.into_iter().map(|(k, v)| (k.to_owned(), v)).collect()
}

fn median_of(rows: &[&Found], value: impl Fn(&Found) -> f64) -> f64 {
    median(&mut rows.iter().map(|f| value(f)).collect::<Vec<_>>())
}

fn spread(rows: &[&Found], value: impl Fn(&Found) -> f64) -> String {
    let mut all: Vec<f64> = rows.iter().map(|f| value(f)).collect();
    all.sort_by(f64::total_cmp);
    format!("{:.3}–{:.3}", all[0], all[all.len() - 1])
}

fn ratio(f: &Found) -> f64 {
    f.bytes as f64 / f.compressed_bytes as f64
}

fn gb_per_s(bytes: usize, seconds: f64) -> f64 {
    bytes as f64 / seconds.max(1e-9) / 1e9
}

pub(crate) fn lossless(found: &[Found]) {
    for (kind, codecs) in grouped(found) {
        println!("### {kind}, lossless\n");
        println!("| codec | ratio, median | least–most | with side bytes | encode GB/s | decode GB/s |");
        println!("|---|---|---|---|---|---|");
        for (name, rows) in codecs {
            println!(
                "| {name} | {:.3} | {} | {:.3} | {:.2} | {:.2} |",
                median_of(&rows, ratio),
                spread(&rows, ratio),
                median_of(&rows, |f| f.bytes as f64 / (f.compressed_bytes + f.side_bytes) as f64),
                median_of(&rows, |f| gb_per_s(f.bytes, f.encode_s)),
                median_of(&rows, |f| gb_per_s(f.bytes, f.decode_s)),
            );
        }
        println!();
    }
}

pub(crate) fn surroundings(files: &[Vec<(&'static str, f64)>]) {
    println!("### Around the codecs\n\n| what | GB/s |\n|---|---|");
    let names: Vec<&str> = files.first().map_or_else(Vec::new, |f| f.iter().map(|(n, _)| *n).collect());
    for (i, name) in names.into_iter().enumerate() {
        println!("| {name} | {:.1} |", median(&mut files.iter().map(|f| f[i].1).collect::<Vec<_>>()));
    }
    println!();
}

pub(crate) fn lossy(found: &[Found]) {
    println!("### Lossy\n\n| kind | codec | ratio, median | least–most | least similarity | encode GB/s | decode GB/s |");
    println!("|---|---|---|---|---|---|---|");
    for (kind, codecs) in grouped(found) {
        for (name, rows) in codecs {
            let least = rows.iter().filter_map(|f| f.similarity).fold(1.0, f64::min);
            println!(
                "| {kind} | {name} | {:.3} | {} | {least:.5} | {:.3} | {:.3} |",
                median_of(&rows, ratio),
                spread(&rows, ratio),
                median_of(&rows, |f| gb_per_s(f.bytes, f.encode_s)),
                median_of(&rows, |f| gb_per_s(f.bytes, f.decode_s)),
            );
        }
    }
    println!();
}

/// Time to encode, send and decode all activations; a codec that scored half the rows counts twice.
pub(crate) fn links(found: &[Found]) {
    let mut files: BTreeMap<&str, Vec<&Found>> = BTreeMap::new();
    for f in found.iter().filter(|f| kind(&f.file) == "act") {
        files.entry(&f.file).or_default().push(f);
    }
    println!("### Moving all activations: encode, send, decode, one after the other\n");
    println!("| codec | 100 Mbit/s, ms | 1 Gbit/s, ms |\n|---|---|---|");
    let links = [12.5e6, 125e6];
    let mut totals: Vec<(String, [f64; 2])> = Vec::new();
    let mut add = |name: &str, ms: [f64; 2]| match totals.iter_mut().find(|(n, _)| n == name) {
        Some((_, t)) => t.iter_mut().zip(ms).for_each(|(t, m)| *t += m),
        None => totals.push((name.to_owned(), ms)),
    };
    for rows in files.values() {
        let whole = rows.iter().map(|f| f.bytes).max().unwrap_or(0) as f64;
        let time = |f: &Found, link: f64| {
            let scale = whole / f.bytes as f64;
            1e3 * scale * (f.encode_s + f.compressed_bytes as f64 / link + f.decode_s)
        };
        add("raw", links.map(|link| 1e3 * whole / link));
        let ours = ["fast", "huffman", "context", "predictive"];
        let best = |link: f64| {
            let mine = rows.iter().filter(|f| ours.contains(&f.codec.as_str())).map(|f| time(f, link));
            mine.fold(1e3 * whole / link, f64::min)
        };
        add("best of ours for each tensor", links.map(best));
        for f in rows {
            add(&f.codec, links.map(|link| time(f, link)));
        }
    }
    for (name, [slow, quick]) in totals {
        println!("| {name} | {slow:.1} | {quick:.2} |");
    }
}
