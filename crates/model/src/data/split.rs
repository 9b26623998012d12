//! Held-out text: whole files that training never sees, nor near copies of them.
//!
//! Files are ranked by the hash of their name and held out in that order until 1/12 of the text is. A document
//! of a held-out file stays in training instead if at least half of its shingles (runs of 8 words, lower case,
//! without punctuation) also occur in another file. With a single file, or when nearly everything is a copy,
//! the last 1/12 of the text is held out instead, and the note says so.

use std::{collections::HashMap, fmt};

use serde::Serialize;

use super::{
    DataError,
    collect::{Corpus, SourceFile},
    summary::size,
};
use crate::{limits::MAX_HELD_OUT_BYTES, random::mix};

/// One part in this many is held out.
const HELD_OUT_PART: u64 = 12;
/// A file that is larger than one part in this many of the corpus is never held out.
const LARGEST_HELD_OUT_PART: u64 = 4;
/// Less than one part in this many held out by file: use the tail instead.
const SMALLEST_HELD_OUT_PART: u64 = 96;
/// Words of a shingle.
const SHINGLE_WORDS: usize = 8;
/// Most shingles that are kept; of a larger corpus a sample by hash is kept.
const MOST_SHINGLES: u64 = 4 << 20;
/// Bytes per word that the sampling rate assumes.
const BYTES_PER_WORD: u64 = 6;

/// How the held-out text was chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SplitMethod {
    /// Whole files.
    Files,
    /// The last part of the text, because there was one file, or none without a near copy.
    Tail,
}

/// What was held out, for the summary of a run.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SplitNote {
    /// How.
    pub method: SplitMethod,
    /// Bytes of text held out.
    pub held_out_bytes: u64,
    /// Bytes of text to train on.
    pub train_bytes: u64,
    /// Documents that went back to training because they nearly repeat other text.
    pub near_duplicates: u64,
    /// Share (0 to 1) of the held-out shingles that training text has too.
    pub overlap: f64,
}

/// A corpus in two sides. Both have at least one document.
#[derive(Debug, Clone)]
pub struct Split {
    /// To train on, in the order of the corpus.
    pub train: Vec<String>,
    /// To measure on.
    pub held_out: Vec<String>,
    /// How it was done.
    pub note: SplitNote,
}

/// Splits by file where that is possible; depends on names and texts only.
pub fn split(corpus: Corpus) -> Result<Split, DataError> {
    let total: u64 = corpus.files.iter().map(SourceFile::bytes).sum();
    let target = (total / HELD_OUT_PART).clamp(1, MAX_HELD_OUT_BYTES);
    let shingles = Shingles::new(total);
    let (held, near_duplicates) = by_file(&corpus.files, &shingles, total, target);
    let held_bytes: u64 =
        held.iter().map(|&(file, document)| corpus.files[file].documents[document].len() as u64).sum();
    if held_bytes < total.min(MAX_HELD_OUT_BYTES) / SMALLEST_HELD_OUT_PART || held.is_empty() {
        return tail(corpus, &shingles, target);
    }
    let (mut train, mut held_out) = (Vec::new(), Vec::new());
    let mut held = held.into_iter().peekable();
    for (file, source) in corpus.files.into_iter().enumerate() {
        for (document, text) in source.documents.into_iter().enumerate() {
            let side = if held.next_if_eq(&(file, document)).is_some() { &mut held_out } else { &mut train };
            side.push(text);
        }
    }
    Ok(finish(train, held_out, SplitMethod::Files, near_duplicates, &shingles))
}

fn finish(
    train: Vec<String>,
    held_out: Vec<String>,
    method: SplitMethod,
    near_duplicates: u64,
    shingles: &Shingles,
) -> Split {
    let bytes = |texts: &[String]| texts.iter().map(|text| text.len() as u64).sum();
    let index = shingles.index(train.iter().map(|text| (0, text.as_str())));
    let (mut known, mut all) = (0_u64, 0_u64);
    for text in &held_out {
        shingles.for_each(text, |shingle| {
            all += 1;
            known += u64::from(index.contains_key(&shingle));
        });
    }
    let note = SplitNote {
        method,
        held_out_bytes: bytes(&held_out),
        train_bytes: bytes(&train),
        near_duplicates,
        overlap: if all == 0 { 0.0 } else { known as f64 / all as f64 },
    };
    Split { train, held_out, note }
}

/// The held-out (file, document) pairs in order, and how many documents stayed in training as near copies.
fn by_file(files: &[SourceFile], shingles: &Shingles, total: u64, target: u64) -> (Vec<(usize, usize)>, u64) {
    if files.len() < 2 {
        return (Vec::new(), 0);
    }
    let texts = files.iter().enumerate();
    let index = shingles
        .index(texts.flat_map(|(file, source)| {
            source.documents.iter().map(move |text| (file as u32, text.as_str()))
        }));
    let mut ranked: Vec<_> = (0..files.len()).collect();
    ranked.sort_by_cached_key(|&file| (*blake3::hash(files[file].name.as_bytes()).as_bytes(), file));
    let (mut held, mut bytes, mut near_duplicates) = (Vec::new(), 0, 0);
    for file in ranked {
        if bytes >= target {
            break;
        }
        if files[file].bytes() > total / LARGEST_HELD_OUT_PART {
            continue;
        }
        for (document, text) in files[file].documents.iter().enumerate() {
            if shingles.repeats(text, &index, file as u32) {
                near_duplicates += 1;
            } else {
                held.push((file, document));
                bytes += text.len() as u64;
            }
        }
    }
    held.sort_unstable();
    (held, near_duplicates)
}

