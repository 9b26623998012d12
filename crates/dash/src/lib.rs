//! The arena's terminal dashboard: screens, keys, what is asked for, what is drawn.
//!
//! It must never know a terminal, a socket or a clock: keys, answers and the time go in, wishes and cells come out.

#![cfg_attr(test, recursion_limit = "512")]

mod detail;
mod draw;
mod files;
mod format;
mod home;
mod input;

use api::model::{
    Competition, CompetitionPage, FilePage, Filter, RoundPage, Sort, SubmissionDetail, SubmissionPage,
};
use wire::Millis;

pub use draw::draw;
pub use input::Input;

/// Rows of a page of submissions.
pub const PAGE: u32 = 10;
/// Rows of a page of competitions.
pub const COMPETITIONS: u32 = 50;
/// Lines of a file that are asked for at a time.
pub const LINES: u32 = 500;

/// What the dashboard wants to know or to have done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wish {
    /// A page of competitions.
    Competitions {
        /// Also those that are over.
        completed: bool,
        /// First row.
        start: u64,
    },
    /// One competition with its rounds.
    Competition {
        /// Its id.
        id: String,
    },
    /// A page of a competition's submissions.
    Submissions(Wanted),
    /// One submission.
    Submission {
        /// Its id.
        id: u64,
    },
    /// Lines of a file.
    File {
        /// Submission.
        id: u64,
        /// Name.
        name: String,
        /// First line.
        start: u64,
    },
    /// A whole file, onto the disk.
    Download {
        /// Submission.
        id: u64,
        /// Name.
        name: String,
        /// Where to.
        path: String,
        /// It may replace a file.
        overwrite: bool,
    },
    /// End.
    Quit,
}

/// Which submissions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Competition.
    pub competition: String,
    /// Part of an entrant's key.
    pub entrant: Option<String>,
    /// Which.
    pub filter: Filter,
    /// In which order.
    pub sort: Sort,
    /// First row.
    pub start: u64,
}

/// What was asked for.
#[derive(Clone, Debug)]
pub enum Answer {
    /// A page of competitions.
    Competitions(Box<CompetitionPage>),
    /// A competition and its newest rounds.
    Competition(Box<Competition>, Box<RoundPage>),
    /// A page of submissions, and what it answers.
    Submissions(Wanted, Box<SubmissionPage>),
    /// A submission.
    Submission(Box<SubmissionDetail>),
    /// Lines of a file.
    File(u64, Box<FilePage>),
    /// A file lies on the disk.
    Downloaded(String),
    /// The file is there already.
    Exists {
        /// Submission.
        id: u64,
        /// Name.
        name: String,
        /// Where.
        path: String,
    },
    /// Something went wrong.
    Failed(String),
}

/// A key, as far as the dashboard knows keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    /// A character.
    Char(char),
    /// Enter.
    Enter,
    /// Escape.
    Escape,
    /// Backspace.
    Backspace,
    /// Up.
    Up,
    /// Down.
    Down,
    /// Page up.
    PageUp,
    /// Page down.
    PageDown,
    /// Home.
    Home,
    /// End.
    End,
}

/// Screens, one above the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Screen {
    Home,
    Competition,
    Submission,
}

/// What lies above the screen.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Modal {
    /// Words to read.
    Alert(String),
    /// A line to write.
    Ask(Asked, Input),
    /// Yes or no.
    Confirm { id: u64, name: String, path: String },
    /// The keys.
    Help,
}

/// What a line is written for.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Asked {
    Find,
    Download { id: u64, name: String },
}

/// The dashboard.
#[derive(Clone, Debug)]
pub struct Dash {
    host: String,
    screen: Screen,
    home: home::Home,
    one: Option<detail::One>,
    entry: Option<files::Entry>,
    modal: Option<Modal>,
    /// Light on dark, or dark on light.
    light: bool,
    /// What is under way.
    busy: bool,
    /// Last trouble, until the next answer.
    trouble: Option<String>,
}

impl Dash {
    /// A dashboard of a host, and what it wants first.
    pub fn new(host: &str) -> (Self, Vec<Wish>) {
        let home = home::Home::default();
        let wish = home.wish();
        let dash = Self {
            host: host.to_owned(),
            screen: Screen::Home,
            home,
            one: None,
            entry: None,
            modal: None,
            light: false,
            busy: true,
            trouble: None,
        };
        (dash, vec![wish])
    }

    /// What to ask for again, because something happened or time has passed.
    pub fn refresh(&mut self) -> Vec<Wish> {
        let wishes = match (self.screen, &self.one, &self.entry) {
            (Screen::Competition, Some(one), _) => one.wishes(),
            (Screen::Submission, _, Some(entry)) => vec![Wish::Submission { id: entry.id }],
            _ => vec![self.home.wish()],
        };
        self.busy = true;
        wishes
    }

