//! Bits, lowest first.

/// Writes up to 32 bits at a time.
#[derive(Debug)]
pub(crate) struct BitWriter {
    out: Vec<u8>,
    pending: u64,
    count: u32,
}

impl BitWriter {
    pub(crate) const fn new() -> Self {
        Self { out: Vec::new(), pending: 0, count: 0 }
    }

    #[inline]
    pub(crate) fn put(&mut self, value: u32, bits: u32) {
        self.pending |= u64::from(value) << self.count;
        self.count += bits;
        if self.count >= 32 {
            self.out.extend_from_slice(&(self.pending as u32).to_le_bytes());
            self.pending >>= 32;
            self.count -= 32;
        }
    }

    pub(crate) fn finish(self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.out);
        let left = self.count.div_ceil(8) as usize;
        out.extend_from_slice(&self.pending.to_le_bytes()[..left]);
    }
}

/// Reads what [`BitWriter`] wrote; past the end it reads zeros and remembers.
#[derive(Debug)]
pub(crate) struct BitReader<'a> {
    rest: &'a [u8],
    pending: u64,
    count: u32,
    short: bool,
}

impl<'a> BitReader<'a> {
    pub(crate) const fn new(rest: &'a [u8]) -> Self {
        Self { rest, pending: 0, count: 0, short: false }
    }

    #[inline]
    pub(crate) fn get(&mut self, bits: u32) -> u32 {
        if self.count < bits {
            self.refill();
        }
        let value = (self.pending & ((1 << bits) - 1)) as u32;
        self.pending >>= bits;
        self.count = self.count.saturating_sub(bits);
        value
    }

    fn refill(&mut self) {
        if let Some((word, rest)) = self.rest.split_first_chunk::<4>() {
            self.pending |= u64::from(u32::from_le_bytes(*word)) << self.count;
            self.count += 32;
            self.rest = rest;
            return;
        }
        while let Some((&byte, rest)) = self.rest.split_first() {
            self.pending |= u64::from(byte) << self.count;
            self.count += 8;
            self.rest = rest;
        }
        if self.count < 16 {
            // Padding of the last byte aside, whoever asks for these bits asks for too many.
            self.short = true;
            self.count += 32;
        }
    }

    /// Checks that all bytes were used, and no more than there were.
    pub(crate) fn finish(self) -> Result<(), &'static str> {
        let padding = if self.short { self.count.saturating_sub(32) } else { self.count };
        let over = self.short && self.count < 32;
        if over || !self.rest.is_empty() || padding >= 8 || self.pending != 0 {
            return Err("low bits have the wrong length");
        }
        Ok(())
    }
}
