//! Sizes of rows and columns, in quarters of an octave: low bits of a row, context of an element.

use crate::context::{fresh_tree, offsets_of};
use crate::entropy::range::{Decoder, Encoder};
use crate::fixed::log2_q16;
use crate::layered::Offsets;

/// Bits of a row's level in the side information.
const ROW_BITS: u32 = 7;
/// Bits of a column's.
const COL_BITS: u32 = 5;
/// From this level on — a mean magnitude of 8 — a row keeps low bits apart.
const LOW_FROM: u8 = 32;
/// Most steps between the rows' least and largest contexts.
const ROW_RANGE: u8 = 28;
/// Most steps between the columns'.
const COL_RANGE: u8 = 19;
/// Fewer elements than these make contexts of two or four steps.
const FINE_ELEMENTS: usize = 1 << 16;
const COARSE_ELEMENTS: usize = 1 << 13;

/// Levels of all rows and columns.
#[derive(Debug)]
pub(crate) struct Levels {
    /// Mean magnitude of each row in 1/64: its logarithm in quarters.
    rows: Vec<u8>,
    /// Steps above the smallest column, after the rows' low bits went.
    cols: Vec<u8>,
    /// Steps that share a context, as a shift.
    coarse: u32,
    contexts: usize,
}

/// The logarithm of `sum / count` in quarters of an octave above 1/64.
fn quarters(sum: u64, count: usize) -> u8 {
    (log2_q16(sum * 64 / count.max(1) as u64 + 1) >> 14) as u8
}

impl Levels {
    /// The level of a row from the sum of its magnitudes.
    #[inline(always)]
    pub(crate) fn of_row(sum: u64, length: usize) -> u8 {
        quarters(sum, length).min((1 << ROW_BITS) - 1)
    }

    /// Low bits of the elements of a row.
    #[inline(always)]
    pub(crate) const fn shift(level: u8) -> u32 {
        if level < LOW_FROM { 0 } else { (level - LOW_FROM) as u32 / 4 }
    }

    pub(crate) fn shift_of(&self, row: usize) -> u32 {
        Self::shift(self.rows[row])
    }

    /// Levels of `n` elements from those of the rows and the sums of the columns' magnitudes without low bits.
    pub(crate) fn new(rows: Vec<u8>, sums: &[u32], n: usize) -> Self {
        let cols: Vec<u8> = sums.iter().map(|&s| quarters(u64::from(s), rows.len())).collect();
        let most = cols.iter().copied().max().unwrap_or(0);
        let least = cols.iter().copied().min().unwrap_or(0).max(most.saturating_sub(COL_RANGE));
        Self::with(rows, cols.into_iter().map(|c| c.saturating_sub(least)).collect(), n)
    }

    fn with(rows: Vec<u8>, cols: Vec<u8>, n: usize) -> Self {
        let coarse = u32::from(n < FINE_ELEMENTS) + u32::from(n < COARSE_ELEMENTS);
        let mut levels = Self { rows, cols, coarse, contexts: 0 };
        let most = |v: &mut dyn Iterator<Item = u8>| usize::from(v.max().unwrap_or(0));
        let rows = most(&mut levels.rows.iter().map(|&l| levels.row_context(l)));
        let cols = most(&mut levels.cols.iter().map(|&c| c >> coarse));
        levels.contexts = rows + cols + 1;
        levels
    }

    /// The row's part of a context: its level without low bits, above the least that is told apart.
    fn row_context(&self, level: u8) -> u8 {
        let kept = level - 4 * Self::shift(level) as u8;
        kept.saturating_sub(LOW_FROM + 3 - ROW_RANGE) >> self.coarse
    }

    pub(crate) const fn contexts(&self) -> usize {
        self.contexts
    }

    /// The context of every element.
    pub(crate) fn offsets(&self, period: usize) -> Offsets {
        let rows = self.rows.iter().map(|&l| self.row_context(l)).collect();
        offsets_of(period, rows, self.cols.iter().map(|&c| c >> self.coarse).collect())
    }

    pub(crate) fn write(&self, side: &mut Encoder) {
        let mut tree = fresh_tree(ROW_BITS);
        for &l in &self.rows {
            side.tree(&mut tree, ROW_BITS, u32::from(l));
        }
        let mut tree = fresh_tree(COL_BITS);
        for &l in &self.cols {
            side.tree(&mut tree, COL_BITS, u32::from(l));
        }
    }

    pub(crate) fn read(side: &mut Decoder<'_>, rows: usize, cols: usize, n: usize) -> Self {
        let mut tree = fresh_tree(ROW_BITS);
        let rows = (0..rows).map(|_| side.tree(&mut tree, ROW_BITS) as u8).collect();
        let mut tree = fresh_tree(COL_BITS);
        let cols = (0..cols).map(|_| side.tree(&mut tree, COL_BITS) as u8).collect();
        Self::with(rows, cols, n)
    }
}
