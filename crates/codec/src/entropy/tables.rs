//! Frequency tables of a set of contexts: normalised, sent, read.

use super::range::{Decoder, EVEN, Encoder, Probability};

/// Bits of a frequency's unit: frequencies of a context sum to `2^SCALE_BITS`.
pub(crate) const SCALE_BITS: u32 = 11;
/// Sum of a context's frequencies.
pub(crate) const SCALE: u32 = 1 << SCALE_BITS;

/// Frequencies of every symbol in every context; a context that never occurs has all zeros.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Tables {
    pub(crate) frequencies: Vec<[u16; 256]>,
}

impl Tables {
    /// Scales counts so that every symbol that occurs keeps at least 1.
    pub(crate) fn normalize(counts: &[[u32; 256]]) -> Self {
        Self { frequencies: counts.iter().map(normalize_one).collect() }
    }

    /// Writes the tables; contexts with similar tables should lie side by side.
    pub(crate) fn write(&self, encoder: &mut Encoder) {
        let used = |s: &usize| self.frequencies.iter().any(|f| f[*s] > 0);
        let low = (0..256).find(used).unwrap_or(0);
        let high = (0..256).rev().find(used).unwrap_or(0);
        encoder.direct(low as u32, 8);
        encoder.direct(high as u32, 8);
        let mut model = LengthModel::new();
        let mut before = [0_u16; 256];
        for table in &self.frequencies {
            let empty = table.iter().all(|&f| f == 0);
            encoder.direct(u32::from(empty), 1);
            if empty {
                continue;
            }
            for s in low..=high {
                model.write(encoder, table[s], before[s]);
            }
            before = *table;
        }
    }

    /// Reads `contexts` tables; an error is a reason.
    pub(crate) fn read(decoder: &mut Decoder<'_>, contexts: usize) -> Result<Self, &'static str> {
        let low = decoder.direct(8) as usize;
        let high = decoder.direct(8) as usize;
        if low > high {
            return Err("range of symbols is empty");
        }
        let mut model = LengthModel::new();
        let mut frequencies = vec![[0_u16; 256]; contexts];
        let mut before = [0_u16; 256];
        for table in &mut frequencies {
            if decoder.direct(1) == 1 {
                continue;
            }
            let mut sum = 0_u32;
            for s in low..=high {
                table[s] = model.read(decoder, before[s]);
                sum += u32::from(table[s]);
            }
            if sum != SCALE {
                return Err("frequencies have the wrong sum");
            }
            before = *table;
        }
        Ok(Self { frequencies })
    }
}

fn normalize_one(counts: &[u32; 256]) -> [u16; 256] {
    let total: u64 = counts.iter().map(|&c| u64::from(c)).sum();
    let mut table = [0_u16; 256];
    if total == 0 {
        return table;
    }
    let mut sum = 0_i32;
    for (t, &c) in table.iter_mut().zip(counts) {
        if c > 0 {
            let scaled = (u64::from(c) * u64::from(SCALE) + total / 2) / total;
            *t = scaled.max(1) as u16;
            sum += i32::from(*t);
        }
    }
    // Take the difference from, or give it to, the largest, a share at a time.
    let mut over = sum - SCALE as i32;
    while over != 0 {
        let (s, &most) = table.iter().enumerate().max_by_key(|&(s, &f)| (f, 256 - s)).expect("256 entries");
        let step = if over > 0 { over.min(i32::from(most) / 4).max(1) } else { over };
        table[s] = (i32::from(most) - step) as u16;
        over -= step;
    }
    table
}

/// Frequencies as bit length, in the context of the previous table's, and the bits below the first.
struct LengthModel {
    trees: [[Probability; 16]; 13],
    below: [Probability; 13],
}

const fn bit_length(f: u16) -> u32 {
    16 - f.leading_zeros()
}

impl LengthModel {
    const fn new() -> Self {
        Self { trees: [[EVEN; 16]; 13], below: [EVEN; 13] }
    }

    fn write(&mut self, encoder: &mut Encoder, f: u16, before: u16) {
        let length = bit_length(f);
        encoder.tree(&mut self.trees[bit_length(before) as usize], 4, length);
        if length > 1 {
            let below = u32::from(f) & ((1 << (length - 1)) - 1);
            encoder.bit(&mut self.below[length as usize], below >> (length - 2) & 1 == 1);
            encoder.direct(below, length - 2);
        }
    }

    fn read(&mut self, decoder: &mut Decoder<'_>, before: u16) -> u16 {
        let length = decoder.tree(&mut self.trees[bit_length(before) as usize], 4).min(12);
        if length < 2 {
            return length as u16;
        }
        let top = u32::from(decoder.bit(&mut self.below[length as usize]));
        // At most 2^12 - 1, and a sum other than 2^11 is refused, so `bit_length` stays below 13.
        ((2 | top) << (length - 2) | decoder.direct(length - 2)) as u16
    }
}
