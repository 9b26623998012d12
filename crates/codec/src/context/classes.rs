//! Scales of rows and classes of columns: what chooses a symbol's table.

use super::{fresh_tree, offsets_of};
use crate::entropy::range::{Decoder, Encoder};
use crate::fixed::log2_q16;
use crate::layered::Offsets;
use crate::simd::Level;

/// Most classes of columns.
const MAX_CLASSES: usize = 64;
/// Elements that a class should have at least, to be worth its tables.
const CLASS_ELEMENTS: usize = 12_288;
/// Elements that a step of the rows' scale should have at least.
const STEP_ELEMENTS: usize = 32_768;
/// Rows whose exponents are counted for the classes.
const SAMPLE_ROWS: usize = 768;
/// Bins of a column's histogram: 32 exponents by sign.
const BINS: usize = 64;
/// Rounds of the clustering.
const ROUNDS: usize = 4;

/// Scales of rows and classes of columns.
#[derive(Debug)]
pub(crate) struct Classes {
    /// Classes of columns, 1 to 64.
    pub(crate) count: u8,
    /// Steps of an octave in the rows' scales: 1, 2 or 4.
    pub(crate) steps: u8,
    /// Mean exponent of each row in `1 / steps`, rounded down: below 1024.
    rows: Vec<u16>,
    /// Class of each column.
    cols: Vec<u8>,
}

impl Classes {
    /// Chooses for `words` in rows of `period`.
    pub(crate) fn choose(level: Level, words: &[u8], rotate: bool, period: usize) -> Self {
        let n = words.len() / 2;
        let classes = (n / CLASS_ELEMENTS).clamp(1, MAX_CLASSES.min((period / 4).max(1)));
        let per_class = n / classes;
        let steps: u8 = match (n / STEP_ELEMENTS, per_class / (CLASS_ELEMENTS / 4)) {
            (0, _) => 1,
            (1..4, _) | (_, 0..6) => 2,
            _ => 4,
        };
        let words = words.as_chunks::<2>().0;
        let rows = level.run(
            #[inline(always)]
            || {
                if rotate {
                    row_scales::<1>(words, period, steps)
                } else {
                    row_scales::<0>(words, period, steps)
                }
            },
        );
        if classes == 1 {
            return Self { count: 1, steps, rows, cols: vec![0; period] };
        }
        let whole = |v: &u16| (v / u16::from(steps)) as u8;
        let turn = u32::from(rotate);
        let histograms = histograms(words, turn, period, rows.iter().map(whole));
        let cols = level.run(
            #[inline(always)]
            || cluster(&histograms, classes),
        );
        Self { count: classes as u8, steps, rows, cols }
    }

    /// Number of contexts.
    pub(crate) fn contexts(&self) -> usize {
        usize::from(self.count) * usize::from(self.steps)
    }

    /// What to subtract from exponents, and the context of every element.
    pub(crate) fn offsets(&self, period: usize) -> (Offsets, Offsets) {
        let steps = u16::from(self.steps);
        let exponents = self.rows.iter().map(|v| (v / steps) as u8).collect();
        let fractions = self.rows.iter().map(|v| (v % steps) as u8 * self.count).collect();
        (offsets_of(period, exponents, Vec::new()), offsets_of(period, fractions, self.cols.clone()))
    }

    pub(crate) fn write(&self, side: &mut Encoder) {
        let mut tree = fresh_tree(10);
        for &row in &self.rows {
            side.tree(&mut tree, 10, u32::from(row));
        }
        if self.count > 1 {
            let mut tree = fresh_tree(6);
            for &col in &self.cols {
                side.tree(&mut tree, 6, u32::from(col));
            }
        }
    }

