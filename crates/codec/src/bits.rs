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

    /// Writes values of at most 16 bits each, without bits above their lengths.
    #[inline]
    pub(crate) fn put_all(&mut self, values: &[u32], lengths: &[u32]) {
        let start = self.out.len();
        // Every store is eight bytes; the next one overwrites what is too much.
        self.out.resize(start + 2 * values.len() + 16, 0);
        let (mut pending, mut count, mut at) = (self.pending, self.count, start);
        let mut put = |value: u64, bits: u32| {
            pending |= value << count;
            count += bits;
            self.out[at..at + 8].copy_from_slice(&pending.to_le_bytes());
            at += (count / 8) as usize;
            pending >>= count & !7;
            count %= 8;
        };
        // What is pending may be 31 bits, so the first goes alone.
        put(0, 0);
        let ((twos, last), (two_lengths, last_length)) = (values.as_chunks::<2>(), lengths.as_chunks::<2>());
        for ([a, b], [m, n]) in twos.iter().zip(two_lengths) {
            put(u64::from(*a) | u64::from(*b) << m, m + n);
        }
        for (&value, &bits) in last.iter().zip(last_length) {
            put(u64::from(value), bits);
        }
        self.out.truncate(at);
        (self.pending, self.count) = (pending, count);
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
    bytes: &'a [u8],
    /// Bits taken.
    at: usize,
}

impl<'a> BitReader<'a> {
    pub(crate) const fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// The next bits, at most 32.
    #[inline]
    pub(crate) fn get(&mut self, bits: u32) -> u32 {
        let byte = self.at / 8;
        let word = match self.bytes.get(byte..byte + 8) {
            Some(word) => u64::from_le_bytes(word.try_into().expect("eight bytes")),
            None => self.last_word(byte),
        };
        let value = word >> (self.at % 8) & ((1 << bits) - 1);
        self.at += bits as usize;
        value as u32
    }

    #[cold]
    fn last_word(&self, byte: usize) -> u64 {
        let rest = self.bytes.get(byte..).unwrap_or_default();
        rest.iter().take(8).rev().fold(0, |word, &b| word << 8 | u64::from(b))
    }

    /// Checks that all bytes were used, and no more than there were.
    pub(crate) fn finish(mut self) -> Result<(), &'static str> {
        let left = (8 * self.bytes.len()).checked_sub(self.at);
        if left.is_some_and(|left| left < 8 && self.get(left as u32) == 0) {
            return Ok(());
        }
        Err("low bits have the wrong length")
    }
}
