//! From a prediction to a context, and from a value to a symbol and low bits: 64 rows at a time.
//!
//! The few f32 operations here are single IEEE operations in a fixed order, never contracted, so every machine agrees.

use super::predictor::Scale;
use crate::kernel::ROWS;
use crate::simd::Level;

/// Contexts of differences: half octaves of expected error in units of the prediction's last bit.
const NEAR_CONTEXTS: u8 = 22;
/// Contexts of values: eighths of an octave of the expected size.
const FAR_CONTEXTS: u8 = 8;
/// All contexts.
pub(crate) const CONTEXTS: usize = (NEAR_CONTEXTS + FAR_CONTEXTS) as usize;
/// From this expected error on, in quarter octaves of the prediction's last bit, the value itself is coded.
const FAR: i32 = 27;
/// Octaves of expected error that symbols resolve; what is below goes to the low bits.
const KEPT_OCTAVES: i32 = 3;
/// The symbol of a difference outside the symbols' range, whose value follows as 16 low bits.
const ESCAPE: u8 = 255;
/// Codes of values: exponents around the expected one, zero, any other (8 low bits).
const FAR_CENTRE: i32 = 44;
const FAR_ZERO: u8 = 62;
const FAR_ESCAPE: u8 = 63;
/// Share of the newest error in a row's running mean.
const NEWEST: f32 = 1.0 / 16.0;
/// Largest error that counts, in units of the expected one.
const MOST_ERROR: f32 = 8.0;
/// Mean of |x| of a unit Gaussian.
const MEAN_ABS: f32 = 0.8;

/// The state of 64 rows.
#[derive(Debug)]
pub(crate) struct Lanes {
    exponents: [i32; ROWS],
    /// Running mean error of each row, in units of its columns' expected errors.
    errors: [f32; ROWS],
    /// Ordered bit pattern of the prediction.
    predicted: [i32; ROWS],
    context: [u8; ROWS],
    /// Low bits of a difference.
    shift: [i32; ROWS],
    /// Expected exponent of a value.
    size: [i32; ROWS],
}

impl Lanes {
    pub(crate) fn new(exponents: &[u8]) -> Self {
        let mut lanes = Self {
            exponents: [0; ROWS],
            errors: [1.0; ROWS],
            predicted: [0; ROWS],
            context: [0; ROWS],
            shift: [0; ROWS],
            size: [0; ROWS],
        };
        for (l, &e) in lanes.exponents.iter_mut().zip(exponents) {
            *l = i32::from(e);
        }
        lanes
    }

    /// Works out prediction and contexts of one column from its integer sums.
    pub(crate) fn expect(&mut self, level: Level, scale: Scale, sums: &[i32; ROWS]) {
        level.run(
            #[inline(always)]
            || {
                for (i, &sum) in sums.iter().enumerate() {
                    // The sum is the value times 2^unit, relative to the row's exponent.
                    let exponent = self.exponents[i] + scale.exponent;
                    let bits = (sum as f32).to_bits();
                    let rounded = ((bits & 0x7fff_ffff) + 0x8000) >> 16;
                    let magnitude = (rounded as i32 + (exponent << 7)).clamp(0, 0x7f7f);
                    let magnitude =
                        if sum == 0 || (rounded as i32) + (exponent << 7) < 0x80 { 0 } else { magnitude };
                    let error = scale.error * self.errors[i];
                    let error_bits = error.to_bits() as i32;
                    let expected = (error_bits >> 21) - 4 * (((bits >> 23) & 0xff) as i32 - 7);
                    let far = expected >= FAR || magnitude == 0;
                    let near_context = ((expected >> 1) + 6).clamp(0, i32::from(NEAR_CONTEXTS) - 1);
                    let far_context = i32::from(NEAR_CONTEXTS) + (error_bits >> 20 & 7);
                    self.context[i] = if far { far_context } else { near_context } as u8;
                    self.shift[i] = ((expected >> 2) - KEPT_OCTAVES).clamp(0, 7);
                    self.size[i] = (error_bits >> 23) + exponent;
                    self.predicted[i] = if sum < 0 { -magnitude } else { magnitude };
                }
            },
        );
    }

    pub(crate) fn contexts(&self, out: &mut [u8; ROWS]) {
        *out = self.context;
    }

    /// Symbols and contexts of one column's values.
    pub(crate) fn code(
        &self,
        level: Level,
        values: &[u16; ROWS],
        symbols: &mut [u8; ROWS],
        contexts: &mut [u8; ROWS],
    ) {
        *contexts = self.context;
        level.run(
            #[inline(always)]
            || {
                for i in 0..ROWS {
                    let magnitude = i32::from(values[i] & 0x7fff);
                    let negative = values[i] >> 15 == 1;
                    let far = self.context[i] >= NEAR_CONTEXTS;
                    let exponent = magnitude >> 7;
                    let near_size = exponent - self.size[i] + FAR_CENTRE;
                    let code = if (0..i32::from(FAR_ZERO)).contains(&near_size) {
                        near_size
                    } else {
                        i32::from(FAR_ESCAPE)
                    };
                    let code = if exponent == 0 { i32::from(FAR_ZERO) } else { code };
                    let far_symbol = code << 2 | (magnitude >> 5 & 2) | i32::from(negative);

                    let ordered = ordered(values[i]);
                    let half = (1 << self.shift[i]) >> 1;
                    let step = (ordered - self.predicted[i] + half) >> self.shift[i];
                    let near_symbol =
                        if (-126..=126).contains(&step) { step + 128 } else { i32::from(ESCAPE) };
                    symbols[i] = if far { far_symbol } else { near_symbol } as u8;
                }
            },
        );
    }

