//! Competitions in a table.

use api::model::Competition;
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::text::Line;
use ratatui::widgets::Paragraph;
use wire::Millis;

use super::{Look, cut, framed, header};
use crate::Scene;
use crate::format::{bar, part, score, short, span, state};

/// Cells of the bar of a round.
const BAR: usize = 8;
/// Columns from which on there is room for all that is told of a competition.
const WIDE: usize = 110;

pub(super) fn draw(frame: &mut Frame<'_>, area: Rect, scene: &Scene<'_>, look: Look) {
    let home = &scene.dash.home;
    let total = home.pagination.map_or(0, |page| page.total);
    let which = if home.completed { "all competitions" } else { "competitions" };
    let block = framed(format!(" {which} ({total}) "), look);
    let inner = block.inner(area);
    frame.render_widget(block, area);
    let [head, rows] = Layout::vertical([Constraint::Length(1), Constraint::Min(1)]).areas(inner);
    let wide = usize::from(inner.width) >= WIDE;
    let taken = if wide { 59 + 8 + 1 + 7 + 1 + 9 + 9 } else { 59 };
    let name = usize::from(inner.width).saturating_sub(taken).clamp(12, 40);
    let columns = if wide {
        format!(
            "{:<8} {} {:<11} {:<7} {:<24} {:>10} {:>8} {:>8} {:>8}",
            "id",
            cut("name", name),
            "state",
            "kind",
            "round",
            "top score",
            "min burn",
            "rewards",
            "at most"
        )
    } else {
        format!("{} {:<11} {:<24} {:>10} {:>9}", cut("name", name), "state", "round", "top score", "rewards")
    };
    frame.render_widget(header(columns, look), head);
    if home.rows.is_empty() {
        let words = if scene.dash.busy { "…" } else { "no competitions; c shows those that are over" };
        frame.render_widget(Paragraph::new(words).style(look.quiet), rows);
        return;
    }
    let height = usize::from(rows.height);
    let first = home.row.saturating_sub(height.saturating_sub(1));
    let lines = home.rows.iter().enumerate().skip(first).take(height).map(|(index, found)| {
        let line = Line::from(row(found, name, wide, scene.now));
        if index == home.row { line.style(look.selected) } else { line }
    });
    frame.render_widget(Paragraph::new(lines.collect::<Vec<_>>()), rows);
}

fn row(found: &Competition, name: usize, wide: bool, now: Millis) -> String {
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
    let percent = |value: f64| format!("{value:.2} %");
    if wide {
        return format!(
            "{} {} {} {:<7} {} {top:>10} {:>8} {:>8} {:>8}",
            short(&found.id),
            cut(&found.name, name),
            cut(&state(&found.state), 11),
            found.kind,
            cut(&round, 24),
            percent(found.base_burn_percent),
            percent(found.emissions_percent),
            percent(found.max_emissions_percent),
        );
    }
    let rewards = percent(found.max_emissions_percent);
    format!(
        "{} {} {} {top:>10} {rewards:>9}",
        cut(&found.name, name),
        cut(&state(&found.state), 11),
        cut(&round, 24)
    )
}
