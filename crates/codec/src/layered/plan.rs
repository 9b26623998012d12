//! What an encoder decides before it codes: offsets and layers, from a sample.
//!
//! Integers only, so that every machine decides alike.

use super::{CHUNK, MAX_LAYERS, Offsets};
use crate::simd::Layer;

/// How much the layers may cost in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effort {
    /// One window of seven exponents: near the speed of memory.
    Window,
    /// Layers that come close to Huffman's lengths.
    Layers,
}

/// Symbols looked at when layers and offsets are chosen, in runs.
const SAMPLE: usize = 1 << 14;
const WINDOW_SAMPLE: usize = 1 << 12;
const SMALL_SAMPLE: usize = 1 << 9;
const RUN: usize = 128;
/// Rows looked at when column offsets are estimated.
const SAMPLE_ROWS: usize = 64;
/// Elements in a row between the starts of the runs of 32 that are looked at when its offset is estimated.
const ROW_STRIDE: usize = 128;
const WINDOW_ROW_STRIDE: usize = 512;
/// Fewer elements than this pay more for offsets than they gain.
const MIN_OFFSET_ELEMENTS: usize = 4096;
/// Rows as long as these are treated as they are; others are cut to the second number.
const ROW_LENGTHS: std::ops::RangeInclusive<usize> = 16..=8192;
const CUT_ROW: usize = 1024;
/// Bits that a layer costs in every chunk whatever it holds: its share of cut planes.
const LAYER_BITS: u64 = 16;

/// The choices of one tensor.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) offsets: Offsets,
    pub(crate) layers: Vec<Layer>,
}

impl Plan {
    /// Chooses for `words`, laid out in rows of `cols` elements.
    pub(crate) fn choose(effort: Effort, words: &[u8], rotate: bool, cols: usize) -> Self {
        let n = words.len() / 2;
        let (most, share) = if effort == Effort::Window { (WINDOW_SAMPLE, 4) } else { (SAMPLE, 2) };
        // Small tensors would pay more for a full count than it gains.
        let sample = (n / share).clamp(SMALL_SAMPLE, most);
        let sample =
            if rotate { Sample::take::<true>(words, sample) } else { Sample::take::<false>(words, sample) };
        let plain = sample.histogram(&Offsets::none());
        let mut best = Self { layers: plain.layers(effort, n), offsets: Offsets::none() };
        if n < MIN_OFFSET_ELEMENTS {
            return best;
        }
        let mut best_bits = plain.bits(&best.layers, n);
        let period = if ROW_LENGTHS.contains(&cols) { cols } else { CUT_ROW };
        let stride = if effort == Effort::Window { WINDOW_ROW_STRIDE } else { ROW_STRIDE };
        let means = if rotate {
            Means::estimate::<true>(words, period, stride)
        } else {
            Means::estimate::<false>(words, period, stride)
        };
        for offsets in means.candidates(cols) {
            let histogram = sample.histogram(&offsets);
            let layers = histogram.layers(effort, n);
            let side = 8 * (offsets.rows.len() + offsets.cols.len() + 4) as u64;
            let bits = histogram.bits(&layers, n) + side;
            // Half a percent of the payload must be won, or the offsets are not worth their time.
            if bits + (8 * n as u64 + bits) / 200 < best_bits {
                best_bits = bits;
                best = Self { offsets, layers };
            }
        }
        best
    }
}

#[inline]
fn symbol<const ROTATE: bool>(word: [u8; 2]) -> u16 {
    let word = u16::from_le_bytes(word);
    if ROTATE { word >> 7 & 0xff } else { word >> 8 }
}

/// Sum of the symbols of at most 256 words.
#[inline]
fn sum<const ROTATE: bool>(words: &[[u8; 2]]) -> u32 {
    let (eights, rest) = words.as_chunks::<8>();
    let mut lanes = [0_u16; 8];
    for eight in eights {
        for (l, &w) in lanes.iter_mut().zip(eight) {
            *l += symbol::<ROTATE>(w);
        }
    }
    let rest: u32 = rest.iter().map(|&w| u32::from(symbol::<ROTATE>(w))).sum();
    lanes.iter().map(|&l| u32::from(l)).sum::<u32>() + rest
}

