//! Rows that an earlier row foretells: which, and times what.
//!
//! Searched greedily (matching pursuit; Mallat and Zhang, "Matching pursuits with time-frequency dictionaries", 1993)
//! in sketches of the rows: columns folded with pseudo-random signs (count sketch; Charikar, Chen, Farach-Colton, 2002).

use crate::context::fresh_tree;
use crate::entropy::range::{Decoder, EVEN, Encoder, Probability};
use crate::kernel::{Block, QUERIES, ROWS, nearest};
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
/// Norm of a sketch as integers: products of two stay below 2^25.
const NORM: f32 = 4096.0;
/// Bits of a place among the rows referred to lately, whose number is one less than that allows.
const PLACE_FIELD: u32 = 6;
const RECENT: usize = (1 << PLACE_FIELD) - 1;
/// Rows shorter than this, or fewer, are not searched.
const MIN_COLUMNS: usize = 16;
const MIN_ROWS: usize = 16;
/// Bits that a reference must save beyond its own.
const LEAST_SAVED: f64 = 8.0;
/// Products of an element with candidates, at most on average.
const PRODUCTS: usize = 96;
/// Most candidates.
const MAX_CANDIDATES: usize = 4096;
/// Rows after which it is judged whether references are rare, and the one in so many that is then still searched, by
/// groups of [`QUERIES`].
const JUDGED_ROWS: u32 = 256;
const RARE: u32 = 32;
const SEARCHED_WHERE_RARE: usize = 4;
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
        let mut rows: Vec<_> = (0..count).step_by(QUERIES).flat_map(|i| search.rows(i)).collect();
        rows.truncate(count);
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
                models.write_row(side, i as u32, r.row);
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
                let row = models.read_row(side, i as u32);
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
    places: Vec<Probability>,
    distances: Vec<Probability>,
    /// Rows referred to lately, the last first.
    recent: [u32; RECENT],
}

impl Models {
    fn new() -> Self {
        Self {
            more: [EVEN; MAX_REFERENCES],
            before: 0,
            gains: fresh_tree(GAIN_FIELD),
            places: fresh_tree(PLACE_FIELD),
            distances: fresh_tree(5),
            recent: [0; RECENT],
        }
    }

    /// Moves `row` to the front, from where it stood or over the last.
    fn touch(&mut self, row: u32) {
        let at = self.recent.iter().position(|&r| r == row).unwrap_or(RECENT - 1);
        self.recent.copy_within(..at, 1);
        self.recent[0] = row;
    }

    fn write_row(&mut self, side: &mut Encoder, i: u32, row: u32) {
        let place = self.recent.iter().position(|&r| r == row).unwrap_or(RECENT);
        side.tree(&mut self.places, PLACE_FIELD, place as u32);
        if place == RECENT {
            let distance = i - row;
            let length = distance.ilog2();
            side.tree(&mut self.distances, 5, length);
            side.direct(distance, length);
        }
        self.touch(row);
    }

    /// A row before `i`; one that does not come before means the one just before.
    fn read_row(&mut self, side: &mut Decoder<'_>, i: u32) -> u32 {
        let place = side.tree(&mut self.places, PLACE_FIELD) as usize;
        let row = self.recent.get(place).copied().unwrap_or_else(|| {
            let length = side.tree(&mut self.distances, 5);
            i.saturating_sub(1 << length | side.direct(length))
        });
        let row = row.min(i.saturating_sub(1));
        self.touch(row);
        row
    }

    fn more(&mut self) -> &mut Probability {
        self.before += 1;
        &mut self.more[self.before - 1]
    }
}

/// Energy of a row that costs little: half a step an element.
fn noise_of(period: usize) -> f64 {
    period as f64 / 4.0
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
    signs: Vec<[f32; SKETCH]>,
    blocks: Vec<Block>,
    /// Row of each candidate.
    candidates: Vec<u32>,
    /// Most candidates, the latest ones.
    window: usize,
    added: usize,
    /// Rows searched and references found since it was last judged whether they are rare.
    searched: u32,
    found: u32,
    rare: bool,
    queries: [Query; QUERIES],
}

/// A row whose references are sought.
#[derive(Debug, Default)]
struct Query {
    references: [Reference; MAX_REFERENCES],
    /// What the references found so far leave, cut into lengths of a sketch.
    rest: Vec<[f32; SKETCH]>,
    sketch: Sketch,
    /// The row's own sketch.
    whole: Sketch,
    energy: f64,
    /// Energy of the rest.
    left: f64,
    /// Bits that the rest may cost, but for its share of noise, in 1/65536.
    length: u64,
    active: bool,
}

