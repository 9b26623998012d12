//! Sizes of rows and columns, in quarters of an octave, and low bits of rows: what chooses an element's table.

use crate::context::{fresh_tree, offsets_of};
use crate::entropy::range::{Decoder, Encoder};
use crate::fixed::log2_q16;
use crate::layered::Offsets;

/// Bits of a level in the side information.
const LEVEL_BITS: u32 = 7;
/// Bits of a row's number of low bits there.
const SHIFT_BITS: u32 = 5;
/// Most low bits.
const MAX_SHIFT: u32 = 20;
/// Levels of rows below this — a mean magnitude of 1/19 — are one.
const LEAST_ROW: u8 = 7;
/// Rows shorter than this have no level: columns have.
const LEVEL_ROW: usize = 16;
/// Rows shorter than these have levels in whole octaves, or halves.
const SHORT_ROW: usize = 48;
const LONG_ROW: usize = 128;
/// Most contexts.
const MAX_CONTEXTS: usize = 48;
/// Most steps that share a context, as a shift.
const MAX_COARSE: u32 = 3;
/// Fewer elements than these make contexts of at least two or four steps.
const FINE_ELEMENTS: usize = 1 << 16;
const COARSE_ELEMENTS: usize = 1 << 13;

/// One row: its mean magnitude and its elements' low bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RowLevel {
    /// Mean magnitude in 1/64: its logarithm in quarters.
    level: u8,
    pub(crate) shift: u32,
}

/// Levels of all rows and columns.
#[derive(Debug)]
pub(crate) struct Levels {
    rows: Vec<RowLevel>,
    /// Mean magnitude of each column, after the rows' low bits went, in 1/64: its logarithm in quarters.
    cols: Vec<u8>,
    /// Steps that share a context, as a shift.
    coarse: u32,
    contexts: usize,
}

/// The logarithm of `sum / count` in quarters of an octave above 1/64.
fn quarters(sum: u64, count: usize) -> u8 {
    let quarters = log2_q16(sum * 64 / count.max(1) as u64 + 1) >> 14;
    quarters.min((1 << LEVEL_BITS) - 1) as u8
}

impl RowLevel {
    /// From the sum of the magnitudes and that of the binary logarithms of twice them plus 1, in 1/65536.
    ///
    /// The geometric mean says how many low bits carry no structure: a few large values among small ones, such as the
    /// first components of a transform, must not take them from the small.
    #[inline(always)]
    pub(crate) fn of(sum: u64, logarithms: u64, length: usize) -> Self {
        if length < LEVEL_ROW {
            return Self { level: 0, shift: 0 };
        }
        // A Gaussian's geometric mean is 0.53 of its deviation: from a deviation of 10 on, bits go.
        let octaves = (logarithms / length.max(1) as u64 + (6 << 13)) >> 16;
        let shift = (octaves as u32).saturating_sub(3).min(MAX_SHIFT);
        // Short rows cannot pay for fine levels.
        let step = if length < SHORT_ROW {
            4
        } else if length < LONG_ROW {
            2
        } else {
            1
        };
        Self { level: quarters(sum, length) / step * step, shift }
    }

    /// The row's level without its low bits, above the least that is told apart.
    fn kept(self) -> u8 {
        self.level.saturating_sub(4 * self.shift as u8).max(LEAST_ROW)
    }
}

impl Levels {
    /// Levels of `n` elements from those of the rows and the sums of the columns' magnitudes without low bits.
    pub(crate) fn new(rows: Vec<RowLevel>, sums: &[u32], n: usize) -> Self {
        let cols: Vec<u8> = sums.iter().map(|&s| quarters(u64::from(s), rows.len())).collect();
        let range = |v: &mut dyn Iterator<Item = u8>| {
            let (low, high) = v.fold((u8::MAX, 0), |(l, h), x| (l.min(x), h.max(x)));
            u32::from(high.saturating_sub(low))
        };
        let (row_range, col_range) =
            (range(&mut rows.iter().map(|r| r.kept())), range(&mut cols.iter().copied()));
        let mut coarse = u32::from(n < FINE_ELEMENTS) + u32::from(n < COARSE_ELEMENTS);
        while coarse < MAX_COARSE && (row_range >> coarse) + (col_range >> coarse) + 3 > MAX_CONTEXTS as u32 {
            coarse += 1;
        }
        Self::with(rows, cols, coarse)
    }

    fn with(rows: Vec<RowLevel>, cols: Vec<u8>, coarse: u32) -> Self {
        let mut levels = Self { rows, cols, coarse, contexts: 1 };
        let (rows, cols) = levels.parts();
        let most = |v: &[u8]| usize::from(v.iter().copied().max().unwrap_or(0));
        levels.contexts = most(&rows) + most(&cols) + 1;
        levels
    }

    /// The rows' and columns' shares of a context.
    fn parts(&self) -> (Vec<u8>, Vec<u8>) {
        let above_least = |mut v: Vec<u8>| {
            let least = v.iter().copied().min().unwrap_or(0) >> self.coarse;
            for l in &mut v {
                *l = (*l >> self.coarse) - least;
            }
            v
        };
        (above_least(self.rows.iter().map(|r| r.kept()).collect()), above_least(self.cols.clone()))
    }

    pub(crate) fn shift_of(&self, row: usize) -> u32 {
        self.rows[row].shift
    }

    pub(crate) const fn contexts(&self) -> usize {
        self.contexts
    }

    /// The context of every element.
    pub(crate) fn offsets(&self, period: usize) -> Offsets {
        let (rows, cols) = self.parts();
        offsets_of(period, rows, cols)
    }

    pub(crate) fn write(&self, side: &mut Encoder) {
        side.direct(self.coarse, 2);
        let (mut tree, mut shifts) = (fresh_tree(LEVEL_BITS), fresh_tree(SHIFT_BITS));
        for row in &self.rows {
            side.tree(&mut tree, LEVEL_BITS, u32::from(row.level));
            side.tree(&mut shifts, SHIFT_BITS, row.shift);
        }
        let mut tree = fresh_tree(LEVEL_BITS);
        for &l in &self.cols {
            side.tree(&mut tree, LEVEL_BITS, u32::from(l));
        }
    }

    pub(crate) fn read(side: &mut Decoder<'_>, rows: usize, cols: usize) -> Self {
        let coarse = side.direct(2);
        let (mut tree, mut shifts) = (fresh_tree(LEVEL_BITS), fresh_tree(SHIFT_BITS));
        let mut row = || {
            let level = side.tree(&mut tree, LEVEL_BITS) as u8;
            RowLevel { level, shift: side.tree(&mut shifts, SHIFT_BITS).min(MAX_SHIFT) }
        };
        let rows = (0..rows).map(|_| row()).collect();
        let mut tree = fresh_tree(LEVEL_BITS);
        let cols = (0..cols).map(|_| side.tree(&mut tree, LEVEL_BITS) as u8).collect();
        Self::with(rows, cols, coarse)
    }
}