/// Mean exponents of rows and columns, rounded down, which measures better than to the nearest: the exponents of a
/// Gaussian have their long tail below.
struct Means {
    period: usize,
    rows: Vec<u8>,
    cols: Vec<u8>,
    all: u8,
}

impl Means {
    fn estimate<const ROTATE: bool>(words: &[u8], period: usize, stride: usize) -> Self {
        const RUN: usize = 32;
        let words = words.as_chunks::<2>().0;
        let row_count = words.len().div_ceil(period);
        let mut rows = Vec::with_capacity(row_count);
        for row in words.chunks(period) {
            // Spread over the row in runs, so that a few columns do not decide.
            let (mut total, mut n) = (0, 0);
            for run in row.chunks(stride) {
                let run = &run[..run.len().min(RUN)];
                total += sum::<ROTATE>(run);
                n += run.len() as u32;
            }
            rows.push((total / n) as u8);
        }
        let mut sums = vec![0_u16; period];
        let step = row_count.div_ceil(SAMPLE_ROWS);
        let mut sampled = 0;
        for row in words.chunks_exact(period).step_by(step) {
            for (s, &w) in sums.iter_mut().zip(row) {
                *s += symbol::<ROTATE>(w);
            }
            sampled += 1;
        }
        let sampled = u16::max(sampled, 1);
        let cols: Vec<u8> = sums.iter().map(|&s| (s / sampled) as u8).collect();
        let all = cols.iter().map(|&c| u64::from(c)).sum::<u64>() / period as u64;
        Self { period, rows, cols, all: all as u8 }
    }

    /// Offsets worth trying.
    fn candidates(self, cols_known: usize) -> Vec<Offsets> {
        let Self { period, rows, cols, all } = self;
        let rows_only = Offsets { period, rows: rows.clone(), cols: Vec::new() };
        if cols_known != period {
            return vec![rows_only];
        }
        let cols_only = Offsets { period, rows: Vec::new(), cols: cols.clone() };
        let centred = cols.iter().map(|c| c.wrapping_sub(all)).collect();
        vec![rows_only, cols_only, Offsets { period, rows, cols: centred }]
    }
}

/// Symbols of runs spread over the tensor.
struct Sample {
    symbols: Vec<u8>,
    /// First element of each run.
    starts: Vec<usize>,
}

impl Sample {
    fn take<const ROTATE: bool>(words: &[u8], size: usize) -> Self {
        let words = words.as_chunks::<2>().0;
        // An odd stride in units of runs visits all columns.
        let stride = RUN * ((words.len() / size).max(1) | 1);
        let mut symbols = Vec::with_capacity(words.len().min(2 * size));
        let mut starts = Vec::with_capacity(words.len() / stride + 1);
        for start in (0..words.len()).step_by(stride) {
            let run = &words[start..(start + RUN).min(words.len())];
            symbols.extend(run.iter().map(|&w| symbol::<ROTATE>(w) as u8));
            starts.push(start);
        }
        Self { symbols, starts }
    }

    fn histogram(&self, offsets: &Offsets) -> Histogram {
        let mut tables = [[0_u32; 256]; 4];
        let mut run_offsets = [0_u8; RUN];
        for (run, &start) in self.symbols.chunks(RUN).zip(&self.starts) {
            offsets.fill(start, run.len(), &mut run_offsets);
            let (fours, rest) = run.as_chunks::<4>();
            for (four, o) in fours.iter().zip(run_offsets.as_chunks::<4>().0) {
                for i in 0..4 {
                    tables[i][usize::from(four[i].wrapping_sub(o[i]))] += 1;
                }
            }
            for (&s, &o) in rest.iter().zip(&run_offsets[4 * fours.len()..]) {
                tables[0][usize::from(s.wrapping_sub(o))] += 1;
            }
        }
        let counts: [u32; 256] = std::array::from_fn(|i| tables.iter().map(|t| t[i]).sum());
        Histogram { counts, total: counts.iter().sum() }
    }
}

