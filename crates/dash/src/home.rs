//! The first screen: competitions.

use api::model::{Competition, CompetitionPage, Pagination};

use crate::{COMPETITIONS, Key, Wish};

/// Competitions.
#[derive(Clone, Debug, Default)]
pub(crate) struct Home {
    pub(crate) rows: Vec<Competition>,
    pub(crate) pagination: Option<Pagination>,
    pub(crate) row: usize,
    pub(crate) completed: bool,
    start: u64,
}

impl Home {
    pub(crate) fn wish(&self) -> Wish {
        Wish::Competitions { completed: self.completed, start: self.start }
    }

    pub(crate) fn selected(&self) -> Option<&Competition> {
        self.rows.get(self.row)
    }

    pub(crate) fn show(&mut self, page: CompetitionPage) {
        // The same competition stays selected when the order changes.
        let id = self.selected().map(|found| found.id.clone());
        self.rows = page.competitions;
        self.pagination = Some(page.pagination);
        let again = id.and_then(|id| self.rows.iter().position(|found| found.id == id));
        self.row = again.unwrap_or_else(|| self.row.min(self.rows.len().saturating_sub(1)));
    }

    pub(crate) fn key(&mut self, key: Key) -> Vec<Wish> {
        let last = self.rows.len().saturating_sub(1);
        match key {
            Key::Down | Key::Char('j') => self.row = (self.row + 1).min(last),
            Key::Up | Key::Char('k') => self.row = self.row.saturating_sub(1),
            Key::Home => self.row = 0,
            Key::End => self.row = last,
            Key::Char('c') => {
                self.completed = !self.completed;
                self.start = 0;
                return vec![self.wish()];
            }
            Key::Char('n') | Key::PageDown if self.pagination.is_some_and(|page| page.has_more) => {
                self.start += u64::from(COMPETITIONS);
                self.row = 0;
                return vec![self.wish()];
            }
            Key::Char('p') | Key::PageUp if self.start > 0 => {
                self.start = self.start.saturating_sub(COMPETITIONS.into());
                self.row = 0;
                return vec![self.wish()];
            }
            _ => {}
        }
        Vec::new()
    }
}