/// A row's sketch, as integers of norm 4096.
#[derive(Clone, Copy, Debug)]
struct Sketch([[i16; 2]; SKETCH / 2]);

impl Default for Sketch {
    fn default() -> Self {
        Self([[0; 2]; SKETCH / 2])
    }
}

impl<'a> Search<'a> {
    fn new(level: Level, z: &'a [i32], period: usize) -> Self {
        let sign = |j: usize| if (j as u32).wrapping_mul(0x9e37_79b1) >> 31 == 0 { 1.0 } else { -1.0 };
        let signs =
            |part: usize| std::array::from_fn(|j| if part == 0 { 1.0 } else { sign(part * SKETCH + j) });
        let parts = period.div_ceil(SKETCH);
        let width = period.min(SKETCH);
        Self {
            level,
            z,
            period,
            width,
            signs: (0..parts).map(signs).collect(),
            blocks: Vec::new(),
            candidates: Vec::new(),
            window: (PRODUCTS * period / width).clamp(ROWS, MAX_CANDIDATES),
            added: 0,
            searched: 0,
            found: 0,
            rare: false,
            queries: std::array::from_fn(|_| Query { rest: vec![[0.0; SKETCH]; parts], ..Query::default() }),
        }
    }

    /// The references of [`QUERIES`] rows from `start` on, or of as many as there are.
    fn rows(&mut self, start: usize) -> [[Reference; MAX_REFERENCES]; QUERIES] {
        let Self { level, z, period, width, signs, blocks, candidates, queries, .. } = self;
        let (level, z, period) = (*level, *z, *period);
        let row_of = |i: usize| z.get(i * period..(i + 1) * period);
        let noise = noise_of(period);
        let cost = f64::from(bits_below(start as u32 + 1) + GAIN_FIELD) + LEAST_SAVED;
        let searched = !self.rare || (start / QUERIES).is_multiple_of(SEARCHED_WHERE_RARE);
        let mut active = false;
        for (q, query) in queries.iter_mut().enumerate() {
            query.references = Default::default();
            query.active = false;
            let Some(own) = row_of(start + q) else { continue };
            level.run(
                #[inline(always)]
                || query.begin(own, signs),
            );
            query.active = searched && query.left > noise && !candidates.is_empty();
            active |= query.active;
        }
        for k in 0..MAX_REFERENCES {
            if !active {
                break;
            }
            active = false;
            let sketches = [0, 1, 2, 3].map(|q| &queries[q].sketch.0[..]);
            let found = nearest(level, blocks, &sketches, *width);
            for (query, candidate) in queries.iter_mut().zip(found) {
                let known = candidate.filter(|_| query.active).and_then(|c| candidates.get(c).copied());
                query.active = false;
                let Some((row, other)) = known.and_then(|row| Some((row, row_of(row as usize)?))) else {
                    continue;
                };
                query.active = level.run(
                    #[inline(always)]
                    || query.take(k, row, other, signs, cost),
                );
                active |= query.active;
            }
        }
        if searched {
            self.searched += QUERIES as u32;
            self.found += queries.iter().filter(|query| query.references[0].gain != 0).count() as u32;
            if self.searched >= JUDGED_ROWS {
                self.rare = self.found * RARE < self.searched;
                (self.searched, self.found) = (0, 0);
            }
        }
        for q in 0..QUERIES {
            if row_of(start + q).is_some() {
                self.add((start + q) as u32, q);
            }
        }
        [0, 1, 2, 3].map(|q| self.queries[q].references)
    }

    /// Makes a row a candidate unless its references say nearly all of it.
    fn add(&mut self, row: u32, q: usize) {
        let query = &self.queries[q];
        let novel = query.left > NOVEL * query.energy || query.left > NEAR * self.period as f64;
        if !novel || query.energy == 0.0 {
            return;
        }
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
        self.blocks[slot / ROWS].set_row(slot % ROWS, &query.whole.0.as_flattened()[..self.width]);
    }
}

