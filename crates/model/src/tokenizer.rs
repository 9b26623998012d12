//! Text to token ids and back: bytes (built in), or any `tokenizer.json`.
//!
//! Byte-level ids: 0 to 255 are the bytes of the UTF-8 text, 256 is the end of a text. It needs no file, suits
//! small models, and every text round-trips.

use std::{fmt, path::Path};

use serde_json::json;
use tokenizers::{
    AddedToken, TokenizerBuilder, models::bpe::BPE, models::bpe::BpeTrainerBuilder,
    normalizers::NormalizerWrapper, pre_tokenizers::byte_level::ByteLevel,
};

use crate::{
    guard,
    hash::BlobHash,
    limits::{MAX_ENCODE_PIECE_BYTES, MAX_TOKENIZER_BYTES, MAX_VOCAB},
};

mod text_stream;
pub use text_stream::TextStream;

/// Canonical bytes of the byte-level tokenizer; its hash is that of this line.
const BYTE_LEVEL: &[u8] = b"shoal byte-level tokenizer 1\n";
/// Id of the end of a text in the byte-level tokenizer.
const BYTE_LEVEL_END: u32 = 256;
/// The end-of-text token that we write, then the names that others use, in order of preference.
const END_OF_TEXT: [&str; 7] =
    ["<|end_of_text|>", "<|endoftext|>", "</s>", "<eos>", "<|eos|>", "<|im_end|>", "[EOS]"];
/// A merge needs to occur this often in the corpus.
const MIN_MERGE_FREQUENCY: u64 = 2;
/// Smallest vocabulary of a trained tokenizer: all bytes and the end of a text.
const MIN_TRAINED_VOCAB: u32 = 257;

/// Why a tokenizer could not be read, made or used.
#[derive(Debug, thiserror::Error)]
pub enum TokenizerError {
    /// The file could not be read.
    #[error("cannot read the tokenizer {path}: {source}; check the path and that you may read it")]
    Read {
        /// The file.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// A file that is no tokenizer.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: String,
        /// What is wrong with it.
        source: Box<TokenizerError>,
    },
    /// Larger than `MAX_TOKENIZER_BYTES`.
    #[error("the tokenizer has {bytes} bytes; at most {MAX_TOKENIZER_BYTES} are taken")]
    TooLarge {
        /// Size found.
        bytes: u64,
    },
    /// Not a `tokenizer.json` that the `tokenizers` library understands.
    #[error(
        "not a valid tokenizer.json: {0}; save it again with the `tokenizers` library, or make one with `shoal tokenizer train`"
    )]
    Parse(String),
    /// No token marks the end of a text.
    #[error("the tokenizer has no end-of-text token; add a special token named {}", END_OF_TEXT[0])]
    NoEndOfText,
    /// Ids beyond `MAX_VOCAB`.
    #[error("the tokenizer has ids up to {highest}; the highest allowed is {}", MAX_VOCAB - 1)]
    TooManyTokens {
        /// Highest id found.
        highest: u32,
    },
    /// A vocabulary that training cannot make.
    #[error("a vocabulary of {0} is not possible; choose {MIN_TRAINED_VOCAB} to {MAX_VOCAB}")]
    Vocab(u32),
    /// Training failed inside the library.
    #[error("cannot train the tokenizer: {0}")]
    Train(String),
    /// The library refused to encode a text.
    #[error("cannot tokenize a text: {0}")]
    Encode(String),
    /// An id outside the vocabulary, or one that does not decode.
    #[error("cannot turn tokens into text: {0}")]
    Decode(String),
}

/// A tokenizer: built-in bytes, or a `tokenizer.json`.
#[derive(Debug, Clone)]
pub enum Tokenizer {
    /// Ids 0–255 are bytes, 256 is the end of a text.
    Bytes,
    /// From a `tokenizer.json`.
    Json(JsonTokenizer),
}

/// What a `tokenizer.json` holds, and its exact bytes.
#[derive(Clone)]
pub struct JsonTokenizer {
    bytes: Vec<u8>,
    inner: Box<tokenizers::Tokenizer>,
    vocab: u32,
    end_of_text: u32,
    end_of_text_name: String,
}

impl fmt::Debug for JsonTokenizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JsonTokenizer")
            .field("vocab", &self.vocab)
            .field("end_of_text", &self.end_of_text)
            .finish_non_exhaustive()
    }
}

