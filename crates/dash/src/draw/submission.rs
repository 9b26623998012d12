//! One submission: what it is, its numbers, its files, and the file that is read.

use std::ops::Range;

use api::model::{About, EntryRole, FileRow, Gated, Metric, SubmissionDetail};
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Paragraph, Wrap};
use wire::Millis;

use super::{Look, cut, field, framed};
use crate::files::{Entry, Open};
use crate::format::{bytes, figure, moment, plain, score, short, state, took, until};
use crate::highlight::Part;
use crate::text::Room;
use crate::{Scene, results_shown};

/// Columns of a number's name: as few as it needs to be told, as many as it needs at most.
const LABEL_MIN: usize = 12;
const LABEL_MAX: usize = 24;
/// Columns of the screen from which on a file stands beside its submission.
const BESIDE: u16 = 110;

pub(super) fn draw(frame: &mut Frame<'_>, area: Rect, scene: &Scene<'_>, look: Look) {
    let Some(entry) = &scene.dash.entry else { return };
    // A log has long lines: where there is little room it gets all of it.
    if let Some(open) = entry.open.as_ref().filter(|_| area.width < BESIDE) {
        return draw_file(frame, area, open, look);
    }
    let Some(found) = &entry.found else {
        let block = framed(format!(" submission {} ", entry.id), look);
        frame.render_widget(Paragraph::new("…").block(block), area);
        return;
    };
    let left = Constraint::Length(left_of(area.width));
    let [left, right] = Layout::horizontal([left, Constraint::Min(20)]).areas(area);
    let rows = found.files.len().clamp(1, 8) as u16 + 2;
    let [about, files] = Layout::vertical([Constraint::Min(6), Constraint::Length(rows)]).areas(left);
    draw_about(frame, about, found, scene.now, look);
    draw_files(frame, files, entry, look);
    match (&entry.open, &entry.gate) {
        (Some(open), _) => draw_file(frame, right, open, look),
        (None, Some((name, gate))) => {
            draw_gate(frame, right, name, gate, results_shown(found), scene.now, look);
        }
        (None, None) => draw_numbers(frame, right, found, look),
    }
}

fn draw_about(frame: &mut Frame<'_>, area: Rect, found: &SubmissionDetail, now: Millis, look: Look) {
    let row = &found.submission;
    let version = match row.role {
        EntryRole::Baseline => "the baseline".to_owned(),
        EntryRole::Incumbent => "automatic".to_owned(),
        EntryRole::Challenger => format!("version {}", row.version),
    };
    let rank = row.rank.filter(|_| row.revealed).map_or(String::new(), |rank| format!(", rank {rank}"));
    let scores = if row.revealed {
        format!("{}, raw {}", score(row.score), score(row.raw_score))
    } else {
        results_shown(found).to_owned()
    };
    let mut lines = vec![
        field("competition", row.competition.clone(), look),
        field("round", format!("{} ({})", row.round_number, found.round_state), look),
        field("key", format!("{}, {version}", short(&row.entrant)), look),
        field("state", format!("{}{rank}", state(&row.state)), look),
        field("score", scores, look),
        field("submitted", moment(row.submitted_at), look),
    ];
    if let Some(at) = row.eval_at {
        lines.push(field("judged", moment(at), look));
    }
    if let Some(seconds) = row.eval_time_in_seconds {
        lines.push(field("took", took(seconds), look));
    }
    if let Some(error) = &row.eval_error {
        lines.push(field("failed", error.clone(), look));
    }
    let code = match (row.code_revealed, row.reveal_at) {
        _ if found.code_bytes.is_none() => "sealed".to_owned(),
        (true, _) => "shown".to_owned(),
        (false, Some(at)) => format!("shown {}", until(now, at)),
        (false, None) => "hidden".to_owned(),
    };
    lines.push(field("code", code, look));
    if !found.parents.is_empty() {
        let line: Vec<String> = found.lineage.iter().map(|id| format!("#{id}")).collect();
        lines.push(field("lineage", line.join(" ← "), look));
    }
    for (label, text) in found.about.iter().flat_map(About::said) {
        lines.push(field(label, text.replace('\n', " "), look));
    }
    if let Some(of) = found.copy_of.or(found.echo_of) {
        lines.push(field("repeats", format!("#{of}"), look));
    }
    if found.entrusted {
        lines.push(field("seal", "kept by the host", look));
    }
    let mark = if row.top_score { " ★" } else { "" };
    let block = framed(format!(" submission {}{mark} ", row.id), look);
    frame.render_widget(Paragraph::new(lines).wrap(Wrap { trim: false }).block(block), area);
}

