//! Announcements, and what happened.

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};
use ratatui::widgets::Paragraph;

use super::{Look, framed};
use crate::Dash;
use crate::reader::{Reader, Topic};
use crate::text::Room;

/// Rows and columns of a text above a screen of a size.
pub(crate) fn room((width, height): (u16, u16)) -> Room {
    // The title and the keys of the screen, and the borders.
    Room { columns: usize::from(width.saturating_sub(2)), rows: usize::from(height.saturating_sub(4)) }
}

pub(super) fn draw(frame: &mut Frame<'_>, area: Rect, dash: &Dash, reader: &Reader, look: Look) {
    let (title, none) = match &reader.topic {
        Topic::News { competition: None } => ("news of the arena".to_owned(), "nothing was announced"),
        Topic::News { competition: Some((_, name)) } => {
            (format!("news of {name} and of the arena"), "nothing was announced")
        }
        Topic::Log => (
            "what happened since the dashboard began".to_owned(),
            "nothing yet; entries, rounds and judgements stand here as they come",
        ),
    };
    let count = reader.count.map_or(String::new(), |count| format!(" ({count})"));
    let block = framed(format!(" {title}{count}, newest first "), look);
    let inner = block.inner(area);
    frame.render_widget(block, area);
    if reader.text.lines.is_empty() {
        let words = if dash.busy && reader.count.is_none() { "…" } else { none };
        frame.render_widget(Paragraph::new(words).style(look.quiet), inner);
        return;
    }
    let room = Room { columns: inner.width.into(), rows: inner.height.into() };
    let lines = reader.text.shown(room).into_iter().map(|(line, row)| {
        let style = if reader.heads.binary_search(&line).is_ok() { look.strong } else { look.base };
        Line::from(Span::styled(&reader.text.lines[line][row], style))
    });
    frame.render_widget(Paragraph::new(lines.collect::<Vec<_>>()), inner);
}