impl Query {
    #[inline(always)]
    fn begin(&mut self, own: &[i32], signs: &[[f32; SKETCH]]) {
        let (parts, last) = own.as_chunks::<SKETCH>();
        for (rest, part) in self.rest.iter_mut().zip(parts) {
            for (r, &v) in rest.iter_mut().zip(part) {
                *r = v as f32;
            }
        }
        if !last.is_empty() {
            let rest = &mut self.rest[parts.len()];
            rest.fill(0.0);
            for (r, &v) in rest.iter_mut().zip(last) {
                *r = v as f32;
            }
        }
        let none = [[0; SKETCH]; 0];
        self.energy = self.update(signs, 0.0, none.iter());
        self.left = self.energy;
        self.whole = self.sketch;
    }

    /// Takes `share` times `other` off the rest, sketches it and returns its energy.
    #[inline(always)]
    fn update<'b>(
        &mut self,
        signs: &[[f32; SKETCH]],
        share: f32,
        mut other: impl Iterator<Item = &'b [i32; SKETCH]>,
    ) -> f64 {
        let mut sketch = [0.0_f32; SKETCH];
        let mut powers = [0.0_f32; SKETCH];
        let mut lengths = [0_u32; SKETCH];
        for (part, signs) in self.rest.iter_mut().zip(signs) {
            if let Some(other) = other.next() {
                for j in 0..SKETCH {
                    part[j] -= share * other[j] as f32;
                }
            }
            for j in 0..SKETCH {
                sketch[j] += part[j] * signs[j];
                powers[j] += part[j] * part[j];
                // An f32's bits are its logarithm, nearly; all are at least 1.
                lengths[j] += ((2.0 * part[j].abs() + 1.0).to_bits() - 1.0_f32.to_bits()) >> 7;
            }
        }
        self.length = lengths.iter().map(|&l| u64::from(l)).sum();
        self.sketch = Sketch::of(&sketch);
        sum(&powers)
    }

    /// Takes the row `other` as the reference `k`; false where that does not pay.
    #[inline(always)]
    fn take(&mut self, k: usize, row: u32, other: &[i32], signs: &[[f32; SKETCH]], cost: f64) -> bool {
        let noise = noise_of(other.len());
        let least = (-2.0 * cost / other.len() as f64).exp2();
        let (parts, last) = other.as_chunks::<SKETCH>();
        let mut end = [0; SKETCH];
        end[..last.len()].copy_from_slice(last);
        let others = || parts.iter().chain((!last.is_empty()).then_some(&end));
        let (mut both, mut of_other) = ([0.0_f32; SKETCH], [0.0_f32; SKETCH]);
        for (rest, other) in self.rest.iter().zip(others()) {
            for j in 0..SKETCH {
                let y = other[j] as f32;
                both[j] += rest[j] * y;
                of_other[j] += y * y;
            }
        }
        let (both, of_other) = (sum(&both), sum(&of_other));
        let gain = (16.0 * both / of_other.max(1.0)).round().clamp(-f64::from(MAX_GAIN), f64::from(MAX_GAIN));
        let share = gain / 16.0;
        let after = self.left - 2.0 * share * both + share * share * of_other;
        if gain == 0.0 || after + noise > least * (self.left + noise) {
            return false;
        }
        let (length, before) = (self.length, self.left);
        self.left = self.update(signs, share as f32, others());
        // Energy overrates what a few large values cost, such as the first components of a transform.
        if (self.length + ((cost as u64) << 16)) >= length {
            self.left = before;
            return false;
        }
        self.references[k] = Reference { row, gain: gain as i8 };
        self.left > noise
    }
}

impl Sketch {
    #[inline(always)]
    fn of(sketch: &[f32; SKETCH]) -> Self {
        let mut powers = [0.0_f32; SKETCH];
        for (p, s) in powers.iter_mut().zip(sketch) {
            *p = s * s;
        }
        let scale = NORM / (sum(&powers) as f32).sqrt();
        let mut integers = [0_i16; SKETCH];
        if scale.is_normal() {
            for (i, s) in integers.iter_mut().zip(sketch) {
                // The sum's mantissa holds the integer.
                *i = (s * scale + 12_582_912.0).to_bits() as i16;
            }
        }
        let mut pairs = Self::default();
        pairs.0.as_flattened_mut().copy_from_slice(&integers);
        pairs
    }
}

/// The sum, in a fixed order.
#[inline(always)]
fn sum(lanes: &[f32; SKETCH]) -> f64 {
    let mut eight = [0.0_f64; 8];
    for part in lanes.as_chunks::<8>().0 {
        for (e, &l) in eight.iter_mut().zip(part) {
            *e += f64::from(l);
        }
    }
    eight.iter().sum()
}
