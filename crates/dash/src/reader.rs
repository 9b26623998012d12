//! Texts above the screens: announcements, and what happened since the dashboard began.

use std::collections::VecDeque;

use api::model::{Announcement, Event, EventKind, Notes, Time};

use crate::Wish;
use crate::format::{moment, plain, short};
use crate::text::{Place, Text};

/// Events that are kept.
const EVENTS_MAX: usize = 500;

/// What is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Topic {
    /// Announcements: of the arena, and of a competition if there is one.
    News { competition: Option<(String, String)> },
    /// What happened.
    Log,
}

/// A text above the screen.
#[derive(Clone, Debug)]
pub(crate) struct Reader {
    pub(crate) topic: Topic,
    pub(crate) text: Text,
    /// Lines that say of what the next ones are, ascending.
    pub(crate) heads: Vec<usize>,
    /// How many there are; none before the answer.
    pub(crate) count: Option<usize>,
}

impl Reader {
    pub(crate) fn new(topic: Topic) -> Self {
        let text = Text { words: true, ..Text::default() };
        Self { topic, text, heads: Vec::new(), count: None }
    }

    /// What to ask for.
    pub(crate) fn wish(&self) -> Option<Wish> {
        match &self.topic {
            Topic::News { competition } => {
                Some(Wish::News { competition: competition.as_ref().map(|(id, _)| id.clone()) })
            }
            Topic::Log => None,
        }
    }

    /// Announcements, newest first, if they are still those that are read.
    pub(crate) fn news(&mut self, of: Option<&str>, own: &Notes, arena: &Notes) {
        let Topic::News { competition } = &self.topic else { return };
        if competition.as_ref().map(|(id, _)| id.as_str()) != of {
            return;
        }
        let name = competition.as_ref().map_or("", |(_, name)| name);
        let own = own.notes.iter().map(|note| (name, note));
        let arena = arena.notes.iter().map(|note| ("the arena", note));
        let mut all: Vec<(&str, &Announcement)> = own.chain(arena).collect();
        all.sort_by_key(|(_, note)| std::cmp::Reverse(note.at));
        let (mut lines, mut heads) = (Vec::new(), Vec::new());
        for (of, note) in &all {
            if !lines.is_empty() {
                lines.push(String::new());
            }
            heads.push(lines.len());
            lines.push(format!("{} of {of}, by {}", moment(note.at), short(&note.from)));
            lines.extend(note.text.lines().map(plain));
        }
        (self.count, self.heads, self.text.lines) = (Some(all.len()), heads, lines);
        if self.text.place.line >= self.text.lines.len() {
            self.text.place = Place::default();
        }
    }

    /// What happened, newest first, if that is read.
    pub(crate) fn log(&mut self, happened: &VecDeque<String>) {
        if self.topic == Topic::Log {
            self.text.lines = happened.iter().rev().cloned().collect();
            self.count = Some(happened.len());
        }
    }
}

/// Adds a line to what happened.
pub(crate) fn keep(happened: &mut VecDeque<String>, line: &str) {
    if happened.len() == EVENTS_MAX {
        happened.pop_front();
    }
    happened.push_back(plain(line));
}

/// An event in one line. `name` is its competition's.
pub(crate) fn line(event: &Event, name: Option<&str>) -> String {
    let of = name.map(str::to_owned).or_else(|| event.competition_id.as_deref().map(short));
    let round = event.round_number.map(|round| format!("round {round}:"));
    let text = event.text.as_ref().filter(|text| !text.is_empty()).map(|text| format!("({text})"));
    let parts = [Some(clock(event.at)), of, round, Some(what(event)), text];
    parts.into_iter().flatten().collect::<Vec<_>>().join(" ").replace('\n', " ")
}

fn what(event: &Event) -> String {
    let key = event.key.as_deref().map(short).unwrap_or_default();
    let entry = event.submission_id.map(|id| format!("#{id}"));
    let id = entry.as_deref().unwrap_or_default();
    match (event.kind, &entry) {
        (EventKind::CompetitionOpened, _) => format!("opened by {key}"),
        (EventKind::RoundOpened, _) => "opened".to_owned(),
        (EventKind::RoundAdvanced, _) => "goes on".to_owned(),
        (EventKind::RoundCompleted, Some(id)) => format!("completed, {id} took the lead"),
        (EventKind::RoundCompleted | EventKind::CompetitionCompleted, _) => "completed".to_owned(),
        (EventKind::RoundVoid, _) => "void".to_owned(),
        (EventKind::Submitted, _) => format!("{id} submitted by {key}"),
        (EventKind::Unsealed, _) => format!("{id} opened by {key}"),
        (EventKind::Leased, _) => format!("{id} taken by judge {key}"),
        (EventKind::Settled, _) => format!("{id} of {key} settled"),
        (EventKind::Announced, _) => format!("announced by {key}"),
        (EventKind::Registered, _) => format!("keys registered by {key}"),
        (EventKind::Described, _) => format!("{id} described by {key}"),
    }
}

/// Date and second, UTC.
fn clock(time: Time) -> String {
    let text = time.to_string();
    text.get(..19).map_or(text.clone(), |head| head.replace('T', " "))
}
