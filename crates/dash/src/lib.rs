//! The arena's terminal dashboard: screens, keys, what is asked for, what is drawn.
//!
//! It must never know a terminal, a socket or a clock: keys, answers, a size and the time go in, wishes and cells come out.

#![cfg_attr(test, recursion_limit = "512")]

mod ask;
mod board;
mod detail;
mod draw;
mod files;
mod format;
mod highlight;
mod home;
mod input;
mod reader;
mod text;

use std::collections::VecDeque;

use api::model::{EntryRole, Event, SubmissionDetail};
use wire::Millis;

pub use ask::{Answer, BOARD, COMPETITIONS, Key, LINES, PAGE, Wanted, Wish};
pub use draw::draw;
pub use input::Input;
use reader::{Reader, Topic};

/// Columns and rows of a terminal that says nothing of itself.
const SIZE: (u16, u16) = (80, 24);

/// Screens, one above the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Screen {
    Home,
    Competition,
    Board,
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
    board: Option<board::Standing>,
    entry: Option<files::Entry>,
    /// A text above the screen.
    reader: Option<Reader>,
    modal: Option<Modal>,
    /// What happened, oldest first.
    happened: VecDeque<String>,
    /// Columns and rows.
    size: (u16, u16),
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
            board: None,
            entry: None,
            reader: None,
            modal: None,
            happened: VecDeque::new(),
            size: SIZE,
            light: false,
            busy: true,
            trouble: None,
        };
        (dash, vec![wish])
    }

    /// Says how large the terminal is, in columns and rows: page keys move by what is seen of a text.
    pub fn resize(&mut self, width: u16, height: u16) {
        self.size = (width, height);
    }

    /// Takes note of an event.
    pub fn happened(&mut self, event: &Event) {
        let id = event.competition_id.as_deref();
        let name = self.home.rows.iter().find(|row| Some(row.id.as_str()) == id).map(|row| row.name.as_str());
        let line = reader::line(event, name);
        self.log_line(&line);
    }

    fn log_line(&mut self, line: &str) {
        reader::keep(&mut self.happened, line);
        if let Some(reader) = &mut self.reader {
            reader.log(&self.happened);
        }
    }

    /// What to ask for again, because something happened or time has passed.
    pub fn refresh(&mut self) -> Vec<Wish> {
        let mut wishes = match (self.screen, &self.one, &self.entry, &self.board) {
            (Screen::Competition, Some(one), ..) => one.wishes(),
            (Screen::Submission, _, Some(entry), _) => vec![Wish::Submission { id: entry.id }],
            (Screen::Board, _, _, Some(board)) => vec![board.wish()],
            _ => vec![self.home.wish()],
        };
        wishes.extend(self.reader.as_ref().and_then(Reader::wish));
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
            Answer::Board { competition, start, board } => {
                if let Some(standing) = &mut self.board {
                    standing.show(&competition, start, *board);
                }
            }
            Answer::News { competition, own, arena } => {
                if let Some(reader) = &mut self.reader {
                    reader.news(competition.as_deref(), &own, &arena);
                }
            }
            Answer::Submission(found) => {
                if let Some(entry) = self.entry.as_mut().filter(|entry| entry.id == found.submission.id) {
                    return if entry.show(*found) { self.log() } else { Vec::new() };
                }
            }
            Answer::File(id, page) => {
                if let Some(entry) = self.entry.as_mut().filter(|entry| entry.id == id) {
                    entry.file(&page);
                }
            }
            Answer::Gated { id, name, gate } => {
                if let Some(entry) = self.entry.as_mut().filter(|entry| entry.id == id) {
                    entry.close(name, *gate);
                }
            }
            Answer::Downloaded(path) => self.modal = Some(Modal::Alert(format!("saved {path}"))),
            Answer::Exists { id, name, path } => self.modal = Some(Modal::Confirm { id, name, path }),
            Answer::Failed(words) => {
                if let Some(entry) = &mut self.entry {
                    entry.failed();
                }
                self.log_line(&format!("! {words}"));
                self.trouble = Some(words);
            }
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
            Key::Char('L') => self.light = !self.light,
            Key::Char('r') => return self.refresh(),
            Key::Escape | Key::Backspace => return self.back(),
            other => {
                if let Some(reader) = &mut self.reader {
                    reader.text.key(other, draw::reader_room(self.size));
                    return Vec::new();
                }
                let wishes = match self.screen {
                    Screen::Home => self.home_key(other),
                    Screen::Competition => self.competition_key(other),
                    Screen::Board => self.board_key(other),
                    Screen::Submission => self.submission_key(other),
                };
                self.busy |= !wishes.is_empty();
                return wishes;
            }
        }
        Vec::new()
    }

    fn back(&mut self) -> Vec<Wish> {
        if self.reader.take().is_some() || self.entry.as_mut().is_some_and(files::Entry::shut) {
            return Vec::new();
        }
        match self.screen {
            Screen::Submission => self.entry = None,
            Screen::Board => self.board = None,
            Screen::Competition | Screen::Home => self.one = None,
        }
        // Back to where one came from: a board and a submission may be opened from two screens.
        self.screen = match (&self.board, &self.one) {
            (Some(_), _) => Screen::Board,
            (None, Some(_)) => Screen::Competition,
            (None, None) => Screen::Home,
        };
        self.refresh()
    }

    /// A text above the screen, and what it asks for.
    fn read(&mut self, topic: Topic) -> Vec<Wish> {
        let mut reader = Reader::new(topic);
        reader.log(&self.happened);
        let wish = reader.wish();
        self.reader = Some(reader);
        wish.into_iter().collect()
    }

    fn stand(&mut self, competition: String, name: String) -> Vec<Wish> {
        let board = board::Standing::new(competition, name);
        let wish = board.wish();
        (self.board, self.screen) = (Some(board), Screen::Board);
        vec![wish]
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
        match (key, self.home.selected()) {
            (Key::Char('b'), Some(found)) => self.stand(found.id.clone(), found.name.clone()),
            (Key::Char('a'), _) => self.read(Topic::News { competition: None }),
            (Key::Char('l'), _) => self.read(Topic::Log),
            _ => self.home.key(key),
        }
    }

    fn board_key(&mut self, key: Key) -> Vec<Wish> {
        let Some(board) = &mut self.board else { return Vec::new() };
        match (key, board.selected()) {
            (Key::Enter, Some(id)) => self.open(id),
            _ => board.key(key),
        }
    }

    fn competition_key(&mut self, key: Key) -> Vec<Wish> {
        let Some(one) = &mut self.one else { return Vec::new() };
        let (id, name) = (one.competition.id.clone(), one.competition.name.clone());
        match key {
            Key::Char('b') => self.stand(id, name),
            Key::Char('a') => self.read(Topic::News { competition: Some((id, name)) }),
            Key::Char('f') => {
                self.modal = Some(Modal::Ask(Asked::Find, Input::new(one.needle())));
                Vec::new()
            }
            Key::Enter => match one.selected().map(|row| row.id) {
                Some(id) => self.open(id),
                None => Vec::new(),
            },
            Key::Char('l') => match one.selected().map(|row| row.id) {
                Some(id) => {
                    let wishes = self.open(id);
                    self.log();
                    wishes
                }
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

    /// The log of the next judge.
    fn log(&mut self) -> Vec<Wish> {
        match self.entry.as_mut().map(files::Entry::log) {
            Some(Ok(wishes)) => wishes,
            Some(Err(words)) => {
                self.modal = Some(Modal::Alert(words.to_owned()));
                Vec::new()
            }
            None => Vec::new(),
        }
    }

    fn submission_key(&mut self, key: Key) -> Vec<Wish> {
        if key == Key::Char('l') {
            return self.log();
        }
        let Some(entry) = &mut self.entry else { return Vec::new() };
        if key == Key::Char('d') {
            match entry.selected().filter(|file| file.revealed) {
                Some(file) => {
                    let (id, name) = (entry.id, file.name.clone());
                    let path = Input::new(&proposed_path(id, &name));
                    self.modal = Some(Modal::Ask(Asked::Download { id, name }, path));
                }
                None => self.modal = Some(Modal::Alert("this file is not shown yet".to_owned())),
            }
            return Vec::new();
        }
        let size = self.size;
        entry.key(key, |total| draw::file_room(size, total))
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

/// Where a submission's file is proposed to be saved.
pub fn proposed_path(id: u64, name: &str) -> String {
    format!("submissions/{id}-{name}")
}

/// Name of a submission's file once its bytes are here. The host names code by its form alone, and a program may be a zip
/// archive.
pub fn file_name<'a>(name: &'a str, bytes: &[u8]) -> &'a str {
    match name {
        "code.py" | "code.bin" if bytes.starts_with(b"PK\x03\x04") => "code.zip",
        name => name,
    }
}

/// When results that are hidden from whoever asked are shown to it. Before its round is completed only its maker sees
/// an entry's code; an automatic entry's may be older than the round.
pub fn results_shown(found: &SubmissionDetail) -> &'static str {
    match found.submission.role {
        EntryRole::Challenger if found.submission.code_revealed => "once judges have settled it",
        EntryRole::Incumbent if found.submission.code_revealed => {
            "when the round is completed; to its maker once judges have settled it"
        }
        _ => "when the round is completed",
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