/// Holds out the last `target` bytes or so; a document on the border is cut after a line.
fn tail(corpus: Corpus, shingles: &Shingles, target: u64) -> Result<Split, DataError> {
    let mut train: Vec<String> = corpus.files.into_iter().flat_map(|file| file.documents).collect();
    let mut held_out = Vec::new();
    let mut left = target as usize;
    while left > 0
        && let Some(text) = train.pop()
    {
        if text.len() <= left && !train.is_empty() {
            left -= text.len();
            held_out.push(text);
            continue;
        }
        let border = text.floor_char_boundary(text.len() - left.min(text.len()));
        let border = text[border..].find('\n').map_or(border, |line| border + line + 1);
        let (front, back) = text.split_at(border);
        let pieces = [(front, &mut train), (back, &mut held_out)];
        for (piece, side) in pieces {
            if !piece.trim().is_empty() {
                side.push(piece.to_owned());
            }
        }
        left = 0;
    }
    held_out.reverse();
    if held_out.is_empty() || train.is_empty() {
        let side = if train.is_empty() { "training" } else { "held-out" };
        return Err(DataError::TooLittle { side, tokens: 0, needed: 2 });
    }
    let index = shingles.index(train.iter().map(|text| (0, text.as_str())));
    let repeats: Vec<_> = held_out.iter().map(|text| shingles.repeats(text, &index, 1)).collect();
    let mut near_duplicates = 0;
    if repeats.contains(&false) {
        for (text, repeats) in std::mem::take(&mut held_out).into_iter().zip(repeats) {
            near_duplicates += u64::from(repeats);
            if repeats { &mut train } else { &mut held_out }.push(text);
        }
    }
    Ok(finish(train, held_out, SplitMethod::Tail, near_duplicates, shingles))
}

/// Marks a shingle that occurs in two files or more.
const MANY_FILES: u32 = u32::MAX;

/// Hashes of runs of words; a fixed share of all hashes is kept, the same for every text.
struct Shingles {
    mask: u64,
}

impl Shingles {
    fn new(corpus_bytes: u64) -> Self {
        let mut mask = 0;
        while corpus_bytes / BYTES_PER_WORD / (mask + 1) > MOST_SHINGLES {
            mask = 2 * mask + 1;
        }
        Self { mask }
    }

    /// For each shingle the file that has it, or `MANY_FILES`.
    fn index<'a>(&self, texts: impl Iterator<Item = (u32, &'a str)>) -> HashMap<u64, u32> {
        let mut index = HashMap::new();
        for (file, text) in texts {
            self.for_each(text, |shingle| {
                let owner = index.entry(shingle).or_insert(file);
                if *owner != file {
                    *owner = MANY_FILES;
                }
            });
        }
        index
    }

    /// Whether at least half of the shingles of `text` occur in a file other than `file`.
    fn repeats(&self, text: &str, index: &HashMap<u64, u32>, file: u32) -> bool {
        let (mut shared, mut all) = (0_u64, 0_u64);
        self.for_each(text, |shingle| {
            all += 1;
            shared += u64::from(index.get(&shingle).is_some_and(|&owner| owner != file));
        });
        all > 0 && 2 * shared >= all
    }

    fn for_each(&self, text: &str, mut each: impl FnMut(u64)) {
        let mut window = [0_u64; SHINGLE_WORDS];
        let mut words = 0;
        let mut emit = |window: &[u64; SHINGLE_WORDS], words: usize| {
            let oldest_first = (0..SHINGLE_WORDS).map(|i| window[(words + i) % SHINGLE_WORDS]);
            let shingle = oldest_first.fold(0, |hash, word| mix(hash ^ word));
            if shingle & self.mask == 0 {
                each(shingle);
            }
        };
        let is_word = |byte: &u8| byte.is_ascii_alphanumeric() || !byte.is_ascii();
        for word in text.as_bytes().split(|byte| !is_word(byte)).filter(|word| !word.is_empty()) {
            let hash = word.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
                (hash ^ u64::from(byte.to_ascii_lowercase())).wrapping_mul(0x0100_0000_01b3)
            });
            window[words % SHINGLE_WORDS] = hash;
            words += 1;
            if words >= SHINGLE_WORDS {
                emit(&window, words);
            }
        }
        if (1..SHINGLE_WORDS).contains(&words) {
            emit(&window, words);
        }
    }
}

