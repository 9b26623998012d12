//! Rows that repeat an earlier row bit for bit: repeated tokens, masked positions.

use crate::entropy::range::{Decoder, EVEN, Encoder};
use std::collections::HashMap;

/// For every row, the row that it repeats.
#[derive(Debug, Default)]
pub(crate) struct Repeats {
    /// Empty when nothing repeats; else one entry a row: `None` for the first of its kind, else the index of that
    /// among the kept rows.
    of: Vec<Option<u32>>,
}

impl Repeats {
    /// Finds rows of `period` words that occur before; none where the last row is partial.
    pub(crate) fn find(words: &[u8], period: usize) -> Self {
        let width = 2 * period;
        if !words.len().is_multiple_of(width) || words.len() / width < 2 {
            return Self::default();
        }
        let mut first: HashMap<u64, (u32, &[u8])> = HashMap::new();
        let mut of = Vec::with_capacity(words.len() / width);
        let mut kept = 0_u32;
        for row in words.chunks_exact(width) {
            let hash = twox_hash::XxHash3_64::oneshot(row);
            let (index, known) = *first.entry(hash).or_insert((kept, row));
            if index < kept && known == row {
                of.push(Some(index));
            } else {
                of.push(None);
                kept += 1;
            }
        }
        if kept as usize == of.len() { Self::default() } else { Self { of } }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.of.is_empty()
    }

    /// Number of rows that repeat another.
    pub(crate) fn count(&self) -> usize {
        self.of.iter().filter(|r| r.is_some()).count()
    }

    /// The rows that repeat none.
    pub(crate) fn keep_first(&self, words: &[u8], period: usize) -> Vec<u8> {
        let rows = words.chunks_exact(2 * period).zip(&self.of);
        rows.filter(|(_, r)| r.is_none()).flat_map(|(row, _)| row).copied().collect()
    }

    /// Moves the kept rows at the front of `words` to their places and copies them to where they repeat.
    pub(crate) fn spread(&self, words: &mut [u8], period: usize) {
        let width = 2 * period;
        // Backwards a kept row's place is never before its index, so nothing is overwritten before it is read; then
        // forwards each repeat copies a row that stands in its place.
        let mut kept = self.of.len() - self.count();
        let mut places = vec![0_u32; kept];
        for (row, r) in self.of.iter().enumerate().rev() {
            if r.is_none() {
                kept -= 1;
                places[kept] = row as u32;
                words.copy_within(kept * width..(kept + 1) * width, row * width);
            }
        }
        for (row, r) in self.of.iter().enumerate() {
            if let Some(index) = r {
                let place = places[*index as usize] as usize;
                words.copy_within(place * width..(place + 1) * width, row * width);
            }
        }
    }

    pub(crate) fn write(&self, side: &mut Encoder) {
        let mut repeated = [EVEN; 2];
        let (mut kept, mut before) = (0_u32, 0);
        for r in &self.of {
            side.bit(&mut repeated[before], r.is_some());
            before = usize::from(r.is_some());
            match r {
                None => kept += 1,
                Some(index) => side.direct(*index, bits_below(kept)),
            }
        }
    }

    /// Reads the repeats of `rows` rows; an index beyond the rows kept so far means the last of them.
    pub(crate) fn read(side: &mut Decoder<'_>, rows: usize) -> Self {
        let mut repeated = [EVEN; 2];
        let (mut kept, mut before) = (0_u32, 0);
        let mut of = Vec::with_capacity(rows);
        for _ in 0..rows {
            // The first row has nothing to repeat.
            let is_repeat = side.bit(&mut repeated[before]) && kept > 0;
            before = usize::from(is_repeat);
            of.push(is_repeat.then(|| side.direct(bits_below(kept)).min(kept - 1)));
            kept += u32::from(!is_repeat);
        }
        Self { of }
    }
}

/// Bits of an index below `count`.
const fn bits_below(count: u32) -> u32 {
    if count < 2 { 0 } else { 32 - (count - 1).leading_zeros() }
}
