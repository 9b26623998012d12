//! Rows that an earlier row foretells: which, and times what.
//!
//! Searched greedily (matching pursuit; Mallat and Zhang, "Matching pursuits with time-frequency dictionaries", 1993)
//! in sketches of the rows: columns folded with pseudo-random signs (count sketch; Charikar, Chen, Farach-Colton, 2002).

use crate::context::fresh_tree;
use crate::entropy::range::{Decoder, EVEN, Encoder, Probability};
use crate::kernel::{Block, ROWS, predict};
use crate::simd::Level;

/// Most rows that one row is predicted from.
pub(crate) const MAX_REFERENCES: usize = 2;
/// Fraction bits of a gain.
const GAIN_BITS: u32 = 4;
/// Bits of a gain in the side information.
const GAIN_FIELD: u32 = 6;
/// Largest magnitude of a gain.
const MAX_GAIN: i32 = (1 << (GAIN_FIELD - 1)) - 1;
/// Numbers of a sketch.
const SKETCH: usize = 64;
/// Norm of a sketch as integers: products of two stay below 2^24.
const NORM: f32 = 4096.0;
/// Rows shorter than this, or fewer, are not searched.
const MIN_COLUMNS: usize = 16;
const MIN_ROWS: usize = 16;
/// Bits that a reference must save beyond its own.
const LEAST_SAVED: f64 = 8.0;
/// Products of an element with candidates, at most on average.
const PRODUCTS: usize = 256;
/// Share of its energy that must be new for a row to be a candidate for later ones.
const NOVEL: f64 = 0.05;
/// Or this, in squared steps an element.
const NEAR: f64 = 1.0;

/// One reference: a row before, and the gain in sixteenths.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Reference {
    row: u32,
    gain: i8,
}

/// References of all rows; empty where no row has any.
#[derive(Debug, Default)]
pub(crate) struct References {
    rows: Vec<[Reference; MAX_REFERENCES]>,
}

impl References {
    /// Searches for `z` in rows of `period`.
    pub(crate) fn find(level: Level, z: &[i32], period: usize) -> Self {
        let count = z.len() / period;
        if period < MIN_COLUMNS || count < MIN_ROWS {
            return Self::default();
        }
        let mut search = Search::new(level, z, period);
        let mut rows: Vec<_> = (0..count).map(|i| search.row(i)).collect();
        if rows.iter().flatten().all(|r| r.gain == 0) {
            return Self::default();
        }
        rows.resize(z.len().div_ceil(period), [Reference::default(); MAX_REFERENCES]);
        Self { rows }
    }

    /// What the references of row `i` say of it; `z` holds the rows before.
    #[inline(always)]
    pub(crate) fn predict(&self, i: usize, z: &[i32], out: &mut [i32]) {
        out.fill(0);
        let Some(references) = self.rows.get(i) else { return };
        if references[0].gain == 0 {
            return;
        }
        // Rows are as long as the first; only the last may be shorter, and it has no references.
        let width = out.len();
        for r in references.iter().filter(|r| r.gain != 0) {
            let at = r.row as usize * width;
            let gain = i32::from(r.gain);
            for (o, &v) in out.iter_mut().zip(&z[at..at + width]) {
                *o = o.wrapping_add(v.wrapping_mul(gain));
            }
        }
        for o in out.iter_mut() {
            *o = o.wrapping_add(1 << (GAIN_BITS - 1)) >> GAIN_BITS;
        }
    }

    pub(crate) fn write(&self, side: &mut Encoder) {
        side.direct(u32::from(!self.rows.is_empty()), 1);
        let mut models = Models::new();
        for (i, references) in self.rows.iter().enumerate() {
            models.before = 0;
            for r in references {
                let bit = r.gain != 0;
                side.bit(models.more(), bit);
                if !bit {
                    break;
                }
                side.direct(r.row, bits_below(i as u32));
                side.tree(&mut models.gains, GAIN_FIELD, (i32::from(r.gain) + MAX_GAIN) as u32);
            }
        }
    }