    /// Reads the scales of `rows` rows and the classes of `period` columns; classes out of range mean the last.
    pub(crate) fn read(side: &mut Decoder<'_>, classes: u8, steps: u8, rows: usize, period: usize) -> Self {
        let mut tree = fresh_tree(10);
        let rows = (0..rows).map(|_| side.tree(&mut tree, 10) as u16).collect();
        let mut tree = fresh_tree(6);
        let mut class = || (side.tree(&mut tree, 6) as u8).min(classes - 1);
        let cols = if classes > 1 { (0..period).map(|_| class()).collect() } else { vec![0; period] };
        Self { count: classes, steps, rows, cols }
    }
}

#[inline(always)]
fn row_scales<const TURN: u32>(words: &[[u8; 2]], period: usize, steps: u8) -> Vec<u16> {
    let scale = |row: &[[u8; 2]]| {
        let (mut sum, mut count) = (0_u32, 0_u32);
        // Runs whose sums fit 16 bits.
        for run in row.chunks(256) {
            let (mut part, mut some) = (0_u16, 0_u16);
            for w in run {
                let exponent = u16::from_le_bytes(*w).rotate_left(TURN) >> 8;
                part = part.wrapping_add(exponent);
                some += u16::from(exponent > 0);
            }
            sum += u32::from(part);
            count += u32::from(some);
        }
        (sum * u32::from(steps) / count.max(1)) as u16
    };
    words.chunks(period).map(scale).collect()
}

/// Histograms of the columns, bin by bin: sign and 32 exponents around the row's.
fn histograms(
    words: &[[u8; 2]],
    turn: u32,
    period: usize,
    offsets: impl Iterator<Item = u8>,
) -> Vec<[i16; BINS]> {
    let mut histograms = vec![[0_i16; BINS]; period];
    let step = (words.len() / period / SAMPLE_ROWS).max(1);
    for (row, offset) in words.chunks_exact(period).zip(offsets).step_by(step).take(2 * SAMPLE_ROWS) {
        for (h, w) in histograms.iter_mut().zip(row) {
            let word = u16::from_le_bytes(*w).rotate_left(turn);
            let exponent = i32::from((word >> 8) as u8) - i32::from(offset) + 22;
            h[exponent.clamp(0, 31) as usize * 2 + usize::from(word & 1)] += 1;
        }
    }
    histograms
}

/// k-means with code length as the distance, in integers; starts from the order of the mean exponents.
#[inline(always)]
fn cluster(histograms: &[[i16; BINS]], classes: usize) -> Vec<u8> {
    let mean =
        |h: &[i16; BINS]| h.iter().enumerate().map(|(i, &c)| (i / 2) as i64 * i64::from(c)).sum::<i64>();
    let mut order: Vec<usize> = (0..histograms.len()).collect();
    order.sort_by_cached_key(|&c| (mean(&histograms[c]), c));
    let mut class = vec![0_u8; histograms.len()];
    for (rank, &col) in order.iter().enumerate() {
        class[col] = (rank * classes / histograms.len()) as u8;
    }
    for _ in 0..ROUNDS {
        let mut sums = vec![[0_u64; BINS]; classes];
        for (h, &k) in histograms.iter().zip(&class) {
            for (s, &c) in sums[usize::from(k)].iter_mut().zip(h) {
                *s += c as u64;
            }
        }
        // Lengths in 1/64 bits; a symbol never seen counts as an eighth of one.
        let lengths: Vec<[i16; BINS]> = sums
            .iter()
            .map(|sums| {
                let total = log2_q16(8 * sums.iter().sum::<u64>() + BINS as u64) >> 10;
                sums.map(|s| (total - (log2_q16(8 * s + 1) >> 10)) as i16)
            })
            .collect();
        for (h, k) in histograms.iter().zip(&mut class) {
            let cost = |l: &[i16; BINS]| -> i32 {
                h.iter().zip(l).map(|(&a, &b)| i32::from(a) * i32::from(b)).sum()
            };
            let (mut best, mut least) = (0, i32::MAX);
            for (i, l) in lengths.iter().enumerate() {
                let cost = cost(l);
                if cost < least {
                    (best, least) = (i, cost);
                }
            }
            *k = best as u8;
        }
    }
    class
}