impl Tokenizer {
    /// Reads a `tokenizer.json`, or the canonical bytes of the byte-level tokenizer.
    pub fn open(path: &Path) -> Result<Self, TokenizerError> {
        let read = |source| TokenizerError::Read { path: path.display().to_string(), source };
        let bytes = std::fs::metadata(path).map_err(read)?.len();
        let opened = if bytes > MAX_TOKENIZER_BYTES {
            Err(TokenizerError::TooLarge { bytes })
        } else {
            Self::from_bytes(&std::fs::read(path).map_err(read)?)
        };
        opened.map_err(|source| TokenizerError::File {
            path: path.display().to_string(),
            source: Box::new(source),
        })
    }

    /// The tokenizer whose [`Tokenizer::to_bytes`] are `bytes`.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, TokenizerError> {
        if bytes == BYTE_LEVEL {
            return Ok(Self::Bytes);
        }
        if bytes.len() as u64 > MAX_TOKENIZER_BYTES {
            return Err(TokenizerError::TooLarge { bytes: bytes.len() as u64 });
        }
        JsonTokenizer::parse(bytes.to_vec()).map(Self::Json)
    }

    /// Canonical bytes: of a `tokenizer.json` the file as it was read.
    pub fn to_bytes(&self) -> &[u8] {
        match self {
            Self::Bytes => BYTE_LEVEL,
            Self::Json(json) => &json.bytes,
        }
    }

    /// BLAKE3 of [`Tokenizer::to_bytes`].
    pub fn hash(&self) -> BlobHash {
        BlobHash::of(self.to_bytes())
    }

    /// Number of ids: the highest one plus 1.
    pub fn vocab(&self) -> u32 {
        match self {
            Self::Bytes => BYTE_LEVEL_END + 1,
            Self::Json(json) => json.vocab,
        }
    }

    /// The id that ends every document.
    pub fn end_of_text(&self) -> u32 {
        match self {
            Self::Bytes => BYTE_LEVEL_END,
            Self::Json(json) => json.end_of_text,
        }
    }

    /// The name of the end-of-text token in a `tokenizer.json`.
    pub fn end_of_text_name(&self) -> &str {
        match self {
            Self::Bytes => END_OF_TEXT[0],
            Self::Json(json) => &json.end_of_text_name,
        }
    }

    /// Token ids of `text`, without an end-of-text. Names of special tokens inside the text are plain text.
    ///
    /// Long texts are cut into pieces of at most `MAX_ENCODE_PIECE_BYTES` first.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, TokenizerError> {
        let json = match self {
            Self::Bytes => return Ok(text.bytes().map(u32::from).collect()),
            Self::Json(json) => json,
        };
        let mut ids = Vec::with_capacity(text.len() / 3);
        for piece in pieces(text, MAX_ENCODE_PIECE_BYTES) {
            let encoding =
                guarded(|| json.inner.encode_fast(piece, false)).map_err(TokenizerError::Encode)?;
            ids.extend_from_slice(encoding.get_ids());
        }
        match ids.iter().find(|&&id| id >= json.vocab) {
            Some(id) => {
                Err(TokenizerError::Encode(format!("the file gives id {id}, which it does not list")))
            }
            None => Ok(ids),
        }
    }

    /// Text of `ids`. End-of-text and other special tokens give nothing; bytes that are no UTF-8 give U+FFFD.
    pub fn decode(&self, ids: &[u32]) -> Result<String, TokenizerError> {
        if let Some(id) = ids.iter().find(|&&id| id >= self.vocab()) {
            return Err(TokenizerError::Decode(format!(
                "id {id} is outside the vocabulary of {}",
                self.vocab()
            )));
        }
        match self {
            Self::Bytes => {
                let bytes: Vec<u8> = ids.iter().filter_map(|&id| u8::try_from(id).ok()).collect();
                Ok(String::from_utf8_lossy(&bytes).into_owned())
            }
            Self::Json(json) => guarded(|| json.inner.decode(ids, true)).map_err(TokenizerError::Decode),
        }
    }

    /// Trains byte-level BPE: any text round-trips, ids 0 is the end of a text, 1–256 are bytes, the rest merges.
    ///
    /// The result depends on `texts` and `vocab` only. A small corpus can give fewer than `vocab` tokens.
    pub fn train<'a>(
        texts: impl Iterator<Item = &'a str> + Send,
        vocab: u32,
    ) -> Result<Self, TokenizerError> {
        if !(MIN_TRAINED_VOCAB..=MAX_VOCAB).contains(&vocab) {
            return Err(TokenizerError::Vocab(vocab));
        }
        let failed = |e: tokenizers::Error| TokenizerError::Train(e.to_string());
        let byte_level = ByteLevel::new(false, true, true);
        let mut inner = TokenizerBuilder::<BPE, NormalizerWrapper, _, _, _>::new()
            .with_model(BPE::default())
            .with_pre_tokenizer(Some(byte_level))
            .with_post_processor(Some(byte_level))
            .with_decoder(Some(byte_level))
            .build()
            .map_err(failed)?;
        let mut trainer = BpeTrainerBuilder::new()
            .show_progress(false)
            .vocab_size(vocab as usize)
            .min_frequency(MIN_MERGE_FREQUENCY)
            .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
            .special_tokens(vec![AddedToken::from(END_OF_TEXT[0], true)])
            .build();
        let texts = texts.flat_map(|text| pieces(text, MAX_ENCODE_PIECE_BYTES));
        inner.train(&mut trainer, texts).map_err(failed)?;
        Self::from_bytes(inner.to_string(false).map_err(failed)?.as_bytes())
    }

    /// A `tokenizer.json` with the same ids for the same text.
    pub fn to_tokenizer_json(&self) -> Vec<u8> {
        match self {
            Self::Bytes => byte_level_json(),
            Self::Json(json) => json.bytes.clone(),
        }
    }
}

