//! What the dashboard asks for, what it is answered, and which keys it knows.

use api::model::{
    Board, Competition, CompetitionPage, FilePage, Filter, Gated, Notes, RoundPage, Sort, SubmissionDetail,
    SubmissionPage,
};

/// Rows of a page of submissions.
pub const PAGE: u32 = 10;
/// Rows of a page of competitions.
pub const COMPETITIONS: u32 = 50;
/// Rows of a page of a board.
pub const BOARD: u32 = 50;
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
    /// A page of a competition's board, with its Pareto front.
    Board {
        /// Competition.
        competition: String,
        /// First row.
        start: u64,
    },
    /// Announcements: of the arena, and of a competition if one is named.
    News {
        /// Competition.
        competition: Option<String>,
    },
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
    /// A page of a competition's board.
    Board {
        /// Competition.
        competition: String,
        /// First row.
        start: u64,
        /// The page.
        board: Box<Board>,
    },
    /// Announcements.
    News {
        /// Competition, if one was named.
        competition: Option<String>,
        /// Its own; none without one.
        own: Notes,
        /// The arena's.
        arena: Notes,
    },
    /// A submission.
    Submission(Box<SubmissionDetail>),
    /// Lines of a file.
    File(u64, Box<FilePage>),
    /// A file that is not shown yet, and why.
    Gated {
        /// Submission.
        id: u64,
        /// Name of the file.
        name: String,
        /// The host's reason.
        gate: Box<Gated>,
    },
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
