//! What an entry says of itself: for people, bounded, believed by nobody.

use serde::{Deserialize, Serialize};

use crate::limits;
use crate::refusal::Refusal;

/// Words of its maker about an entry. What is not said is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct About {
    /// One line.
    pub title: String,
    /// Some lines.
    pub note: String,
    /// What it is written in.
    pub language: String,
    /// Under which terms others may use it.
    pub licence: String,
    /// Address of a page.
    pub link: String,
}

impl About {
    /// Whether nothing is said.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Lengths, and characters that are no text: control characters, those that turn the direction of others and, in a
    /// line, those that end it or that nobody sees.
    ///
    /// # Errors
    /// Names the part that is too long or no text.
    pub fn check(&self) -> Result<(), Refusal> {
        for (part, text, most) in [
            ("title", &self.title, limits::NAME_BYTES),
            ("note", &self.note, limits::ABOUT_NOTE_BYTES),
            ("language", &self.language, limits::NAME_BYTES),
            ("licence", &self.licence, limits::NAME_BYTES),
            ("link", &self.link, limits::ABOUT_LINK_BYTES),
        ] {
            if text.len() > most {
                let (found, limit) = (text.len() as u64, most as u64);
                return Err(Refusal::OverLimit { what: format!("bytes of the {part}"), found, limit });
            }
            let line = |c: char| c == '\n' && part == "note";
            let turns = |c: char| matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
            // Some scripts and pictures are joined by such characters, so a note may have them.
            let unseen = |c: char| {
                part != "note"
                    && matches!(c, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}' | '\u{2029}' | '\u{feff}')
            };
            if text.chars().any(|c| (c.is_control() && !line(c)) || turns(c) || unseen(c)) {
                return Err(Refusal::About { what: format!("the {part} is no plain text") });
            }
        }
        let page = ["https://", "http://"].iter().any(|scheme| self.link.starts_with(scheme));
        if !self.link.is_empty() && (!page || self.link.contains(' ')) {
            return Err(Refusal::About {
                what: "the link is no address of a page, like https://…".to_owned(),
            });
        }
        Ok(())
    }
}