impl JsonTokenizer {
    fn parse(bytes: Vec<u8>) -> Result<Self, TokenizerError> {
        let mut inner =
            guarded(|| tokenizers::Tokenizer::from_bytes(&bytes)).map_err(TokenizerError::Parse)?;
        // A file may carry settings for batches of short inputs; a corpus must be neither cut nor filled up.
        inner.with_truncation(None).map_err(|e| TokenizerError::Parse(e.to_string()))?;
        inner.with_padding(None);
        inner.set_encode_special_tokens(true);
        let (end_of_text_name, end_of_text) = END_OF_TEXT
            .iter()
            .find_map(|name| inner.token_to_id(name).map(|id| ((*name).to_owned(), id)))
            .ok_or(TokenizerError::NoEndOfText)?;
        let highest = inner.get_vocab(true).into_values().max().unwrap_or(0);
        if highest >= MAX_VOCAB {
            return Err(TokenizerError::TooManyTokens { highest });
        }
        Ok(Self { bytes, inner: Box::new(inner), vocab: highest + 1, end_of_text, end_of_text_name })
    }
}

/// Runs the library, which panics on some broken files where it could return an error.
fn guarded<T>(run: impl FnOnce() -> tokenizers::Result<T>) -> Result<T, String> {
    match guard::guarded(run) {
        Some(result) => result.map_err(|error| error.to_string()),
        None => Err("the file contradicts itself".to_owned()),
    }
}

/// Cuts `text` into pieces of at most `most` bytes, after a line break where the piece has one.
fn pieces(text: &str, most: usize) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let end = if rest.len() <= most {
            rest.len()
        } else {
            let end = rest.floor_char_boundary(most);
            rest[..end].rfind('\n').map_or(end, |line| line + 1)
        };
        let piece;
        (piece, rest) = rest.split_at(end);
        Some(piece)
    })
}

/// GPT-2's one-to-one map from bytes to printable characters, which `tokenizer.json` spells bytes with.
fn byte_characters() -> [char; 256] {
    let mut characters = ['\0'; 256];
    let mut next = 256;
    for byte in 0..=255_u8 {
        let printable = matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
        characters[usize::from(byte)] = if printable {
            char::from(byte)
        } else {
            next += 1;
            char::from_u32(next - 1).expect("256..=323 are characters")
        };
    }
    characters
}

