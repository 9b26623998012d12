//! Text of a token stream as it grows: one token can be half a character.

use super::{Tokenizer, TokenizerError};

/// A character has at most 4 bytes, so a tail that still does not decode after this many tokens never will.
const MAX_PENDING_TOKENS: usize = 8;

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
        let (before, after) = self.texts()?;
        let new = after.strip_prefix(before.as_str());
        let complete = new.is_some_and(|text| !text.ends_with('\u{fffd}'));
        if !complete && self.pending.len() < MAX_PENDING_TOKENS {
            return Ok(String::new());
        }
        let text = new.unwrap_or_default().to_owned();
        self.context = std::mem::take(&mut self.pending);
        Ok(text)
    }

    /// What is left when no more tokens come: half a character as U+FFFD.
    pub fn finish(self) -> Result<String, TokenizerError> {
        let (before, after) = self.texts()?;
        Ok(after.strip_prefix(before.as_str()).unwrap_or_default().to_owned())
    }

    fn texts(&self) -> Result<(String, String), TokenizerError> {
        let before = self.tokenizer.decode(&self.context)?;
        let all: Vec<u32> = self.context.iter().chain(&self.pending).copied().collect();
        Ok((before, self.tokenizer.decode(&all)?))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn streamed_text_equals_the_text(text in "(?s).{0,60}") {
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
