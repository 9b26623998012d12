//! A competition's board, and its Pareto front below it.

use std::collections::BTreeSet;

use api::model::{Board, BoardEntry, Pareto};
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::text::Line;
use ratatui::widgets::Paragraph;

use super::{Look, cut, framed, header};
use crate::format::{score, short, version};
use crate::{BOARD, Scene};

/// Columns of a row with what every terminal has room for, and those from which on there is more.
const NARROW: usize = 76;
const WIDE: usize = 110;

pub(super) fn draw(frame: &mut Frame<'_>, area: Rect, scene: &Scene<'_>, look: Look) {
    let Some(standing) = &scene.dash.board else { return };
    let Some(board) = &standing.board else {
        let block = framed(format!(" board of {} ", standing.name), look);
        frame.render_widget(Paragraph::new("…").block(block), area);
        return;
    };
    // Borders and the line of titles.
    let points = u16::try_from(board.pareto.len()).unwrap_or(u16::MAX);
    let front = if points == 0 { 0 } else { points.saturating_add(3).min(area.height / 2) };
    let [rows, points] = Layout::vertical([Constraint::Min(4), Constraint::Length(front)]).areas(area);
    draw_rows(frame, rows, &standing.name, board, standing.row, look);
    if front > 0 {
        let row = standing.row.checked_sub(board.rows.len());
        draw_front(frame, points, &board.pareto, row, look);
    }
}

fn draw_rows(frame: &mut Frame<'_>, area: Rect, name: &str, board: &Board, selected: usize, look: Look) {
    let pages = board.pagination.total.div_ceil(u64::from(BOARD)).max(1);
    let page = board.pagination.start_idx / u64::from(BOARD) + 1;
    let title = match board.round_number {
        None => format!(" board of {name}: no round was judged yet "),
        Some(round) => format!(
            " board of {name}: round {round} ({} rows, page {page} of {pages}) ",
            board.pagination.total
        ),
    };
    let wide = usize::from(area.width).saturating_sub(2) >= WIDE;
    let mut columns = format!(
        "{:>4} {:>7} {:<8} {:>4} {:>11} {:>9} {:>9} {:>10} {:<6}",
        "rank", "id", "key", "ver", "raw score", "ratio", "MB/s", "similarity", "front"
    );
    if wide {
        columns.push_str("      score  % of a day title");
    }
    let front: BTreeSet<u64> = board.pareto.iter().map(|point| point.submission_id).collect();
    let title_columns = usize::from(area.width).saturating_sub(2 + NARROW + 24);
    let lines = board.rows.iter().map(|row| {
        let line = told(row, front.contains(&row.submission_id));
        if !wide {
            return line;
        }
        let daily = row.daily_percent.map_or("–".to_owned(), |percent| format!("{percent:.5}"));
        let title = cut(&row.title, title_columns);
        format!("{line} {:>10} {daily:>11} {title}", score(Some(row.score)))
    });
    list(frame, area, title, &columns, &lines.collect::<Vec<_>>(), Some(selected), look);
}

/// A row without its line of titles.
fn told(row: &BoardEntry, front: bool) -> String {
    // A program has no such numbers.
    let codec = row.compression_ratio.is_some();
    format!(
        "{:>4} {:>7} {:<8} {:>4} {:>11} {:>9} {:>9} {:>10} {:<6}",
        row.rank,
        row.submission_id,
        short(&row.entrant),
        version(row.role, row.version),
        score(Some(row.raw_score)),
        row.compression_ratio.map_or("–".to_owned(), |ratio| format!("{ratio:.4}")),
        if codec && row.bytes_per_s > 0 { speed(row.bytes_per_s) } else { "–".to_owned() },
        row.similarity.map_or("–".to_owned(), |similarity| format!("{similarity:.6}")),
        if front { "◆" } else { "" },
    )
}

fn speed(bytes_per_s: u64) -> String {
    format!("{:.1}", bytes_per_s as f64 / 1e6)
}

fn draw_front(frame: &mut Frame<'_>, area: Rect, points: &[Pareto], selected: Option<usize>, look: Look) {
    let title =
        format!(" Pareto front ({}): none better in ratio, speed and fidelity at once ", points.len());
    let columns = format!("{:>12} {:<8} {:>26} {:>9} {:>10}", "id", "key", "ratio", "MB/s", "similarity");
    let row = |point: &Pareto| {
        format!(
            "{:>12} {:<8} {:>26.4} {:>9} {:>10.6}",
            point.submission_id,
            short(&point.entrant),
            point.compression_ratio,
            speed(point.bytes_per_s),
            point.similarity
        )
    };
    list(frame, area, title, &columns, &points.iter().map(row).collect::<Vec<_>>(), selected, look);
}

/// A framed list whose selected row, if it is one of its own, is in sight.
fn list(
    frame: &mut Frame<'_>,
    area: Rect,
    title: String,
    columns: &str,
    rows: &[String],
    selected: Option<usize>,
    look: Look,
) {
    let block = framed(title, look);
    let inner = block.inner(area);
    frame.render_widget(block, area);
    let [head, place] = Layout::vertical([Constraint::Length(1), Constraint::Min(1)]).areas(inner);
    frame.render_widget(header(columns.to_owned(), look), head);
    if rows.is_empty() {
        frame.render_widget(Paragraph::new("none").style(look.quiet), place);
        return;
    }
    let height = usize::from(place.height);
    let at = selected.map_or(0, |row| row.min(rows.len() - 1));
    let first = at.saturating_sub(height.saturating_sub(1));
    let lines = rows.iter().enumerate().skip(first).take(height).map(|(index, row)| {
        let line = Line::from(row.as_str());
        if Some(index) == selected { line.style(look.selected) } else { line }
    });
    frame.render_widget(Paragraph::new(lines.collect::<Vec<_>>()), place);
}