    /// Reads the references of `count` rows; a row that does not come before means the one just before.
    pub(crate) fn read(side: &mut Decoder<'_>, count: usize) -> Self {
        if side.direct(1) == 0 {
            return Self::default();
        }
        let mut models = Models::new();
        let mut rows = vec![[Reference::default(); MAX_REFERENCES]; count];
        for (i, references) in rows.iter_mut().enumerate() {
            models.before = 0;
            for r in references {
                if !side.bit(models.more()) {
                    break;
                }
                let row = side.direct(bits_below(i as u32)).min((i as u32).saturating_sub(1));
                let gain = side.tree(&mut models.gains, GAIN_FIELD) as i32 - MAX_GAIN;
                // The first row has none before it, and neither has the last if it is cut: both read as none.
                *r = if i == 0 { Reference::default() } else { Reference { row, gain: gain as i8 } };
            }
        }
        Self { rows }
    }

    /// Forgets what a row that is shorter than the others refers to.
    pub(crate) fn clear_last(&mut self) {
        if let Some(last) = self.rows.last_mut() {
            *last = [Reference::default(); MAX_REFERENCES];
        }
    }
}

/// Adaptive odds of the side information.
struct Models {
    more: [Probability; MAX_REFERENCES],
    before: usize,
    gains: Vec<Probability>,
}

impl Models {
    fn new() -> Self {
        Self { more: [EVEN; MAX_REFERENCES], before: 0, gains: fresh_tree(GAIN_FIELD) }
    }

    fn more(&mut self) -> &mut Probability {
        self.before += 1;
        &mut self.more[self.before - 1]
    }
}

/// Bits of an index below `count`.
const fn bits_below(count: u32) -> u32 {
    if count < 2 { 0 } else { 32 - (count - 1).leading_zeros() }
}

/// The encoder's search: sketches of the rows that may be referred to, 64 to a block.
struct Search<'a> {
    level: Level,
    z: &'a [i32],
    period: usize,
    /// Numbers of a sketch that are used.
    width: usize,
    signs: Vec<f32>,
    blocks: Vec<Block>,
    /// Row of each candidate.
    candidates: Vec<u32>,
    /// Most candidates, the latest ones.
    window: usize,
    added: usize,
    rest: Vec<f32>,
}

impl<'a> Search<'a> {
    fn new(level: Level, z: &'a [i32], period: usize) -> Self {
        let sign = |j: usize| if (j as u32).wrapping_mul(0x9e37_79b1) >> 31 == 0 { 1.0 } else { -1.0 };
        Self {
            level,
            z,
            period,
            width: period.min(SKETCH),
            signs: (0..period).map(|j| if period <= SKETCH { 1.0 } else { sign(j) }).collect(),
            blocks: Vec::new(),
            candidates: Vec::new(),
            window: (PRODUCTS * period / period.min(SKETCH)).max(ROWS),
            added: 0,
            rest: vec![0.0; period],
        }
    }

    /// The references of row `i`; it becomes a candidate unless they say nearly all of it.
    fn row(&mut self, i: usize) -> [Reference; MAX_REFERENCES] {
        let Self { level, z, period, rest, signs, .. } = self;
        let (z, period) = (*z, *period);
        let own = &z[i * period..(i + 1) * period];
        let mut sketch = [0.0_f32; SKETCH];
        let energy = level.run(
            #[inline(always)]
            || {
                for (r, &v) in rest.iter_mut().zip(own) {
                    *r = v as f32;
                }
                for (part, signs) in rest.chunks(SKETCH).zip(signs.chunks(SKETCH)) {
                    for ((s, &v), &sign) in sketch.iter_mut().zip(part).zip(signs) {
                        *s += v * sign;
                    }
                }
                products(rest, rest)
            },
        );
        let mut references = [Reference::default(); MAX_REFERENCES];
        let whole = sketch;
        let mut left = energy;
        // Rounding leaves a twelfth of a step an element.
        let noise = period as f64 / 12.0;
        let cost = f64::from(bits_below(i as u32) + GAIN_FIELD) + LEAST_SAVED;
        let least = (-2.0 * cost / period as f64).exp2();
        for reference in &mut references {
            if left <= noise {
                break;
            }
            let Some(row) = self.best(&sketch) else { break };
            let other = &z[row as usize * period..(row as usize + 1) * period];
            let (both, of_other) = self.level.run(
                #[inline(always)]
                || mixed(&self.rest, other),
            );
            let gain = (16.0 * both / of_other.max(1.0)).round().clamp(-f64::from(MAX_GAIN), f64::from(MAX_GAIN));
            let share = gain / 16.0;
            let after = left - 2.0 * share * both + share * share * of_other;
            if gain == 0.0 || after + noise > least * (left + noise) {
                break;
            }
            *reference = Reference { row, gain: gain as i8 };
            left = after;
            let share = share as f32;
            let Self { rest, signs, level, .. } = self;
            level.run(
                #[inline(always)]
                || {
                    for (r, &v) in rest.iter_mut().zip(other) {
                        *r -= share * v as f32;
                    }
                    sketch = [0.0; SKETCH];
                    for (part, signs) in rest.chunks(SKETCH).zip(signs.chunks(SKETCH)) {
                        for ((s, &v), &sign) in sketch.iter_mut().zip(part).zip(signs) {
                            *s += v * sign;
                        }
                    }
                },
            );
        }
        if left > NOVEL * energy || left > NEAR * period as f64 {
            self.add(i as u32, &whole);
        }
        references
    }

