//! Cells: every screen fits 80 × 24, and uses what a larger terminal gives.

mod board;
mod competition;
mod home;
mod reader;
mod submission;

use ratatui::Frame;
use ratatui::layout::{Constraint, Flex, Layout, Rect};
use ratatui::style::{Color, Modifier, Style, Stylize};
use ratatui::text::{Line, Span, Text};
use ratatui::widgets::{Block, Clear, Paragraph, Wrap};

pub(crate) use self::reader::room as reader_room;
pub(crate) use self::submission::file_room;
use crate::highlight::Part;
use crate::{Asked, Modal, Scene, Screen};

/// Colours that carry no meaning of their own.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Look {
    pub(crate) base: Style,
    pub(crate) quiet: Style,
    pub(crate) strong: Style,
    pub(crate) selected: Style,
}

impl Look {
    fn of(light: bool) -> Self {
        let base = if light { Style::new().fg(Color::Black).bg(Color::White) } else { Style::new() };
        Self {
            base,
            quiet: base.add_modifier(Modifier::DIM),
            strong: base.add_modifier(Modifier::BOLD),
            selected: base.add_modifier(Modifier::REVERSED),
        }
    }

    /// A part of a source. Its own signs say what it is, too.
    fn part(self, part: Part) -> Style {
        match part {
            Part::Comment => self.quiet.add_modifier(Modifier::ITALIC),
            Part::Text => self.base.fg(Color::Green),
            Part::Number => self.base.fg(Color::Magenta),
            Part::Word => self.strong,
            Part::Name => self.base.fg(Color::Blue),
        }
    }
}

/// Draws the dashboard.
pub fn draw(frame: &mut Frame<'_>, scene: &Scene<'_>) {
    let (dash, area) = (scene.dash, frame.area());
    let look = Look::of(dash.light);
    frame.buffer_mut().set_style(area, look.base);
    let [head, body, foot] =
        Layout::vertical([Constraint::Length(1), Constraint::Min(3), Constraint::Length(1)]).areas(area);
    let busy = if dash.busy { " …" } else { "" };
    let title = Line::from(vec![
        Span::styled(" shoal arena ", look.selected),
        Span::styled(format!(" {}{busy}", dash.host), look.quiet),
    ]);
    frame.render_widget(title, head);
    let keys = match (&dash.reader, dash.screen) {
        (Some(reader), _) => {
            reader::draw(frame, body, dash, reader, look);
            "j/k move  n/p page  Home/End  r refresh  Esc back  ? keys  q quit"
        }
        (None, Screen::Home) => {
            home::draw(frame, body, scene, look);
            "Enter open  b board  a news  l log  c completed  r refresh  ? keys  q quit"
        }
        (None, Screen::Competition) => {
            competition::draw(frame, body, scene, look);
            "Enter open  l log  b board  a news  f find  m mine  t top  s sort  ? keys"
        }
        (None, Screen::Board) => {
            board::draw(frame, body, scene, look);
            "Enter open  j/k move  n/p page  r refresh  Esc back  ? keys  q quit"
        }
        (None, Screen::Submission) => {
            submission::draw(frame, body, scene, look);
            "Enter read/close  l log  j/k move  n/p page  d download  Esc back  ? keys"
        }
    };
    let line = match &dash.trouble {
        Some(words) => Line::from(Span::styled(format!(" ! {words}"), look.strong)),
        None => Line::from(Span::styled(format!(" {keys}"), look.quiet)),
    };
    frame.render_widget(line, foot);
    if let Some(modal) = &dash.modal {
        draw_modal(frame, area, modal, look);
    }
}

fn draw_modal(frame: &mut Frame<'_>, area: Rect, modal: &Modal, look: Look) {
    let (title, text) = match modal {
        Modal::Alert(words) => ("note", Text::from(format!("{words}\n\nany key closes"))),
        Modal::Ask(Asked::Find, input) => (
            "find",
            Text::from(format!(
                "{}▏\n\nan id, or a part of a key; empty: all\nEnter find  Esc cancel",
                input.text()
            )),
        ),
        Modal::Ask(Asked::Download { name, .. }, input) => {
            ("download", Text::from(format!("{name} to\n{}▏\n\nEnter save  Esc cancel", input.text())))
        }
        Modal::Confirm { path, .. } => {
            ("download", Text::from(format!("{path} is there already.\nReplace it?\n\ny yes  n no")))
        }
        Modal::Help => ("keys", Text::from(HELP)),
    };
    let width = text.width().max(30) as u16 + 4;
    let height = text.height() as u16 + 2;
    let [row] = Layout::vertical([Constraint::Length(height)]).flex(Flex::Center).areas(area);
    let [place] = Layout::horizontal([Constraint::Length(width)]).flex(Flex::Center).areas(row);
    frame.render_widget(Clear, place);
    frame.buffer_mut().set_style(place, look.base);
    let block = Block::bordered().title(title).border_style(look.strong);
    frame.render_widget(Paragraph::new(text).wrap(Wrap { trim: false }).block(block), place);
}

const HELP: &str = "\
everywhere    q quit  Esc/Backspace back  r refresh
              L light or dark  ? these keys
lists         j/k or arrows move  Enter open
              n/p or PgDn/PgUp page  Home/End
competitions  c show those that are over  b board
              a news of the arena  l what happened
competition   f find (an id, or a part of a key)
              m mine  t those that took the lead
              s sort by score or by time
              l read the submission's log
              b board, with the Pareto front  a news
              sees: c its code is shown to you, l its log
board         Enter open the submission; ◆: on the front
submission    Enter read a file, or close it
              l log, again: the next judge's
              d download the file
texts         arrows move by row, n/p by page

any key closes";

/// A block with a title.
pub(crate) fn framed(title: String, look: Look) -> Block<'static> {
    Block::bordered().title(title).border_style(look.quiet).title_style(look.strong)
}

/// Label and value in one line.
pub(crate) fn field(label: &str, value: impl Into<String>, look: Look) -> Line<'static> {
    Line::from(vec![Span::styled(format!("{label:<12}"), look.quiet), Span::from(value.into())])
}

/// A title line of a list.
pub(crate) fn header(text: String, look: Look) -> Line<'static> {
    Line::from(Span::styled(text, look.strong).underlined())
}

/// Text cut to a number of columns.
pub(crate) fn cut(text: &str, columns: usize) -> String {
    if text.chars().count() <= columns {
        return format!("{text:<columns$}");
    }
    let head: String = text.chars().take(columns.saturating_sub(1)).collect();
    format!("{head}…")
}