/// Counts of sampled symbols.
struct Histogram {
    counts: [u32; 256],
    total: u32,
}

impl Histogram {
    /// Bits of `n` symbols under `layers`.
    fn bits(&self, layers: &[Layer], n: usize) -> u64 {
        let mut left = self.counts;
        let mut remaining = u64::from(self.total);
        let mut bits = 0;
        for layer in layers {
            bits += remaining * u64::from(layer.bits);
            for code in 0..(1_u8 << layer.bits) - 1 {
                let [low, ..] = layer.symbols;
                let s =
                    if layer.bits == 3 { low.wrapping_add(code) } else { layer.symbols[usize::from(code)] };
                remaining -= u64::from(std::mem::take(&mut left[usize::from(s)]));
            }
        }
        (bits + 8 * remaining) * n as u64 / u64::from(self.total.max(1))
    }

    fn layers(&self, effort: Effort, n: usize) -> Vec<Layer> {
        let window = self.window();
        if effort == Effort::Window {
            return vec![window];
        }
        let sorted = self.sorted(&[]);
        let layers = self.best_layers(&sorted, n);
        let mut windowed = vec![window];
        let taken: Vec<u8> = (0..7).map(|i| window.symbols[0].wrapping_add(i)).collect();
        windowed.extend(self.best_layers(&self.sorted(&taken), n));
        windowed.truncate(MAX_LAYERS);
        if layers.is_empty() || self.bits(&windowed, n) < self.bits(&layers, n) { windowed } else { layers }
    }

    /// The seven consecutive symbols with the most counts.
    fn window(&self) -> Layer {
        let mut sum: u32 = self.counts[..7].iter().sum();
        let (mut most, mut low) = (sum, 0_u8);
        for at in 1..=255_u8 {
            sum += self.counts[usize::from(at.wrapping_add(6))];
            sum -= self.counts[usize::from(at - 1)];
            if sum > most {
                (most, low) = (sum, at);
            }
        }
        Layer { bits: 3, symbols: [low; 3] }
    }

    /// Symbols that occur and are not in `taken`, most frequent first.
    fn sorted(&self, taken: &[u8]) -> Vec<(u32, u8)> {
        let mut sorted: Vec<(u32, u8)> = (0..=255_u8)
            .map(|s| (self.counts[usize::from(s)], s))
            .filter(|(c, s)| *c > 0 && !taken.contains(s))
            .collect();
        sorted.sort_unstable_by_key(|&(c, s)| (std::cmp::Reverse(c), s));
        sorted
    }

    /// The sequence of layers of 1 and 2 bits with the fewest bits, by dynamic programming over the sorted symbols.
    fn best_layers(&self, sorted: &[(u32, u8)], n: usize) -> Vec<Layer> {
        let m = sorted.len();
        // In units of one sampled symbol's bit: what a layer costs in all chunks.
        let chunks = n.div_ceil(CHUNK) as u64;
        let fixed = LAYER_BITS * chunks * u64::from(self.total) / (n as u64).max(1);
        let mut after = vec![0_u64; m + 1];
        for i in (0..m).rev() {
            after[i] = after[i + 1] + u64::from(sorted[i].0);
        }
        let mut cost = vec![0_u64; m + 1];
        let mut bits = vec![0_u8; m + 1];
        for i in (0..m).rev() {
            cost[i] = 8 * after[i];
            for b in [1_u8, 2] {
                let next = (i + (1 << b) - 1).min(m);
                let total = u64::from(b) * after[i] + fixed + cost[next];
                if total < cost[i] {
                    (cost[i], bits[i]) = (total, b);
                }
            }
        }
        let mut layers = Vec::new();
        let mut at = 0;
        while at < m && bits[at] > 0 && layers.len() < MAX_LAYERS {
            let take = &sorted[at..(at + (1 << bits[at]) - 1).min(m)];
            let mut symbols = [take[0].1; 3];
            for (s, t) in symbols.iter_mut().zip(take) {
                *s = t.1;
            }
            layers.push(Layer { bits: bits[at], symbols });
            at += take.len();
        }
        layers
    }
}
