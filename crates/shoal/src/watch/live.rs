//! The live view: a few lines at the bottom of the terminal that follow the run; events scroll by above them.

use std::io::{Stderr, stderr};
use std::time::Instant;

use anyhow::{Context, Result};
use node::progress::{MinerState, PhaseName, Progress, Status};
use ratatui::backend::{CrosstermBackend, TestBackend};
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Style, Stylize};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Paragraph, Widget};
use ratatui::{Terminal, TerminalOptions, Viewport};

use super::plain;
use super::view::View;
use crate::unit;

/// Lines of the view without the miners.
const FIXED_LINES: u16 = 4;
/// Most lines for miners.
const MINER_LINES: u16 = 16;
/// Most columns of the loss curve.
const CURVE_COLUMNS: usize = 60;

/// A picture that is drawn on stderr.
#[derive(Default)]
pub(crate) struct Live {
    pub(super) view: View,
    terminal: Option<Terminal<CrosstermBackend<Stderr>>>,
    /// When the newest status came.
    at: Option<Instant>,
}

impl std::fmt::Debug for Live {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Live").field("view", &self.view).finish_non_exhaustive()
    }
}

impl Live {
    /// Takes an event into the picture without drawing.
    pub(super) fn note(&mut self, event: &Progress) {
        self.view.apply(event);
    }

    /// Takes an event and draws.
    pub(super) fn event(&mut self, event: &Progress) -> Result<()> {
        self.view.apply(event);
        if let Progress::Status(status) = event {
            self.at = Some(Instant::now());
            self.open(status)?;
            return self.draw();
        }
        // Who joins is seen in the list of miners.
        if matches!(event, Progress::Joined { .. } | Progress::Epoch { .. }) {
            return Ok(());
        }
        plain::line(event).map_or(Ok(()), |line| self.say(&line))
    }

    /// Scrolls a line by above the picture.
    pub(super) fn say(&mut self, line: &str) -> Result<()> {
        let Some(terminal) = &mut self.terminal else { return super::note(line) };
        let width = usize::from(terminal.size()?.width.max(20));
        let rows = line.chars().count().div_ceil(width).max(1) as u16;
        let chars: Vec<char> = line.chars().collect();
        terminal
            .insert_before(rows, |buffer| {
                for (row, part) in chars.chunks(width).enumerate() {
                    let text: String = part.iter().collect();
                    buffer.set_string(buffer.area.x, buffer.area.y + row as u16, text, Style::new());
                }
            })
            .context("cannot draw on the terminal")
    }

    fn open(&mut self, status: &Status) -> Result<()> {
        if self.terminal.is_some() {
            return Ok(());
        }
        let height = FIXED_LINES + (status.miners.len().max(2) as u16).min(MINER_LINES);
        let options = TerminalOptions { viewport: Viewport::Inline(height) };
        let terminal = Terminal::with_options(CrosstermBackend::new(stderr()), options);
        self.terminal = Some(terminal.context("cannot draw on the terminal")?);
        Ok(())
    }

    /// Draws the picture.
    pub(super) fn draw(&mut self) -> Result<()> {
        let Some(terminal) = &mut self.terminal else { return Ok(()) };
        // Miners that join later than the first picture need more lines.
        let wanted = FIXED_LINES
            + (self.view.status.as_ref().map_or(0, |s| s.miners.len()).max(2) as u16).min(MINER_LINES);
        if terminal.get_frame().area().height < wanted && terminal.size()?.height > wanted {
            terminal.clear()?;
            let options = TerminalOptions { viewport: Viewport::Inline(wanted) };
            *terminal = Terminal::with_options(CrosstermBackend::new(stderr()), options)?;
        }
        let (view, since) = (&self.view, self.at.map_or(0.0, |at| at.elapsed().as_secs_f64()));
        terminal
            .draw(|frame| paint(view, since, frame.area(), frame.buffer_mut()))
            .map(|_| ())
            .context("cannot draw on the terminal")
    }

    /// Takes the picture away; what scrolled by stays.
    pub(super) fn close(&mut self) -> Result<()> {
        if let Some(mut terminal) = self.terminal.take() {
            terminal.clear().context("cannot draw on the terminal")?;
            terminal.show_cursor().context("cannot draw on the terminal")?;
        }
        Ok(())
    }

    /// The picture as text.
    pub(super) fn frame(&self, width: u16, height: u16) -> Result<String> {
        let mut terminal = Terminal::new(TestBackend::new(width, height))?;
        terminal.draw(|frame| paint(&self.view, 0.0, frame.area(), frame.buffer_mut()))?;
        let buffer = terminal.backend().buffer();
        let row = |y: u16| (0..width).map(|x| buffer[(x, y)].symbol()).collect::<String>();
        let text = (0..height).map(|y| row(y).trim_end().to_owned()).collect::<Vec<_>>().join("\n");
        Ok(text.trim_end().to_owned())
    }
}

