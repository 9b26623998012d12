//! What a small tensor pays beyond its share of a large one's time.

use crate::{File, SIMILARITY};
use codec::bench::{Prepared, Subject, median};
use codec::{CodecId, DType, Level, Target, TensorRef};
use std::time::Instant;

/// Bytes of the small tensor.
const BYTES: usize = 4096;
/// Timed rounds, and calls in each of the small tensor's.
const ROUNDS: usize = 101;
const LARGE_ROUNDS: usize = 5;
const CALLS: usize = 32;
const CODECS: [&str; 7] = ["fast", "huffman", "context", "predictive", "uniform", "int8", "klt"];

/// Measures on files of 2 MiB and more, and prints.
pub(crate) fn run(files: &[File]) -> anyhow::Result<()> {
    let large: Vec<&File> = files.iter().filter(|file| file.bytes.len() >= 2 << 20).collect();
    println!(
        "### A tensor of {BYTES} bytes\n\nThe first rows of {} tensors of 2 MiB and more, one thread, wall clock, into \
         reused buffers; medians of {ROUNDS} rounds of {CALLS} calls, then the median over tensors (least–most). Set-up: \
         the time beyond the small tensor's share of the large one's.\n",
        large.len()
    );
    println!("| codec | encode µs | set-up µs | decode µs | set-up µs | ratio |\n|---|---|---|---|---|---|");
    for name in CODECS {
        let mut rows = Vec::new();
        for file in &large {
            rows.push(one(file, name)?);
        }
        let column = |field: usize, digits: usize| spread(rows.iter().map(|r| r[field]).collect(), digits);
        println!(
            "| {name} | {} | {} | {} | {} | {} |",
            column(0, 1),
            column(1, 1),
            column(2, 1),
            column(3, 1),
            column(4, 2)
        );
    }
    println!();
    Ok(())
}

/// Microseconds to encode, of these set-up, to decode, of these set-up; the ratio.
fn one(file: &File, name: &str) -> anyhow::Result<[f64; 5]> {
    let target = Target::similarity(SIMILARITY)?;
    let prepared = Prepared::new(Level::detect(), Subject::Codec(name.parse::<CodecId>()?), target, file.tensor()?)?;
    let start = Instant::now();
    let whole = prepared.measure(LARGE_ROUNDS, &|| start.elapsed().as_secs_f64())?;
    let scored = prepared.scored()?;
    let cols = scored.rows_cols().1;
    let shape = [BYTES / 2 / cols, cols];
    let small = TensorRef::new(DType::Bf16, &shape, &scored.bytes()[..shape[0] * cols * 2])?;
    let (mut payload, mut decoded) = (Vec::new(), Vec::new());
    let (mut encode_s, mut decode_s) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let start = Instant::now();
        for _ in 0..CALLS {
            payload.clear();
            prepared.encode(small.clone(), &mut payload)?;
        }
        let middle = Instant::now();
        for _ in 0..CALLS {
            prepared.decode(&payload, &mut decoded)?;
        }
        encode_s.push((middle - start).as_secs_f64() / CALLS as f64);
        decode_s.push(middle.elapsed().as_secs_f64() / CALLS as f64);
    }
    let share = small.bytes().len() as f64 / whole.bytes as f64;
    let (encode_s, decode_s) = (median(&mut encode_s), median(&mut decode_s));
    let us = |seconds: f64| 1e6 * seconds;
    Ok([
        us(encode_s),
        us(encode_s - share * whole.encode_s),
        us(decode_s),
        us(decode_s - share * whole.decode_s),
        small.bytes().len() as f64 / payload.len() as f64,
    ])
}

fn spread(mut values: Vec<f64>, digits: usize) -> String {
    let middle = median(&mut values);
    let (least, most) = (values.first().copied().unwrap_or(0.0), values.last().copied().unwrap_or(0.0));
    format!("{middle:.digits$} ({least:.digits$}–{most:.digits$})")
}
