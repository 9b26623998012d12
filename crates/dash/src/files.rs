//! The third screen: one submission, its numbers, its files.

use api::model::{FilePage, FileRow, SubmissionDetail};

use crate::{Key, Wish};

/// Lines that a page key moves.
const STEP: usize = 15;

/// One submission.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) id: u64,
    pub(crate) found: Option<SubmissionDetail>,
    pub(crate) row: usize,
    pub(crate) open: Option<Open>,
}

/// A file that is read. More of it comes as one reads on.
#[derive(Clone, Debug)]
pub(crate) struct Open {
    pub(crate) name: String,
    pub(crate) lines: Vec<String>,
    pub(crate) total: u64,
    pub(crate) binary: bool,
    pub(crate) top: usize,
    next: Option<u64>,
    asked: Option<u64>,
}

impl Entry {
    pub(crate) fn new(id: u64) -> Self {
        Self { id, found: None, row: 0, open: None }
    }

    pub(crate) fn files(&self) -> &[FileRow] {
        self.found.as_ref().map_or(&[], |found| &found.files)
    }

    pub(crate) fn selected(&self) -> Option<&FileRow> {
        self.files().get(self.row)
    }

    pub(crate) fn show(&mut self, found: SubmissionDetail) -> Vec<Wish> {
        self.found = Some(found);
        self.row = self.row.min(self.files().len().saturating_sub(1));
        Vec::new()
    }

    pub(crate) fn file(&mut self, page: FilePage) {
        let lines: Vec<String> = page.data.lines().map(str::to_owned).collect();
        let (start, total) = (page.pagination.start_idx, page.pagination.lines);
        match &mut self.open {
            Some(open) if open.name == page.name && start == open.lines.len() as u64 && start > 0 => {
                open.lines.extend(lines);
                open.next = page.pagination.next_start_idx;
                open.asked = None;
            }
            _ => {
                let next = page.pagination.next_start_idx;
                let (name, binary) = (page.name, page.is_binary);
                self.open = Some(Open { name, lines, total, binary, top: 0, next, asked: None });
            }
        }
    }

    pub(crate) fn key(&mut self, key: Key) -> Vec<Wish> {
        if let Some(open) = &mut self.open {
            let last = open.lines.len().saturating_sub(1);
            match key {
                Key::Down | Key::Char('j') => open.top = (open.top + 1).min(last),
                Key::Up | Key::Char('k') => open.top = open.top.saturating_sub(1),
                Key::PageDown | Key::Char('n') => open.top = (open.top + STEP).min(last),
                Key::PageUp | Key::Char('p') => open.top = open.top.saturating_sub(STEP),
                Key::Home => open.top = 0,
                Key::End => open.top = last,
                Key::Enter => {
                    self.open = None;
                    return Vec::new();
                }
                _ => {}
            }
            // The rest of a long file is fetched before the end of what is here.
            if let Some(start) = open.next.filter(|_| open.top + 4 * STEP > last && open.asked.is_none()) {
                open.asked = Some(start);
                return vec![Wish::File { id: self.id, name: open.name.clone(), start }];
            }
            return Vec::new();
        }
        match key {
            Key::Down | Key::Char('j') => self.row = (self.row + 1).min(self.files().len().saturating_sub(1)),
            Key::Up | Key::Char('k') => self.row = self.row.saturating_sub(1),
            Key::Enter => {
                let file = self.selected().filter(|file| file.revealed);
                if let Some(name) = file.map(|file| file.name.clone()) {
                    return vec![Wish::File { id: self.id, name, start: 0 }];
                }
            }
            _ => {}
        }
        Vec::new()
    }
}