    fn add(&mut self, row: u32, sketch: &[f32; SKETCH]) {
        let Some(integers) = normalized(sketch) else { return };
        let slot = self.added % self.window;
        self.added += 1;
        if self.candidates.len() < self.window {
            if slot.is_multiple_of(ROWS) {
                self.blocks.push(Block::new(self.width));
            }
            self.candidates.push(row);
        } else {
            self.candidates[slot] = row;
        }
        self.blocks[slot / ROWS].set_row(slot % ROWS, &integers[..self.width]);
    }

    /// The candidate whose sketch is most nearly along `sketch`; the first of equals.
    fn best(&self, sketch: &[f32; SKETCH]) -> Option<u32> {
        let integers = normalized(sketch)?;
        let (weights, _) = integers.as_chunks::<2>();
        let mut most = 0;
        let mut best = None;
        for (b, block) in self.blocks.iter().enumerate() {
            let sums = predict(self.level, block, weights, self.width);
            let largest = self.level.run(
                #[inline(always)]
                || sums.iter().fold(0, |m, s| m.max(s.abs())),
            );
            if largest > most {
                most = largest;
                best = sums.iter().position(|s| s.abs() == largest).map(|p| self.candidates[b * ROWS + p]);
            }
        }
        best
    }
}

/// A sketch as integers of norm 4096; `None` for zeros.
fn normalized(sketch: &[f32; SKETCH]) -> Option<[i16; SKETCH]> {
    let mut lanes = [0.0_f32; 16];
    for part in sketch.as_chunks::<16>().0 {
        for (l, s) in lanes.iter_mut().zip(part) {
            *l += s * s;
        }
    }
    let power: f32 = lanes.iter().sum();
    let scale = NORM / power.sqrt();
    scale.is_normal().then(|| sketch.map(|s| (s * scale) as i16))
}

/// Σ a b, in a fixed order.
#[inline(always)]
fn products(a: &[f32], b: &[f32]) -> f64 {
    let mut lanes = [0.0_f32; 16];
    for (a, b) in a.chunks(16).zip(b.chunks(16)) {
        for ((l, x), y) in lanes.iter_mut().zip(a).zip(b) {
            *l += x * y;
        }
    }
    lanes.iter().map(|&l| f64::from(l)).sum()
}

/// Σ a b and Σ b b, in a fixed order.
#[inline(always)]
fn mixed(a: &[f32], b: &[i32]) -> (f64, f64) {
    let mut lanes = [[0.0_f32; 16]; 2];
    for (a, b) in a.chunks(16).zip(b.chunks(16)) {
        for (i, (x, &y)) in a.iter().zip(b).enumerate() {
            let y = y as f32;
            lanes[0][i] += x * y;
            lanes[1][i] += y * y;
        }
    }
    let [ab, bb] = lanes.map(|l| l.iter().map(|&v| f64::from(v)).sum());
    (ab, bb)
}
