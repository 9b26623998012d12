//! A line that is written in a dialog.

use crate::Key;

/// Longest line, characters.
const CHARS_MAX: usize = 256;

/// A line of text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Input(String);

impl Input {
    /// A line that begins with a text.
    pub fn new(text: &str) -> Self {
        Self(text.to_owned())
    }

    /// What was written.
    pub fn text(&self) -> &str {
        &self.0
    }

    pub(crate) fn key(&mut self, key: Key) {
        match key {
            Key::Char(c) if !c.is_control() && self.0.chars().count() < CHARS_MAX => self.0.push(c),
            Key::Backspace => drop(self.0.pop()),
            _ => {}
        }
    }
}