fn draw_files(frame: &mut Frame<'_>, area: Rect, entry: &Entry, look: Look) {
    let block = framed(" files ".to_owned(), look);
    let inner = block.inner(area);
    frame.render_widget(block, area);
    let height = usize::from(inner.height);
    let first = entry.row.saturating_sub(height.saturating_sub(1));
    let line = |(index, file): (usize, &FileRow)| {
        let size = match (file.revealed, file.bytes) {
            (false, _) => "hidden".to_owned(),
            (true, Some(len)) => bytes(len),
            (true, None) => String::new(),
        };
        let name = usize::from(inner.width).saturating_sub(11);
        let line = Line::from(format!("{} {size:>10}", cut(&file.name, name)));
        match () {
            () if index == entry.row => line.style(look.selected),
            () if !file.revealed => line.style(look.quiet),
            () => line,
        }
    };
    let lines: Vec<Line<'_>> = entry.files().iter().enumerate().skip(first).take(height).map(line).collect();
    frame.render_widget(Paragraph::new(lines), inner);
}

fn draw_numbers(frame: &mut Frame<'_>, area: Rect, found: &SubmissionDetail, look: Look) {
    let mut lines = Vec::new();
    if found.summary.is_empty() {
        let words = if found.submission.revealed { "nothing was measured" } else { results_shown(found) };
        lines.push(Line::from(Span::styled(words, look.quiet)));
    } else {
        lines.extend(table(&found.summary, usize::from(area.width.saturating_sub(2)), look));
    }
    for judgement in &found.judgements {
        let what = match &judgement.failure {
            Some(failed) => failed.words(),
            None => "measured".to_owned(),
        };
        lines.push(Line::default());
        lines.push(Line::from(vec![
            Span::styled(format!("judge {} ", short(&judgement.judge)), look.strong),
            Span::from(format!("of {}: {what}", judgement.operator)),
        ]));
        if let Some(seconds) = judgement.wall_task_time_s {
            lines.push(Line::from(format!("  {} an input by its clock", figure(seconds, "s"))));
        }
        let machine = judgement.machine.words();
        if !machine.is_empty() {
            lines.push(Line::from(format!("  {}", judgement.usage.words())));
            lines.push(Line::from(format!("  {machine}")));
        }
    }
    let block = framed(" metrics ".to_owned(), look);
    frame.render_widget(Paragraph::new(lines).wrap(Wrap { trim: false }).block(block), area);
}

/// Numbers beside the baseline's, where there is room for both.
fn table(summary: &[Metric], width: usize, look: Look) -> Vec<Line<'static>> {
    let row = |metric: &Metric| {
        let base = metric.baseline_value.map_or("–".to_owned(), |value| figure(value, &metric.unit));
        (metric.label.clone(), figure(metric.value, &metric.unit), base)
    };
    let rows: Vec<(String, String, String)> = summary.iter().map(row).collect();
    let widest = |of: fn(&(String, String, String)) -> &String, head: &str| {
        let widths = rows.iter().map(|row| of(row).chars().count());
        widths.chain([head.len()]).max().unwrap_or(0)
    };
    let (this, base) = (widest(|row| &row.1, "this") + 1, widest(|row| &row.2, "baseline") + 1);
    let both = this + base + LABEL_MIN <= width;
    let label = width.saturating_sub(this + if both { base } else { 0 }).min(LABEL_MAX);
    let line = |name: &str, value: &str, other: &str| {
        let other = if both { format!("{other:>base$}") } else { String::new() };
        format!("{}{value:>this$}{other}", cut(name, label))
    };
    let head = Line::from(Span::styled(line("", "this", "baseline"), look.quiet));
    let rows = rows.iter().map(|(name, value, other)| Line::from(line(name, value, other)));
    std::iter::once(head).chain(rows).collect()
}

