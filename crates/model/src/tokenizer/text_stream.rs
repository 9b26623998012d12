//! Text of a token stream as it grows: one token can be half a character.

use super::{Tokenizer, TokenizerError};

/// What a decoder puts where bytes are no character, or only a part of one.
const HALF: char = '\u{fffd}';
/// A character has at most this many bytes, so it has at most this many tokens.
const CHARACTER_BYTES: usize = 4;
/// A tail that still does not decode after this many tokens never will.
const MAX_PENDING_TOKENS: usize = 16;

/// Turns tokens into text one at a time; the parts joined equal the text of all tokens.
#[derive(Debug)]
pub struct TextStream<'a> {
    tokenizer: &'a Tokenizer,
    /// Tokens whose text is already out and which the decoder may need to see before the next ones.
    context: Vec<u32>,
    pending: Vec<u32>,
}

impl<'a> TextStream<'a> {
    /// A stream that starts at the beginning of a text.
    pub fn new(tokenizer: &'a Tokenizer) -> Self {
        Self { tokenizer, context: Vec::new(), pending: Vec::new() }
    }

    /// Adds a token; returns the text that is complete now (often one word, sometimes nothing).
    pub fn push(&mut self, id: u32) -> Result<String, TokenizerError> {
        self.pending.push(id);
        let new = self.new_text(self.pending.len())?;
        if !new.ends_with(HALF) {
            return Ok(self.settle(self.pending.len(), new));
        }
        if self.pending.len() < CHARACTER_BYTES {
            return Ok(String::new());
        }
        // More tokens than one character can have: only what the last U+FFFD stands for may still change.
        for count in (1..self.pending.len()).rev() {
            let front = self.new_text(count)?;
            if new.strip_prefix(front.as_str()).is_some_and(|rest| rest.chars().eq([HALF])) {
                return Ok(self.settle(count, front));
            }
        }
        if self.pending.len() < MAX_PENDING_TOKENS {
            return Ok(String::new());
        }
        Ok(self.settle(self.pending.len(), new))
    }

    /// What is left when no more tokens come: half a character as U+FFFD.
    pub fn finish(self) -> Result<String, TokenizerError> {
        self.new_text(self.pending.len())
    }

    /// The text that the first `count` pending tokens add.
    fn new_text(&self, count: usize) -> Result<String, TokenizerError> {
        let before = self.tokenizer.decode(&self.context)?;
        let all: Vec<u32> = self.context.iter().chain(&self.pending[..count]).copied().collect();
        let after = self.tokenizer.decode(&all)?;
        Ok(after.strip_prefix(before.as_str()).unwrap_or_default().to_owned())
    }

    fn settle(&mut self, count: usize, text: String) -> String {
        let rest = self.pending.split_off(count);
        self.context = std::mem::replace(&mut self.pending, rest);
        text
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn streamed_text_equals_the_text(text in "(?s)[a�é世😀\\PC.]{0,30}") {
            let trained = Tokenizer::train(["Grüße, 世界! the the the cat"].into_iter(), 280).unwrap();
            for tokenizer in [Tokenizer::Bytes, trained] {
                let mut stream = TextStream::new(&tokenizer);
                let mut out = String::new();
                for id in tokenizer.encode(&text).unwrap() {
                    out += &stream.push(id).unwrap();
                }
                out += &stream.finish().unwrap();
                prop_assert_eq!(&out, &text);
            }
        }

        #[test]
        fn any_bytes_stream_without_loss_of_later_text(bytes in prop::collection::vec(0_u32..257, 0..40)) {
            let tokenizer = Tokenizer::Bytes;
            let mut stream = TextStream::new(&tokenizer);
            let mut out = String::new();
            for id in bytes.iter().copied().chain("end".bytes().map(u32::from)) {
                out += &stream.push(id).unwrap();
            }
            out += &stream.finish().unwrap();
            prop_assert!(out.ends_with("end"));
        }
    }
}