fn byte_level_json() -> Vec<u8> {
    let vocab: serde_json::Map<_, _> =
        byte_characters().iter().enumerate().map(|(byte, c)| (c.to_string(), json!(byte))).collect();
    let byte_level =
        json!({ "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true });
    let value = json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": [{
            "id": BYTE_LEVEL_END, "content": END_OF_TEXT[0], "single_word": false, "lstrip": false,
            "rstrip": false, "normalized": false, "special": true,
        }],
        "normalizer": null,
        "pre_tokenizer": byte_level,
        "post_processor": null,
        "decoder": byte_level,
        "model": {
            "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
            "vocab": vocab, "merges": [],
        },
    });
    serde_json::to_vec(&value).expect("a JSON value with text keys")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn trained() -> Tokenizer {
        let text = "the cat sat on the mat. the dog sat on the log.\n".repeat(40);
        Tokenizer::train([text.as_str(), "Grüße, 世界!"].into_iter(), 300).unwrap()
    }

    #[test]
    fn byte_level_ids_are_bytes() {
        let tokenizer = Tokenizer::Bytes;
        assert_eq!(tokenizer.encode("Aé").unwrap(), [65, 0xc3, 0xa9]);
        assert_eq!(tokenizer.decode(&[65, 256, 0xc3, 0xa9]).unwrap(), "Aé");
        assert_eq!((tokenizer.vocab(), tokenizer.end_of_text()), (257, 256));
        assert!(matches!(Tokenizer::from_bytes(tokenizer.to_bytes()), Ok(Tokenizer::Bytes)));
        assert!(tokenizer.decode(&[257]).is_err());
    }

    #[test]
    fn training_is_deterministic_and_compresses() {
        let (a, b) = (trained(), trained());
        assert_eq!(a.to_bytes(), b.to_bytes());
        assert_eq!(a.hash(), Tokenizer::from_bytes(a.to_bytes()).unwrap().hash());
        assert_eq!(a.end_of_text(), 0);
        assert!(a.vocab() > 257 && a.vocab() <= 300);
        let text = "the cat sat on the log.";
        assert!(a.encode(text).unwrap().len() < text.len() / 2);
        assert!(Tokenizer::train(["x"].into_iter(), 256).is_err());
    }

    #[test]
    fn special_names_in_a_text_stay_text() {
        for tokenizer in [trained(), Tokenizer::from_bytes(&byte_level_json()).unwrap()] {
            let text = "a<|end_of_text|>b";
            let ids = tokenizer.encode(text).unwrap();
            assert!(!ids.contains(&tokenizer.end_of_text()));
            assert_eq!(tokenizer.decode(&ids).unwrap(), text);
        }
    }

    #[test]
    fn bad_files_are_refused_with_a_reason() {
        let without_end = String::from_utf8(byte_level_json()).unwrap().replace("end_of_text", "other");
        assert!(matches!(Tokenizer::from_bytes(without_end.as_bytes()), Err(TokenizerError::NoEndOfText)));
        for bad in ["", "{}", "[1, 2]", "{\"model\": {\"type\": \"BPE\"}}", "\u{1}"] {
            assert!(matches!(Tokenizer::from_bytes(bad.as_bytes()), Err(TokenizerError::Parse(_))), "{bad}");
        }
    }

    #[test]
    fn broken_files_give_an_error_or_a_tokenizer_but_no_panic() {
        let good = trained().to_bytes().to_vec();
        let places = (0..good.len()).step_by(29).chain((0..good.len()).rev().step_by(31)).chain(300..700);
        for position in places {
            for byte in [b'0', b'"', b'}', good[position] ^ 1] {
                let mut bytes = good.clone();
                bytes[position] = byte;
                if let Ok(tokenizer) = Tokenizer::from_bytes(&bytes)
                    && let Ok(ids) = tokenizer.encode("the cat, 世界")
                {
                    assert!(ids.iter().all(|&id| id < tokenizer.vocab()));
                    let _ = tokenizer.decode(&ids);
                }
            }
        }
    }

    #[test]
    fn pieces_end_after_lines_and_never_inside_a_character() {
        let cut: Vec<_> = pieces("ab\ncdéé\n\nfghijk", 5).collect();
        assert_eq!(cut, ["ab\n", "cdé", "é\n\n", "fghij", "k"]);
    }

    proptest! {
        #[test]
        fn every_text_round_trips_in_all_tokenizers(text in "\\PC*|(?s).{0,200}") {
            let exported = Tokenizer::from_bytes(&byte_level_json()).unwrap();
            for tokenizer in [Tokenizer::Bytes, trained(), exported] {
                let ids = tokenizer.encode(&text).unwrap();
                prop_assert!(ids.iter().all(|&id| id < tokenizer.vocab()));
                prop_assert_eq!(tokenizer.decode(&ids).unwrap(), text.clone());
            }
        }

        #[test]
        fn the_exported_byte_level_file_gives_the_same_ids(text in "(?s).{0,200}") {
            let exported = Tokenizer::from_bytes(&byte_level_json()).unwrap();
            prop_assert_eq!(exported.encode(&text).unwrap(), Tokenizer::Bytes.encode(&text).unwrap());
            prop_assert_eq!(exported.end_of_text(), BYTE_LEVEL_END);
            prop_assert_eq!(exported.vocab(), 257);
        }

        #[test]
        fn pieces_join_to_the_text(text in "(?s).{0,200}", most in 4_usize..50) {
            let cut: Vec<_> = pieces(&text, most).collect();
            prop_assert!(cut.iter().all(|piece| !piece.is_empty() && piece.len() <= most));
            prop_assert_eq!(cut.concat(), text);
        }
    }
}
