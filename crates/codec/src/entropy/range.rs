//! Adaptive binary range coder for side information: offsets, classes and tables.
//!
//! Carry propagation and probability update are those of LZMA (11-bit probabilities, shift 5).

use crate::bytes::Reader;
use crate::error::CodecError;

const PROBABILITY_BITS: u32 = 11;
const SHIFT: u32 = 5;
const TOP: u32 = 1 << 24;
/// Zeros at its end that an encoder may leave out, with ample room: a run of zero bytes is improbable beyond it.
const MOST_MISSING: usize = 4096;

/// Probability that the next bit is 0, in 1/2048.
pub(crate) type Probability = u16;
/// Even odds.
pub(crate) const EVEN: Probability = 1 << (PROBABILITY_BITS - 1);

/// Writes bits.
#[derive(Debug)]
pub(crate) struct Encoder {
    low: u64,
    range: u32,
    cache: u8,
    pending: u64,
    out: Vec<u8>,
}

impl Encoder {
    pub(crate) fn new() -> Self {
        Self { low: 0, range: u32::MAX, cache: 0, pending: 1, out: Vec::new() }
    }

    fn shift_low(&mut self) {
        if self.low < 0xff00_0000 || self.low > 0xffff_ffff {
            let carry = (self.low >> 32) as u8;
            let mut byte = self.cache;
            while self.pending > 0 {
                self.out.push(byte.wrapping_add(carry));
                byte = 0xff;
                self.pending -= 1;
            }
            self.cache = (self.low >> 24) as u8;
        }
        self.pending += 1;
        self.low = (self.low & 0x00ff_ffff) << 8;
    }

    pub(crate) fn bit(&mut self, p: &mut Probability, bit: bool) {
        let bound = (self.range >> PROBABILITY_BITS) * u32::from(*p);
        if bit {
            self.low += u64::from(bound);
            self.range -= bound;
            *p -= *p >> SHIFT;
        } else {
            self.range = bound;
            *p += ((1 << PROBABILITY_BITS) - *p) >> SHIFT;
        }
        while self.range < TOP {
            self.range <<= 8;
            self.shift_low();
        }
    }

    /// The low `count` bits of `value`, high one first, at even odds.
    pub(crate) fn direct(&mut self, value: u32, count: u32) {
        for i in (0..count).rev() {
            self.range >>= 1;
            if value >> i & 1 == 1 {
                self.low += u64::from(self.range);
            }
            while self.range < TOP {
                self.range <<= 8;
                self.shift_low();
            }
        }
    }

    /// A value below `2^bits` through a binary tree of `2^bits` probabilities.
    pub(crate) fn tree(&mut self, tree: &mut [Probability], bits: u32, value: u32) {
        let mut node = 1;
        for i in (0..bits).rev() {
            let bit = value >> i & 1;
            self.bit(&mut tree[node], bit == 1);
            node = 2 * node + bit as usize;
        }
    }

    /// Appends length (4 bytes) and content.
    pub(crate) fn finish(mut self, out: &mut Vec<u8>) {
        for _ in 0..5 {
            self.shift_low();
        }
        // The decoder reads zeros after the end.
        while self.out.last() == Some(&0) {
            self.out.pop();
        }
        out.extend_from_slice(&(self.out.len() as u32).to_le_bytes());
        out.extend_from_slice(&self.out);
    }
}

/// Reads what [`Encoder`] wrote; past the end it reads zeros.
#[derive(Debug)]
pub(crate) struct Decoder<'a> {
    code: u32,
    range: u32,
    rest: &'a [u8],
    /// Bytes read past the end.
    missing: usize,
}

impl<'a> Decoder<'a> {
    pub(crate) fn new(reader: &mut Reader<'a>) -> Result<Self, CodecError> {
        let length = reader.u32()? as usize;
        let mut decoder = Self { code: 0, range: u32::MAX, rest: reader.take(length)?, missing: 0 };
        for _ in 0..5 {
            decoder.code = decoder.code << 8 | decoder.next();
        }
        Ok(decoder)
    }

    fn next(&mut self) -> u32 {
        let Some((&byte, rest)) = self.rest.split_first() else {
            self.missing += 1;
            return 0;
        };
        self.rest = rest;
        u32::from(byte)
    }

    /// Whether more zeros were read past the end than an encoder ever leaves out.
    pub(crate) const fn is_past_end(&self) -> bool {
        self.missing > MOST_MISSING
    }

    fn normalize(&mut self) {
        while self.range < TOP {
            self.range <<= 8;
            self.code = self.code << 8 | self.next();
        }
    }

    pub(crate) fn bit(&mut self, p: &mut Probability) -> bool {
        let bound = (self.range >> PROBABILITY_BITS) * u32::from(*p);
        let bit = self.code >= bound;
        if bit {
            self.code -= bound;
            self.range -= bound;
            *p -= *p >> SHIFT;
        } else {
            self.range = bound;
            *p += ((1 << PROBABILITY_BITS) - *p) >> SHIFT;
        }
        self.normalize();
        bit
    }

    pub(crate) fn direct(&mut self, count: u32) -> u32 {
        let mut value = 0;
        for _ in 0..count {
            self.range >>= 1;
            let bit = u32::from(self.code >= self.range);
            self.code = self.code.wrapping_sub(self.range * bit);
            value = value << 1 | bit;
            self.normalize();
        }
        value
    }

    pub(crate) fn tree(&mut self, tree: &mut [Probability], bits: u32) -> u32 {
        let mut node = 1_u32;
        for _ in 0..bits {
            node = 2 * node + u32::from(self.bit(&mut tree[node as usize]));
        }
        node - (1 << bits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::header::CodecId;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn round_trips(values in prop::collection::vec((0_u32..256, 0_u32..9), 0..500)) {
            let mut e = Encoder::new();
            let mut tree = vec![EVEN; 256];
            for &(v, bits) in &values {
                e.tree(&mut tree, 8, v);
                e.direct(v, bits);
            }
            let mut out = Vec::new();
            e.finish(&mut out);
            let mut reader = Reader::new(CodecId::Raw, &out);
            let mut d = Decoder::new(&mut reader).unwrap();
            reader.end().unwrap();
            let mut tree = vec![EVEN; 256];
            for &(v, bits) in &values {
                prop_assert_eq!(d.tree(&mut tree, 8), v);
                prop_assert_eq!(d.direct(bits), v & ((1 << bits) - 1));
            }
        }
    }
}