    /// Low bits of one column's values and how many each has.
    pub(crate) fn low(
        &self,
        level: Level,
        values: &[u16; ROWS],
        symbols: &[u8; ROWS],
    ) -> ([u32; ROWS], [u32; ROWS]) {
        let lengths = self.low_lengths(level, symbols);
        let mut low = [0; ROWS];
        level.run(
            #[inline(always)]
            || {
                for i in 0..ROWS {
                    let value = u32::from(values[i]);
                    let far = value & 0x3f | (value >> 7 & 0xff) << 6;
                    let half = (1 << self.shift[i]) >> 1;
                    let near = (ordered(values[i]) - self.predicted[i] + half) as u32;
                    let near = if symbols[i] == ESCAPE { value } else { near };
                    let bits = if self.context[i] >= NEAR_CONTEXTS { far } else { near };
                    low[i] = bits & ((1 << lengths[i]) - 1);
                }
            },
        );
        (low, lengths)
    }

    /// How many low bits follow each symbol: at most 16.
    pub(crate) fn low_lengths(&self, level: Level, symbols: &[u8; ROWS]) -> [u32; ROWS] {
        let mut lengths = [0; ROWS];
        level.run(
            #[inline(always)]
            || {
                for i in 0..ROWS {
                    let far = if symbols[i] >> 2 == FAR_ESCAPE { 14 } else { 6 };
                    let near = if symbols[i] == ESCAPE { 16 } else { self.shift[i] as u32 };
                    lengths[i] = if self.context[i] >= NEAR_CONTEXTS { far } else { near };
                }
            },
        );
        lengths
    }

    /// The values of one column from its symbols and low bits.
    pub(crate) fn values(&self, level: Level, symbols: &[u8; ROWS], low: &[u32; ROWS]) -> [u16; ROWS] {
        let mut values = [0; ROWS];
        level.run(
            #[inline(always)]
            || {
                for i in 0..ROWS {
                    let symbol = u32::from(symbols[i]);
                    let code = symbol >> 2;
                    let sized = (code as i32 - FAR_CENTRE + self.size[i]) as u32 & 0xff;
                    let exponent = if code == u32::from(FAR_ESCAPE) { low[i] >> 6 } else { sized };
                    let exponent = if code == u32::from(FAR_ZERO) { 0 } else { exponent };
                    let far = (symbol & 1) << 15 | exponent << 7 | (symbol & 2) << 5 | low[i] & 0x3f;

                    let half = (1 << self.shift[i]) >> 1;
                    let step = symbol as i32 - 128;
                    let difference = (step << self.shift[i] | low[i] as i32) - half;
                    let near = u32::from(from_ordered(self.predicted[i] + difference));
                    let near = if symbols[i] == ESCAPE { low[i] } else { near };
                    values[i] = if self.context[i] >= NEAR_CONTEXTS { far } else { near } as u16;
                }
            },
        );
        values
    }

    /// One column's values as integers.
    pub(crate) fn integers(&self, level: Level, scale: Scale, values: &[u16; ROWS]) -> [i16; ROWS] {
        let mut integers = [0_i16; ROWS];
        level.run(
            #[inline(always)]
            || {
                for i in 0..ROWS {
                    integers[i] = integer(values[i], self.exponents[i] + scale.column_exponent) as i16;
                }
            },
        );
        integers
    }

    /// Follows the errors of one column, whose values as integers are `integers`.
    pub(crate) fn learn(&mut self, level: Level, scale: Scale, integers: &[i16; ROWS], sums: &[i32; ROWS]) {
        level.run(
            #[inline(always)]
            || {
                for i in 0..ROWS {
                    let error = (i32::from(integers[i]) << scale.weight_bits).wrapping_sub(sums[i]);
                    let error = ((error as f32).abs() * scale.inverse_error).min(MOST_ERROR);
                    let mean = self.errors[i] * (1.0 - NEWEST);
                    self.errors[i] = mean + error * (NEWEST / MEAN_ABS);
                }
            },
        );
    }
}

/// The bit pattern as an integer in the order of the values; −0 comes just below 0.
#[inline(always)]
fn ordered(value: u16) -> i32 {
    let magnitude = i32::from(value & 0x7fff);
    if value >> 15 == 1 { -1 - magnitude } else { magnitude }
}

#[inline(always)]
fn from_ordered(ordered: i32) -> u16 {
    if ordered < 0 { (-1 - ordered) as u16 | 0x8000 } else { ordered as u16 & 0x7fff }
}

/// A value as an integer with eight bits at exponent `reference` and up to fifteen above; smaller ones are rounded.
#[inline(always)]
pub(crate) fn integer(value: u16, reference: i32) -> i32 {
    let exponent = i32::from(value >> 7 & 0xff);
    let mantissa = i32::from(value & 0x7f) | 0x80;
    let shift = exponent - reference + UNIT_SHIFT;
    // Twice the value is rounded down, so that half is added below.
    let left = (mantissa << 1) << shift.clamp(0, 8);
    let right = (mantissa << 1) >> (-shift).clamp(0, 31);
    let doubled = if shift >= 0 { left } else { right };
    let magnitude = ((doubled + 1) >> 1).min(i32::from(i16::MAX));
    let magnitude = if exponent == 0 { 0 } else { magnitude };
    if value >> 15 == 1 { -magnitude } else { magnitude }
}

/// Bits that a mantissa at the reference exponent is turned left by.
pub(crate) const UNIT_SHIFT: i32 = 3;