    /// Takes an answer.
    pub fn answer(&mut self, answer: Answer) -> Vec<Wish> {
        self.busy = false;
        if !matches!(answer, Answer::Failed(_)) {
            self.trouble = None;
        }
        match answer {
            Answer::Competitions(page) => self.home.show(*page),
            Answer::Competition(found, rounds) => {
                if let Some(one) = self.one.as_mut().filter(|one| one.id() == found.id) {
                    one.show(*found, *rounds);
                }
            }
            Answer::Submissions(wanted, page) => {
                // An answer to a page that was left is passed over.
                if let Some(one) = self.one.as_mut().filter(|one| one.wanted() == wanted) {
                    one.list(*page);
                }
            }
            Answer::Submission(found) => {
                if let Some(entry) = self.entry.as_mut().filter(|entry| entry.id == found.submission.id) {
                    return entry.show(*found);
                }
            }
            Answer::File(id, page) => {
                if let Some(entry) = self.entry.as_mut().filter(|entry| entry.id == id) {
                    entry.file(*page);
                }
            }
            Answer::Downloaded(path) => self.modal = Some(Modal::Alert(format!("saved {path}"))),
            Answer::Exists { id, name, path } => self.modal = Some(Modal::Confirm { id, name, path }),
            Answer::Failed(words) => self.trouble = Some(words),
        }
        Vec::new()
    }

    /// Takes a key.
    pub fn key(&mut self, key: Key) -> Vec<Wish> {
        if let Some(modal) = self.modal.take() {
            return self.modal_key(modal, key);
        }
        match key {
            Key::Char('q') => return vec![Wish::Quit],
            Key::Char('?') => self.modal = Some(Modal::Help),
            Key::Char('l') => self.light = !self.light,
            Key::Char('r') => return self.refresh(),
            Key::Escape | Key::Backspace => return self.back(),
            other => {
                let wishes = match self.screen {
                    Screen::Home => self.home_key(other),
                    Screen::Competition => self.competition_key(other),
                    Screen::Submission => self.submission_key(other),
                };
                self.busy |= !wishes.is_empty();
                return wishes;
            }
        }
        Vec::new()
    }

    fn back(&mut self) -> Vec<Wish> {
        self.screen = match self.screen {
            Screen::Submission => {
                self.entry = None;
                // Whoever came by id from the list of competitions goes back there.
                if self.one.is_some() { Screen::Competition } else { Screen::Home }
            }
            Screen::Competition | Screen::Home => {
                self.one = None;
                Screen::Home
            }
        };
        self.refresh()
    }

    fn home_key(&mut self, key: Key) -> Vec<Wish> {
        if key == Key::Enter
            && let Some(found) = self.home.selected()
        {
            let one = detail::One::new(found.clone());
            let wishes = one.wishes();
            self.one = Some(one);
            self.screen = Screen::Competition;
            return wishes;
        }
        self.home.key(key)
    }

    fn competition_key(&mut self, key: Key) -> Vec<Wish> {
        let Some(one) = &mut self.one else { return Vec::new() };
        match key {
            Key::Char('f') => {
                self.modal = Some(Modal::Ask(Asked::Find, Input::new(one.needle())));
                Vec::new()
            }
            Key::Enter => match one.selected().map(|row| row.id) {
                Some(id) => self.open(id),
                None => Vec::new(),
            },
            other => one.key(other),
        }
    }

    fn open(&mut self, id: u64) -> Vec<Wish> {
        self.entry = Some(files::Entry::new(id));
        self.screen = Screen::Submission;
        vec![Wish::Submission { id }]
    }

    fn submission_key(&mut self, key: Key) -> Vec<Wish> {
        let Some(entry) = &mut self.entry else { return Vec::new() };
        if key == Key::Char('d') {
            match entry.selected().filter(|file| file.revealed) {
                Some(file) => {
                    let (id, name) = (entry.id, file.name.clone());
                    let path = Input::new(&format!("submissions/{id}-{name}"));
                    self.modal = Some(Modal::Ask(Asked::Download { id, name }, path));
                }
                None => self.modal = Some(Modal::Alert("this file is not shown yet".to_owned())),
            }
            return Vec::new();
        }
        entry.key(key)
    }

    fn modal_key(&mut self, modal: Modal, key: Key) -> Vec<Wish> {
        match (modal, key) {
            (Modal::Ask(asked, input), Key::Enter) => return self.asked(asked, input.text().trim()),
            (Modal::Ask(..), Key::Escape) => {}
            (Modal::Ask(asked, mut input), key) => {
                input.key(key);
                self.modal = Some(Modal::Ask(asked, input));
            }
            (Modal::Confirm { id, name, path }, Key::Char('y')) => {
                return vec![Wish::Download { id, name, path, overwrite: true }];
            }
            (confirm @ Modal::Confirm { .. }, key) if !matches!(key, Key::Char('n') | Key::Escape) => {
                self.modal = Some(confirm);
            }
            _ => {}
        }
        Vec::new()
    }

    fn asked(&mut self, asked: Asked, text: &str) -> Vec<Wish> {
        match asked {
            Asked::Download { id, name } if !text.is_empty() => {
                vec![Wish::Download { id, name, path: text.to_owned(), overwrite: false }]
            }
            Asked::Download { .. } => Vec::new(),
            Asked::Find => match text.parse::<u64>() {
                // A few digits are an id; a long run of them is a part of a key.
                Ok(id) if text.len() < 12 => self.open(id),
                _ => self.one.as_mut().map_or_else(Vec::new, |one| one.find(text)),
            },
        }
    }
}

/// What is drawn: the dashboard at a moment.
#[derive(Clone, Copy, Debug)]
pub struct Scene<'a> {
    /// The dashboard.
    pub dash: &'a Dash,
    /// The host's clock: countdowns.
    pub now: Millis,
}

#[cfg(test)]
mod tests;