/// Why a file is not shown, in the host's own words.
fn draw_gate(
    frame: &mut Frame<'_>,
    area: Rect,
    name: &str,
    gate: &Gated,
    results: &str,
    now: Millis,
    look: Look,
) {
    let mut lines = vec![
        Line::from(Span::styled(gate.reason.clone(), look.strong)),
        Line::from(plain(&gate.message)),
        Line::default(),
    ];
    if let Some(round) = &gate.round_state {
        lines.push(field("round", round.clone(), look));
    }
    if let Some(at) = gate.round_end_at {
        let word = if at.0 > now { "closes" } else { "closed" };
        lines.push(field(word, until(now, at), look));
        lines.push(field("", moment(at), look));
    }
    match gate.reveal_at {
        Some(at) => {
            lines.push(field("shown", until(now, at), look));
            lines.push(field("", moment(at), look));
        }
        None if gate.reason == "round_not_completed" => lines.push(field("shown", results, look)),
        None if gate.reason == "code_not_revealed" => {
            lines.push(field("shown", "some time after the round", look));
        }
        None => {}
    }
    lines.push(Line::default());
    lines.push(Line::from(Span::styled("Enter closes", look.quiet)));
    let block = framed(format!(" {} ", plain(name)), look);
    frame.render_widget(Paragraph::new(lines).wrap(Wrap { trim: false }).block(block), area);
}

/// Columns and rows of a file with a number of lines, on a screen of a size.
pub(crate) fn file_room((width, height): (u16, u16), total: u64) -> Room {
    let columns = if width < BESIDE { width } else { width - left_of(width) };
    // The title and the keys of the screen, and the borders.
    inner_room(columns.saturating_sub(2), height.saturating_sub(4), total)
}

/// Where a file's lines stand in a frame: behind their numbers.
fn inner_room(width: u16, height: u16, total: u64) -> Room {
    Room { columns: usize::from(width).saturating_sub(digits(total) + 1).max(1), rows: height.into() }
}

fn digits(total: u64) -> usize {
    total.max(1).ilog10() as usize + 1
}

fn left_of(width: u16) -> u16 {
    if width >= 100 { 42 } else { 38 }
}

fn draw_file(frame: &mut Frame<'_>, area: Rect, open: &Open, look: Look) {
    let text = &open.text;
    let place = match text.lines.len() {
        0 => String::new(),
        _ => format!(" {} of {}", text.place.line + 1, open.total),
    };
    let block = framed(format!(" {}{place} ", open.name), look);
    let inner = block.inner(area);
    frame.render_widget(block, area);
    if open.binary {
        frame.render_widget(Paragraph::new("not text: d downloads it").style(look.quiet), inner);
        return;
    }
    let digits = digits(open.total);
    let mut parts = (usize::MAX, Vec::new());
    let mut lines: Vec<Line<'_>> = Vec::with_capacity(inner.height.into());
    // Long lines go on in the next row: nothing of a log is out of sight.
    for (index, row) in text.shown(inner_room(inner.width, inner.height, open.total)) {
        if parts.0 != index {
            parts = (index, open.parts(index));
        }
        let number = if row.start == 0 { format!("{:>digits$} ", index + 1) } else { " ".repeat(digits + 1) };
        let mut line = vec![Span::styled(number, look.quiet)];
        line.extend(coloured(&text.lines[index], row, &parts.1, look));
        lines.push(Line::from(line));
    }
    frame.render_widget(Paragraph::new(lines), inner);
}

/// A row of a line, its parts in their styles.
fn coloured<'a>(
    text: &'a str,
    row: Range<usize>,
    parts: &[(Range<usize>, Part)],
    look: Look,
) -> Vec<Span<'a>> {
    let (mut spans, mut at) = (Vec::new(), row.start);
    for (range, part) in parts {
        let (from, to) = (range.start.clamp(at, row.end), range.end.clamp(at, row.end));
        if from < to {
            spans.push(Span::from(&text[at..from]));
            spans.push(Span::styled(&text[from..to], look.part(*part)));
            at = to;
        }
    }
    spans.push(Span::from(&text[at..row.end]));
    spans
}
