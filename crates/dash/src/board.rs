//! A competition's board: each key's best, and what nothing beats in ratio, speed and fidelity at once.

use api::model::Board;

use crate::{BOARD, Key, Wish};

/// The board of one competition.
#[derive(Clone, Debug)]
pub(crate) struct Standing {
    pub(crate) competition: String,
    pub(crate) name: String,
    pub(crate) board: Option<Board>,
    /// Rows of the board, then those of the front.
    pub(crate) row: usize,
    start: u64,
}

impl Standing {
    pub(crate) fn new(competition: String, name: String) -> Self {
        Self { competition, name, board: None, row: 0, start: 0 }
    }

    pub(crate) fn wish(&self) -> Wish {
        Wish::Board { competition: self.competition.clone(), start: self.start }
    }

    /// An answer to a page that was left is passed over.
    pub(crate) fn show(&mut self, competition: &str, start: u64, board: Board) {
        if self.competition == competition && self.start == start {
            self.row = self.row.min((board.rows.len() + board.pareto.len()).saturating_sub(1));
            self.board = Some(board);
        }
    }

    /// Submissions of all rows.
    fn ids(&self) -> Vec<u64> {
        let Some(board) = &self.board else { return Vec::new() };
        let rows = board.rows.iter().map(|row| row.submission_id);
        rows.chain(board.pareto.iter().map(|point| point.submission_id)).collect()
    }

    pub(crate) fn selected(&self) -> Option<u64> {
        self.ids().get(self.row).copied()
    }

    fn turn(&mut self, start: u64) -> Vec<Wish> {
        (self.start, self.row) = (start, 0);
        vec![self.wish()]
    }

    pub(crate) fn key(&mut self, key: Key) -> Vec<Wish> {
        let last = self.ids().len().saturating_sub(1);
        let more = self.board.as_ref().is_some_and(|board| board.pagination.has_more);
        match key {
            Key::Down | Key::Char('j') => self.row = (self.row + 1).min(last),
            Key::Up | Key::Char('k') => self.row = self.row.saturating_sub(1),
            Key::Home => self.row = 0,
            Key::End => self.row = last,
            Key::Char('n') | Key::PageDown if more => return self.turn(self.start + u64::from(BOARD)),
            Key::Char('p') | Key::PageUp if self.start > 0 => {
                return self.turn(self.start.saturating_sub(BOARD.into()));
            }
            _ => {}
        }
        Vec::new()
    }
}
