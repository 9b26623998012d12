//! Competitions in a table.

use api::model::Competition;
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::text::Line;
use ratatui::widgets::Paragraph;
use wire::Millis;

use super::{Look, cut, framed, header};
use crate::Scene;
use crate::format::{bar, part, score, span, state};

/// Cells of the bar of a round.
const BAR: usize = 8;

pub(super) fn draw(frame: &mut Frame<'_>, area: Rect, scene: &Scene<'_>, look: Look) {
    let home = &scene.dash.home;
    let total = home.pagination.map_or(0, |page| page.total);
    let which = if home.completed { "all competitions" } else { "competitions" };
    let block = framed(format!(" {which} ({total}) "), look);
    let inner = block.inner(area);
    frame.render_widget(block, area);
    let [head, rows] = Layout::vertical([Constraint::Length(1), Constraint::Min(1)]).areas(inner);
    let name = usize::from(inner.width).saturating_sub(59).clamp(12, 40);
    let columns =
        format!("{} {:<11} {:<24} {:>10} {:>9}", cut("name", name), "state", "round", "top score", "rewards");
    frame.render_widget(header(columns, look), head);
    if home.rows.is_empty() {
        let words = if scene.dash.busy { "…" } else { "no competitions; c shows those that are over" };
        frame.render_widget(Paragraph::new(words).style(look.quiet), rows);
        return;
    }
    let height = usize::from(rows.height);
    let first = home.row.saturating_sub(height.saturating_sub(1));
    let lines = home.rows.iter().enumerate().skip(first).take(height).map(|(index, found)| {
        let line = Line::from(row(found, name, scene.now));
        if index == home.row { line.style(look.selected) } else { line }
    });
    frame.render_widget(Paragraph::new(lines.collect::<Vec<_>>()), rows);
}

fn row(found: &Competition, name: usize, now: Millis) -> String {
    let round = found.curr_round.as_ref().map_or_else(
        || found.next_round_at.map_or("–".to_owned(), |at| format!("opens in {}", span(at.0.since(now).0))),
        |round| {
            let passed = bar(part(now, round.start_at, round.end_at), BAR);
            let left = match round.state.as_str() {
                "open" => span(round.end_at.0.since(now).0),
                other => other.to_owned(),
            };
            format!("R{} {passed} {left}", round.round_number)
        },
    );
    let top = score(found.top.as_ref().map(|top| top.score));
    let rewards = format!("{:.2} %", found.max_emissions_percent);
    format!(
        "{} {} {} {top:>10} {rewards:>9}",
        cut(&found.name, name),
        cut(&state(&found.state), 11),
        cut(&round, 24)
    )
}
