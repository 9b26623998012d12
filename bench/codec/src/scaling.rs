//! Speed with several threads, each on its share of a tensor's rows.

use crate::{File, SIMILARITY};
use codec::bench::{Prepared, Subject, median};
use codec::{CodecId, Level, Target};
use std::collections::BTreeMap;
use std::time::Instant;

/// Timed rounds.
const ROUNDS: usize = 9;
const CODECS: [&str; 7] = ["fast", "huffman", "context", "predictive", "uniform", "int8", "klt"];

/// Measures on files of 2 MiB and more, and prints.
pub(crate) fn run(files: &[File]) -> anyhow::Result<()> {
    let most = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let counts: Vec<usize> = std::iter::successors(Some(1), |n| Some(n * 2)).take_while(|n| *n <= most).collect();
    let large: Vec<&File> = files.iter().filter(|file| file.bytes.len() >= 2 << 20).collect();
    println!(
        "### Several threads\n\nEach thread has its share of a tensor's rows; {} tensors of 2 MiB and more, wall clock, \
         medians of {ROUNDS} rounds, then the median over tensors (least–most); encoding with its checksum. `copy` \
         is memory to memory.\n",
        large.len()
    );
    println!("| codec | threads | encode GB/s | decode GB/s | encode against 1 | decode against 1 |\n|---|---|---|---|---|---|");
    let mut first: BTreeMap<&str, Vec<[f64; 2]>> = BTreeMap::new();
    for name in CODECS.into_iter().chain(["copy"]) {
        for &threads in &counts {
            let mut speeds = Vec::new();
            for file in &large {
                speeds.push(if name == "copy" { copy(file, threads) } else { coded(file, name, threads)? });
            }
            let alone = first.entry(name).or_insert_with(|| speeds.clone());
            let column = |field: usize| spread(speeds.iter().map(|s| s[field]).collect());
            let against =
                |field: usize| spread(speeds.iter().zip(alone.iter()).map(|(s, a)| s[field] / a[field]).collect());
            println!(
                "| {name} | {threads} | {} | {} | {} | {} |",
                column(0),
                column(1),
                against(0),
                against(1)
            );
        }
    }
    println!();
    Ok(())
}

/// GB/s of encoding and decoding.
fn coded(file: &File, name: &str, threads: usize) -> anyhow::Result<[f64; 2]> {
    let start = Instant::now();
    let clock = || start.elapsed().as_secs_f64();
    let subject = Subject::Codec(name.parse::<CodecId>()?);
    let prepared = Prepared::new(Level::detect(), subject, Target::similarity(SIMILARITY)?, file.tensor()?)?;
    let m = prepared.measure_threads(threads, ROUNDS, &clock)?;
    let gb_per_s = |seconds: f64| m.bytes as f64 / seconds.max(1e-9) / 1e9;
    Ok([gb_per_s(m.encode_s), gb_per_s(m.decode_s)])
}

fn copy(file: &File, threads: usize) -> [f64; 2] {
    let share = file.bytes.len().div_ceil(threads);
    let mut to = vec![1_u8; file.bytes.len()];
    let barrier = std::sync::Barrier::new(threads);
    let times: Vec<Vec<f64>> = std::thread::scope(|scope| {
        let barrier = &barrier;
        let handles: Vec<_> = file
            .bytes
            .chunks(share)
            .zip(to.chunks_mut(share))
            .map(|(from, to)| {
                scope.spawn(move || {
                    let mut times = Vec::new();
                    for _ in 0..ROUNDS {
                        barrier.wait();
                        let start = Instant::now();
                        to.copy_from_slice(std::hint::black_box(from));
                        std::hint::black_box(&to);
                        times.push(start.elapsed().as_secs_f64());
                    }
                    times
                })
            })
            .collect();
        handles.into_iter().filter_map(|handle| handle.join().ok()).collect()
    });
    let slowest = |round: usize| times.iter().map(|t| t[round]).fold(0.0, f64::max);
    let seconds = median(&mut (0..ROUNDS).map(slowest).collect::<Vec<_>>());
    [file.bytes.len() as f64 / seconds / 1e9; 2]
}

fn spread(mut values: Vec<f64>) -> String {
    let middle = median(&mut values);
    let (least, most) = (values.first().copied().unwrap_or(0.0), values.last().copied().unwrap_or(0.0));
    format!("{middle:.2} ({least:.2}–{most:.2})")
}
