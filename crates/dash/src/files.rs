//! The third screen: one submission, its numbers, its files.

use std::ops::Range;

use api::model::{FileKind, FilePage, FileRow, Gated, SubmissionDetail};

use crate::format::plain;
use crate::highlight::{Language, Part};
use crate::text::{Room, Text};
use crate::{Key, Wish};

/// Screens of text before the end of what is here at which more of a file is asked for.
const AHEAD: usize = 4;
/// Name of a log whose judge is not known: asked for to hear why there is none yet.
const SOME_LOG: &str = "judgement.log";

/// One submission.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) id: u64,
    pub(crate) found: Option<SubmissionDetail>,
    pub(crate) row: usize,
    pub(crate) open: Option<Open>,
    /// A file that is not shown yet.
    pub(crate) gate: Option<(String, Gated)>,
    /// A log is wanted as soon as it is known which there are.
    wants_log: bool,
}

/// A file that is read. More of it comes as one reads on.
#[derive(Clone, Debug)]
pub(crate) struct Open {
    pub(crate) name: String,
    pub(crate) text: Text,
    pub(crate) total: u64,
    pub(crate) binary: bool,
    language: Option<Language>,
    /// The quote of a string over several lines, at the start of each line that is here and of the next.
    within: Vec<Option<char>>,
    next: Option<u64>,
    asked: Option<u64>,
}

impl Open {
    fn new(page: &FilePage) -> Self {
        let mut open = Self {
            language: Language::of(&page.name),
            name: page.name.clone(),
            text: Text::default(),
            total: page.pagination.lines,
            binary: page.is_binary,
            within: vec![None],
            next: None,
            asked: None,
        };
        open.extend(page);
        open
    }

    fn extend(&mut self, page: &FilePage) {
        for line in page.data.lines().map(plain) {
            if let Some(language) = self.language {
                let mut within = self.within.last().copied().flatten();
                language.parts(&line, &mut within);
                self.within.push(within);
            }
            self.text.lines.push(line);
        }
        self.next = page.pagination.next_start_idx;
        self.asked = None;
    }

    /// What is highlighted in a line.
    pub(crate) fn parts(&self, line: usize) -> Vec<(Range<usize>, Part)> {
        let (Some(language), Some(text)) = (self.language, self.text.lines.get(line)) else {
            return Vec::new();
        };
        language.parts(text, &mut self.within.get(line).copied().flatten())
    }
}

impl Entry {
    pub(crate) fn new(id: u64) -> Self {
        Self { id, found: None, row: 0, open: None, gate: None, wants_log: false }
    }

    pub(crate) fn files(&self) -> &[FileRow] {
        self.found.as_ref().map_or(&[], |found| &found.files)
    }

    pub(crate) fn selected(&self) -> Option<&FileRow> {
        self.files().get(self.row)
    }

    /// Whether its log is wanted now.
    pub(crate) fn show(&mut self, found: SubmissionDetail) -> bool {
        self.found = Some(found);
        self.row = self.row.min(self.files().len().saturating_sub(1));
        std::mem::take(&mut self.wants_log)
    }

    /// The log of the judge behind the one that is read, or of the first.
    ///
    /// # Errors
    /// There is none; in words.
    pub(crate) fn log(&mut self) -> Result<Vec<Wish>, &'static str> {
        let Some(found) = &self.found else {
            self.wants_log = true;
            return Ok(Vec::new());
        };
        let logs: Vec<&FileRow> = found.files.iter().filter(|file| file.kind == FileKind::Log).collect();
        if logs.is_empty() && found.submission.revealed {
            return Err("no judge has shown a log of it");
        }
        let read = self.open.as_ref().and_then(|open| logs.iter().position(|log| log.name == open.name));
        let next = logs.get(read.map_or(0, |at| (at + 1) % logs.len()));
        if read.is_some() && logs.len() == 1 {
            return Ok(Vec::new());
        }
        let name = next.map_or_else(|| SOME_LOG.to_owned(), |log| log.name.clone());
        if let Some(row) = self.files().iter().position(|file| file.name == name) {
            self.row = row;
        }
        Ok(vec![Wish::File { id: self.id, name, start: 0 }])
    }

    /// A file is not shown yet.
    pub(crate) fn close(&mut self, name: String, gate: Gated) {
        (self.open, self.gate) = (None, Some((name, gate)));
    }

    /// Closes what is read; whether anything was.
    pub(crate) fn shut(&mut self) -> bool {
        let read = self.open.is_some() || self.gate.is_some();
        (self.open, self.gate) = (None, None);
        read
    }

    pub(crate) fn file(&mut self, page: &FilePage) {
        let start = page.pagination.start_idx;
        if start == 0 {
            (self.open, self.gate) = (Some(Open::new(page)), None);
            return;
        }
        // An answer to what was closed, or came already, is passed over.
        let lines = |open: &Open| open.text.lines.len() as u64;
        if let Some(open) = self.open.as_mut().filter(|open| open.name == page.name && lines(open) == start) {
            open.extend(page);
        }
    }

    /// Something went wrong: what was asked for may be asked for again.
    pub(crate) fn failed(&mut self) {
        if let Some(open) = &mut self.open {
            open.asked = None;
        }
    }

    /// Takes a key; `room` is that of a file with a number of lines.
    pub(crate) fn key(&mut self, key: Key, room: impl Fn(u64) -> Room) -> Vec<Wish> {
        if let Some(open) = &mut self.open {
            if key == Key::Enter {
                self.open = None;
                return Vec::new();
            }
            let room = room(open.total);
            open.text.key(key, room);
            // The rest of a long file is fetched before the end of what is here.
            let near = open.text.place.line + AHEAD * room.rows.max(1) >= open.text.lines.len();
            if let Some(start) = open.next.filter(|_| near && open.asked.is_none()) {
                open.asked = Some(start);
                return vec![Wish::File { id: self.id, name: open.name.clone(), start }];
            }
            return Vec::new();
        }
        match key {
            Key::Down | Key::Char('j') => self.row = (self.row + 1).min(self.files().len().saturating_sub(1)),
            Key::Up | Key::Char('k') => self.row = self.row.saturating_sub(1),
            Key::Enter => {
                if self.gate.take().is_some() {
                    return Vec::new();
                }
                // What is hidden is asked for, too: the host says why, and until when.
                if let Some(name) = self.selected().map(|file| file.name.clone()) {
                    return vec![Wish::File { id: self.id, name, start: 0 }];
                }
            }
            _ => {}
        }
        Vec::new()
    }
}
