//! Text that is read row by row as it is drawn: no part of a long line is out of reach.

use std::ops::Range;

use ratatui::text::Span;

use crate::Key;

/// Columns and rows that a text has on the screen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Room {
    pub(crate) columns: usize,
    pub(crate) rows: usize,
}

/// Where the first drawn row begins: a line, and a byte of it. It holds at every width.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    pub(crate) line: usize,
    byte: usize,
}

/// Lines without control characters, and where they are read.
#[derive(Clone, Debug, Default)]
pub(crate) struct Text {
    pub(crate) lines: Vec<String>,
    pub(crate) place: Place,
    /// For people: rows end between words.
    pub(crate) words: bool,
}

/// Rows of a line at a width, as ranges of its bytes: at least one, each with at least one character if the line has any.
/// `words`: they end behind a blank where there is one.
fn rows(line: &str, columns: usize, words: bool) -> Vec<Range<usize>> {
    let (mut rows, mut start, mut width) = (Vec::new(), 0, 0);
    // Behind the row's last blank, and the columns up to there.
    let mut blank = (0, 0);
    for (at, c) in line.char_indices() {
        let columns_of = if c.is_ascii() { 1 } else { Span::raw(&line[at..at + c.len_utf8()]).width() };
        if width + columns_of > columns && at > start {
            let (end, taken) = if words && blank.0 > start { blank } else { (at, width) };
            rows.push(start..end);
            (start, width) = (end, width - taken);
        }
        width += columns_of;
        if c == ' ' {
            blank = (at + 1, width);
        }
    }
    rows.push(start..line.len());
    rows
}

impl Text {
    /// Rows of a line, and which of them a place lies in.
    fn row(&self, place: Place, columns: usize) -> (Vec<Range<usize>>, usize) {
        let rows = rows(self.lines.get(place.line).map_or("", String::as_str), columns, self.words);
        let at = rows.partition_point(|row| row.start <= place.byte).saturating_sub(1);
        (rows, at)
    }

    fn down(&self, mut place: Place, columns: usize, mut count: usize) -> Place {
        while count > 0 {
            let (rows, at) = self.row(place, columns);
            let step = count.min(rows.len() - 1 - at);
            place.byte = rows[at + step].start;
            count -= step;
            if count == 0 || place.line + 1 >= self.lines.len() {
                break;
            }
            place = Place { line: place.line + 1, byte: 0 };
            count -= 1;
        }
        place
    }

    fn up(&self, mut place: Place, columns: usize, mut count: usize) -> Place {
        while count > 0 {
            let (rows, at) = self.row(place, columns);
            let step = count.min(at);
            place.byte = rows[at - step].start;
            count -= step;
            if count == 0 || place.line == 0 {
                break;
            }
            place = Place { line: place.line - 1, byte: usize::MAX };
            count -= 1;
        }
        // The start of the row, not a byte behind it.
        let (rows, at) = self.row(place, columns);
        Place { byte: rows[at].start, ..place }
    }

    /// The place from which the last row is the screen's last.
    fn bottom(&self, room: Room) -> Place {
        let end = Place { line: self.lines.len().saturating_sub(1), byte: usize::MAX };
        self.up(end, room.columns, room.rows.saturating_sub(1))
    }

    /// Moves; whether the key was one that does.
    pub(crate) fn key(&mut self, key: Key, room: Room) -> bool {
        let page = room.rows.saturating_sub(1).max(1);
        let place = match key {
            Key::Down | Key::Char('j') => self.down(self.place, room.columns, 1),
            Key::Up | Key::Char('k') => self.up(self.place, room.columns, 1),
            Key::PageDown | Key::Char('n' | ' ') => self.down(self.place, room.columns, page),
            Key::PageUp | Key::Char('p') => self.up(self.place, room.columns, page),
            Key::Home => Place::default(),
            Key::End => Place { line: usize::MAX, byte: 0 },
            _ => return false,
        };
        self.place = place.min(self.bottom(room));
        true
    }

    /// What a screen shows: lines by their position, and of each the bytes of a row.
    pub(crate) fn shown(&self, room: Room) -> Vec<(usize, Range<usize>)> {
        let mut shown = Vec::with_capacity(room.rows);
        let (first, at) = self.row(self.place, room.columns);
        let mut line = self.place.line;
        let mut next = first.into_iter().skip(at).collect::<Vec<_>>();
        while shown.len() < room.rows && line < self.lines.len() {
            shown.extend(next.into_iter().map(|row| (line, row)));
            line += 1;
            next = self.lines.get(line).map_or_else(Vec::new, |text| rows(text, room.columns, self.words));
        }
        shown.truncate(room.rows);
        shown
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(lines: &[&str]) -> Text {
        Text {
            lines: lines.iter().map(|&line| line.to_owned()).collect(),
            place: Place::default(),
            words: false,
        }
    }

    fn seen(text: &Text, room: Room) -> Vec<&str> {
        text.shown(room).into_iter().map(|(line, row)| &text.lines[line][row]).collect()
    }

    #[test]
    fn rows_fill_their_columns_or_end_between_words() {
        assert_eq!(rows("", 3, false).len(), 1);
        assert_eq!(rows("abcdefg", 3, false), [0..3, 3..6, 6..7]);
        assert_eq!(rows("abc", 0, true), [0..1, 1..2, 2..3], "a character a row at least");
        // Two columns each: the second would stand out.
        assert_eq!(rows("語語a", 3, false), [0..3, 3..7]);
        let line = "one two three fourfivesix";
        let words = rows(line, 8, true).into_iter().map(|row| &line[row]).collect::<Vec<_>>();
        assert_eq!(words, ["one two ", "three ", "fourfive", "six"]);
    }

    #[test]
    fn every_row_of_a_long_line_is_reached_by_single_steps_and_by_pages() {
        let room = Room { columns: 4, rows: 3 };
        let mut found = text(&["one", "0123456789abcdefghij", "", "end"]);
        assert_eq!(seen(&found, room), ["one", "0123", "4567"]);
        let mut rows = vec!["one".to_owned()];
        for _ in 0..20 {
            found.key(Key::Down, room);
            rows.extend(seen(&found, room).first().map(|&row| row.to_owned()));
        }
        rows.dedup();
        assert_eq!(rows, ["one", "0123", "4567", "89ab", "cdef", "ghij"]);
        assert_eq!(seen(&found, room), ["ghij", "", "end"], "the last row is the screen's last");
        for _ in 0..3 {
            found.key(Key::PageUp, room);
        }
        assert_eq!(found.place, Place::default());
        found.key(Key::PageDown, room);
        assert_eq!(seen(&found, room), ["4567", "89ab", "cdef"]);
        // Another width keeps the place: the row with the same first character.
        assert_eq!(seen(&found, Room { columns: 10, rows: 2 }), ["0123456789", "abcdefghij"]);
        found.key(Key::End, room);
        found.key(Key::Up, room);
        assert_eq!(seen(&found, room), ["cdef", "ghij", ""]);
    }

    #[test]
    fn nothing_to_read_is_no_trouble() {
        let mut none = text(&[]);
        for key in [Key::Down, Key::Up, Key::PageDown, Key::PageUp, Key::Home, Key::End] {
            assert!(none.key(key, Room { columns: 0, rows: 0 }));
            assert!(none.shown(Room { columns: 5, rows: 5 }).is_empty());
        }
        assert!(!none.key(Key::Enter, Room { columns: 5, rows: 5 }));
    }
}
