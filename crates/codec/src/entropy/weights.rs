//! Signed 16-bit weights of predictors and bases.

use super::range::{Decoder, EVEN, Encoder, Probability};

/// Weights as bit length, in the context of the one before, sign and the bits below the first.
#[derive(Debug)]
pub(crate) struct WeightModel {
    lengths: Vec<[Probability; 32]>,
    before: usize,
}

impl WeightModel {
    pub(crate) fn new() -> Self {
        Self { lengths: vec![[EVEN; 32]; 17], before: 0 }
    }

    pub(crate) fn begin(&mut self) {
        self.before = 0;
    }

    pub(crate) fn write(&mut self, encoder: &mut Encoder, weight: i16) {
        let magnitude = u32::from(weight.unsigned_abs());
        let length = 32 - magnitude.leading_zeros();
        encoder.tree(&mut self.lengths[self.before], 5, length);
        if length > 0 {
            encoder.direct(u32::from(weight < 0), 1);
            encoder.direct(magnitude & ((1 << (length - 1)) - 1), length - 1);
        }
        self.before = length as usize;
    }

    pub(crate) fn read(&mut self, decoder: &mut Decoder<'_>) -> i16 {
        let length = decoder.tree(&mut self.lengths[self.before], 5).min(15);
        self.before = length as usize;
        if length == 0 {
            return 0;
        }
        let negative = decoder.direct(1) == 1;
        let magnitude = (1 << (length - 1) | decoder.direct(length - 1)) as i16;
        if negative { -magnitude } else { magnitude }
    }
}
