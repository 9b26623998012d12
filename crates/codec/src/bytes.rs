//! Checked reading of bodies.

use crate::error::CodecError;
use crate::header::CodecId;

/// Reads a body front to back; every read is checked.
#[derive(Debug)]
pub(crate) struct Reader<'a> {
    codec: CodecId,
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) const fn new(codec: CodecId, body: &'a [u8]) -> Self {
        Self { codec, rest: body }
    }

    pub(crate) const fn malformed(&self, reason: &'static str) -> CodecError {
        CodecError::Malformed { codec: self.codec, reason }
    }

    pub(crate) fn take(&mut self, n: usize) -> Result<&'a [u8], CodecError> {
        let Some((head, rest)) = self.rest.split_at_checked(n) else {
            return Err(self.malformed("body is cut short"));
        };
        self.rest = rest;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], CodecError> {
        let Some((head, rest)) = self.rest.split_first_chunk::<N>() else {
            return Err(self.malformed("body is cut short"));
        };
        self.rest = rest;
        Ok(*head)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, CodecError> {
        self.array::<1>().map(|[b]| b)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, CodecError> {
        self.array().map(u32::from_le_bytes)
    }

    pub(crate) fn u16(&mut self) -> Result<u16, CodecError> {
        self.array().map(u16::from_le_bytes)
    }

    pub(crate) fn f32(&mut self) -> Result<f32, CodecError> {
        self.array().map(f32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Result<u64, CodecError> {
        self.array().map(u64::from_le_bytes)
    }

    /// Checks that nothing is left.
    pub(crate) fn end(&self) -> Result<(), CodecError> {
        if self.rest.is_empty() { Ok(()) } else { Err(self.malformed("bytes are left over")) }
    }
}