/// Draws the picture; `since` seconds have passed since its status.
fn paint(view: &View, since: f64, area: Rect, buffer: &mut Buffer) {
    let mut lines = Vec::new();
    match &view.status {
        Some(status) => {
            lines.extend(head(view, status, since, area.width));
            let room = usize::from(area.height.saturating_sub(FIXED_LINES));
            lines.extend(miners(status, room, area.width));
        }
        None => lines.push(Line::from("waiting for the run to begin")),
    }
    Paragraph::new(lines).render(area, buffer);
}

fn head(view: &View, status: &Status, since: f64, width: u16) -> Vec<Line<'static>> {
    let mut first = vec![Span::from(plain::where_it_is(status)).bold()];
    if status.phase == PhaseName::Training && status.micro_batches > 0 {
        let share = status.micro_batches_done as f64 / status.micro_batches as f64;
        first.push(Span::from(format!("  {}", bar(share, 20))));
        first.push(Span::from(format!(
            " {}/{} micro-batches",
            status.micro_batches_done, status.micro_batches
        )));
    }
    if let Some(left) = status.left_s.filter(|_| status.phase != PhaseName::Finished) {
        first.push(Span::from(format!("  at most {} left", unit::seconds((left - since).max(0.0)))).dim());
    }
    let loss = |loss: Option<f64>| loss.map_or_else(|| "–".to_owned(), |loss| format!("{loss:.4}"));
    let columns = usize::from(width.saturating_sub(40)).min(CURVE_COLUMNS);
    let second = vec![
        Span::from("loss "),
        Span::from(loss(status.loss)).bold(),
        Span::from("  "),
        Span::from(view.sparkline(columns)).green(),
        Span::from(format!("  held-out {}", loss(status.heldout_loss))),
    ];
    let third = format!(
        "{:.0} tokens/s  {} tokens in {}  {} replays equal, {} not",
        status.tokens_per_s,
        unit::count(status.tokens),
        unit::seconds(status.elapsed_s + since),
        status.passed,
        status.failed
    );
    let ratio = status.activation_ratio.map(|r| format!(", {r:.1} times less than bf16")).unwrap_or_default();
    let merges = status.merge_ratio.map(|r| format!(", {r:.2} times less")).unwrap_or_default();
    let spared = status.memory_spared_bytes;
    let spared = if spared > 0 { format!("  spared {}", unit::bytes(spared)) } else { String::new() };
    let fourth = format!(
        "activations {}{ratio}  merges {}{merges}  codecs {}{spared}",
        unit::bytes(status.activation_bytes),
        unit::bytes(status.merge_bytes),
        unit::seconds(status.codec_s)
    );
    vec![Line::from(first), Line::from(second), Line::from(third), Line::from(fourth)]
}

fn miners(status: &Status, room: usize, width: u16) -> Vec<Line<'static>> {
    let shown = if status.miners.len() > room { room.saturating_sub(1) } else { status.miners.len() };
    let mut lines: Vec<Line<'static>> = status.miners[..shown]
        .iter()
        .map(|miner| {
            let stage = miner.stage.map_or_else(|| "–".to_owned(), |stage| stage.to_string());
            let state = plain::miner_state(miner.state);
            let style = match miner.state {
                MinerState::Waiting => Style::new().yellow(),
                MinerState::Training => Style::new().green(),
                MinerState::Merging => Style::new().cyan(),
                MinerState::Gone => Style::new().red(),
            };
            let mut spans = vec![
                Span::from(format!("  stage {stage:<2} {:<10}  ", miner.node)),
                Span::styled(format!("{state:<8}"), style),
                Span::from(format!("  busy {:>3.0} % {}", miner.busy * 100.0, bar(miner.busy, 10))),
            ];
            if width >= 80 {
                spans.push(Span::from(format!(
                    "  {:>4} micro-batches in {} steps of {}",
                    miner.micro_batches, miner.steps, miner.accumulate
                )));
            }
            Line::from(spans)
        })
        .collect();
    if shown < status.miners.len() {
        lines.push(Line::from(format!("  and {} more miners", status.miners.len() - shown)).dim());
    }
    lines
}

fn bar(share: f64, columns: usize) -> String {
    let filled = (share.clamp(0.0, 1.0) * columns as f64).round() as usize;
    format!("{}{}", "█".repeat(filled), "░".repeat(columns - filled))
}
