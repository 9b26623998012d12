//! Inputs from inputs: a seeded generator, the same on every machine.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use crate::{Target, kept};

/// Longest input, bytes.
const MAX_INPUT_BYTES: usize = 1 << 16;
/// Most inputs that are mutated further.
const MAX_POOL: usize = 4096;
/// An input that takes longer has found something, too.
const SLOW: Duration = Duration::from_secs(10);

/// Splitmix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n.max(1) as u64) as usize
    }
}

/// One to eight changes: a bit, a byte, a small or extreme number, a piece cut, doubled or taken from another input.
fn mutate(r: &mut Random, seeds: usize, pool: &[Vec<u8>]) -> Vec<u8> {
    // Without coverage to tell good inputs from bad, most start from a seed.
    let from = if r.below(8) == 0 { pool.len() } else { seeds };
    let mut input = pool[r.below(from)].clone();
    for _ in 0..=r.below(8) {
        let at = r.below(input.len());
        let length = 1 + r.below(16).min(input.len().saturating_sub(at + 1));
        match r.below(9) {
            _ if input.is_empty() => input.push(r.next() as u8),
            0 => input[at] ^= 1 << r.below(8),
            1 => input[at] = r.next() as u8,
            2 => input[at] = [0, 1, 0x7f, 0x80, 0xfe, 0xff][r.below(6)],
            3 => {
                let number =
                    [0_u32, 1, 0x7fff_ffff, 0x8000_0000, u32::MAX, r.next() as u32 & 0xffff][r.below(6)];
                for (b, v) in input[at..].iter_mut().zip(number.to_le_bytes()) {
                    *b = v;
                }
            }
            4 => drop(input.drain(at..at + length)),
            5 => {
                let piece = input[at..at + length].to_vec();
                input.splice(at..at, piece);
            }
            6 if r.below(4) == 0 => input.truncate(at),
            _ => {
                let other = &pool[r.below(pool.len())];
                let from = r.below(other.len());
                let end = (from + 1 + r.below(64)).min(other.len());
                let upto = (at + end - from).min(input.len());
                input.splice(at..upto, other[from.min(end)..end].iter().copied());
            }
        }
    }
    input.truncate(MAX_INPUT_BYTES);
    input
}

/// An input that found something.
#[derive(Debug)]
pub struct Found {
    /// The input.
    pub input: Vec<u8>,
    /// What it did.
    pub what: String,
}

/// Tries mutated inputs on a target until `more` says no; `before` sees each one first. The number of inputs tried.
///
/// # Errors
/// An input makes the target panic, or takes longer than ten seconds.
pub fn run(
    &(name, target, seeds): &Target,
    seed: u64,
    mut more: impl FnMut(u64) -> bool,
    mut before: impl FnMut(&[u8]),
) -> Result<u64, Found> {
    let mut pool = seeds();
    pool.extend(kept(name));
    let seed_count = pool.len();
    let mut r = Random(seed);
    let mut tried = 0;
    while more(tried) {
        let input = mutate(&mut r, seed_count, &pool);
        before(&input);
        let start = Instant::now();
        let quiet = catch_unwind(AssertUnwindSafe(|| target(&input)));
        let what = match quiet {
            Err(_) => format!("input {tried} of seed {seed} panics"),
            Ok(()) if start.elapsed() > SLOW => {
                format!("input {tried} of seed {seed} takes {:?}", start.elapsed())
            }
            Ok(()) => {
                tried += 1;
                // A few inputs are mutated further, so that changes add up.
                if r.below(16) == 0 {
                    if pool.len() < seed_count + MAX_POOL {
                        pool.push(input);
                    } else {
                        let at = seed_count + r.below(MAX_POOL);
                        pool[at] = input;
                    }
                }
                continue;
            }
        };
        return Err(Found { input, what: format!("{name}: {what}") });
    }
    Ok(tried)
}
