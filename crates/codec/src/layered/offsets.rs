//! Expected exponents per row and column, subtracted from symbols before they are coded.

/// Offsets of the symbols; addition wraps at 256. Empty tables stand for zeros.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Offsets {
    /// Elements of a row; at least 1 where a table is not empty.
    pub(crate) period: usize,
    /// One byte for each row.
    pub(crate) rows: Vec<u8>,
    /// One byte for each column.
    pub(crate) cols: Vec<u8>,
}

impl Offsets {
    pub(crate) fn none() -> Self {
        Self::default()
    }

    /// Writes the offsets of `n` elements from element `start` on to the front of `out`.
    pub(crate) fn fill(&self, start: usize, n: usize, out: &mut [u8]) {
        let out = &mut out[..n];
        if self.rows.is_empty() && self.cols.is_empty() {
            out.fill(0);
            return;
        }
        debug_assert!(self.period > 0, "a table has a row length");
        let (mut row, mut col) = (start / self.period, start % self.period);
        let mut at = 0;
        while at < n {
            let len = (self.period - col).min(n - at);
            let part = &mut out[at..at + len];
            let base = self.rows.get(row).copied().unwrap_or(0);
            if let Some(cols) = self.cols.get(col..col + len) {
                for (o, &c) in part.iter_mut().zip(cols) {
                    *o = base.wrapping_add(c);
                }
            } else {
                part.fill(base);
            }
            (at, row, col) = (at + len, row + 1, 0);
        }
    }
}