impl fmt::Display for SplitNote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let how = match self.method {
            SplitMethod::Files => "whole files",
            SplitMethod::Tail => "the end of the text, as there are too few different files to split by file",
        };
        write!(
            f,
            "training on {}, measuring on {} held out ({how})",
            size(self.train_bytes),
            size(self.held_out_bytes)
        )?;
        if self.near_duplicates > 0 {
            write!(f, "; {} near copies left in training", self.near_duplicates)?;
        }
        if self.overlap >= 0.5 {
            write!(f, "; {:.0} % of the held-out text repeats training text", 100.0 * self.overlap)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::data::Summary;

    fn corpus(files: &[(&str, Vec<String>)]) -> Corpus {
        let files = files
            .iter()
            .map(|(name, documents)| SourceFile { name: (*name).to_owned(), documents: documents.clone() })
            .collect();
        Corpus { files, summary: Summary::default() }
    }

    /// Lines of words that no other seed shares.
    fn prose(seed: u64, lines: usize) -> String {
        let mut state = seed;
        let mut word = || {
            state = mix(state.wrapping_add(0x9e37_79b9_7f4a_7c15));
            format!("w{:x}", state % 5000)
        };
        (0..lines).map(|_| (0..10).map(|_| word()).collect::<Vec<_>>().join(" ") + "\n").collect()
    }

    #[test]
    fn whole_files_are_held_out_and_both_sides_keep_all_text() {
        let names: Vec<_> = (0..48).map(|i| format!("f{i}.txt")).collect();
        let files: Vec<_> =
            names.iter().enumerate().map(|(i, name)| (name.as_str(), vec![prose(i as u64, 20)])).collect();
        let split = split(corpus(&files)).unwrap();
        assert_eq!(split.note.method, SplitMethod::Files);
        assert!((3..=6).contains(&split.held_out.len()), "{}", split.held_out.len());
        assert_eq!(split.train.len() + split.held_out.len(), 48);
        assert_eq!(split.note.near_duplicates, 0);
        assert!(split.note.overlap < 0.01);
    }

    #[test]
    fn near_copies_stay_in_training() {
        let names: Vec<_> = (0..48).map(|i| format!("f{i}.txt")).collect();
        // Files 2i and 2i + 1 differ in one line of twenty, but for the last four pairs.
        let text = |i: u64| {
            if i < 40 { prose(i / 2, 19) + &prose(1000 + i, 1) } else { prose(i + 500, 20) }
        };
        let files: Vec<_> =
            names.iter().enumerate().map(|(i, name)| (name.as_str(), vec![text(i as u64)])).collect();
        let split = split(corpus(&files)).unwrap();
        assert_eq!(split.note.method, SplitMethod::Files);
        assert!(split.note.near_duplicates > 0);
        assert!(split.note.overlap < 0.05, "{}", split.note.overlap);
        assert!(split.held_out.iter().all(|held| (540..548).any(|i| prose(i, 20) == *held)));
    }

    #[test]
    fn a_single_file_is_split_at_a_line_near_its_end() {
        let text = prose(1, 240);
        let split = split(corpus(&[("a.txt", vec![text.clone()])])).unwrap();
        assert_eq!(split.note.method, SplitMethod::Tail);
        assert_eq!(split.train.concat() + &split.held_out.concat(), text);
        assert!(split.train[0].ends_with('\n'));
        let part = split.held_out[0].len() as f64 / text.len() as f64;
        assert!((0.06..0.09).contains(&part), "{part}");
        assert!(split.note.to_string().contains("the end of the text"));
    }

    #[test]
    fn a_text_that_repeats_is_split_all_the_same_and_says_so() {
        let text = prose(1, 3).repeat(100);
        let split = split(corpus(&[("a.txt", vec![text.clone()]), ("b.txt", vec![text])])).unwrap();
        assert_eq!(split.note.method, SplitMethod::Tail);
        assert!(split.note.overlap > 0.9);
        assert!(split.note.to_string().contains("repeats training text"), "{}", split.note);
    }

    #[test]
    fn a_text_too_short_to_split_is_refused() {
        assert!(matches!(
            split(corpus(&[("a.txt", vec!["x".to_owned()])])),
            Err(DataError::TooLittle { .. })
        ));
    }

    proptest! {
        #[test]
        fn nothing_is_lost_or_made_up(
            files in prop::collection::vec(prop::collection::vec("[a-d \né]{1,40}", 1..5), 1..8)
        ) {
            let named: Vec<_> = (0..files.len()).map(|i| format!("{i}")).collect();
            let listed: Vec<_> = named.iter().map(String::as_str).zip(files.clone()).collect();
            let Ok(split) = split(corpus(&listed)) else { return Ok(()) };
            prop_assert!(!split.train.is_empty() && !split.held_out.is_empty());
            let count = |texts: &[String]| {
                let mut letters: Vec<char> = texts.concat().chars().filter(|c| !c.is_whitespace()).collect();
                letters.sort_unstable();
                letters
            };
            prop_assert_eq!(count(&[split.train, split.held_out].concat()), count(&files.concat()));
        }
    }
}
