//! The second screen: one competition, its round, its submissions.

use api::model::{Competition, Filter, Pagination, Round, RoundPage, Sort, Submission, SubmissionPage};

use crate::{Key, PAGE, Wanted, Wish};

/// One competition.
#[derive(Clone, Debug)]
pub(crate) struct One {
    pub(crate) competition: Competition,
    pub(crate) rounds: Vec<Round>,
    pub(crate) rows: Vec<Submission>,
    pub(crate) pagination: Option<Pagination>,
    pub(crate) row: usize,
    pub(crate) filter: Filter,
    pub(crate) sort: Sort,
    entrant: Option<String>,
    start: u64,
}

impl One {
    pub(crate) fn new(competition: Competition) -> Self {
        Self {
            competition,
            rounds: Vec::new(),
            rows: Vec::new(),
            pagination: None,
            row: 0,
            filter: Filter::All,
            sort: Sort::Score,
            entrant: None,
            start: 0,
        }
    }

    pub(crate) fn id(&self) -> &str {
        &self.competition.id
    }

    pub(crate) fn needle(&self) -> &str {
        self.entrant.as_deref().unwrap_or_default()
    }

    pub(crate) fn wanted(&self) -> Wanted {
        Wanted {
            competition: self.competition.id.clone(),
            entrant: self.entrant.clone(),
            filter: self.filter,
            sort: self.sort,
            start: self.start,
        }
    }

    pub(crate) fn wishes(&self) -> Vec<Wish> {
        vec![Wish::Competition { id: self.competition.id.clone() }, Wish::Submissions(self.wanted())]
    }

    pub(crate) fn selected(&self) -> Option<&Submission> {
        self.rows.get(self.row)
    }

    pub(crate) fn show(&mut self, found: Competition, rounds: RoundPage) {
        self.competition = found;
        self.rounds = rounds.rounds;
    }

    pub(crate) fn list(&mut self, page: SubmissionPage) {
        let id = self.selected().map(|row| row.id);
        self.rows = page.submissions;
        self.pagination = Some(page.pagination);
        let again = id.and_then(|id| self.rows.iter().position(|row| row.id == id));
        self.row = again.unwrap_or_else(|| self.row.min(self.rows.len().saturating_sub(1)));
    }

    /// Entries of keys with this part; none: of all.
    pub(crate) fn find(&mut self, text: &str) -> Vec<Wish> {
        self.entrant = (!text.is_empty()).then(|| text.to_owned());
        self.filter = Filter::All;
        self.turn()
    }

    fn turn(&mut self) -> Vec<Wish> {
        (self.start, self.row) = (0, 0);
        vec![Wish::Submissions(self.wanted())]
    }

    fn toggle(&mut self, filter: Filter) -> Vec<Wish> {
        self.filter = if self.filter == filter { Filter::All } else { filter };
        if self.filter == Filter::Mine {
            self.entrant = None;
        }
        self.turn()
    }

    pub(crate) fn key(&mut self, key: Key) -> Vec<Wish> {
        let last = self.rows.len().saturating_sub(1);
        match key {
            Key::Down | Key::Char('j') => self.row = (self.row + 1).min(last),
            Key::Up | Key::Char('k') => self.row = self.row.saturating_sub(1),
            Key::Home => self.row = 0,
            Key::End => self.row = last,
            Key::Char('m') => return self.toggle(Filter::Mine),
            Key::Char('t') => return self.toggle(Filter::TopScore),
            Key::Char('s') => {
                self.sort = if self.sort == Sort::Score { Sort::Time } else { Sort::Score };
                return self.turn();
            }
            Key::Char('n') | Key::PageDown if self.pagination.is_some_and(|page| page.has_more) => {
                self.start += u64::from(PAGE);
                self.row = 0;
                return vec![Wish::Submissions(self.wanted())];
            }
            Key::Char('p') | Key::PageUp if self.start > 0 => {
                self.start = self.start.saturating_sub(PAGE.into());
                self.row = 0;
                return vec![Wish::Submissions(self.wanted())];
            }
            _ => {}
        }
        Vec::new()
    }
}
